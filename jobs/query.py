"""Query: tables of a store, filtered, sorted and grouped by column names.

A store has the table `items` (one row an item: sweep columns, status, outcome, scalar results), the
table `shards`, and one for each axis that leads the kernel's reduced values, named by the axis (say
`fixed_point`), with the rows of all groups.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import zarr

from jobs.arrays import attributes
from jobs.errors import JobError, nearest
from jobs.expression import Expression
from jobs.gather import require_rows
from jobs.store import Store

AGGREGATES = ("count", "mean", "median", "std", "min", "max", "sum")


def tables(store: Store) -> list[str]:
    """The names of the store's tables, `items` first."""
    axes = [var.axes[0] for var in store.kernel.reduced.values() if var.axes]
    return ["items", *dict.fromkeys(axes), "shards"]


def table(store: Store, name: str) -> pd.DataFrame:
    """One table with all its rows and one-dimensional columns; codes are shown as their names."""
    require_rows(store)
    if name in ("items", "shards"):
        return _frame(store.root[name], "item" if name == "items" else "shard")  # type: ignore[arg-type]
    if name not in tables(store):
        raise JobError(f"table {name!r} unknown{nearest(name, tables(store))}")
    parts = []
    for group in range(len(store.job.plan.group_sizes)):
        if f"gathered/{group}" not in store.root:
            continue
        here = store.root[f"gathered/{group}"]
        frame = _frame(here, name)  # type: ignore[arg-type]
        for key, value in reversed(attributes(here)["swept"].items()):
            frame.insert(
                0, key, [str(value) if isinstance(value, list | dict) else value] * len(frame)
            )
        frame.insert(0, "group", group)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _frame(group: zarr.Group, axis: str) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name, array in group.arrays():
        if array.metadata.dimension_names == (axis,):  # type: ignore[union-attr]
            columns[name] = decode(np.asarray(array[...]), attributes(array))
    # The row's number, then what was swept, then what came of it.
    swept = str(attributes(group).get("coordinates", "")).split()
    first = [name for name in [axis, *swept] if name in columns]
    return pd.DataFrame({name: columns[name] for name in [*first, *sorted(columns.keys() - first)]})


def decode(values: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """Codes with CF flags, or our labels, as their texts; other values as they are."""
    if "flag_values" not in attrs:
        return values
    texts = attrs.get("labels") or str(attrs["flag_meanings"]).split()
    names = dict(zip(attrs["flag_values"], texts, strict=True))
    return np.asarray([names.get(int(v), "") for v in values.ravel()], object).reshape(values.shape)


def query(
    store: Store,
    *,
    source: str | None = None,
    where: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    columns: Sequence[str] = (),
    group_by: Sequence[str] = (),
    agg: str | None = None,
) -> pd.DataFrame:
    """The rows of one table that satisfy `where`.

    Args:
        store: an opened store; it is gathered first if shards were committed since the last time.
        source: the table; by default the first that has every column named below.
        where: an expression (see jobs.expression).
        sort: a column, with `-` in front for falling order; several separated by commas.
        limit: at most so many rows.
        columns: which columns, in this order; by default all.
        group_by: with `agg`, one row for each combination of these columns.
        agg: for example "median(q), mean(seconds)"; functions: count mean median std min max sum.

    Raises:
        JobError: an unknown table or column (with the nearest), an expression that does not parse.
    """
    condition = Expression(where) if where else None
    keys = [key.strip() for key in sort.split(",")] if sort else []
    wanted = parse_aggregates(agg) if agg else []
    if bool(wanted) != bool(group_by):
        raise JobError("--group-by and --agg go together: name the columns and what to compute")
    named = {*(condition.names if condition else ()), *columns, *group_by, *(c for _, c in wanted)}
    if not wanted:
        named |= {key.lstrip("-") for key in keys}
    frame = _resolve(store, source, named)
    if condition is not None:
        frame = _filter(frame, condition)
    if wanted:
        frame = _aggregate(frame, group_by, wanted)
    for key in keys:
        if key.lstrip("-") not in frame:
            raise JobError(
                f"sort: unknown column {key.lstrip('-')!r}{nearest(key.lstrip('-'), frame)}"
            )
    if keys:
        rising = [not key.startswith("-") for key in keys]
        frame = frame.sort_values([k.lstrip("-") for k in keys], ascending=rising, kind="stable")
    if columns:
        frame = frame[list(columns)]
    return (frame if limit is None else frame.head(limit)).reset_index(drop=True)


def _resolve(store: Store, source: str | None, named: set[str]) -> pd.DataFrame:
    """The table asked for, or the first that has all the named columns."""
    candidates = [source] if source else tables(store)
    known: set[str] = set()
    for name in candidates:
        frame = table(store, name)
        if named <= set(frame.columns):
            return frame
        known |= set(frame.columns)
    missing = sorted(named - known) or sorted(named)
    raise JobError(f"unknown column {missing[0]!r}{nearest(missing[0], known)}")


def _filter(frame: pd.DataFrame, condition: Expression) -> pd.DataFrame:
    keep = condition({name: frame[name].to_numpy() for name in frame.columns})
    if np.shape(keep) != (len(frame),) or np.asarray(keep).dtype.kind != "b":
        raise JobError(f"{condition.text!r}: a condition (true or false for each row) expected")
    return frame[keep]


def parse_aggregates(text: str) -> list[tuple[str, str]]:
    """'median(q), mean(seconds)' -> [(median, q), (mean, seconds)]."""
    wanted = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\((\w[\w.]*)\)\s*", part)
        if match is None:
            raise JobError(f"--agg {part.strip()!r}: function(column) expected, as in median(q)")
        if match[1] not in AGGREGATES:
            raise JobError(f"--agg: unknown function {match[1]!r}{nearest(match[1], AGGREGATES)}")
        wanted.append((match[1], match[2]))
    return wanted


def _aggregate(
    frame: pd.DataFrame, group_by: Sequence[str], wanted: list[tuple[str, str]]
) -> pd.DataFrame:
    for function, column in wanted:
        if function != "count" and not pd.api.types.is_numeric_dtype(frame[column]):
            raise JobError(f"--agg {function}({column}): {column} is text; only count works on it")
    named = {f"{function}({column})": (column, function) for function, column in wanted}
    return frame.groupby(list(group_by), sort=True).agg(**named).reset_index()
