"""Query a store's tables: filter, sort and group rows by column names.

The arguments have the same names in Python and on the command line. See jobs.query.tables for the tables,
jobs.query.expression for conditions, and jobs.query.aggregate for aggregates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

import numpy as np

from ctd.words import suggests
from jobs.errors import JobError, nearest
from jobs.query.aggregate import aggregate, canonical, parse_aggregates
from jobs.query.columns import argsort, sort_key
from jobs.query.expression import Expression, condition
from jobs.query.readers import ITEM
from jobs.query.table import Rows, Table
from jobs.query.tables import Asked, Source, ask, nothing_yet
from jobs.spec.job import inner
from jobs.store.arrays import attributes
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


def tables(store: Asked) -> list[str]:
    """The names of a store's tables, `items` first.

    >>> from jobs.store.store import Store
    >>> tables(Store.open("points.zarr"))[0]
    'items'
    """
    return ask(store, lambda tables: tables.names())


def table(store: Asked, name: str = "items") -> pd.DataFrame:
    """All rows of one table (jobs.query.tables), with the columns that are shown by default.

    >>> from jobs.store.store import Store
    >>> table(Store.open("points.zarr"), "shards").columns[0]
    'shard'

    Args:
        store: an opened store, or several.
        name: name of the table.

    Returns:
        A pandas frame.

    Raises:
        JobError: there is no such table.
    """
    import pandas as pd

    return pd.DataFrame(ask(store, lambda tables: tables[name].columns()))


class QueryOptions(TypedDict, total=False):
    """The keyword arguments of a query beside its condition."""

    table: str | None
    """The table's name; by default the first table that has every column named in the question."""
    sort: str | None
    """Columns, separated by commas; a leading `-` sorts in descending order."""
    limit: int | None
    """Return at most this many rows."""
    columns: str | Sequence[str]
    """The columns to return, in this order: a list, or one text with commas; by default, and for `all`, those shown."""
    group_by: str | Sequence[str]
    """Columns, written like `columns`; the answer has one row for each combination of their values. Needs `agg`."""
    agg: str | None
    """For example "median(q), mean(stable), q95(seconds), count" (see jobs.query.aggregate)."""


@suggests
def query(
    store: Asked, where: str | None = None, *, table: str | None = None, sort: str | None = None, limit: int | None = None,
    columns: str | Sequence[str] = (), group_by: str | Sequence[str] = (), agg: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The rows of one table that satisfy `where`, or aggregates over them, as a pandas frame.

    >>> from jobs.store.store import Store
    >>> store = Store.open("points.zarr")
    >>> query(store, "q < 1", columns="item, q", sort="q", limit=2).shape
    (2, 2)
    >>> query(store, agg="count").columns.tolist()
    ['count']

    Args:
        store: an opened store, or several (jobs.query.collection); gathered first if shards were committed since the last gather.
        where: a condition (see jobs.query.expression); None takes all rows.
        table: the table's name; by default the first table that has every column named in the question.
        sort: columns, separated by commas; a leading `-` sorts in descending order.
        limit: most rows.
        columns: the columns to return, in this order: a list, or one text with commas; by default, and for `all`, those shown.
        group_by: columns, written like `columns`; the answer has one row for each combination of their values. Needs `agg`.
        agg: for example "median(q), mean(stable), q95(seconds), count" (see jobs.query.aggregate).

    Returns:
        A frame whose `attrs["table"]` names the table; `attrs["notes"]` of aggregates says how many NaN they leave out, and how many failed
            items count.

    Raises:
        JobError: an unknown table or column (the message names the nearest one), an expression that does
            not parse, or no item computed yet.
        ValueError: there is no such keyword.
    """
    import pandas as pd

    options = QueryOptions(table=table, sort=sort, limit=limit, columns=columns, group_by=group_by, agg=agg)  # fmt: skip
    name, rows, notes = answer(store, where, **options)
    frame = pd.DataFrame(rows)
    frame.attrs |= {"table": name, "notes": [*notes]}
    return frame


class Answer(NamedTuple):
    """The answer to a question."""

    table: str
    """The name of the table that was asked."""
    columns: dict[str, np.ndarray]
    notes: Sequence[str] = ()
    """The notes of aggregates."""


def answer(store: Asked, where: str | None = None, **options: Unpack[QueryOptions]) -> Answer:
    """Answer a question as `query` does, but import pandas for aggregates alone."""
    columns, group_by = _names(options.get("columns")), _names(options.get("group_by"))
    columns = [] if columns == ["all"] else columns
    source, sort, limit = options.get("table"), options.get("sort"), options.get("limit")
    test = Expression(where) if where else None
    aggregates = parse_aggregates(agg) if (agg := options.get("agg")) else []
    if group_by and not aggregates:
        raise JobError("--group-by needs --agg, what to compute of each group, such as --agg count")
    needed = [
        *group_by,
        *(name for entry in aggregates if entry.argument for name in entry.argument.names),
    ]
    # A condition or a group that names either sets failed items apart.
    decides = {"status", "outcome"} & {*group_by, *(test.names if test else ())}

    def answer_from(tables: Source) -> Answer:
        if not aggregates:
            table, rows = find(tables, source, test, sort, limit, columns)
            return Answer(table.name, table.columns(columns, rows))
        table, rows = find(tables, source, test, needed=needed)
        table.prefetch(needed)
        frame = aggregate(table, rows, group_by, aggregates, tell_failed=not decides)
        aggregated = Table.from_columns({name: frame[name].to_numpy() for name in frame})
        answers = aggregated.columns(columns, select(aggregated, None, sort, limit))
        return Answer(table.name, answers, frame.attrs.get("notes", ()))

    return ask(store, answer_from)


def described(stores: Iterable[Store]) -> dict[str, dict[str, str]]:
    """Column of results, reduced values or fields -> its `units` and `long_name`; those of the first store that has it."""
    descriptions: dict[str, dict[str, str]] = {}
    for kernel in (store.description for store in stores):
        of_kernel = {
            name: {"units": "1", "long_name": text or name} for name, text in kernel.fields.items()
        }
        of_kernel |= {
            name: {"units": "1" if v.units == ITEM else v.units, "long_name": v.long_name or name}
            for name, v in {**kernel.reduced, **kernel.dims}.items()
        }
        descriptions = of_kernel | descriptions
    return descriptions


def _names(columns: str | Sequence[str] | None) -> list[str]:
    """Column names, from a list of them or from a text with commas; of aggregates with the spacing of their columns."""
    if isinstance(columns, str):
        # Do not split at the comma inside quantile(x, 0.9).
        columns = re.split(r",(?![^()]*\))", columns) if columns else []
    stripped = [name.strip() for name in columns or ()]
    return [canonical(name) if "(" in name else name for name in stripped]


def find(
    tables: Source,
    source: str | None = None,
    test: Expression | None = None,
    sort: str | None = None,
    limit: int | None = None,
    needed: Sequence[str] = (),
) -> tuple[Table, Rows]:
    """Find rows: (the table that has all needed columns, those of its rows that `select` returns).

    source: the table's name; None takes the first table that has the columns in `test`, `sort` and `needed`.
    """
    tested = test.names if test else []
    required, columns_by_table = {*needed, *sort_keys(sort), *tested}, dict[str, list[str]]()
    for name in [source] if source else _candidates(tables):
        table = tables[name]
        if name == "items" and table.n == 0:
            addresses = ", ".join(store.address for store in tables.stores)
            raise JobError(f"{addresses}: {nothing_yet(tables.stores)}")
        if required <= set(table.names):
            return table, select(table, test, sort, limit)
        columns_by_table[name] = table.names
    missing = sorted(required.difference(*columns_by_table.values()))
    if not missing:
        listed, names = ", ".join(sorted(required)), ", ".join(tables.names())
        raise JobError(f"no table has all of the columns {listed}; name one by --table: {names}")
    # A word of a condition may be meant as a text.
    first = missing[0]
    hint = _hint(tables.stores[0], first, columns_by_table, source, first in tested)
    raise JobError(f"unknown column {first!r}{hint}")


def select(
    table: Table, test: Expression | None, sort: str | None = None, limit: int | None = None
) -> Rows:
    """The rows of a table that satisfy `test`, sorted and limited. Raises JobError for an unknown column or a limit below 0."""
    if limit is not None and limit < 0:
        raise JobError(f"limit: {limit} given; expected at least 0, or None for all rows")
    keys = sort_keys(sort)
    table.prefetch([*keys, *(test.names if test else ())])
    rows: Rows = slice(None)
    if test is not None:
        matches = []
        for block in table.blocks():
            mask = condition(test, table.view(block), block.stop - block.start)
            matches.append(block.start + np.flatnonzero(mask))
        rows = np.concatenate(matches)
    if keys:
        order = argsort(
            [sort_key(table.read(name, rows), down) for name, down in keys.items()], limit
        )
        rows = order if isinstance(rows, slice) else rows[order]
    if limit is None:
        return rows
    return np.arange(min(limit, table.n)) if isinstance(rows, slice) else rows[:limit]


def sort_keys(sort: str | None) -> dict[str, bool]:
    """The columns to sort by, and whether in descending order.

    >>> sort_keys("a, -b")
    {'a': False, 'b': True}
    """
    return {key.removeprefix("-"): key.startswith("-") for key in _names(sort or "")}


def _hint(
    store: Store, name: str, tables: Mapping[str, Sequence[str]], source: str | None, text: bool
) -> str:
    """The end of the error for a column that no table has: what the user may have meant.

    tables: table -> its columns, of those searched. source: the table that was asked for. text: the name may be meant as a text.
    """
    all_columns = {column for columns in tables.values() for column in columns}
    column, _, word = name.partition(" ")
    sign = {"asc": "", "desc": "-"}.get(word.strip().lower())
    if sign is not None and column in all_columns:
        return f"; --sort={sign}{column} sorts by it"
    if array := _array(store, name, source):
        folder, axes = array
        return f": it is an array ({', '.join(axes)}), not a column; read it as jobs.open_store(...)['{folder}/0']['{name}']"
    listed = "".join(f"\n  {table}: {', '.join(columns)}" for table, columns in tables.items())
    top = name.partition(".")[0]
    if source and top in store.roles.all_swept and top not in all_columns:
        verb = "sweeps" if top in store.swept else "searches"
        return f": the job {verb} it, but table {source} has no such column; known:{listed}"
    value = inner(attributes(store.results(0))["params"], name)
    if value is not None and not any(
        re.match(rf"{re.escape(top)}([.\[]|$)", other) for other in all_columns
    ):
        return f": the job does not sweep it, and all its items have {value!r:.60}"
    if (lacking := store.description.dims.get(name)) and name not in store.names(0):
        kernel = store.job.spec.kernel
        about = f" ({lacking.long_name})" if lacking.long_name else ""
        return f": kernel {kernel} has this result{about}, this store does not: its data or params lack what it needs"
    if fields := sorted(column for column in all_columns if column.startswith(f"{name}.")):
        return f": it is a mapping, whose fields are columns: {', '.join(fields)}"
    quoted = f"; write a text in quotes, '{name}'" if text and name.isidentifier() else ""
    if name in {outcome.name for outcome in store.description.outcomes}:
        return quoted
    near = nearest(name, all_columns)
    return near if "did you mean" in near else f"{quoted}; known:{listed}"


def _array(store: Store, name: str, source: str | None) -> tuple[str, tuple[str, ...]] | None:
    """The folder and axes of an array of this name, of the table `source` before all others; None without one."""
    reduced, result = store.description.reduced.get(name), store.description.dims.get(name)
    reduced_array = ("gathered", reduced.axes) if reduced and len(reduced.axes) > 1 else None
    if reduced_array and reduced_array[1][0] == source:
        return reduced_array
    if name in store.names(0) and result and result.axes:
        return "results", ("item", *result.axes)
    return reduced_array


def _candidates(tables: Source) -> Iterator[str]:
    yield "items"  # before the others, whose names are to be looked up
    yield from tables.names()[1:]


def summed_up(stores: Sequence[Store]) -> set[str]:
    """The columns that the kernels' summaries name, without those that have a usual value, which need not be shown."""
    descriptions = [store.description for store in stores]
    return {
        n for d in descriptions for n in d.summary if n not in d.reduced or not d.reduced[n].usual
    }
