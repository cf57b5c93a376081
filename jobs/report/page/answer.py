"""The first screen of a page: the best item, or counts of the rows of the kernel's summary, and what to type next."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ctd.words import brief
from jobs.errors import count
from jobs.query.best import Best, bests_of
from jobs.query.query import summed_up
from jobs.report.page.encode import table_json
from jobs.store.advice import again_command
from jobs.store.arrays import attributes
from jobs.store.store import Store

MAX_KINDS = 8
"""Most kinds of rows that are counted."""
MAX_SHOWN = 6
"""Most rows and columns of the summary."""


def answers(
    store: Store, frames: Mapping[str, pd.DataFrame], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Describe the best item, or that for each value of what the metric is measured on (at most MAX_KINDS); without a metric, count
    the rows of the kernel's summary.

    Returns, for each, `lead`, a sentence; `facts`, [name, text] pairs; `next`, [what, command] pairs; `opens`, the table to open;
    `table`, rows of the summary or None; `plots`, and `picture`, whether the page shows the first plot of the only group here, both
    of which the caller decides.

    frames: the tables by name. columns: of the table `items`.
    """
    metric = store.roles.metric
    judged = metric and metric.name in columns and columns[metric.name].dtype.kind in "iuf"
    if metric and judged and (best_items := bests_of(store, columns, metric)):
        entries = [_of_item(entry) for entry in best_items[:MAX_KINDS]]
        if len(best_items) > MAX_KINDS:
            entries[-1]["facts"].append(
                ("further", f"{len(best_items) - MAX_KINDS:,} more; `ctd best` shows all")
            )
    else:
        entries = [_summed_up(store, frames, columns)]
    if failed := [entry.item for items in store.failed.items().values() for entry in items]:
        address = shlex.quote(store.address)
        again = again_command(store, "--failed").strip("`")
        entries[0]["next"]["the items that failed with an error, again"] = again
        entries[0]["next"]["why one of them failed"] = f"ctd logs {address} --item {failed[0]}"
    return [
        entry
        | {"facts": list(map(list, entry["facts"])), "next": list(map(list, entry["next"].items()))}
        | {"plots": [], "picture": False}
        for entry in entries
    ]


def _of_item(best: Best) -> dict[str, Any]:
    (_, lead), *facts = best.facts().items()
    return {
        "lead": f"Item {lead}",
        "facts": facts,
        "next": dict(best.next),
        "opens": "items",
        "table": None,
    }


def _summed_up(
    store: Store, frames: Mapping[str, pd.DataFrame], columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """`answers` without a best item: about the kernel's summary (the first of its tables that tells something), or the items."""
    address = shlex.quote(store.address)
    summaries = {t: names for t, names in store.description.summaries().items() if t in frames}
    opens = store.description.first_shown(frames) or "items"
    frame, summary = frames[opens], summaries.get(opens, ["outcome"])
    if {"status", "outcome"} <= {*frame}:  # an item that failed with an error has no outcome
        frame = frame.assign(
            outcome=frame["outcome"].where(frame["outcome"] != "", frame["status"])
        )
    listed = {"all of them as a table": f"ctd query {address} --table {opens}"}
    if opens == "items" and store.job.plan.n_items > 1:
        # The kernel does not say which result judges an item: propose the first real numbers that are no part of a model.
        single = [name for name, var in store.description.dims.items() if var.axes == ()]
        candidates = [name for name in single if "." not in name and name in columns]
        metrics = [name for name in candidates if columns[name].dtype.kind == "f"][:2]
        listed |= {f"the best by {n}": f"ctd best {address} --by {shlex.quote(n)}" for n in metrics}
    labels, stay = _labels(store, frame), summed_up([store])
    # Where rows have names, each name is in each group.
    has_names = names_of(frame, opens) or (opens in summaries and are_names(frame, summary))
    facts = [] if has_names else [*kinds(frame, summary), *in_each(frame, labels)]
    if opens in summaries and len(frame) == 1:
        facts = [(name, brief(frame[name].iloc[0])) for name in summary if name in frame]
    return {
        "lead": ", ".join(count_rows(frame, opens, summary)),
        "facts": facts,
        "next": listed,
        "opens": opens,
        "table": first_rows(frame, [opens, *labels, *summary], stay) if summaries else None,
    }


def _labels(store: Store, frame: pd.DataFrame) -> list[str]:
    """The columns of a table that tell groups apart: the swept fields in which they differ, or `group` if these are many."""
    swept = attributes(store.results(0))["swept"]
    differ = [name for name in swept if name in frame and frame[name].astype(str).nunique() > 1]
    return differ if len(differ) < MAX_SHOWN // 2 else ["group"]


def first_rows(
    frame: pd.DataFrame, names: Sequence[str], stay: Collection[str] = ()
) -> dict[str, Any] | None:
    """The first rows of a table as JSON, in the columns among `names` whose values differ and, if there is room, those that `stay`;
    None if no values differ.
    """
    names = [name for name in dict.fromkeys(names) if name in frame]
    differ = [name for name in names if frame[name].astype(str).nunique() > 1]
    if not differ:
        return None
    alike = [name for name in names if name in stay and name not in differ]
    some = [*differ, *alike][:MAX_SHOWN]
    content = table_json("first", frame[[n for n in names if n in some]].head(MAX_SHOWN), {})
    if len(frame) > MAX_SHOWN:
        content["note"] = f"{MAX_SHOWN} of {len(frame):,} rows; more under Tables"
    return content


def names_of(frame: pd.DataFrame, table: str) -> int:
    """How many texts a table has in the column of its own name, such as `parameter`; 0 without such a column."""
    column = frame.get(table)
    return 0 if column is None or column.dtype.kind in "biufc" else column.nunique()


def count_rows(frame: pd.DataFrame, table: str, names: Sequence[str]) -> list[str]:
    """Count the rows of a table, by kind where the first of `names` is a text that takes the place of the table's adjective.

    >>> count_rows(pd.DataFrame({"kind": ["fixed", "slow", "slow"]}), "fixed_point", ["kind", "q"])
    ['1 fixed point', '2 slow points']
    >>> count_rows(pd.DataFrame({"fewest_steps": [3, 4]}), "connections", ["fewest_steps"])
    ['2 connections']
    >>> count_rows(pd.DataFrame({"parameter": ["n", "n"], "method": ["cka", "dsa"]}), "parameter", ["parameter"])
    ['1 parameter']
    """
    adjective, _, noun = table.removesuffix("s").replace("_", " ").rpartition(" ")
    column = frame.get(names[0]) if adjective and names and len(frame) else None
    if column is None or column.dtype.kind in "biufc":
        return [count(names_of(frame, table) or len(frame), f"{adjective} {noun}".strip())]
    texts, n = np.unique(column.to_numpy().astype(str), return_counts=True)
    order = np.argsort(texts != adjective, kind="stable")
    return [count(int(n[k]), f"{texts[k]} {noun}") for k in order]


def are_names(frame: pd.DataFrame, names: Sequence[str]) -> bool:
    """Return whether the first two text columns among `names` are names of rows, as of pairs: each combination is once in each group.

    >>> are_names(pd.DataFrame({"group": [0, 0, 1, 1], "first": ["a", "b", "a", "b"]}), ["first"])
    True
    """
    texts = _texts(frame, names)
    if not texts or frame.duplicated([*texts, "group"]).any():
        return False
    n = frame.groupby(texts).size()
    return len(n) > 1 and bool((n == frame["group"].nunique()).all())


def _texts(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [n for n in names if n in frame and frame[n].dtype.kind not in "biufc"][:2]


def kinds(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, str]]:
    """Count the rows of each combination of the first two text columns among `names`, the most frequent first."""
    texts = _texts(frame, names)
    if not texts or not len(frame):
        return []
    rows = frame[texts].astype(str).agg(", ".join, axis=1)
    counts = rows.groupby(rows).size().sort_values(ascending=False, kind="stable")
    return [(str(kind), f"{n:,}") for kind, n in counts.head(MAX_KINDS).items()]


def in_each(frame: pd.DataFrame, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Count the rows of a table for each combination of its columns `labels`; of many, tell the least and the most.

    >>> in_each(pd.DataFrame({"n": [20, 30, 30]}), ["n"])
    [('n 20', '1'), ('n 30', '2')]
    """
    if not labels:
        return []
    sizes = frame.groupby([*labels], sort=False, dropna=False).size().rename("rows").reset_index()
    if len(sizes) > MAX_KINDS:
        n, label = sizes["rows"], f"{', '.join(labels)}: {len(sizes):,} values"
        return [(label, f"{n.min():,} to {n.max():,} each, median {n.median():,g}")]
    return [
        (", ".join(f"{name} {row[name]}" for name in labels), f"{row['rows']:,}")
        for row in sizes.to_dict("records")
    ]
