"""The commands that show a store in a browser: report, watch."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.display import err, out
from cluster.cli.options import StorePath
from ctd.late import jax
from jobs.errors import JobError
from jobs.storage import objects
from jobs.store.store import Store


def report(
    store: StorePath,
    to: Annotated[
        Path | None, typer.Option(help="file to write; by default beside the store")
    ] = None,
) -> None:
    """Write one HTML page that tells what ran, what failed and what came out; it needs no network."""
    from jobs.gather.gather import left_out
    from jobs.report.page import Content, render, require_content

    opened = Store.open(store)
    require_content(opened)
    path = to or _beside(store)
    if path.suffix.lower() not in (".html", ".htm"):
        raise JobError(f"--to {path}: the report is a page; a name that ends in .html expected")
    _on_the_cpu()
    text = render(Content(opened).all())
    if why := left_out(opened):
        err.print(why)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"--to {path}: cannot be written: {error.strerror or error}") from None
    out.print(f"report  {path}")


def watch(
    store: StorePath,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="port; by default one that is free")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="address to listen on; another than the default lets other hosts, with the token, in"
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the page of `ctd report` while a run goes on, to this machine alone, until Ctrl-C."""
    from cluster.watch import Watch

    opened = Store.open(store)
    _on_the_cpu()
    with Watch(opened, host, port) as watching:
        out.print(f"watching {store}: {watching.url}")
        if not watching.is_private:
            err.print(f"open to other hosts: whoever has this address can read {store}")
        err.print("Ctrl-C ends it; the run goes on")
        try:
            watching.serve()
        except KeyboardInterrupt:
            err.print("no longer watching")


def _beside(store: str) -> Path:
    """store.zarr -> store.html; of a store elsewhere, in this folder."""
    local = objects.local_path(store)
    name = Path(store.rstrip("/")).name if local is None else local.absolute().name
    return (Path() if local is None else local.absolute().parent) / f"{Path(name).stem}.html"


def _on_the_cpu() -> None:
    """Whoever looks on must not take a GPU's memory from the workers."""
    jax.config.update("jax_platforms", "cpu")
