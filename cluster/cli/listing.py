"""The commands ls, note and archive, which list and keep stores."""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cluster.cli import options
from cluster.cli.display import cell, err, n_rows, out, records, show_json, show_table, write_table
from jobs.errors import advised, count
from jobs.storage.connect import refuse_taken
from jobs.store.store import Store


def ls(
    stores: Annotated[
        list[str] | None,
        typer.Argument(
            help="stores, folders of stores, s3://BUCKET/PREFIX, patterns; by default this folder",
            show_default=False,
        ),
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--where", help="condition, as in \"kernel == 'lfads' and best < 600\""),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="only stores with these tags, separated by commas")
    ] = None,
    sort: options.SortedBy = None,
    limit: options.Limit = None,
    to: Annotated[
        Path | None, typer.Option(help="write .csv, .json or .parquet instead of showing")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List stores, newest first unless sorted: what was swept, how far each is, its best metric, size, time and
    versions."""
    options.check_target(to, as_json)
    from jobs.query.collection import list_stores

    keys = ",".join(sort or ())
    table, wrong = list_stores(
        stores or ["."], options.all_of(conditions), options.words_of(tag), keys, limit
    )
    if as_json:
        show_json(records(table))
    elif to is not None:
        write_table(table, to)
    else:
        _show(table)
    for line in wrong:
        err.print(f"not listed: {line}")
    if not n_rows(table) and not wrong and limit != 0:
        err.print("no store meets the conditions")


def _show(table: dict[str, np.ndarray]) -> None:
    """Print a line a store, then the notes, and versions that all share; --to and --json have all columns."""
    from jobs.query.collection import COLUMNS, VERSIONS

    metrics, this_year = set(table["metric"]) - {""}, time.strftime("%Y-")
    of_metric = metrics.pop() if len(metrics) == 1 else ""
    best = [
        (f"{value:.4g}" if of_metric else f"{metric} {value:.4g}") * bool(np.isfinite(value))
        for metric, value in zip(table["metric"], table["best"], strict=True)
    ]
    shared = [name for name in VERSIONS if len(set(table[name])) == 1]
    texts = {
        name: ["" if value != value else cell(value) for value in table[name].tolist()]
        for name in table
        if name not in COLUMNS
    }
    names = ["kernel", "swept", "state", "done", "dropped", "left"]
    columns: dict[str, Any] = {
        "store": table["address"],  # which the next command takes
        **{name: table[name] for name in names},
        of_metric or "best": best,
        "size": [f"{size:,.3g} MB" for size in table["size_mb"]],
        "when": [when.removeprefix(this_year) for when in table["when"]],
        **{name: table[name] for name in ("ctd", "jax") if name not in shared},
        # Last, since there may be many: what does not fit is a further table.
        **{name: values for name, values in texts.items() if len(set(values)) > 1},
    }
    for name in ("swept", "dropped", "left", of_metric or "best"):
        if not any(columns[name]):
            del columns[name]
    show_table(columns, limit=None)
    for name, note, tags in zip(table["address"], table["note"], table["tags"], strict=True):
        if note or tags:
            out.print(f"{name}: {' '.join(filter(None, [note, tags and f'[{tags}]']))}")
    if shared:
        out.print(f"made with {', '.join(f'{name} {table[name][0]}' for name in shared)}")


def note(
    store: options.StorePath,
    text: Annotated[str | None, typer.Argument(help="the note", show_default=False)] = None,
    tag: Annotated[list[str] | None, typer.Option(help="add tags, separated by commas")] = None,
    untag: Annotated[
        list[str] | None, typer.Option(help="remove tags, separated by commas")
    ] = None,
) -> None:
    """Keep a note and tags with a store; ls, status and the report show them. Without a text or a tag,
    print them."""
    from jobs.store.card import Note, read_note, write_note

    opened_store = Store.open(store)
    before = read_note(opened_store.objects)
    if text is None and not tag and not untag:
        out.print("; ".join(filter(None, [before.note, ", ".join(before.tags)])) or "no note")
        return
    tags = dict.fromkeys([*before.tags, *options.words_of(tag)])
    # A tag that an earlier version kept may have a comma.
    removed = {*options.words_of(untag), *(untag or ())}
    remaining = tuple(name for name in tags if name not in removed)
    write_note(opened_store, Note(note=before.note if text is None else text, tags=remaining))


def archive(
    store: options.StorePath,
    to: Annotated[Path, typer.Argument(help="the file, OUT.zip", show_default=False)],
    license_: Annotated[
        str,
        typer.Option(
            "--license",
            help="license of the data: an identifier of spdx.org, such as CC-BY-4.0, or a link",
        ),
    ] = "",
    author: Annotated[
        list[str] | None,
        typer.Option(
            help='name, with an ORCID if there is one: "Ada Lovelace 0000-0002-1825-0097"'
        ),
    ] = None,
    date: Annotated[
        str, typer.Option(help="date of publication, such as 2026-11-28; by default today")
    ] = "",
) -> None:
    """Write a store as one zip file, with a description by RO-Crate. query, report and open_store read
    the file as it is."""
    from jobs.exports.archive import About, write_archive

    refuse_taken(str(to))
    opened_store = Store.open(store)
    n = write_archive(opened_store, to, About(license_, author or (), date))
    size = f"{to.stat().st_size / 1e6:.3g} MB"
    out.print(f"wrote {count(n, 'object')} to {to}, {size}; {advised('ctd', 'query', to)}")
    if n_missing := opened_store.job.plan.n_shards - len(opened_store.committed.numbers()):
        err.print(f"{count(n_missing, 'shard')} not computed; the archive holds what is there")
    if not license_:
        err.print("without --license nobody may use the data; CC-BY-4.0 is a common one")
