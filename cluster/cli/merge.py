"""`ctd merge`: several finished stores of one kernel as one."""

from typing import Annotated

import typer

from cluster.cli.display import out
from cluster.cli.options import Trust
from cluster.cli.running import open_to_compute
from jobs.errors import JobError, count
from jobs.store.finding import find_stores


def merge(
    to: Annotated[str, typer.Argument(help="the new store", show_default=False)],
    stores: Annotated[
        list[str],
        typer.Argument(help="finished stores of one kernel, folders, patterns", show_default=False),
    ],
    trust: Trust = False,
) -> None:
    """Copy the items of several finished stores of one kernel into one, renumbered, and check it. Where
    each item comes from is kept."""
    from jobs.gather.check import check
    from jobs.gather.gather import gather
    from jobs.gather.merge import merge as merge_stores

    found = find_stores(stores)
    if len(found) < 2:
        raise JobError(
            f"{', '.join(stores)}: {count(len(found), 'store')} given; two or more expected"
        )
    merged = merge_stores([open_to_compute(address, trust) for address in found], to)
    n = gather(merged)
    if wrong := check(to):
        raise JobError(f"{to}: {wrong[0].key} is {wrong[0].what}; delete it and merge again")
    out.print(f"merged {count(n, 'item')} of {count(len(found), 'store')}; ctd query {to}")
