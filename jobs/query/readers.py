"""Read the columns of a table from Zarr: arrays, and the elements of lists and mappings stored as text.

A swept list `push` is a column of texts such as '[1, -1]', with further columns push[0], push[1]. A swept
mapping `task` has a column for each of its fields (task.name, task.n_steps); its name and the fields in
which its values differ are shown by default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from jobs.late import zarr
from jobs.query.columns import (
    Column,
    Text,
    as_array,
    as_column,
    concat,
    decode,
    from_values,
    labelled,
    literal,
    rows_as_text,
)
from jobs.spec.job import leaves
from jobs.spec.search import Optuna, Population, Search
from jobs.store.arrays import attributes, read_rows
from jobs.store.store import Store

Rows = slice | np.ndarray
Read = Callable[[Rows], Column]

ALL = slice(None)

ITEM = "item"
"""The unit of results that are ids of items."""


@dataclass
class Columns:
    """The columns of a table, before any is read."""

    n: int
    """Number of rows."""
    reads: dict[str, Read] = field(default_factory=dict)
    """Column -> function that reads given rows of it."""
    shown: list[str] = field(default_factory=list)
    """The columns that a query returns if it names none."""
    ids: str = ""
    """The column of item ids, if each row is about one item."""
    if_varied: tuple[str, ...] = ()
    """Columns of `shown` that are shown only where rows differ in them."""

    def add(self, name: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Add a column; if all its texts (`labels`) are mappings or lists, add their fields or elements too."""
        self.reads[name] = read
        parts = [literal(label) for label in labels]
        if parts and all(isinstance(part, dict) for part in parts):
            flat = [{f".{path}": v for path, v in leaves(part).items()} for part in parts]
        elif parts and all(isinstance(part, list) for part in parts):
            flat = [{f"[{k}]": v for k, v in enumerate(part)} for part in parts]
        else:
            self.shown.append(name)
            return
        fields = {
            f: [part.get(f) for part in flat] for f in dict.fromkeys(f for p in flat for f in p)
        }
        for f, values in fields.items():
            self.reads.setdefault(f"{name}{f}", _by_label(read, labels, values))
        differing = [f for f, values in fields.items() if len({repr(v) for v in values}) > 1]
        named = [f"{name}{f}" for f in fields if f == ".name" or f in differing]
        self.shown += named if named and isinstance(parts[0], dict) else [name]

    def add_list(self, name: str, read: Read, k: int) -> None:
        """Add a column whose rows are lists of k numbers, and a column for each element."""
        self.reads[name] = lambda rows: rows_as_text(as_array(read(rows)))
        for j in range(k):
            self.reads[f"{name}[{j}]"] = lambda rows, j=j: as_array(read(rows))[:, j]  # type: ignore[misc]
        self.shown.append(name)

    def add_constants(self, name: str, values: list[object], which: np.ndarray) -> None:
        """Add a column with one value per group. which: (n,) the index into `values` for each row."""
        column = from_values([str(v) if isinstance(v, list | dict) else v for v in values])
        labels = [label for label in column.labels if label] if isinstance(column, Text) else []
        self.add(name, lambda rows: column[which[rows]], labels)


def child(root: zarr.Group, path: str) -> zarr.Group:
    """The Zarr group at `path` inside another."""
    node = root[path]
    assert isinstance(node, zarr.Group)
    return node


def vectors(group: zarr.Group) -> list[tuple[str, tuple[str, ...]]]:
    """The one-dimensional arrays of a group as (name, axes)."""
    found = [(name, _dims(array)) for name, array in group.arrays()]
    return [(name, dims) for name, dims in found if len(dims) == 1]


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    return tuple(str(name) for name in names)


def _reader(array: zarr.Array[Any]) -> Read:
    attrs = attributes(array)
    return lambda rows: decode(
        np.asarray(array[rows]) if isinstance(rows, slice) else read_rows(array, rows), attrs
    )


def stored(group: zarr.Group, axis: str) -> Columns:
    """The table whose columns are the arrays of one Zarr group. axis: the axis of its rows."""
    arrays = dict(group.arrays())
    # Order of columns: the row's number, the swept columns, then results.
    swept = str(attributes(group).get("coordinates", "")).split()
    first = [name for name in [axis, *swept] if name in arrays]
    columns = Columns(next(iter(arrays.values())).shape[0])
    for name in [*first, *sorted(arrays.keys() - first)]:
        array, dims = arrays[name], _dims(arrays[name])
        if dims == (axis,):
            columns.add(name, _reader(array), attributes(array).get("labels", []))
        elif dims == (axis, f"{name}_index"):
            columns.add_list(name, _reader(array), array.shape[1])
    return columns


def _by_label(read: Read, labels: Sequence[str], values: Sequence[object]) -> Read:
    """The reader of a column derived from a text column: it has `values[k]` where the text is `labels[k]`."""
    place = {label: k for k, label in enumerate(labels)}
    column = from_values(values)

    def at(rows: Rows) -> Column:
        text = read(rows)
        assert isinstance(text, Text)
        # Every row has one of `labels`; the 0 for the final "" of text.labels is never used.
        index = np.asarray([place.get(label, 0) for label in text.labels])
        return column[index[text.codes]]

    return at


def reduced(
    groups: list[tuple[int, zarr.Group]], axis: str, summary: Collection[str] = ()
) -> Columns:
    """The table of reduced values along an axis: the rows of all groups, one group after another.

    A row also has its group's number, its own number in the group (in a column named like the axis, unless an array has that
    name) and the group's swept values.

    Args:
        groups: (number, gathered group).
        axis: the axis of the rows.
        summary: arrays that are columns even if they have one more axis: of lists, shown where rows differ.
    """
    parts, lists = [], []
    for number, group in groups:
        held = dict(group.arrays())
        arrays = {name: array for name, array in held.items() if _dims(array) == (axis,)}
        if arrays:
            n = next(iter(arrays.values())).shape[0]
            parts.append((number, n, arrays, attributes(group)["swept"]))
            lists.append(_lists({name: held[name] for name in summary if name in held}, axis))
    sizes = [n for _, n, _, _ in parts]
    which = np.repeat(np.arange(len(parts)), sizes)
    columns = Columns(len(which))
    if parts:
        columns.add_constants("group", [number for number, *_ in parts], which)
        columns.add(
            axis, lambda rows: (np.arange(len(which)) - np.cumsum([0, *sizes])[which])[rows]
        )
    for key in dict.fromkeys(key for *_, swept in parts for key in swept):
        columns.add_constants(key, [swept.get(key) for *_, swept in parts], which)
    names = {name for _, _, arrays, _ in parts for name in arrays}
    for name in sorted(names, key=lambda name: (name != axis, name)):
        pieces = [
            (n, _reader(arrays[name]) if name in arrays else None) for _, n, arrays, _ in parts
        ]
        columns.add(name, end_to_end(pieces))
    for name in dict.fromkeys(name for one in lists for name in one.reads):
        columns.reads[name] = end_to_end(
            [(n, one.reads.get(name)) for n, one in zip(sizes, lists, strict=True)]
        )
    columns.if_varied = tuple(dict.fromkeys(name for one in lists for name in one.shown))
    columns.shown = list(dict.fromkeys([*columns.shown, *columns.if_varied]))
    units = {
        name: attributes(a).get("units") for *_, found, _ in parts for name, a in found.items()
    }
    columns.ids = next((name for name in sorted(units) if units[name] == ITEM), "")
    return columns


def _lists(arrays: Mapping[str, zarr.Array[Any]], axis: str) -> Columns:
    """The columns of those arrays that have one axis more than `axis`."""
    columns = Columns(0)
    for name, array in arrays.items():
        if _dims(array)[:1] == (axis,) and array.ndim == 2:
            columns.add_list(name, _reader(array), array.shape[1])
    return columns


def with_swept(columns: Columns, swept: Mapping[str, Read], item: Read) -> Columns:
    """Join the items' swept columns to a table that has a column of item ids; columns of the same name stay.

    Args:
        swept: swept column of the items -> function that reads it.
        item: reads the ids of the items, in the order of their table.
    """

    @cache
    def sorted_ids() -> tuple[np.ndarray, np.ndarray]:
        ids = as_array(item(ALL))
        return ids, np.argsort(ids, kind="stable")

    def at(read: Read) -> Read:
        def look_up(rows: Rows) -> Column:
            ids, order = sorted_ids()
            wanted = as_array(columns.reads[columns.ids](rows))
            return read(order[np.searchsorted(ids, wanted, sorter=order)])

        return look_up

    new = {name: at(read) for name, read in swept.items() if name not in columns.reads}
    k = columns.shown.index(columns.ids)
    shown = [*columns.shown[: k + 1], *new, *columns.shown[k + 1 :]]
    return replace(columns, reads={**columns.reads, **new}, shown=shown)


def end_to_end(pieces: Sequence[tuple[int, Read | None]]) -> Read:
    """The reader of several columns, one after another. pieces: (number of rows, reader; None: a piece without the column).

    A piece without the column has NaN, or no text. Of each piece only the rows that are asked for are read.
    """
    starts = np.cumsum([0, *(n for n, _ in pieces)])

    @cache
    def is_text() -> bool:
        return any(read and isinstance(read(slice(0, 0)), Text) for _, read in pieces)

    def part(k: int, rows: Rows, n: int) -> Column:
        read = pieces[k][1]
        if read is None:
            return labelled(np.full(n, -1), []) if is_text() else np.full(n, np.nan)
        return read(rows)

    def at(rows: Rows) -> Column:
        if isinstance(rows, slice) and rows == ALL:
            return concat([part(k, ALL, n) for k, (n, _) in enumerate(pieces)])
        wanted = np.arange(starts[-1])[rows] if isinstance(rows, slice) else rows
        which = np.searchsorted(starts, wanted, side="right") - 1
        order = np.argsort(which, kind="stable")
        cut = [wanted[which == k] - starts[k] for k in range(len(pieces))]
        found = [part(k, own, len(own)) for k, own in enumerate(cut) if len(own) or not len(wanted)]
        return concat(found)[np.argsort(order)]

    return at


# --- the table of a search ------------------------------------------------------------------------


def search_columns(
    store: Store, search: Search, ids: np.ndarray, groups: np.ndarray, rows: np.ndarray
) -> Columns:
    """The columns of the table `search`: a row for each item and each generation (or rung) that it took part in, group after group.

    item  generation  METRIC  parent  PARAM ...      (population) METRIC at the generation's end; parent and PARAM as it began
    item  rung        METRIC  PARAM ...              (on rungs) PARAM of Optuna; without `prune` it has one rung, the end

    ids, groups, rows: (n,) the id, group and row in its group of every computed item.
    """
    numbers = np.unique(groups)
    take = lambda g: _of_group(store, search, int(g), ids[groups == g], rows[groups == g])
    parts = [take(g) for g in numbers] or [_of_group(store, search, 0, ids, rows)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    reads: dict[str, Read] = {name: as_column(v).__getitem__ for name, v in found.items()}
    return Columns(len(found["item"]), reads, list(found))


def _of_group(
    store: Store, search: Search, group: int, ids: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    read = lambda name: np.asarray(store.array(group, name).oindex[rows])
    # An item that failed keeps the fill values.
    computed = (read("search_advances") > 0)[:, None]
    at_end = isinstance(search, Optuna) and search.rungs is None
    metric = read(search.metric)[:, None] if at_end else read("search_metric")
    found: dict[str, Any] = {search.metric: metric}
    if isinstance(search, Optuna):
        chosen = attributes(store.results(group))["swept"]
        given = lambda name: chosen[name] if name in chosen else read(f"final_{name}")[:, None]
        found |= {name: np.broadcast_to(given(name), metric.shape) for name in search.params}
    if not isinstance(search, Population):
        rung = 0 if at_end else read("search_rung")[:, None]
        kept = computed & (np.arange(metric.shape[1]) <= rung)
    else:
        parent = read("search_parent")
        kept = computed & (parent >= 0)
        found["parent"] = parent
        found |= {name: read(f"search_{name}") for name in search.params}
    row, at = np.nonzero(kept)
    return {"item": ids[row], search.lap_name: at} | {
        name: values[kept] for name, values in found.items()
    }
