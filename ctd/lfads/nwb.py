"""Trials cut from a recording in the NWB format (Neurodata Without Borders, Rübel et al. 2022, eLife 11:e78362).

A trial is the window around one event, a time in the file's table of trials. Its spikes are counted in bins:

    spike times   |  |||   | || |    | |        of every row of `units`
                     [---------)                edges: event + window[0] + k bin_s,  k = 0 ... n
    counts            2   1   2

Without a window in seconds there are no trials, and the whole recording is counted, to be chopped: the intervals
in which every unit was observed, of each the first part for training and the rest for evaluation.

Needs pynwb, the extra ctd[nwb].
"""

import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np


def read_nwb(path: str, inputs: Any) -> dict[str, Any]:
    """The trials of a file: `train` and `eval`, and `NAME_behavior` if a series is named; (trial, time, ...).

    Without `window` these are lists of recordings (time, ...).

    inputs: bin_s, window, chop, align_to, eval_every and behavior_series of `ctd.lfads.Model`. A trial is left out,
    with a warning, if its event is NaN or its window is not all recorded: it must lie within the intervals in
    which every unit was observed (or, in a file without these, between the first and the last spike) and
    within the series. Raises ValueError, naming file and field.
    """
    try:
        from pynwb import NWBHDF5IO
    except ImportError:
        raise ValueError(
            f"data: {path}: reading NWB needs the package pynwb; install ctd[nwb]"
        ) from None
    if not Path(path).is_file():
        raise ValueError(f"data: {path}: no such file")
    try:
        with NWBHDF5IO(path, "r") as file:
            return _cut(path, file.read(), inputs)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"data: {path}: not an NWB file, or a damaged one: {error}") from None


def _cut(path: str, session: Any, inputs: Any) -> dict[str, Any]:
    if session.units is None or "spike_times" not in session.units.colnames:
        raise ValueError(
            f"data: {path}: has no spike times, a table `units` with the column spike_times"
        )
    if inputs.window is None:
        return _continuous(path, session, inputs)
    start, train, evaluation = _trials(path, session.trials, inputs)
    n_bins = _n_bins(inputs)
    edges = start[:, None] + inputs.window[0] + inputs.bin_s * np.arange(n_bins + 1)
    inside = _inside_recording(session.units, edges)
    series = None
    if inputs.behavior_series is not None:
        series = _series(path, session, inputs.behavior_series)
        inside &= _is_sampled(series[0], edges)
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


def _continuous(path: str, session: Any, inputs: Any) -> dict[str, list[np.ndarray]]:
    """`train`, `eval` and their behaviour, lists of (time, ...): of each interval that every unit was observed in."""
    series = None
    observed = _observed(session.units)
    if inputs.behavior_series is not None:
        series = _series(path, session, inputs.behavior_series)
        observed.append(np.array([[series[0][0], series[0][-1]]]))
    common = reduce(_shared, observed)
    found: dict[str, list[np.ndarray]] = {"train": [], "eval": []}
    short = 0
    for begin, end in common:
        n = int(np.floor((end - begin) / inputs.bin_s + 1e-6))
        n_train = n - n // inputs.eval_every
        for role, first, last in (("train", 0, n_train), ("eval", n_train, n)):
            if last - first < inputs.chop.window:
                short += 1
                continue
            edges = (begin + inputs.bin_s * np.arange(first, last + 1))[None]
            found[role] += list(count_spikes(session.units["spike_times"], edges))
            if series is not None:
                if not _is_sampled(series[0], edges).all():
                    raise ValueError(
                        f"behavior_series: {path}: {inputs.behavior_series} has gaps between {edges[0, 0]:g} and "
                        f"{edges[0, -1]:g} s; fill them, or cut trials by `window`"
                    )
                found.setdefault(f"{role}_behavior", []).extend(_sample(*series, edges))
    _check_intervals(path, found, short, len(common), inputs)
    return found


def _check_intervals(
    path: str, found: dict[str, list[np.ndarray]], short: int, n: int, inputs: Any
) -> None:
    """Raise ValueError if there is no recording for a role; warn of those that are too short."""
    for role in ("train", "eval"):
        if not found[role]:
            raise ValueError(
                f"chop: {path}: no recording of {inputs.chop.window} bins is left for {role}: all units were "
                f"observed in {n} intervals; shorten chop.window, or see eval_every"
            )
    if short:
        warnings.warn(
            f"{path}: {short} of {2 * n} parts of the recording are shorter than a window and left out",
            stacklevel=2,
        )


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 2) the intervals that lie in both; a, b: (n, 2) in order, without overlap."""
    begin = np.maximum(a[:, None, 0], b[None, :, 0]).ravel()
    end = np.minimum(a[:, None, 1], b[None, :, 1]).ravel()
    found = np.stack([begin, end], axis=1)[begin < end]
    return found[np.argsort(found[:, 0])]


def _n_bins(inputs: Any) -> int:
    """The number of bins in a window. Raises ValueError unless it is a whole number."""
    length = inputs.window[1] - inputs.window[0]
    n = round(length / inputs.bin_s)
    if n < 1 or abs(n * inputs.bin_s - length) > 1e-6 * inputs.bin_s:
        raise ValueError(
            f"window, bin_s: {length:g} s are {length / inputs.bin_s:.6g} bins of {inputs.bin_s:g} s; a whole "
            "number expected"
        )
    return n


def _trials(path: str, table: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time of the event (s), is it for training, is it for evaluation) of every trial, three (trial,) arrays."""
    from hdmf.common import VectorIndex

    if table is None or len(table) == 0:
        raise ValueError(f"data: {path}: has no trials, a table `trials` with their times")
    # Not table[name][:], which also follows references; a ragged column (VectorIndex) is no array.
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
    if "split" in columns:
        split = columns["split"].astype(str)
        return start, split == "train", split == "val"
    evaluation = np.arange(len(start)) % inputs.eval_every == inputs.eval_every - 1
    return start, ~evaluation, evaluation


def _inside_recording(units: Any, edges: np.ndarray) -> np.ndarray:
    """(trial,) whether every unit was observed over all bins; False where the event is NaN."""
    first, last = edges[:, :1], edges[:, -1:]
    slack = 1e-6 * (edges[:, 1:2] - edges[:, :1])  # times are sums of rounded numbers
    inside = np.isfinite(first[:, 0])
    for intervals in _observed(units):
        begin, end = intervals.T
        inside &= ((begin <= first + slack) & (last <= end + slack)).any(axis=1)
    return inside


def _observed(units: Any) -> list[np.ndarray]:
    """Of every unit the intervals (n, 2) in which it was observed (s); one for all if the file does not say."""
    if "obs_intervals" in units.colnames:
        observed = [np.asarray(one, float).reshape(-1, 2) for one in units["obs_intervals"]]
    else:
        spikes = np.concatenate([[], *(np.asarray(one, float) for one in units["spike_times"])])
        observed = [np.array([[spikes.min(), spikes.max()]]) if len(spikes) else np.empty((0, 2))]
    return [_merged(intervals) for intervals in observed]


def _merged(intervals: np.ndarray) -> np.ndarray:
    """(n, 2) intervals in order, with those that touch or overlap merged."""
    found: list[list[float]] = []
    for begin, end in sorted(intervals.tolist()):
        if found and begin <= found[-1][1] + 1e-9:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return np.array(found).reshape(-1, 2)


def count_spikes(spike_times: Any, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, unit) int32, how many spikes lie in edges[i, k] <= t < edges[i, k + 1].

    spike_times: a sequence of times (s), one a unit. edges: (trial, bin + 1).
    """
    counts = np.empty((len(edges), edges.shape[1] - 1, len(spike_times)), np.int32)
    for unit, times in enumerate(spike_times):
        before = np.searchsorted(np.sort(np.asarray(times, float)), edges, side="left")
        counts[:, :, unit] = np.diff(before, axis=1)
    return counts


def _series(path: str, session: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """((time,) times in s, (time, channel) values in the unit that the file names) of a time series.

    name: the series' name, or the end of its path (`behavior/hand`), enough to tell it from others. Raises
    ValueError.
    """
    from pynwb import TimeSeries

    known = {_path(session, o): o for o in session.objects.values() if isinstance(o, TimeSeries)}
    found = [at for at in known if f"/{at}".endswith(f"/{name}")]
    if len(found) != 1:
        raise ValueError(
            f"behavior_series: {path} has {len(found) or 'no'} time series {name!r}; there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    series, where = known[found[0]], f"behavior_series: {path}: {found[0]}"
    values = np.asarray(series.data[:])
    if not values.size or values.dtype.kind not in "fiu":
        raise ValueError(f"{where}: numbers expected, but it holds {values.size} {values.dtype}")
    values = (values * series.conversion + series.offset).reshape(len(values), -1)
    if series.timestamps is None:
        return series.starting_time + np.arange(len(values)) / series.rate, values
    times = np.asarray(series.timestamps[:], float)
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError(f"{where}: its timestamps do not rise all the way; sort them, without nan")
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
    """(trial,) whether the samples at `times` cover all bins, with no gap that interpolation would have to fill."""
    slack = 1e-6 * (edges[:, 1] - edges[:, 0])
    inside = (times[0] <= edges[:, 0] + slack) & (edges[:, -1] <= times[-1] + slack)
    if len(times) < 2:
        return inside
    middle = _middle(edges)
    after = np.clip(np.searchsorted(times, middle), 1, len(times) - 1)
    nearest = np.minimum(np.abs(times[after] - middle), np.abs(middle - times[after - 1]))
    near = np.maximum(edges[:, 1] - edges[:, 0], np.median(np.diff(times)))
    return inside & (nearest <= near[:, None] * (1 + 1e-6)).all(axis=1)


def _middle(edges: np.ndarray) -> np.ndarray:
    """(trial, bin) the middle of every bin (s)."""
    return (edges[:, :-1] + edges[:, 1:]) / 2


def _sample(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, channel) values interpolated linearly at the middle of every bin."""
    return np.stack([np.interp(_middle(edges), times, channel) for channel in values.T], axis=-1)
