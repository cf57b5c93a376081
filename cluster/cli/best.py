"""`ctd best`: the best item of a store, and what to type next."""

from typing import Annotated

import typer

from cluster.cli.display import out, show_facts, show_json
from cluster.cli.options import AsJson, StorePath
from cluster.cli.running import say_warnings
from jobs.errors import JobError
from jobs.query.best import best as find_best
from jobs.query.best import require_metric
from jobs.store.store import Mode, Store


def best(
    store: StorePath,
    by: Annotated[
        str | None,
        typer.Option(help="the result to judge by; by default that of the search or the kernel"),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="max if larger values are better", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the best item of a store: its parameters, its metric, the spread over seeds, and the commands to type next."""
    opened = Store.open(store)
    found = find_best(opened, require_metric(opened, "--by", by, mode))
    if found is None:
        raise JobError(
            f"{store}: no item is done with a finite value; `ctd status {store}` says why"
        )
    if as_json:
        show_json(found.to_json())
        return
    show_facts(found.facts())
    say_warnings(opened)
    out.print()
    for what, command in found.next.items():
        out.print(f"# {what}", style="dim")
        out.print(command)
