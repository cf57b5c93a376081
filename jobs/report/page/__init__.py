"""The page of a store: one HTML file with its run, failures, plots and tables, which needs no network and no server.

    (here)     everything on the page, as JSON; the HTML around it
    answer     the first screen: the best item, or counts, and what to type next
    facts      counts, times, hosts, failures, logs      groups   plots of groups, also of running shards
    encode     plots and tables as JSON of bounded size; plots of several groups or stores as one
    pictures   plots that a store keeps for readers who do not run its kernel
    several    several stores as one: their facts and pictures, one set of tables, one sweep
    assets/    the page's HTML, CSS and JavaScript

The page's script inserts the JSON as text, never as markup, so that names and traces cannot inject any.
"""

import base64
import hashlib
import html
import json
import re
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from jobs.errors import JobError
from jobs.gather.gather import left_out
from jobs.query.collection import StoreCollection
from jobs.query.query import summed_up, table, tables
from jobs.query.tables import nothing_yet
from jobs.redact import redact
from jobs.report.factors import zipped
from jobs.report.figures import default_plots
from jobs.report.page.answer import answers
from jobs.report.page.encode import plot_json, table_json, titles_of
from jobs.report.page.facts import facts
from jobs.report.page.groups import groups, live
from jobs.report.page.several import several as several
from jobs.report.sweep import axes, overview, sweep
from jobs.store.events import read_events
from jobs.store.store import Store

SCRIPTS = (
    "dom.js", "items.js", "save.js", "layers.js", "plot.js", "traces.js", "parallel.js", "table.js",
    "overview.js", "sweep.js", "page.js",
)  # fmt: skip

EMPTY = {"answers": [], "groups": [], "groups_left_out": 0, "tables": [], "sweep": None}
"""`Content.results()` of a store without a committed shard."""


class Content:
    """The content of a store's page; each call reads the store anew, so that a page can follow a run."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def facts(self) -> dict[str, Any]:
        """The facts about the run, without results; fast."""
        rendered = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        content = facts(self._store)
        is_done = content["progress"]["shards"] == content["progress"]["shards_done"]
        content["live"] = None if is_done else live(self._store)
        return redact(content | {"made": rendered, "trouble": left_out(self._store)})

    def results(self) -> dict[str, Any]:
        """Plots, tables, and the importance of parameters; gathers newly committed shards first."""
        store = self._store
        if not store.committed.numbers():
            return dict(EMPTY)
        frames, columns = self._tables()
        content = self._answers_and_groups(frames, columns)
        entries, metric = content["answers"], store.roles.metric
        plots = [overview(store, metric.name)] if metric else []
        if not any(plots) and not any(group["plots"] for group in content["groups"]):
            plots = [plot for plot in default_plots(store)[:1] if plot.layers]
        elif not any(plots):
            entries[0]["picture"] = len(store.job.plan.group_sizes) == 1
        entries[0]["plots"] = [plot_json(plot) for plot in plots if plot]
        titles, stay = titles_of([store]), summed_up([store])
        content["tables"] = [
            table_json(name, frame, titles, stay=stay)
            for name, frame in frames.items()
            if frame.size
        ]
        content["sweep"] = _encoded(sweep(store, columns))
        return redact(content)

    def part(self) -> dict[str, Any]:
        """`facts`, answers, groups, and the axes of the sweep, for the page of several stores, which has tables and effects of its own."""
        if not self._store.committed.numbers():
            return self.facts() | EMPTY
        frames, columns = self._tables()
        content = self._answers_and_groups(frames, columns)
        return self.facts() | redact(content | {"sweep": _encoded(axes(self._store, columns))})

    def _tables(self) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
        """(The tables by name, the columns of the items), with the factors that the page draws as columns of the items."""
        frames = {name: table(self._store, name) for name in tables(self._store)}
        columns = {str(name): column.to_numpy() for name, column in frames["items"].items()}
        combined = zipped(self._store, columns)
        frames["items"] = frames["items"].assign(**combined)
        return frames, columns | combined

    def _answers_and_groups(
        self, frames: Mapping[str, pd.DataFrame], columns: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        group_entries, n_left_out = groups(self._store)
        entries = answers(self._store, frames, columns)
        return {"answers": entries, "groups": group_entries, "groups_left_out": n_left_out}

    def all(self) -> dict[str, Any]:
        """`facts` and `results` together."""
        return self.facts() | self.results()


def _encoded(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"plots": [plot_json(plot) for plot in content["plots"]]}


def content_of(stores: Sequence[Store]) -> dict[str, Any]:
    """The content of the page of one store, or of several together."""
    if len(stores) == 1:
        return Content(stores[0]).all()
    return several([Content(store).part() for store in stores], StoreCollection(stores))


def require_content(store: Store) -> None:
    """Raise JobError if there is nothing to report yet: no committed shard and no error."""
    errors = (event for event in read_events(store) if event.kind == "error")
    if not store.committed.numbers() and not any(errors):
        raise JobError(f"{store.address}: {nothing_yet([store])}")


# --- the HTML around it ---------------------------------------------------------------------------


def render(content: dict[str, object], live: str = "") -> str:
    """The page as HTML. live: path on the page's own server that returns newer content; "" without a server."""
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    # This script and this style are allowed by their digests, and nothing that the data could inject.
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; img-src data:; "
        f"connect-src {"'self'" if live else "'none'"}; base-uri 'none'; form-action 'none'"
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
