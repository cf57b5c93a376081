"""Readers and writers of files of weights, one for each ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ctd.replacing import replacing
from ctd.weights import jax_files, keras_file, plain, torch_zip
from ctd.weights.tensors import Array, Tensors

type Writer = Callable[[Path, Mapping[str, Array], str | None, Mapping[str, object]], None]

READERS: Mapping[str, Callable[[Path], Tensors]] = {
    ".h5": plain.read_hdf5,
    ".hdf5": plain.read_hdf5,
    ".npz": plain.read_numpy,
    ".safetensors": plain.read_safetensors,
    ".pt": torch_zip.read,
    ".pth": torch_zip.read,
    ".ckpt": torch_zip.read,
    ".msgpack": jax_files.read_msgpack,
    ".eqx": jax_files.read_equinox,
    ".keras": keras_file.read,
}

WRITERS: Mapping[str, Writer] = {
    ".h5": plain.write_hdf5_file,
    ".hdf5": plain.write_hdf5_file,
    ".npz": plain.write_numpy,
    ".safetensors": plain.write_safetensors,
    # A state_dict has no place for attributes.
    ".pt": lambda path, arrays, cell, about: torch_zip.write(path, arrays, cell),
    ".pth": lambda path, arrays, cell, about: torch_zip.write(path, arrays, cell),
}

REFUSED: Mapping[str, Callable[[np.dtype[Any]], bool]] = {
    ".h5": lambda dtype: dtype.kind == "U",
    ".hdf5": lambda dtype: dtype.kind == "U",
    # Texts, objects, times; complex128 and long doubles.
    ".safetensors": lambda dtype: dtype.kind in "USOMm" or dtype.itemsize > 8,
    ".pt": lambda dtype: dtype.newbyteorder("=") not in torch_zip.NAMES,
    ".pth": lambda dtype: dtype.newbyteorder("=") not in torch_zip.NAMES,
}
"""Ending -> tells if its files cannot hold this type."""

ENDINGS = tuple(READERS)
"""Endings of the files that `read_tensors` reads; `check_ending` knows those that are written."""


def read_tensors(path: str | Path) -> Tensors:
    """Read the tensors of a file, by its ending: arrays of the shapes and dtypes that it stores, floats of 16 and 8 bits as float32.

    A folder must be Orbax's, a file without a known ending HDF5. No code of the file runs.

    Raises ValueError, naming the file, if it is missing or cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/x.npz", {"wR": np.zeros((2, 2))}, cell="vanilla")
    ...     found = read_tensors(f"{folder}/x.npz")
    >>> found.cell, found.names()
    ('vanilla', 'wR (2, 2)')
    """
    path = Path(path)
    # Orbax writes a folder with one of these names in it.
    if path.is_dir():
        if any(
            (path / name).exists() for name in ("_METADATA", "default", "params", "manifest.ocdbt")
        ):
            return jax_files.read_orbax(path)
        raise ValueError(f"{path}: is a folder, but not one that Orbax wrote; give a file")
    if not path.is_file():
        raise ValueError(
            f"{path}: does not exist; give a file of weights, which ends in {', '.join(ENDINGS)}"
        )
    if path.suffix not in READERS and not h5py.is_hdf5(path):
        raise ValueError(
            f"{path}: has another ending than a file of weights; expected {', '.join(ENDINGS)}"
        )
    try:
        return READERS.get(path.suffix, plain.read_hdf5)(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_ending(path: str | Path) -> None:
    """Raise ValueError if ctd writes no file of weights with this ending; no file is touched.

    >>> check_ending("net.txt")
    Traceback (most recent call last):
        ...
    ValueError: net.txt: cannot be written with this ending; give one of .h5, .hdf5, .npz, .safetensors, .pt, .pth
    """
    if Path(path).suffix not in WRITERS:
        raise ValueError(
            f"{path}: cannot be written with this ending; give one of {', '.join(WRITERS)}"
        )


def write_tensors(
    path: str | Path,
    arrays: Mapping[str, ArrayLike],
    cell: str | None = None,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write arrays by name in the format of the path's ending. A complete new file replaces an existing one.

    cell, about: the name of the cell and attributes, which are stored if the format has a place for them. Equal arrays
    give equal bytes. Raises ValueError, naming the file, if the ending is unknown, its files cannot hold the type of an
    array, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/net.h5", {"wR": np.eye(2)}, about={"seed": 3})
    ...     read_tensors(f"{folder}/net.h5").arrays["wR"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_ending(path)
    path = Path(path)
    values = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in values.items():
        if path.suffix in REFUSED and REFUSED[path.suffix](value.dtype):
            raise ValueError(
                f"{path}: {name} has the type {value.dtype}, which no file of this ending holds; give .npz, or leave it out"
            )
    try:
        # A writer that fails half way leaves the old file.
        with replacing(path) as new:
            WRITERS[path.suffix](new, values, cell, about or {})
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
