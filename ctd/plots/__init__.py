"""Plots as data: the numbers and labels that a kernel shows of a group in a report.

A plot is a list of layers over two axes. The page and the PNG add colours and a legend, the page zoom and hover; where
there are many lines or points, they may leave some out. Arrays may be lists or NumPy arrays.

>>> loss = Lines([0, 100, 200], [[3.0, 2.0, 1.5]], "network 7")
>>> plot = Plot("Loss", [loss], Axis("training step"), Axis("loss", log=True))
>>> from ctd.plots.png import draw
>>> draw([plot]).savefig("loss.png")
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Axis:
    """One axis of a plot."""

    label: str = ""
    log: bool = False
    """Logarithmic; values that are not positive are left out."""
    ticks: Sequence[str] = ()
    """The texts at 0, 1, ... of an axis of categories; empty for an axis of numbers."""
    at: Sequence[float] | None = None
    """Numbers, in ascending order, that have a tick each in a PNG if there is room; by default others are chosen."""


@dataclass(frozen=True)
class Scale:
    """The colour scale of the layers' `colour` numbers."""

    label: str = ""
    """Without one there is no colour bar."""
    diverging: bool = False
    """True for two hues around the middle of the range, False for dark to bright."""
    low: float | None = None
    """The number at the scale's lower end, by default the smallest; `high` likewise."""
    high: float | None = None


@dataclass(frozen=True)
class Lines:
    """One line for each row of y; a NaN interrupts it."""

    x: ArrayLike
    """(n,) for all lines, or (line, n)"""
    y: ArrayLike
    """(line, n), or (n,) for one"""
    name: str = ""
    """Name in the legend."""
    colour: ArrayLike | None = None
    """One number for each line, (line,), or for each vertex, (line, n)."""
    text: Sequence[str] = ()
    """Hover text, one for each line."""
    strong: bool = False
    """Drawn thick, in the colour of text."""
    faint: bool = False
    """Drawn as background: thin, and grey unless `colour` is given."""
    dashed: bool = False
    hue: int | None = None
    """Index of the colour of a layer without `colour`; by default each layer has its own."""
    item: Any = None
    """(line,) the item of each line; the page colours, groups and filters lines with items by the swept parameters."""

    def __post_init__(self) -> None:
        shape = np.shape(self.y)
        if len(shape) not in (1, 2):
            raise ValueError(f"Lines: y has the shape {shape}; expected (line, n), or (n,)")
        lines, n = (1, *shape)[-2:]
        either = {"x": ((n,), (lines, n)), "colour": ((lines,), (lines, n))}
        _expect(self, "y", either | {"text": ((lines,), (0,)), "item": ((lines,),)})


class _Marks:
    """A layer whose arrays have one length, (n,); texts may be missing."""

    def __post_init__(self) -> None:
        first, *others = [f.name for f in fields(self) if f.name not in LOOKS]  # type: ignore[arg-type]
        shape = np.shape(getattr(self, first))
        if len(shape) != 1:
            raise ValueError(f"{type(self).__name__}: {first} has the shape {shape}; expected (n,)")
        _expect(self, first, {name: (shape, (0,))[: 1 + (name == "text")] for name in others})


LOOKS = {"name", "marker", "hollow", "faint", "numbered", "hue"}
"""Fields of marks that are no arrays."""


@dataclass(frozen=True)
class Points(_Marks):
    """Markers at (x, y)."""

    x: ArrayLike
    y: ArrayLike
    name: str = ""
    colour: ArrayLike | None = None
    """(n,) numbers of the plot's scale"""
    size: ArrayLike | None = None
    """(n,) relative areas, 0 to 1; by default all are small."""
    marker: Literal["circle", "diamond"] = "circle"
    hollow: bool = False
    faint: bool = False
    """Grey."""
    text: Sequence[str] = ()
    key: ArrayLike | None = None
    """(n,) integers; the page highlights, in all plots of the group, marks with the key of the one under the pointer."""
    numbered: bool = False
    """A PNG writes the keys beside the marks, unless there are many."""
    hue: int | None = None
    item: Any = None
    """(n,) the item of each point; it and `hue` as in `Lines`."""


@dataclass(frozen=True)
class Band(_Marks):
    """The area between `low` and `high` over x, each (n,)."""

    x: ArrayLike
    low: ArrayLike
    high: ArrayLike
    name: str = ""


@dataclass(frozen=True)
class Bars(_Marks):
    """Bars from 0 to `height` between `left` and `right`, each (n,)."""

    left: ArrayLike
    right: ArrayLike
    height: ArrayLike
    name: str = ""
    colour: ArrayLike | None = None
    text: Sequence[str] = ()
    key: ArrayLike | None = None


@dataclass(frozen=True)
class Spans(_Marks):
    """Horizontal bars from `left` to `right` at heights `row`, each (n,)."""

    left: ArrayLike
    right: ArrayLike
    row: ArrayLike
    name: str = ""
    colour: ArrayLike | None = None
    text: Sequence[str] = ()


@dataclass(frozen=True)
class Image:
    """A grid of colours: cell z[row, column] is centred on (x, y) = (column, row)."""

    z: ArrayLike

    def __post_init__(self) -> None:
        if len(shape := np.shape(self.z)) != 2:
            raise ValueError(f"Image: z has the shape {shape}; expected (row, column)")


Layer = Lines | Points | Band | Bars | Spans | Image


def _expect(layer: object, first: str, allowed: Mapping[str, tuple[tuple[int, ...], ...]]) -> None:
    """Raise ValueError if a field of a layer has none of the shapes that are allowed beside its field `first`."""
    for name, shapes in allowed.items():
        value = getattr(layer, name)
        if value is not None and (shape := np.shape(value)) not in shapes:
            expected = " or ".join(map(str, dict.fromkeys(shapes)))
            raise ValueError(
                f"{type(layer).__name__}: {name} has the shape {shape} beside {first} of {np.shape(getattr(layer, first))}; "
                f"expected {expected}"
            )


@dataclass(frozen=True)
class Plot:
    """One plot: its title, layers and axes."""

    title: str
    layers: Sequence[Layer]
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    scale: Scale = field(default_factory=Scale)
    equal: bool = False
    """True: one unit has the same length on both axes."""
    note: str = ""
    """Text below the plot: hints on reading it, and notes on parts that are left out."""
    areas: str = ""
    """The quantity that areas of points show; the legend of a PNG explains two of them by it."""
    at_first: int | None = None
    """Lines with an `item` that the page shows initially; None: all."""


def histogram(
    values: ArrayLike, name: str = "", bins: int = 40, ends: tuple[float, float] | None = None
) -> Bars:
    """Count the finite values in `bins` equal bins over `ends` (low, high), by default their range.

    >>> histogram([0.0, 0.1, 1.0], bins=2).height
    array([2, 1])
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Bars([], [], [], name)
    if ends is None and np.ptp(values) < (room := bins * np.spacing(np.abs(values).max())):
        # Rounding alone, with no room for bins between the values.
        ends = values.min() - max(0.5, room), values.max() + max(0.5, room)
    counts, edges = np.histogram(values, bins, ends)
    return Bars(edges[:-1], edges[1:], counts, name)


def log_histogram(values: ArrayLike) -> Bars:
    """The histogram of the decimal logarithms of values, of those that have one.

    >>> log_histogram([0.0, 1.0, 10.0, np.inf]).height.sum()
    np.int64(2)
    """
    return histogram(np.log10(np.where(np.greater(values, 0), values, np.nan)))


def is_wide(values: ArrayLike) -> bool:
    """True if values need a logarithmic axis: all are positive and they span more than a factor of 20.

    >>> is_wide([1, 100]), is_wide([0, 100])
    (True, False)
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 20 * values.min())


def is_whole(plot: Plot, *fields: str) -> bool:
    """True if an axis gets ticks at whole numbers alone: all layers have integers in the first of these fields that they have."""
    arrays = [
        [getattr(layer, name) for name in fields if hasattr(layer, name)] for layer in plot.layers
    ]
    first = [values[0] for values in arrays if values and values[0] is not None]
    return all(np.asarray(values).dtype.kind in "iu" for values in first)


def is_geometric(values: ArrayLike) -> bool:
    """True if the distinct values, at least three, are positive and grow by about the same factor, as in a geometric sweep.

    >>> is_geometric([50, 100, 200, 100]), is_geometric([50, 100, 150])
    (True, False)
    """
    distinct = np.unique(np.asarray(values, float))
    if len(distinct) < 3 or not np.isfinite(distinct).all() or distinct[0] <= 0:
        return False
    factors = distinct[1:] / distinct[:-1]
    return bool(factors.min() > 1.3 and factors.max() < 1.25 * factors.min())


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the integers 0 ... n-1, evenly spaced, both ends included.

    >>> spread(10, 4)
    array([0, 3, 6, 9])
    """
    if n <= most:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))  # rounding may repeat one


def has_line(y: ArrayLike) -> np.ndarray:
    """(...,) bool: True for the lines (..., n) that are visible, which have two finite values side by side.

    >>> has_line([[1.0, 2.0, np.nan], [1.0, np.nan, 2.0]]).tolist()
    [True, False]
    """
    fine = np.isfinite(np.asarray(y, float))
    return np.asarray((fine[..., 1:] & fine[..., :-1]).any(axis=-1))


def stacked(rows: ArrayLike, step: float) -> np.ndarray:
    """Divide the rows (k, n) by `step` and shift them, the first to the top; the axis' `ticks` name them from the bottom up.

    >>> stacked([[0.0, 2.0], [0.0, 2.0]], step=4).tolist()
    [[1.0, 1.5], [0.0, 0.5]]
    """
    rows = np.asarray(rows, float)
    return rows / step + np.arange(len(rows))[::-1, None]


class Group(NamedTuple):
    """The five arguments of `Kernel.plots`."""

    inputs: Any
    """All fields of the parameters but the traced ones."""
    shared: Any
    """The group's data, as `load` returned them."""
    columns: Mapping[str, np.ndarray]
    """`item` and every traced field -> (item, ...) values."""
    results: Mapping[str, np.ndarray]
    """Result -> (item, ...) values; rows are read when they are indexed."""
    reduced: Mapping[str, np.ndarray]
    """The result of `reduce`; empty if the group was not gathered."""

    @property
    def items(self) -> np.ndarray:
        """(item,) ids."""
        return np.asarray(self.columns["item"][:])

    def values(self, name: str) -> np.ndarray:
        """(item, ...) a result of all items, as floats."""
        return np.asarray(self.results[name][:], float)

    def ended(self, outcome: int) -> np.ndarray:
        """(item,) bool: which items have this outcome, an index into those of the kernel."""
        return np.asarray(self.results["outcome"][:]) == outcome


def of_group[T](draw: Callable[[Group], T]) -> Callable[..., T]:
    """Decorate a function of a `Group`: the result takes the five fields by themselves, as `Kernel` calls it: no user needs the class."""

    @wraps(draw)
    def of_fields(*fields: Any) -> T:
        return draw(Group(*fields))

    return of_fields
