"""Print to the terminal: progress while a job runs, tables and JSON afterwards."""

import json
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ctd.words import brief, number
from jobs.errors import count
from jobs.query.columns import of_json
from jobs.run.progress import Listener
from jobs.run.progress import Progress as RunProgress

if TYPE_CHECKING:
    import pandas as pd

    type Columns = Mapping[str, Sequence[Any] | np.ndarray] | pd.DataFrame
    """A table: columns by name."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Write out the control characters of a text, so that none reaches the terminal.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class Plain(Console):
    """A console that prints text as it is: texts of a store are neither markup nor commands to the terminal."""

    def print(self, *things: Any, **options: Any) -> None:
        """Print as `Console` does, but with control characters written out."""
        super().print(*(printable(x) if isinstance(x, str) else x for x in things), **options)


as_text: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
# A file or a pipe has no width: tables are written in full.
out = Plain(**as_text, width=None if sys.stdout.isatty() else 250)
err = Plain(**as_text, stderr=True)

SLOW_S = 1.0
"""Time after which a slow step is announced (s)."""
PLAIN_EVERY_S = 60.0
"""Least time between two progress lines if the output is not a terminal (s)."""
NOTEBOOK_EVERY_S = 0.5
"""Least time between two states of a notebook's line (s)."""
PLAIN_SHARE = 0.01
"""Least time between two such lines as a share of the time so far: a night's run prints some hundred lines."""


@contextmanager
def live_progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows the progress: a bar on a terminal, one changing line in a notebook, elsewhere a line now and then."""
    if quiet:
        yield lambda p: None
    elif err.is_terminal:
        with _bar() as draw:
            yield draw
    else:
        yield _lines(err.is_jupyter)


@contextmanager
def _bar() -> Iterator[Listener]:
    bar = Progress(
        TextColumn("{task.fields[items]}", markup=False), BarColumn(30), TaskProgressColumn(),
        TextColumn("{task.fields[shards]}", markup=False), TimeElapsedColumn(), TextColumn("so far"),
    )  # fmt: skip
    task, now = bar.add_task("", total=1.0, items="", shards=""), list[RunProgress]()

    def draw(p: RunProgress) -> None:
        now[:] = [p]
        items, shards, _ = progress_words(p)
        bar.update(task, completed=p.share, items=items, shards=shards)

    # Rendered anew at each refresh, so that the seconds of a wait move; folded, because the console would cut them.
    line = lambda text: Text(printable(text), no_wrap=False, overflow="fold")
    words = lambda: Group(bar, *(line(text) for p in now for text in p.lines() if text))
    with Live(get_renderable=words, console=err, refresh_per_second=4):
        yield draw


def progress_words(p: RunProgress) -> list[str]:
    """The items, the shards, and all else that there is to say of a progress."""
    items = f"{p.items_done + p.running_items:,}/{count(p.n_items, 'item')}"
    return [items, f"{p.shards_done:,}/{count(p.n_shards, 'shard')}", p.text()]


def _lines(in_notebook: bool) -> Listener:
    """Print a line now and then; in a notebook, change one line, which begins with a bar."""
    last, waited, is_over, handle, bar = -math.inf, "", False, None, 30
    if in_notebook:
        from IPython.display import display

        handle = display({"text/plain": ""}, raw=True, display_id=True)

    def line(p: RunProgress) -> None:
        nonlocal last, waited, is_over
        now = time.monotonic()
        every = max(PLAIN_EVERY_S, PLAIN_SHARE * (now - p.started))
        due = last + (NOTEBOOK_EVERY_S if in_notebook else every)
        # Compilation may take a minute without any other line.
        begins, ends = p.waiting not in ("", waited), p.items_done == p.n_items
        if is_over or not (now >= due or begins or ends):
            return
        last, waited, is_over = now, p.waiting, ends
        (items, shards, remaining), full = progress_words(p), int(bar * p.share)
        share, bar_text = f"{p.share:.0%}", f"{'━' * full}{'─' * (bar - full)}"
        if handle:
            text = ", ".join(filter(None, [f"{bar_text} {share} {items}", shards, remaining]))
            handle.update({"text/plain": printable(text)}, raw=True)
        else:
            err.print(", ".join(filter(None, [items, shards, share * bool(p.work), remaining])))

    return line


@contextmanager
def told_if_slow(message: str, quiet: bool = False) -> Iterator[None]:
    """Print `message` if the block takes longer than a second, on a terminal with the seconds so far; nothing if `quiet`."""
    if not quiet and err.is_terminal:
        began = time.monotonic()
        seconds = lambda: time.monotonic() - began
        words = lambda: Text(f"{message}, {seconds():.0f} s" if seconds() > SLOW_S else "")
        with Live(get_renderable=words, console=err, refresh_per_second=4, transient=True):
            yield
        return
    timer = threading.Timer(SLOW_S, err.print, [message])
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def cell(value: object) -> str:
    """A value of a table as short text, safe to print."""
    return printable(brief(value), keep="")


def _cells(column: Sequence[Any] | np.ndarray) -> list[str]:
    """The values of a column as texts: reals that differ by less than a thousandth with 6 digits, since 4 would make them equal.

    >>> _cells([1122.31, 1122.45]), _cells([1122.31, 1155.0]), _cells([1e4, 1e4])
    (['1122.31', '1122.45'], ['1122', '1155'], ['10000', '10000'])
    """
    values = np.asarray(column)
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        if len(finite) and 0 < np.ptp(finite) < 1e-3 * abs(finite).max():
            return [number(value, 6) for value in values]
    return [*map(cell, column)]


def show_table(
    table: "Columns", title: str = "", limit: int | None = 40, all_columns: bool = True,
    hint: str = "--json shows them", keys: int = 1,
) -> None:  # fmt: skip
    """Print the first `limit` rows of a table (None: all), if it has any. No value is cut; long texts continue on the next line.

    all_columns: print columns that do not fit as further tables below, each with the first `keys` columns; else leave them
    out and name them. hint: how to see the rows that are left out.
    """
    if not n_rows(table):
        return
    values = {printable(str(name)): table[name][:limit] for name in table}
    numbers = {name for name in values if np.asarray(values[name]).dtype.kind in "iufc"}
    texts = {name: _cells(column) for name, column in values.items()}
    widths = {name: max(map(len, [name, *column])) for name, column in texts.items()}
    # Rich narrows texts to these as far as it must.
    least = {name: w if name in numbers else min(w, TEXT_WIDTH) for name, w in widths.items()}
    parts = side_by_side(least, out.width, keys)
    for k, part in enumerate(parts if all_columns else parts[:1]):
        out.print("\n" * (k > 0), end="")
        grid = Table(title="" if k else title or None, title_justify="left", box=None, pad_edge=False, padding=(0, GAP, 0, 0))  # fmt: skip
        for name in part:
            grid.add_column(
                name, justify="right" if name in numbers else "left", overflow="fold",
                no_wrap=name in numbers, min_width=least[name], max_width=widths[name],
            )  # fmt: skip
        for row in zip(*(texts[name] for name in part), strict=True):
            grid.add_row(*row)
        out.print(grid, crop=False)
    if limit is not None and n_rows(table) > limit:
        out.print(f"... {count(n_rows(table) - limit, 'more row')}; {hint}")
    if not all_columns and len(parts) > 1:
        left_out = [name for name in texts if name not in parts[0]]
        shows = f"+{count(len(left_out), 'column')}, --columns all shows them"
        out.print(f"{shows}: {', '.join(left_out)}")


def show_facts(
    facts: Mapping[str, str], styles: Mapping[str, str] | None = None, width: int = 0
) -> None:
    """Print named texts, aligned; empty ones are left out. styles: name -> the style of its text on a terminal. width: least one
    of the names.
    """
    texts = {name: text for name, text in facts.items() if text}
    width = max([width, *map(len, texts)]) + GAP
    for name, text in texts.items():
        out.print(name.ljust(width), style="dim", end="")
        out.print(text, style=(styles or {}).get(name))


def n_rows(table: "Columns") -> int:
    """The number of rows of a table."""
    return next((len(table[name]) for name in table), 0)


def records(table: "Columns") -> list[dict[str, Any]]:
    """The rows of a table as dictionaries of plain values.

    >>> records({"item": np.arange(2), "q": [0.5, 1.5]})
    [{'item': 0, 'q': 0.5}, {'item': 1, 'q': 1.5}]
    """
    columns = [np.asarray(table[name]).tolist() for name in table]
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


GAP = 2
"""Spaces between two columns of a table."""

TEXT_WIDTH = 20
"""Least width to which a column of texts is narrowed; longer texts continue on the next line."""


def side_by_side(widths: Mapping[str, int], room: int, keys: int = 1) -> list[list[str]]:
    """Divide columns into tables that are at most `room` wide; each table begins with the first `keys` columns.

    >>> side_by_side({"item": 4, "q": 10, "text": 12}, room=20)
    [['item', 'q'], ['item', 'text']]
    """
    first, others = list(widths)[:keys], list(widths)[keys:]
    parts = [[*first]]
    wide = lambda part: sum(widths[name] + GAP for name in part)
    for name in others:
        if wide(parts[-1]) + widths[name] > room and len(parts[-1]) > len(first):
            parts.append([*first])
        parts[-1].append(name)
    return parts


def write_table(
    table: "Columns", to: Path, described: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write a table to a file, and print how many rows it has. described: see `save_frame`."""
    import pandas as pd

    from jobs.query.files import save_frame

    save_frame(pd.DataFrame(table), to, described)
    err.print(f"wrote {count(n_rows(table), 'row')} to {to}")
    if to.suffix == ".json":
        say_infinite(table)


def say_infinite(table: "Columns") -> None:
    """Print which columns have infinite values, which are null in JSON."""
    of_floats = [name for name in table if np.asarray(table[name]).dtype.kind == "f"]
    if names := [str(name) for name in of_floats if np.isinf(np.asarray(table[name])).any()]:
        err.print(f"JSON has no infinity: null in {', '.join(names)}; --to X.csv keeps it")


def show_error(text: str) -> None:
    """Print an error to standard error."""
    err.print("error:", style="red", end=" ")
    err.print(text)


def warn(texts: Iterable[str]) -> None:
    """Print warnings, a line each."""
    for text in texts:
        err.print(f"warning: {text}", style="yellow")


def show_json(content: object) -> None:
    """Print strict JSON to standard output, for programs: what is no finite number is null."""
    json.dump(of_json(content), sys.stdout, default=str, allow_nan=False)
    sys.stdout.write("\n")
