"""Compare two stores: how their specs differ, which items they share, how far their results differ.

Two items match if their sweep columns are equal, numbers to 12 digits, so that a list's 0.3 equals a linspace's
0.30000000000000004. If only one store sweeps a field, every item of the other has the value that its job
gives. The items of two kernels do not correspond: none match. The distance of two results is max |a - b| over their
elements, one number per item.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ctd.words import count, left_out
from jobs.errors import JobError
from jobs.query.columns import Column, Text, as_array, as_column, as_text, concat, literal, sort_key
from jobs.query.table import Table
from jobs.query.tables import ask, nothing_yet
from jobs.run.prepare import NOT_GIVEN, differing
from jobs.spec.job import inner
from jobs.store.arrays import attributes
from jobs.store.store import Store

BLOCK_BYTES = 64 << 20
"""Results are read in pieces of about this size."""

WITH_RESULTS = ("done", "dropped")
"""Statuses of items that have results."""

CODED = ("status", "outcome")
"""Columns of codes, which are equal or differ, but have no distance."""


@dataclass(frozen=True)
class Comparison:
    """The answer of `compare`."""

    spec: pd.DataFrame
    """Columns field, a, b: the fields in which the specs differ, except name and `run`, and input files with other contents."""
    matched_by: list[str]
    """The columns by which items were matched."""
    items: dict[str, int]
    """Number of items in "both" stores, only in "a", only in "b"."""
    results: pd.DataFrame
    """One row per result that both stores have: items compared, items that differ, and the maximum and median
    over items of max |a - b|, which is infinite if only one of two values is NaN."""
    changed: pd.DataFrame
    """The items whose status or outcome differs: their ids, matching columns, and both values."""
    notes: list[str] = field(default_factory=list)
    """Further remarks about the results."""


def compare(a: Store, b: Store) -> Comparison:
    """Compare two stores, of the same job or of different jobs.

    >>> from jobs.store.store import Store
    >>> store = Store.open("points.zarr")
    >>> comparison = compare(store, store)
    >>> comparison.items["a"], comparison.results["differ"].sum()
    (0, np.int64(0))

    Raises JobError if one of them has no computed item.
    """
    return ask(
        a, lambda of_a: ask(b, lambda of_b: _compare((a, b), (of_a["items"], of_b["items"])))
    )


def _compare(stores: tuple[Store, Store], tables: tuple[Table, Table]) -> Comparison:
    for store, table in zip(stores, tables, strict=True):
        if table.n == 0:
            raise JobError(f"{store.address}: {nothing_yet([store])}")
    if len({store.job.spec.kernel for store in stores}) > 1:
        alone = {side: table.n for side, table in zip("ab", tables, strict=True)}
        none = pd.DataFrame(columns=RESULT_COLUMNS), pd.DataFrame()
        return Comparison(_specs(*stores), [], {"both": 0, **alone}, *none)
    keys: dict[str, list[Column]] = {}
    swept = dict.fromkeys(name for store in stores for name in store.swept)
    for name in swept:
        values = [_key(store, table, name) for store, table in zip(stores, tables, strict=True)]
        present = [value for value in values if value is not None]
        if len(present) == len(stores):
            keys[name] = present
    rows = _match(keys, [table.n for table in tables])
    both = pd.DataFrame(
        {
            f"{name} {side}": as_array(table.read(name, matched))
            for side, table, matched in zip("ab", tables, rows, strict=True)
            for name in ("item", "group", "row", *CODED)
            if name in table.names
        }
    )
    for name in keys:
        table, matched = next(
            pair for pair in zip(tables, rows, strict=True) if name in pair[0].names
        )
        both[name] = as_array(table.read(name, matched))
    alone = {side: table.n - len(both) for side, table in zip("ab", tables, strict=True)}
    coded = [name for name in CODED if {f"{name} a", f"{name} b"} <= {*both}]
    differs = np.any([both[f"{name} a"] != both[f"{name} b"] for name in coded], axis=0)
    columns = ["item a", "item b", *keys, *(f"{name} {side}" for name in coded for side in "ab")]
    changed, n = both.loc[differs, columns].reset_index(drop=True), {"both": len(both), **alone}
    failed = (both["status a"] == "failed") | (both["status b"] == "failed")
    notes = [
        *filter(None, [left_out(int(failed.sum()))]),
        *_draws(stores, both),
        *_roundings(stores),
    ]
    return Comparison(_specs(*stores), list(keys), n, _results(stores, both), changed, notes)


def _draws(stores: Sequence[Store], both: pd.DataFrame) -> list[str]:
    """A sentence if items in both have other numbers in b, and so other random draws, also with one seed."""
    described = stores[0].description
    is_drawn = described.draws or "seed" in described.fields
    moved = int((both["item a"] != both["item b"]).sum()) if is_drawn else 0
    sentence = f"{count(moved, 'pair')} of other item numbers: their random draws differ, also with one seed"
    return [sentence] * bool(moved)


def _roundings(stores: Sequence[Store]) -> list[str]:
    """A sentence if the stores were computed in other microbatches, which decide the rounding."""
    markers = [store.committed.markers() for store in stores]
    # Without an advance nothing was computed, and the marker may have none.
    a, b = (sorted({m.layout.microbatch for m in part if m.longest_s}) for part in markers)
    texts = [" or ".join(map(str, widths)) for widths in (a, b)]
    sentence = f"computed in microbatches of {texts[0]} and of {texts[1]}: rounding may differ"
    return [sentence] * bool(a and b and a != b)


def _specs(a: Store, b: Store) -> pd.DataFrame:
    """The fields in which the specs differ. A parameter that a job does not give has the kernel's default, or is swept."""
    rows = []
    differences = differing(a.job.spec, b.job.spec, {"name", "run"})
    for path, *values in sorted(differences, key=lambda entry: entry.path != "kernel"):
        name = path.removeprefix("params.")
        if name != path:
            pairs = zip((a, b), values, strict=True)
            values = [_in_use(store, name) if v == NOT_GIVEN else v for store, v in pairs]
        if values[0] != values[1]:
            rows.append((path, *values))
    # A default may follow from other fields, as the dtype of a ridge readout does.
    ours, theirs = (attributes(store.results(0))["params"] for store in (a, b))
    listed = {entry.path.removeprefix("params.").partition(".")[0] for entry in differences}
    for name in sorted((ours.keys() & theirs.keys()) - listed - {*a.swept, *b.swept}):
        if a.job.spec.kernel == b.job.spec.kernel and ours[name] != theirs[name]:
            rows.append((f"params.{name}", _in_use(a, name), _in_use(b, name)))
    # One name, two contents: of a file that was replaced between the runs.
    for name, version in a.job.inputs.items():
        other = b.job.inputs.get(name, version)
        if other != version:
            rows.append((f"content of {name}", version[-12:], other[-12:]))
    return pd.DataFrame(rows, columns=["field", "a", "b"])


def _in_use(store: Store, name: str) -> Any:
    """The value of a parameter that the job does not give."""
    if name in store.swept:
        return "(swept)"
    value = _of_all(store, name)
    return "none" if value is None else value


def _of_all(store: Store, name: str) -> Any:
    """The value of a field that all items of a store share; NOT_GIVEN if its kernel has no such field."""
    return inner(attributes(store.results(0))["params"], name, default=NOT_GIVEN)


# --- which items are the same ---------------------------------------------------------------------


def _key(store: Store, table: Table, name: str) -> Column | None:
    """The value of a field for each item; None if the store's kernel has no such field."""
    if name in table.names:
        return _alike(table.read(name))
    value = _of_all(store, name)
    if value is NOT_GIVEN:
        # A replicate number is not a field: without replicates every item is the first one.
        return np.zeros(table.n) if name == "seed" else None
    if isinstance(value, list | dict | None):
        value = str(value)
    return _alike(as_column(np.repeat(np.asarray(value)[None], table.n)))


def _alike(column: Column) -> Column:
    """A column in the form that stores are compared in: numbers rounded, lists spelt in one way."""
    if not isinstance(column, Text):
        if column.dtype.kind != "f":
            return column
        with np.errstate(all="ignore"):  # to 12 significant digits
            scale = 10.0 ** (11 - np.floor(np.log10(np.abs(column))))
            rounded = np.round(column * scale) / scale
        return np.where(np.isfinite(rounded), rounded, column)
    return Text(column.codes, np.asarray([_spelt(label) for label in column.labels], object))


def _spelt(label: str) -> str:
    values = literal(label)
    if not isinstance(values, list):
        return label
    return as_text([float(f"{v:.12g}") if isinstance(v, float) else v for v in values])


def _match(keys: dict[str, list[Column]], sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a and of b that match; if several items have equal keys, the k-th matches the k-th."""
    # By number: a field may be called `row`.
    columns: dict[Any, np.ndarray] = {
        k: sort_key(concat(values)) for k, values in enumerate(keys.values())
    }
    frame = pd.DataFrame({**columns, "side": np.repeat([0, 1], sizes)})
    frame["nth"] = frame.groupby(list(frame), sort=False, dropna=False).cumcount()
    frame["row"] = np.concatenate([np.arange(n) for n in sizes])
    a, b = (frame[frame["side"] == side] for side in (0, 1))
    both = a.merge(b, on=[*columns, "nth"])
    return both["row_x"].to_numpy(), both["row_y"].to_numpy()


# --- how far results lie apart --------------------------------------------------------------------


RESULT_COLUMNS = ["result", "items", "differ", "max |a-b|", "median |a-b|", "note"]


def _results(stores: Sequence[Store], both: pd.DataFrame) -> pd.DataFrame:
    """One row per result that both stores have, over the items that both computed, including those a search dropped."""
    both_computed = both["status a"].isin(WITH_RESULTS) & both["status b"].isin(WITH_RESULTS)
    apart: dict[str, list[np.ndarray]] = {}
    unlike: set[str] = set()
    for groups, items in both[both_computed].groupby(["group a", "group b"]):
        rows = items["row a"].to_numpy(), items["row b"].to_numpy()
        has = [set(store.names(group)) for store, group in zip(stores, groups, strict=True)]
        for name in set.intersection(*has):
            x, y = (store.array(group, name) for store, group in zip(stores, groups, strict=True))
            if x.shape[1:] != y.shape[1:]:
                unlike.add(name)
                continue
            size = max(1, math.prod(x.shape[1:]) * x.dtype.itemsize)
            step = max(1, BLOCK_BYTES // size)
            for start in range(0, len(items), step):
                a, b = (side_rows[start : start + step] for side_rows in rows)
                distances = _distance(
                    np.asarray(x.oindex[a]), np.asarray(y.oindex[b]), name in CODED
                )
                apart.setdefault(name, []).append(distances)
    table = []
    for name in sorted(apart.keys() | unlike):
        distances = np.concatenate(apart.get(name, [np.zeros(0)]))
        largest, half = (
            (distances.max(), np.median(distances)) if len(distances) else (np.nan, np.nan)
        )
        note = "shapes differ" if name in unlike else ""
        if np.isinf(largest):
            note = "inf: NaN or infinite in one alone"
        table.append((name, len(distances), np.count_nonzero(distances), largest, half, note))
    return pd.DataFrame(table, columns=RESULT_COLUMNS)


def _distance(x: np.ndarray, y: np.ndarray, coded: bool) -> np.ndarray:
    """The distance max |x - y| of each item, (n,); for codes 1 if they differ, else 0."""
    if coded:
        return (x != y).astype(float)
    wide = np.complex128 if "c" in x.dtype.kind + y.dtype.kind else np.float64
    x, y = x.astype(wide), y.astype(wide)
    with np.errstate(invalid="ignore"):
        apart = np.abs(x - y)
    # Equal infinities, or two NaNs, are distance 0; a NaN and a number are infinitely far apart.
    apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, apart)
    apart = np.where(np.isnan(apart), np.inf, apart)
    return apart.reshape(len(x), -1).max(axis=1, initial=0.0)
