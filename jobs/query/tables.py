"""The tables of a store, whose columns are read when they are named, and kept.

items       one row an item: sweep columns, status, outcome, scalar results
shards      one row a shard: where and how long it ran
an axis     one for each axis that leads the kernel's reduced values, named by it (say `fixed_point`),
            with the rows of all groups
a reduction one for each of the job's further reductions (jobs.reduce.tables), by its name
search      one row an item and generation or rung of the job's search     (jobs.query.search_table)
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import obstore
import zarr

from jobs import keys
from jobs.errors import JobError, nearest
from jobs.gather.gather import reduction_tables, require_rows
from jobs.query.columns import Column, as_array
from jobs.query.readers import ALL, Columns, Rows, child, reduced, stored, vectors
from jobs.query.search_table import search_columns
from jobs.spec.search import SEARCH_TABLE
from jobs.storage.objects import is_storage_error
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1 << 22
"""Rows that are looked at together: whole chunks of a column, and no more memory for a longer table."""

FEW = 1000
"""One row of so many is read without keeping the whole column, at half the time."""

READERS = 8
"""Columns that are read at a time: two cores decode, or an object store is waited for."""


class Table:
    """One table. `read` gives some rows of a column, `frame` of several."""

    def __init__(self, name: str, columns: Columns) -> None:
        self.name = name
        self.axis, self.n, self._reads, self.shown = columns
        self._kept: dict[str, Column] = {}
        self._picked: dict[str, tuple[np.ndarray, Column]] = {}

    @property
    def names(self) -> list[str]:
        """Every column that an expression may name."""
        return list(self._reads)

    def read(self, name: str, rows: Rows = ALL) -> Column:
        """Some rows of a column, by their slice or numbers.

        A column of a short table is read whole and kept; but the first few rows that are asked of it are
        read alone, since most columns are only shown, and of most stores one question is asked.
        """
        if name not in self._reads:
            raise JobError(f"unknown column {name!r}{nearest(name, self._reads)}")
        if self.n > BLOCK:
            return self._reads[name](rows)
        if name not in self._kept:
            if isinstance(rows, np.ndarray) and len(rows) * FEW < self.n:
                first, found = self._picked.get(name, (rows, None))
                if found is None:
                    found = self._reads[name](rows)
                    self._picked[name] = rows, found
                if np.array_equal(first, rows):
                    return found
            self._kept[name] = self._reads[name](ALL)
        kept = self._kept[name]
        return kept if rows is ALL else kept[rows]

    def prefetch(self, names: Iterable[str], rows: Rows = ALL) -> None:
        """Read columns of a short table side by side, as far as `read` keeps them."""
        unread = [name for name in dict.fromkeys(names) if name not in self._kept]
        if self.n <= BLOCK and len(unread) > 1:
            with ThreadPoolExecutor(READERS) as threads:
                list(threads.map(lambda name: self.read(name, rows), unread))

    def pieces(self) -> Iterator[tuple[int, int, Rows]]:
        """(first row, row after the last, the rows to read) of what is looked at together."""
        if self.n <= BLOCK:
            yield 0, self.n, ALL
            return
        for start in range(0, self.n, BLOCK):
            stop = min(start + BLOCK, self.n)
            yield start, stop, slice(start, stop)

    def frame(self, names: Sequence[str] = (), rows: Rows = ALL) -> "pd.DataFrame":
        """Columns (by default those shown) as a pandas frame."""
        import pandas as pd

        names = names or self.shown
        self.prefetch(names, rows)
        return pd.DataFrame({name: as_array(self.read(name, rows)) for name in names})


class View(Mapping[str, Column]):
    """The columns of some rows of a table, by name, each read when it is asked for."""

    def __init__(self, table: Table, rows: Rows) -> None:
        self._table, self._rows = table, rows

    def __getitem__(self, name: str) -> Column:
        return self._table.read(name, self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._table.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names)

    def __len__(self) -> int:
        return len(self._table.names)


class Tables:
    """The tables of one store, as they are at the time of asking."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._stamp: Any = None
        self._tables: dict[str, Table] = {}
        self._root: zarr.Group | None = None

    def refresh(self) -> None:
        """Gather what was committed since the last time, and forget what was read before that."""
        try:
            require_rows(self.store)
        except Exception as error:
            if not (is_storage_error(error) or isinstance(error, PermissionError)):
                raise
            # Someone else's store: what it was gathered to is all there is.
            if "items" not in self.store.root:
                raise JobError(
                    f"{self.store.address}: has not been gathered, and cannot be written from here; "
                    "whoever may write to it runs `ctd gather`"
                ) from None
        stamp = self._written()
        if stamp is None or stamp != self._stamp:
            self._tables.clear()
            # One read of the consolidated metadata in place of one for each array.
            self._root = zarr.open_group(zarr.storage.ObjectStore(self.store.objects), mode="r")
            self._stamp = stamp

    def is_current(self) -> bool:
        """Whether nothing has been gathered since `refresh`."""
        return self._written() == self._stamp

    def _written(self) -> Any:
        """When the tables were written; None while they are. Gather deletes it first and writes it last."""
        try:
            found = obstore.head(self.store.objects, keys.sums("gathered"))
        except FileNotFoundError:
            return None
        return found["e_tag"], found["last_modified"]

    @property
    def root(self) -> zarr.Group:
        """The Zarr hierarchy, its metadata read at the last `refresh`."""
        assert self._root is not None
        return self._root

    def groups(self) -> list[tuple[int, zarr.Group]]:
        """The groups that something was reduced of."""
        numbers = range(len(self.store.job.plan.group_sizes))
        paths = {g: f"gathered/{g}" for g in numbers}
        return [(g, child(self.root, path)) for g, path in paths.items() if path in self.root]

    def names(self) -> list[str]:
        """The tables, `items` first."""
        kernel = self.store.kernel
        axes = [var.axes[0] for var in kernel.reduced.values() if var.axes]
        for _, group in self.groups():
            axes += [dims[0] for name, dims in vectors(group) if name != dims[0]]
        searched = [SEARCH_TABLE] if self.store.job.spec.search else []
        return list(
            dict.fromkeys(["items", *axes, *reduction_tables(self.store), *searched, "shards"])
        )

    def __getitem__(self, name: str) -> Table:
        """One table; JobError, with the nearest name, where there is none so called."""
        if name not in self._tables:
            if name in ("items", "shards"):
                found = stored(child(self.root, name), name.removesuffix("s"))
            elif name in (further := reduction_tables(self.store)):
                found = stored(child(self.root, further[name]), name)
            elif name == SEARCH_TABLE and (search := self.store.job.spec.search):
                items = self["items"]
                places = (as_array(items.read(column)) for column in ("item", "group", "row"))
                found = search_columns(self.store, search, *places)
            elif name in self.names():
                found = reduced(self.groups(), name)
            elif name == SEARCH_TABLE:
                raise JobError(f"table {name!r}: this job has no search (docs/search.md)")
            else:
                raise JobError(f"table {name!r} unknown{nearest(name, self.names())}")
            self._tables[name] = Table(name, found)
        return self._tables[name]


_OPENED: WeakKeyDictionary[Store, Tables] = WeakKeyDictionary()

ATTEMPTS, WAIT_S = 20, 0.25


def ask[T](store: Store, question: Callable[[Tables], T]) -> T:
    """The answer of the store's tables, up to date; what is read of them is kept as long as it is open.

    Another process may gather meanwhile, and a chunk that it has just deleted reads as fill values: an
    answer counts only if the tables are the same after it.
    """
    tables = _OPENED.setdefault(store, Tables(store))
    for _ in range(ATTEMPTS):
        tables.refresh()
        try:
            answer = question(tables)
        except Exception:
            if tables.is_current():
                raise
        else:
            if tables.is_current():
                return answer
        time.sleep(WAIT_S)
    raise JobError(f"{store.address}: is gathered by another process; ask again in a moment")
