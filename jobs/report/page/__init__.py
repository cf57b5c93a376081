"""The page of a store: one HTML file with its run, failures, plots and tables, which needs no network and no server.

    (here)     everything on the page, as JSON, with the first screen: the best, a picture, what to type next; the HTML around it
    facts      counts, times, hosts, failures, logs      groups   plots of groups, also of running shards
    encode     plots and tables as JSON of bounded size; plots of several groups or stores as one
    pictures   plots that a store keeps for readers who do not run its kernel
    several    the contents of several stores as one     assets/  the page's HTML, CSS and JavaScript

The page's script inserts the JSON as text, never as markup, so that names and traces cannot inject any.
"""

import base64
import hashlib
import html
import json
import re
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from jobs.errors import JobError, count
from jobs.gather.gather import left_out
from jobs.query.best import best_of
from jobs.query.query import table, tables
from jobs.query.tables import nothing_yet
from jobs.redact import redact
from jobs.report.factors import zipped
from jobs.report.figures import default_plots
from jobs.report.page.encode import ordered, plot_json, summed_up, table_json, titles_of
from jobs.report.page.facts import facts
from jobs.report.page.groups import groups, live
from jobs.report.page.several import several as several
from jobs.report.sweep import overview, sweep
from jobs.store.arrays import attributes
from jobs.store.events import read_events
from jobs.store.store import Store, again_command, metric_of

SCRIPTS = (
    "dom.js", "items.js", "save.js", "layers.js", "plot.js", "traces.js", "parallel.js", "table.js",
    "overview.js", "sweep.js", "page.js",
)  # fmt: skip
MAX_KINDS = 8
"""Most kinds of rows that are counted."""
MAX_SHOWN = 6
"""Most rows and columns of the summary that the first screen shows."""

EMPTY: dict[str, Any] = {
    "answers": [], "groups": [], "groups_left_out": 0, "tables": [], "sweep": None
}  # fmt: skip
"""`Content.results()` of a store without a committed shard."""


class Content:
    """The content of a store's page, which can be collected again while a run goes on: each call reads the store anew."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def facts(self) -> dict[str, Any]:
        """The facts about the run, without results; fast."""
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        found = facts(self._store)
        is_done = found["progress"]["shards"] == found["progress"]["shards_done"]
        found["live"] = None if is_done else live(self._store)
        return redact(found | {"made": made, "trouble": left_out(self._store)})

    def results(self) -> dict[str, Any]:
        """Plots, tables, and the importance of parameters; gathers newly committed shards first."""
        store = self._store
        if not store.committed.numbers():
            return dict(EMPTY)
        frames = {name: table(store, name) for name in tables(store)}
        frames["items"] = ordered(frames["items"], store.swept, [store])
        columns = {str(name): column.to_numpy() for name, column in frames["items"].items()}
        first = answer(store, frames, columns)
        drawn, n_left_out = groups(store)
        # Of one group, the first picture is a part of the answer; of a kernel that draws nothing, the default one.
        if not first["plots"] and not any(group["plots"] for group in drawn):
            first["plots"] = [plot_json(plot) for plot in default_plots(store)[:1] if plot.layers]
        elif not first["plots"] and len(store.job.plan.group_sizes) == 1:
            first |= {"plots": drawn[0]["plots"][:1], "picture": True}
            drawn[0]["plots"] = drawn[0]["plots"][1:]
        # The page draws columns of the table `items`.
        combined = zipped(store, columns)
        frames["items"] = frames["items"].assign(**combined)
        swept, titles = sweep(store, columns | combined), titles_of([store])
        found = {
            "answers": [first],
            "groups": drawn,
            "groups_left_out": n_left_out,
            "tables": [
                table_json(name, one, titles, stay=summed_up([store]))
                for name, one in frames.items()
                if one.size
            ],
            "sweep": swept | {"plots": [plot_json(plot) for plot in swept["plots"]]},
        }
        return redact(found)

    def all(self) -> dict[str, Any]:
        """`facts` and `results` together."""
        return self.facts() | self.results()


def require_content(store: Store) -> None:
    """Raise JobError if there is nothing to report yet: no committed shard and no error."""
    errors = (event for event in read_events(store) if event.kind == "error")
    if not store.committed.numbers() and not any(errors):
        raise JobError(f"{store.address}: {nothing_yet([store])}")


# --- the first screen -----------------------------------------------------------------------------


def answer(
    store: Store, frames: Mapping[str, pd.DataFrame], columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Describe the best item; without a metric, count the rows of the kernel's summary.

    Returns `lead`, a sentence; `facts`, [name, text] pairs; `next`, [what, command] pairs; `plots`; `opens`, the table
    to open; `table`, rows of the summary or None; `picture`, whether the plots are a group's own, which the caller decides.

    frames: the tables by name. columns: of the table `items`.
    """
    metric = metric_of(store)
    judged = metric and metric.name in columns and columns[metric.name].dtype.kind in "iuf"
    if metric and judged and (found := best_of(store, columns, metric)):
        (_, best), *facts = found.facts().items()
        plot = overview(store, metric.name)
        said: dict[str, Any] = {
            "lead": f"Item {best}",
            "facts": facts,
            "next": dict(found.next),
            "plots": [plot_json(plot)] if plot else [],
            "opens": "items",
            "table": None,
        }
    else:
        said = {"plots": [], **_summed_up(store, frames, columns)}
    if failed := [one.item for items in store.failed.items().values() for one in items]:
        where = shlex.quote(store.address)
        said["next"] |= {
            "the items that failed with an error, again": again_command(store, "--failed").strip(
                "`"
            ),
            "why one of them failed": f"ctd logs {where} --item {failed[0]}",
        }
    pairs = {"facts": list(map(list, said["facts"])), "next": list(map(list, said["next"].items()))}
    return said | pairs | {"picture": False}


def _summed_up(
    store: Store, frames: Mapping[str, pd.DataFrame], columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """`answer` without a best item: what the kernel sums up in, the first of its tables with rows, else the first; else the items."""
    where = shlex.quote(store.address)
    summaries = {t: names for t, names in store.description.summaries().items() if t in frames}
    opens = next((t for t in summaries if len(frames[t])), next(iter(summaries), "items"))
    frame, shown = frames[opens], summaries.get(opens, ["outcome"])
    listed = {"all of them as a table": f"ctd query {where} --table {opens}"}
    if opens == "items" and store.job.plan.n_items > 1:
        # Which result says how well an item did is not known: any real number that is not part of what is handed on may be asked for.
        single = [name for name, var in store.description.dims.items() if var.axes == ()]
        own = [name for name in single if "." not in name and name in columns]
        asked = [name for name in own if columns[name].dtype.kind == "f"][:2]
        listed |= {f"the best by {n}": f"ctd best {where} --by {shlex.quote(n)}" for n in asked}
    alone, labels = opens in summaries and len(frame) == 1, _labels(store, frame)
    return {
        "lead": ", ".join(counted(frame, opens, shown)),
        "facts": row_facts(frame, shown)
        if alone
        else [*kinds(frame, shown), *in_each(frame, labels)],
        "next": listed,
        "opens": opens,
        "table": first_rows(frame, [opens, *labels, *shown], summed_up([store]))
        if summaries
        else None,
    }


def _labels(store: Store, frame: pd.DataFrame) -> list[str]:
    """The columns of a table that tell groups apart: the swept fields in which they differ, or `group` if these are many."""
    own = attributes(store.results(0))["swept"]
    differ = [name for name in own if name in frame and frame[name].astype(str).nunique() > 1]
    return differ if len(differ) < MAX_SHOWN // 2 else ["group"]


def first_rows(
    frame: pd.DataFrame, names: Sequence[str], stay: Collection[str] = ()
) -> dict[str, Any] | None:
    """Encode the first rows of a table, and its first columns among `names`: those whose values differ and, as far as there is
    room, those that `stay`; None if no values differ.

    Its note says how many rows there are.
    """
    differ = [name for name in names if name in frame and frame[name].astype(str).nunique() > 1]
    if not differ:
        return None
    alike = [name for name in names if name in frame and name in stay and name not in differ]
    some = [*differ, *alike][:MAX_SHOWN]
    found = table_json("first", frame[[n for n in names if n in some]].head(MAX_SHOWN), {})
    if len(frame) > MAX_SHOWN:
        found["note"] = f"{MAX_SHOWN} of {len(frame):,} rows; more under Tables"
    return found


def counted(frame: pd.DataFrame, table: str, names: Sequence[str]) -> list[str]:
    """Count the rows of a table, by kind where the first of `names` is a text that takes the place of the table's adjective.

    >>> counted(pd.DataFrame({"kind": ["fixed", "slow", "slow"]}), "fixed_point", ["kind", "q"])
    ['1 fixed point', '2 slow points']
    >>> counted(pd.DataFrame({"fewest_steps": [3, 4]}), "connections", ["fewest_steps"])
    ['2 connections']
    """
    adjective, _, noun = table.removesuffix("s").replace("_", " ").rpartition(" ")
    column = frame.get(names[0]) if adjective and names and len(frame) else None
    if column is None or column.dtype.kind in "biufc":
        return [count(len(frame), f"{adjective} {noun}".strip())]
    found, n = np.unique(column.to_numpy().astype(str), return_counts=True)
    order = np.argsort(found != adjective, kind="stable")
    return [count(int(n[k]), f"{found[k]} {noun}") for k in order]


def kinds(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, str]]:
    """Count the rows of each combination of the first two text columns among `names`, the most frequent first."""
    texts = [n for n in names if n in frame and frame[n].dtype.kind not in "biufc"][:2]
    if not texts or not len(frame):
        return []
    rows = frame[texts].astype(str).agg(", ".join, axis=1)
    found = rows.groupby(rows).size().sort_values(ascending=False, kind="stable")
    return [(str(kind), f"{n:,}") for kind, n in found.head(MAX_KINDS).items()]


def in_each(frame: pd.DataFrame, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Count the rows of a table for each combination of its columns `labels`; of many, tell the least and the most.

    >>> in_each(pd.DataFrame({"n": [20, 30, 30]}), ["n"])
    [('n 20', '1'), ('n 30', '2')]
    """
    if not labels:
        return []
    sizes = frame.groupby([*labels], sort=False, dropna=False).size().rename("rows").reset_index()
    if len(sizes) > MAX_KINDS:
        n, which = sizes["rows"], f"{', '.join(labels)}: {len(sizes):,} values"
        return [(which, f"{n.min():,} to {n.max():,} each, median {n.median():,g}")]
    return [
        (", ".join(f"{name} {one[name]}" for name in labels), f"{one['rows']:,}")
        for one in sizes.to_dict("records")
    ]


def row_facts(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, str]]:
    """The values of the only row of a table in the columns `names`, as texts.

    >>> row_facts(pd.DataFrame({"verdict": ["chaos"], "probability": [0.63174]}), ["verdict", "probability"])
    [('verdict', 'chaos'), ('probability', '0.6317')]
    """
    text = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    return [(name, text(frame[name].iloc[0])) for name in names if name in frame]


# --- the HTML around it ---------------------------------------------------------------------------


def render(content: dict[str, object], live: str = "") -> str:
    """The page as HTML. live: path on the page's own server that returns newer content; "" without a server."""
    # The policy allows this script and this style by their digests, and nothing that the data could inject.
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{_digest(script)}'",
            f"style-src 'sha256-{_digest(style)}'",
            "img-src data:",
            f"connect-src {"'self'" if live else "'none'"}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    parts = {
        "POLICY": html.escape(policy),
        "TITLE": html.escape(f"{content['title']} - ctd"),
        "STYLE": style,
        "DATA": embed({"live": live, "content": content}),
        "SCRIPT": script,
    }
    # Substitute in one pass, so that text in the data that looks like {{MARK}} stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _asset("page.html"))


def embed(value: object) -> str:
    """Write JSON that is safe inside a script element: <, >, & and all non-ASCII characters are escaped.

    >>> embed({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("jobs.report.page") / "assets" / name).read_text(encoding="utf-8")
