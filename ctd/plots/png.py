"""Draw plots with matplotlib, for the PNG beside a store.

Marks and the order of colours are those of the page of `ctd report`.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ctd.plots import (
    Axis,
    Band,
    Bars,
    Image,
    Layer,
    Lines,
    Plot,
    Points,
    Scale,
    Spans,
    is_whole,
)
from ctd.plots.labels import category_ticks, folded, label_numbers, make_room, number_marks
from ctd.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure as Canvas
else:  # imported when a figure is drawn
    Axes = Canvas = ScalarMappable = XAxis = YAxis = object

__all__ = ["Canvas", "draw", "draw_plot"]

WIDTH, HEIGHT, TALL = 6.0, 4.4, 5.6
"""Inches of one plot; TALL replaces HEIGHT in a figure with a plot whose axes have equal units."""
MAX_INSIDE = 6
"""Most lines of a legend inside the axes; a longer one stands beside them."""
MAX_NAMED = 16
"""Most layers that a legend names: as many as fit beside the axes."""
LINE, LEGEND_SIZE = 0.045, 0.2
"""Height of a legend's line, as a share of the axes'; size of a point whose circle is as high."""
NOTE_WIDTH, X_WIDTH, Y_WIDTH = 78, 62, 48
"""Letters in a line of a note, and in a line of the labels of both axes."""


def draw(plots: Sequence[Plot], title: str = "") -> Canvas:
    """Draw up to three plots in a row, and more in a grid; return a matplotlib Figure, which is empty if there are no plots."""
    # Imported when a figure is drawn, and without pyplot, whose global state belongs to the user.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    n, height = len(plots), TALL if any(p.equal for p in plots) else HEIGHT
    rows = max(math.isqrt(n), 1)
    columns = max(math.ceil(n / rows), 1)
    canvas = Canvas(figsize=(WIDTH * columns, height * rows), layout="constrained")
    FigureCanvasAgg(canvas)
    # Notebooks ask for it. Only pyplot, once imported, would have them show a Figure otherwise.
    canvas._repr_png_ = partial(_png, canvas)  # type: ignore[attr-defined]
    if n == 0:
        return canvas
    if title:
        canvas.suptitle(title)
    scales: list[Scale] = []
    axes = [canvas.add_subplot(rows, columns, k + 1) for k in range(n)]
    for ax, plot in zip(axes, plots, strict=True):
        shades = _shades(plot)
        draw_plot(ax, plot, shades)
        # Plots with one scale of fixed ends share one colour bar.
        if shades and plot.scale.label and (plot.scale not in scales or plot.scale.low is None):
            bar = canvas.colorbar(shades, ax=ax, label=plot.scale.label, shrink=0.9)
            if shades.cmap.N == 1:
                value = float(np.mean(shades.get_clim()))
                bar.set_ticks([value], labels=[number(value, 3)])
            else:
                bar.ax.locator_params(axis="y", integer=is_whole(plot, "z", "colour"))
            scales.append(plot.scale)
    return canvas


def _png(canvas: Canvas) -> bytes:
    image = io.BytesIO()
    canvas.savefig(image, format="png")
    return image.getvalue()


def draw_plot(ax: Axes, plot: Plot, shades: Any) -> None:
    """Draw one plot into matplotlib's Axes `ax`. shades: its colour map, from `_shades`."""
    _prepare(ax.xaxis, ax.set_xscale, plot.x, is_whole(plot, "x", "left"))
    _prepare(ax.yaxis, ax.set_yscale, plot.y, is_whole(plot, "y", "height", "low"))
    series = 0
    for layer in plot.layers:
        if isinstance(layer, Image):
            _image(ax, layer, shades)
            continue
        colours = _own_colours(layer, shades)
        if colours is None:
            hue = getattr(layer, "hue", None)
            colours = f"C{(series if hue is None else hue) % 10}"
            series += hue is None
        _DRAWERS[type(layer)](ax, layer, colours)
    if plot.equal:
        ax.set_aspect("equal", adjustable="datalim")
        # Axes of equal units mostly show a plane around the origin.
        ax.axhline(0, color="0.9", lw=0.8, zorder=0)
        ax.axvline(0, color="0.9", lw=0.8, zorder=0)
    ax.autoscale_view()
    label_numbers(ax.xaxis, plot.x)
    label_numbers(ax.yaxis, plot.y)
    label = ": ".join(filter(None, [plot.x.label, make_room(ax, plot.x.ticks)]))
    ax.set(xlabel=folded(label, X_WIDTH), ylabel=folded(plot.y.label, Y_WIDTH), title=plot.title)
    _legend(ax, plot)
    if plot.note:
        ax.annotate(
            textwrap.fill(plot.note, NOTE_WIDTH), (0.5, 0), (0, -3), xycoords=ax.xaxis.label,
            textcoords="offset points", ha="center", va="top", fontsize="small", color="0.35",
        )  # fmt: skip


def _legend(ax: Axes, plot: Plot) -> None:
    """Draw a legend of layers with names, and of two areas of points if `plot.areas` says what areas show."""
    from matplotlib.lines import Line2D

    handles, labels = ax.get_legend_handles_labels()
    if (more := len(handles) - MAX_NAMED) > 0:
        handles = [*handles[:MAX_NAMED], Line2D([], [], ls="")]
        labels = [*labels[:MAX_NAMED], f"and {more} more"]
    n_named = len(handles)
    for size in _sizes(plot) if plot.areas else ():
        # Line2D takes a diameter where scatter takes an area.
        width = np.sqrt(_area(_radius(size)))
        handles.append(Line2D([], [], ls="", marker="o", ms=width, mfc="white", mec="0.4"))
        labels.append(f"{plot.areas} {number(size, 3)}")
    if not handles:
        return
    shaded = any(_is_shaded(layer) for layer in plot.layers)
    look: dict[str, Any] = {"fontsize": "small", "edgecolor": "none", "framealpha": 0.7}
    if plot.equal or shaded:
        look["loc"] = _corner(ax, plot, len(handles))
    elif len(handles) > MAX_INSIDE:
        look |= {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    legend = ax.legend(handles, labels, **look)
    layers = {getattr(layer, "name", ""): layer for layer in plot.layers}
    for handle, label in zip(legend.legend_handles[:n_named], labels, strict=False):
        if handle and hasattr(handle, "set_sizes"):  # else as large as the largest of its layer
            handle.set_sizes([40])
        # A key in the colour of one point would say that the colour is the class; the colour bar says what it is.
        if plot.scale.label and getattr(layers.get(label), "colour", None) is not None:
            _grey(handle, getattr(layers[label], "hollow", False))


def _grey(handle: Any, hollow: bool) -> None:
    if hasattr(handle, "set_facecolor"):
        handle.set(facecolor="white" if hollow else "0.7", edgecolor="0.4")
    else:
        handle.set_color("0.6")


def _is_shaded(layer: Layer) -> bool:
    """True for lines whose colour changes from vertex to vertex."""
    return isinstance(layer, Lines) and layer.colour is not None and np.ndim(layer.colour) == 2


def _corner(ax: Axes, plot: Plot, n: int) -> str:
    """The corner without points, for a legend of n lines; if each has some, the upper right, with room made above all points.

    The vertices of shaded lines are points, too. matplotlib's "best" does not see these, but does count the vertices of
    circles, and then covers points.
    """
    points = [
        np.reshape(np.broadcast_arrays(np.asarray(layer.x, float), layer.y), (2, -1)).T
        for layer in plot.layers
        if isinstance(layer, Points) or (isinstance(layer, Lines) and _is_shaded(layer))
    ]
    # From data to shares of the axes, of logarithmic ones too.
    x, y = (ax.transData - ax.transAxes).transform(np.concatenate([np.zeros((0, 2)), *points])).T
    corners = {"upper right": (1, 1), "upper left": (0, 1), "lower left": (0, 0), "lower right": (1, 0)}  # fmt: skip
    near = {
        name: np.sum((abs(x - a) < 0.4) & (abs(y - b) < 0.3)) for name, (a, b) in corners.items()
    }
    best = min(corners, key=lambda name: near[name])
    if near[best]:
        # As data and not as limits, which matplotlib may not keep where units have equal lengths.
        above = (0.5, 1 + LINE * (n + 1))
        ax.update_datalim([(ax.transAxes - ax.transData).transform(above)])
        ax.autoscale_view()
        return "upper right"
    return best


def _sizes(plot: Plot) -> list[float]:
    """Two sizes for the legend: the largest of the plot's points, at most LEGEND_SIZE, and a fifth of it, with one digit."""
    areas = [
        np.ravel(layer.size)
        for layer in plot.layers
        if isinstance(layer, Points) and layer.size is not None
    ]
    sizes = np.nan_to_num(np.concatenate([np.zeros(1), *areas]), posinf=0)
    largest = min(sizes.max(), LEGEND_SIZE)
    return [float(f"{share * largest:.1g}") for share in (1, 0.2)] if largest else []


def _radius(size: ArrayLike) -> np.ndarray:
    """The radius of a mark on the page (pixels)."""
    return 3 + 11 * np.sqrt(np.clip(np.asarray(size, float), 0, 1))


def _area(radius: np.ndarray) -> np.ndarray:
    """The area of a mark for matplotlib (points squared)."""
    return np.square(1.5 * radius)


def _prepare(
    axis: XAxis | YAxis, set_scale: Callable[..., None], spec: Axis, integers: bool
) -> None:
    if spec.log:
        set_scale("log", nonpositive="mask")
    elif integers:
        axis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    if len(spec.ticks):
        axis.set_ticks(*category_ticks(spec.ticks))


def _shades(plot: Plot) -> ScalarMappable | None:
    """The colour map of the plot's scale; None if no layer is coloured by a number."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    numbers = [layer.z if isinstance(layer, Image) else _colour_of(layer) for layer in plot.layers]
    if all(colour is None for colour in numbers):
        return None
    values = np.concatenate([np.ravel(np.asarray(c, float)) for c in numbers if c is not None])
    values = values[np.isfinite(values)]
    # Without a finite number any ends will do.
    ends = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    scale = plot.scale
    low, high = (ends[k] if end is None else end for k, end in enumerate((scale.low, scale.high)))
    colours = matplotlib.colormaps["coolwarm" if scale.diverging else "viridis"]
    marks = not any(isinstance(layer, Image) for layer in plot.layers)
    if marks and not scale.diverging:
        # Lines and marks on white: the yellow end would have no contrast with it.
        colours = ListedColormap(colours(np.linspace(0, 0.75, 256)))
    if low == high:  # one colour: of equal ends matplotlib makes others, and gives NaN a colour
        room = abs(low) / 10 or 1.0
        low, high, colours = low - room, high + room, ListedColormap(colours([0.5]))
    if marks:
        colours = colours.with_extremes(bad="0.6")  # a line without a number would be invisible
    return ScalarMappable(Normalize(low, high), colours)


def _colour_of(layer: Layer) -> ArrayLike | None:
    return getattr(layer, "colour", None)


def _own_colours(layer: Layer, shades: Any) -> ArrayLike | None:
    """The colour, or a colour for each number, of a layer that takes none from the cycle; None for a layer that does."""
    if (numbers := _colour_of(layer)) is not None:
        return shades.to_rgba(np.asarray(numbers, float))
    if isinstance(layer, Lines) and layer.strong:
        return "black"
    if isinstance(layer, Lines | Points) and layer.faint:
        return "0.6"
    return None


def _lines(ax: Axes, layer: Lines, colours: Any) -> None:
    y = np.atleast_2d(np.asarray(layer.y, float))
    x = np.broadcast_to(np.asarray(layer.x, float), y.shape)
    look: dict[str, Any] = {
        "lw": 2.0 if layer.strong else 0.8 if layer.faint or len(y) > 30 else 1.4,
        "ls": "--" if layer.dashed else "-",
        "alpha": 0.5 if layer.faint and layer.colour is not None else 1.0 if layer.strong else 0.8,
    }
    if _is_shaded(layer):
        _shaded_lines(ax, np.stack([x, y], axis=-1), colours, {"label": layer.name or None, **look})
        return
    # A line each: matplotlib shows a label once for each line, hence only the first has one.
    for k in range(len(y)):
        label = layer.name if k == 0 and layer.name else None
        colour = colours if layer.colour is None else colours[k]
        ax.plot(x[k], y[k], color=colour, label=label, **look)


def _shaded_lines(
    ax: Axes, vertices: np.ndarray, colours: np.ndarray, look: dict[str, Any]
) -> None:
    """Draw lines with vertices (line, n, 2); each piece has the colour of the vertex that it ends at."""
    from matplotlib.collections import LineCollection

    # matplotlib has one colour a line, so each piece is a line of its own.
    pieces = np.stack([vertices[:, :-1], vertices[:, 1:]], axis=2).reshape(-1, 2, 2)
    fine, ends = np.isfinite(pieces).all(axis=(1, 2)), colours[:, 1:].reshape(-1, 4)
    ax.add_collection(LineCollection(list(pieces[fine]), colors=ends[fine], **look))


def _points(ax: Axes, layer: Points, colours: Any) -> None:
    from matplotlib.patheffects import withStroke

    x, y = np.asarray(layer.x, float), np.asarray(layer.y, float)
    # Many points are small and transparent, so that their density shows.
    fine, many = np.isfinite(x) & np.isfinite(y), len(x) > 600
    if layer.colour is not None:
        colours = colours[fine]
    # Pixels of the page; _area turns them into points.
    radius = np.full(len(x), 2.2 if many else 3.4) if layer.size is None else _radius(layer.size)
    radius = radius[fine]
    edges = None
    if layer.hollow and layer.colour is not None:
        # A ring in the pale middle of a scale would be lost on white: it has dark edges on both sides.
        edges = [withStroke(linewidth=2.8, foreground="0.25")]
    ax.scatter(
        x[fine], y[fine], s=_area(radius), label=layer.name or None, zorder=3,
        marker="D" if layer.marker == "diamond" else "o", alpha=0.6 if many else 0.92,
        facecolors="white" if layer.hollow else colours,
        edgecolors=colours if layer.hollow else "black" if layer.size is not None else "none",
        linewidths=1.6 if layer.hollow else 0.08 * radius, path_effects=edges,  # type: ignore[arg-type]
    )  # fmt: skip
    if layer.numbered and layer.key is not None:
        number_marks(ax, x, y, np.asarray(layer.key))


def _band(ax: Axes, layer: Band, colour: Any) -> None:
    ax.fill_between(
        layer.x, layer.low, layer.high, color=colour, alpha=0.2, lw=0, label=layer.name or None
    )


def _bars(ax: Axes, layer: Bars, colours: Any) -> None:
    starts, look = np.asarray(layer.left), {"alpha": 0.75, "label": layer.name or None}
    width = np.asarray(layer.right) - starts
    ax.bar(starts, layer.height, width, align="edge", color=colours, **look)


def _spans(ax: Axes, layer: Spans, colours: Any) -> None:
    starts, look = np.asarray(layer.left), {"alpha": 0.75, "label": layer.name or None}
    width = np.asarray(layer.right) - starts
    ax.barh(layer.row, width, height=0.72, left=starts, color=colours, **look)  # type: ignore[arg-type]


def _image(ax: Axes, layer: Image, shades: ScalarMappable) -> None:
    ax.imshow(
        np.asarray(layer.z, float), origin="lower", aspect="auto", interpolation="nearest",
        cmap=shades.cmap, norm=shades.norm,  # type: ignore[arg-type]
    )  # fmt: skip


_DRAWERS: dict[type, Callable[..., None]] = {
    Lines: _lines, Points: _points, Band: _band, Bars: _bars, Spans: _spans,
}  # fmt: skip
