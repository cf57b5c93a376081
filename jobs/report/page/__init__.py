"""The page of a store: one HTML file with its run, failures, plots and tables, which needs no network and no server.

    (here)     everything on the page, as JSON; the HTML around it
    answer     the first screen: the best item, or counts, and what to type next
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
import time
from importlib.resources import files
from typing import Any

from jobs.errors import JobError
from jobs.gather.gather import left_out
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
from jobs.report.sweep import sweep
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
        frames = {name: table(store, name) for name in tables(store)}
        columns = {str(name): column.to_numpy() for name, column in frames["items"].items()}
        entries = answers(store, frames, columns)
        first = entries[0]
        group_entries, n_left_out = groups(store)
        if not first["plots"] and not any(group["plots"] for group in group_entries):
            first["plots"] = [plot_json(plot) for plot in default_plots(store)[:1] if plot.layers]
        elif not first["plots"]:
            first["picture"] = len(store.job.plan.group_sizes) == 1
        # The page draws columns of the table `items`.
        combined = zipped(store, columns)
        frames["items"] = frames["items"].assign(**combined)
        swept, titles = sweep(store, columns | combined), titles_of([store])
        content = {
            "answers": entries,
            "groups": group_entries,
            "groups_left_out": n_left_out,
            "tables": [
                table_json(name, frame, titles, stay=summed_up([store]))
                for name, frame in frames.items()
                if frame.size
            ],
            "sweep": swept | {"plots": [plot_json(plot) for plot in swept["plots"]]},
        }
        return redact(content)

    def all(self) -> dict[str, Any]:
        """`facts` and `results` together."""
        return self.facts() | self.results()


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
