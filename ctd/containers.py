"""Read HDF5 files, zip archives and NumPy's arrays of unknown origin, and compare the sizes that they claim with those that they hold.

A damaged file, or a malicious one, may claim an array of terabytes in a kilobyte, name other files to read from, or
make its library raise anything. Here all of that is a ValueError that names the file.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import h5py
import numpy as np

MOST_PACKED = 1032
"""Bytes that one byte can stand for: deflate, in HDF5 and zip, packs no better than 1032 to 1 (zlib's documentation)."""
LARGE, MOST_PACKED_LARGE = 1 << 28, 500
"""From so many claimed bytes on, one byte stands for fewer: a recording of one spike in a hundred bins packs 230 to 1, and what packs far better is
constant. A stranger's megabyte takes half a gigabyte of memory at most."""
NUMBERS = "biufc"
"""NumPy's kinds of numbers."""
LABELS = "; numpy.unique(labels, return_inverse=True)[1] makes numbers of labels"
"""The advice for texts."""
SLACK = 1 << 20
"""Bytes that a file may claim anyway, such as a small dataset that was made and never written."""


def check_claim(label: str, claimed: int, stored: int, packed: int = MOST_PACKED) -> None:
    """Raise ValueError, beginning with `label`, where more bytes are claimed than the `stored` ones can stand for."""
    if claimed > packed * stored + SLACK:
        raise ValueError(
            f"{label} claims {claimed:,} bytes, but the file holds {stored:,}; it is damaged"
        )
    if claimed > max(LARGE, MOST_PACKED_LARGE * stored):
        raise ValueError(
            f"{label} claims {claimed:,} bytes, {claimed // max(stored, 1)} times what the file holds; if you trust it, write it again "
            "without compression"
        )


def check_numbers(label: str, values: np.ndarray, hint: str = "") -> None:
    """Raise ValueError, beginning with `label`, unless all entries are finite real numbers. hint: the advice for NaN.

    >>> check_numbers("net.h5: bO", np.array([1.0, np.nan]), "; train it again")
    Traceback (most recent call last):
    ValueError: net.h5: bO has 1 NaN or infinite entries, the first at (1,); train it again
    """
    if values.dtype.kind not in "biuf":
        labels = LABELS if values.dtype.kind in "SU" else ""
        raise ValueError(f"{label} has the type {values.dtype}; real numbers expected{labels}")
    bad = ~np.isfinite(values)
    if bad.any():
        # The first place is enough to find its cause.
        first = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(
            f"{label} has {bad.sum()} NaN or infinite entries, the first at {first}{hint}"
        )


@contextmanager
def explained(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises into a ValueError that begins with the file's name; one that names it is passed on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{path}: does not exist") from error
        message = str(error).strip() or type(error).__name__
        raise ValueError(
            f"{path}: not {kind}, or a damaged one: {' '.join(message.split())[:300]}"
        ) from error


# --- HDF5 ---------------------------------------------------------------------------------------------------------


@contextmanager
def opened_hdf5(path: str | Path, inside: IO[bytes] | None = None) -> Iterator[h5py.File]:
    """An HDF5 file to read from, by `read_dataset`; `inside`: the one that lies in the file `path`.

    Raises ValueError, naming the file, where it cannot be opened, and for what is raised in the block.
    """
    with explained(path, "an HDF5 file"):
        if Path(path).suffix == ".mat":
            _check_matlab(Path(path))
        with h5py.File(inside or path, "r") as file:
            yield file


def _check_matlab(path: Path) -> None:
    """Raise ValueError, with the lines that convert it, if a .mat file exists and is no HDF5, as MATLAB's were before version 7.3."""
    if path.is_file() and not h5py.is_hdf5(path):
        raise ValueError(
            f"{path}: not an HDF5 file, but one of MATLAB's version 7 or older; convert it in Python, and give the .npz: "
            f"import numpy, scipy.io; arrays = scipy.io.loadmat({str(path)!r}); numpy.savez({str(path.with_suffix('.npz'))!r}, "
            '**{name: array for name, array in arrays.items() if name[0] != "_"})'
        )


def checked_dataset(source: str | Path, file: h5py.File, name: str | bytes) -> h5py.Dataset:
    """A dataset of numbers that lie in this very file, not yet read. Raises ValueError, beginning with `source`."""
    if isinstance(name, bytes):  # as h5py gives it
        raise ValueError(f"{source}: dataset {name!r} has a name that is no UTF-8 text")
    node = file[name]
    label = f"{source}: dataset {name}"
    if node.dtype.kind not in NUMBERS:
        hint = LABELS if node.dtype.kind in "SO" else ""  # O: texts of any length
        raise ValueError(f"{label} has the type {node.dtype}, which is no number{hint}")
    if node.shape is None:
        raise ValueError(f"{label} is empty, without a shape")
    number = lambda entry: h5py.h5o.get_info(entry.id).fileno
    if node.external or node.is_virtual or number(node) != number(file):
        raise ValueError(
            f"{label} lies in another file, and ctd reads no file that you have not named; write a copy with its numbers"
        )
    stored = min(node.id.get_storage_size(), node.file.id.get_filesize())
    for shape in filter(None, (node.shape, node.chunks)):
        check_claim(f"{label} {node.shape}", math.prod(shape) * node.dtype.itemsize, stored)
    return node


def read_dataset(source: str | Path, file: h5py.File, name: str) -> np.ndarray:
    """The numbers of a dataset. Raises as `checked_dataset`."""
    return np.asarray(checked_dataset(source, file, name))


def read_datasets(source: str | Path, file: h5py.File) -> dict[str, np.ndarray]:
    """Every dataset at the top of an HDF5 file. Raises as `read_dataset`."""
    names = [name for name in file if isinstance(file.get(name), h5py.Dataset)]
    return {name: read_dataset(source, file, name) for name in names}


def as_text(value: object) -> str | None:
    """One text, also as bytes or in an array, as MATLAB, R and `numpy.savez(path, cell=b"gru")` write it; None for anything else.

    >>> as_text(np.array([b"leaky"])), as_text(3)
    ('leaky', None)
    """
    values = np.asarray(value).ravel()
    single = values[0] if values.size == 1 else None
    text = single.decode(errors="replace") if isinstance(single, bytes) else single
    return str(text) if isinstance(text, str) else None


def text_attribute(file: h5py.File, name: str) -> str | None:
    """An attribute that is a text; None if it is anything else, or not there."""
    return as_text(file.attrs.get(name))


def check_hdf5(path: str | Path) -> None:
    """Raise ValueError where a dataset of numbers in a file, at any depth, lies elsewhere or claims too much."""
    with opened_hdf5(path) as file:

        def visit(name: str, node: h5py.HLObject) -> None:
            is_set = isinstance(node, h5py.Dataset) and node.shape is not None
            if is_set and node.dtype.kind in NUMBERS:
                checked_dataset(path, file, name)

        file.visititems(visit)


# --- zip and NumPy ------------------------------------------------------------------------------------------------


@contextmanager
def opened_zip(path: str | Path, kind: str, packed: int = MOST_PACKED) -> Iterator[zipfile.ZipFile]:
    """A zip archive to read from, `kind` says of what: "an .npz file". packed: as for `check_claim`.

    Raises ValueError, naming the file, where it cannot be opened, its members claim more than it holds, and for what
    is raised in the block.
    """
    with explained(path, kind), warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
        warnings.filterwarnings(
            "error", "Overlapped entries"
        )  # members that share bytes, as bombs'
        members = archive.infolist()
        odd = {m.compress_type for m in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        if odd or any(member.flag_bits & 1 for member in members):
            raise ValueError(f"{path}: members packed in a way that ctd does not read")
        claimed = sum(member.file_size for member in members)
        check_claim(f"{path}: its content", claimed, os.path.getsize(path), packed)
        yield archive


def read_array(source: str | Path, file: IO[bytes], size: int) -> np.ndarray:
    """The array of an .npy file that has at most `size` bytes. Raises ValueError, beginning with `source`.

    Objects are refused: reading them may run code.
    """
    with explained(source, "an .npy file of numbers"), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # NumPy's headers are Python
        form, start = np.lib.format, file.tell()
        # Version 3 is for names of fields that are no Latin-1, which no array of numbers has.
        readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
        version = form.read_magic(file)
        if version not in readers:
            raise ValueError(f"{source}: version {version} of NumPy's format; 1 or 2 expected")
        shape, _, dtype = readers[version](file)
        if dtype.hasobject:
            raise ValueError(
                f"{source}: holds Python objects, whose reading may run code; numpy.savez(path, *list) saves a list of "
                "arrays of numbers without them"
            )
        remaining = size - (file.tell() - start)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > remaining:
            raise ValueError(
                f"{source}: claims {shape} {dtype}, but holds {size:,} bytes; it is damaged"
            )
        file.seek(start)
        return form.read_array(file, allow_pickle=False)
