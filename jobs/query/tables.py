"""The tables of a store. A column is read when a query first names it, and then kept.

items       one row per item: sweep columns, status, outcome, scalar results
shards      one row per shard: where and how long it ran
AXIS        one table for each leading axis of the kernel's reduced values (say `fixed_point`) that has more
            columns than its coordinate, with the rows of all groups
REDUCTION   one table for each of the job's `reductions`, by its name             (jobs.gather.tables)
search      one row per item and generation, or rung, of the job's search
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import obstore

from jobs import keys
from jobs.errors import JobError, advised, count, nearest
from jobs.gather.gather import require_rows
from jobs.gather.tables import reduction_tables
from jobs.late import zarr
from jobs.query.readers import child, join_items, reduced, search_table, stored
from jobs.query.table import Table
from jobs.search import SEARCH_TABLE
from jobs.storage.addresses import is_zip, local_path
from jobs.storage.hierarchy import zarr_store
from jobs.storage.lease import drivers
from jobs.storage.objects import is_storage_error, list_keys
from jobs.store.advice import going_on
from jobs.store.arrays import attributes
from jobs.store.look import Look
from jobs.store.store import Store


class Source(ABC):
    """Tables that answer questions: those of one store (`Tables`), or of several (jobs.query.collection)."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores
        """The stores that are asked."""
        self._tables: dict[str, Table] = {}
        self._stamp: Any = None

    def refresh(self) -> Any:
        """Gather newly committed shards; if the tables changed, forget what was read. Returns the stamp of the tables.

        Raises JobError if a store was never gathered, and this process may not write to it.
        """
        stamp = self._gathered()
        if stamp is None or stamp != self._stamp:
            self._tables.clear()
        self._stamp = stamp
        return stamp

    def is_current(self) -> bool:
        """Return whether the tables are still those of the last `refresh`."""
        # Without a stamp the tables that were read may be half written, and nothing tells whether they still are.
        return self._stamp is not None and self.stamp() == self._stamp

    @abstractmethod
    def _gathered(self) -> Any:
        """Gather newly committed shards. Returns the stamp."""

    @abstractmethod
    def stamp(self) -> Any:
        """Equal as long as the tables are; None while they change."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the tables, `items` first and `shards` last."""

    @abstractmethod
    def _make_table(self, name: str) -> Table:
        """A table, of which nothing is read yet; JobError, with the nearest name, if there is none."""

    def __getitem__(self, name: str) -> Table:
        """One table by name. Raises JobError, with the nearest name, if there is none."""
        if name not in self._tables:
            self._tables[name] = self._make_table(name)
            self._tables[name].name = name
        return self._tables[name]


class Tables(Source):
    """The tables of one store, as they were at the last `refresh`."""

    def __init__(self, store: Store) -> None:
        super().__init__((store,))
        self.store = store
        self.root: zarr.Group
        """The store's Zarr hierarchy, with metadata as of the last `refresh`."""

    def _gathered(self) -> Any:
        try:
            require_rows(self.store)
        except Exception as error:
            closed = isinstance(error, PermissionError) or is_zip(local_path(self.store.address))
            if not (closed or is_storage_error(error)):
                raise
            # This process may not write to the store: use what its owner gathered.
            if "items" not in self.store.root:
                raise JobError(
                    f"{self.store.address}: has not been gathered, and you may not write to it; "
                    "ask its owner to run `ctd gather`"
                ) from None
        stamp = self.stamp()
        if stamp is None or stamp != self._stamp:
            # One read of the consolidated metadata instead of one per array.
            objects = zarr_store(self.store.objects)
            self.root = zarr.open_group(objects, mode="r", zarr_format=3)
        return stamp

    def stamp(self) -> Any:
        # The stamp of the checksum file, which a gather deletes first and writes last.
        try:
            meta = obstore.head(self.store.objects, keys.sums("gathered"))
        except FileNotFoundError:
            return None
        return meta["e_tag"], meta["last_modified"]

    def names(self) -> list[str]:
        # The coordinate of an axis that nothing else has is no table.
        described, summary = self.store.description.reduced, self.store.description.summary
        has_table = lambda name, axes: name in summary or (len(axes) == 1 and name != axes[0])
        axes = [
            var.axes[0] for name, var in described.items() if var.axes and has_table(name, var.axes)
        ]
        searched = [SEARCH_TABLE] if self.store.job.spec.search else []
        names = ["items", *axes, *reduction_tables(self.store), *searched, "shards"]
        return list(dict.fromkeys(names))

    def _make_table(self, name: str) -> Table:
        described = self.store.description
        if name in ("items", "shards"):
            roles = self.store.roles
            ordered = [*roles.varied, *described.dims, *described.reduced]
            new = roles.column_of_array
            return stored(child(self.root, name), name.removesuffix("s"), ordered, new=new)
        if name in (further := reduction_tables(self.store)):
            return stored(child(self.root, further[name]), name)
        if name == SEARCH_TABLE and (search := self.store.job.spec.search):
            return search_table(self.store, search, self["items"])
        if name in self.names():
            n_groups = len(self.store.job.plan.group_sizes)
            paths = {g: f"gathered/{g}" for g in range(n_groups)}
            groups = {g: child(self.root, path) for g, path in paths.items() if path in self.root}
            table = reduced(groups, name, list(described.reduced), described.summary)
            if table.ids:
                swept = attributes(child(self.root, "items")).get("coordinates", "")
                join_items(table, self["items"], {*str(swept).split(), *self.store.roles.varied})
            return table
        if name == SEARCH_TABLE:
            raise JobError(f"table {name!r}: only a job with a search has it (docs/search.md)")
        raise JobError(f"unknown table {name!r}{nearest(name, self.names())}")


ATTEMPTS, WAIT_S = 20, 0.25


def tables_of(store: Store) -> Tables:
    """The tables of an opened store, which keep the columns that were read as long as it is open."""
    # They refer to the store: a dictionary of all, also one of weak keys, would keep both for good.
    tables: Tables = vars(store).setdefault("_tables", Tables(store))
    return tables


class HasStore(Protocol):
    """What has an opened store, such as the tree of one (jobs.query.tree)."""

    @property
    def store(self) -> Store:
        """The store."""


type Asked = Store | Source | HasStore
"""Who answers a question: a store, several of them, or the tree of one."""


def ask[T](asked: Asked, question: Callable[[Source], T]) -> T:
    """Refresh the tables of a store, or of several, and return question(tables).

    Columns that were read are kept as long as the store is open. While another process gathers, a chunk that
    it has just deleted reads as fill values. An answer therefore counts only if the tables are the same
    afterwards; otherwise the question is asked again.

    Raises JobError if the tables kept changing, or could not be read.
    """
    if isinstance(asked, Source):
        tables = asked
    else:
        tables = tables_of(asked if isinstance(asked, Store) else asked.store)
    reason = ""
    for _ in range(ATTEMPTS):
        tables.refresh()
        try:
            answer = question(tables)
        except Exception as error:
            if tables.is_current():
                raise
            reason = f" ({type(error).__name__}: {error})"
        else:
            if tables.is_current():
                return answer
        time.sleep(WAIT_S)
    addresses = ", ".join(store.address for store in tables.stores)
    raise JobError(
        f"{addresses}: its tables cannot be read{reason}: another process may be gathering it; try again in a moment"
    )


def nothing_yet(stores: Sequence[Store]) -> str:
    """Say why stores without a committed shard show no items, and which command to type next: for a running store, else for the first."""
    ends = [Look(store).last_end for store in stores]
    ended = sum(end.ended or 0 for end in ends if end)
    reason = "no item has been computed yet"
    searching = [store for store in stores if store.job.spec.search]
    decided = sum(len([*list_keys(store.objects, keys.DECISIONS)]) for store in searching)
    if decided:
        reason = f"no item has ended yet; the store has {count(decided, 'decision')} of the search"
    if ended:
        reason = f"{count(ended, 'item')} ended; they are committed with the rest of their shard"
    running = [store for store in stores if drivers(store.objects, store.address)]
    store = (running or stores)[0]
    shows = f"{advised('ctd', 'status', store.address)} shows its progress"
    if running:
        return f"{reason}; the job is running, {shows}"
    return f"{reason}; {going_on(store, f'{shows}, ')}"
