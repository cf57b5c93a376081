"""Helpers that reductions and pictures share: rows in blocks, rows grouped by equal values, the best rows, the option `n_best`, a table as text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, Field

from ctd.plots import Group
from ctd.words import brief


class Best(BaseModel, frozen=True, extra="forbid"):
    """Settings of a reduction that lists the best items."""

    n_best: int = Field(10, gt=0, description="items in the table, the best first")


type Columns = Mapping[str, np.ndarray]
"""Name -> (row, ...) values: fields or results of a group, a row for each item, or what a reduction made of them."""


MAX_ROWS = 20
"""Most rows of a table as text."""


def ranked(results: Columns, name: str, more_is_better: bool = False) -> np.ndarray:
    """The rows of the items whose outcome is the first of their kernel's, the best value of result `name` first, NaN last.

    >>> ranked({"loss": np.array([2.0, 1.0, 0.5]), "outcome": np.array([0, 0, 1])}, "loss").tolist()
    [1, 0]
    """
    fine = np.flatnonzero(np.asarray(results["outcome"][:]) == 0)
    values = np.asarray(results[name][:], float)[fine]
    return fine[np.argsort(-values if more_is_better else values, kind="stable")]


def best_row(group: Group, name: str, more_is_better: bool = False) -> tuple[int, int] | None:
    """(row, item) of the first row of `ranked`; None if none has a finite value."""
    first = ranked(group.results, name, more_is_better)[:1]
    if not np.isfinite(group.values(name)[first]).any():
        return None
    return int(first[0]), int(group.items[first[0]])


def blocks(values: Columns, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """Iterate over blocks of rows of the results `names`, in order.

    The results of a store have a method `blocks`, which reads some rows at a time; arrays come in one block.

    >>> [block["x"].tolist() for block in blocks({"x": np.arange(3), "y": np.ones(3)}, ["x"])]
    [[0, 1, 2]]
    """
    read = getattr(values, "blocks", None)
    if read is not None:
        yield from read(names)
    else:
        yield {name: np.asarray(values[name]) for name in names}


PART = 2**20
"""Rows of a column that are read at once."""


def combinations(columns: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by their combinations of values, in order of appearance.

    Args:
        columns: (n, ...) each; a row with further axes is compared as a whole.
        n: number of rows.

    Returns:
        ((combination,) first row of each, (n,) the number of each row's combination), both int32.

    >>> first, of_row = combinations([np.array([5, 5, 2, 5]), np.array([0, 1, 0, 0])], 4)
    >>> first.tolist(), of_row.tolist()
    ([0, 1, 2], [0, 1, 2, 0])
    """
    codes, most = np.zeros(n, np.int32), max(4 * n, 1 << 16)
    for values in columns:
        is_code = values.ndim == 1 and values.dtype.kind in "iu"
        if not is_code or values.min(initial=0) < 0 or values.max(initial=0) >= most:
            values = np.unique(values, axis=0, return_inverse=True)[1].ravel()
        k = int(values.max(initial=0)) + 1
        size = k * (int(codes.max(initial=0)) + 1)
        # Renumbered from 0: codes stay below n, so that the next product cannot overflow.
        if size <= most:  # by a table, without a sort
            codes = codes * np.int32(k) + values.astype(np.int32)
            is_used = np.zeros(size, bool)
            is_used[codes] = True
            codes = (np.cumsum(is_used, dtype=np.int32) - 1)[codes]
        else:
            codes = np.unique(codes.astype(np.int64) * k + values, return_inverse=True)[1].astype(
                np.int32
            )
    first = first_rows(codes, int(codes.max(initial=-1)) + 1)
    order = np.argsort(first)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    return first[order], place[codes]


def first_rows(codes: np.ndarray, k: int) -> np.ndarray:
    """The first row that has each of the codes 0 to k - 1, (k,) int32; 0 of a code that none has.

    >>> first_rows(np.array([1, 0, 1]), 2).tolist()
    [1, 0]
    """
    first = np.zeros(k, np.int32)
    # The loop runs from the last row on, so that the first row of a code is written last; parts bound the memory.
    for stop in range(len(codes), 0, -PART):
        some = np.arange(stop - 1, max(0, stop - PART) - 1, -1)
        first[codes[some]] = some
    return first


def alike(
    rows: Iterable[int], is_like: Callable[[int, int], bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Group rows: each joins the first group whose first row it is like, or begins a group.

    is_like: (row, first row of a group) -> whether it joins.

    Returns ((group,) first row of each, the number of each row's group).

    >>> x = [0.0, 5.0, 0.1]
    >>> first, of_row = alike(range(3), lambda row, other: abs(x[row] - x[other]) < 1)
    >>> first.tolist(), of_row.tolist()
    ([0, 1], [0, 1, 0])
    """
    first: list[int] = []
    of_row = []
    for row in rows:
        group = next((k for k, other in enumerate(first) if is_like(row, other)), len(first))
        if group == len(first):
            first.append(row)
        of_row.append(group)
    return np.asarray(first, int), np.asarray(of_row, int)


def lines_of(columns: Columns) -> list[str]:
    """The first rows of columns of equal lengths, aligned, under their names.

    >>> lines_of({"q": np.array([0.0, 1 / 3]), "kind": np.array(["slow", "fixed"])})
    ['     q   kind', '     0   slow', '0.3333  fixed']
    """
    rows = zip(*(values[:MAX_ROWS] for values in columns.values()), strict=True)
    cells = [list(columns), *([*map(brief, row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.rjust(n) for text, n in zip(row, widths, strict=True)) for row in cells]
    more = max(map(len, columns.values()), default=0) - MAX_ROWS
    return [*lines, f"... {more} more"] if more > 0 else lines
