"""Plots as data: what a kernel shows of a group in a report, as numbers and labels.

A plot is a list of layers over two axes. Whoever draws it adds zoom, hover, legend and colours, and may
leave out some lines or points where there are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis of a plot."""

    label: str = ""
    log: bool = False
    """Values that are not positive are left out."""
    ticks: Sequence[str] = ()
    """If given, the axis has categories: these are the texts at 0, 1, ..."""


@dataclass(frozen=True)
class Scale:
    """The colour scale of the layers' `colour` numbers."""

    label: str = ""
    diverging: bool = False
    """True: two hues around the middle of the range; False: dark to bright."""
    low: float | None = None
    """`low` and `high` are the ends of the scale; None: the smallest and largest of the numbers."""
    high: float | None = None


@dataclass(frozen=True)
class Lines:
    """One line for each row of y; a NaN interrupts it."""

    x: Any
    """(n,) for all lines, or (line, n)"""
    y: Any
    """(line, n), or (n,) for one"""
    name: str = ""
    """Name in the legend."""
    colour: Any = None
    """One number for each line, (line,), or for each vertex, (line, n)."""
    text: Sequence[str] = ()
    """Hover text, one for each line."""
    strong: bool = False
    """Drawn thick, in the colour of text."""
    faint: bool = False
    """Background: thin and grey unless `colour` is given."""
    dashed: bool = False
    hue: int | None = None
    """Index of the colour of a layer without `colour`; by default each layer has its own."""
    item: Any = None
    """(line,) the item of each line: a page then colours, groups and filters the lines by what was swept."""


@dataclass(frozen=True)
class Points:
    """Markers at (x, y)."""

    x: Any
    y: Any
    name: str = ""
    colour: Any = None
    """(n,) numbers of the plot's scale"""
    size: Any = None
    """(n,) relative areas; by default all are small"""
    marker: Literal["circle", "diamond"] = "circle"
    hollow: bool = False
    text: Sequence[str] = ()
    key: Any = None
    """(n,) integers: the mark under the pointer lights up those with equal keys in all plots of the group"""
    hue: int | None = None
    """As in `Lines`."""
    item: Any = None
    """(n,) the item of each point, as in `Lines`."""


@dataclass(frozen=True)
class Band:
    """The area between `low` and `high` over x, each (n,)."""

    x: Any
    low: Any
    high: Any
    name: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars from 0 to `height` between `left` and `right`, each (n,)."""

    left: Any
    right: Any
    height: Any
    name: str = ""
    colour: Any = None
    text: Sequence[str] = ()
    key: Any = None


@dataclass(frozen=True)
class Spans:
    """Horizontal bars from `left` to `right` at heights `row`, each (n,)."""

    left: Any
    right: Any
    row: Any
    name: str = ""
    colour: Any = None
    text: Sequence[str] = ()


@dataclass(frozen=True)
class Image:
    """A grid of colours: cell z[row, column] is centred on (x, y) = (column, row)."""

    z: Any


Layer = Lines | Points | Band | Bars | Spans | Image


@dataclass(frozen=True)
class Plot:
    """One picture."""

    title: str
    layers: Sequence[Layer]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    scale: Scale = field(default_factory=Scale)
    equal: bool = False
    """True: one unit is as long on y as on x."""
    note: str = ""
    """Text below the picture: what to look for, what was left out."""
    areas: str = ""
    """What the sizes of points stand for: a PNG says it in its legend, by two of them."""
    at_first: int | None = None
    """Of many lines with an `item`, a page shows so many until more are asked for."""


@dataclass(frozen=True)
class Figure:
    """Plots side by side in one image, which is written beside the store."""

    plots: Sequence[Plot]
    title: str = ""


def histogram(values: Any, name: str = "", bins: int = 40, ends: Any = None) -> Bars:
    """Counts of the finite values in `bins` equal bins over `ends` (low, high), by default their range."""
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Bars([], [], [], name)
    counts, edges = np.histogram(values, bins, ends)
    return Bars(edges[:-1], edges[1:], counts, name)


def is_wide(values: Any) -> bool:
    """Whether all values are positive and span more than a factor of 20: they need a logarithmic axis."""
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 20 * values.min())


def tick(value: float) -> str:
    """A number as a short text: 0.01, 3.16, 1000, 1e5."""
    if 1000 <= abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the integers 0 ... n-1, evenly spaced, with both ends."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))


def stacked(rows: Any, step: float) -> np.ndarray:
    """Rows of a (k, n) array, divided by `step` and shifted so that they lie one below the other, the first at
    the top; for an axis whose `ticks` name the rows from the bottom up."""
    rows = np.asarray(rows, float)
    return rows / step + np.arange(len(rows))[::-1, None]
