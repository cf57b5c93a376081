"""`ctd query`: a question to one store, or two stores side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.display import err, out, show_json, show_table
from cluster.cli.options import AsJson, ColumnNames
from jobs.errors import JobError
from jobs.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from jobs.query.compare import Comparison

EVERY = "all"
"""What --columns takes for all that a table shows, in the table's order."""


def add(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(query)


def query(
    stores: Annotated[
        list[str], typer.Argument(help="a store, or two to compare", show_default=False)
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(help='condition, "q < 1e-10 and stable"; of several, all hold'),
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
    """Answer a question from a store; of two stores, show what differs in jobs and results."""
    asked = {
        "where": where, "sort": sort, "limit": limit, "columns": columns,
        "group-by": group_by, "agg": agg, "table": table, "to": to,
    }  # fmt: skip
    if len(stores) > 1:
        _compare(stores, [word for word, value in asked.items() if value is not None], as_json)
        return
    from jobs.query.files import check_target
    from jobs.query.query import query as ask

    if to is not None:
        check_target(to)
    store = Store.open(stores[0])
    every = columns == [EVERY]
    frame = ask(
        store,
        table=table, where=_all(where), sort=",".join(sort or ()), limit=limit,
        columns="" if every else ",".join(columns or ()), group_by=",".join(group_by or ()), agg=agg,
    )  # fmt: skip
    telling = not (columns or agg)
    _answer(
        _telling(frame, store, sort or []) if telling and not (to or as_json) else frame,
        to,
        as_json,
        not telling,
    )
    _say_how_much(store)


def _telling(frame: "pd.DataFrame", store: Store, sort: list[str]) -> "pd.DataFrame":
    """The frame with what people look for first, and without what only says where an item lies or is the same in all rows.

    First comes what a row is, then what was swept, what the rows are sorted by, and results in the kernel's order.
    """
    swept = set(store.job.spec.swept())
    sorted_by = [name.lstrip("-") for text in sort for name in text.split(",")]
    results = [*store.description.dims, *store.description.reduced]
    if frame.attrs["table"] != "items":
        results = [*store.description.reduced]

    def place(name: str) -> tuple[int, int]:
        kind = name.partition(".")[0].partition("[")[0]
        if name == frame.columns[0]:
            return 0, 0
        if name in sorted_by:
            return 2, sorted_by.index(name)
        if name in swept or kind in swept:
            return 1, list(frame.columns).index(name)
        return (3, results.index(name)) if name in results else (4, 0)

    plumbing = {"row"}
    if len(store.job.plan.group_sizes) == 1:
        plumbing.add("group")
    if "status" in frame and set(frame["status"]) <= {"done"}:
        plumbing.add("status")
    names = [name for name in frame.columns if name not in plumbing or name in sorted_by]
    told = frame[sorted(names, key=place)]
    told.attrs = frame.attrs
    return told


def _answer(frame: "pd.DataFrame", to: Path | None, as_json: bool, all_columns: bool) -> None:
    """Write the rows to a file or print them; say so if there are none."""
    from jobs.query.files import save_frame

    if to is not None:
        save_frame(frame, to)
        err.print(f"wrote {len(frame):,} rows to {to}")
    elif as_json:
        show_json(frame.to_dict("records"))
    elif len(frame):
        show_table(frame, frame.attrs["table"], limit=100, all_columns=all_columns)
    if not len(frame):
        err.print(f"no row of table {frame.attrs['table']} is as asked for")


def _all(conditions: list[str] | None) -> str | None:
    """One condition that says all of them; a single one as it is, so that errors point into it."""
    if not conditions or len(conditions) == 1:
        return conditions[0] if conditions else None
    return " and ".join(f"({condition})" for condition in conditions)


def _say_how_much(store: Store) -> None:
    """Of a store that is not complete, how much of it the answer is about."""
    from jobs.gather.gather import left_out
    from jobs.query.tables import ask

    done, total = ask(store, lambda tables: tables["items"].n), sum(store.job.plan.group_sizes)
    if why := left_out(store):
        err.print(why)
    if done < total:
        err.print(f"{done:,} of {total:,} items so far; ctd status {store.address} tells more")


def _compare(stores: list[str], words: list[str], as_json: bool) -> None:
    from jobs.query.compare import compare

    if len(stores) > 2:
        raise JobError(f"one store expected, or two to compare; got {len(stores)}")
    if words:
        raise JobError(f"--{words[0]}: goes with one store; two are compared as a whole")
    a, b = (Store.open(address) for address in stores)
    found = compare(a, b)
    if as_json:
        show_json(_as_json(found))
    else:
        _show(found, stores)
    for store in (a, b):
        _say_how_much(store)


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
