"""The trials that models are fitted to: read from HDF5, NumPy's files or NWB, checked, cut to what the encoder sees.

HDF5 files have one of two layouts, told apart by the names of their datasets. NAME is train or eval in ctd's,
train or valid in lfads-torch's:

    ctd           NAME (trial, time, unit); if known NAME_external, NAME_behavior, eval_rates, eval_inputs,
                  eval_initial_states (trial, state)
    lfads-torch   NAME_encod_data, NAME_recon_data; if known NAME_ext_input, NAME_behavior, NAME_truth

The encoder may see fewer units and bins than are reconstructed: in lfads-torch's layout if `encod` is smaller
than `recon`, in ctd's by `held_out_units` and `held_out_bins`. True rates, inputs, states and initial states may
cover only the first trials. A file may state the width of its bins, `bin_s` (s), and the conditions of its trials,
NAME_condition (trial,), numbers: those of evaluation give PSTHs, those of training are what sessions are compared and
aligned by. With `chop`, data are (time, unit), or trials longer than a window, and so is the rest; see `ctd.lfads.chop`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ctd.data import read_hdf5
from ctd.late import scipy
from ctd.lfads.checks import check_entries
from ctd.lfads.chop import Found, Windows, chop_found
from ctd.lfads.distributions import COUNTS
from ctd.lfads.first_outputs import first_outputs
from ctd.lfads.numpy_file import read_numpy
from ctd.lfads.nwb import read_nwb


class Trials(NamedTuple):
    """Trials for training or for evaluation; None for what the file does not have."""

    data: np.ndarray
    """(trial, time, unit) counts, or reals if the likelihood is of these."""
    encoded: np.ndarray | None = None
    """(trial, encoded time, encoded unit) what the encoder sees; None if that is a part of `data`."""
    external: np.ndarray | None = None
    """(trial, time, external input)"""
    behavior: np.ndarray | None = None
    """(trial, time, channel)"""
    rates: np.ndarray | None = None
    """(first trials, time, unit) true rates."""
    inputs: np.ndarray | None = None
    """(first trials, time, input) true inputs."""
    initial_states: np.ndarray | None = None
    """(first trials, state) true initial states: of the system that made the data, before the first bin."""
    states: np.ndarray | None = None
    """(first trials, time, state) true states."""
    condition: np.ndarray | None = None
    """(trial, condition) bool, one True a trial, conditions by number; of evaluation trials alone."""
    session: np.ndarray | None = None
    """(trial,) int32, the session that a trial is of; None if there is one alone."""


class Alignment(NamedTuple):
    """What read-ins and readouts start from, see `ctd.lfads.alignment`; the model's dtype."""

    read_in: np.ndarray
    """(session, factor, unit)"""
    read_in_bias: np.ndarray
    """(session, factor)"""
    readout: np.ndarray
    """(session, unit, factor) of the first moment of the likelihood."""


class Stitched(NamedTuple):
    """What is known of each of several sessions."""

    sessions: tuple[Dataset, ...]
    """Each with its own units, for posterior means and metrics."""
    real: np.ndarray
    """(session, unit) bool: whether the session has such a unit, or it is padding."""
    shown: np.ndarray
    """(session, unit) bool: whether the encoder sees it."""
    alignment: Alignment | None


class Dataset(NamedTuple):
    """The data that all models of a group share."""

    train: Trials
    evaluation: Trials
    seen_units: np.ndarray
    """Indices of the units that the encoder sees."""
    held_units: np.ndarray
    """Indices of the other units."""
    seen_bins: np.ndarray
    """Indices of the bins that the encoder sees: the first ones."""
    bias: np.ndarray
    """(output,) first bias of the output layer, see `first_outputs`: of Poisson, log mean counts."""
    log_factorial: np.ndarray | None
    """Table of log x! for x = 0 up to the largest count or further; None if the data are no counts."""
    windows: tuple[Windows, Windows] | None = None
    """Where the trials for training, and for evaluation, lie in the recordings; None unless these were chopped."""
    stitched: Stitched | None = None
    """The sessions, whose trials the others hold together; units are then padded, bias is (session, moment, unit)."""
    core: Any = None
    """Weights that stay as they are, part -> name -> array; None if all are trained."""


NAMES: dict[str, dict[str, str | None]] = {
    "ctd": {
        "data": "{}",
        "encoded": None,
        "external": "{}_external",
        "behavior": "{}_behavior",
        "rates": "{}_rates",
        "inputs": "{}_inputs",
        "initial_states": "{}_initial_states",
        "states": "{}_states",
        "condition": "{}_condition",
    },
    "lfads-torch": {
        "data": "{}_recon_data",
        "encoded": "{}_encod_data",
        "external": "{}_ext_input",
        "behavior": "{}_behavior",
        "rates": "{}_truth",
        "inputs": "{}_inputs",
        "initial_states": "{}_initial_states",
        "states": "{}_states",
        "condition": "{}_condition",
    },
}


def read(path: str, inputs: Any) -> Mapping[str, Any]:
    """The arrays of a file by name. Raises ValueError, naming it."""
    if path.endswith((".npy", ".npz")):
        return read_numpy(path, inputs)
    return read_nwb(path, inputs) if path.endswith(".nwb") else read_hdf5(path)


def make_dataset(arrays: Mapping[str, Any], inputs: Any, where: str = "data") -> Dataset:
    """The trials in arrays of one of the layouts, for the model `inputs`. Raises ValueError, naming `where`."""
    found = _find(arrays, where)
    for parts in found:
        _check_entries(where, parts, inputs.likelihood)
    windows: tuple[Windows, Windows] | None = None
    if inputs.chop is not None:
        (train_parts, first), (other_parts, second) = (
            chop_found(parts, inputs.chop, where) for parts in found
        )
        found, windows = (train_parts, other_parts), (first, second)
    for parts in found:
        for field, (name, array) in parts.items():
            _check_shape(f"{where}: {name}", array, field)
        _check_within(where, parts)
    _check_between(where, *found)
    train, evaluation = (_trials(parts, inputs) for parts in found)
    if "condition" in found[1]:
        given = found[1]["condition"][1]
        evaluation = evaluation._replace(condition=given[:, None] == np.unique(given))
    units, bins = _seen(where, train, inputs)
    if all(
        trials.encoded is None or _is_part(trials, units, bins) for trials in (train, evaluation)
    ):
        # The usual case: what the encoder sees is a part of `data`, so one copy is enough.
        train, evaluation = train._replace(encoded=None), evaluation._replace(encoded=None)
    if len(bins) <= inputs.lag:
        raise ValueError(
            f"lag: {inputs.lag} bins around its own are hidden from the controller, but trials of {where} "
            f"show {len(bins)} to the encoder; shorten the lag"
        )
    bias, table = _moments(where, train, evaluation, inputs)
    held_units = np.setdiff1d(np.arange(train.data.shape[2]), units)
    return Dataset(train, evaluation, units, held_units, bins, bias, table, windows)


def _find(arrays: Mapping[str, Any], where: str) -> tuple[Found, Found]:
    """The arrays for training and those for evaluation, found by the names of the file's layout."""
    layout = "lfads-torch" if "train_encod_data" in arrays else "ctd"
    found = []
    for role in ("train", "eval" if layout == "ctd" else "valid"):
        names = {k: pattern.format(role) for k, pattern in NAMES[layout].items() if pattern}
        if names["data"] not in arrays and names.get("encoded") in arrays:
            names["data"] = names["encoded"]  # nothing is held out
        missing = sorted({names["data"], names.get("encoded", names["data"])} - set(arrays))
        if missing:
            raise ValueError(
                f"{where}: lacks {', '.join(missing)}, (trial, time, unit); found "
                f"{', '.join(sorted(arrays))}"
            )
        found.append({k: (name, arrays[name]) for k, name in names.items() if name in arrays})
    return found[0], found[1]


# --- checks ---------------------------------------------------------------------------------------


def _check_entries(where: str, found: Found, likelihood: str) -> None:
    """Check all entries, of recordings before these are cut, so that a bad one is told by its place in the file."""
    for field, (name, array) in found.items():
        law = likelihood if field == "data" else None
        if isinstance(array, list):
            for k, one in enumerate(array):
                check_entries(f"{where}: {name}[{k}]", one, law)
        else:
            check_entries(f"{where}: {name}", array, law)


def _check_shape(where: str, array: np.ndarray, field: str) -> None:
    other = {"initial_states": ("trial", "state"), "condition": ("trial",)}
    axes = other.get(field, ("trial", "time", "..."))
    if array.ndim != len(axes):
        hint = "; `chop: {window, overlap}` cuts recordings (time, unit)" if array.ndim == 2 else ""
        raise ValueError(f"{where} has the shape {array.shape}; ({', '.join(axes)}) expected{hint}")
    if 0 in array.shape:
        raise ValueError(f"{where} has the shape {array.shape}: it is empty")


def _check_within(where: str, parts: Found) -> None:
    """Check that lengths along trial, time and unit agree; true values may have fewer trials."""
    by, data = parts["data"]
    for field, (dataset, array) in parts.items():
        truth = ("rates", "inputs", "initial_states", "states")
        short = field in truth and len(array) < len(data)
        if len(array) != len(data) and not short:
            raise ValueError(
                f"{where}: {dataset} has {len(array)} trials, but {by} has {len(data)}"
            )
        free = field in ("encoded", "initial_states", "condition")
        if not free and array.shape[1] != data.shape[1]:
            raise ValueError(
                f"{where}: {dataset} has {array.shape[1]} time bins, but {by} has {data.shape[1]}"
            )
        if field == "rates" and array.shape[2] != data.shape[2]:
            raise ValueError(
                f"{where}: {dataset} has {array.shape[2]} units, but {by} has {data.shape[2]}"
            )
        if field == "encoded" and (
            array.shape[1] > data.shape[1] or array.shape[2] > data.shape[2]
        ):
            raise ValueError(
                f"{where}: {dataset} has the shape {array.shape}, more than {by} with {data.shape}: what "
                "the encoder sees is a part of what is reconstructed"
            )


def _check_between(where: str, first: Found, second: Found) -> None:
    """Check that training and evaluation have the same units, bins and channels."""
    for field in ("data", "encoded", "external", "behavior"):
        if (field in first) != (field in second):
            has, lacks = (first, "evaluation") if field in first else (second, "training")
            raise ValueError(
                f"{where}: {has[field][0]} is there, but the same for {lacks} is missing; give both, or neither"
            )
        if field in first and first[field][1].shape[1:] != second[field][1].shape[1:]:
            (a, x), (b, y) = first[field], second[field]
            raise ValueError(
                f"{where}: {a} has (time, ...) {x.shape[1:]}, but {b} has {y.shape[1:]}; they must agree"
            )


def _trials(parts: Found, inputs: Any) -> Trials:
    """Trials with counts as uint8 or int32, whichever holds them, and all else in the model's dtype."""
    made = {}
    for field, (_, array) in parts.items():
        if field == "data" and inputs.likelihood in COUNTS:
            small = array.max() < 256
            made[field] = array.astype(np.uint8 if small else np.int32)
        elif field != "condition":
            made[field] = array.astype(inputs.dtype)
    return Trials(**made)


def _seen(where: str, train: Trials, inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the units, indices of the bins) that the encoder sees."""
    n_bins, n_units = train.data.shape[1:]
    held_units, held_bins = inputs.held_out_units, inputs.held_out_bins
    if train.encoded is not None:
        if held_units or held_bins:
            raise ValueError(
                f"held_out_units, held_out_bins: {where} already says what is held out, by train_encod_data; "
                "leave these fields out"
            )
        return np.arange(train.encoded.shape[2]), np.arange(train.encoded.shape[1])
    beyond = sorted(u for u in held_units if u >= n_units)
    if beyond:
        raise ValueError(
            f"held_out_units: {', '.join(map(str, beyond))} do not exist; {where} has the units 0 to "
            f"{n_units - 1}"
        )
    if len(held_units) == n_units or held_bins >= n_bins:
        what = f"{held_bins} of {n_bins} bins" if held_bins >= n_bins else f"all {n_units} units"
        raise ValueError(f"held_out: {what} of {where} are held out; the encoder must see some")
    return np.setdiff1d(np.arange(n_units), held_units), np.arange(n_bins - held_bins)


def _is_part(trials: Trials, units: np.ndarray, bins: np.ndarray) -> bool:
    assert trials.encoded is not None
    return np.array_equal(trials.encoded, trials.data[:, : len(bins), : len(units)])


def _moments(
    where: str, train: Trials, evaluation: Trials, inputs: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """(first bias of the output layer, table of log x!); warns of units without spikes."""
    bias = first_outputs(inputs.likelihood, train.data).astype(inputs.dtype)
    if inputs.likelihood not in COUNTS:
        return bias, None
    silent = np.flatnonzero(train.data.max((0, 1)) == 0)
    if len(silent):
        warnings.warn(
            f"{where}: {len(silent)} units have no spike in training: {', '.join(map(str, silent[:10]))}"
            f"{', ...' if len(silent) > 10 else ''}; they are kept, their rates start near 0",
            stacklevel=2,
        )
    largest = max(int(train.data.max()), int(evaluation.data.max()))
    # Its length is part of the program, which sets of data of equal shapes share: not the largest count itself.
    table = scipy.special.gammaln(np.arange(max(256, 1 << int(largest).bit_length())) + 1.0)
    return bias, table.astype(inputs.dtype)
