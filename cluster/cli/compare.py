"""`ctd compare`: how the jobs and the results of two stores differ."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.display import out, show_json, show_table
from cluster.cli.options import AsJson
from cluster.cli.query import say_how_much
from jobs.store.store import Store

if TYPE_CHECKING:
    from jobs.query.compare import Comparison


def compare(
    a: Annotated[str, typer.Argument(help="a store", show_default=False)],
    b: Annotated[str, typer.Argument(help="another store", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show how the jobs of two stores differ, and how far the results of the items that both have lie
    apart."""
    from jobs.query.compare import compare as compare_stores

    stores = Store.open(a), Store.open(b)
    found = compare_stores(*stores)
    if as_json:
        show_json(_as_json(found))
    else:
        _show(found, [a, b])
    for store in stores:
        say_how_much(store)


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
