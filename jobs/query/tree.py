"""An opened store: an xarray tree of its groups, with methods to query it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from ctd.late import jax
from jobs.errors import JobError
from jobs.inputs.items import item_arrays
from jobs.late import zarr
from jobs.query.columns import Column, Text, as_array
from jobs.query.expression import Expression
from jobs.query.query import Asked, find, query, table
from jobs.query.tables import Tables, ask
from jobs.query.unpacked import unpacked
from jobs.store.store import Store


class StoreTree(xr.DataTree):
    """The DataTree of a store, with /results/0 ..., /gathered/0 ..., /items and /shards; all of it lazy.

    It can be used like any xarray DataTree; the methods below are added. They are not an accessor, because
    they need the store and not only the arrays: they fail on a tree derived from this one, say by `isel`.
    Without ctd, `xr.open_datatree(path, engine="zarr")` opens the same tree, except that packed results
    are not taken apart (jobs.plan.packing).

    >>> store = jobs.open_store("points.zarr")
    >>> store["results/0"].q.dims  # one value for each candidate
    ('item',)
    >>> best = store.query(where="q < 1e-10", sort="q", limit=20)  # same arguments as ctd query
    >>> chosen = store.select("q < 1e-10 and distance < 1")  # the matching items with all their results
    """

    __slots__ = ("_store",)
    _store: Store

    @staticmethod
    def of(store: Store) -> StoreTree:
        """The tree of an opened store."""
        tree = xr.open_datatree(_zarr(store), engine="zarr", consolidated=True)
        for group in range(len(store.job.plan.group_sizes)):
            node = tree[f"results/{group}"]
            node.dataset = unpacked(node.to_dataset(), store, group)
        opened = StoreTree(tree.to_dataset(), children=dict(tree.children))
        opened._store = store
        return opened

    @property
    def store(self) -> Store:
        """The store itself (job, plan, what is committed); JobError on a derived tree."""
        try:
            return self._store
        except AttributeError:
            raise JobError(
                "this tree was derived from an opened store; ask the tree that open_store gave"
            ) from None

    def query(self, where: str | None = None, **asked: Unpack[Asked]) -> pd.DataFrame:
        """The rows of a table that satisfy `where`, or aggregates over them.

        asked: table, sort, limit, columns, group_by, agg (see jobs.query.query.Question).
        """
        return query(self.store, where, **asked)

    def table(self, name: str = "items") -> pd.DataFrame:
        """All rows of one table (jobs.query.tables), with the columns that are shown by default."""
        return table(self.store, name)

    def select(
        self, where: str, *, sort: str | None = None, limit: int | None = None
    ) -> xr.DataTree:
        """The items that satisfy `where`, with all their results, as a lazy tree.

        /items has the matching items in the order of `sort`; /results/G has those of group G, in the same
        order. Groups without a matching item are left out.
        """
        test = Expression(where)

        def places(tables: Tables) -> list[np.ndarray]:
            items, rows = find(tables, "items", test, sort, limit)
            rows = np.arange(items.n)[rows]
            return [rows, *(as_array(items.read(name, rows)) for name in ("group", "row"))]

        rows, group, row = ask(self.store, places)
        found = {"/": self.to_dataset(), "/items": _open(self.store, "items").isel(item=rows)}
        for number in np.unique(group):
            path = f"results/{number}"
            whole = unpacked(_open(self.store, path), self.store, int(number))
            found[f"/{path}"] = whole.isel(item=row[group == number])
        return xr.DataTree.from_dict(found)

    def weights(self, item: int) -> dict[str, jax.Array]:
        """The trained model of an item: name -> array, as the functions of `ctd.cells` take it.

        Raises:
            JobError: there is no such item, it is not computed yet, or no model is stored.
        """
        arrays = item_arrays(self.store, item)
        with jax.enable_x64(True):  # else a float64 network would be rounded
            return {name: jax.numpy.asarray(value) for name, value in arrays.items()}

    def sql(self, text: str) -> pd.DataFrame:
        """The answer to a SQL query over the store's tables.

        The query can read these tables and nothing else: no files, no network. Put a column name with a
        dot or bracket in double quotes.

        Raises:
            JobError: DuckDB is not installed (`pip install 'ctd[sql]'`), or the query fails or returns
                nothing.
        """
        try:
            import duckdb
        except ImportError:
            raise JobError("SQL needs DuckDB; pip install 'ctd[sql]', or use .query()") from None
        frames = ask(self.store, lambda tables: _frames(tables, text))
        with _database().cursor() as connection:  # the frames are this cursor's own
            for name, frame in frames.items():
                connection.register(name, frame)
            connection.begin()  # never committed: nothing that a query makes is there for the next one
            try:
                found = connection.sql(text)
                if found is None:
                    raise JobError(f"SQL: {text!r} answers nothing; a select expected")
                answer = found.df()  # which computes it
            except duckdb.Error as error:
                raise JobError(f"SQL: {error}") from None
        return answer.astype(dict.fromkeys(answer.select_dtypes("category"), str))


@cache
def _database() -> Any:
    """An empty database, which takes longer to open than a million rows to ask."""
    import duckdb

    # This setting also keeps queries from reading Python variables.
    return duckdb.connect(":memory:", config={"enable_external_access": False})


def _frames(tables: Tables, text: str) -> dict[str, pd.DataFrame]:
    """The tables that a SQL text names, with the columns that it names; with all columns if it has a *."""
    frames = {}
    for name in tables.names():
        if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE):
            table = tables[name]
            named = [column for column in table.names if column.lower() in text.lower()]
            names = table.names if "*" in text or not named else named
            table.prefetch(names)
            columns = {column: _categories(table.read(column)) for column in names}
            frames[name] = pd.DataFrame(columns, copy=False)
    return frames


def _categories(column: Column) -> np.ndarray | pd.Categorical:
    """A column without a Python object for each text of it."""
    if not isinstance(column, Text):
        return column
    labels, place = np.unique(column.labels.astype(str), return_inverse=True)
    return pd.Categorical.from_codes(place[column.codes], labels)


def _zarr(store: Store) -> Any:
    return zarr.storage.ObjectStore(store.objects)


def _open(store: Store, group: str) -> xr.Dataset:
    """One group as it is now, since the tree may have been opened before the last gather."""
    return xr.open_dataset(
        _zarr(store), engine="zarr", group=group, consolidated=False, zarr_format=3
    )
