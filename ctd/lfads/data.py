"""The trials that models are fitted to: read from HDF5, NumPy's files or NWB, checked, cut to what the encoder sees.

A file has one of two layouts, which the names of its datasets tell apart. NAME is train or eval in ctd's,
train or valid in lfads-torch's:

    ctd           NAME (trial, time, unit); if known NAME_external, NAME_behavior, eval_rates, eval_inputs,
                  eval_initial_states (trial, state), eval_states, NAME_condition (trial,)
    lfads-torch   NAME_encod_data, NAME_recon_data; if known NAME_ext_input, NAME_behavior, NAME_truth, and the other names of ctd's

The encoder may see fewer units and bins than are reconstructed: in lfads-torch's layout if `encod` is smaller than
`recon`, in ctd's by `held_out_units` and `held_out_bins`. True rates, inputs, states and initial states may cover only
the first trials. Conditions are whole numbers: PSTHs average over those of evaluation, sessions are aligned by those of
training. A file may have the width of its bins, `bin_s` (s). Datasets of other names are not used; a plan lists them.
With `chop`, all arrays are recordings (time, ...), or trials longer than a window; see `ctd.lfads.chop`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.data import read_hdf5
from ctd.kernel import View
from ctd.late import Bool, Float, Int, PyTree, Real, scipy
from ctd.lfads.checks import (
    check_all,
    check_between,
    check_bin,
    check_counts,
    check_rates,
    check_within,
)
from ctd.lfads.chop import Recordings, SplitArrays, Windows, chop_split
from ctd.lfads.distributions import COUNTS, first_outputs
from ctd.lfads.numpy_file import SPLIT, read_numpy
from ctd.lfads.nwb import read_nwb
from ctd.lfads.params import Model, Units, by_file
from ctd.words import count, did_you_mean, some


class Trials(NamedTuple):
    """The trials for training, or those for evaluation; a field is None where the file does not have it."""

    data: Real[np.ndarray, "trial time unit"]
    """Counts as uint8 or int32; for other likelihoods floats."""
    encoded: Float[np.ndarray, "trial encoded_time encoded_unit"] | None = None
    """The encoder's input; None if it is a part of `data`."""
    external: Float[np.ndarray, "trial time external"] | None = None
    """Known inputs of the generator."""
    behavior: Float[np.ndarray, "trial time channel"] | None = None
    rates: Float[np.ndarray, "first_trial time unit"] | None = None
    """True rates (counts a bin)."""
    inputs: Float[np.ndarray, "first_trial time input"] | None = None
    """True inputs."""
    initial_states: Float[np.ndarray, "first_trial state"] | None = None
    """True states, before the first bin, of the system that made the data."""
    states: Float[np.ndarray, "first_trial time state"] | None = None
    """True states of that system."""
    condition: Bool[np.ndarray, "trial condition"] | None = None
    """One True for each trial, conditions in the order of their numbers; for evaluation trials alone."""
    session: Int[np.ndarray, "trial"] | None = None
    """The number of the trial's session; None for data of one session."""

    @property
    def n_external(self) -> int:
        """The number of known inputs."""
        return 0 if self.external is None else int(self.external.shape[-1])


class Alignment(NamedTuple):
    """The first read-ins and readouts of sessions, see `ctd.lfads.alignment`; they have the model's dtype."""

    read_in: Float[np.ndarray, "session factor unit"]
    read_in_bias: Float[np.ndarray, "session factor"]
    readout: Float[np.ndarray, "session unit factor"]
    """The readout of the first moment of the likelihood."""


class Stitched(NamedTuple):
    """Several sessions whose trials are trained on together."""

    sessions: tuple[Dataset, ...]
    """The sessions by themselves, without padding, for posterior means and metrics."""
    real: Bool[np.ndarray, "session unit"]
    """False for padded units."""
    is_seen: Bool[np.ndarray, "session unit"]
    """True for units that the encoder sees."""
    alignment: Alignment | None


class Dataset(NamedTuple):
    """The data that all models of a group share, held once."""

    train: Trials
    evaluation: Trials
    seen_units: np.ndarray
    """Indices of the units that the encoder sees."""
    held_units: np.ndarray
    """Indices of the other units."""
    seen_bins: np.ndarray
    """Indices of the bins that the encoder sees: the first ones."""
    bias: Float[np.ndarray, "..."]
    """(output,), the first bias of the output layer, see `ctd.lfads.distributions.first_outputs`; of several sessions
    (session, moment, unit)."""
    log_factorial: Float[np.ndarray, "count"] | None
    """Table of log x! for x = 0 up to at least the largest count; None if the data are no counts."""
    windows: tuple[Windows, Windows] | None = None
    """The windows of training, and of evaluation; None unless recordings were chopped."""
    stitched: Stitched | None = None
    """The sessions by themselves; the other fields then hold the trials of all, with padded units."""
    conditions: Real[np.ndarray, "condition"] | None = None
    """The file's numbers of the conditions of evaluation trials, in increasing order."""
    core: PyTree = None
    """Weights that training does not change, part -> name -> array; None if all are trained."""
    unused: dict[str, None] = {}  # noqa: RUF012
    """The names of the file's other datasets, as keys, since the values of a program's data must be arrays."""


# --- files ----------------------------------------------------------------------------------------

_COMMON = {
    field: f"{{}}_{field}"
    for field in ("behavior", "inputs", "initial_states", "states", "condition")
}
NAMES = {
    "ctd": {"data": "{}", "external": "{}_external", **_COMMON, "rates": "{}_rates"},
    "lfads-torch": {
        "data": "{}_recon_data",
        "encoded": "{}_encod_data",
        "external": "{}_ext_input",
        **_COMMON,
        "rates": "{}_truth",
    },
}
"""Layout -> field of `Trials` -> name of its dataset."""


def read(path: str, inputs: View[Model]) -> Mapping[str, Recordings]:
    """Read the arrays of a file, chosen by its ending, by name. Raises ValueError, naming the file."""
    if path.endswith((".npy", ".npz")):
        return read_numpy(path, inputs)
    return read_nwb(path, inputs) if path.endswith(".nwb") else read_hdf5(path)


def make_dataset(
    arrays: Mapping[str, Recordings],
    inputs: View[Model],
    source: str = "data",
    fits: int | None = None,
    held_out: Units | None = None,
) -> Dataset:
    """Make the data of a model from arrays in one of the layouts; check that they fit each other and the model.

    source: the file's name, with which errors begin. fits: units of a trained model. held_out: the held-out units of one session of
    several; by default those of the params. Raises ValueError, naming the dataset.

    >>> counts = np.random.default_rng(0).poisson(1.0, (6, 10, 4))  # (trial, time, unit)
    >>> dataset = make_dataset({"train": counts[:4], "eval": counts[4:]}, Model(held_out_units=(3,)))
    >>> dataset.train.data.shape, dataset.seen_units.tolist()
    ((4, 10, 4), [0, 1, 2])
    """
    splits, others = _find(arrays, source), _unused(arrays, source)
    if "bin_s" in arrays:
        check_bin(source, np.asarray(arrays["bin_s"]))
    for parts in splits:
        check_all(source, parts, inputs.likelihood)
    splits, windows = _chopped(splits, inputs, source)
    for parts in splits:
        check_within(source, parts)
    check_between(source, *splits)
    train, evaluation = (_trials(parts, inputs) for parts in splits)
    if evaluation.rates is not None and inputs.likelihood in COUNTS:
        check_rates(f"{source}: {splits[1]['rates'][0]}", evaluation.rates, evaluation.data)
    conditions, columns = _conditions(splits[1])
    evaluation = evaluation._replace(condition=columns)
    (of_params,) = by_file(inputs.held_out_units, 1) if held_out is None else (held_out,)
    units, bins = _find_seen(source, train, of_params, inputs.held_out_bins, fits)
    if _is_part(train, units, bins) and _is_part(evaluation, units, bins):
        # The encoder mostly sees the first bins and units of `data`, so that one copy is enough.
        train, evaluation = train._replace(encoded=None), evaluation._replace(encoded=None)
    # With such a lag every bin of the encoders would be hidden from the controller.
    if len(bins) <= inputs.lag:
        raise ValueError(
            f"lag: {inputs.lag} bins around its own are hidden from the controller, but trials of {source} "
            f"show {len(bins)} to the encoder; shorten the lag"
        )
    bias, table = _moments(source, train, evaluation, inputs)
    # In the layout of lfads-torch the seen units come first, so this holds there, too.
    held_units = np.setdiff1d(np.arange(train.data.shape[2]), units)
    return Dataset(
        train, evaluation, units, held_units, bins, bias, table, windows, conditions=conditions, unused=others
    )  # fmt: skip


def _chopped(
    splits: tuple[SplitArrays, SplitArrays], inputs: View[Model], source: str
) -> tuple[tuple[SplitArrays, SplitArrays], tuple[Windows, Windows] | None]:
    """The arrays of both splits as windows, and the places of these; unchanged, and None, without `chop`."""
    if inputs.chop is None:
        return splits, None
    if any("condition" in parts for parts in splits):
        warnings.warn(
            f"{source}: conditions are not used, since `chop` cuts trials into windows; leave chop out if trials have one length",
            stacklevel=3,
        )
    (train, first), (evaluation, second) = (
        chop_split(split, inputs.chop, source) for split in splits
    )
    return (train, evaluation), (first, second)


def _names(arrays: Mapping[str, Recordings]) -> list[dict[str, str]]:
    """Field of `Trials` -> name of its dataset, for training and for evaluation, in the file's layout."""
    # A file of lfads-torch without held-out entries may have encod_data alone, so that name decides.
    layout = "lfads-torch" if "train_encod_data" in arrays else "ctd"
    roles = ("train", "eval" if layout == "ctd" else "valid")
    return [{k: p.format(role) for k, p in NAMES[layout].items()} for role in roles]


def _find(arrays: Mapping[str, Recordings], source: str) -> tuple[SplitArrays, SplitArrays]:
    """The arrays for training, and those for evaluation, by the names of the file's layout. Raises ValueError where one lacks."""
    splits, missing = [], []
    for names in _names(arrays):
        if names["data"] not in arrays and names.get("encoded") in arrays:
            names["data"] = names["encoded"]  # nothing is held out
        missing += sorted({names["data"], names.get("encoded", names["data"])} - set(arrays))
        splits.append({k: (name, arrays[name]) for k, name in names.items() if name in arrays})
    if missing:
        # Neither split is named: the file may hold all trials.
        hint = "" if missing != ["train", "eval"] else (
            "; name the trials to train on and those to evaluate with, or save all of them by numpy.save('spikes.npy', "
            "counts): of .npy and .npz files every fifth trial is for evaluation (eval_every)"
        )  # fmt: skip
        raise ValueError(
            f"{source}: lacks {' and '.join(missing)}, (trial, time, unit); found "
            f"{', '.join(sorted(arrays))}{hint}"
        )
    return splits[0], splits[1]


def _unused(arrays: Mapping[str, Recordings], source: str) -> dict[str, None]:
    """The datasets that a model does not use; warns of those whose names are close to one that the file lacks."""
    used, lacking = {"bin_s", SPLIT}, set[str]()
    for pair in zip(*(names.values() for names in _names(arrays)), strict=True):
        used.update(pair)
        # If one split has the dataset of a field, the author of the file knows its name.
        lacking.update(() if arrays.keys() & set(pair) else pair)
    others = sorted(arrays.keys() - used)
    near = [name + hint for name in others if (hint := did_you_mean(name, lacking))]
    if near:
        warnings.warn(f"{source}: not used: {', '.join(near)}", stacklevel=2)
    return dict.fromkeys(others)


# --- what a model gets ------------------------------------------------------------------------------


def _trials(parts: SplitArrays, inputs: View[Model]) -> Trials:
    """Trials with counts as uint8 or, above 255, int32; all else has the model's dtype."""
    typed = {}
    for field, (_, array) in parts.items():
        if field == "data" and inputs.likelihood in COUNTS:
            # uint8 takes an eighth of the int64 of most files, on the device too.
            small = array.max() < 256
            typed[field] = array.astype(np.uint8 if small else np.int32)
        elif field != "condition":
            typed[field] = array.astype(inputs.dtype)
    return Trials(**typed)


def _conditions(parts: SplitArrays) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(numbers of the conditions, `Trials.condition`) of a split; None where it has no conditions."""
    if "condition" not in parts:
        return None, None
    _, labels = parts["condition"]
    # One column for each number that occurs: numbers need not be 0, 1, 2, ...
    conditions = np.unique(labels)
    return conditions, labels[:, None] == conditions


def _find_seen(
    source: str, train: Trials, held_units: Units, held_bins: int, fits: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the units, indices of the bins) that the encoder sees."""
    n_bins, n_units = train.data.shape[1:]
    if fits not in (None, n_units):
        raise ValueError(
            f"data: {source} has {n_units} units, but the model was trained on {fits}; give a file with {fits}"
        )
    # The file says what is held out; a second answer by parameters could contradict it.
    if train.encoded is not None:
        if held_units or held_bins:
            raise ValueError(
                f"held_out_units, held_out_bins: {source} already says what is held out, by train_encod_data; "
                "leave these fields out"
            )
        return np.arange(train.encoded.shape[2]), np.arange(train.encoded.shape[1])
    beyond = sorted(u for u in held_units if u >= n_units)
    if beyond:
        raise ValueError(
            f"held_out_units: {', '.join(map(str, beyond))} do not exist; {source} has the units 0 to "
            f"{n_units - 1}"
        )
    if len(held_units) == n_units or held_bins >= n_bins:
        extent = f"{held_bins} of {n_bins} bins" if held_bins >= n_bins else f"all {n_units} units"
        raise ValueError(f"held_out: {extent} of {source} are held out; the encoder must see some")
    # The last bins are held out: models forecast them.
    return np.setdiff1d(np.arange(n_units), held_units), np.arange(n_bins - held_bins)


def _is_part(trials: Trials, units: np.ndarray, bins: np.ndarray) -> bool:
    seen_part = trials.data[:, : len(bins), : len(units)]
    return trials.encoded is None or np.array_equal(trials.encoded, seen_part)


def _moments(
    source: str, train: Trials, evaluation: Trials, inputs: View[Model]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(first bias of the output layer, table of log x! or None); warns of units without spikes."""
    bias = first_outputs(inputs.likelihood, train.data).astype(inputs.dtype)
    if inputs.likelihood not in COUNTS:
        return bias, None
    check_counts(source, train.data)
    # A silent unit is kept, since sessions and readers count units by position.
    silent = np.flatnonzero(train.data.max((0, 1)) == 0)
    if len(silent):
        warnings.warn(
            f"{source}: {count(len(silent), 'unit')} without a spike in training: {some(silent.tolist())}; they are kept, their rates start "
            "near 0",
            stacklevel=2,
        )
    largest = max(int(train.data.max()), int(evaluation.data.max()))
    # The table's length is compiled in. A power of two lets data with other largest counts share the program.
    table = scipy.special.gammaln(np.arange(max(256, 1 << int(largest).bit_length())) + 1.0)
    return bias, table.astype(inputs.dtype)
