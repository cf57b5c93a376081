"""Fetch data: make a local file of whatever a `File` field names, for kernels to read.

    weights.h5                          a local file: used as it is
    s3://lab/weights.h5, https://...    a remote file: downloaded
    trials.zarr, s3://lab/trials.zarr   a Zarr group or array, version 2 or 3: its numeric arrays, as HDF5

Copies lie in $CTD_CACHE/files. Their names are a hash of the address and of the size and ETag (or else the
modification time) of every object there. The processes of a host share a copy, changed data are fetched again,
and a copy that is unused for a week is removed.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import obstore
from obstore.store import ObjectStore

from ctd.data import hdf5_writer
from ctd.replacing import replacing
from jobs import keys
from jobs.errors import JobError
from jobs.late import zarr
from jobs.redact import redact
from jobs.storage import connect, objects
from jobs.storage.addresses import LINKS, local_path, scheme
from jobs.storage.checksums import digest_of
from jobs.storage.hierarchy import zarr_store
from jobs.store.arrays import attributes

ZARR = {"zarr.json", ".zarray", ".zgroup"}
"""The folder of every Zarr array or group contains one of these files."""

BLOCK = 64 << 20
"""Bytes of an array copied at a time; at least one row of chunks."""

UNUSED_S = 7 * 86400.0
"""Time since its last use after which a copy is removed (s)."""


def local_file(address: str) -> str:
    """The path of a local file with the data at `address`. A local path is returned as it is, even if nothing is there,
    unless it is a Zarr array or group.

    Raises:
        JobError: a remote address is empty, cannot be read or holds nothing that kernels can read; it is a whole store;
            or the cache cannot be written.
        StorageFailed: it cannot be read now, and another attempt may succeed.

    >>> local_file("weights.h5")
    'weights.h5'
    """
    path = local_path(address)
    if path is not None and not (path.is_dir() and any((path / name).exists() for name in ZARR)):
        return str(path)
    try:
        versions = objects_at(address)
        if keys.JOB in versions:
            raise JobError(
                f"{address}: is a store; name an item: {address}::0, or the table of a group: {address}/gathered/0"
            )
        key = digest_of([address, sorted(versions.items())])[:32]
        # An object at the address itself, and none below it: a file.
        if set(versions) == {""}:
            return _cached(key + Path(address).suffix, lambda to: _download(address, to))
        if not ZARR & versions.keys():
            raise JobError(f"{address}: there is no such file, nor a Zarr array or group")
        return _cached(f"{key}.h5", lambda to: _convert(address, to))
    except Exception as error:
        if not objects.is_storage_error(error):
            raise
        text = f"{address}: cannot be read: {objects.reason(error)}"
        raise objects.failed(text, error) from None


# --- versions -------------------------------------------------------------------------------------


def objects_at(address: str) -> dict[str, str]:
    """Object below the address -> a text that changes with its content; "" is the address itself."""
    if local_path(address) is not None:
        return _listed(connect.open_objects(address))
    # The user hears of a wrong address within seconds; the client for the data (`_store`) waits through a busy minute.
    head = connect.first_request(address, _head)
    if head is not None:
        return {"": _version(head)}
    if scheme(address) in LINKS:
        raise JobError(f"{address}: there is no such file")
    return connect.first_request(address, _listed)


def _head(store: ObjectStore) -> Any:
    try:
        return obstore.head(store, "")
    except FileNotFoundError:
        return None


def _listed(store: ObjectStore) -> dict[str, str]:
    return {meta["path"]: _version(meta) for batch in obstore.list(store) for meta in batch}


def _version(meta: Any) -> str:
    return f"{meta['size']} {meta['e_tag'] or meta['last_modified']}"


def _store(address: str) -> ObjectStore:
    is_remote = local_path(address) is None
    return connect.remote(address) if is_remote else connect.open_objects(address)


# --- copies ---------------------------------------------------------------------------------------


def _cached(name: str, make: Callable[[Path], None]) -> str:
    """The path of the cache's file `name`; the first process that needs it calls `make`."""
    folder = Path(os.environ.get("CTD_CACHE", "~/.cache/ctd")).expanduser() / "files"
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{name}.lock"):
            if not path.exists():
                _remove_unused(folder)
                # It gets its name when it is whole: a kill leaves no half copy that others would take for the data.
                with replacing(path) as new:
                    make(new)
            # The time of the last use, by which `_remove_unused` goes.
            os.utime(path)
    except OSError as error:
        text = f"{folder}: cannot be written ({error.strerror or error}); set CTD_CACHE to another folder"
        # A full disk may have room again; a read-only one stays as it is.
        if error.errno == errno.EROFS:
            raise JobError(text) from None
        raise objects.failed(text, error) from None
    return str(path)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process of this host run at a time. On a file system without locks, several may do the same work."""
    # The lock ends with its process, however that dies. The file stays until nobody has used it for a week.
    with lock.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    for path in folder.iterdir():
        # Another process may remove the same files.
        with suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > UNUSED_S:
                path.unlink()


def _download(address: str, to: Path) -> None:
    with to.open("wb") as file:
        for part in obstore.get(_store(address), "").stream():
            file.write(part)


def _convert(address: str, to: Path) -> None:
    """Write every numeric array of a Zarr group to an HDF5 file at its path in the group; a single array
    under its own name."""
    try:
        node = zarr.open(zarr_store(_store(address), read_only=True), mode="r")
        arrays = _arrays(node, Path(address).name.removesuffix(".zarr"))
        with hdf5_writer(to) as file:
            file.attrs["address"] = redact(address)
            for name, array in arrays.items():
                if packed := {"scale_factor", "add_offset"} & attributes(array).keys():
                    raise JobError(
                        f"{address}: {name}: is packed ({', '.join(sorted(packed))}); write the unpacked numbers"
                    )
                # No times in the file: the same data give the same bytes on each host.
                _copy(array, file.create_dataset(name, array.shape, array.dtype, track_times=False))
    except JobError:
        raise
    # Zarr and its codecs raise these for metadata and bytes that they cannot read.
    except (ValueError, KeyError, TypeError, RuntimeError, FileNotFoundError) as error:
        raise JobError(f"{address}: cannot be read as Zarr: {objects.reason(error)}") from None
    if not arrays:
        raise JobError(f"{address}: holds no array of numbers; give a group that has some")


def _copy(array: zarr.Array[Any], to: h5py.Dataset) -> None:
    if not array.shape:
        to[()] = array[()]
        return
    row = math.prod(array.shape[1:]) * array.dtype.itemsize
    step = max(1, BLOCK // max(1, row * array.chunks[0])) * array.chunks[0]
    for start in range(0, array.shape[0], step):
        to[start : start + step] = array[start : start + step]


def _arrays(node: Any, name: str) -> dict[str, zarr.Array[Any]]:
    nodes = {name: node}
    if isinstance(node, zarr.Group):
        members = dict(node.members(max_depth=None))
        nodes = {path: member for path, member in members.items() if isinstance(member, zarr.Array)}
    return {path: array for path, array in nodes.items() if array.dtype.kind in "biufc"}
