"""Read trials from NumPy's files: one array (trial, time, unit), or an array (time, unit) for each trial.

    numpy.save("spikes.npy", counts)       trials of one length
    numpy.savez("spikes.npz", *trials)     an array for each trial, of any length
    numpy.savez("spikes.npz", *trials, condition=numbers)     with the condition of each trial, a whole number
    numpy.savez("spikes.npz", train=..., eval=...)    named as the datasets of an HDF5 file

Without such names every `eval_every`-th trial is for evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress

import numpy as np

from ctd.data import CONDITION, SPLITS, read_arrays, unsplit
from ctd.kernel import View
from ctd.lfads.checks import check_entries
from ctd.lfads.chop import Recordings
from ctd.lfads.params import Model
from ctd.words import count

SPLIT = "/split"
"""The name of an array that readers add to a file's own: for each trial of the recording 0 (training), 1 (evaluation) or -1 (left out). No
dataset of an HDF5 file has a name with a slash."""


def read_numpy(path: str, inputs: View[Model]) -> Mapping[str, Recordings]:
    """Read the arrays of a .npy or .npz file by name; trials without names become `train` and `eval`.

    With `chop` trials may have unequal lengths; they are lists of (time, unit) then. Raises ValueError, naming file and
    array, where trials have different units, unequal lengths without `chop`, or are fewer than `eval_every`.

    >>> np.save("counts.npy", np.ones((10, 8, 3), int))  # (trial, time, unit)
    >>> {name: a.shape for name, a in read_numpy("counts.npy", Model(data="counts.npy")).items()}
    {'/split': (10,), 'train': (8, 8, 3), 'eval': (2, 8, 3)}
    """
    arrays = read_arrays(path, "trials")
    if any(name in arrays for name in SPLITS):
        return arrays
    condition = arrays.pop(CONDITION, None)
    for name, array in arrays.items():  # while entries still have the file's names
        check_entries(f"data: {path}: {name}", array, inputs.likelihood)
    if condition is not None:
        check_entries(f"data: {path}: {CONDITION}", condition)
    trials = unsplit(path, arrays)
    if condition is not None and condition.shape != (len(trials),):
        raise ValueError(
            f"data: {path}: {CONDITION} has the shape {condition.shape}; one number for each of the {len(trials)} trials expected"
        )
    lengths = [len(trial) for trial in trials]
    if len(trials) < inputs.eval_every:
        (shape, *others) = {array.shape for array in arrays.values()}
        recording = f", {shape} taken as (time, unit)" if len(shape) == 2 and not others else ""
        raise ValueError(
            f"data: {path}: has {count(len(trials), 'trial')}{recording}, but every {inputs.eval_every}th is for evaluation; give more, a "
            "smaller eval_every, or say which is which by names: numpy.savez(path, train=..., eval=...), of recordings (time, unit) "
            "with `chop`"
        )
    _check_lengths(path, lengths, inputs)
    # Spread over the recording, so that drifts meet both splits alike.
    evaluation = is_evaluation(len(trials), inputs.eval_every)
    uneven = min(lengths) < max(lengths)
    split_arrays: dict[str, Recordings] = {SPLIT: evaluation.astype(np.int8)}
    for name, in_split in (("train", ~evaluation), ("eval", evaluation)):
        some = list(compress(trials, in_split))
        split_arrays[name] = some if uneven else np.stack(some)
        if condition is not None:
            split_arrays[f"{name}_condition"] = condition[in_split]
    return split_arrays


def _check_lengths(path: str, lengths: list[int], inputs: View[Model]) -> None:
    """Raise ValueError unless trials have one length, or are as long as windows."""
    shortest = min(lengths)
    if inputs.chop is None and shortest < max(lengths):
        raise ValueError(
            f"data: {path}: trials have {shortest} to {max(lengths)} bins; add to params chop: {{window: {shortest}, "
            f"overlap: {shortest // 4}}}, which cuts all into windows of the shortest and merges what is inferred again"
        )
    if inputs.chop is not None and shortest < inputs.chop.window:
        raise ValueError(
            f"chop: {path}: trial {int(np.argmin(lengths))} has {shortest} bins, fewer than window = "
            f"{inputs.chop.window}; shorten the window, or leave out such trials"
        )


def is_evaluation(n: int, every: int) -> np.ndarray:
    """(trial,) bool: the last of every `every` trials is for evaluation.

    >>> is_evaluation(7, 3)
    array([False, False,  True, False, False,  True, False])
    """
    return np.arange(n) % every == every - 1
