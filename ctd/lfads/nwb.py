"""Trials cut from a recording in the NWB format (Neurodata Without Borders, Rübel et al. 2022, eLife 11:e78362).

A trial is the window around one event, a time in the file's table of trials. Its spikes are counted in bins:

    spike times   |  |||   | || |    | |        of every row of `units`
                     [---------)                edges: event + window[0] + k bin_s,  k = 0 ... n
    counts            2   1   2

Needs pynwb, the extra ctd[nwb].
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np


def read_nwb(path: str, inputs: Any) -> dict[str, np.ndarray]:
    """The trials of a file: `train` and `eval`, and `NAME_behavior` if a series is named; (trial, time, ...).

    inputs: bin_s, window, align_to, eval_every and behavior_series of `ctd.lfads.Model`. A trial is left out,
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


def _cut(path: str, session: Any, inputs: Any) -> dict[str, np.ndarray]:
    if session.units is None or "spike_times" not in session.units.colnames:
        raise ValueError(
            f"data: {path}: has no spike times, a table `units` with the column spike_times"
        )
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
    if "obs_intervals" in units.colnames:
        observed = [np.asarray(one, float).reshape(-1, 2) for one in units["obs_intervals"]]
    else:
        spikes = np.concatenate([[], *(np.asarray(one, float) for one in units["spike_times"])])
        observed = [np.array([[spikes.min(), spikes.max()]]) if len(spikes) else np.empty((0, 2))]
    for intervals in observed:
        begin, end = _merged(intervals).T
        inside &= ((begin <= first + slack) & (last <= end + slack)).any(axis=1)
    return inside


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
