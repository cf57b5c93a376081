"""The commands query and compare, which answer questions about stores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cluster.cli.display import (
    err,
    n_rows,
    no_rows,
    out,
    records,
    show_json,
    show_table,
)
from cluster.cli.options import AsJson, ColumnNames, Limit, SortedBy, all_of, check_target
from jobs.errors import JobError, advised, count
from jobs.query.query import Asked, described, rows
from jobs.query.query import query as ask
from jobs.query.shelf import Shelf, open_all
from jobs.query.sql import sql as ask_sql
from jobs.query.tables import tables_of, varied
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from cluster.cli.display import Columns
    from jobs.query.compare import Comparison

EVERY = "all"
"""The value of --columns for all columns that a table shows, in the table's order."""


Conditions = Annotated[
    list[str] | None,
    typer.Option(help='condition, as in "q < 1e-10 and stable"; repeated, rows must meet all'),
]
Aggregates = Annotated[
    str | None,
    typer.Option(
        help='"median(q), mean(stable), count"; also std, sem, min, max, sum, quantile(q, 0.9), q90(q)'
    ),
]

Sql = Annotated[
    str | None,
    typer.Option(
        help='a query in SQL over the tables, which "show tables" lists: "select max(q) from items"; needs duckdb'
    ),
]


def query(
    stores: Annotated[
        list[str],
        typer.Argument(
            help="stores, folders of stores, patterns such as 's3://lab/gru*.zarr'",
            show_default=False,
        ),
    ],
    where: Conditions = None,
    sort: SortedBy = None,
    limit: Limit = None,
    columns: ColumnNames = None,
    group_by: ColumnNames = None,
    agg: Aggregates = None,
    table: Annotated[
        str | None, typer.Option(help="items, shards, search, or an axis of the reduction")
    ] = None,
    sql: Sql = None,
    to: Annotated[
        Path | None, typer.Option(help="write .csv, .json, .parquet or .nc instead of showing")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the tables of a store; of several stores as from one, with a column for
    the store and for every parameter that differs."""
    check_target(to, as_json)
    asked = {
        "where": where, "sort": sort, "limit": limit, "columns": columns,
        "group-by": group_by, "agg": agg, "table": table,
    }  # fmt: skip
    store = open_all(stores, err.print)
    if sql is not None:
        if given := [word for word, value in asked.items() if value is not None]:
            raise JobError(f"--{given[0]}: not with --sql, which says it in SQL; leave one out")
        _reply_sql(store, sql, to, as_json)
        say_how_much(store)
        return
    named = [] if columns == [EVERY] else columns or []
    question: Asked = {
        "table": table, "sort": ",".join(sort or ()), "limit": limit,
        "columns": ",".join(named), "group_by": ",".join(group_by or ()), "agg": agg,
    }  # fmt: skip
    table = _reply(store, all_of(where), question, to, as_json, default=not (columns or as_json))
    if "kernel" not in f"{asked}":
        _say_kernels(store, table)
    say_how_much(store)


def _reply_sql(store: Store | Shelf, text: str, to: Path | None, as_json: bool) -> None:
    """Print the answer to a SQL query or write it to a file."""
    frame = ask_sql(store, text)
    frame.attrs["table"] = ""
    if to is None:
        _answer("", frame, as_json, True)
    else:
        _write(store, frame, to)
    _say_if_none(frame, "", store, text)


def _reply(
    store: Store | Shelf,
    where: str | None,
    question: Asked,
    to: Path | None,
    as_json: bool,
    default: bool,
) -> str:
    """Print the answer or write it to a file, and return its table. default: print the default columns of a terminal."""
    if question["agg"] is None and to is None:
        name, found = rows(store, where, **question)
        if default:
            found = _default_columns(name, found, store, (question["sort"] or "").split(","))
        _answer(name, found, as_json, not default, question["limit"])
        _say_if_none(found, name, store, where, question["limit"])
        return name
    frame = ask(store, where, **question)
    name = str(frame.attrs["table"])
    for note in frame.attrs.get("notes", ()):
        err.print(note)
    if to is None:
        # Of aggregates, only what they are grouped by are texts.
        shown = frame if as_json else frame.replace({"": "-"})
        _answer(name, shown, as_json, True, question["limit"])
    else:
        _write(store, frame, to)
    _say_if_none(frame, name, store, where, question["limit"])
    return name


def _say_kernels(store: Store | Shelf, table: str) -> None:
    """Print how to ask one kernel alone, if a table has rows of several, whose parameters may share no more than a name."""
    if not isinstance(store, Shelf):
        return
    having = [one for one in store.stores if table in tables_of(one).names()]
    kernels = dict.fromkeys(one.job.spec.kernel for one in having)
    if len(kernels) > 1:
        err.print(f"several kernels: --where \"kernel == '{next(iter(kernels))}'\" asks one")


def _of_their_kernels(table: str, labels: np.ndarray, shelf: Shelf) -> tuple[Shelf, set[str]]:
    """The stores of the kernels that rows are of, and the columns that a table of these has. labels: the stores of the rows."""
    joined = {name for new in shelf.joined for name in new.values()}
    named = zip(shelf.labels, shelf.stores, strict=True)
    kernels = {one.job.spec.kernel for label, one in named if label in {*labels}}
    own = [one for one in shelf.stores if one.job.spec.kernel in kernels]
    if own and len(own) < len(shelf.stores):
        shelf = Shelf(own)
    return shelf, joined | {*shelf[table].names}


def _default_columns(
    table: str, found: dict[str, np.ndarray], store: Store | Shelf, sort: list[str]
) -> dict[str, np.ndarray]:
    """The columns that a terminal shows by default, in this order: the store and the row's number, what was swept, searched or differs between
    stores, columns that the rows are sorted by, results in the kernel's order. Left out are an item's place, its group if there is one, and its status if all are done.
    Rows of some kernels show nothing of the others.
    """
    sorted_by = [name.strip().lstrip("-") for name in sort]
    if isinstance(store, Shelf):
        store, there = _of_their_kernels(table, found["store"], store)
        found = {name: v for name, v in found.items() if name in there or name in sorted_by}
    stores, differing = stores_of(store), store.differing if isinstance(store, Shelf) else {}
    swept = {name for one in stores for name in (*one.swept, *varied(one))} | set(differing)
    described = [one.description for one in stores]
    results = [name for one in described for name in one.reduced]
    if table == "items":
        results = [*(name for one in described for name in one.dims), *results]
    known = list(found)
    n_first = 2 if isinstance(store, Shelf) else 1

    def place(name: str) -> tuple[int, int]:
        kind = name.partition(".")[0].partition("[")[0]
        if name in known[:n_first] or name == table:
            return 0, known.index(name)
        if name in sorted_by:
            return 2, sorted_by.index(name)
        if name in swept or kind in swept:
            return 1, known.index(name)
        return (3, results.index(name)) if name in results else (4, 0)

    plumbing = {"row"}
    if all(len(one.job.plan.group_sizes) == 1 for one in stores):
        plumbing.add("group")
    if "status" in found and set(found["status"]) <= {"done"}:
        plumbing.add("status")
    names = [name for name in known if name not in plumbing or name in sorted_by]
    return {name: found[name] for name in sorted(names, key=place)}


def _answer(
    table: str, found: "Columns", as_json: bool, all_columns: bool, limit: int | None = None
) -> None:
    """Print the rows, if any.

    table: the table's name, "" of SQL. limit: the most rows that were asked for, all of which are shown.
    """
    if as_json:
        show_json(records(found))
    elif n_rows(found):
        most, hint = 100 if limit is None else None, "--json or --to FILE gives all"
        show_table(found, table or "sql", most, all_columns, hint)


def _say_if_none(
    found: "Columns", table: str, store: Store | Shelf, where: str | None, limit: int | None = None
) -> None:
    """Print that an answer has no rows, and whether a condition or the table is the reason.

    table, limit: as of `_answer`.
    """
    if n_rows(found) or limit == 0:
        return
    if not table:
        err.print("the query found no row")
    else:
        none = f"no row of table {table} meets the conditions"
        err.print(none if where else no_rows(table, stores_of(store)[0]))


def _write(store: Store | Shelf, frame: "pd.DataFrame", to: Path) -> None:
    """Write the rows to a file, and print how many they are."""
    from jobs.query.files import save_frame

    save_frame(frame, to, described(stores_of(store)))
    err.print(f"wrote {count(len(frame), 'row')} to {to}")


def stores_of(store: Store | Shelf) -> Sequence[Store]:
    """The stores that were asked."""
    return store.stores if isinstance(store, Shelf) else [store]


def say_how_much(store: Store | Shelf) -> None:
    """Print how many items the answer covers, if a store is not complete."""
    from jobs.gather.gather import left_out

    stores = stores_of(store)
    done = [tables_of(one)["items"].n for one in stores]
    total = [one.job.plan.n_items for one in stores]
    for why in dict.fromkeys(filter(None, map(left_out, stores))):
        err.print(why)
    if behind := [one.address for one, n, of in zip(stores, done, total, strict=True) if n < of]:
        err.print(
            f"{sum(done):,} of {count(sum(total), 'item')} so far; {advised('ctd', 'status', behind[0])} shows more"
            + (f", and so for {count(len(behind) - 1, 'other')}" if behind[1:] else "")
        )


# --- two stores side by side ---------------------------------------------------------------------------


def compare(
    a: Annotated[str, typer.Argument(help="a store", show_default=False)],
    b: Annotated[str, typer.Argument(help="another store", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show how the jobs of two stores differ, and how far the results of the items that both have lie
    apart."""
    from jobs.query.compare import compare as compare_stores

    stores = Store.open(a), Store.open(b)
    found = compare_stores(*stores)
    if as_json:
        show_json(_comparison(found))
    else:
        _show_comparison(found, [a, b])
    for store in stores:
        say_how_much(store)


def _comparison(found: "Comparison") -> dict[str, Any]:
    return {
        "spec": found.spec.to_dict("records"),
        "matched_by": found.matched_by,
        "items": found.items,
        "results": found.results.to_dict("records"),
        "changed": found.changed.to_dict("records"),
    }


def _show_comparison(found: "Comparison", stores: list[str]) -> None:
    out.print(f"a  {stores[0]}\nb  {stores[1]}")
    if len(found.spec):
        show_table(found.spec, title="the jobs differ in")
    else:
        out.print("the jobs are the same")
    n = found.items
    by = f", matched by {', '.join(found.matched_by)}" if found.matched_by else ""
    out.print(f"items: {n['both']:,} in both{by}; {n['a']:,} in a alone, {n['b']:,} in b alone")
    if len(found.results):
        show_table(found.results, title="results of the items that both have computed")
    if len(found.changed):
        show_table(found.changed, title=f"items that ended differently: {len(found.changed):,}")
