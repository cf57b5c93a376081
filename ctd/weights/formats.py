"""Files of weights by their endings: the tensors that they hold are read, and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ctd.data import write_hdf5
from ctd.replacing import replacing
from ctd.weights import jax_files, keras_file, plain, torch_zip
from ctd.weights.tensors import Array, Tensors


class Format(NamedTuple):
    """How files of an ending are read and written."""

    read: Callable[[Path], Tensors]
    write: Callable[[Path, Mapping[str, Array], Mapping[str, object]], None] | None = None
    """(path, arrays, attributes); None if ctd does not write such files."""
    holds: Callable[[np.dtype[Any]], bool] = lambda dtype: True
    """Tells if a file can hold arrays of this type."""


HDF5 = Format(plain.read_hdf5, write_hdf5, lambda dtype: dtype.kind != "U")
# No texts, objects, times; no complex128 and long doubles.
SAFETENSORS = Format(
    plain.read_safetensors,
    plain.write_safetensors,
    lambda dtype: dtype.kind not in "USOMm" and dtype.itemsize <= 8,
)
TORCH = Format(
    torch_zip.read, torch_zip.write, lambda dtype: dtype.newbyteorder("=") in torch_zip.NAMES
)

FORMATS: Mapping[str, Format] = {
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".npz": Format(plain.read_numpy, plain.write_numpy),
    ".safetensors": SAFETENSORS,
    ".pt": TORCH,
    ".pth": TORCH,
    ".ckpt": Format(torch_zip.read),
    ".msgpack": Format(jax_files.read_msgpack),
    ".eqx": Format(jax_files.read_equinox),
    ".keras": Format(keras_file.read),
}
WRITTEN = tuple(ending for ending, form in FORMATS.items() if form.write)


def read_tensors(path: str | Path) -> Tensors:
    """Read the tensors of a file, by its ending: arrays of the shapes and dtypes that it stores, floats of 16 and 8 bits as float32.

    A folder must be Orbax's, a file without a known ending HDF5. No code of the file runs.

    Raises ValueError, naming the file, if it is missing or cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/x.npz", {"wR": np.zeros((2, 2))}, {"cell": "vanilla"})
    ...     found = read_tensors(f"{folder}/x.npz")
    >>> found.cell, found.names()
    ('vanilla', 'wR (2, 2)')
    """
    path = Path(path)
    # Orbax writes a folder with one of these names in it.
    if path.is_dir():
        marks = ("_METADATA", "default", "params", "manifest.ocdbt")
        if any((path / name).exists() for name in marks):
            return jax_files.read_orbax(path)
        raise ValueError(f"{path}: is a folder, but not one that Orbax wrote; give a file")
    endings = ", ".join(FORMATS)
    if not path.is_file():
        raise ValueError(f"{path}: does not exist; give a file of weights, which ends in {endings}")
    if path.suffix not in FORMATS and not h5py.is_hdf5(path):
        raise ValueError(f"{path}: has another ending than a file of weights; expected {endings}")
    try:
        return FORMATS.get(path.suffix, HDF5).read(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_ending(path: str | Path) -> None:
    """Raise ValueError if ctd writes no file of weights with this ending; no file is touched.

    >>> check_ending("net.txt")
    Traceback (most recent call last):
        ...
    ValueError: net.txt: cannot be written with this ending; give one of .h5, .hdf5, .npz, .safetensors, .pt, .pth
    """
    if Path(path).suffix not in WRITTEN:
        raise ValueError(
            f"{path}: cannot be written with this ending; give one of {', '.join(WRITTEN)}"
        )


def write_tensors(
    path: str | Path, arrays: Mapping[str, ArrayLike], about: Mapping[str, object] | None = None
) -> None:
    """Write arrays by name in the format of the path's ending. A complete new file replaces an existing one.

    about: attributes, among them the name of the `cell`; those are stored for which the format has a place. Equal arrays
    give equal bytes. Raises ValueError, naming the file, if the ending is unknown, its files cannot hold the type of an
    array, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/net.h5", {"wR": np.eye(2)}, {"seed": 3})
    ...     read_tensors(f"{folder}/net.h5").arrays["wR"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_ending(path)
    path = Path(path)
    _, write, holds = FORMATS[path.suffix]
    assert write is not None, "check_ending has refused it"
    values = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in values.items():
        if not holds(value.dtype):
            raise ValueError(
                f"{path}: {name} has the type {value.dtype}, which no file of this ending holds; give .npz, or leave it out"
            )
    try:
        # A writer that fails half way leaves the old file.
        with replacing(path) as new:
            write(new, values, about or {})
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
