"""Open the objects at an address: a folder, an object store or a zip archive.

Endpoint and credentials of an object store are looked up where the vendor's own tools look. They are passed to the client library only: no
store, event or message contains them.

    s3      AWS_* of the environment; else the profile AWS_PROFILE (by default `default`) of ~/.aws/credentials
            and ~/.aws/config; else the machine's own role (container, EC2 instance)
    gs, az  GOOGLE_*, AZURE_*, which the client library reads itself

A zip archive is read into memory as a whole; what is written to it there is lost when the process ends.
"""

import configparser
import os
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from glob import escape
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from jobs import keys
from jobs.errors import JobError
from jobs.storage import addresses, objects

IMPATIENT: dict[str, Any] = {
    "client_options": {"connect_timeout": "3s", "timeout": "5s"},
    "retry_config": {
        "max_retries": 4,
        "retry_timeout": timedelta(seconds=5),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1)},
    },
}  # fmt: skip
"""Options of the first request: short, because a user waits to hear that no server answers."""

PATIENT: dict[str, Any] = {
    "client_options": {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "10m"},
    "retry_config": {
        "max_retries": 100,  # `retry_timeout` is what limits
        "retry_timeout": timedelta(seconds=60),
        # Each wait is drawn between `init_backoff` and `base` times the previous one: 2 would not grow.
        "backoff": {
            "init_backoff": timedelta(seconds=0.1),
            "max_backoff": timedelta(seconds=10),
            "base": 3,
        },
    },
}  # fmt: skip
"""Options of all other requests: a run should not notice a server that is busy (503) or gone for a minute."""

REREAD = timedelta(minutes=5)
"""Interval at which the keys of a profile are read again, so that renewed keys need no restart of a run."""

OF_THE_MACHINE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Environment variables that give access without keys; one is enough."""

MOST_BYTES, MOST_PACKED, MOST_MEMBER = 4 << 30, 1 << 28, 1 << 24
"""Most bytes of an archive that are read into memory; of them, from compressed members, which are metadata in ctd's archives and
may grow a thousandfold in a stranger's; and from a single member."""


def open_objects(address: str, *, create: bool = False) -> ObjectStore:
    """Return the objects under `address`: a path, file://, s3://, gs:// or az://. create: make the folder if there is none.

    Raises JobError, within seconds, if there is no folder (with `create`: it cannot be made) or no bucket, the server does not
    answer, or credentials are missing or wrong.
    """
    objects.refuse_fork()
    path = addresses.local_path(addresses.refuse_empty(address))
    if path is None:
        if addresses.scheme(address) not in addresses.BUCKETS:
            raise JobError(
                f"{address}: can hold data, but no store; give a path, or an address of s3, gs or az"
            )
        # Unlike a read, a listing distinguishes a missing bucket from a missing key; this one is short.
        first_request(address, lambda place: next(obstore.list(place, f"{keys.LEASE}/"), None))
        return remote(address)
    addresses.refuse_undecoded(str(path.absolute()))
    try:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif addresses.is_zip(path):
            return read_zip(path)
        elif not path.is_dir():
            raise JobError(f"{path}: {_what_is_there(path)}")
        # automatic_cleanup: a deletion removes the folders that it leaves empty.
        return LocalStore(path.absolute(), automatic_cleanup=True)
    except FileExistsError as error:  # it, or a folder that it lies in
        obstacle = Path(error.filename)
        raise JobError(f"{obstacle}: {_what_is_there(obstacle)}") from None
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror or error}") from None


def _what_is_there(path: Path) -> str:
    """Return, for a message, what is at a path in place of a store, and what may be meant."""
    if path.exists():
        # A pipeline JOB.yaml has a store for each stage, JOB.STAGE.zarr.
        stores = sorted(str(p) for p in path.parent.glob(f"{escape(path.stem)}.*zarr"))
        advice = f"give one of its stores: {', '.join(stores)}" if stores else "a store is a folder"
        return f"is a file; {advice}"
    if path.is_symlink():
        return f"is a link to {path.readlink()}, where nothing is"
    if re.search(r" [<>=!]=? ", str(path)):
        return "no such store; give a condition as --where"
    # `ctd ls` shows names without the ending.
    near = [f"{path}{end}" for end in (".zarr", ".zip") if Path(f"{path}{end}").exists()]
    return f"no such store{f'; did you mean {near[0]}?' if near else ''}"


def remote(address: str, patience: dict[str, Any] = PATIENT) -> ObjectStore:
    """Return the objects under a remote address, without a request. Raises JobError if it is not valid, or without credentials.

    patience: timeouts and retries, `IMPATIENT` or `PATIENT`.
    """
    try:
        options = settings(addresses.scheme(address))
        options["client_options"] = patience["client_options"] | options["client_options"]
        return from_url(address, **(patience | options))
    except (JobError, BaseError, ValueError) as error:
        raise JobError(f"{address}: {objects.reason(error)}") from None


def first_request[T](
    address: str, request: Callable[[ObjectStore], T], bucket: ObjectStore | None = None
) -> T:
    """Return `request(objects under the address)`, the first there; repeated for a minute where a server answers that it is busy.

    bucket: the objects of the whole bucket, for a request there. Raises JobError if the server refuses it, StorageFailed if none answers.
    """
    try:
        try:
            return request(bucket or remote(address, IMPATIENT))
        except BaseError as error:
            if not objects.is_busy(error):
                raise
        return request(remote("/".join(address.split("/")[:3]) if bucket else address))
    except (BaseError, FileNotFoundError) as error:
        text = f"{address}: {objects.reason(error)}"
        if server := addresses.scheme(address) == "s3" and _endpoint(_profile()):
            text += f" (the server is {server}, from AWS_ENDPOINT_URL or ~/.aws/config)"
        raise objects.failed(text, error) from None


def refuse_taken(address: str) -> None:
    """Raise JobError if there is a file at an address, which a command would replace.

    >>> refuse_taken("not_there.h5")
    """
    path = addresses.local_path(address)
    if path is not None:
        exists = path.is_file()
    else:
        read = lambda place: objects.read_range(place, "", 0, 1)
        exists = first_request(address, read) is not None
    if exists:
        raise JobError(f"{address}: exists already; delete it, or give another name")


# --- a store in a zip archive ---------------------------------------------------------------------


def read_zip(path: Path) -> MemoryStore:
    """Return the objects in an archive. Raises JobError if it is none, damaged, or too large for the memory."""
    from ctd.containers import opened_zip  # here: it imports h5py

    store = MemoryStore()
    try:
        with opened_zip(path, "an archive of a store") as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            packed = [m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED]
            if sum(m.file_size for m in members) > MOST_BYTES or sum(packed) > MOST_PACKED:
                raise JobError(
                    f"{path}: holds more than is read into memory ({MOST_BYTES >> 30} GiB, {MOST_PACKED >> 20} MiB of it "
                    f"compressed); unpack it, and open the folder: {addresses.to_unpack(path)}"
                )
            for member in members:
                obstore.put(store, member.filename, archive.read(member))
    except (ValueError, BaseError) as error:
        raise JobError(str(error).splitlines()[0]) from None
    return store


def read_member(path: Path, key: str) -> bytes | None:
    """Return one small object in an archive; None if there is none, or the archive cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(key) if archive.getinfo(key).file_size <= MOST_MEMBER else None
    except Exception:  # zipfile passes on what zlib, struct and codecs raise at damaged bytes
        return None


# --- endpoint and credentials ---------------------------------------------------------------------


def settings(scheme: str) -> dict[str, Any]:
    """Return the arguments that `obstore.store.from_url` needs beyond the environment, which it reads itself.

    Raises JobError if there are certainly no credentials, no Azure account, or no readable AWS profile.
    """
    if scheme == "s3":
        return _amazon()
    if scheme == "az":
        return _azure()
    return _client(scheme if scheme in addresses.LINKS else os.environ.get("GOOGLE_BASE_URL", ""))


def _amazon() -> dict[str, Any]:
    profile = _profile()
    options: dict[str, Any] = {}
    endpoint = _endpoint(profile)
    if endpoint:
        # The client library panics at an address without a scheme.
        if not endpoint.startswith(("http://", "https://")):
            label = f"the endpoint {endpoint!r} of AWS_ENDPOINT_URL or ~/.aws/config"
            raise JobError(f"{label} is no address; expected http://HOST:PORT or https://HOST:PORT")
        options["endpoint"] = endpoint
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        # Every signature names a region. Servers other than Amazon's usually accept this one.
        options["region"] = profile.get("region", "us-east-1")
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        if "aws_access_key_id" in profile:
            options["credential_provider"] = _keys_of_profile
        elif not any(map(os.environ.get, OF_THE_MACHINE)) and not _asks_the_machine(endpoint):
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials"
            raise JobError(f"no credentials; {advice}")
    return options | _client(endpoint)


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
    candidates = map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return next(filter(None, candidates), None) or profile.get("endpoint_url", "")


def _asks_the_machine(endpoint: str) -> bool:
    """Return whether the credentials may come from the EC2 instance: only Amazon's own endpoints accept those."""
    off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    return not off and (not endpoint or ".amazonaws." in endpoint)


def _profile() -> dict[str, str]:
    """Return the fields of the AWS profile in use; {} without one. Raises JobError if AWS_PROFILE names none, or for a damaged file."""
    name = os.environ.get("AWS_PROFILE") or "default"
    fields: dict[str, str] = {}
    in_config = name if name == "default" else f"profile {name}"
    # The keys come last, so that they win.
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", in_config),
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
            fields |= parser[section]
    if not fields and os.environ.get("AWS_PROFILE"):
        raise JobError(f"AWS_PROFILE: ~/.aws has no profile {name!r}")
    return fields


def _keys_of_profile() -> Any:
    profile = _profile()
    return {
        "access_key_id": profile["aws_access_key_id"],
        "secret_access_key": profile.get("aws_secret_access_key", ""),
        "token": profile.get("aws_session_token"),
        "expires_at": datetime.now(UTC) + REREAD,
    }
