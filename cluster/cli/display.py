"""Terminal output: progress while a job runs, tables and JSON after it."""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs.run.progress import Listener
from jobs.run.progress import Progress as RunProgress

if TYPE_CHECKING:
    import pandas as pd


def shown(text: str, keep: str = "\n\t") -> str:
    """Return the text with its control characters written out, so that none of them reaches the terminal."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class Plain(Console):
    """A console for which text is text: what a store says is neither markup nor commands to the terminal."""

    def print(self, *things: Any, **options: Any) -> None:
        """Print as `Console` does, text with its control characters written out."""
        super().print(*(shown(x) if isinstance(x, str) else x for x in things), **options)


as_text: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
# A file or a pipe has no width, so tables are written in full.
out = Plain(**as_text, width=None if sys.stdout.isatty() else 250)
err = Plain(**as_text, stderr=True)

PLAIN_EVERY_S = 5.0
"""Least seconds between two progress lines if the output is not a terminal."""
PLAIN_SHARE = 0.01
"""The same as a share of the time so far, so that a night's run prints some hundred lines."""


def describe(p: RunProgress) -> str:
    """The progress in one line: outcomes, rate, time left, trouble."""
    parts = [f"{n:,} {name}" for name, n in p.outcomes.items() if n]
    if p.advances and max(p.advances) > 1:  # else it adds nothing to the number of items
        few, many = min(p.advances), max(p.advances)
        parts.append(f"advance {many}" if few == many else f"advances {few}-{many}")
    if p.stage and p.shards_done < p.n_shards:
        parts.append(p.stage)
    if p.tuning:
        parts.append("tuning")
    fresh = p.items_done - p.items_before + p.running_items
    elapsed = time.monotonic() - p.started
    if fresh and elapsed > 0:
        rate = fresh / elapsed
        parts.append(f"{rate:,.3g} items/s")
        left = p.n_items - p.items_before - fresh
        if left > 0:
            parts.append(f"ETA {left / rate:,.0f} s")
    if p.retried:
        parts.append(f"{p.retried} retried")
    if p.failed_items:
        parts.append(f"{len(p.failed_items)} items failed with an error")
    if p.trouble:
        parts.append(f"waiting: {p.trouble}")
    if p.failed:
        parts.append(f"{len(p.failed)} shards failed")
    return ", ".join(parts)


@contextmanager
def live_progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that draws a bar on a terminal, or else prints a line now and then; nothing if `quiet`."""
    if quiet:
        yield lambda p: None
    elif err.is_terminal:
        with Progress(
            TextColumn("items"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shards]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=err,
        ) as bar:
            task = bar.add_task("items", total=None, shards="", text="")

            def draw(p: RunProgress) -> None:
                bar.update(
                    task,
                    total=p.n_items,
                    completed=p.items_done + p.running_items,
                    shards=f"shards {p.shards_done}/{p.n_shards}",
                    text=shown(describe(p)),
                )

            yield draw
    else:
        last = [-math.inf]

        def line(p: RunProgress) -> None:
            now = time.monotonic()
            due = last[0] + max(PLAIN_EVERY_S, PLAIN_SHARE * (now - p.started))
            if now >= due or p.items_done == p.n_items:
                last[0] = now
                items = f"{p.items_done + p.running_items:,}/{p.n_items:,} items"
                shards = f"{p.shards_done}/{p.n_shards} shards"
                err.print(", ".join(filter(None, [items, shards, describe(p)])))

        yield line


def cell(value: Any) -> str:
    """One value of a table as short text."""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, complex | np.complexfloating):
        return f"{value.real:.4g}{value.imag:+.4g}i"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return shown(str(value), keep="")


def show_table(frame: "pd.DataFrame", title: str = "", limit: int = 40) -> None:
    """Print the first `limit` rows of a frame as a table."""
    table = Table(title=title or None, title_justify="left")
    for name in frame.columns:
        number = frame[name].dtype.kind in "iufc"
        table.add_column(shown(str(name)), justify="right" if number else "left")
    # Not iterrows, which turns integers into floats: item 62599 would become 6.26e+04.
    for row in frame.head(limit).itertuples(index=False, name=None):
        table.add_row(*(cell(value) for value in row))
    out.print(table)
    if len(frame) > limit:
        out.print(f"... {len(frame) - limit:,} more rows; ctd query shows them")


def show_error(text: str) -> None:
    """Print why a command fails to standard error."""
    err.print("error:", style="red", end=" ")
    err.print(text)


def show_json(content: Any) -> None:
    """Print JSON to standard output, for programs."""
    json.dump(content, sys.stdout, default=_plain)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
