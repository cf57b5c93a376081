"""How to reach an object store: endpoint and credentials, from where the programs of its maker look for them.

What is found here goes to the client library and nowhere else: it is in no store, event or message.

    s3      AWS_* of the environment; else the profile AWS_PROFILE (default) of ~/.aws/credentials and
            ~/.aws/config; else what the machine is (container, EC2 instance)
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
"""Keys of a profile are read again after this time: whoever renews them need not restart a run."""

OF_THE_MACHINE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Each says how to do without keys."""


def settings(scheme: str) -> dict[str, Any]:
    """Arguments of `obstore.store.from_url` beyond what it takes from the environment itself.

    JobError where it is certain that there are no credentials.
    """
    if scheme == "s3":
        return _amazon()
    if scheme == "az":
        return _azure()
    return _client(scheme if scheme in LINKS else os.environ.get("GOOGLE_BASE_URL", ""))


def endpoint_of(scheme: str) -> str:
    """Where requests go, for messages; "" for the maker's own."""
    return _endpoint(_profile()) if scheme == "s3" else ""


def _amazon() -> dict[str, Any]:
    profile = _profile()
    found: dict[str, Any] = {}
    endpoint = _endpoint(profile)
    if endpoint:
        found["endpoint"] = endpoint
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
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
        endpoint, account = "http:", "devstoreaccount1"
    if not account:
        raise JobError("no account is given; set AZURE_STORAGE_ACCOUNT_NAME")
    # Given again: the library cannot print a store whose account it has from the environment.
    return {"account_name": account} | _client(endpoint)


def _client(endpoint: str) -> dict[str, Any]:
    """Without TLS only where the endpoint says so."""
    return {"client_options": {"allow_http": endpoint.partition(":")[0] == "http"}}


def _endpoint(profile: dict[str, str]) -> str:
    named = map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return next(filter(None, named), None) or profile.get("endpoint_url", "")


def _asks_the_machine(endpoint: str) -> bool:
    """Whether an EC2 instance's own credentials may be meant: only Amazon knows them."""
    off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    return not off and (not endpoint or ".amazonaws." in endpoint)


def _profile() -> dict[str, str]:
    """The fields of the profile in use; JobError where AWS_PROFILE names one that is not there."""
    name = os.environ.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        path = Path(os.environ.get(variable) or default).expanduser()
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        try:
            parser.read(path)
        except (configparser.Error, OSError, UnicodeDecodeError):
            # What the parser says would quote the line, which may be a key.
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
