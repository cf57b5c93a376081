"""A store in a zip archive: it is read into memory as a whole, and whatever is written to it is gone with the process."""

import zipfile
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore

from jobs.errors import JobError

SUFFIX = ".zip"

MOST_BYTES = 4 << 30
"""Most bytes that are read into memory; what is larger is to be unpacked."""


def is_zip(path: Path | None) -> bool:
    """Whether a path is that of an archive."""
    return path is not None and path.suffix == SUFFIX and path.is_file()


def read_zip(path: Path) -> MemoryStore:
    """Return the objects in an archive.

    Raises:
        JobError: it is no archive, damaged, or too large to be read into memory.
    """
    from ctd.containers import opened_zip  # here: it imports h5py

    found = MemoryStore()
    try:
        with opened_zip(path, "an archive of a store") as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise JobError(
                    f"{path}: holds more than {MOST_BYTES >> 30} GiB, which are not read into memory; unpack it into a "
                    f"folder, and open that: unzip {path} -d {path.with_suffix('.zarr')}"
                )
            for member in members:
                obstore.put(found, member.filename, archive.read(member))
    except (ValueError, BaseError) as error:
        raise JobError(str(error).splitlines()[0]) from None
    return found


def read_member(path: Path, key: str, most: int = 1 << 24) -> bytes | None:
    """Return one small object in an archive; None if there is none, or the archive cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(key) if archive.getinfo(key).file_size <= most else None
    except (OSError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None


def refuse_zip(path: Path | None) -> None:
    """Raise JobError if a path is that of an archive, which nothing writes to."""
    if is_zip(path):
        raise JobError(
            f"{path}: an archive is only read; unpack it to go on: unzip {path} -d {path.with_suffix('.zarr')}"  # type: ignore[union-attr]
        )
