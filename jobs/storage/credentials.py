"""Endpoint and credentials of an object store, looked up where the vendor's own tools look.

Credentials found here are passed to the client library only: no store, event or message contains them.

    s3      AWS_* of the environment; else the profile AWS_PROFILE (by default `default`) of ~/.aws/credentials
            and ~/.aws/config; else the machine's own role (container, EC2 instance)
    gs, az  GOOGLE_*, AZURE_*, which the client library reads itself
"""

import configparser
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.errors import JobError
from jobs.storage.addresses import LINKS

REREAD = timedelta(minutes=5)
"""Interval at which the keys of a profile are read again, so that renewed keys need no restart of a run."""

OF_THE_MACHINE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Environment variables that give access without keys; one is enough."""


def settings(scheme: str) -> dict[str, Any]:
    """Return the arguments that `obstore.store.from_url` needs beyond the environment, which it reads itself.

    Raises:
        JobError: there are certainly no credentials, no Azure account, or no readable AWS profile.
    """
    if scheme == "s3":
        return _amazon()
    if scheme == "az":
        return _azure()
    return _client(scheme if scheme in LINKS else os.environ.get("GOOGLE_BASE_URL", ""))


def endpoint_of(scheme: str) -> str:
    """Return the endpoint set for s3, for messages; "" for the vendor's own, and for other schemes."""
    return _endpoint(_profile()) if scheme == "s3" else ""


def _amazon() -> dict[str, Any]:
    profile = _profile()
    found: dict[str, Any] = {}
    endpoint = _endpoint(profile)
    if endpoint:
        found["endpoint"] = endpoint
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        # Every signature names a region. Servers other than Amazon's usually accept this one.
        found["region"] = profile.get("region", "us-east-1")
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        if "aws_access_key_id" in profile:
            found["credential_provider"] = _keys_of_profile
        elif not any(map(os.environ.get, OF_THE_MACHINE)) and not _asks_the_machine(endpoint):
            raise JobError(
                "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials"
            )
    return found | _client(endpoint)


def _azure() -> dict[str, Any]:
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT", "")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        endpoint, account = "http:", "devstoreaccount1"  # the one account of the emulator
    if not account:
        raise JobError("no account is given; set AZURE_STORAGE_ACCOUNT_NAME")
    # Passed again: the library cannot print a store whose account comes from the environment.
    return {"account_name": account} | _client(endpoint)


def _client(endpoint: str) -> dict[str, Any]:
    """Return client options that allow plain HTTP only if the endpoint is an http address."""
    return {"client_options": {"allow_http": endpoint.partition(":")[0] == "http"}}


def _endpoint(profile: dict[str, str]) -> str:
    named = map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return next(filter(None, named), None) or profile.get("endpoint_url", "")


def _asks_the_machine(endpoint: str) -> bool:
    """Whether the credentials may come from the EC2 instance: only Amazon's own endpoints accept those."""
    off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    return not off and (not endpoint or ".amazonaws." in endpoint)


def _profile() -> dict[str, str]:
    """Return the fields of the AWS profile in use; empty if there is none.

    Raises:
        JobError: AWS_PROFILE names a profile that does not exist, or a file cannot be read as profiles.
    """
    name = os.environ.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    # The keys come last, so that they win; the two files name the same profile differently.
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        path = Path(os.environ.get(variable) or default).expanduser()
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read(path)
        except (configparser.Error, OSError, UnicodeDecodeError):
            # The parser's message quotes the line, which may contain a key.
            raise JobError(f"{path}: is not a file of AWS profiles") from None
        if section in parser:
            found |= parser[section]
    if not found and os.environ.get("AWS_PROFILE"):
        raise JobError(f"AWS_PROFILE: ~/.aws has no profile {name!r}")
    return found


def _keys_of_profile() -> Any:
    profile = _profile()
    return {
        "access_key_id": profile["aws_access_key_id"],
        "secret_access_key": profile.get("aws_secret_access_key", ""),
        "token": profile.get("aws_session_token"),
        "expires_at": datetime.now(UTC) + REREAD,
    }
