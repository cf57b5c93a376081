"""One reader and one writer for each ending of a file of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctd.replacing import replacing
from ctd.weights import jax_files, keras_file, plain, torch_zip
from ctd.weights.tensors import Array, Tensors

type Writer = Callable[[Path, Mapping[str, Array], str | None, Mapping[str, Any]], None]

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
    ".pt": lambda path, arrays, cell, about: torch_zip.write(path, arrays, cell),
    ".pth": lambda path, arrays, cell, about: torch_zip.write(path, arrays, cell),
}

ENDINGS = tuple(READERS)


def read_tensors(path: str | Path) -> Tensors:
    """The tensors of a file by its ending; a folder is one of Orbax, a file without a known ending HDF5.

    Raises ValueError, naming the file, where there is none or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if any(
            (path / name).exists() for name in ("_METADATA", "default", "params", "manifest.ocdbt")
        ):
            return jax_files.read_orbax(path)
        raise ValueError(f"{path}: the file is a folder, and none that Orbax wrote")
    if not path.is_file():
        raise ValueError(
            f"{path}: the file does not exist; files of weights end in {', '.join(ENDINGS)}"
        )
    if path.suffix not in READERS and not h5py.is_hdf5(path):
        raise ValueError(f"{path}: files of weights end in {', '.join(ENDINGS)}")
    try:
        return READERS.get(path.suffix, plain.read_hdf5)(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None


def check_ending(path: str | Path) -> None:
    """Raise ValueError where no file of weights is written with this ending."""
    if Path(path).suffix not in WRITERS:
        raise ValueError(
            f"{path}: files of weights are written with the endings {', '.join(WRITERS)}"
        )


def write_tensors(
    path: str | Path,
    arrays: Mapping[str, Any],
    cell: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write name -> array by the path's ending. An existing file is replaced once the new one is complete.

    cell, about: what the file tells of itself, as far as its kind can. Equal arrays give equal bytes.
    Raises ValueError, naming the file, where no such file is written or it cannot be.
    """
    check_ending(path)
    path = Path(path)
    values = {name: np.asarray(value) for name, value in arrays.items()}
    try:
        with replacing(path) as new:
            WRITERS[path.suffix](new, values, cell, about or {})
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
