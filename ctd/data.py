"""Files of named arrays: checked when they are read, written whole or not at all.

HDF5 files are flat, one dataset for each name, as in the computation-through-dynamics tutorials (google-research):
`trained_params_*.h5` holds a network's weights (see `ctd.weights`), `trained_data_*.h5` its trials.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctd.replacing import replacing

TRIAL_AXES = {
    "inputs": ("trial", "time", "input"),
    "hiddens": ("trial", "time", "state"),
    "outputs": ("trial", "time", "output"),
    "targets": ("trial", "time", "output"),
    "h0s": ("trial", "state"),
}
"""Dataset of a file of trials -> its axes. Without `h0s` every trial starts from the network's h0."""


def read_hdf5(path: str | Path) -> dict[str, np.ndarray]:
    """Read every dataset at the top level of an HDF5 file: name -> array.

    Raises ValueError, naming the file, where it is missing, unreadable or not HDF5, or where it
    holds no dataset or one that is not numeric.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path}: {kind}; give the path of an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            arrays = {k: np.asarray(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file, or a damaged one: {error}") from error
    if not arrays:
        raise ValueError(f"{path}: holds no dataset at its top level")
    for name, array in arrays.items():
        # Texts and references are no data of a network or of trials.
        if array.dtype.kind not in "biufc":
            raise ValueError(
                f"{path}: dataset {name} has the type {array.dtype}, which is no number"
            )
    return arrays


def write_hdf5(
    path: str | Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write name -> array, and attributes, as an HDF5 file, which replaces an existing one once it is complete.

    No times are written, so that equal arrays give equal bytes. Raises ValueError where the folder does not exist or
    cannot be written to.

    >>> write_hdf5("net.h5", {"wR": np.eye(2)})
    >>> read_hdf5("net.h5")["wR"].shape
    (2, 2)
    """
    with new_hdf5(path) as file:
        file.attrs.update(attributes or {})
        for name, array in arrays.items():
            array = np.asarray(array)
            # gzip shrinks spike counts to a tenth; HDF5 refuses to compress a scalar.
            packed = {"compression": "gzip", "shuffle": True} if array.ndim else {}
            file.create_dataset(name, data=array, track_times=False, **packed)


@contextmanager
def new_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to write into, which takes its place at `path` once it is complete. Raises as `write_hdf5` does."""
    try:
        with replacing(path) as new, h5py.File(new, "w") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array of an .npz file: name -> array. Raises ValueError, naming the file, where it is none or holds objects."""
    try:
        # np.load would take any other file for a pickle.
        if not zipfile.is_zipfile(path):
            raise OSError("no zip archive")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path}: {_told(error, 'an .npz file')}") from None


def _told(error: Exception, kind: str) -> str:
    """The reason why numpy does not read a file of this kind, and what to do."""
    if "Object arrays" in str(error) or "pickled" in str(error):
        return (
            "holds Python objects, whose reading may run code; numpy.savez(path, *list) saves a list of arrays of numbers "
            "without them"
        )
    return f"not {kind}, or a damaged one: {error}"


def read_arrays(path: str | Path, name: str) -> dict[str, np.ndarray]:
    """Read an HDF5, .npz or .npy file: name -> array. The array of a .npy file gets the name `name`.

    Raises ValueError, naming the file.
    """
    suffix = Path(path).suffix
    # A file that is missing is told by read_hdf5, in the words of every other file.
    if suffix not in (".npz", ".npy") or not Path(path).is_file():
        return read_hdf5(path)
    if suffix == ".npz":
        return read_npz(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: {_told(error, 'a .npy file of numbers')}") from None
    return {name: array}


def read_trials(path: str | Path) -> dict[str, np.ndarray]:
    """Read the trials of an HDF5 file: name -> array for the names of `TRIAL_AXES`; other datasets are ignored.

    Raises ValueError, naming file and dataset, where the file has none of these names, numbers or lengths of axes
    disagree, or a value is NaN or infinite.
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
            # The first dataset that has an axis sets its length; the error names both.
            first, by = lengths.setdefault(axis, (length, name))
            if first != length:
                raise ValueError(f"{path}: {name} has {length} along {axis}, but {by} has {first}")
    return trials
