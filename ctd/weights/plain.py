"""Read and write files of named arrays: HDF5, NumPy's .npz, safetensors."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ctd.containers import explained, opened_hdf5, read_dataset, text_attribute
from ctd.data import read_npz
from ctd.weights import keras_file
from ctd.weights.tensors import Array, Tensors, of_tree


def read_hdf5(path: Path) -> Tensors:
    """Read the datasets of an HDF5 file; Keras' files by `keras_file`. Raises ValueError, naming the file."""
    with opened_hdf5(path) as file:
        if keras_file.is_keras(file):
            return keras_file.of_hdf5(str(path), file, text_attribute(file, "model_config"))
        return of_tree(str(path), _datasets(path, file), text_attribute(file, "cell"))


def _datasets(path: Path, file: h5py.File) -> dict[str, Array]:
    found: dict[str, Array] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = read_dataset(path, file, name)

    file.visititems(visit)
    if not found:
        raise ValueError(f"{path}: holds no dataset")
    return found


def read_numpy(path: Path) -> Tensors:
    """Read the arrays of an .npz file; a text `cell` among them names the cell."""
    arrays = read_npz(path)
    cell = arrays.pop("cell", None)
    written = str(cell) if cell is not None and cell.dtype.kind == "U" else None
    return of_tree(str(path), arrays, written)


def write_numpy(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write one array for each name, and the cell as a text."""
    named = {"cell": np.asarray(about["cell"])} if "cell" in about else {}
    # numpy.savez would write the time into the file, and equal arrays would not give equal bytes.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in {**arrays, **named}.items():
            # zipfile does not know the size yet: without force_zip64, a member fails at 2 GiB.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def read_safetensors(path: Path) -> Tensors:
    """Read the tensors of a safetensors file; `cell` in its metadata names the cell."""
    with explained(path, "a safetensors file"), safe_open(path, framework="numpy") as file:
        told = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return of_tree(str(path), arrays, told.get("cell"))


def write_safetensors(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write one tensor for each name; `about` becomes metadata, which are texts."""
    told = {name: str(value) for name, value in about.items()}
    # safetensors writes the memory as it lies: a transposed view would be stored transposed.
    save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path, metadata=told)
