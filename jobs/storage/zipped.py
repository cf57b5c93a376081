"""A store in a zip archive: it is read into memory as a whole, and whatever is written to it is gone with the process."""

import zipfile
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore

from jobs.errors import JobError

SUFFIX = ".zip"

MOST_BYTES, MOST_PACKED = 4 << 30, 1 << 28
"""Most bytes that are read into memory, and most that come of compressed members: those of ctd's archives are metadata, and a
stranger's may grow a thousandfold. What is larger is to be unpacked."""


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
            packed = [m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED]
            if sum(m.file_size for m in members) > MOST_BYTES or sum(packed) > MOST_PACKED:
                raise JobError(
                    f"{path}: holds more than is read into memory ({MOST_BYTES >> 30} GiB, {MOST_PACKED >> 20} MiB of it "
                    f"compressed); unpack it, and open the folder: unzip {path} -d {path.with_suffix('.zarr')}"
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
