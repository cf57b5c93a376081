"""Record what a job's input files hold when its store is made. If a file changes later, the job is not continued.

weights.h5                 a local file: the SHA-256 of its content
trials.zarr                a local Zarr array or group: that of all of its files
s3://lab/weights.h5        size and ETag, or else the modification time, of every object there
train.zarr::3              an item of another store: that store's job, source and input files, which decide its results
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from jobs import keys
from jobs.errors import JobError
from jobs.inputs.fetch import objects_at
from jobs.storage import connect, objects
from jobs.storage.addresses import join, local_path, parse_item
from jobs.storage.checksums import digest_of, read_verified

STORE = "store"
"""The beginning of the text of another store."""


def versions_of(names: Iterable[str], base: str) -> dict[str, str]:
    """Return file, as the job names it -> a text that changes with its content; for items of a store, of the store.

    base: the folder or address that relative names start from. What is not there, or cannot be read from here, is left out.

    >>> versions_of(["weights.h5::7"], "/nowhere")
    {}
    """
    kinds: dict[str, bool] = {}
    for name in names:
        kinds.setdefault(_kept_as(name), parse_item(name, base) is not None)
    versions = {key: _version(join(base, key), is_store) for key, is_store in kinds.items()}
    return {key: versions[key] for key in sorted(versions) if versions[key]}


def changed_files(
    before: Mapping[str, str], base: str, names: Iterable[str] | None = None
) -> dict[str, str]:
    """Return the files whose content has changed -> their text now. before: what `versions_of` returned.

    A file that is not there, or cannot be read from here, has not changed. names: look at these alone, as the job names them.
    """
    selected = before.keys() if names is None else before.keys() & set(map(_kept_as, names))
    versions = {
        name: _version(join(base, name), old.startswith(STORE))
        for name, old in before.items()
        if name in selected
    }
    return {name: now for name, now in versions.items() if now and now != before[name]}


def _kept_as(name: str) -> str:
    """The name under which a file's text is kept: train.zarr for train.zarr::3, an item of a store."""
    return name.partition("::")[0] if parse_item(name, "") else name


def _version(address: str, is_store: bool) -> str:
    """A text that changes with the content; "" if there is nothing that this process can read."""
    try:
        if is_store:
            return _of_store(address)
        path = local_path(address)
        if path is None:
            return digest_of(sorted(objects_at(address).items()))
        if path.is_file():
            return _sha256(path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        parts = [(p.relative_to(path).as_posix(), _sha256(p)) for p in files]
        return digest_of(parts) if parts else ""
    except Exception as error:
        # Whoever reads the data tells.
        if isinstance(error, JobError | OSError) or objects.is_storage_error(error):
            return ""
        raise


def _of_store(address: str) -> str:
    content = read_verified(connect.open_objects(address), keys.JOB) or {}
    # Not the time nor the host of its run: a store that is made again in the same way has the same results.
    decides = [content.get(name) for name in ("digest", "sources", "inputs")]
    return f"{STORE} {digest_of(decides)}" if content else ""


def _sha256(path: Path) -> str:
    status = path.stat()
    return _of_file(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(4096)
def _of_file(path: str, *status: int) -> str:
    """The SHA-256 of a file, read once for each `status`: inode, size and modification time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
