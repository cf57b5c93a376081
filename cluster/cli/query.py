"""`ctd query`: ask one store, or compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cluster.cli.display import err, n_rows, out, records, show_json, show_table
from cluster.cli.options import AsJson, ColumnNames
from jobs.errors import JobError
from jobs.query.query import Asked, described, rows
from jobs.query.query import query as ask
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from cluster.cli.display import Columns
    from jobs.query.compare import Comparison

EVERY = "all"
"""The value of --columns for all columns that a table shows, in the table's order."""


def query(
    stores: Annotated[
        list[str], typer.Argument(help="a store, or two to compare", show_default=False)
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(help='condition, as in "q < 1e-10 and stable"; repeated, rows must meet all'),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(help="column, -column for falling order; several separated by commas"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="at most so many rows")] = None,
    columns: ColumnNames = None,
    group_by: ColumnNames = None,
    agg: Annotated[
        str | None,
        typer.Option(
            help='"median(q), mean(stable), count"; also std, min, max, sum, quantile(q, 0.9), q90(q)'
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="items, shards, search, or an axis of the reduction")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="write .csv, .json, .parquet or .nc instead of showing")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from a store, or show how the jobs and results of two stores differ."""
    asked = {
        "where": where, "sort": sort, "limit": limit, "columns": columns,
        "group-by": group_by, "agg": agg, "table": table, "to": to,
    }  # fmt: skip
    if len(stores) > 1:
        _compare(stores, [word for word, value in asked.items() if value is not None], as_json)
        return
    if to is not None:
        from jobs.query.files import check_target

        check_target(to)
    store = Store.open(stores[0])
    named = [] if columns == [EVERY] else columns or []
    question: Asked = {
        "table": table, "sort": ",".join(sort or ()), "limit": limit,
        "columns": ",".join(named), "group_by": ",".join(group_by or ()), "agg": agg,
    }  # fmt: skip
    _reply(store, all_of(where), question, to, as_json, default=not (columns or as_json))
    say_how_much(store)


def _reply(
    store: Store, where: str | None, question: Asked, to: Path | None, as_json: bool, default: bool
) -> None:
    """Print the answer or write it to a file. default: print the default columns of a terminal."""
    if question["agg"] is None and to is None:
        name, found = rows(store, where, **question)
        if default:
            found = _default_columns(name, found, store, (question["sort"] or "").split(","))
        _answer(name, found, as_json, all_columns=not default)
        return
    frame = ask(store, where, **question)
    if to is None:
        _answer(frame.attrs["table"], frame, as_json, all_columns=True)
    else:
        _write(store, frame, to)


def _default_columns(
    table: str, found: dict[str, np.ndarray], store: Store, sort: list[str]
) -> dict[str, np.ndarray]:
    """The columns that a terminal shows by default, in this order: the row's number, swept fields, columns that the rows are
    sorted by, results in the kernel's order. Left out are an item's place, and columns that are the same in all rows.
    """
    swept = set(store.job.spec.swept())
    sorted_by = [name.strip().lstrip("-") for name in sort]
    results = [*store.description.dims, *store.description.reduced]
    if table != "items":
        results = [*store.description.reduced]
    known = list(found)

    def place(name: str) -> tuple[int, int]:
        kind = name.partition(".")[0].partition("[")[0]
        if name == known[0]:
            return 0, 0
        if name in sorted_by:
            return 2, sorted_by.index(name)
        if name in swept or kind in swept:
            return 1, known.index(name)
        return (3, results.index(name)) if name in results else (4, 0)

    plumbing = {"row"}
    if len(store.job.plan.group_sizes) == 1:
        plumbing.add("group")
    if "status" in found and set(found["status"]) <= {"done"}:
        plumbing.add("status")
    names = [name for name in known if name not in plumbing or name in sorted_by]
    return {name: found[name] for name in sorted(names, key=place)}


def _answer(table: str, found: "Columns", as_json: bool, all_columns: bool) -> None:
    """Print the rows, or that there are none."""
    if as_json:
        show_json(records(found))
    elif n_rows(found):
        show_table(found, table, limit=100, all_columns=all_columns)
    if not n_rows(found):
        err.print(f"no row of table {table} meets the conditions")


def _write(store: Store, frame: "pd.DataFrame", to: Path) -> None:
    """Write the rows to a file, and print how many they are."""
    from jobs.query.files import save_frame

    save_frame(frame, to, described(store))
    err.print(f"wrote {len(frame):,} rows to {to}")
    if not len(frame):
        err.print(f"no row of table {frame.attrs['table']} meets the conditions")


def all_of(conditions: list[str] | None) -> str | None:
    """Join conditions by `and`. A single condition stays as it is, so that errors point into it.

    >>> all_of(["q < 1", "stable"])
    '(q < 1) and (stable)'
    """
    if not conditions or len(conditions) == 1:
        return conditions[0] if conditions else None
    return " and ".join(f"({condition})" for condition in conditions)


def say_how_much(store: Store) -> None:
    """Print how many items the answer covers, if the store is not complete."""
    from jobs.gather.gather import left_out
    from jobs.query.tables import ask

    done, total = ask(store, lambda tables: tables["items"].n), sum(store.job.plan.group_sizes)
    if why := left_out(store):
        err.print(why)
    if done < total:
        err.print(f"{done:,} of {total:,} items so far; ctd status {store.address} shows more")


def _compare(stores: list[str], words: list[str], as_json: bool) -> None:
    from jobs.query.compare import compare

    if len(stores) > 2:
        raise JobError(f"{len(stores)} stores given; give one, or two to compare")
    if words:
        raise JobError(
            f"--{words[0]}: works with one store, and two are compared as a whole; leave it out"
        )
    a, b = (Store.open(address) for address in stores)
    found = compare(a, b)
    if as_json:
        show_json(_as_json(found))
    else:
        _show(found, stores)
    for store in (a, b):
        say_how_much(store)


def _as_json(found: "Comparison") -> dict[str, Any]:
    return {
        "spec": found.spec.to_dict("records"),
        "matched_by": found.matched_by,
        "items": found.items,
        "results": found.results.to_dict("records"),
        "changed": found.changed.to_dict("records"),
    }


def _show(found: "Comparison", stores: list[str]) -> None:
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
        show_table(found.changed, title=f"{len(found.changed):,} items differ in how they ended")
