"""Write the posterior of all trials to one HDF5 file, under the names that lfads-torch gives its posterior means.

    SPLIT_output_params    rates                       SPLIT_gen_states    states of the generator
    SPLIT_factors          factors                     SPLIT_gen_init      state before the trial, as ic_mean
    SPLIT_co_means, _stds  inferred inputs             SPLIT_ic_mean, _std initial conditions

SPLIT is train or valid. Models that were trained on data with behaviour add SPLIT_decoded_behavior and their decoder of
factors f, w f + b: decoder_w (channel, factor), decoder_b (channel,).

Standard deviations of other quantities are NAME_sd, draws NAME_samples. The generator starts at the initial condition
itself, so gen_init is ic_mean. co_stds is the standard deviation of the input; lfads-torch writes the mean over draws of the
standard deviation given a draw.

SPLIT_trial has the number of each trial in the file of the data, from 0; where that names its splits, trials for training come first. The
attribute recorded_trials is the number of trials of that file, left out or not.

Windows of chopped recordings are merged to (time, ...), or (trial, time, ...) if trials were chopped; SPLIT_recording_bins
(recording,) has the length of each. Initial conditions stay those of windows, whose places are SPLIT_window_recording and
SPLIT_window_start.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctd.containers import opened_hdf5
from ctd.data import read_hdf5
from ctd.lfads.chop import Windows, merge_into, merged_shape
from ctd.lfads.numpy_file import is_evaluation
from ctd.words import some

SPLITS = ("train", "valid")

NAMES = {
    "rates": "output_params",
    "factors": "factors",
    "states": "gen_states",
    "inferred_inputs": "co_means",
    "inferred_inputs_sd": "co_stds",
    "decoded_behavior": "decoded_behavior",
    "initial_conditions": "ic_mean",
    "initial_conditions_sd": "ic_std",
}


def name_of(result: str) -> str:
    """The name in the file, without the split, of a result of `lfads.posterior`.

    >>> name_of("inferred_inputs_sd"), name_of("factors_samples")
    ('co_stds', 'factors_samples')
    """
    if result in NAMES:
        return NAMES[result]
    mean, _, kind = result.rpartition("_")
    return f"{NAMES[mean]}_{kind}"


PLACES = ("split", "trial_number", "recording", "first_bin")
"""Results that say which trial a row is; they are not written."""
DECODER = {"decoder.w": "decoder_w", "decoder.b": "decoder_b"}


def write(
    file: h5py.File,
    chunks: Iterable[Mapping[str, np.ndarray]],
    n: Sequence[int],
    attributes: Mapping[str, object],
    recorded: np.ndarray,
    windows: Sequence[Windows] | None = None,
) -> None:
    """Write the results of all chunks to an open file, one by one, so that memory holds one chunk.

    n: trials for training, and for evaluation. recorded: the split of each trial of the data's file, 0, 1, or -1 if it was left
    out. windows: the places of these trials in recordings, if they are windows, which are then merged; standard deviations are
    merged as means are.
    """
    file.attrs.update(attributes)
    file.attrs["recorded_trials"] = len(recorded)
    for chunk in chunks:
        for name in DECODER.keys() & chunk.keys():
            if DECODER[name] not in file:
                file[DECODER[name]] = chunk[name]
        # A chunk has neighbouring trials of one split, so its first row says where they go.
        split, first = int(chunk["split"][0]), int(chunk["trial_number"][0])
        if split < 0:
            continue  # beyond the last trial
        rows = chunk["split"] == split
        for name in sorted(chunk.keys() - DECODER.keys() - set(PLACES)):
            cut = None
            # Initial conditions have no time axis to merge along.
            if windows is not None and not name.startswith("initial_conditions"):
                cut = windows[split]
            key = f"{SPLITS[split]}_{name_of(name)}"
            _write_trials(file, key, chunk[name][rows], (first, int(n[split])), cut)
    for split, word in enumerate(SPLITS):
        if f"{word}_ic_mean" in file:
            file[f"{word}_gen_init"] = file[f"{word}_ic_mean"]  # another name, no copy
        file[f"{word}_trial"] = np.flatnonzero(recorded == split)
        if windows is not None:
            file[f"{word}_window_recording"] = windows[split].recording
            file[f"{word}_window_start"] = windows[split].start
            file[f"{word}_recording_bins"] = windows[split].lengths


def _write_trials(
    file: Any, key: str, value: np.ndarray, place: tuple[int, int], windows: Windows | None
) -> None:
    """Write trials into a dataset, which the first call makes. place: (the first trial's number, trials of the split)."""
    first, n = place
    if key not in file:
        shape = (n, *value.shape[1:])
        if windows is not None:
            shape = (*merged_shape(windows), *value.shape[2:])
        file.create_dataset(key, shape, value.dtype, track_times=False)
    if windows is None:
        file[key][first : first + len(value)] = value
    else:
        merge_into(file[key], value, windows, first)


def read_trials(
    path: str | Path, name: str = "output_params", eval_every: int | None = None
) -> list[np.ndarray]:
    """Read one quantity of every trial, (time, ...) each, in the order of the file that the rates are of. Where that names its splits,
    trials for training come first.

    name: the quantity, without the split; `output_params` are rates (counts a bin). eval_every: as in the job, for .npy and .npz
    files whose rates an earlier ctd wrote; later ones say which trial is which. Trials that were left out are missing, which a
    warning says. Raises ValueError where the file lacks the quantity or does not say which trial is which.

    >>> from ctd.data import write_hdf5
    >>> write_hdf5("rates.h5", {"train_factors": np.zeros((4, 7, 2)), "valid_factors": np.ones((1, 7, 2)),
    ...                         "train_trial": [0, 2, 3, 4], "valid_trial": [1]}, {"recorded_trials": 5})
    >>> [float(trial.mean()) for trial in read_trials("rates.h5", "factors")]
    [0.0, 1.0, 0.0, 0.0, 0.0]
    """
    arrays = read_hdf5(path)
    listed = []
    for word in SPLITS:
        if f"{word}_{name}" not in arrays:
            raise ValueError(f"{path}: lacks {word}_{name}; found {', '.join(sorted(arrays))}")
        merged, bins = arrays[f"{word}_{name}"], arrays.get(f"{word}_recording_bins")
        # Chopped trials of one array have been put together to (trial, time, ...) already.
        if bins is not None and len(merged) == bins.sum():
            listed.append(np.split(merged, np.cumsum(bins)[:-1]))
        else:
            listed.append(list(merged))
    if all(f"{word}_trial" in arrays for word in SPLITS):
        place = np.concatenate([arrays[f"{word}_trial"] for word in SPLITS])
        _warn_of_missing(path, place)
    else:
        place = _by_number(path, name, [len(trials) for trials in listed], eval_every)
    by_number = dict(zip(place.tolist(), listed[0] + listed[1], strict=True))
    return [by_number[number] for number in sorted(by_number)]


def _warn_of_missing(path: str | Path, place: np.ndarray) -> None:
    with opened_hdf5(path) as file:
        n = int(file.attrs["recorded_trials"])
    missing = np.setdiff1d(np.arange(n), place)
    if len(missing):
        warnings.warn(
            f"{path}: {len(missing)} of {n} trials were left out and are missing, counted from 0: {some(missing.tolist())}",
            stacklevel=3,
        )


def _by_number(path: str | Path, name: str, n: list[int], eval_every: int | None) -> np.ndarray:
    """(trial,) the numbers of n[0] trials for training, then of n[1] for evaluation, of which each `eval_every`-th is one."""
    if eval_every is None:
        with opened_hdf5(path) as file:
            stored = file.attrs.get("eval_every")
        if stored is None:
            raise ValueError(
                f"{path}: does not say which trial of a recording each is, since an earlier ctd wrote it; "
                f"read it by its names, train_{name} and valid_{name}, or write it anew by `ctd posterior`"
            )
        eval_every = int(stored)
    evaluation = is_evaluation(sum(n), eval_every)
    if evaluation.sum() != n[1]:
        raise ValueError(
            f"{path}: has {n[0]} trials for training and {n[1]} for evaluation, which is not every {eval_every}th; give eval_every as in "
            "the job, or read the file by its names"
        )
    # Both splits are in the file's order.
    return np.concatenate([np.flatnonzero(~evaluation), np.flatnonzero(evaluation)])
