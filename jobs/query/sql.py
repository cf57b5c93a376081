"""SQL over the tables of one store or of several, answered by DuckDB."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ctd.installed import how_to_install
from jobs.errors import JobError
from jobs.query.columns import Column, Text
from jobs.query.tables import Source, ask
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


def sql(store: Store | Source, text: str) -> pd.DataFrame:
    """The answer to a SQL query over the tables of a store, or of several, as a pandas frame.

    The query can read these tables and nothing else: no files, no network. Put a column name with a
    dot or bracket in double quotes.

    >>> sql(Store.open("points.zarr"), "select count(*) as n from shards").n[0] > 0
    np.True_

    Raises:
        JobError: DuckDB is not installed (the extra `sql`), or the query fails or returns
            nothing.
    """
    try:
        import duckdb
    except ImportError:
        raise JobError(f"SQL needs DuckDB; {how_to_install('sql')}, or use .query()") from None
    frames = ask(store, lambda tables: _frames(tables, text))
    # A cursor has its own frames: two threads may ask at once.
    with _database().cursor() as connection:
        for name, frame in frames.items():
            connection.register(name, frame)
        # The transaction is never committed, so that no query leaves anything for the next one.
        connection.begin()
        try:
            found = connection.sql(text)
            if found is None:
                raise JobError(f"SQL: {text!r} returns nothing; give a select")
            # The query runs here, so that its errors are raised here.
            answer = found.df()
        except duckdb.Error as error:
            raise JobError(f"SQL: {error}") from None
    return answer.astype(dict.fromkeys(answer.select_dtypes("category"), str))


@cache
def _database() -> Any:
    """An empty database, opened once: opening takes longer than a query over a million rows."""
    import duckdb

    # Without external access a query reads no files, no network, and no Python variables.
    return duckdb.connect(":memory:", config={"enable_external_access": False})


def _frames(tables: Source, text: str) -> dict[str, pd.DataFrame]:
    """The tables that a SQL text names, with the columns that it names; all columns if it contains a *."""
    import pandas as pd

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
    """A column as an array, or of texts as a Categorical, which needs no Python object for each row."""
    import pandas as pd

    if not isinstance(column, Text):
        return column
    labels, place = np.unique(column.labels.astype(str), return_inverse=True)
    return pd.Categorical.from_codes(place[column.codes], labels)
