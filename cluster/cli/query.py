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
from jobs.query.query import QueryOptions, answer, described, sort_keys, summed_up
from jobs.query.shelf import StoreCollection, open_all
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
    where: options.Where = None,
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
    store = open_all(stores, err.print)
    question: QueryOptions = {
        "table": table, "sort": ",".join(sort or ()), "limit": limit, "agg": agg,
        "columns": ",".join(columns or ()), "group_by": ",".join(group_by or ()),
    }  # fmt: skip
    is_default = not (columns or agg or as_json or to)
    name, found, notes = answer(store, options.all_of(where), **question)
    for line in notes:
        err.print(line)
    if agg and to is None and not as_json:  # only what they are grouped by are texts
        is_text = lambda column: column.dtype.kind == "O"
        found = {n: np.where(v == "", "-", v) if is_text(v) else v for n, v in found.items()}
    if is_default:
        found = _default_columns(name, found, store, [*sort_keys(question["sort"])])
    if to is not None:
        write_table(found, to, described(_stores_of(store)))
    elif as_json:
        show_json(records(found))
        say_infinite(found)
    else:
        most = 100 if limit is None else None
        show_table(found, name, most, not is_default, "--json or --to FILE gives all")
    if not n_rows(found) and limit != 0:
        _say_none(name, store, bool(where))
    if isinstance(store, StoreCollection) and "kernel" not in f"{where} {question}":
        _say_kernels(_kernels_in(name, found, store))
    say_how_much(store)


def _say_none(name: str, store: Store | StoreCollection, conditions: bool) -> None:
    """Say why an answer has no row."""
    why = no_rows(name, _stores_of(store)[0])
    err.print(f"no row of table {name} meets the conditions" if conditions else why)


def _say_kernels(kernels: list[str]) -> None:
    """Say that an answer has rows of several kernels, whose parameters of one name may be unlike."""
    if len(kernels) > 1:
        err.print(f"several kernels: --where \"kernel == '{kernels[0]}'\" asks one")


def _default_columns(
    table: str, found: dict[str, np.ndarray], store: Store | StoreCollection, sorted_by: list[str]
) -> dict[str, np.ndarray]:
    """The columns that a terminal shows by default, in this order: the store and the row's number; what was swept, searched or
    differs between stores; what the rows are sorted by; others as they come, entries of the weights last.

    Left out are an item's place, its group if there is one, its status if all are done, columns of kernels without rows, and,
    of what neither was swept nor sums up the kernel, columns with NaN alone, or with one value, which a line tells.
    """
    n_first, differing, stores, known = 1, set[str](), _stores_of(store), list(found)
    if isinstance(store, StoreCollection):
        kernels = _kernels_in(table, found, store)
        own = [one for one in stores if one.job.spec.kernel in kernels]
        shelf = StoreCollection(own) if 0 < len(own) < len(stores) else store
        n_first, differing, stores = 2, set(shelf.differing), shelf.stores
        there = {*shelf[table].names, *sorted_by}
        known = [name for name in found if name in there]
    swept = differing.union(*([*one.swept, *one.roles.varied] for one in stores))
    kind = lambda name: name.partition(".")[0].partition("[")[0]
    is_swept = lambda name: not swept.isdisjoint((name, kind(name)))
    first = [name for name in known if name in known[:n_first] or name == table]
    inputs = [name for name in known if is_swept(name) and name not in sorted_by]
    hidden = {"row"}
    if all(len(one.job.plan.group_sizes) == 1 for one in stores):
        hidden.add("group")
    if "status" in known and set(found["status"]) <= {"done"}:
        hidden.add("status")
    stays = hidden.union(["group"], first, inputs, sorted_by, summed_up(stores))
    same = [name for name in known if name not in stays and _is_constant(found[name])]
    same = [*_of_one_value(stores, inputs, found), *same]
    values = {name: found[name][0] for name in same}
    if finite := [f"{name} {cell(value)}" for name, value in values.items() if value == value]:
        err.print(f"in all rows: {', '.join(finite)}")
    hidden |= {*same}
    hidden -= set(sorted_by)
    others = sorted(known, key=lambda name: kind(name) == "weights")  # few ask for these
    order = dict.fromkeys([*first, *inputs, *sorted_by, *others])
    return {name: found[name] for name in order if name in known and name not in hidden}


def _is_constant(column: np.ndarray) -> bool:
    """Whether several rows have one value, or NaN alone."""
    return len(column) > 1 and bool((column == column[0]).all() or (column != column).all())


def _of_one_value(
    stores: Sequence[Store], names: Sequence[str], found: dict[str, np.ndarray]
) -> list[str]:
    """The texts among some columns for which the one sweep of a store lists a single value, such as a file of an earlier stage."""
    sweep, *more = [part for one in stores for part in one.job.spec.sweeps()]
    axes = {} if more else {**sweep.grid, **sweep.zip}
    single = [name for name in names if isinstance(of := axes.get(name), list) and len(of) == 1]
    return [name for name in single if found[name].dtype.kind == "O" and len(found[name])]


def _kernels_in(table: str, found: "Columns", shelf: StoreCollection) -> list[str]:
    """The kernels that have rows in an answer; without the column `store`, those that have the table."""
    shown = {*found.get("store", shelf.labels)}
    named = zip(shelf.labels, shelf.stores, strict=True)
    having = [one for label, one in named if label in shown and table in tables_of(one).names()]
    return list(dict.fromkeys(one.job.spec.kernel for one in having))


def _stores_of(store: Store | StoreCollection) -> Sequence[Store]:
    return store.stores if isinstance(store, StoreCollection) else [store]


def say_how_much(store: Store | StoreCollection) -> None:
    """Print how many items the answer covers, if a store is not complete."""
    from jobs.gather.gather import left_out

    stores = _stores_of(store)
    done = [tables_of(one)["items"].n for one in stores]
    total = [one.job.plan.n_items for one in stores]
    for why in dict.fromkeys(filter(None, map(left_out, stores))):
        err.print(why)
    if behind := [one.address for one, n, of in zip(stores, done, total, strict=True) if n < of]:
        others = f", and so for {count(len(behind) - 1, 'other')}" if behind[1:] else ""
        shows = advised("ctd", "status", behind[0])
        err.print(
            f"{sum(done):,} of {count(sum(total), 'item')} so far; {shows} shows more{others}"
        )


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
    opened = open_all(stores, err.print)
    if isinstance(opened, StoreCollection):
        _show_best_of_each(opened, by, mode, as_json)
        return
    found = _bests(opened, by, mode)
    if len(found) > 1:
        shelf = StoreCollection([opened])
        _show_bests({shelf.labels[0]: found}, shelf, as_json)
        return
    if as_json:
        show_json(found[0].to_json())
        return
    show_facts(found[0].facts())
    out.print()
    for what, command in found[0].next.items():
        out.print(f"# {what}", style="dim")
        out.print(command)


def _bests(store: Store, by: str | None, mode: Mode | None, name: str = "") -> "list[Best]":
    """Find the best items of a store, `name` among several, and print the warnings of its results."""
    from jobs.query.best import bests, require_metric

    found = bests(store, require_metric(store, "--by", by, mode))
    if not found:
        why = advised("ctd", "status", store.address)
        raise JobError(f"{store.address}: no item is done with a finite value; {why} says why")
    say_warnings(store, name)
    return found


def _show_best_of_each(
    shelf: StoreCollection, by: str | None, mode: Mode | None, as_json: bool
) -> None:
    found, having = {}, []
    wrong: dict[str, list[str]] = {}
    for label, store in zip(shelf.labels, shelf.stores, strict=True):
        try:
            found[label] = _bests(store, by, mode, label)
            having.append(store)
        except JobError as error:
            wrong.setdefault(str(error), []).append(label)
    lines = [f"{', '.join(labels)}: {why}" for why, labels in wrong.items()]
    if not found:
        raise JobError("\n".join(lines))
    _show_bests(found, StoreCollection(having), as_json)
    for line in lines:
        err.print(f"left out: {line}")


def _show_bests(found: "dict[str, list[Best]]", shelf: StoreCollection, as_json: bool) -> None:
    """Print the best items of stores, one line each, and why they do not compare."""
    from jobs.query.best import differing_bases, no_best_of_all, rows_of, table_of

    if as_json:
        show_json([{"store": name, **b.to_json()} for name, some in found.items() for b in some])
        return
    rows = rows_of(found, shelf)
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
    found = compare_stores(*stores)
    n, matched_by = found.items, found.matched_by
    if as_json:
        tables = {
            name: getattr(found, name).to_dict("records") for name in ("spec", "results", "changed")
        }
        show_json({"matched_by": matched_by, "items": n, **tables, "notes": found.notes})
    else:
        out.print(f"a  {a}\nb  {b}")
        if not len(found.spec):
            out.print("the jobs are the same")
        show_table(found.spec, "the jobs differ in")
        by = f", matched by {', '.join(matched_by)}" if matched_by else ""
        told = f"items: {n['both']:,} in both{by}; {n['a']:,} in a alone, {n['b']:,} in b alone"
        kernels = {store.job.spec.kernel for store in stores}
        out.print("the items of two kernels do not correspond" if len(kernels) > 1 else told)
        about = "; |a-b|: of an array, each item's largest"
        show_table(found.results, f"results of the items that both have computed{about}")
        for note in found.notes:
            out.print(note)
        show_table(found.changed, f"items that ended differently: {len(found.changed):,}")
    for store in stores:
        say_how_much(store)
