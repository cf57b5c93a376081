"""Read trials from a recording in the NWB format (Neurodata Without Borders, Rübel et al. 2022, eLife 11:e78362).

A trial is the window around one event, a time in the file's table of trials. `read_nwb` counts its spikes in bins:

    spike times   |  |||   | || |    | |        of every row of `units`
                     [---------)                edges: event + window[0] + k bin_s,  k = 0 ... n
    counts            2   1   2

Without a `window` it counts the whole recording, which `ctd.lfads.chop` cuts into windows: of each interval in which
every unit was observed, the first part is for training and the last for evaluation.

It needs pynwb, the extra `nwb`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ctd.containers import check_hdf5, explained
from ctd.installed import how_to_install, why_not
from ctd.kernel import View
from ctd.lfads.numpy_file import SPLIT, is_evaluation
from ctd.lfads.params import Model
from ctd.words import some


def read_nwb(path: str, inputs: View[Model]) -> dict[str, Any]:
    """Read `train` and `eval`, counts (trial, time, unit), and `NAME_behavior` (trial, time, channel) if a series is named.

    Without `window` each is a list of recordings (time, ...). inputs: bin_s (s), window (s), chop, align_to,
    eval_every and behavior_series are used.

    A trial is left out, with a warning, if its event is NaN or its window is not recorded as a whole: the window must
    lie within the intervals in which every unit was observed (in a file without such intervals, from the first to the
    last spike, with the whole of the trials in which these lie) and within the series. Raises ValueError, naming file and field.
    """
    if (reason := why_not("pynwb")) is not None:
        do = how_to_install("nwb", again=bool(reason))
        raise ValueError(f"data: {path}: reading NWB needs the package pynwb{reason}; {do}")
    from pynwb import NWBHDF5IO

    if not Path(path).is_file():
        raise ValueError(f"data: {path}: no such file")
    with explained(path, "an NWB file"), warnings.catch_warnings():
        # Warnings of broken links: the error names them.
        warnings.filterwarnings("ignore", module="hdmf|pynwb")
        check_hdf5(path)
        with NWBHDF5IO(path, "r") as file:
            return _cut(path, file.read(), inputs)


def _cut(path: str, session: Any, inputs: View[Model]) -> dict[str, Any]:
    units = session.units
    if units is None or not len(units) or "spike_times" not in units.colnames:
        raise ValueError(
            f"data: {path}: has no spike times, a table `units` with the column spike_times"
        )
    if inputs.window is None:
        return _continuous(path, session, inputs)
    assert inputs.bin_s is not None  # Model refuses an NWB file without it
    start, train, evaluation = _trials(path, session.trials, inputs)
    n_bins = round((inputs.window[1] - inputs.window[0]) / inputs.bin_s)
    # Edges are multiples of bin_s from the event, not running sums, so that rounding does not grow.
    edges = start[:, None] + inputs.window[0] + inputs.bin_s * np.arange(n_bins + 1)
    observed = _observed(session.units)
    if "obs_intervals" not in session.units.colnames:
        observed = _with_trials(observed, session.trials)
    has_event, inside = np.isfinite(start), _inside(observed, edges)
    out = f"the window reaches out of the recording{_span(observed)}"
    omitted = {f"{inputs.align_to} is not known": ~has_event, out: has_event & ~inside}
    series = None
    if inputs.behavior_series is not None:
        series = _series(path, session, inputs.behavior_series)
        # A trial without behaviour would leave NaN in what decoders are fitted to.
        sampled = _is_sampled(series[0], edges)
        omitted[f"{inputs.behavior_series} was not sampled throughout"] = inside & ~sampled
        inside &= sampled
    _warn_of_omitted(path, omitted)
    train, evaluation = train & inside, evaluation & inside
    arrays = {SPLIT: np.select([evaluation, train], [1, 0], -1).astype(np.int8)}
    for role, in_role in (("train", train), ("eval", evaluation)):
        if not in_role.any():
            raise ValueError(
                f"data: {path}: no trial is left for {role}: {int(inside.sum())} of {len(inside)} lie in the "
                f"recording{_span(observed)}; check align_to, window (in s) and eval_every"
            )
        arrays[role] = count_spikes(session.units["spike_times"], edges[in_role])
        if series is not None:
            arrays[f"{role}_behavior"] = _sample(*series, edges[in_role])
    return arrays


def _warn_of_omitted(path: str, omitted: Mapping[str, np.ndarray]) -> None:
    """Warn of trials that are left out. omitted: reason -> (trial,) True for the trials that it leaves out."""
    trials_by_reason = {
        reason: np.flatnonzero(mask).tolist() for reason, mask in omitted.items() if mask.any()
    }
    if trials_by_reason:
        n, total = sum(map(len, trials_by_reason.values())), len(next(iter(omitted.values())))
        descriptions = "; ".join(
            f"{some(trials)}: {reason}" for reason, trials in trials_by_reason.items()
        )
        warnings.warn(
            f"{path}: {n} of {total} trials are left out, counted from 0: {descriptions}",
            stacklevel=3,
        )


def _continuous(path: str, session: Any, inputs: View[Model]) -> dict[str, Any]:
    """Lists of recordings (time, ...) by name: two parts of each interval in which every unit was observed."""
    assert inputs.bin_s is not None
    assert inputs.chop is not None  # Model refuses an NWB file without it or `window`
    series = None
    common = _observed(session.units)
    if inputs.behavior_series is not None:
        series = _series(path, session, inputs.behavior_series)
        common = _shared(common, np.array([[series[0][0], series[0][-1]]]))
    recordings: dict[str, list[np.ndarray]] = {"train": [], "eval": []}
    splits: list[int] = []
    for begin, end in common:
        n = int(np.floor((end - begin) / inputs.bin_s + 1e-6))  # 1e-6: an end on an edge counts
        # Evaluation is the end of each interval: neighbouring bins are alike, so a mix would leak.
        n_train = n - n // inputs.eval_every
        for split, (role, first, last) in enumerate((("train", 0, n_train), ("eval", n_train, n))):
            is_short = last - first < inputs.chop.window
            splits.append(-1 if is_short else split)
            if is_short:
                continue
            edges = (begin + inputs.bin_s * np.arange(first, last + 1))[None]
            recordings[role] += list(count_spikes(session.units["spike_times"], edges))
            if series is not None:
                if not _is_sampled(series[0], edges).all():
                    raise ValueError(
                        f"behavior_series: {path}: {inputs.behavior_series} has gaps between {edges[0, 0]:g} and "
                        f"{edges[0, -1]:g} s; fill them, or cut trials by `window`"
                    )
                recordings.setdefault(f"{role}_behavior", []).extend(_sample(*series, edges))
    _check_intervals(path, recordings, splits.count(-1), len(common), inputs.chop.window)
    return {SPLIT: np.array(splits, np.int8), **recordings}


def _check_intervals(
    path: str, recordings: dict[str, list[np.ndarray]], short: int, n: int, window: int
) -> None:
    """Raise ValueError if a role has no recording; warn if `short` parts of n intervals were left out."""
    for role in ("train", "eval"):
        if not recordings[role]:
            raise ValueError(
                f"chop: {path}: no recording of {window} bins is left for {role}: all units were "
                f"observed in {n} intervals; shorten chop.window, or see eval_every"
            )
    if short:
        warnings.warn(
            f"{path}: {short} of {2 * n} parts of the recording are shorter than a window and left out",
            stacklevel=2,
        )


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 2) the intersection of two sets of intervals a, b (n, 2), each in order and without overlap."""
    # All pairs; those that do not overlap end before they begin and are dropped.
    begin = np.maximum(a[:, None, 0], b[None, :, 0]).ravel()
    end = np.minimum(a[:, None, 1], b[None, :, 1]).ravel()
    overlaps = np.stack([begin, end], axis=1)[begin < end]
    return overlaps[np.argsort(overlaps[:, 0])]


def _trials(
    path: str, table: Any, inputs: View[Model]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (trial,) arrays: the time of the event (s), whether the trial is for training, whether for evaluation."""
    from hdmf.common import VectorIndex

    if table is None or len(table) == 0:
        raise ValueError(f"data: {path}: has no trials, a table `trials` with their times")
    # `.data`, since table[name][:] follows references into other tables; a ragged column (VectorIndex) is no array.
    columns = {
        name: np.asarray(table[name].data[:])
        for name in table.colnames
        if not isinstance(table[name], VectorIndex)
    }
    times = [name for name, c in columns.items() if c.dtype.kind == "f" and c.ndim == 1]
    if inputs.align_to not in times:
        raise ValueError(
            f"align_to: {inputs.align_to!r} is no time in the trials of {path}; there are "
            f"{', '.join(times)}"
        )
    start = columns[inputs.align_to].astype(float)
    # The Neural Latents Benchmark marks its trials train, val or test; those of test are left out.
    if "split" in columns:
        split = columns["split"].astype(str)
        return start, split == "train", split == "val"
    evaluation = is_evaluation(len(start), inputs.eval_every)
    return start, ~evaluation, evaluation


def _inside(intervals: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(trial,) whether all bins lie within one of the intervals (n, 2); False for an event at NaN."""
    first, last = edges[:, :1], edges[:, -1:]
    slack = 1e-6 * (edges[:, 1:2] - edges[:, :1])  # times are sums of rounded numbers
    begin, end = intervals.T
    return ((begin <= first + slack) & (last <= end + slack)).any(axis=1)


def _observed(units: Any) -> np.ndarray:
    """The intervals (n, 2) in which every unit was observed (s); in a file without such, from the first to the last spike."""
    if "obs_intervals" in units.colnames:
        observed = [np.asarray(rows, float).reshape(-1, 2) for rows in units["obs_intervals"]]
    else:
        spikes = np.concatenate([[], *(np.asarray(times, float) for times in units["spike_times"])])
        observed = [np.array([[spikes.min(), spikes.max()]]) if len(spikes) else np.empty((0, 2))]
    # Mostly all units have the same intervals, often thousands.
    different = {intervals.tobytes(): intervals for intervals in observed}.values()
    return reduce(_shared, map(_merged, different))


def _with_trials(spikes: np.ndarray, table: Any) -> np.ndarray:
    """The interval (1, 2) from the first to the last spike, with the whole of the trials in which these lie.

    The interval leaves out a trial beyond the last spike, since its units may not have been recorded.
    """
    begin, stop = (np.asarray(table[name].data[:], float) for name in ("start_time", "stop_time"))
    if not len(spikes):
        return spikes
    touched = (begin <= spikes.max()) & (stop >= spikes.min())
    first, last = begin[touched].min(initial=spikes.min()), stop[touched].max(initial=spikes.max())
    return np.array([[first, last]])


def _span(observed: np.ndarray) -> str:
    """From when to when units were observed, as a text."""
    return f", {observed.min():g} to {observed.max():g} s" if len(observed) else ""


def _merged(intervals: np.ndarray) -> np.ndarray:
    """(n, 2) the union of intervals, in order; intervals that touch become one."""
    union: list[list[float]] = []
    for begin, end in sorted(intervals.tolist()):
        if union and begin <= union[-1][1] + 1e-9:
            union[-1][1] = max(union[-1][1], end)
        else:
            union.append([begin, end])
    return np.array(union).reshape(-1, 2)


def count_spikes(spike_times: Any, edges: np.ndarray) -> np.ndarray:
    """Count spikes: (trial, bin, unit) int32, the number of spikes with edges[i, k] <= t < edges[i, k + 1].

    spike_times: for each unit, its times (s), in any order. edges: (trial, bin + 1) (s).

    >>> count_spikes([[0.01, 0.02, 0.15], []], np.array([[0.0, 0.1, 0.2]]))[0]
    array([[2, 0],
           [1, 0]], dtype=int32)
    """
    counts = np.empty((len(edges), edges.shape[1] - 1, len(spike_times)), np.int32)
    for unit, times in enumerate(spike_times):
        # The number of spikes before each edge; its differences are the counts. Files may hold unsorted times.
        before = np.searchsorted(np.sort(np.asarray(times, float)), edges, side="left")
        counts[:, :, unit] = np.diff(before, axis=1)
    return counts


def _series(path: str, session: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The times (time,) in s and the values (time, channel), in the file's unit, of the time series called `name`.

    name: the series' name, or the end of its path (`behavior/hand`), as long as no other series ends so. Raises
    ValueError, naming all series, where not exactly one fits, or where it holds no numbers or unsorted times.
    """
    from pynwb import TimeSeries

    # Keyed by path, since processing modules may hold series of the same name.
    series_by_path = {
        _path(session, o): o for o in session.objects.values() if isinstance(o, TimeSeries)
    }
    paths = [at for at in series_by_path if f"/{at}".endswith(f"/{name}")]
    if len(paths) != 1:
        raise ValueError(
            f"behavior_series: {path} has {len(paths) or 'no'} time series {name!r}; there are "
            f"{', '.join(sorted(series_by_path)) or 'none'}"
        )
    series, source = series_by_path[paths[0]], f"behavior_series: {path}: {paths[0]}"
    values = np.asarray(series.data[:])
    if not values.size or values.dtype.kind not in "fiu":
        raise ValueError(f"{source}: numbers expected, but it holds {values.size} {values.dtype}")
    # NWB stores raw numbers; conversion and offset make them the unit of the file.
    values = (values * series.conversion + series.offset).reshape(len(values), -1)
    if series.timestamps is None:
        return series.starting_time + np.arange(len(values)) / series.rate, values
    times = np.asarray(series.timestamps[:], float)
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError(
            f"{source}: its timestamps do not rise all the way; sort them, without nan"
        )
    return times, values


def _path(session: Any, container: Any) -> str:
    """The path of a container: the names of its parents, then its own."""
    names = [container.name]
    while container.parent is not None and container.parent is not session:
        container = container.parent
        names.append(container.name)
    if session.acquisition.get(container.name) is container:
        names.append("acquisition")
    return "/".join(reversed(names))


def _is_sampled(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(trial,) whether samples at `times` cover all bins: a sample lies within a bin, or within the sampling interval if that is longer,
    of each bin's middle, so that no gap is interpolated."""
    slack = 1e-6 * (edges[:, 1] - edges[:, 0])
    inside = (times[0] <= edges[:, 0] + slack) & (edges[:, -1] <= times[-1] + slack)
    if len(times) < 2:
        return inside
    middle = _middle(edges)
    after = np.clip(np.searchsorted(times, middle), 1, len(times) - 1)
    # The sample next to the middle of each bin, on either side.
    nearest = np.minimum(np.abs(times[after] - middle), np.abs(middle - times[after - 1]))
    near = np.maximum(edges[:, 1] - edges[:, 0], np.median(np.diff(times)))
    return inside & (nearest <= near[:, None] * (1 + 1e-6)).all(axis=1)


def _middle(edges: np.ndarray) -> np.ndarray:
    """(trial, bin) the middle of every bin (s)."""
    return (edges[:, :-1] + edges[:, 1:]) / 2


def _sample(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, channel) the values at the middle of every bin, by linear interpolation."""
    return np.stack([np.interp(_middle(edges), times, channel) for channel in values.T], axis=-1)
