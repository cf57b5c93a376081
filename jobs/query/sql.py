"""Ask the tables of a store, or of several, in SQL, by DuckDB in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from ctd.installed import how_to_install, why_not
from jobs.errors import JobError
from jobs.query.columns import categories
from jobs.query.query import tables
from jobs.query.tables import Source, ask
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


def sql(store: Store | Source, text: str) -> pd.DataFrame:
    """The answer to a SQL query over the tables of a store, or of several, as a pandas frame.

    The query can read these tables and nothing else: no files, no network; `show tables` lists them. Put a column name
    with a dot or bracket, or one that is a word of SQL, in double quotes.

    >>> sql(Store.open("points.zarr"), "select count(*) as n from shards").n[0] > 0
    np.True_

    Raises:
        JobError: DuckDB is not installed (the extra `sql`), or the query fails or returns
            nothing.
    """
    if (why := why_not("duckdb")) is not None:
        do = how_to_install("sql", again=bool(why))
        raise JobError(f"SQL needs DuckDB{why}; {do}, or use .query()")
    import duckdb

    if re.fullmatch(r"\s*show\s+tables\s*;?\s*", text, re.IGNORECASE):
        import pandas as pd

        return pd.DataFrame({"name": tables(store)})
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
            if unknown := re.search(r"Table with name (\S+) does not exist", str(error)):
                known = ", ".join(tables(store))
                raise JobError(f"SQL: table {unknown[1]} does not exist; known: {known}") from None
            hint = ""
            if isinstance(error, duckdb.ParserException):
                words = _words_of_sql(
                    text, dict.fromkeys(c for one in frames.values() for c in one)
                )
                hint = f"\nput a column that is a word of SQL in double quotes: {words}" * bool(
                    words
                )
            raise JobError(f"SQL: {error}{hint}") from None
    return answer.astype(dict.fromkeys(answer.select_dtypes("category"), str))


def _words_of_sql(text: str, columns: Iterable[str]) -> str:
    """Those of the columns, in quotes, that a SQL text names without quotes although SQL reserves their names."""
    kept = _database().sql("from duckdb_keywords() where keyword_category = 'reserved'").fetchall()
    reserved = {word for word, _ in kept}
    # `group by` names no column.
    bare = lambda name: re.search(rf'(?<![\w".]){name}(?![\w"]|\s+by\b)', text, re.IGNORECASE)
    return ", ".join(f'"{name}"' for name in columns if name.lower() in reserved and bare(name))


@cache
def _database() -> Any:
    """An empty database, opened once: opening takes longer than a query over a million rows."""
    import duckdb

    # Without external access a query reads no files, no network, and no Python variables.
    return duckdb.connect(":memory:", config={"enable_external_access": False})


def _asks_for_all(text: str) -> bool:
    """Whether a SQL text may ask for columns that it does not name: select *, a from without a select, summarize, pivot, ..."""
    words = re.findall(r"\w+", text.lower())
    unnamed = "*" in text or {"pivot", "unpivot", "natural", "columns"} & {*words}
    return bool(unnamed) or not 0 < words.count("select") >= words.count("from")


def _frames(tables: Source, text: str) -> dict[str, pd.DataFrame]:
    """The tables that a SQL text names, with the columns that it names, or all if it asks for columns without their names."""
    import pandas as pd

    from jobs.query.files import without_complex

    has = lambda name: re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    frames = {}
    for table in (tables[name] for name in tables.names() if has(name)):
        named = [] if _asks_for_all(text) else [c for c in table.names if has(c)]
        columns = table.columns(named or table.names, form=categories)
        frames[table.name] = without_complex(pd.DataFrame(columns, copy=False))
    return frames
