"""The command best: the best item of a store, or of each of several, and what to type next."""

from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.display import err, out, show_facts, show_json, show_table
from cluster.cli.options import AsJson
from jobs.errors import JobError, advised
from jobs.query.shelf import Shelf, open_all
from jobs.store.store import Mode, Store

if TYPE_CHECKING:
    from jobs.query.best import Best


def best(
    stores: Annotated[
        list[str],
        typer.Argument(
            help="a store, or several: the best of each; also folders and patterns",
            show_default=False,
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option(help="the result to judge by; by default that of the search or the kernel"),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="max if larger values are better", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the best item of a store: its parameters, its metric, the spread over seeds, and the commands to type next;
    of several stores the best of each, a line a store."""
    opened = open_all(stores, err.print)
    if isinstance(opened, Shelf):
        _show_best_of_each(opened, by, mode, as_json)
        return
    found = _best(opened, by, mode)
    if as_json:
        show_json(found.to_json())
        return
    show_facts(found.facts())
    out.print()
    for what, command in found.next.items():
        out.print(f"# {what}", style="dim")
        out.print(command)


def _best(store: Store, by: str | None, mode: Mode | None, name: str = "") -> "Best":
    """The best item of a store, of whose results it prints the warnings. Raises JobError if there is none.

    name: of one of several stores.
    """
    from cluster.cli.outcome import say_warnings
    from jobs.query.best import best as find_best
    from jobs.query.best import require_metric

    found = find_best(store, require_metric(store, "--by", by, mode))
    if found is None:
        raise JobError(
            f"{store.address}: no item is done with a finite value; {advised('ctd', 'status', store.address)} says why"
        )
    say_warnings(store, name)
    return found


def _show_best_of_each(shelf: Shelf, by: str | None, mode: Mode | None, as_json: bool) -> None:
    """Print the best item of each store, a line a store. Raises JobError, with the reasons, if none has one."""
    from jobs.query.best import table_of

    found, wrong = {}, []
    for label, store in zip(shelf.labels, shelf.stores, strict=True):
        try:
            found[label] = _best(store, by, mode, label)
        except JobError as error:
            wrong.append(f"{label}: {error}")
    if not found:
        raise JobError("\n".join(wrong))
    if as_json:
        show_json([{"store": label, **one.to_json()} for label, one in found.items()])
    else:
        kept = Shelf(
            [one for label, one in zip(shelf.labels, shelf.stores, strict=True) if label in found]
        )
        show_table(table_of(found, kept), limit=None)
    for line in wrong:
        err.print(f"left out: {line}")
