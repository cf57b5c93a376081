"""The commands ls and note: a list of stores, and what a user writes about one."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cluster.cli.display import err, n_rows, out, records, show_json, show_table
from cluster.cli.options import AsJson, StorePath
from cluster.cli.query import all_of
from jobs.query.listing import list_stores
from jobs.store.card import Note, read_note, write_note
from jobs.store.store import Store

PLUMBING = {"items", "best_item", "address", "name", "python"}
"""Columns that a terminal leaves out: they fill --to and --json, and --where knows them."""


def ls(
    stores: Annotated[
        list[str] | None,
        typer.Argument(
            help="stores, folders of stores, s3://BUCKET/PREFIX, patterns; by default this folder",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="condition, as in \"kernel == 'lfads' and best < 600\""),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="only stores with this tag")] = None,
    to: Annotated[
        Path | None, typer.Option(help="write .csv, .json or .parquet instead of showing")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List stores, newest first: what was swept, how far each is, its best metric, size, time and
    versions."""
    if to is not None:
        from jobs.query.files import check_target

        check_target(to)
    found, wrong = list_stores(stores or ["."], all_of(where), tag or ())
    if as_json:
        show_json(records(found))
    elif to is not None:
        import pandas as pd

        from jobs.query.files import save_frame

        save_frame(pd.DataFrame(found), to)
        err.print(f"wrote {n_rows(found):,} rows to {to}")
    elif n_rows(found):
        show_table(_shown(found), limit=None)
    for line in wrong:
        err.print(f"not listed: {line}")
    if not n_rows(found) and not wrong:
        err.print("no store meets the conditions")


def _shown(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of a terminal: empty ones and rows of zeros are left out, a metric stands beside its best value."""
    best = [
        f"{metric} {value:.4g}" if np.isfinite(value) else ""
        for metric, value in zip(found["metric"], found["best"], strict=True)
    ]
    columns = {**found, "best": np.asarray(best, object)}
    del columns["metric"]
    optional = {"failed", "left", "best", "swept", "tags", "note"}
    empty = {name for name in optional if not any(columns[name])}
    return {name: v for name, v in columns.items() if name not in PLUMBING | empty}


def note(
    store: StorePath,
    text: Annotated[
        str | None, typer.Argument(help="what to remember of it", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="add a tag; may be repeated")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="take a tag away")] = None,
) -> None:
    """Keep a note and tags with a store, which ls, status and the page show; without either, print
    them."""
    opened = Store.open(store)
    before = read_note(opened.objects)
    if text is None and not tag and not untag:
        out.print("; ".join(filter(None, [before.note, ", ".join(before.tags)])) or "no note")
        return
    tags = dict.fromkeys([*before.tags, *(tag or ())])
    kept = tuple(name for name in tags if name not in (untag or ()))
    write_note(opened, Note(note=before.note if text is None else text, tags=kept))
