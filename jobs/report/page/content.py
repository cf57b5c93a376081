"""Collect the content of a store's page as JSON: the answer first, then the run, groups, tables and the sweep."""

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jobs.errors import JobError, count
from jobs.gather.gather import left_out
from jobs.query.best import best_of
from jobs.query.query import table, tables
from jobs.redact import redact
from jobs.report.page.encode import plot_json, table_json
from jobs.report.page.facts import facts
from jobs.report.page.groups import Groups, live
from jobs.report.sweep import overview, sweep
from jobs.spec.description import Description
from jobs.store.events import read_events
from jobs.store.store import Metric, Store, metric_of

MAX_KINDS = 8
"""Most kinds of rows that are counted."""
MAX_SHOWN = 6
"""Most rows and columns of the summary that the first screen shows."""

EMPTY: dict[str, Any] = {
    "answers": [], "groups": [], "groups_left_out": 0, "tables": [], "sweep": None
}  # fmt: skip
"""`Content.results()` of a store without a committed shard."""


class Content:
    """The content of a store's page, which can be collected again while a run goes on.

    Each call reads the store anew; the groups' input data are kept between calls.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._groups = store, Groups(store)

    def facts(self) -> dict[str, Any]:
        """The facts about the run, without results; fast."""
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        found = facts(self._store)
        found["live"] = (
            None
            if found["progress"]["shards"] == found["progress"]["shards_done"]
            else live(self._store)
        )
        return redact(found | {"made": made, "trouble": left_out(self._store)})

    def results(self) -> dict[str, Any]:
        """Plots, tables, and the importance of parameters; gathers newly committed shards first."""
        store = self._store
        if not store.committed.numbers():
            return dict(EMPTY)
        frames = {name: table(store, name) for name in tables(store)}
        metric = metric_of(store)
        name = metric.name if metric else ""
        frames["items"] = _ordered(frames["items"], store.swept, name)
        columns = {str(name): column.to_numpy() for name, column in frames["items"].items()}
        first = answer(store, frames, columns, metric)
        groups, n_left_out = self._groups.all()
        # Of one group, the first picture is a part of the answer.
        if not first["plots"] and len(store.job.plan.group_sizes) == 1 and groups:
            first |= {"plots": groups[0]["plots"][:1], "picture": True}
            groups[0]["plots"] = groups[0]["plots"][1:]
        swept = sweep(store, columns)
        swept["plots"] = [plot_json(plot) for plot in swept["plots"]]
        listed = [table_json(name, f, self._titles(name)) for name, f in frames.items() if f.size]
        return redact(
            {
                "answers": [first],
                "groups": groups,
                "groups_left_out": n_left_out,
                "tables": listed,
                "sweep": swept,
            }
        )

    def all(self) -> dict[str, Any]:
        """`facts` and `results` together."""
        return self.facts() | self.results()

    def _titles(self, name: str) -> dict[str, str]:
        """Column -> its description with its unit, for the table `name`."""
        described = self._store.description
        variables = described.dims if name in ("items", "shards") else described.reduced
        titles = {
            key: f"{var.long_name} ({var.units})" if var.units not in ("", "1") else var.long_name
            for key, var in variables.items()
        }
        return {**described.fields, **titles}


def _ordered(items: pd.DataFrame, swept: Iterable[str], metric: str) -> pd.DataFrame:
    """Order the columns: item, swept parameters, metric, outcome, other results, then status, group and row."""
    last = [name for name in ("status", "group", "row") if name in items]
    first = [name for name in ("item", *swept, metric, "outcome") if name in items]
    rest = [name for name in items if name not in (*first, *last)]
    return items[[*dict.fromkeys(first), *rest, *last]]


def require_content(store: Store) -> None:
    """Raise JobError if there is nothing to report yet: no committed shard and no error."""
    if not store.committed.numbers() and not any(
        event.kind == "error" for event in read_events(store)
    ):
        raise JobError(
            f"{store.address}: no item has been computed yet, so that there is nothing to report; "
            f"{store.to_resume()} continues the job, `ctd watch` shows its progress"
        )


# --- the first screen -----------------------------------------------------------------------------


def answer(
    store: Store,
    frames: Mapping[str, pd.DataFrame],
    columns: Mapping[str, np.ndarray],
    metric: Metric | None,
) -> dict[str, Any]:
    """Describe the best item; without a metric, count the rows of the kernel's summary.

    Returns `lead`, a sentence; `facts`, [name, text] pairs; `next`, [what, command] pairs; `plots`; `opens`, the table
    to open; `table`, rows of the summary or None; `picture`, whether the plots are a group's own, which the caller decides.

    frames: the tables by name. columns: of the table `items`. metric: of the store.
    """
    where = shlex.quote(store.address)
    judged = metric and metric.name in columns and columns[metric.name].dtype.kind in "iuf"
    if metric and judged and (found := best_of(store, columns, metric)):
        (_, lead), *facts = found.facts().items()
        plot = overview(store, metric.name)
        made = [plot_json(plot)] if plot else []
        return _answer(f"Item {lead}", facts, found.next, made, "items")
    axis = summary_axis(store.description)
    opens = axis if axis in frames else "items"
    shown = store.description.summary if axis in frames else ["outcome"]
    dims = store.description.dims
    # Which result says how well an item did is not known: any may be asked for.
    further = {
        f"the best by {name}": f"ctd best {where} --by {shlex.quote(name)}"
        for name, var in dims.items()
        if opens == "items" and var.axes == () and name != "outcome" and name in columns
    }
    listed = {"all of them as a table": f"ctd query {where} --table {opens}"} | dict(
        list(further.items())[:2]
    )
    lead = count(len(frames[opens]), opens.removesuffix("s").replace("_", " "))
    rows = first_rows(frames[opens], [opens, *shown]) if axis == opens else None
    return _answer(lead, kinds(frames[opens], shown), listed, [], opens) | {"table": rows}


def _answer(
    lead: str,
    facts: Sequence[tuple[str, str]],
    listed: Mapping[str, str],
    plots: list[dict[str, object]],
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
    """Encode the first rows of a table, and its first columns among `names` whose values differ; None if no values differ."""
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
    """Count the rows of each combination of the first two text columns among `names`, the most frequent first."""
    texts = [n for n in names if n in frame and frame[n].dtype.kind not in "biufc"][:2]
    if not texts or not len(frame):
        return []
    rows = frame[texts].astype(str).agg(", ".join, axis=1).to_numpy()
    found, n = np.unique(rows.astype(str), return_counts=True)
    return [(str(found[k]), f"{n[k]:,}") for k in np.argsort(-n, kind="stable")[:MAX_KINDS]]
