"""The first screen of a page: the best item, or how many of what were found; a picture; what to type next."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jobs.errors import count
from jobs.query.best import best_of
from jobs.report.overview import overview
from jobs.report.page.encode import plot_json, table_json
from jobs.spec.description import Description
from jobs.store.metric import Metric
from jobs.store.store import Store

MAX_KINDS = 8
"""Most kinds of rows that are counted."""
MAX_SHOWN = 6
"""Most rows and columns of the summary that the first screen shows."""


def answer(
    store: Store, frames: Mapping[str, pd.DataFrame], metric: Metric | None
) -> dict[str, Any]:
    """`lead`, a sentence; `facts`, [name, text] pairs; `next`, [what, command] pairs; `plots`; `opens`, the table
    to open; `table`, rows of the kernel's summary or None; `picture`, whether the plots are a group's own, which the caller decides.

    frames: the tables by name. metric: of the store; without one, the rows of the kernel's summary are counted.
    """
    items, where = frames["items"], shlex.quote(store.address)
    if metric and metric.name in items and items[metric.name].dtype.kind in "iuf":
        columns = {str(name): items[name].to_numpy() for name in items}
        if found := best_of(store, columns, metric):
            (_, lead), *facts = found.facts().items()
            plot = overview(store, metric.name)
            made = [plot_json(plot)] if plot else []
            return _answer(f"Item {lead}", facts, found.next, made, "items")
    axis = summary_axis(store.description)
    opens = axis if axis in frames else "items"
    told = store.description.summary if axis in frames else ["outcome"]
    dims = store.description.dims
    # Which result says how well an item did is not known: any may be asked for.
    further = {
        f"the best by {name}": f"ctd best {where} --by {shlex.quote(name)}"
        for name, var in dims.items()
        if opens == "items" and var.axes == () and name != "outcome" and name in items
    }
    listed = {"all of them as a table": f"ctd query {where} --table {opens}"} | dict(
        list(further.items())[:2]
    )
    lead = count(len(frames[opens]), opens.removesuffix("s").replace("_", " "))
    rows = first_rows(frames[opens], [opens, *told]) if axis == opens else None
    return _answer(lead, kinds(frames[opens], told), listed, [], opens) | {"table": rows}


def _answer(
    lead: str,
    facts: Sequence[tuple[str, str]],
    listed: Mapping[str, str],
    plots: list[dict[str, Any]],
    opens: str,
) -> dict[str, Any]:
    return {
        "lead": lead,
        "facts": [list(fact) for fact in facts],
        "next": [list(pair) for pair in listed.items()],
        "plots": plots,
        "opens": opens,
        "picture": False,
        "table": None,
    }


def first_rows(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, Any] | None:
    """The first rows of a table, of its first columns among `names` that differ between rows; encoded as a table. None if
    there are no two rows that differ."""
    some = [name for name in names if name in frame and frame[name].astype(str).nunique() > 1]
    if not some:
        return None
    return table_json("first", frame[some[:MAX_SHOWN]].head(MAX_SHOWN), {})


def summary_axis(described: Description) -> str:
    """The table in which a kernel sums up its results; "" without one."""
    reduced, shown = described.reduced, described.summary
    axes = reduced[shown[0]].axes if shown and shown[0] in reduced else ()
    return axes[0] if axes else ""


def kinds(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, str]]:
    """How many rows there are of each combination of the first two columns of texts among `names`, the most frequent first."""
    texts = [n for n in names if n in frame and frame[n].dtype.kind not in "biufc"][:2]
    if not texts or not len(frame):
        return []
    told = frame[texts].astype(str).agg(", ".join, axis=1).to_numpy()
    found, n = np.unique(told.astype(str), return_counts=True)
    return [(str(found[k]), f"{n[k]:,}") for k in np.argsort(-n, kind="stable")[:MAX_KINDS]]
