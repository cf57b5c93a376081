"""Bytes by key, on a local folder or an object store: one behaviour through obstore.

A write is seen whole or not at all, and `create` succeeds for exactly one of several writers (link on a
file system, conditional put on an object store). Markers and leases stand on these two facts.
"""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from jobs.errors import JobError

STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN}
"""Of the operating system's errors, those that say that a file system, not a file, is at fault."""


def local_path(address: str) -> Path | None:
    """The folder that `address` means, or None where it is on an object store."""
    parts = urlsplit(address)
    if parts.scheme in ("", "file"):
        return Path(parts.path if parts.scheme else address)
    return None


def open_objects(address: str, *, create: bool = False) -> ObjectStore:
    """The objects under `address`: a path, file://, s3://, gs://, az://, memory://.

    Raises JobError where the folder does not exist (or cannot be made, with `create`).
    """
    path = local_path(address)
    if path is None:
        try:
            return from_url(address)
        except Exception as error:
            raise JobError(f"{address}: cannot be opened: {error}") from None
    try:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            raise JobError(f"{path}: no such store")
        return LocalStore(path.absolute(), automatic_cleanup=True)
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror or error}") from None


def read(objects: ObjectStore, key: str) -> bytes | None:
    """The bytes at `key`, or None where there is nothing."""
    try:
        return bytes(obstore.get(objects, key).bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(objects: ObjectStore, key: str, data: bytes) -> None:
    """Put bytes at `key`, in place of what was there."""
    obstore.put(objects, key, data)


def create(objects: ObjectStore, key: str, data: bytes) -> bool:
    """Put bytes at `key` if nothing is there; False where something is."""
    try:
        obstore.put(objects, key, data, mode="create")
    except AlreadyExistsError:
        return False
    return True


def delete(objects: ObjectStore, key: str) -> None:
    """Remove `key` if it is there."""
    try:
        obstore.delete(objects, key)
    except FileNotFoundError:
        return


def delete_all(objects: ObjectStore, prefix: str) -> None:
    """Remove everything below the folder `prefix`, on a file system its folders too."""
    for key in list(keys(objects, prefix)):
        delete(objects, key)
    if isinstance(objects, LocalStore) and objects.prefix is not None:
        shutil.rmtree(objects.prefix / prefix, ignore_errors=True)


def is_storage_error(error: BaseException | None) -> bool:
    """Whether the storage failed: full, read-only, gone or flaky. A key that is not there is no failure."""
    if isinstance(error, OSError):
        return error.errno in STORAGE_ERRORS
    return isinstance(error, BaseError) and not isinstance(
        error, NotFoundError | AlreadyExistsError
    )


def keys(objects: ObjectStore, prefix: str) -> Iterator[str]:
    """Every key below the folder `prefix`, in no order."""
    for batch in obstore.list(objects, prefix.rstrip("/") + "/"):
        for meta in batch:
            yield meta["path"]
