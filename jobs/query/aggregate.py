"""Aggregates over rows, as in `median(q), mean(outcome == 'trained'), q95(seconds), count`.

count            number of rows; count(x): of the rows where x is not missing
mean             of a condition: the fraction of rows that satisfy it; one on NaN is false
median std min max sum
sem              standard error of the mean: std / sqrt(number of rows), NaN for one row
quantile(x, p)   the p-quantile, interpolated linearly between rows
q05(x)           the same, with p in hundredths
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctd.words import brief
from jobs.errors import JobError, nearest
from jobs.query.columns import Column, Text, as_array, categories
from jobs.query.expression import Expression, fault, parse
from jobs.query.table import Table

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUPS = 3
"""Most groups that a note names."""

FUNCTIONS = ("count", "mean", "median", "std", "sem", "min", "max", "sum", "quantile")


class Aggregate(NamedTuple):
    """One aggregate."""

    label: str
    """The aggregate as text, the name of its column."""
    function: str
    argument: Expression | None = None
    """The expression inside the parentheses; None for a plain `count`."""
    shares: tuple[float, ...] = ()
    """p of a quantile, from 0 to 1."""


def parse_aggregates(text: str) -> list[Aggregate]:
    """Parse a list of aggregates such as 'median(q), q95(seconds)'.

    >>> [(a.label, a.function) for a in parse_aggregates("count, q95(seconds)")]
    [('count', 'count'), ('q95(seconds)', 'quantile')]

    Raises JobError if the text cannot be parsed; the message shows where.
    """
    text, tree = parse(text)
    parts = tree.elts if isinstance(tree, ast.Tuple) else [tree]
    return [_aggregate(text, part) for part in parts]


def canonical(label: str) -> str:
    """The column name of an aggregate, with its spacing normalized; other texts unchanged."""
    try:
        return ast.unparse(ast.parse(label, mode="eval"))
    except (SyntaxError, ValueError):
        return label


def _aggregate(text: str, node: ast.expr) -> Aggregate:
    label = ast.unparse(node)
    build = lambda function, argument, *shares: Aggregate(
        label, function, Expression(ast.unparse(argument)), shares
    )
    match node:
        case ast.Name(id="count"):
            return Aggregate(label, "count")
        case ast.Call(
            func=ast.Name(id="quantile"), args=[argument, ast.Constant(value=float(p) | int(p))]
        ):
            if not 0 <= p <= 1:
                raise fault(text, node, f"quantile of the share {p}; expected a number from 0 to 1")
            return build("quantile", argument, float(p))
        case ast.Call(func=ast.Name(id="quantile")):
            raise fault(text, node, "expected quantile(column, share), such as quantile(q, 0.9)")
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            if re.fullmatch(r"q\d\d", name):
                return build("quantile", argument, int(name[1:]) / 100)
            if name in FUNCTIONS:
                return build(name, argument)
            functions = [*FUNCTIONS, "q and two digits (q90)"]
            message = f"unknown function {name!r}{nearest(name, functions)}"
            raise fault(text, node, message)
    raise fault(text, node, "expected function(column), such as median(q)")


def aggregate(
    table: Table,
    rows: Any,
    group_by: Sequence[str],
    aggregates: Sequence[Aggregate],
    tell_failed: bool = False,
) -> "pd.DataFrame":
    """Aggregate rows of a table: one row for each combination of values of `group_by`, in ascending order.

    rows: the rows to aggregate. The columns are those of `group_by`, then one per aggregate. Without `group_by`
    there is one row. `attrs["notes"]` says how many values are NaN, which aggregates leave out, and with
    `tell_failed` how many are of failed and dropped items, which count.
    """
    import pandas as pd

    n = table.n if isinstance(rows, slice) else len(rows)
    columns, key_columns = table.view(rows), [table.read(name, rows) for name in group_by]
    if not n and not group_by:  # pandas makes no group of no rows
        none = {"count": 0}
        return pd.DataFrame({e.label: [none.get(e.function, np.nan)] for e in aggregates})
    keys = [_key(column) for column in key_columns] or [np.zeros(n, np.int8)]
    values = {e.label: _values(e, e.argument, columns, n) for e in aggregates if e.argument}
    frame = pd.DataFrame(values, pd.RangeIndex(n), copy=False)
    groups = frame.groupby(keys, dropna=False, observed=True)
    sizes = groups.size()
    answer_columns: dict[str, Any] = {}
    for k, (name, column) in enumerate(zip(group_by, key_columns, strict=True)):
        kind = object if isinstance(column, Text) else column.dtype
        answer_columns[name] = sizes.index.get_level_values(k).to_numpy().astype(kind)
    for e in aggregates:
        # The sum of no values is missing, as their mean is.
        options = {"min_count": 1} if e.function == "sum" else {}
        answer = getattr(groups[e.label], e.function)(*e.shares, **options) if e.argument else sizes
        answer_columns[e.label] = np.asarray(answer)
    answers = pd.DataFrame(answer_columns)
    # A count says how many values are not missing.
    numbers = {
        e.argument.text: values[e.label] for e in aggregates if e.argument and e.function != "count"
    }
    isnan = {text: np.isnan(v) for text, v in numbers.items() if v.dtype.kind in "fc"}
    notes = [
        f"{text}: {nan.sum():,} of {n:,} NaN left out" for text, nan in isnan.items() if nan.any()
    ]
    if tell_failed and "status" in table.names:
        notes += _failed(columns, aggregates, isnan, keys, answers[[*group_by]], sizes)
    answers.attrs["notes"] = notes
    return answers


def _failed(
    columns: Mapping[str, Column],
    aggregates: Sequence[Aggregate],
    isnan: Mapping[str, np.ndarray],
    keys: Sequence[Any],
    groups: "pd.DataFrame",
    sizes: Any,
) -> list[str]:
    """Say how many failed and dropped items the aggregates count, and in which groups. An aggregate of status or outcome needs no such
    note.

    isnan: expression of real or complex numbers -> which of its values are NaN. keys: by which rows are grouped. groups, sizes:
    the values and the number of rows of each group.
    """
    import pandas as pd

    status = columns["status"]
    none = np.zeros(len(status), bool)
    missing = [
        isnan.get(e.argument.text, none)
        for e in aggregates
        if e.argument and e.function != "count" and not {"status", "outcome"} & {*e.argument.names}
    ]
    if not missing or not isinstance(status, Text):
        return []
    fails = status.map(("failed", "dropped").__contains__) & ~np.all(missing, axis=0)
    if not fails.any():
        return []
    failed = pd.Series(fails).groupby(keys, dropna=False, observed=True).sum().to_numpy()
    having = np.flatnonzero(failed)
    parts = [
        f"{failed[k]:,} of {sizes.iloc[k]:,} in "
        + ", ".join(f"{name} {brief(groups[name].iloc[k])}" for name in groups)
        for k in having[:MOST_GROUPS]
    ]
    more = f" and {len(having) - MOST_GROUPS:,} more groups" * (len(having) > MOST_GROUPS)
    groups_text = f": {', '.join(parts)}{more}" if len(groups.columns) else ""
    outcomes = columns["outcome"][fails] if "outcome" in columns else np.zeros(0)
    texts = sorted({*as_array(outcomes)} - {"", "dropped"})
    ends = sorted({*as_array(status[fails])}, reverse=True)
    endings = " or ".join("were dropped" if end == "dropped" else end for end in ends)
    outcomes_text = f" ({', '.join(texts)})" * bool(texts)
    counted = (
        f"{failed.sum():,} of {sizes.sum():,} counted items {endings}{outcomes_text}{groups_text}"
    )
    return [f"{counted}; --where \"status == 'done'\" leaves them out"]


def _key(column: Column) -> "np.ndarray | pd.Index":
    """The column as pandas can group by it: it has no index of float16, no order of complex numbers, and may take a list of
    Categoricals for labels."""
    import pandas as pd

    key = categories(column)
    if not isinstance(key, np.ndarray):
        # A missing text comes last, as a missing number does.
        labels = sorted(key.categories, key=lambda label: label == "")
        return pd.CategoricalIndex(key.reorder_categories(labels))
    if key.dtype.kind == "c":
        ordered, codes = np.unique(key, return_inverse=True)
        return pd.CategoricalIndex(pd.Categorical.from_codes(codes, ordered))
    return key.astype(np.float32) if key.dtype == np.float16 else key


def _values(
    entry: Aggregate, argument: Expression, columns: Mapping[str, Column], n: int
) -> np.ndarray:
    """The values (n,) that an aggregate works on. Raises JobError for texts, which only count works on."""
    values = argument(columns)
    if isinstance(values, str | Text):
        if entry.function != "count":
            raise JobError(f"{entry.label}: its values are texts; only count works on texts")
        if isinstance(values, Text):
            values = np.where(values.map(bool), 1.0, np.nan)
    values = np.broadcast_to(np.asarray(values), n)
    if values.dtype.kind == "c" and entry.function not in ("count", "mean", "sum"):
        raise JobError(f"{entry.label}: its values are complex; aggregate abs(...) of them")
    return values.astype(np.int64) if values.dtype.kind == "b" else values
