"""Bytes by key, on a local folder or an object store: one behaviour through obstore.

A write is seen whole or not at all, and `create` succeeds for exactly one of several writers (link on a
file system, PUT with If-None-Match on an object store). Markers and leases stand on these two facts.
"""

import errno
import re
import shutil
from collections.abc import Buffer, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from jobs import keys
from jobs.errors import JobError
from jobs.storage import addresses, credentials
from jobs.storage.addresses import local_path as local_path
from jobs.storage.addresses import plain as plain

STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN}
"""Of the operating system's errors, those that say that a file system, not a file, is at fault."""

IN_FLIGHT = 32
"""Requests to an object store at a time, where many small objects are read."""

FIRST: dict[str, Any] = {
    "client_options": {"connect_timeout": "3s", "timeout": "5s"},
    "retry_config": {
        "max_retries": 4,
        "retry_timeout": timedelta(seconds=5),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1)},
    },
}  # fmt: skip
"""The first request, whose failure a user waits for."""

LATER: dict[str, Any] = {
    "client_options": {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "10m"},
    "retry_config": {
        "max_retries": 100,  # the time counts
        "retry_timeout": timedelta(seconds=60),
        # A wait is drawn between the first one and `base` times the one before: 2 would not grow.
        "backoff": {
            "init_backoff": timedelta(seconds=0.1),
            "max_backoff": timedelta(seconds=10),
            "base": 3,
        },
    },
}  # fmt: skip
"""All others: a server that is busy (503) or away for a minute is nothing that a run should notice."""


OUT_OF_RANGE = r"Requested range was invalid|InvalidRange|status code: 416"
"""How storages call it that an object ends before a range does."""


class Unreachable(JobError):
    """The object store does not answer, or not now: another attempt may succeed."""


def open_objects(address: str, *, create: bool = False) -> ObjectStore:
    """The objects under `address`: a path, file://, s3://, gs:// or az://.

    Raises JobError where the folder does not exist (or cannot be made, with `create`); where the bucket
    does not exist, its server does not answer, or credentials are missing or wrong, within seconds.
    """
    path = local_path(address)
    if path is None:
        if addresses.scheme(address) not in addresses.BUCKETS:
            raise JobError(
                f"{address}: holds data at most; results go to a path, or to s3, gs or az"
            )
        # A listing tells a bucket that is missing from a key; this one is short.
        first_request(
            address,
            lambda: next(iter(obstore.list(remote(address, FIRST), f"{keys.LEASE}/")), None),
        )
        return remote(address)
    try:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif path.exists() and not path.is_dir():
            raise JobError(f"{path}: is a file; a store is a folder, beside JOB.yaml JOB.zarr")
        elif not path.is_dir():
            raise JobError(f"{path}: no such store")
        return LocalStore(path.absolute(), automatic_cleanup=True)
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror or error}") from None


def remote(address: str, patience: dict[str, Any] = LATER) -> ObjectStore:
    """What is under an address that is no path, without a request; JobError where that cannot be."""
    try:
        found = credentials.settings(addresses.scheme(address))
        options = patience["client_options"] | found.pop("client_options", {})
        arguments: dict[str, Any] = {**patience, "client_options": options, **found}
        return from_url(address, **arguments)
    except (JobError, BaseError, ValueError) as error:
        raise JobError(f"{address}: {reason(error)}") from None


def first_request[T](address: str, request: Callable[[], T]) -> T:
    """What `request` answers; JobError where the server refuses it, Unreachable where there is none."""
    try:
        return request()
    except (BaseError, FileNotFoundError) as error:
        text = f"{address}: {reason(error)}"
        if not _is_refusal(error):
            server = credentials.endpoint_of(addresses.scheme(address))
            at = (
                f" (the server is {server}, from AWS_ENDPOINT_URL or ~/.aws/config)"
                if server
                else ""
            )
            raise Unreachable(text + at) from None
        raise JobError(text) from None


def read(objects: ObjectStore, key: str) -> bytes | None:
    """The bytes at `key`, or None where there is nothing."""
    try:
        return bytes(obstore.get(objects, key).bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_range(objects: ObjectStore, key: str, start: int, length: int) -> bytes | None:
    """So many of the bytes at `key` from `start` on, or None where they are not all there."""
    try:
        found = bytes(obstore.get_range(objects, key, start=start, length=length))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BaseError as error:
        if not re.search(OUT_OF_RANGE, str(error)):
            raise
        return None
    return found if len(found) == length else None


def read_all(objects: ObjectStore, wanted: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """(key, what `read` gives), in the order of the keys; an object store is asked for many at a time."""
    return each(objects, lambda key: (key, read(objects, key)), wanted)


def each[T](objects: ObjectStore, call: Callable[[str], T], wanted: Iterable[str]) -> Iterator[T]:
    """`call` of every key, in the order of the keys; for an object store many at a time."""
    if isinstance(objects, LocalStore):
        yield from map(call, wanted)
        return
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        yield from threads.map(call, wanted)


def write(objects: ObjectStore, key: str, data: Buffer) -> None:
    """Put bytes at `key`, in place of what was there."""
    obstore.put(objects, key, data)


def holds(objects: ObjectStore, key: str, data: Buffer) -> bool:
    """Whether exactly these bytes are at `key`."""
    try:
        return bool(obstore.get(objects, key).bytes() == data)
    except FileNotFoundError:
        return False


def create(objects: ObjectStore, key: str, data: bytes) -> bool:
    """Put bytes at `key` if nothing is there; False where something is.

    Of several writers at once one succeeds, provided that each writes other bytes.
    """
    try:
        obstore.put(objects, key, data, mode="create")
    except AlreadyExistsError:
        # An answer may have been lost, and the request repeated: then what is there is ours.
        return not isinstance(objects, LocalStore) and read(objects, key) == data
    return True


def delete(objects: ObjectStore, key: str) -> None:
    """Remove `key` if it is there."""
    try:
        obstore.delete(objects, key)
    except FileNotFoundError:
        return


def delete_all(objects: ObjectStore, prefix: str) -> None:
    """Remove everything below the folder `prefix`, on a file system its folders too."""
    found = list(list_keys(objects, prefix))
    if not isinstance(objects, LocalStore):
        obstore.delete(objects, found)
        return
    for key in found:
        delete(objects, key)
    if objects.prefix is not None:
        shutil.rmtree(objects.prefix / prefix, ignore_errors=True)


def list_keys(objects: ObjectStore, prefix: str) -> Iterator[str]:
    """Every key below the folder `prefix`, in no order."""
    for batch in obstore.list(objects, prefix.rstrip("/") + "/"):
        for meta in batch:
            yield meta["path"]


# --- what went wrong ------------------------------------------------------------------------------


def is_storage_error(error: BaseException | None) -> bool:
    """Whether the storage failed: full, read-only, gone or flaky. A key that is not there is no failure."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRORS
    return isinstance(error, BaseError) and not isinstance(
        error, NotFoundError | AlreadyExistsError
    )


WORDS = {
    "NoSuchBucket": "the bucket does not exist; make it, or correct its name",
    "ContainerNotFound": "the container does not exist; make it, or correct its name",
    "InvalidAccessKeyId": "the credentials are wrong: the server does not know the access key",
    "SignatureDoesNotMatch": "the credentials are wrong: the secret does not belong to the access key",
    "AuthenticationFailed": "the credentials are wrong",
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidToken": "the credentials are wrong: the session token is not valid",
    "AccessDenied": "the credentials do not allow it",
    "AuthorizationFailure": "the credentials do not allow it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
}
"""What servers call it -> what it means."""

ASKED_THE_MACHINE = (
    "/latest/api/token",
    "/latest/meta-data",
    "metadata.google",
    "/identity/oauth2",
)
"""In the addresses at which a machine in the cloud gets credentials, where none were given."""


def reason(error: BaseException) -> str:
    """What failed, in one line; nothing of what a server's answer repeats of a request."""
    text, debug, details = str(error).partition("\n\nDebug source")
    if not debug and not isinstance(error, BaseError):
        text = error.strerror if isinstance(error, OSError) and error.strerror else text
        return text.splitlines()[0] if text else type(error).__name__
    if any(place in text for place in ASKED_THE_MACHINE):
        return "no credentials; docs/object-stores.md says where they are looked for"
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+[ A-Za-z]*)", text)
    if code:
        said = re.search(r"<Message>([^<]*)</Message>", text)
        words = WORDS.get(code[1]) or (said[1].splitlines()[0] if said and said[1] else "refused")
        return f"{words} ({code[1]})"
    if "without LOCATION" in text:
        return WORDS["PermanentRedirect"]
    if status:
        return f"the server answers with {status[1].strip()}"
    if "HTTP error" in text or "error sending request" in text:
        why = re.search(r'(?:message|error): "([^"]*)"', details)
        return f"no server answers{f': {why[1]}' if why else ''}"
    return re.sub(r"\?\S*", "", text.splitlines()[0])


def _is_refusal(error: Exception) -> bool:
    """Whether the server was there and said no, so that asking again is in vain."""
    status = re.search(r"status code: (\d+)", str(error))
    return status is not None and status[1][0] in "34" and status[1] not in ("408", "429")
