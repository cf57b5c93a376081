"""Aggregates over rows, as in `median(q), mean(outcome == 'trained'), q95(seconds), count`.

count            number of rows; count(x): of the rows where x is not missing
mean             of a condition: the fraction of rows that satisfy it
median std min max sum
quantile(x, p)   the p-quantile, interpolated linearly between rows
q05(x)           the same, with p in hundredths
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jobs.errors import JobError, nearest
from jobs.query.columns import Codes, Column, Text, factorize_rows
from jobs.query.expression import Expression, fault, parse
from jobs.query.tables import Table

if TYPE_CHECKING:
    import pandas as pd

FUNCTIONS = ("count", "mean", "median", "std", "min", "max", "sum", "quantile")


class Aggregate(NamedTuple):
    """One aggregate."""

    label: str
    """The aggregate as text, the name of its column."""
    function: str
    of: Expression | None
    """The expression inside the parentheses; None for a plain `count`."""
    share: float = np.nan
    """p of a quantile, from 0 to 1."""


def parse_aggregates(text: str) -> list[Aggregate]:
    """Parse a list of aggregates such as 'median(q), q95(seconds)'.

    >>> [(a.label, a.function) for a in parse_aggregates("count, q95(seconds)")]
    [('count', 'count'), ('q95(seconds)', 'quantile')]

    Raises:
        JobError: the text cannot be parsed; the message shows where.
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
    match node:
        case ast.Name(id="count"):
            return Aggregate(label, "count", None)
        case ast.Call(
            func=ast.Name(id="quantile"), args=[of, ast.Constant(value=float(p) | int(p))]
        ):
            if not 0 <= p <= 1:
                raise fault(text, node, f"quantile of the share {p}; expected a number from 0 to 1")
            return Aggregate(label, "quantile", Expression(text, of), float(p))
        case ast.Call(func=ast.Name(id="quantile")):
            raise fault(text, node, "expected quantile(column, share), such as quantile(q, 0.9)")
        case ast.Call(func=ast.Name(id=name), args=[of], keywords=[]):
            if re.fullmatch(r"q\d\d", name):
                return Aggregate(label, "quantile", Expression(text, of), int(name[1:]) / 100)
            if name in FUNCTIONS:
                return Aggregate(label, name, Expression(text, of))
            raise fault(
                text, node, f"unknown function {name!r}{nearest(name, [*FUNCTIONS, 'q05', 'q95'])}"
            )
    raise fault(text, node, "expected function(column), such as median(q)")


def aggregate(
    table: Table, rows: Any, group_by: Sequence[str], wanted: Sequence[Aggregate]
) -> "pd.DataFrame":
    """Aggregate rows of a table: one row for each combination of values of `group_by`, in ascending order.

    rows: the rows to aggregate. The columns are those of `group_by`, then one per aggregate. Without `group_by`
    there is one row.
    """
    import pandas as pd

    keys = [table.read(name, rows) for name in group_by]
    columns = table.view(rows)
    n = table.n if isinstance(rows, slice) else len(rows)
    # Group by the number of each row's combination, so that pandas never hashes a million texts.
    codes = [table.factorized(name, key, rows) for name, key in zip(group_by, keys, strict=True)]
    which, first = _combinations(codes, n)
    grouped = {name: _at(key, first) for name, key in zip(group_by, keys, strict=True)}
    found = {
        entry.label: np.bincount(which, minlength=len(first))
        for entry in wanted
        if entry.of is None
    }
    values = {e.label: _values(e, e.of, columns, n) for e in wanted if e.of is not None}
    by_combination = pd.DataFrame(values, pd.RangeIndex(n), copy=False).groupby(which)
    for entry in wanted:
        if entry.of is not None:
            share = [entry.share] if entry.function == "quantile" else []
            found[entry.label] = getattr(by_combination[entry.label], entry.function)(*share)
    return pd.DataFrame(grouped | {e.label: np.asarray(found[e.label]) for e in wanted})


def _combinations(keys: Sequence[Codes], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the combinations in ascending order: (the number of each row's, the first row of each)."""
    if not keys:
        return np.zeros(n, np.int64), np.zeros(min(n, 1), np.int64)
    label = factorize_rows(keys, n, rising=True)
    # Assign in reverse, so that the first row of each combination is written last.
    first = np.full(int(label.max()) + 1 if n else 0, 0)
    first[label[::-1]] = np.arange(n)[::-1]
    return label, first


def _at(column: Column, rows: np.ndarray) -> np.ndarray:
    return column[rows].array() if isinstance(column, Text) else column[rows]


def _values(entry: Aggregate, of: Expression, columns: Mapping[str, Column], n: int) -> np.ndarray:
    """The values (n,) that an aggregate works on. Raises JobError for texts, which only count works on."""
    values = of(columns)
    if isinstance(values, str | Text):
        if entry.function != "count":
            raise JobError(f"{entry.label}: its values are texts; only count works on texts")
        if isinstance(values, Text):
            values = np.where(values.map(bool), 1.0, np.nan)
    values = np.broadcast_to(np.asarray(values), n)
    return values.astype(np.int64) if values.dtype.kind == "b" else values
