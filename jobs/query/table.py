"""A table whose columns are read when they are needed.

A swept list `push` is a column of texts such as '[1, -1]', with further columns push[0], push[1]. A swept
mapping `task` has a column for each of its fields (task.name, task.n_steps); its name and the fields in
which its values differ are shown by default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from jobs.errors import JobError, nearest
from jobs.query.columns import (
    Column,
    Text,
    as_array,
    as_column,
    concat,
    labelled,
    literal,
    rows_as_text,
    sort_key,
)
from jobs.spec.job import leaves
from jobs.store.arrays import Lazy

Rows = slice | np.ndarray
Read = Callable[[Rows], Column]

ALL = slice(None)

BLOCK = 1 << 22
"""Rows processed together, which bounds memory. A longer table is read in blocks and not kept."""

FEW = 1000
"""If a question needs less than one row in this many, only those rows are read, which takes half the time."""

PICKS = 4
"""Most such reads of a column before it is read whole."""

READERS = 8
"""Columns read in parallel: enough to decode on two cores, or to wait for an object store."""


@dataclass(eq=False)
class Table:
    """One table. `add...` give it columns; `read` returns rows of one, `columns` of several."""

    n: int
    """Number of rows."""
    reads: dict[str, Read] = field(default_factory=dict)
    """Column -> function that reads given rows of it."""
    listed: list[str] = field(default_factory=list)
    """The columns that a query returns if it names none."""
    if_varied: tuple[str, ...] = ()
    """Those of `listed` that are left out where all rows are equal in them."""
    ids: str = ""
    """The column of item ids, if each row is about one item."""
    name: str = ""

    def __post_init__(self) -> None:
        self._cache: dict[str, Column] = {}
        self._picks = Counter[str]()

    @staticmethod
    def from_columns(columns: Mapping[str, Iterable[object] | Text]) -> Table:
        """The table of columns of equal lengths, all of which are shown."""
        converted = {name: as_column(values) for name, values in columns.items()}
        n = max(map(len, converted.values()), default=0)
        return Table(
            n, {name: column.__getitem__ for name, column in converted.items()}, list(converted)
        )

    @property
    def names(self) -> list[str]:
        """Every column, whether shown by default or not."""
        return list(self.reads)

    @cached_property
    def default_columns(self) -> list[str]:
        """The columns that a query returns if it names none, without those of `if_varied` that do not vary."""
        keys = {name: sort_key(self.read(name)) for name in self.if_varied}
        alike = {name for name, key in keys.items() if (key[1:] == key[:-1]).all()}
        return [name for name in self.listed if name not in alike]

    def read(self, name: str, rows: Rows = ALL) -> Column:
        """Some rows of a column. rows: a slice, or an array of row numbers.

        A column of a short table is read whole and kept. Only the first requests for few rows read just those rows:
        most columns are only shown, and most stores are asked few questions.

        Raises JobError if there is no such column.
        """
        if name not in self.reads:
            raise JobError(f"unknown column {name!r}{nearest(name, self.reads)}")
        if self.n > BLOCK:
            return self.reads[name](rows)
        if name not in self._cache:
            is_few = isinstance(rows, np.ndarray) and len(rows) * FEW < self.n
            if is_few and self._picks[name] < PICKS:
                self._picks[name] += 1
                return self.reads[name](rows)
            self._cache[name] = self.reads[name](ALL)
        column = self._cache[name]
        return column if rows is ALL else column[rows]

    def view(self, rows: Rows) -> Lazy[Column]:
        """Column -> these rows of it."""
        return Lazy(self.reads, lambda name: self.read(name, rows))

    def prefetch(self, names: Iterable[str]) -> None:
        """Read columns of a short table and keep them for `read`."""
        if self.n <= BLOCK:
            _in_parallel(self.read, [name for name in names if name not in self._cache])

    def blocks(self) -> Iterator[slice]:
        """The blocks of rows to process together, at least one."""
        for start in range(0, max(1, self.n), BLOCK):
            yield slice(start, min(start + BLOCK, self.n))

    def columns(
        self, names: Sequence[str] = (), rows: Rows = ALL, form: Callable[[Column], Any] = as_array
    ) -> dict[str, Any]:
        """Columns, by default those shown, as arrays or in another form."""
        names = names or self.default_columns
        columns = _in_parallel(lambda name: self.read(name, rows), names)
        return {name: form(column) for name, column in columns.items()}

    # --- its columns -------------------------------------------------------------------------------

    def add(self, name: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Add a column; if all its texts (`labels`) are mappings or lists, add their fields or elements too."""
        self.reads[name] = read
        parts = [literal(label) for label in labels]
        if parts and all(isinstance(part, dict) for part in parts):
            flat = [{f".{path}": v for path, v in leaves(part).items()} for part in parts]
        elif parts and all(isinstance(part, list) for part in parts):
            flat = [{f"[{k}]": v for k, v in enumerate(part)} for part in parts]
        else:
            self.listed += [name] * (name not in self.listed)
            return
        fields = {
            f: [part.get(f) for part in flat] for f in dict.fromkeys(f for p in flat for f in p)
        }
        for f, values in fields.items():
            self.reads.setdefault(f"{name}{f}", _by_label(read, labels, values))
        differing = [f for f, values in fields.items() if len({repr(v) for v in values}) > 1]
        subcolumns = [f"{name}{f}" for f in fields if f == ".name" or f in differing]
        self.listed += subcolumns if subcolumns and isinstance(parts[0], dict) else [name]

    def add_list(self, name: str, read: Read, k: int) -> None:
        """Add a column whose rows are lists of k numbers, and a column for each element."""
        self.reads[name] = lambda rows: rows_as_text(as_array(read(rows)))
        for j in range(k):
            self.reads[f"{name}[{j}]"] = lambda rows, j=j: as_array(read(rows))[:, j]  # type: ignore[misc]
        self.listed.append(name)

    def add_constants(self, name: str, values: list[object], index: np.ndarray) -> None:
        """Add a column with one value per group. index: (n,) the index into `values` for each row."""
        column = as_column([str(v) if isinstance(v, list | dict) else v for v in values])
        labels = [label for label in column.labels if label] if isinstance(column, Text) else []
        self.add(name, lambda rows: column[index[rows]], labels)


def _in_parallel(read: Callable[[str], Column], names: Iterable[str]) -> dict[str, Column]:
    different = list(dict.fromkeys(names))
    if len(different) < 2:  # a thread would take longer than most reads
        return {name: read(name) for name in different}
    with ThreadPoolExecutor(READERS) as threads:
        return dict(zip(different, threads.map(read, different), strict=True))


def _by_label(read: Read, labels: Sequence[str], values: Sequence[object]) -> Read:
    """The reader of a column derived from a text column: it has `values[k]` where the text is `labels[k]`."""
    place = {label: k for k, label in enumerate(labels)}
    column = as_column(values)

    def at(rows: Rows) -> Column:
        text = read(rows)
        assert isinstance(text, Text)
        # Every row has one of `labels`; the 0 for the final "" of text.labels is never used.
        index = np.asarray([place.get(label, 0) for label in text.labels])
        return column[index[text.codes]]

    return at


def end_to_end(tables: Sequence[Table]) -> Table:
    """The rows of several tables, one table after another.

    A table without a column has NaN there, or no text. Of each table only the rows that are asked for are read.
    """
    each = lambda names: list(dict.fromkeys(name for table in tables for name in names(table)))
    starts = np.cumsum([0, *(table.n for table in tables)])
    reads = {
        name: _joined([table.reads.get(name) for table in tables], starts)
        for name in each(lambda table: table.reads)
    }
    return Table(
        int(starts[-1]),
        reads,
        listed=each(lambda table: table.listed),
        if_varied=tuple(each(lambda table: table.if_varied)),
    )


def _joined(pieces: Sequence[Read | None], starts: np.ndarray) -> Read:
    """The reader of a column that is cut into pieces. pieces: their readers; None: without the column. starts: (piece + 1,) rows."""

    @cache
    def is_text() -> bool:
        return any(read and isinstance(read(slice(0, 0)), Text) for read in pieces)

    def part(read: Read | None, rows: Rows, n: int) -> Column:
        if read is None:
            return labelled(np.full(n, -1), []) if is_text() else np.full(n, np.nan)
        return read(rows)

    def at(rows: Rows) -> Column:
        in_a_row = isinstance(rows, slice) and rows.step is None
        row_numbers = np.arange(starts[-1])[rows] if isinstance(rows, slice) else rows
        piece_index = np.searchsorted(starts, row_numbers, side="right") - 1
        parts = []
        for k, read in enumerate(pieces):
            piece_rows = row_numbers[piece_index == k] - starts[k]
            # Only of no rows at all, each piece tells the kind of its values: NaN of no rows would make whole numbers real.
            if len(piece_rows) or not len(row_numbers):
                near = (
                    slice(piece_rows[0], piece_rows[-1] + 1)
                    if in_a_row and len(piece_rows)
                    else piece_rows
                )
                parts.append(part(read, near, len(piece_rows)))
        # From piece after piece into the order that was asked for.
        return concat(parts)[np.argsort(np.argsort(piece_index, kind="stable"))]

    return at
