"""Cut recordings without trials, or with long ones, into windows that overlap, and merge the windows again.

    recording    |-----------------------------------------|      length bins
    windows      |-------------|                                  start 0
                           |-------------|                        start window - overlap
                                       |-------------|            ...
                                             |-------------|      the last one ends with the recording

`merge` takes the windows in order and fades each into those before it. Where n bins are common, bin k of them
becomes (1 - w) old + w new with w = sin^2(pi (k + 1/2) / 2n): weights are smooth and sum to 1. The formula used is
old + w (new - old), so that unchanged windows give back the recording to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctd.late import Bool, Int
from ctd.lfads.params import Chop

Recordings = np.ndarray | Sequence[np.ndarray]
"""One recording (time, ...), recordings of one length (trial, time, ...), or a list of recordings."""

SplitArrays = Mapping[str, tuple[str, Any]]
"""Field of `Trials` -> (its name in the file, its array)."""


class Windows(NamedTuple):
    """The places of all windows of a split, in order. All are arrays, since programs take them with the data."""

    recording: Int[np.ndarray, "window"]
    """Number of the recording."""
    start: Int[np.ndarray, "window"]
    """The window's first bin in its recording."""
    lengths: Int[np.ndarray, "recording"]
    """Bins of each recording."""
    of_trials: Bool[np.ndarray, ""]
    """True if the recordings were the trials of one array. If not, they are merged to one run of time."""


def make_windows(recordings: Recordings, chop: Chop) -> Windows:
    """Lay windows over recordings, each of which must be at least a window long.

    >>> make_windows(np.zeros((10, 3)), Chop(window=4, overlap=1)).start  # the last one ends with the recording
    array([0, 3, 6], dtype=int32)
    """
    of_trials = isinstance(recordings, np.ndarray) and recordings.ndim > 2
    lengths = np.array([len(recording) for recording in _listed(recordings)], np.int32)
    # Every recording ends with a window, so that no bin is lost.
    step = chop.window - chop.overlap
    starts = [np.minimum(np.arange(0, n - chop.overlap, step), n - chop.window) for n in lengths]
    number = np.repeat(np.arange(len(lengths), dtype=np.int32), [len(s) for s in starts])
    return Windows(number, np.concatenate(starts, dtype=np.int32), lengths, np.asarray(of_trials))


def _listed(recordings: Recordings) -> list[np.ndarray]:
    if isinstance(recordings, np.ndarray) and recordings.ndim == 2:
        return [recordings]
    return list(recordings)


def cut(recordings: Recordings, windows: Windows, window: int) -> np.ndarray:
    """Cut out the windows: (window, time, ...). Recordings may be the first of those that `windows` was made for.

    window: bins of a window.

    >>> recording = np.zeros((10, 3))
    >>> cut(recording, make_windows(recording, Chop(window=4, overlap=1)), 4).shape
    (3, 4, 3)
    """
    listed = _listed(recordings)
    places = zip(windows.recording, windows.start, strict=True)
    return np.stack([listed[r][s : s + window] for r, s in places if r < len(listed)])


def merged_shape(windows: Windows) -> tuple[int, ...]:
    """The first axes of merged windows: (trial, time) for trials, else (time,) of all recordings one after another.

    >>> merged_shape(make_windows([np.zeros((10, 3)), np.zeros((6, 3))], Chop(window=4, overlap=1)))
    (16,)
    """
    if windows.of_trials:
        return len(windows.lengths), int(windows.lengths[0])
    return (int(windows.lengths.sum()),)


def merge(values: np.ndarray, windows: Windows) -> np.ndarray:
    """Merge windows (window, time, ...) to recordings, (trial, time, ...) or (time, ...).

    >>> recording = np.arange(20.0).reshape(10, 2)
    >>> windows = make_windows(recording, Chop(window=4, overlap=1))
    >>> bool((merge(cut(recording, windows, 4), windows) == recording).all())
    True
    """
    shape = merged_shape(windows)
    merged = np.empty((*shape, *values.shape[2:]), values.dtype)
    merge_into(merged, values, windows)
    return merged


def merge_into(to: Any, values: np.ndarray, windows: Windows, first: int = 0) -> None:
    """Merge the windows from number `first` on into an array of `merged_shape` that has the windows before it.

    to: the array, in memory or a dataset of a file.
    """
    offsets = np.cumsum(windows.lengths) - windows.lengths
    for k, new in enumerate(values, first):
        recording, start = int(windows.recording[k]), int(windows.start[k])
        common = 0
        if k > 0 and windows.recording[k - 1] == recording:
            # Bins that the window before has written already; the last window may share more than `overlap`.
            common = int(windows.start[k - 1]) + len(new) - start
        place: Any = recording, slice(start, start + len(new))
        if not windows.of_trials:
            begin = int(offsets[recording]) + start
            place = slice(begin, begin + len(new))
        if common > 0:
            # The caller keeps its values.
            new = new.copy()
            new[:common] = _faded(to[place][:common], new[:common])
        to[place] = new


def _faded(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The bins that an old and a new window have in common, faded from the one to the other."""
    n = len(old)
    weight = np.sin(np.pi * (np.arange(n) + 0.5) / (2 * n)) ** 2
    weight = weight.reshape(n, *[1] * (old.ndim - 1))
    # The weight in the array's own type: float64 weights would make float32 recordings float64.
    if old.dtype.kind == "f":
        weight = weight.astype(old.dtype)
    return np.asarray(old + weight * (new - old))


# --- a file's arrays ------------------------------------------------------------------------------


def chop_split(
    arrays: SplitArrays, chop: Chop, source: str
) -> tuple[dict[str, tuple[str, np.ndarray]], Windows]:
    """Cut the arrays of a split into windows alike: (the arrays, their windows). Raises ValueError, naming file and dataset.

    Arrays without a time axis are left out: the true initial state of a window is unknown.
    """
    timeless = ("initial_states", "condition")
    parts = {field: part for field, part in arrays.items() if field not in timeless}
    for name, array in parts.values():
        if isinstance(array, np.ndarray) and array.ndim not in (2, 3):
            raise ValueError(
                f"{source}: {name} has the shape {array.shape}; (time, ...) or (trial, time, ...) expected"
            )
        if len(array) == 0:
            raise ValueError(f"{source}: {name} is empty")
    by, data = parts["data"]
    expected = [len(recording) for recording in _listed(data)]
    for name, array in parts.values():
        # True values may be known of the first recordings alone.
        lengths = [len(recording) for recording in _listed(array)]
        if lengths != expected[: len(lengths)]:
            raise ValueError(
                f"{source}: {name} has {lengths[0]} time bins in {len(lengths)} recordings, but {by} has {expected[0]} "
                f"in {len(expected)}; they must agree"
            )
    short = [k for k, length in enumerate(expected) if length < chop.window]
    if short:
        raise ValueError(
            f"chop: {source}: {by}: recordings of at least window = {chop.window} bins expected, it has recording {short[0]} of "
            f"{expected[short[0]]} bins; shorten the window or leave it out"
        )
    windows = make_windows(data, chop)
    return {f: (n, cut(a, windows, chop.window)) for f, (n, a) in parts.items()}, windows
