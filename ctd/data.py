"""Files of named arrays: checked when they are read, written whole or not at all.

HDF5 files are flat, one dataset for each name, as in the computation-through-dynamics tutorials (google-research):
`trained_params_*.h5` holds a network's weights (see `ctd.weights`), `trained_data_*.h5` its trials.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ctd.containers import (
    check_numbers,
    opened_hdf5,
    opened_zip,
    read_array,
    read_dataset,
    read_datasets,
)
from ctd.replacing import replacing
from ctd.words import did_you_mean

CONDITION = "condition"
"""Name of the conditions (trial,) in a file that does not say which trials are for training."""
VECTORS = (CONDITION, "conditions", "train_condition", "eval_condition", "valid_condition")
"""Names of arrays (trial,). MATLAB saves a vector as (1, trial) or (trial, 1), which is read as the vector."""


def read_hdf5(path: str | Path) -> dict[str, np.ndarray]:
    """Read every dataset at the top level of an HDF5 file: name -> array.

    Raises ValueError, naming the file, where it is missing, unreadable or not HDF5, or where it
    holds no dataset or one that is not numeric.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path}: {kind}; give the path of an HDF5 file")
    with opened_hdf5(path) as file:
        arrays, groups = _flat(read_datasets(path, file)), sorted(file)
    if not arrays:
        advice = f", but {', '.join(groups)}; give one of its groups as a path" if groups else ""
        store = (
            f"; give {path}/gathered/0, a table of this store" if "gathered" in groups else advice
        )
        raise ValueError(f"{path}: holds no dataset at its top level{store}")
    return arrays


def _flat(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays; those of `VECTORS` with one axis of 1 as vectors."""
    has_two = lambda name, array: name in VECTORS and array.ndim == 2 and 1 in array.shape
    return {name: a.ravel() if has_two(name, a) else a for name, a in arrays.items()}


def write_hdf5(
    path: str | Path,
    arrays: Mapping[str, ArrayLike],
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Write name -> array, and attributes, as an HDF5 file, which replaces an existing one once it is complete.

    No times are written, so that equal arrays give equal bytes. Raises ValueError where the folder does not exist or
    cannot be written to.

    >>> write_hdf5("net.h5", {"wR": np.eye(2)})
    >>> read_hdf5("net.h5")["wR"].shape
    (2, 2)
    """
    with new_hdf5(path) as file:
        fill_hdf5(file, arrays, attributes or {})


def fill_hdf5(
    file: h5py.File, arrays: Mapping[str, ArrayLike], attributes: Mapping[str, object]
) -> None:
    """Write name -> array, and attributes, into an open HDF5 file."""
    file.attrs.update(attributes)
    for name, array in arrays.items():
        array = np.asarray(array)
        # gzip shrinks spike counts to a tenth; HDF5 refuses to compress a scalar.
        packed = {"compression": "gzip", "shuffle": True} if array.ndim else {}
        file.create_dataset(name, data=array, track_times=False, **packed)


@contextmanager
def new_hdf5(path: str | Path, *, typed: bool = True) -> Iterator[h5py.File]:
    """Open an HDF5 file to write into, which takes its place at `path` once it is complete. typed: see `replacing`.

    Raises as `write_hdf5` does.
    """
    try:
        with replacing(path, typed=typed) as new, hdf5_writer(new) as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def hdf5_writer(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to write into, at `path` itself. Raises OSError where the disk is full or fails."""
    with _Disk(path, "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except (OSError, RuntimeError):
            # HDF5 reports the missing bytes; the disk's own error gives the cause.
            if disk.error is None:
                raise
        if disk.error is not None:
            raise disk.error


class _Disk(FileIO):
    """A file that keeps its first error, and drops all later writes.

    HDF5 2.0 crashes the process (a segmentation fault) if a write fails while it closes a file.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        remaining = memoryview(data).cast("B")
        while len(remaining) and self.error is None:
            # One write(2) moves at most 2 GiB.
            remaining = remaining[self._keep(super().write, remaining) :]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        self._keep(super().truncate, size)
        return self.tell() if size is None else size

    def _keep(self, change: Callable[..., int], *args: Any) -> int:
        try:
            return change(*args)
        except OSError as error:
            self.error = self.error or error
            return 0


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array of an .npz file: name -> array. Raises ValueError, naming the file, where it is none or holds objects."""
    arrays = {}
    with opened_zip(path, "an .npz file") as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                arrays[name] = read_array(f"{path}: {name}", file, member.file_size)
    return arrays


def read_arrays(path: str | Path, name: str) -> dict[str, np.ndarray]:
    """Read an HDF5, .npz or .npy file: name -> array. The array of a .npy file gets the name `name`.

    Raises ValueError, naming the file.
    """
    suffix = Path(path).suffix
    # read_hdf5 reports a missing file, in the same words for every kind of file.
    if suffix not in (".npz", ".npy") or not Path(path).is_file():
        return read_hdf5(path)
    if suffix == ".npz":
        return _flat(read_npz(path))
    with Path(path).open("rb") as file:
        return {name: read_array(path, file, Path(path).stat().st_size)}


SPLITS = ("train", "train_encod_data", "train_recon_data", "eval", "valid_encod_data")
"""A file of trials with any of these names says which trials are for training, and which for evaluation."""


def unsplit(path: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The trials (time, unit) of an .npz file that names no splits, in the file's order: of one array (trial, time, unit), or an
    array for each.

    Raises ValueError, naming the file.

    >>> len(unsplit("spikes.npz", {"spikes": np.ones((10, 8, 3))})), len(unsplit("spikes.npz", {"a": np.ones((8, 3))}))
    (10, 1)
    """
    listed = list(arrays.items())
    if not listed:
        raise ValueError(
            f"data: {path}: holds no trials; numpy.savez(path, spikes=counts), (trial, time, unit)"
        )
    # One array of all trials needs no names.
    trial_arrays = [name for name, array in listed if array.ndim == 3]
    if len(listed) == 1 and trial_arrays:
        return list(listed[0][1])
    if len(trial_arrays) > 1:
        raise ValueError(
            f"data: {path}: {', '.join(trial_arrays)} are {len(trial_arrays)} arrays (trial, time, unit), whose names do not say which trials are "
            "for what; did you mean 'train' and 'eval'? numpy.savez(path, train=..., eval=...)"
        )
    if trial_arrays:
        others = ", ".join(name for name in arrays if name != trial_arrays[0])
        raise ValueError(
            f"data: {path}: has {others} beside {trial_arrays[0]}, (trial, time, unit), where only {CONDITION!r} may be, the conditions of all "
            "trials; leave other arrays out, or split all by name, behaviour too: numpy.savez(path, train=..., eval=..., "
            "train_behavior=..., eval_behavior=...)"
        )
    for name, trial in listed:
        if trial.ndim != 2 or trial.shape[1] != listed[0][1].shape[-1]:
            raise ValueError(
                f"data: {path}: {name} has the shape {trial.shape}; one array (trial, time, unit) expected, or an array "
                f"(time, unit) for each trial, with the units of the first, {listed[0][0]} {listed[0][1].shape}"
            )
    return [trial for _, trial in listed]


def check_axes(
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    axes: Mapping[str, tuple[str, ...]],
    hint: str = "",
) -> None:
    """Raise ValueError, naming file and array, where numbers or lengths of axes disagree, or a value is NaN or infinite.

    axes: array -> the names of its axes. hint: what to do about NaN.

    >>> axes = {"inputs": ("trial", "time", "input"), "conditions": ("trial",)}
    >>> check_axes("trials.h5", {"conditions": np.ones(5), "inputs": np.ones((4, 9, 1))}, axes)
    Traceback (most recent call last):
    ValueError: trials.h5: inputs has 4 along trial, but conditions has 5
    """
    lengths: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        if array.ndim != len(axes[name]):
            raise ValueError(
                f"{path}: {name} has the shape {array.shape}, it needs the axes {axes[name]}"
            )
        check_numbers(f"{path}: {name}", array, hint)
        for axis, length in zip(axes[name], array.shape, strict=True):
            # The first array that has an axis sets its length; the error names both.
            first, by = lengths.setdefault(axis, (length, name))
            if first != length:
                raise ValueError(f"{path}: {name} has {length} along {axis}, but {by} has {first}")


def read_table(
    field: str, path: str | None, kernel: str, needed: Sequence[str], further: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Read columns of a table of a store of `kernel`: all `needed` ones, and those of the `further` ones that it has.

    Raises ValueError, beginning with `field`, where no file is given, or it lacks a column.
    """
    expected = f"give STORE/gathered/GROUP of a store of {kernel}"
    if path is None:
        raise ValueError(f"{field}: {expected}")
    # Jacobians and eigenvectors may be nearly all of the file: only these columns are read.
    with opened_hdf5(path) as file:
        if missing := sorted(name for name in needed if name not in file):
            raise ValueError(f"{field}: {path}: lacks {', '.join(missing)}; {expected}")
        return {
            name: read_dataset(path, file, name) for name in (*needed, *further) if name in file
        }


def dataset_of[T](path: str, arrays: Mapping[str, T], name: str, hint: str = "") -> T:
    """An array of a file. Raises ValueError, beginning with `path` and ending with `hint`, where the file has none of this name."""
    if name not in arrays:
        near = did_you_mean(name, arrays)
        advice = near + hint.lstrip(";.") if near else f"; it has {', '.join(sorted(arrays))}{hint}"
        raise ValueError(f"{path}: has no dataset {name}{advice}")
    return arrays[name]


def read_recordings(
    path: str, needed: Sequence[str], further: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Read arrays of recordings or trials: name -> (recording, time, channel) float64. One recording may lie there as (time, channel).

    needed: the arrays that the file must have; that of a .npy file is the first one. further: those that it may have. Raises
    ValueError, naming file and array, where one is missing, has other axes or other recordings and steps than the first, or
    holds a value that is not a finite real number.
    """
    arrays, read = read_arrays(path, needed[0]), dict[str, np.ndarray]()
    for name in (*needed, *(name for name in further if name in arrays)):
        values = dataset_of(path, arrays, name, _uncut(arrays))
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise ValueError(
                f"{path}: {name} has the shape {values.shape}; (time, channel) or (recording, time, channel) expected"
            )
        check_numbers(f"{path}: {name}", values, "; cut them out or fill them in")
        read[name] = np.asarray(values, float).reshape(-1, *values.shape[-2:])
        (n, steps), (as_many, as_long) = read[name].shape[:2], read[needed[0]].shape[:2]
        if (n, steps) != (as_many, as_long):
            raise ValueError(
                f"{path}: {name} has {n} x {steps} recordings (trials) and steps, but {needed[0]} has {as_many} x {as_long}; "
                "both need the same"
            )
    return read


def _uncut(arrays: Mapping[str, np.ndarray]) -> str:
    """The advice to stack the arrays of a file that holds one for each recording; "" for other files."""
    many = len(arrays) > 1 and all(values.ndim == 2 for values in arrays.values())
    if not many or len({values.shape[1] for values in arrays.values()}) > 1:
        return ""
    shortest = min(arrays, key=lambda name: len(arrays[name]))
    n = len(arrays[shortest])
    return (
        f". If these are {len(arrays)} recordings, cut them to the length of the shortest, {shortest} with {n} samples, and "
        f"stack them as one array (recording, time, channel): numpy.stack([r[:{n}] for r in recordings])"
    )
