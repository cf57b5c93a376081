"""Write the tables of a gather: items/, shards/ and reduced/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctd.kernel import Var
from jobs.late import zarr
from jobs.reduce.tables import Items, make
from jobs.store.arrays import Lazy, attributes, describe, flags, put_array
from jobs.store.marker import Marker
from jobs.store.store import Store


def write_items(store: Store, rows: list[np.ndarray]) -> None:
    """Write items/: one row per committed item, in the order of ids; one column at a time is in memory.

    rows: for each group, (rows,) bool: the committed rows.
    """
    described = store.description
    out = store.root.require_group("items")
    ids = np.concatenate([store.rows(g, "item", 0, len(r))[r] for g, r in enumerate(rows)])
    order = np.argsort(ids, kind="stable")
    in_order = bool((np.diff(order) == 1).all())

    def put(name: str, column: Callable[[int, np.ndarray], np.ndarray], var: Var) -> None:
        values = np.concatenate([column(g, here) for g, here in enumerate(rows)])
        put_array(out, name, values if in_order else values[order], var)

    put_array(out, "item", ids[order], Var(("item",), "1", "item id"))
    put("group", lambda g, r: np.full(r.sum(), g, np.int32), Var(("item",), "1", "group"))
    row = Var(("item",), "1", "row in the group's results")
    put("row", lambda g, r: np.flatnonzero(r).astype(np.uint32), row)
    for name in store.swept:
        first = _column(store, 0, name, rows[0])
        axes = ("item", f"{name}_index")[: first.ndim]
        put(name, lambda g, r, name=name: _column(store, g, name, r), Var(axes, "1", name))  # type: ignore[misc]
    scalars = {name: var for name, var in described.dims.items() if var.axes == ()}
    scalars["status"] = Var((), "1", "item status")
    for name, var in scalars.items():
        has = {g for g in range(len(rows)) if name == "status" or name in store.names(g)}
        if has:
            read = lambda g, r, name=name, has=has: _scalar(store, g, name, r, g in has)
            put(name, read, var._replace(axes=("item",)))
            out[name].attrs.update(describe(var) | flags(described, name))
    out.attrs.put({"coordinates": " ".join(store.swept)})


def _scalar(store: Store, group: int, name: str, rows: np.ndarray, has: bool) -> np.ndarray:
    """A scalar result over the committed rows; NaN if the group has no such result."""
    if not has:
        return np.full(int(rows.sum()), np.nan)
    values = store.rows(group, name, 0, len(rows))
    return values if rows.all() else values[rows]


def _column(store: Store, group: int, name: str, rows: np.ndarray) -> np.ndarray:
    """A swept field over the committed rows: its column, or the group's one value repeated."""
    swept = attributes(store.results(group))["swept"]
    if name not in swept:
        return store.rows(group, name, 0, len(rows))[rows]
    value = swept[name]
    if isinstance(value, dict | list | None):
        value = str(value)
    return np.repeat(np.asarray(value)[None], int(rows.sum()))


def write_shards(store: Store, markers: Sequence[Marker]) -> None:
    """Write shards/: one row per committed shard, with its host, device and time."""
    out = store.root.require_group("shards")
    columns: dict[str, tuple[Any, str, str]] = {
        "shard": ([m.shard.number for m in markers], "1", "shard"),
        "group": ([m.shard.group for m in markers], "1", "group"),
        "start": ([m.shard.start for m in markers], "1", "first row"),
        "stop": ([m.shard.stop for m in markers], "1", "row after the last"),
        "attempt": ([m.attempt for m in markers], "1", "attempt that succeeded"),
        "seconds": ([m.seconds for m in markers], "s", "time to compute and write"),
        "host": ([m.host for m in markers], "1", "host"),
        "device_kind": ([m.device_kind for m in markers], "1", "kind of device"),
        "microbatch": ([m.layout.microbatch for m in markers], "1", "vmapped width"),
        "source": ([m.source for m in markers], "1", "digest of the kernel's source"),
    }
    for name, (values, units, text) in columns.items():
        put_array(out, name, np.asarray(values), Var(("shard",), units, text))


def write_reductions(store: Store, reductions: Sequence[Any]) -> None:
    """Write reduced/: one table per reduction of the job; tables of former reductions are removed."""
    if not reductions and "reduced" not in store.root:
        return
    out = store.root.require_group("reduced")
    for stale in set(out.group_keys()) - {one.label for one in reductions}:
        del out[stale]
    table = store.root["items"]
    assert isinstance(table, zarr.Group)
    labels = {name: _labels(attributes(array)) for name, array in table.arrays()}
    known = {name: texts for name, texts in labels.items() if texts}
    columns = Lazy(table.array_keys(), lambda name: np.asarray(table[name][...]))  # type: ignore[index]
    items = Items(columns, known, store.swept)
    for one in reductions:
        here = out.require_group(one.label)
        made = make(one, items)
        for stale in set(here.array_keys()) - made.keys():
            del here[stale]
        for name, (values, units, text) in made.items():
            axes = (one.label, f"{name}_index")[: values.ndim]
            put_array(here, name, values, Var(axes, units, text or name))
        first = [name for name in made if name in ("rank", "item", *items.swept)]
        here.attrs.put({"reduction": one.model_dump(mode="json"), "coordinates": " ".join(first)})


def _labels(attrs: Mapping[str, Any]) -> list[str]:
    """The texts of codes from 0 on; the last, empty text is for the code -1 of an item that failed."""
    texts = attrs.get("labels") or str(attrs.get("flag_meanings", "")).split()
    return [*texts, ""] if texts else []


def reduction_tables(store: Store) -> dict[str, str]:
    """Table -> path of its Zarr group, for the job's gathered reductions.

    The leading axis of every array in such a group has the table's name.
    """
    if "reduced" not in store.root:
        return {}
    reduced = store.root["reduced"]
    assert isinstance(reduced, zarr.Group)
    return {name: f"reduced/{name}" for name in sorted(reduced.group_keys())}
