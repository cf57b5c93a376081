"""Read and write the tensors of files of weights, by the files' endings."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike
from safetensors import safe_open
from safetensors.numpy import save_file

from ctd.containers import as_text, explained, opened_hdf5, text_attribute
from ctd.data import fill_hdf5, hdf5_writer, read_npz
from ctd.replacing import replacing
from ctd.weights import jax_files, keras_file, torch_zip
from ctd.weights.tensors import Array, Tensors, collect_tensors, datasets

# --- HDF5, NumPy, safetensors ---------------------------------------------------------------------


def write_hdf5(
    path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, object]
) -> None:
    """Write arrays at `path` itself, which `write_tensors` replaces as a whole."""
    with hdf5_writer(path) as file:
        fill_hdf5(file, arrays, attributes)


def read_hdf5(path: Path) -> Tensors:
    """Read the datasets of an HDF5 file; Keras' files by `keras_file`. Raises ValueError, naming the file."""
    with opened_hdf5(path) as file:
        if keras_file.is_keras(file):
            return keras_file.read_variables(str(path), file, text_attribute(file, "model_config"))
        return collect_tensors(str(path), datasets(str(path), file), text_attribute(file, "cell"))


def read_numpy(path: Path) -> Tensors:
    """Read the arrays of an .npz file; a text `cell` among them names the cell."""
    arrays = read_npz(path)
    if (cell := as_text(arrays.get("cell"))) is not None:
        del arrays["cell"]
    return collect_tensors(str(path), arrays, cell)


def write_numpy(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write one array for each name, and the cell as a text."""
    cell_entry = {"cell": np.asarray(about["cell"])} if "cell" in about else {}
    # numpy.savez would write the time into the file, and equal arrays would not give equal bytes.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in {**arrays, **cell_entry}.items():
            # zipfile does not know the size yet: without force_zip64, a member fails at 2 GiB.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def read_safetensors(path: Path) -> Tensors:
    """Read the tensors of a safetensors file; `cell` in its metadata names the cell."""
    with explained(path, "a safetensors file"), safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return collect_tensors(str(path), arrays, metadata.get("cell"))


def write_safetensors(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write one tensor for each name; `about` becomes metadata, which are texts."""
    metadata = {name: str(value) for name, value in about.items()}
    # safetensors writes the memory as it lies: a transposed view would be stored transposed.
    save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path, metadata=metadata)


# --- all formats ----------------------------------------------------------------------------------


class Format(NamedTuple):
    """The functions that read and write files of an ending."""

    read: Callable[[Path], Tensors]
    write: Callable[[Path, Mapping[str, Array], Mapping[str, object]], None] | None = None
    """(path, arrays, attributes); None if ctd does not write such files."""
    holds: Callable[[np.dtype[Any]], bool] = lambda dtype: True
    """True if a file can hold arrays of this type."""


HDF5 = Format(read_hdf5, write_hdf5, lambda dtype: dtype.kind != "U")
# No texts, objects, times; no complex128 and long doubles.
SAFETENSORS = Format(
    read_safetensors,
    write_safetensors,
    lambda dtype: dtype.kind not in "USOMm" and dtype.itemsize <= 8,
)
TORCH = Format(
    torch_zip.read, torch_zip.write, lambda dtype: dtype.newbyteorder("=") in torch_zip.NAMES
)

FORMATS: Mapping[str, Format] = {
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".npz": Format(read_numpy, write_numpy),
    ".safetensors": SAFETENSORS,
    ".pt": TORCH,
    ".pth": TORCH,
    ".ckpt": Format(torch_zip.read),
    ".msgpack": Format(jax_files.read_msgpack),
    ".eqx": Format(jax_files.read_equinox),
    ".keras": Format(keras_file.read),
}
WRITABLE = tuple(ending for ending, form in FORMATS.items() if form.write)


def read_tensors(path: str | Path) -> Tensors:
    """Read the tensors of a file, in the format of its ending. A folder must be Orbax's, a file without a known ending HDF5.

    No code of the file runs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/x.npz", {"wR": np.zeros((2, 2))}, {"cell": "vanilla"})
    ...     tensors = read_tensors(f"{folder}/x.npz")
    >>> tensors.cell, tensors.names()
    ('vanilla', 'wR (2, 2)')

    Args:
        path: file or folder.

    Returns:
        Arrays of the shapes and dtypes that the file stores; floats of 16 and 8 bits become float32.

    Raises:
        ValueError: the file is missing or cannot be read; the text names it.
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
    """Check that ctd writes files of weights with an ending; no file is touched.

    >>> check_ending("net.txt")
    Traceback (most recent call last):
        ...
    ValueError: net.txt: cannot be written with this ending; give one of .h5, .hdf5, .npz, .safetensors, .pt, .pth

    Args:
        path: file that is to be written.

    Raises:
        ValueError: ctd writes no such files.
    """
    if Path(path).suffix not in WRITABLE:
        raise ValueError(
            f"{path}: cannot be written with this ending; give one of {', '.join(WRITABLE)}"
        )


def write_tensors(
    path: str | Path, arrays: Mapping[str, ArrayLike], about: Mapping[str, object] | None = None
) -> None:
    """Write arrays by name in the format of the path's ending. Equal arrays give equal bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/net.h5", {"wR": np.eye(2)}, {"seed": 3})
    ...     read_tensors(f"{folder}/net.h5").arrays["wR"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Args:
        path: file to write; a complete new file replaces an existing one.
        arrays: name -> array.
        about: attributes, among them `cell`, the cell's name; those are stored for which the format has a place.

    Raises:
        ValueError: the ending is unknown, its files cannot hold the type of an array, or the file cannot be written; the text
            names the file.
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
        with replacing(path, typed=True) as new:
            write(new, values, about or {})
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
