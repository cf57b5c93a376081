"""Trials cut from a recording in the NWB format (Neurodata Without Borders, Rübel et al. 2022, eLife 11:e78362).

A trial is the window around one event, a time in the file's table of trials; its spikes are counted in bins:

    spike times   |  |||   | || |    | |        of every row of `units`
                     [---------)                edges: event + window[0] + k bin_s,  k = 0 ... n
    counts            2   1   2

Needs pynwb, the extra ctd[nwb].
"""

import warnings
from typing import Any

import numpy as np


def read_nwb(path: str, inputs: Any) -> dict[str, np.ndarray]:
    """The trials of a file: `train` and `eval`, and the same of behaviour, (trial, time, ...).

    inputs: bin_s, window, align_to, eval_every and behavior_series of `ctd.lfads.Model`. A trial whose event
    is NaN, or whose window reaches out of what was recorded, is left out with a warning. Raises ValueError,
    naming file and field.
    """
    try:
        from pynwb import NWBHDF5IO
    except ImportError:
        raise ValueError(
            f"data: {path}: reading NWB needs the package pynwb; install ctd[nwb]"
        ) from None
    try:
        with NWBHDF5IO(path, "r") as file:
            return _cut(path, file.read(), inputs)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"data: {path}: not an NWB file, or a damaged one: {error}") from None


def _cut(path: str, session: Any, inputs: Any) -> dict[str, np.ndarray]:
    if session.units is None or "spike_times" not in session.units.colnames:
        raise ValueError(
            f"data: {path}: has no spike times, a table `units` with the column spike_times"
        )
    start, train, evaluation = _trials(path, session.trials, inputs)
    n_bins = _n_bins(inputs)
    edges = start[:, None] + inputs.window[0] + inputs.bin_s * np.arange(n_bins + 1)
    inside = _inside_recording(session.units, edges[:, 0], edges[:, -1])
    series = None
    if inputs.behavior_series is not None:
        series = _series(path, session, inputs.behavior_series)
        inside &= (series[0][0] <= edges[:, 0]) & (edges[:, -1] <= series[0][-1])
    if not inside.all():
        warnings.warn(
            f"{path}: {int((~inside).sum())} of {len(inside)} trials are left out: {inputs.align_to} is not "
            "known, or the window reaches out of the recording",
            stacklevel=2,
        )
    found = {}
    for role, chosen in (("train", train & inside), ("eval", evaluation & inside)):
        if not chosen.any():
            raise ValueError(
                f"data: {path}: no trial is left for {role}: {int(inside.sum())} of {len(inside)} lie in the "
                "recording; check align_to, window and eval_every"
            )
        found[role] = count_spikes(session.units["spike_times"], edges[chosen])
        if series is not None:
            found[f"{role}_behavior"] = _sample(*series, edges[chosen])
    return found


def _n_bins(inputs: Any) -> int:
    """Bins of a window. Raises ValueError unless they fill it."""
    length = inputs.window[1] - inputs.window[0]
    n = round(length / inputs.bin_s)
    if n < 1 or abs(n * inputs.bin_s - length) > 1e-6 * inputs.bin_s:
        raise ValueError(
            f"window, bin_s: {length:g} s are {length / inputs.bin_s:.6g} bins of {inputs.bin_s:g} s; a whole "
            "number expected"
        )
    return n


def _trials(path: str, table: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time of the event, is it for training, is it for evaluation) of every trial."""
    if table is None or len(table) == 0:
        raise ValueError(f"data: {path}: has no trials, a table `trials` with their times")
    numeric = [name for name in table.colnames if np.asarray(table[name][:]).dtype.kind == "f"]
    if inputs.align_to not in numeric:
        raise ValueError(
            f"align_to: {inputs.align_to!r} is no time in the trials of {path}; there are "
            f"{', '.join(numeric)}"
        )
    start = np.asarray(table[inputs.align_to][:], float)
    if "split" in table.colnames:
        split = np.asarray(table["split"][:]).astype(str)
        return start, split == "train", split == "val"
    evaluation = np.arange(len(start)) % inputs.eval_every == inputs.eval_every - 1
    return start, ~evaluation, evaluation


def _inside_recording(units: Any, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(trial,) whether every unit was observed from `first` to `last`; NaN is not."""
    inside = np.isfinite(first)
    if "obs_intervals" not in units.colnames:
        return inside
    for intervals in units["obs_intervals"]:
        begin, end = np.asarray(intervals, float).reshape(-1, 2).T
        within = (begin <= first[:, None]) & (last[:, None] <= end)
        inside &= within.any(axis=1)
    return inside


def count_spikes(spike_times: Any, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, unit) how many times lie in edges[i, k] <= t < edges[i, k + 1].

    spike_times: a sequence of times (s), one a unit. edges: (trial, bin + 1).
    """
    counts = np.empty((len(edges), edges.shape[1] - 1, len(spike_times)), np.int32)
    for unit, times in enumerate(spike_times):
        before = np.searchsorted(np.sort(np.asarray(times, float)), edges, side="left")
        counts[:, :, unit] = np.diff(before, axis=1)
    return counts


def _series(path: str, session: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(times, (time, channel) values in the unit that the file names) of a time series."""
    from pynwb import TimeSeries

    known = {o.name: o for o in session.objects.values() if isinstance(o, TimeSeries)}
    if name not in known:
        raise ValueError(
            f"behavior_series: {path} has no time series {name!r}; there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    series = known[name]
    values = np.asarray(series.data[:], float) * series.conversion + series.offset
    values = values.reshape(len(values), -1)
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:], float), values
    return series.starting_time + np.arange(len(values)) / series.rate, values


def _sample(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, channel) linear interpolation at the middle of every bin."""
    middle = (edges[:, :-1] + edges[:, 1:]) / 2
    return np.stack([np.interp(middle, times, channel) for channel in values.T], axis=-1)
