"""Keep credentials out of pages, logs and errors that others read: secrets in texts become ***."""

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NAME = r"[\w.-]*(?:secret|token|passw(?:or)?d|passphrase|credential|(?:api|access|account|private)[_-]?key|signature|authorization)[\w.-]*"
_PATTERNS = [
    # user:password@ in an address
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{HIDDEN}@"),
    # Authorization: Bearer ... and the like
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.I), rf"\1 {HIDDEN}"),
    # name=value, "name": "value", --name value, ?name=value&
    (
        re.compile(
            rf"(?P<name>\b{_NAME}['\"]?\s*[=:]\s*|--{_NAME}\s+)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&'\")}}\]]+)",
            re.I,
        ),
        rf"\g<name>{HIDDEN}",
    ),
    (re.compile(r"([?&](?:sig|key|se|sv)=)[^&\s'\"]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.S),
        HIDDEN,
    ),
]
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|signature|auth", re.I)

SHORTEST = 8
"""Shorter values of environment variables are taken for words, not secrets."""


def secrets_of(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The values of environment variables whose names say that they are secret, longest first."""
    secrets = {
        value
        for name, value in environment.items()
        # An absolute path to a file that holds a secret is not itself secret.
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST and not os.path.isabs(value)
    }
    return sorted(secrets, key=len, reverse=True)


def redact(content: object, secrets: list[str] | None = None) -> Any:
    """Put *** in place of every text in JSON content that is, or looks like, a credential.

    secrets: texts to hide; by default those of `secrets_of`.
    """
    secrets = secrets_of() if secrets is None else secrets
    if isinstance(content, dict):
        return {redact(str(key), secrets): redact(value, secrets) for key, value in content.items()}
    if isinstance(content, list):
        return [redact(value, secrets) for value in content]
    if not isinstance(content, str):
        return content
    for secret in secrets:
        content = content.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        content = pattern.sub(replacement, content)
    return content
