"""The page of a store: one HTML file with its run, failures, plots and tables, which needs no network and no server.

    content    everything on the page, as JSON, and the first screen: the best, a picture, what to type next
    facts      counts, times, hosts, failures, logs      groups   plots of groups, also of running shards
    encode     plots and tables as JSON of bounded size; plots of several groups or stores as one
    pictures   plots that a store keeps for readers who do not run its kernel
    several    the contents of several stores as one
    render     (here) the HTML around the JSON           assets/  its HTML, CSS and JavaScript

The page's script inserts the JSON as text, never as markup, so that names and traces cannot inject any.
"""

import base64
import hashlib
import html
import json
import re
from importlib.resources import files

from jobs.report.page.content import EMPTY as EMPTY
from jobs.report.page.content import Content as Content
from jobs.report.page.content import require_content as require_content
from jobs.report.page.groups import Groups as Groups
from jobs.report.page.several import several as several

SCRIPTS = (
    "dom.js", "items.js", "save.js", "axes.js", "layers.js", "plot.js", "traces.js", "parallel.js", "table.js",
    "item.js", "overview.js", "sweep.js", "page.js",
)  # fmt: skip


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
