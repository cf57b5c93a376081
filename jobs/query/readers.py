"""The tables of a store from its Zarr arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from jobs.late import zarr
from jobs.query.columns import Column, as_array, blanked, decode, rows_of_items
from jobs.query.table import Read, Rows, Table, end_to_end
from jobs.search.method import Method
from jobs.store.arrays import attributes
from jobs.store.store import Store

ITEM = "item"
"""The unit of results that are ids of items."""


def child(root: zarr.Group, path: str) -> zarr.Group:
    """The Zarr group at `path` inside another."""
    node = root[path]
    assert isinstance(node, zarr.Group)
    return node


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    names = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    return tuple(str(name) for name in names)


def _reader(array: zarr.Array[Any]) -> Read:
    attrs = attributes(array)
    read = lambda rows: array[rows] if isinstance(rows, slice) else array.oindex[rows]
    return lambda rows: decode(np.asarray(read(rows)), attrs)


def stored(
    group: zarr.Group,
    axis: str,
    ordered: Sequence[str] = (),
    summary: Collection[str] = (),
    new: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """The table whose columns are the arrays of one Zarr group: the row's number, the swept columns, those in `ordered`, the others by name.

    axis: the axis of its rows. summary: arrays that are columns even if they have one more axis: of lists, shown where rows differ.
    new: array -> its column, if the name is another; a question may use both.
    """
    arrays_by_name = {name: array for name, array in group.arrays() if _dims(array)[:1] == (axis,)}
    arrays = {new.get(name, name): array for name, array in arrays_by_name.items()}
    table = Table(next((array.shape[0] for array in arrays.values()), 0))
    swept = str(attributes(group).get("coordinates", "")).split()
    order = dict.fromkeys([axis, *swept, *ordered, *sorted(arrays)])
    for name in filter(arrays.__contains__, order):
        array, dims, attrs = arrays[name], _dims(arrays[name]), attributes(arrays[name])
        if dims == (axis,):
            table.add(name, _reader(array), attrs.get("labels", []))
            table.ids = table.ids or name * (attrs.get("units") == ITEM)
        elif dims == (axis, f"{name}_index"):
            table.add_list(name, _reader(array), array.shape[1])
        elif name in summary and array.ndim == 2:
            table.add_list(name, _reader(array), array.shape[1])
            table.if_varied += (name,)
    table.reads |= {old: table.reads[name] for old, name in new.items() if old in arrays_by_name}
    return table


def reduced(
    groups: Mapping[int, zarr.Group], axis: str, ordered: Sequence[str], summary: Collection[str]
) -> Table:
    """The table of reduced values along an axis: the rows of all groups, one group after another.

    A row also has its group's number, its own number in the group (in a column named like the axis, unless an array has that
    name) and the group's swept values.

    groups: number -> the gathered group. axis: the axis of the rows. ordered, summary: as in `stored`.
    """
    tables = {number: stored(group, axis, ordered, summary) for number, group in groups.items()}
    parts = {number: part for number, part in tables.items() if part.reads}
    if not parts:
        return Table(0)
    swept = [attributes(groups[number])["swept"] for number in parts]
    sizes = [part.n for part in parts.values()]
    part_index, begin = np.repeat(np.arange(len(parts)), sizes), np.cumsum([0, *sizes])
    joined = end_to_end(list(parts.values()))
    table = Table(joined.n, if_varied=joined.if_varied)
    table.add_constants("group", list(parts), part_index)
    table.add(axis, lambda rows: (np.arange(len(part_index)) - begin[part_index])[rows])
    for key in dict.fromkeys(key for params in swept for key in params):
        table.add_constants(key, [params.get(key) for params in swept], part_index)
    table.reads |= joined.reads
    listed = [name for name in joined.listed if name not in joined.if_varied]
    table.listed = list(dict.fromkeys([*table.listed, *listed, *joined.if_varied]))
    table.ids = next((part.ids for part in parts.values() if part.ids), "")
    return table


def join_items(table: Table, items: Table, swept: Collection[str]) -> None:
    """Join the columns of swept fields to a table that has a column of item ids; columns of the same name stay."""

    def at(name: str, rows: Rows) -> Column:
        ids = as_array(table.reads[table.ids](rows))
        place = rows_of_items(ids, as_array(items.read("item")))
        column = items.read(name, place.clip(0))
        # -1 stands for no item, whose fields are missing.
        return column if (place >= 0).all() else blanked(column, place < 0)

    is_new = lambda name: name.partition(".")[0] in swept and name not in table.reads
    new = [name for name in items.default_columns if is_new(name)]
    table.reads |= {name: partial(at, name) for name in new}
    behind = table.listed.index(table.ids) + 1
    table.listed[behind:behind] = new


# --- the table of a search ------------------------------------------------------------------------


def search_table(store: Store, search: Method, items: Table) -> Table:
    """The table `search`: a row for each item and each generation (or rung) that it took part in, group after group.

    item  generation  METRIC  parent  PARAM ...      (population) METRIC at the generation's end; parent and PARAM as it began
    item  rung        METRIC  PARAM ...              (on rungs) PARAM of Optuna; without `prune` it has one rung, the end

    Swept fields are joined from `items`, unless a column has their name.
    """
    ids, groups, rows = (as_array(items.read(column)) for column in ("item", "group", "row"))
    take = lambda g: _searched(store, search, int(g), ids[groups == g], rows[groups == g])
    # Without an item, the columns of the first group, of no rows.
    parts = [take(g) for g in np.unique(groups)] or [take(0)]
    table = Table.from_columns(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
    table.ids = "item"
    join_items(table, items, store.swept)
    return table


def _searched(
    store: Store, search: Method, group: int, ids: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    read = lambda name: np.asarray(store.array(group, name).oindex[rows])
    # An item that failed keeps the fill values.
    has_results = (read("search_advances") > 0)[:, None]
    laps, columns = search.by_lap(read, attributes(store.results(group))["swept"])
    laps = has_results & laps
    row, lap = np.nonzero(laps)
    return {"item": ids[row], search.lap_name: lap} | {k: v[laps] for k, v in columns.items()}
