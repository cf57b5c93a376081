"""`ctd archive`: a store as one file for a paper's supplement."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.display import err, out
from cluster.cli.options import StorePath
from jobs.errors import count
from jobs.store.store import Store


def archive(
    store: StorePath,
    to: Annotated[Path, typer.Argument(help="the file, OUT.zip", show_default=False)],
    license_: Annotated[
        str,
        typer.Option("--license", help="of the data: CC-BY-4.0 or another of spdx.org, or a link"),
    ] = "",
    author: Annotated[
        list[str] | None,
        typer.Option(
            help='name, with an ORCID if there is one: "Ada Lovelace 0000-0002-1825-0097"'
        ),
    ] = None,
    date: Annotated[str, typer.Option(help="of publication, 2026-11-28; by default today")] = "",
) -> None:
    """Write a store as one zip file, which query, report and open_store read as it is, with a description
    of it by RO-Crate."""
    from jobs.export.archive import About, write_archive

    opened = Store.open(store)
    n = write_archive(opened, to, About(license_, author or (), date))
    out.print(
        f"wrote {count(n, 'object')} to {to}, {to.stat().st_size / 1e6:.3g} MB; ctd query {to}"
    )
    left = opened.job.plan.n_shards - len(opened.committed.numbers())
    if left:
        err.print(f"{count(left, 'shard')} are not computed; the archive holds what is there")
    if not license_:
        err.print("without --license nobody may use the data; CC-BY-4.0 is a common one")
