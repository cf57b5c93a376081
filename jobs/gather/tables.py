"""Make and write the tables of a gather: items/, shards/ and, for each of the job's `reductions`, reduced/TABLE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ctd.kernel import Var
from ctd.late import scipy
from ctd.rows import combinations
from jobs.late import zarr
from jobs.plan.items import text_of
from jobs.spec.reductions import ALWAYS, Best, Counts, Histogram, Seeds
from jobs.storage import objects
from jobs.store.arrays import DONE, Lazy, attributes, flags, put_array
from jobs.store.marker import Marker
from jobs.store.store import Store, rows_of, table_group

NO_ROWS = np.zeros(0, bool)
"""Marks no row: what is read has the axes and the dtype of a column alone."""

AT_ONCE = 1 << 22
"""Most numbers of a store's scalar results that are read at once."""


def write_items(store: Store, rows: list[np.ndarray]) -> None:
    """Write items/: one row per committed item, in the order of ids; of a large store one column at a time is in memory.

    rows: for each group, (rows,) bool: the committed rows.
    """
    out, scalars = table_group(store, "items"), _scalars(store)
    scalar = _reader(store, ["item", *scalars])
    ids = np.concatenate([scalar("item", g, mask) for g, mask in enumerate(rows)])
    order = np.argsort(ids, kind="stable")
    # Groups whose ids follow each other need no sort, which would copy each column once more.
    in_order = bool((np.diff(order) == 1).all())

    def put_column(name: str, column: Callable[[int, np.ndarray], np.ndarray], var: Var) -> None:
        values = np.concatenate([column(g, mask) for g, mask in enumerate(rows)])
        more = flags(store.description, name)
        put_array(out, name, values if in_order else values[order], var, more)

    put_array(out, "item", ids[order], Var(("item",), "1", "item id"))
    put_column("group", lambda g, r: np.full(r.sum(), g, np.int32), Var(("item",), "1", "group"))
    row = Var(("item",), "1", "row in the group's results")
    put_column("row", lambda g, r: np.flatnonzero(r).astype(np.uint32), row)
    for name in store.swept:
        read = partial(_column, store, name)
        axes = ("item", f"{name}_index")[: read(0, NO_ROWS).ndim]
        put_column(name, read, Var(axes, "1", name))
    for name, var in scalars.items():
        put_column(name, partial(scalar, name), var._replace(axes=("item",)))
    out.attrs.put({"coordinates": " ".join(store.swept)})


def open_columns(store: Store) -> dict[str, bool]:
    """Open the arrays that `write_items` reads; return swept field or result -> whether it holds one number an item."""
    groups = range(len(store.job.plan.group_sizes))
    column = lambda name, g: _column(store, name, g, NO_ROWS)
    scalar = lambda name, g: store.array(g, name) if _has(store, name, g) else np.full(0, np.nan)
    arrays: dict[str, Any] = {name: [column(name, g) for g in groups] for name in store.swept}
    arrays |= {name: [scalar(name, g) for g in groups] for name in ("item", *_scalars(store))}
    is_number = lambda values: values.dtype.kind in "iufb" and len(values.shape) == 1
    return {
        name: all(map(is_number, group_arrays))
        for name, group_arrays in arrays.items()
        if name not in ALWAYS
    }


def _scalars(store: Store) -> dict[str, Var]:
    """The results of one number an item that a group has, and the status."""
    dims = {**store.description.dims, "status": Var((), "1", "item status")}
    has = {"status"}.union(*map(store.names, range(len(store.job.plan.group_sizes))))
    return {name: var for name, var in dims.items() if var.axes == () and name in has}


def _has(store: Store, name: str, group: int) -> bool:
    return name in ("item", "status", *store.names(group))


def _reader(store: Store, names: Sequence[str]) -> Callable[[str, int, np.ndarray], np.ndarray]:
    """Return (name, group, committed rows) -> one of these scalar results over the rows; NaN if the group has no such result."""
    sizes = store.job.plan.group_sizes
    # Of many small groups each is read once: most of their scalars share a pack.
    at_once = sum(sizes) * len(names) <= AT_ONCE
    names_in = cache(lambda group: [name for name in names if _has(store, name, group)])
    group_rows = cache(lambda group: rows_of(store, group, names_in(group), 0, sizes[group]))

    def read(name: str, group: int, rows: np.ndarray) -> np.ndarray:
        if name not in names_in(group):
            return np.full(int(rows.sum()), np.nan)
        values = group_rows(group)[name] if at_once else store.rows(group, name, 0, sizes[group])
        return values[rows]

    return read


def _column(store: Store, name: str, group: int, rows: np.ndarray) -> np.ndarray:
    """A swept field over the committed rows: its column, or the group's one value repeated."""
    swept = attributes(store.results(group))["swept"]
    if name not in swept:
        return store.rows(group, name, 0, len(rows))[rows]
    value = swept[name]
    if isinstance(value, dict | list | None):
        value = text_of(value)
    return np.repeat(np.asarray(value)[None], int(rows.sum()))


def write_shards(store: Store, markers: Sequence[Marker]) -> None:
    """Write shards/: one row per committed shard, with its host, device and time."""
    out = table_group(store, "shards")

    def put_column(
        name: str, value_of: Callable[[Marker], Any], text: str, units: str = "1"
    ) -> None:
        values = np.asarray([value_of(marker) for marker in markers])
        put_array(out, name, values, Var(("shard",), units, text))

    put_column("shard", lambda m: m.shard.number, "shard")
    put_column("group", lambda m: m.shard.group, "group")
    put_column("start", lambda m: m.shard.start, "first row")
    put_column("stop", lambda m: m.shard.stop, "row after the last")
    put_column("attempt", lambda m: m.attempt, "attempt that succeeded")
    took = "time to compute and write, attempts before a checkpoint included"
    put_column("seconds", lambda m: m.seconds, took, "s")
    put_column("host", lambda m: m.host, "host")
    put_column("device_kind", lambda m: m.device_kind, "kind of device")
    put_column("microbatch", lambda m: m.layout.microbatch, "vmapped width")
    put_column("source", lambda m: m.source, "digest of the kernel's source")


def write_reductions(store: Store, reductions: Sequence[Any]) -> None:
    """Write reduced/: one table per reduction of the job; tables of former reductions are removed."""
    objects.delete_all(store.objects, "reduced")
    if not reductions:
        return
    out = table_group(store, "reduced")
    table = store.root["items"]
    assert isinstance(table, zarr.Group)
    labels = {name: _labels(attributes(array)) for name, array in table.arrays()}
    columns = Lazy(table.array_keys(), lambda name: np.asarray(table[name][...]))  # type: ignore[index]
    items = Items(columns, labels, store.swept)
    for reduction in reductions:
        reduced_columns = MAKERS[type(reduction)](reduction, items)
        first = [name for name in reduced_columns if name in ("rank", "item", *items.swept)]
        about = {"reduction": reduction.model_dump(mode="json"), "coordinates": " ".join(first)}
        group = out.create_group(reduction.label, attributes=about)
        for name, (values, text) in reduced_columns.items():
            axes = (reduction.label, f"{name}_index")[: values.ndim]
            put_array(group, name, values, Var(axes, "1", text or name))


def _labels(attrs: Mapping[str, Any]) -> list[str]:
    """The texts of a column's codes from 0 on; none of a column of values."""
    return attrs.get("labels") or str(attrs.get("flag_meanings", "")).split()


def reduction_tables(store: Store) -> dict[str, str]:
    """Table -> path of its Zarr group, for the job's gathered reductions.

    The leading axis of every array in such a group has the table's name.
    """
    if "reduced" not in store.root:
        return {}
    reduced = store.root["reduced"]
    assert isinstance(reduced, zarr.Group)
    return {name: f"reduced/{name}" for name in sorted(reduced.group_keys())}


# --- reductions -----------------------------------------------------------------------------------


class Items(NamedTuple):
    """The item table in the form that reductions take."""

    columns: Mapping[str, np.ndarray]
    """Every column, which is read at each access; texts are codes."""
    labels: Mapping[str, Sequence[str]]
    """Column -> the text of each code, from 0 on; none of a column of values."""
    swept: Sequence[str]
    """The columns that were swept."""

    def pick(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of a column, with texts in place of codes; the code -1 of an item that failed becomes ""."""
        values, texts = self.columns[name][rows], self.labels.get(name)
        if not texts:
            return values
        # An outcome that the kernel does not have reads as in the table `items` (jobs.query.columns: decode).
        beyond = [f"{name} {code}" for code in range(len(texts), values.max(initial=-1) + 1)]
        return np.asarray([*texts, *beyond, ""])[values]


class Column(NamedTuple):
    """One column of a reduction."""

    values: np.ndarray
    long_name: str = ""


Table = dict[str, Column]


def _best(reduction: Best, items: Items) -> Table:
    """Columns rank, item, the value, and the swept columns."""
    values, usable = _usable(items, reduction.by)
    order = np.argsort(-values if reduction.largest else values, kind="stable")[: reduction.k]
    rows = usable[order]
    names = ["item", reduction.by, *items.swept]
    table = {name: Column(items.pick(name, rows)) for name in dict.fromkeys(names)}
    return {"rank": Column(np.arange(len(rows)), "place")} | table


def _seeds(reduction: Seeds, items: Items) -> Table:
    """One row per setting: its values, count, failed, mean, sd, p5 ..., low, high."""
    import pandas as pd

    settings = [name for name in items.swept if name not in reduction.over]
    first, setting = combinations(
        [items.columns[name] for name in settings], len(items.columns["item"])
    )
    values, usable = _usable(items, reduction.of)
    n, usable_setting = len(first), setting[usable]
    count = np.bincount(usable_setting, minlength=n)
    # All are NaN for a setting without a value; sd also for one with a single value.
    of_setting = pd.Series(values).groupby(usable_setting)
    column = lambda statistic: statistic.reindex(range(n)).to_numpy(float)
    table = {name: Column(items.pick(name, first)) for name in settings} | {
        "count": Column(count, "items with a value"),
        "failed": Column(np.bincount(setting, minlength=n) - count, "items without a value"),
        "mean": Column(column(of_setting.mean()), f"mean of {reduction.of}"),
        "sd": Column(column(of_setting.std()), f"standard deviation of {reduction.of}, with n - 1"),
    }
    for q in reduction.quantiles:
        label = f"p{100 * q:g}".replace(".", "_")
        table[label] = Column(column(of_setting.quantile(q)), f"quantile {q:g} of {reduction.of}")
    # Student's t, which holds for a few values near a normal distribution; of one value there is no interval.
    freedom = np.where(count > 1, count - 1.0, np.nan)
    half = scipy.special.stdtrit(freedom, 0.975) * table["sd"].values / np.sqrt(count)
    text = "end of the 0.95 confidence interval of the mean, by Student's t"
    mean = table["mean"].values
    return table | {
        "low": Column(mean - half, f"lower {text}"),
        "high": Column(mean + half, f"upper {text}"),
    }


def _counts(reduction: Counts, items: Items) -> Table:
    """One row per combination that occurs: the named columns, status, outcome, count, share."""
    names = [*reduction.by, *(name for name in ("status", "outcome") if name in items.columns)]
    names = list(dict.fromkeys(names))
    first, combination = combinations(
        [items.columns[name] for name in names], len(items.columns["item"])
    )
    count = np.bincount(combination, minlength=len(first))
    return {name: Column(items.pick(name, first)) for name in names} | {
        "count": Column(count, "items"),
        "share": Column(count / max(1, len(combination)), "share of all items"),
    }


def _histogram(reduction: Histogram, items: Items) -> Table:
    """One row per bin: left, right, count; the last bin includes its right edge."""
    values, _ = _usable(items, reduction.of)
    ends = reduction.range
    if reduction.log:
        values, ends = np.log10(values[values > 0]), ends and tuple(np.log10(ends))
    low, high = ends or ((values.min(), values.max()) if len(values) else (0.0, 1.0))
    # Widen an empty range, as NumPy does. Its own bins would refuse a range that is as narrow as rounding errors.
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, reduction.bins + 1)
    count, _ = np.histogram(values, edges)
    edges = 10**edges if reduction.log else edges
    return {
        "left": Column(edges[:-1], f"left edge, of {reduction.of}"),
        "right": Column(edges[1:], f"right edge, of {reduction.of}"),
        "count": Column(count, "items"),
    }


MAKERS: dict[type, Callable[[Any, Items], Table]] = {
    Best: _best,
    Seeds: _seeds,
    Counts: _counts,
    Histogram: _histogram,
}
"""Reduction -> the function that makes its table. `check_reductions` has found its columns."""


def _usable(items: Items, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The items that are done and have a finite value: (values, rows)."""
    values = items.columns[name].astype(float)
    rows = np.flatnonzero((items.columns["status"] == DONE) & np.isfinite(values))
    return values[rows], rows
