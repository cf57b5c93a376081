"""The commands query, best and compare, which answer questions about stores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from cluster.cli import options
from cluster.cli.display import (
    cell,
    err,
    n_rows,
    out,
    records,
    say_infinite,
    show_facts,
    show_json,
    show_table,
    write_table,
)
from cluster.cli.outcome import no_rows, say_warnings
from jobs.errors import JobError, advised, count
from jobs.query.collection import StoreCollection, open_all
from jobs.query.query import QueryOptions, answer, described, sort_keys, summed_up
from jobs.query.tables import tables_of
from jobs.store.roles import Mode
from jobs.store.store import Store

if TYPE_CHECKING:
    from cluster.cli.display import Columns
    from jobs.query.best import Best

Aggregates = Annotated[
    str | None,
    typer.Option(
        help='"median(q), mean(stable), count"; also std, sem, min, max, sum, quantile(q, 0.9), q90(q)'
    ),
]

Table = Annotated[
    str | None,
    typer.Option(
        help="items, shards, search, or a table that the kernel or `reductions` make, such as fixed_point"
    ),
]


def query(
    stores: options.StorePaths,
    conditions: options.Conditions = None,
    sort: options.SortedBy = None,
    limit: options.Limit = None,
    columns: options.ColumnNames = None,
    group_by: options.ColumnNames = None,
    agg: Aggregates = None,
    table: Table = None,
    to: Annotated[
        Path | None, typer.Option(help="write .csv, .json, .parquet or .nc instead of showing")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer a question from the tables of a store. Several stores are read as one, with a column for
    the store and for each parameter that differs."""
    options.check_target(to, as_json)
    collection = open_all(stores, err.print)
    question: QueryOptions = {
        "table": table, "sort": ",".join(sort or ()), "limit": limit, "agg": agg,
        "columns": ",".join(columns or ()), "group_by": ",".join(group_by or ()),
    }  # fmt: skip
    is_default = not (columns or agg or as_json or to)
    name, answer_columns, notes = answer(collection, options.all_of(conditions), **question)
    for line in notes:
        err.print(line)
    if agg and to is None and not as_json:  # only what they are grouped by are texts
        is_text = lambda column: column.dtype.kind == "O"
        answer_columns = {
            n: np.where(v == "", "-", v) if is_text(v) else v for n, v in answer_columns.items()
        }
    if is_default:
        keys = [*sort_keys(question["sort"])]
        answer_columns = _default_columns(name, answer_columns, collection, keys)
    if to is not None:
        write_table(answer_columns, to, described(collection.stores))
    elif as_json:
        show_json(records(answer_columns))
        say_infinite(answer_columns)
    else:
        most = 100 if limit is None else None
        show_table(answer_columns, name, most, not is_default, "--json or --to FILE gives all")
    if not n_rows(answer_columns) and limit != 0:
        reason = no_rows(name, collection.stores[0])
        err.print(f"no row of table {name} meets the conditions" if conditions else reason)
    kernels = _kernels(_with_rows(name, answer_columns, collection))
    # Their parameters of one name may be unlike.
    if len(kernels) > 1 and "kernel" not in f"{conditions} {question}":
        err.print(f"several kernels: --where \"kernel == '{kernels[0]}'\" asks one")
    say_how_much(collection.stores)


def _default_columns(
    table: str, columns: dict[str, np.ndarray], collection: StoreCollection, sorted_by: list[str]
) -> dict[str, np.ndarray]:
    """The columns that a terminal shows by default, in this order: the store and the row's number; what was swept, searched or
    differs between stores; what the rows are sorted by; others as they come, entries of the weights last.

    Left out are an item's place, its group if there is one, its status if all are done, columns of kernels without rows, and,
    of what neither was swept nor sums up the kernel, columns with NaN alone, or with one value, which a line tells.
    """
    kernels = _kernels(_with_rows(table, columns, collection))
    with_rows = [store for store in collection.stores if store.job.spec.kernel in kernels]
    available = list(columns)
    if 0 < len(with_rows) < len(collection.stores):
        collection = StoreCollection(with_rows)
        present = {*collection[table].names, *sorted_by}
        available = [name for name in columns if name in present]
    stores = collection.stores
    swept = {*collection.differing}.union(*([*s.swept, *s.roles.varied] for s in stores))
    kind = lambda name: name.partition(".")[0].partition("[")[0]
    is_swept = lambda name: not swept.isdisjoint((name, kind(name)))
    n_first = 1 + collection.labelled
    first = [name for name in available if name in available[:n_first] or name == table]
    inputs = [name for name in available if is_swept(name) and name not in sorted_by]
    hidden = {"row"}
    if all(len(store.job.plan.group_sizes) == 1 for store in stores):
        hidden.add("group")
    if "status" in available and set(columns["status"]) <= {"done"}:
        hidden.add("status")
    stays = hidden.union(["group"], first, inputs, sorted_by, summed_up(stores))
    same = [name for name in available if name not in stays and _is_constant(columns[name])]
    same = [*_of_one_value(stores, inputs, columns), *same]
    values = {name: columns[name][0] for name in same}
    if finite := [f"{name} {cell(value)}" for name, value in values.items() if value == value]:
        err.print(f"in all rows: {', '.join(finite)}")
    hidden = hidden.union(same).difference(sorted_by)
    others = sorted(available, key=lambda name: kind(name) == "weights")  # few ask for these
    order = dict.fromkeys([*first, *inputs, *sorted_by, *others])
    return {name: columns[name] for name in order if name in available and name not in hidden}


def _is_constant(column: np.ndarray) -> bool:
    """Return whether several rows have one value, or NaN alone."""
    return len(column) > 1 and bool((column == column[0]).all() or (column != column).all())


def _of_one_value(
    stores: Sequence[Store], names: Sequence[str], columns: dict[str, np.ndarray]
) -> list[str]:
    """The texts among some columns for which the one sweep of a store lists a single value, such as a file of an earlier stage."""
    sweep, *more = [part for store in stores for part in store.job.spec.sweeps()]
    axes = {} if more else {**sweep.grid, **sweep.zip}
    single = [
        name
        for name in names
        if isinstance(swept_values := axes.get(name), list) and len(swept_values) == 1
    ]
    return [name for name in single if columns[name].dtype.kind == "O" and len(columns[name])]


def _with_rows(table: str, columns: "Columns", collection: StoreCollection) -> list[Store]:
    """The stores that have rows in an answer; without the column `store`, those that have the table."""
    labels = {*columns.get("store", collection.labels)}
    labelled = zip(collection.labels, collection.stores, strict=True)
    return [s for label, s in labelled if label in labels and table in tables_of(s).names()]


def _kernels(stores: Sequence[Store]) -> list[str]:
    return list(dict.fromkeys(store.job.spec.kernel for store in stores))


def say_how_much(stores: Sequence[Store]) -> None:
    """Print how many items the answer covers, if a store is not complete."""
    from jobs.gather.gather import left_out

    for warning in dict.fromkeys(filter(None, map(left_out, stores))):
        err.print(warning)
    n_done = {store.address: tables_of(store)["items"].n for store in stores}
    n_items = {store.address: store.job.plan.n_items for store in stores}
    if behind := [address for address, n in n_items.items() if n_done[address] < n]:
        others = f", and so for {count(len(behind) - 1, 'other')}" if behind[1:] else ""
        counts = f"{sum(n_done.values()):,} of {count(sum(n_items.values()), 'item')} so far"
        err.print(f"{counts}; {advised('ctd', 'status', behind[0])} shows more{others}")


# --- the best -----------------------------------------------------------------------------------------


def best(
    stores: options.StorePaths,
    by: Annotated[
        str | None,
        typer.Option(
            help="the result that decides which item is best; by default the metric of the search or the kernel"
        ),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="max if larger values are better", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the best item of a store: its parameters, its metric, the spread over seeds, and the commands to type next.
    Of several stores, show the best item of each, one line per store. If items differ in what the metric is measured on, such as
    the file of trials, show the best for each value."""
    from jobs.query.best import Best, bests, require_metric

    collection = open_all(stores, err.print)
    by_label, wrong = dict[str, list[Best]](), dict[str, list[str]]()
    for label, store in zip(collection.labels, collection.stores, strict=True):
        try:
            best_items = bests(store, require_metric(store, "--by", by, mode))
            if not best_items:
                shows = advised("ctd", "status", store.address)
                message = f"{store.address}: no item is done with a finite value; {shows} says why"
                raise JobError(message)
            say_warnings(store, label * collection.labelled)
            by_label[label] = best_items
        except JobError as error:
            if not collection.labelled:
                raise
            wrong.setdefault(str(error), []).append(label)
    lines = [f"{', '.join(labels)}: {reason}" for reason, labels in wrong.items()]
    if not by_label:
        raise JobError("\n".join(lines))
    _show_bests(by_label, collection, as_json)
    for line in lines:
        err.print(f"left out: {line}")


def _show_bests(
    by_label: "dict[str, list[Best]]", collection: StoreCollection, as_json: bool
) -> None:
    """Print the best item of the only store, with the commands to type next; several, one line each, and why they do not compare."""
    from jobs.query.best import differing_bases, no_best_of_all, rows_of, table_of

    best_items = [(label, best) for label, some in by_label.items() for best in some]
    first = best_items[0][1]
    is_single = len(best_items) == 1 and not collection.labelled
    if as_json:
        entries = [{"store": label, **best.to_json()} for label, best in best_items]
        show_json(first.to_json() if is_single else entries)
    elif is_single:
        show_facts(first.facts())
        out.print()
        for purpose, command in first.next.items():
            out.print(f"# {purpose}", style="dim")
            out.print(command)
    else:
        labelled = zip(collection.labels, collection.stores, strict=True)
        compared = StoreCollection([store for label, store in labelled if label in by_label])
        rows = rows_of(by_label, compared)
        show_table(table_of(rows), limit=None)
        for metric, names in differing_bases(rows).items():
            out.print(no_best_of_all(metric, names))


# --- two stores side by side ---------------------------------------------------------------------------


def compare(
    a: Annotated[str, typer.Argument(help="a store", show_default=False)],
    b: Annotated[str, typer.Argument(help="another store", show_default=False)],
    as_json: options.AsJson = False,
) -> None:
    """Show how the jobs of two stores differ, and how far apart the results are of items that both have.
    |a-b| is one number per item; for an array, it is the largest over its entries."""
    from jobs.query.compare import compare as compare_stores

    stores = Store.open(a), Store.open(b)
    comparison = compare_stores(*stores)
    n, matched_by = comparison.items, comparison.matched_by
    if as_json:
        tables = {
            name: getattr(comparison, name).to_dict("records")
            for name in ("spec", "results", "changed")
        }
        show_json({"matched_by": matched_by, "items": n, **tables, "notes": comparison.notes})
    else:
        out.print(f"a  {a}\nb  {b}")
        if not len(comparison.spec):
            out.print("the jobs are the same")
        show_table(comparison.spec, "the jobs differ in")
        by = f", matched by {', '.join(matched_by)}" if matched_by else ""
        counts = f"items: {n['both']:,} in both{by}; {n['a']:,} in a alone, {n['b']:,} in b alone"
        kernels = {store.job.spec.kernel for store in stores}
        out.print("the items of two kernels do not correspond" if len(kernels) > 1 else counts)
        about = "; |a-b|: of an array, each item's largest"
        show_table(comparison.results, f"results of the items that both have computed{about}")
        for note in comparison.notes:
            out.print(note)
        show_table(comparison.changed, f"items that ended differently: {len(comparison.changed):,}")
    for store in stores:
        say_how_much([store])
