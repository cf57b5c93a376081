"""The commands report and watch, which show a store in a browser."""

import itertools
import time
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.display import err, out
from cluster.cli.options import StorePath, StorePaths
from ctd.late import jax
from ctd.replacing import replacing
from jobs.errors import JobError, writing
from jobs.storage.addresses import path_beside
from jobs.store.finding import find_stores
from jobs.store.store import Store

LOOK_S = 1.0
"""Poll interval for a store that does not exist yet (s)."""
ASK_EVERY = 10
"""Polls of the store for each look at its submission."""


def report(
    stores: StorePaths,
    to: Annotated[
        Path | None, typer.Option(help="file to write; by default beside the (first) store")
    ] = None,
) -> None:
    """Write one HTML page about one or several stores: what ran, what failed, and the results. The page needs no
    network."""
    from jobs.gather.gather import left_out
    from jobs.report.page import content_of, render, require_content

    opened_stores, empty = [], []
    for store in map(Store.open, find_stores(stores, err.print)):
        try:
            require_content(store)
            opened_stores.append(store)
        except JobError as error:
            empty.append(str(error))
    if not opened_stores:
        raise JobError("\n".join(empty))
    path = to or _page_path([store.address for store in opened_stores])
    if path.suffix.lower() not in (".html", ".htm"):
        raise JobError(f"--to {path}: the report is a page; give a name that ends in .html")
    jax.config.update("jax_platforms", "cpu")  # the memory of GPUs is the workers'
    text = render(content_of(opened_stores))
    for store in opened_stores:
        if warning := left_out(store):
            err.print(warning)
    for line in empty:
        err.print(f"left out: {line}")
    with writing(f"--to {path}"), replacing(path, typed=to is not None) as new:
        new.write_text(text, encoding="utf-8")
    out.print(f"report  {path}")


def watch(
    store: StorePath,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="port; by default one that is free")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="address to listen on; with any other than the default, other hosts that know the page's full address can read it"
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the page of `ctd report`, by default to this machine alone, while a run goes on. Ctrl-C ends it.
    If there is no store yet, wait for it."""
    opened_store = _once_there(store)
    err.print(f"reading {store}; the address of its page follows")
    from cluster.watch import Watch

    jax.config.update("jax_platforms", "cpu")  # as `report`
    with Watch(opened_store, host, port) as watching:
        out.print(f"watching {store}: {watching.url}")
        if not watching.is_private:
            err.print(f"open to other hosts: whoever has this address can read {store}")
        err.print("Ctrl-C ends it; the run goes on")
        try:
            watching.serve_forever()
        except KeyboardInterrupt:
            err.print("no longer watching")


def _once_there(store: str) -> Store:
    """Wait until a store exists, and open it; meanwhile tell what its submission does."""
    from cluster.cli.recovery import submitted, together

    printed = list[str]()
    for poll in itertools.count():
        if Store.exists(store):
            break
        if poll == 0:
            err.print(f"{store} does not exist yet; waiting for its run, Ctrl-C ends this")
        if poll % ASK_EVERY == 0 and (lines := submitted(store).lines) != printed:
            printed = lines
            err.print("\n".join(together(lines)))
        time.sleep(LOOK_S)
    return Store.open(store)


def _page_path(stores: list[str]) -> Path:
    """The page's path beside the first store: a.zarr -> a.html, a.zarr and b.zarr -> a+b.html; for a store elsewhere, here."""
    places = [path_beside(store) for store in stores]
    names = dict.fromkeys(place.name for place in places)
    return places[0].with_name(f"{'+'.join(names)[:120]}.html")
