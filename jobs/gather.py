"""Gather: reduce the shards to what a question is asked of.

For every group the kernel's own `reduce` makes gathered/G; over all groups one row an item makes items/,
and one row a shard shards/. Gathering reads only committed shards, so it may run while the job does,
and may be repeated: with the same shards it writes the same bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from pydantic import BaseModel

from ctd.batch import precision
from ctd.kernel import Params, Var, inputs_of, static_of
from jobs import objects
from jobs.arrays import attributes, describe, flags, put_array
from jobs.failure import failed_items
from jobs.measure import load_group, with_files
from jobs.sealed import write_sums
from jobs.spec import options_of
from jobs.store import Store

GATHERED = ("gathered", "items", "shards")
"""The groups at the root that a reduction makes."""


class GroupResults(Mapping[str, np.ndarray]):
    """The committed rows of a group's results; each array is read when it is asked for."""

    def __init__(self, store: Store, group: int, rows: np.ndarray, names: list[str]) -> None:
        self._store, self._group, self._rows, self._names = store, group, rows, names

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        values = self._store.rows(self._group, name, 0, len(self._rows))
        return values if self._rows.all() else values[self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def committed_rows(store: Store) -> list[np.ndarray]:
    """For every group, which of its rows lie in committed shards."""
    rows = [np.zeros(n, bool) for n in store.job.plan.group_sizes]
    done = store.done()
    for shard in store.job.plan.shards():
        if shard.number in done:
            rows[shard.group][shard.start : shard.stop] = True
    return rows


def group_params(store: Store, group: int) -> Params:
    """The parameters that the items of a group share, file names resolved."""
    content = attributes(store.results(group))["params"]
    return with_files(store.kernel.Params.model_validate(content), store.job.base)


def columns_of(store: Store, group: int, rows: np.ndarray) -> GroupResults:
    """The swept columns and ids of the committed rows."""
    names = str(attributes(store.results(group))["coordinates"]).split()
    return GroupResults(store, group, rows, ["item", *names])


def gather(store: Store) -> int:
    """Reduce all committed shards; returns how many items they hold."""
    kernel, spec = store.kernel, store.job.spec
    options = options_of(spec, kernel)
    rows = committed_rows(store)
    if kernel.reduce is not None:
        failed = failed_items(store)
        for group, here in enumerate(rows):
            # An item that failed with an error has no results: a reduction would meet fill values.
            left_out = [e["row"] for (g, _), found in failed.items() if g == group for e in found]
            some = here.copy()
            some[left_out] = False
            if some.any():
                _reduce_group(store, group, some, options)
    _write_items(store, rows)
    _write_shards(store)
    store.consolidate()
    found = [key for part in GATHERED for key in objects.keys(store.objects, part)]
    write_sums(store.objects, "gathered", [*found, "zarr.json"])
    return int(sum(here.sum() for here in rows))


def _reduce_group(store: Store, group: int, rows: np.ndarray, options: BaseModel) -> None:
    kernel = store.kernel
    assert kernel.reduce is not None
    params = group_params(store, group)
    results = GroupResults(store, group, rows, store.names(group))
    with precision(static_of(params)):
        shared = load_group(kernel, params, store.job.base)
        inputs = inputs_of(params)
        reduced = kernel.reduce(inputs, shared, columns_of(store, group, rows), results, options)
        coords = kernel.coords(inputs, shared) if kernel.coords else {}
    out = store.root.require_group(f"gathered/{group}")
    for stale in set(out.array_keys()) - reduced.keys():
        del out[stale]
    for name, values in reduced.items():
        put_array(out, name, values, kernel.reduced[name])
    axes = {axis for name in reduced for axis in kernel.reduced[name].axes}
    for axis in axes & coords.keys() - reduced.keys():
        put_array(out, axis, coords[axis], Var((axis,), "1", axis))
    out.attrs.put(
        {
            "options": options.model_dump(mode="json"),
            "items": int(rows.sum()),
            "swept": attributes(store.results(group))["swept"],
        }
    )


def _write_items(store: Store, rows: list[np.ndarray]) -> None:
    """items/: one row a committed item, in the order of ids; one column at a time in memory."""
    kernel = store.kernel
    out = store.root.require_group("items")
    ids = [store.rows(g, "item", 0, len(here))[here] for g, here in enumerate(rows)]
    order = np.argsort(np.concatenate(ids), kind="stable")
    sizes = [len(part) for part in ids]
    gather_column = lambda parts: np.concatenate(parts)[order]
    put_array(out, "item", np.concatenate(ids)[order], Var(("item",), "1", "item id"))
    group = np.repeat(np.arange(len(rows), dtype=np.int32), sizes)[order]
    put_array(out, "group", group, Var(("item",), "1", "group"))
    row = gather_column([np.flatnonzero(here).astype(np.uint32) for here in rows])
    put_array(out, "row", row, Var(("item",), "1", "row in the group's results"))
    for name in item_columns(store):
        parts = [_column(store, g, name, here) for g, here in enumerate(rows)]
        values = np.concatenate(parts)[order]
        axes = ("item", f"{name}_index")[: values.ndim]
        put_array(out, name, values, Var(axes, "1", name))
    scalars = {name: var for name, var in kernel.dims.items() if var.axes == ()}
    scalars["status"] = Var((), "1", "item status")
    for name, var in scalars.items():
        has = [g for g in range(len(rows)) if name == "status" or name in store.names(g)]
        if not has:
            continue
        parts = [
            store.rows(g, name, 0, len(here))[here]
            if g in has
            else np.full(int(here.sum()), np.nan)
            for g, here in enumerate(rows)
        ]
        put_array(out, name, np.concatenate(parts)[order], var._replace(axes=("item",)))
        out[name].attrs.update(describe(var) | flags(kernel, name))
    out.attrs.put({"coordinates": " ".join(item_columns(store))})


def item_columns(store: Store) -> list[str]:
    """The swept fields of the job, in its order."""
    return list(dict.fromkeys(name for part in store.job.spec.sweeps() for name in part.names()))


def _column(store: Store, group: int, name: str, rows: np.ndarray) -> np.ndarray:
    """A swept field over the committed rows: a column, or one value that the whole group has."""
    swept = attributes(store.results(group))["swept"]
    if name not in swept:
        return store.rows(group, name, 0, len(rows))[rows]
    value = swept[name]
    if isinstance(value, dict | list | None):
        value = str(value)
    return np.repeat(np.asarray(value)[None], int(rows.sum()))


def _write_shards(store: Store) -> None:
    """shards/: where and how long each committed shard ran."""
    markers = store.markers()
    out = store.root.require_group("shards")
    columns: dict[str, tuple[Any, str, str]] = {
        "shard": ([m["shard"]["number"] for m in markers], "1", "shard"),
        "group": ([m["shard"]["group"] for m in markers], "1", "group"),
        "start": ([m["shard"]["start"] for m in markers], "1", "first row"),
        "stop": ([m["shard"]["stop"] for m in markers], "1", "row after the last"),
        "attempt": ([m["attempt"] for m in markers], "1", "attempt that succeeded"),
        "seconds": ([m["seconds"] for m in markers], "s", "time to compute and write"),
        "host": ([m["host"] for m in markers], "1", "host"),
        "device_kind": ([m["device_kind"] for m in markers], "1", "kind of device"),
        "microbatch": ([m["layout"]["microbatch"] for m in markers], "1", "vmapped width"),
    }
    for name, (values, units, text) in columns.items():
        put_array(out, name, np.asarray(values), Var(("shard",), units, text))


def require_rows(store: Store) -> zarr.Group:
    """The item table, gathered first where it is missing or behind the committed shards."""
    committed = int(sum(here.sum() for here in committed_rows(store)))
    if "items" not in store.root or store.root["items/item"].shape[0] != committed:  # type: ignore[union-attr]
        gather(store)
    return store.root["items"]  # type: ignore[return-value]
