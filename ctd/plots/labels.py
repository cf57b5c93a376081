"""Texts of axes: those that have room are shown, long ones are shortened."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctd.plots import Axis, spread
from ctd.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
else:
    Axes = XAxis = YAxis = object

MAX_TICKS = 12
"""Most texts on an axis of categories; more would overlap."""
ROOM = 60
"""Letters that fit side by side below a plot, with GAP between two texts."""
GAP = 2
MOST_NUMBERS = 30
"""Most marks of a layer that get their numbers."""


def fits(texts: Sequence[str]) -> bool:
    """True if texts have room side by side, in places of one width.

    >>> fits(["line", "ring"]), fits(["decaying_rotation"] * 8)
    (True, False)
    """
    return len(texts) * (max(map(len, texts), default=0) + GAP) <= ROOM


def shortened(texts: Sequence[str]) -> tuple[list[str], str]:
    """Cut the words that all texts begin and end with: (the remainder of each, the pattern of them all; "" if nothing was cut).

    >>> shortened(["a.zarr::1::run", "a.zarr::12::run"])
    (['1', '12'], 'a.zarr::...::run')
    """
    if len({*texts}) < 2:
        return list(texts), ""
    # Words stay whole: 10 and 12 are not cut to 0 and 2.
    words = [re.findall(r"[^\W_]+|[\W_]", text) for text in texts]
    start = _alike(words)
    rests = [row[len(start) :] for row in words]
    end = _alike([row[::-1] for row in rests])[::-1]
    cut = ["".join(row[: len(row) - len(end)]) for row in rests]
    return cut, "".join([*start, "...", *end]) if start or end else ""


def _alike(rows: Sequence[Sequence[str]]) -> list[str]:
    """The longest beginning that all rows share."""
    columns = itertools.takewhile(lambda column: len({*column}) == 1, zip(*rows, strict=False))
    return [column[0] for column in columns]


def category_ticks(texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The places and texts of the categories that get a tick."""
    some = spread(len(texts), MAX_TICKS)
    return some, [texts[k] for k in some]


def make_room(ax: Axes, texts: Sequence[str]) -> str:
    """Shorten or turn the texts of the categories on x if they would overlap; return the pattern of those that are shortened."""
    places, labels = category_ticks(texts)
    pattern = ""
    if not fits(labels):
        labels, pattern = shortened(labels)
        ax.set_xticks(places, labels)
    if not fits(labels):
        ax.tick_params("x", rotation=35)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    return pattern


def folded(text: str, width: int) -> str:
    """A text in lines of `width` letters, three at most."""
    return textwrap.fill(text, width, max_lines=3, placeholder=" ...")


def label_numbers(axis: XAxis | YAxis, spec: Axis) -> None:
    """Label the numbers that an axis names, if there is room. Label a logarithmic one that spans less than a factor of 3 as a linear
    one, since between 1 and 2 it would have no label; and one of at most 100 at 1, 2, 5, 10, 20 ..., where matplotlib writes 6 x 10^-1."""
    from matplotlib import ticker

    low, high = sorted(axis.get_view_interval())
    if spec.at:
        texts = [number(value, 3) for value in spec.at]
        places = axis.get_transform().transform(spec.at)
        extent = np.ptp(axis.get_transform().transform([low, high]))
        if max(map(len, texts)) + GAP <= ROOM * np.diff(places).min(initial=extent) / extent:
            axis.set_ticks(spec.at, texts)
            axis.set_minor_locator(ticker.NullLocator())
            return
    narrow, short = high < 3 * low, high <= 100 * low and low > 1e-3 and high < 1e4
    if not spec.log or low <= 0 or len(spec.ticks) or not (narrow or short):
        return
    axis.set_major_locator(ticker.MaxNLocator(5) if narrow else ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.ScalarFormatter() if narrow else lambda x, _: f"{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def number_marks(ax: Axes, x: np.ndarray, y: np.ndarray, keys: np.ndarray) -> None:
    """Write its key beside each mark of a layer, unless there are many."""
    from matplotlib.patheffects import withStroke

    if len(keys) <= MOST_NUMBERS:
        halo = [withStroke(linewidth=2, foreground="white")]
        for at in zip(x, y, keys, strict=True):
            ax.text(*at[:2], f" {at[2]}", va="bottom", fontsize=7, zorder=4, path_effects=halo)
