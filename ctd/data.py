"""HDF5 files of weights and of trials: checked when read, written whole or not at all.

The layout is flat, one dataset for each name, as in the tutorials of computation through dynamics
(google-research): `trained_params_*.h5` holds a network's weights, `trained_data_*.h5` its trials.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctd.cells import check_params

TRIAL_AXES = {
    "inputs": ("trial", "time", "input"),
    "hiddens": ("trial", "time", "state"),
    "outputs": ("trial", "time", "output"),
    "targets": ("trial", "time", "output"),
    "h0s": ("trial", "state"),
}
"""The datasets of a file of trials, and their axes; without `h0s` every trial starts from the network's h0."""


def read_hdf5(path: str | Path) -> dict[str, np.ndarray]:
    """Every dataset at the top of an HDF5 file, name -> array.

    Raises ValueError, naming the file, where it is missing, unreadable or not HDF5, or where it
    holds no dataset or one that is not numeric.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path}: the file {kind}; give the path of an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            arrays = {k: np.asarray(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file, or a damaged one: {error}") from error
    if not arrays:
        raise ValueError(f"{path}: holds no dataset at its top level")
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise ValueError(
                f"{path}: dataset {name} has the type {array.dtype}, which is no number"
            )
    return arrays


def write_hdf5(
    path: str | Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write name -> array as an HDF5 file. An existing file is replaced once the new one is complete.

    Times are not recorded, so equal arrays give equal bytes. Raises ValueError where the folder does not
    exist or cannot be written to.
    """
    with new_hdf5(path) as file:
        file.attrs.update(attributes or {})
        for name, array in arrays.items():
            array = np.asarray(array)
            # Spike counts shrink to a tenth; a scalar cannot be compressed.
            packed = {"compression": "gzip", "shuffle": True} if array.ndim else {}
            file.create_dataset(name, data=array, track_times=False, **packed)


@contextmanager
def new_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """An HDF5 file to write into, which takes its place at `path` once it is complete. Raises as `write_hdf5`."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        with h5py.File(temporary, "w") as file:
            yield file
        # mkstemp makes a private file: give it the permissions that a plain open would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_weights(path: str | Path, cell: str | None = None) -> dict[str, np.ndarray]:
    """The weights of a network, name -> array, checked against the cell's shapes if `cell` is given.

    Raises ValueError, naming file and weight, where they do not fit, and where the file's attribute `cell`
    names another cell.
    """
    weights = read_hdf5(path)
    if cell is not None:
        check_params(cell, weights, str(path))
        _check_written_as(path, cell)
    return weights


def _check_written_as(path: str | Path, cell: str) -> None:
    """Raise ValueError where the file's attribute `cell` names another cell: names of weights alone do not tell."""
    with h5py.File(path, "r") as file:
        written = file.attrs.get("cell", cell)
    if written != cell:
        raise ValueError(
            f"{path}: says that it holds the weights of cell {written}, but cell {cell} is given; "
            f"use cell: {written}"
        )


def write_weights(path: str | Path, weights: Mapping[str, Any], cell: str) -> None:
    """Check the weights of a network and write them; the cell's name becomes an attribute of the file."""
    weights = {name: np.asarray(value) for name, value in weights.items()}
    check_params(cell, weights, str(path))
    write_hdf5(path, weights, {"cell": cell})


def read_trials(path: str | Path) -> dict[str, np.ndarray]:
    """The trials of a file: name -> array for the names of `TRIAL_AXES` that it holds; others are ignored.

    Raises ValueError, naming file and dataset, where there is none, the axes or their lengths disagree, or a
    value is NaN or infinite.
    """
    found = read_hdf5(path)
    trials = {name: found[name] for name in TRIAL_AXES if name in found}
    if not trials:
        raise ValueError(
            f"{path}: holds none of {', '.join(TRIAL_AXES)}; found {', '.join(sorted(found))}"
        )
    lengths: dict[str, tuple[int, str]] = {}
    for name, array in trials.items():
        axes = TRIAL_AXES[name]
        if array.ndim != len(axes):
            raise ValueError(
                f"{path}: {name} has the shape {array.shape}, it needs the axes {axes}"
            )
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{path}: {name} has {bad} NaN or infinite entries")
        for axis, length in zip(axes, array.shape, strict=True):
            first, by = lengths.setdefault(axis, (length, name))
            if first != length:
                raise ValueError(f"{path}: {name} has {length} along {axis}, but {by} has {first}")
    return trials
