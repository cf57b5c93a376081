"""Encode plots and tables as JSON of bounded size, whose notes tell what was left out; join encoded plots of several groups."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pandas as pd

from ctd.plots import Image, Layer, Lines, Plot, spread
from jobs.query.columns import in_order
from jobs.query.query import described
from jobs.report.effects import has_value
from jobs.store.roles import JOB_SEED
from jobs.store.store import Store

MAX_LINES, MAX_VERTICES = 400, 60_000
"""Most lines in a layer, and most vertices of all its lines together."""
MAX_MARKS = 5_000
"""Most points, bars or spans in a layer."""
MAX_CELLS = 256
"""Most rows, and most columns, of an image."""
MAX_ROWS, MIN_ROWS, MAX_COLUMNS = 10_000, 2_000, 60
"""Most rows and columns of a table; a table of many columns has fewer rows, but always MIN_ROWS."""
MAX_VALUES = 120_000
"""Most values of a table of more than MIN_ROWS rows."""
MAX_NAMED = 8
"""Most columns named of those that a table leaves out; most notes of plots that are joined."""
EXTREMES = 25
"""A table that is cut keeps this many rows with the lowest, and with the highest, values of each column."""


def numbers(values: object, digits: int = 5) -> Any:
    """Numbers as nested lists, rounded to `digits` significant digits; NaN and infinity become None.

    >>> numbers(np.array([[1 / 3, np.nan]]))
    [[0.33333, None]]
    """
    values = np.asarray(values)
    if values.ndim == 0:
        return numbers(values[None], digits)[0]
    if values.ndim > 1:
        return [numbers(row, digits) for row in values]
    if values.dtype.kind in "iub":
        return values.tolist()
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.tolist()]


def plot_json(plot: Plot) -> dict[str, Any]:
    """A plot as JSON for the page's script."""
    notes = [plot.note]
    layers = [_thinned(layer, notes) for layer in plot.layers]
    axes = {"x": plot.x, "y": plot.y}
    for image in (layer for layer in plot.layers if isinstance(layer, Image)):
        # The cells that are left lie at 0, 1, ...: the texts there say which of all cells they are.
        for name, n in zip("yx", np.shape(image.z), strict=True):
            indices, ticks = spread(n, MAX_CELLS), axes[name].ticks
            if len(indices) < n:
                texts = [ticks[k] if len(ticks) == n else str(k) for k in indices]
                axes[name] = replace(axes[name], ticks=texts)
    note = " ".join(filter(None, notes))
    content = _fields(replace(plot, layers=(), note=note, x=axes["x"], y=axes["y"]))
    return content | {
        "layers": [{"kind": type(layer).__name__.lower()} | _fields(layer) for layer in layers]
    }


def _fields(part: Any) -> dict[str, Any]:
    """The fields of a plot, an axis, a scale or a layer as JSON, without those that are not given."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    absent = lambda name, value: value is None or (name == "text" and not len(value))
    return {name: _json(value) for name, value in values.items() if not absent(name, value)}


def _json(value: Any) -> Any:
    if is_dataclass(value):
        return _fields(value)
    if np.ndim(value) == 0:
        return value if isinstance(value, str | bool | int) else float(value)
    if len(value) == 0 or isinstance(value[0], str):
        return [str(text) for text in value]
    return numbers(value)


def _thinned(layer: Layer, notes: list[str]) -> Layer:
    """The layer, or some of it if it is large; a note then says how much."""
    if isinstance(layer, Lines):
        return _some_lines(layer, notes)
    if isinstance(layer, Image):
        z = np.asarray(layer.z, float)
        rows, columns = (spread(n, MAX_CELLS) for n in z.shape)
        if len(rows) * len(columns) < z.size:
            notes.append(
                f"{len(rows)} of {z.shape[0]} rows, {len(columns)} of {z.shape[1]} columns."
            )
        return Image(z[np.ix_(rows, columns)])
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    marks = {name: value for name, value in values.items() if np.ndim(value) == 1 and len(value)}
    n = max((len(value) for value in marks.values()), default=0)
    some = spread(n, MAX_MARKS)
    if len(some) == n:
        return layer
    notes.append(f"{len(some):,} of {n:,} {layer.name or 'marks'}, evenly spaced.")
    return replace(layer, **{name: np.asarray(value)[some] for name, value in marks.items()})


def _some_lines(layer: Lines, notes: list[str]) -> Lines:
    y, x = np.atleast_2d(np.asarray(layer.y, float)), np.asarray(layer.x, float)
    lines, length = y.shape
    some = spread(lines, MAX_LINES)
    if len(some) < lines:
        notes.append(f"{len(some):,} of {lines:,} {layer.name or 'lines'}, evenly spaced.")
    places = spread(length, max(2, MAX_VERTICES // max(1, len(some))))
    if len(places) < length:
        notes.append(f"{len(places):,} of {length:,} samples of each line, evenly spaced.")
    cut = np.ix_(some, places)
    colour = None if layer.colour is None else np.asarray(layer.colour, float)
    return replace(
        layer,
        x=x[places] if x.ndim == 1 else x[cut],
        y=y[cut],
        colour=colour if colour is None else colour[some if colour.ndim == 1 else cut],
        item=None if layer.item is None else np.asarray(layer.item)[some],
        text=[layer.text[k] for k in some] if len(layer.text) else (),
    )


def titles_of(stores: Sequence[Store]) -> dict[str, str]:
    """Column of a table -> its description with its unit."""
    return {
        name: entry["long_name"]
        + (f" ({entry['units']})" if entry["units"] not in ("", "1") else "")
        for name, entry in described(stores).items()
    }


def table_json(
    name: str,
    frame: pd.DataFrame,
    titles: Mapping[str, str],
    rows: np.ndarray | None = None,
    stay: Collection[str] = (),
) -> dict[str, Any]:
    """A table as JSON, column by column. titles: column -> tooltip. rows: numbers of those shown, by default `some_rows`.
    stay: columns that are shown even where all rows are equal in them."""
    row_numbers, note, without = some_rows(frame) if rows is None else rows, "", ""
    if len(row_numbers) < len(frame):
        note = (
            f"{len(row_numbers):,} of {len(frame):,} rows: evenly spaced, and the {EXTREMES} lowest and "
            "highest of every column. ctd query reads all."
        )
    names = _some_columns(frame)
    if columns_left_out := [str(name) for name in frame.columns if name not in names]:
        more = f" and {len(columns_left_out) - MAX_NAMED} more" * (
            len(columns_left_out) > MAX_NAMED
        )
        without = f"Without {', '.join(columns_left_out[:MAX_NAMED])}{more}: ctd query --table {name} --columns all shows them."
    part = frame.iloc[row_numbers]
    return {
        "name": name,
        "n": len(frame),
        "note": note,
        "without": without,
        "columns": [
            {"name": str(column), "title": titles.get(str(column), ""), "stays": column in stay}
            # A number without an order: two seeds are as far apart as any.
            | _column(part[column].astype(str) if column == JOB_SEED else part[column])
            for column in names
        ],
    }


def some_rows(frame: pd.DataFrame) -> np.ndarray:
    """The numbers of the rows to show, ascending: all, or evenly spaced ones and the extremes of float columns.

    >>> rows = some_rows(pd.DataFrame({"x": np.arange(20_000.0)}))
    >>> len(rows) <= MAX_ROWS, int(rows[0]), int(rows[-1])
    (True, 0, 19999)
    """
    n, width = len(frame), min(max(1, frame.shape[1]), MAX_COLUMNS)
    most = min(MAX_ROWS, max(MIN_ROWS, MAX_VALUES // width))
    if n <= most:
        return np.arange(n)
    extreme_rows: list[np.ndarray] = []
    for name in _some_columns(frame):
        values = frame[name].to_numpy()
        if values.dtype.kind != "f":
            continue
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite) > 2 * EXTREMES:
            order = np.argpartition(values[finite], (EXTREMES, len(finite) - EXTREMES))
            extreme_rows += [finite[order[:EXTREMES]], finite[order[-EXTREMES:]]]
    extremes = np.unique(np.concatenate(extreme_rows)) if extreme_rows else np.zeros(0, int)
    return np.union1d(extremes[: most // 2], spread(n, most - min(len(extremes), most // 2)))


def _some_columns(frame: pd.DataFrame) -> list[Any]:
    """The columns to show: all, or those in which most rows have a value."""
    names = list(frame.columns)
    if len(names) <= MAX_COLUMNS:
        return names
    filled = [has_value(frame[name].to_numpy()).sum() for name in names]
    return [names[k] for k in np.sort(np.argsort(-np.array(filled), kind="stable")[:MAX_COLUMNS])]


def _column(values: pd.Series) -> dict[str, Any]:
    """A column as JSON: `values` are numbers, or codes into `labels`, which are in the order of a query, for a column of texts."""
    array = values.to_numpy()
    kind = array.dtype.kind
    if kind in "iuf":
        values_json = numbers(array, 6)
        for row in np.flatnonzero(np.isinf(array)):
            values_json[row] = "inf" if array[row] > 0 else "-inf"
        return {"kind": "number", "values": values_json}
    if kind == "c":
        array = np.array([f"{v.real:.5g}{v.imag:+.5g}i" for v in array])
    elif kind == "b":
        array = np.where(array, "yes", "no")
    labels, codes = np.unique(array.astype(str), return_inverse=True)
    labels, place = in_order(labels)
    return {"kind": "text", "labels": labels.tolist(), "values": place[codes].tolist()}


OF_ITEMS = ("y", "item", "text", "colour")
"""Fields of a layer of lines with one entry per line."""


def has_items(layer: dict[str, object]) -> bool:
    """Return whether the layer's marks belong to items."""
    return bool(layer.get("item"))


def is_curves(layer: dict[str, Any]) -> bool:
    """Return whether the layer has a line per item over one common x: loss curves, not paths in a group's own plane."""
    return layer["kind"] == "lines" and has_items(layer) and not _per_line(layer["x"])


def join_plots(
    pictures: Mapping[str, Sequence[dict[str, Any]]], is_joined: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Join the plots that all members have; each joined plot has those layers of all members that `is_joined` accepts.

    pictures: name of a member -> its plots, from `plot_json`. Plots with equal axis labels are joined; of several with equal
    labels, the k-th with the k-th.
    """
    keyed = {name: dict(zip(_keys(plots), plots, strict=True)) for name, plots in pictures.items()}
    joined: list[dict[str, Any]] = []
    for key, plot in next(iter(keyed.values())).items():
        same = {name: plots[key] for name, plots in keyed.items() if key in plots}
        layers = [
            layer
            for member_plot in same.values()
            for layer in member_plot["layers"]
            if is_joined(layer)
        ]
        if layers and len(same) == len(keyed):
            # A member's title names its own cell and sizes.
            is_one = len({member_plot["title"] for member_plot in same.values()}) == 1
            title = plot["title"] if is_one else f"{key[1]} against {key[0]}"
            note = _of_each({name: member_plot["note"] for name, member_plot in same.items()})
            joined.append({**plot, "title": title, "note": note, "layers": _merged(layers)})
    return joined


def _of_each(notes: Mapping[str, str]) -> str:
    """The notes of several plots, by the names of their members, as one; a note may say what one plot leaves out."""
    texts = [f"{name}: {note}" for name, note in notes.items() if note]
    if texts and len(set(notes.values())) == 1:
        return f"Each: {next(iter(notes.values()))}"
    more = f" {len(texts) - MAX_NAMED:,} more have notes of their own." * (len(texts) > MAX_NAMED)
    return f"{' '.join(texts[:MAX_NAMED])}{more}"


def _keys(plots: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """The key of each plot: (label of x, label of y, number of earlier plots with the same labels)."""
    earlier = defaultdict[tuple[str, str], Iterator[int]](count)
    labels = [(plot["x"]["label"], plot["y"]["label"]) for plot in plots]
    return [(*axes, next(earlier[axes])) for axes in labels]


def _merged(layers: Sequence[dict[str, object]]) -> list[dict[str, Any]]:
    """Join layers of lines that differ only in their lines, up to the most lines of a layer."""
    merged: dict[str, dict[str, Any]] = {}
    for k, layer in enumerate(layers):
        common = {name: value for name, value in layer.items() if name not in OF_ITEMS}
        kind = json.dumps([common, sorted(layer)]) if layer["kind"] == "lines" else str(k)
        if kind in merged:
            target = merged[kind]
            target.update({name: target[name] + layer[name] for name in OF_ITEMS if name in layer})
        else:
            merged[kind] = dict(layer)
    return [_bounded(layer) if layer["kind"] == "lines" else layer for layer in merged.values()]


def _bounded(layer: dict[str, Any]) -> dict[str, Any]:
    lines = layer["y"]
    length = max(1, len(lines[0])) if lines else 1
    some = spread(len(lines), max(1, min(MAX_LINES, MAX_VERTICES // length)))
    if len(some) == len(lines) or _per_line(layer["x"]):
        return layer
    return layer | {name: [layer[name][k] for k in some] for name in OF_ITEMS if name in layer}


def _per_line(x: Sequence[object]) -> bool:
    return bool(x) and isinstance(x[0], list)
