"""Bytes by key in a local folder or an object store, through obstore; both behave alike.

A write is visible whole or not at all, and `create` succeeds for exactly one of several writers (link on a
file system, PUT with If-None-Match on an object store). Markers and leases rely on these two guarantees.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Buffer, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError, NotFoundError
from obstore.store import LocalStore, ObjectStore

from jobs import keys
from jobs.errors import EXIT_STORAGE, JobError

if TYPE_CHECKING:
    from obstore import ObjectMeta

STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN}
"""Error numbers of the operating system that mean a fault of the file system rather than of one file."""

IN_FLIGHT = 32
"""Simultaneous requests to an object store when many small objects are read."""

OUT_OF_RANGE = r"Requested range was invalid|Invalid range|InvalidRange|status code: 416"
"""Error texts of object stores for a range beyond the object's end."""

_used_by: int | None = None
"""Id of the process that first used the storage here; a fork inherits it."""


def refuse_fork() -> None:
    """Raise JobError in a fork of a process that has used the storage, whose threads it lacks: it would wait for ever."""
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    elif _used_by != os.getpid():
        raise JobError(
            f"process {os.getpid()} was forked from one that has used stores, and lacks its threads; start processes by "
            "multiprocessing.get_context('spawn')"
        )


def read(objects: ObjectStore, key: str) -> bytes | None:
    """Return the bytes at `key`, or None if there is no object; b"", damaged, for what is no regular file."""
    refuse_fork()
    if is_irregular(objects, key):
        return b""
    try:
        return bytes(obstore.get(objects, key).bytes())
    except (FileNotFoundError, NotADirectoryError):  # the second: a file lies in place of a folder
        return None


def is_irregular(objects: ObjectStore, key: str) -> bool:
    """Return whether a pipe, a socket or a device lies at `key`, which a reader would open and wait for ever."""
    if not isinstance(objects, LocalStore) or objects.prefix is None:
        return False
    return is_irregular_file(Path(objects.prefix) / key)


def is_irregular_file(path: Path) -> bool:
    """Return whether a pipe, a socket or a device lies at a path."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_range(objects: ObjectStore, key: str, start: int, length: int) -> bytes | None:
    """Return `length` bytes at `key`, from byte `start`; None if the object is missing or too short."""
    if is_irregular(objects, key):
        return None
    try:
        data = bytes(obstore.get_range(objects, key, start=start, length=length))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BaseError as error:
        if re.search(OUT_OF_RANGE, str(error)):
            return None
        raise
    return data if len(data) == length else None


def read_all(
    objects: ObjectStore, object_keys: Iterable[str]
) -> Iterator[tuple[str, bytes | None]]:
    """Yield (key, `read` of it) in the order of the keys; an object store gets many requests at a time."""
    return each(objects, lambda key: (key, read(objects, key)), object_keys)


def each[S, T](objects: ObjectStore, call: Callable[[S], T], inputs: Iterable[S]) -> Iterator[T]:
    """Yield `call(key)` in the order of the keys; on an object store many run at a time, in threads."""
    if isinstance(objects, LocalStore):
        yield from map(call, inputs)
        return
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        yield from threads.map(call, inputs)


def write(objects: ObjectStore, key: str, data: Buffer) -> None:
    """Write bytes at `key`, replacing any object there."""
    # obstore writes a local file as NAME#N and renames it: a kill leaves the old object, and a NAME#N that `ctd check`
    # finds. It does not flush the file to the disk: see `fsync`.
    obstore.put(objects, key, data)


def create(objects: ObjectStore, key: str, data: bytes) -> bool:
    """Write bytes at `key` if there is no object; return whether it was written.

    Of several simultaneous writers exactly one succeeds, provided that no two write equal bytes.
    """
    try:
        obstore.put(objects, key, data, mode="create")
    except AlreadyExistsError:
        # If an answer was lost and the client repeated the request, the object there is our own.
        return not isinstance(objects, LocalStore) and read(objects, key) == data
    return True


def fsync(objects: ObjectStore, key: str) -> None:
    """Flush a written object to the disk, so that it survives a loss of power; an object store has done so already."""
    if not isinstance(objects, LocalStore) or objects.prefix is None:
        return
    path = objects.prefix / key
    # The folder too: without its entry the file is lost. Either may be gone, if another process has compacted meanwhile.
    for place in (path, path.parent):
        with suppress(FileNotFoundError):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def delete(objects: ObjectStore, key: str) -> None:
    """Delete the object at `key`, if there is one."""
    with suppress(FileNotFoundError):
        obstore.delete(objects, key)


def delete_each(objects: ObjectStore, object_keys: Iterable[str]) -> None:
    """Delete the objects at these keys, if they exist; an object store gets few requests."""
    listed = list(object_keys)
    if listed and not isinstance(objects, LocalStore):
        with suppress(FileNotFoundError):  # some servers refuse a batch with a missing key
            obstore.delete(objects, listed)
            return
    for key in listed:
        delete(objects, key)


def delete_all(objects: ObjectStore, prefix: str) -> None:
    """Delete every object below the folder `prefix`; on a file system the folders too."""
    delete_each(objects, list_keys(objects, prefix))
    if isinstance(objects, LocalStore) and objects.prefix is not None:
        shutil.rmtree(objects.prefix / prefix, ignore_errors=True)


def list_keys(objects: ObjectStore, prefix: str) -> Iterator[str]:
    """Yield every key below the folder `prefix` that this program writes, in no particular order."""
    return filter(keys.is_ours, list_all(objects, prefix))


def list_all(objects: ObjectStore, prefix: str) -> Iterator[str]:
    """Yield every key below the folder `prefix`, including those that file systems and other programs have made."""
    return (meta["path"] for meta in _metas(objects, prefix))


def _metas(objects: ObjectStore, prefix: str) -> "Iterator[ObjectMeta]":
    refuse_fork()
    # One entry at a time: a name that is no key (not UTF-8, or with a newline) is an error of its batch, and the listing
    # goes on after it.
    batches = obstore.list(objects, prefix.rstrip("/") + "/", chunk_size=1)
    while True:
        try:
            yield from next(batches)
        except InvalidPathError:
            continue
        except StopIteration:
            return


READ_ATTEMPTS = 50
"""Most attempts to read a folder that other processes change: few enough that a request to stop does not wait long."""


def read_attempts(folder: str) -> Iterator[int]:
    """Yield once for each attempt to read a folder that other processes change; then raise OSError, a storage error."""
    yield from range(READ_ATTEMPTS)
    raise OSError(
        errno.ESTALE,
        f"{folder}/ changed, or seemed to change, in each of {READ_ATTEMPTS} looks; try again, or `ctd check` the store",
    )


def size_of(objects: ObjectStore) -> int:
    """Return the total size of all objects (bytes)."""
    return sum(meta["size"] for meta in _metas(objects, ""))


def stamp(objects: ObjectStore, folders: Iterable[str]) -> str:
    """Return a digest of the objects below some folders: their keys, sizes and times; "" if there are none."""
    metas = (meta for folder in folders for meta in _metas(objects, folder))
    ours = [meta for meta in metas if keys.is_ours(meta["path"])]
    entries = sorted((m["path"], m["size"], m["last_modified"].isoformat()) for m in ours)
    return hashlib.sha256(repr(entries).encode()).hexdigest() if entries else ""


# --- what went wrong ------------------------------------------------------------------------------


def is_storage_error(error: BaseException | None) -> bool:
    """Return whether the storage failed: full, read-only, gone or flaky. A missing key is not a storage error."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRORS
    is_about_a_key = isinstance(error, NotFoundError | AlreadyExistsError)
    return isinstance(error, BaseError) and not is_about_a_key


class StorageFailed(JobError):
    """The storage fails or does not answer; another attempt may succeed."""

    exit_code = EXIT_STORAGE


def failed(text: str, error: BaseException) -> JobError:
    """The error to raise, with this text, for an error of the storage: a StorageFailed, unless the storage refuses."""
    return (JobError if is_refusal(error) else StorageFailed)(text)


def is_refusal(error: BaseException) -> bool:
    """Return whether the storage answered with a refusal, or there are no credentials, so that asking again is useless."""
    if isinstance(error, OSError):
        return error.errno not in STORAGE_ERRORS
    if any(place in str(error) for place in ASKED_THE_MACHINE):
        return True
    status = re.search(r"status code: (\d+)", str(error))
    # 408 (timeout) and 429 (too many requests) mean: try again.
    return status is not None and status[1][0] in "34" and status[1] not in ("408", "429")


def is_busy(error: BaseException) -> bool:
    """Return whether a server is there, and answered that it is busy or out of order, or broke the connection off."""
    status = re.search(r"status code: (5\d\d|408|429)", str(error))
    return status is not None or "kind: Interrupted" in str(error)


@contextmanager
def writing(address: str) -> Iterator[None]:
    """Raise the error of `failed`, which names the address, in place of one of the storage or the operating system."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError) or is_storage_error(error)):
            raise
        raise failed(f"{address}: cannot be written: {reason(error)}", error) from None


@contextmanager
def may_fail() -> Iterator[None]:
    """End the block without an error if the storage fails in it."""
    try:
        yield
    except Exception as error:
        if not is_storage_error(error):
            raise


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
"""Error code of a server -> what it means to the user."""

ASKED_THE_MACHINE = (
    "/latest/api/token",
    "/latest/meta-data",
    "metadata.google",
    "/identity/oauth2",
)
"""Parts of the addresses where the client library asks a cloud machine for credentials if none were given."""


def reason(error: BaseException) -> str:
    """Return why something failed, in one line, without anything that a server's answer quotes from the request."""
    # obstore appends the error's debug form, which quotes the request with its access key.
    text, debug, details = str(error).partition("\n\nDebug source")
    if not debug and not isinstance(error, BaseError):
        text = error.strerror if isinstance(error, OSError) and error.strerror else text
        return text.splitlines()[0] if text else type(error).__name__
    if any(place in text for place in ASKED_THE_MACHINE):
        return "no credentials; docs/object-stores.md says where they are looked for"
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+[ A-Za-z]*)", text)
    if code:
        message = re.search(r"<Message>([^<]*)</Message>", text)
        words = WORDS.get(code[1]) or (
            message[1].splitlines()[0] if message and message[1] else "refused"
        )
        return f"{words} ({code[1]})"
    if "without LOCATION" in text:
        return WORDS["PermanentRedirect"]
    if status:
        return f"the server answers with {status[1].strip()}"
    if "HTTP error" in text or "error sending request" in text:
        cause = re.search(r'(?:message|error): "([^"]*)"', details)
        return f"no server answers{f': {cause[1]}' if cause else ''}"
    return re.sub(r"\?\S*", "", text.splitlines()[0])  # a signed address has its signature there
