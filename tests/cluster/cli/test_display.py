"""What is said while a job runs."""

import io
import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from processes import until

from cluster.cli import display
from jobs.run.progress import Progress
from jobs.store.live import Value

IDLE = "no worker is ready since 66 s (ray's own logs may say why)"


def test_plain_lines_say_at_once_that_a_program_is_compiled(capsys):
    with display.live_progress() as tell:
        for waiting in ("", "compiling", "compiling"):
            tell(Progress(8, 1, waiting=waiting))
    assert capsys.readouterr().err == "0/8 items, 0/1 shard\n0/8 items, 0/1 shard, compiling, 0 s\n"


def test_bar_moves_by_advances_and_its_seconds_by_themselves(monkeypatch):
    """A terminal: half of one item's advances are half an item; while nothing is told, the wait is drawn anew."""
    told = io.StringIO()
    terminal = display.Plain(**display.as_text, file=told, force_terminal=True, width=100)
    monkeypatch.setattr(display, "err", terminal)
    with display.live_progress() as tell:
        tell(Progress(4, 2, work=1.0, waiting="compiling"))
        until(lambda: "compiling, 1 s" in told.getvalue(), "its seconds move")
        tell(Progress(4, 2, items_done=1, shards_done=1, running_items=1, work=2.0))
    last = told.getvalue()
    assert "25%" in last
    assert "2/4 items" in last
    assert "75%" in last


def test_words_below_the_bar_wrap_and_troubles_stand_alone(monkeypatch):
    """A terminal of 60 columns; they were cut at its edge."""
    told = io.StringIO()
    terminal = display.Plain(**display.as_text, file=told, force_terminal=True, width=60)
    monkeypatch.setattr(display, "err", terminal)
    value = Value("loss in training", 0.9395, 0.921)
    moving = Progress(4, 2, advances=(0, 23), most_advances=2000, value=value, work=1.0)
    moving.moving_since, moving.trouble = time.monotonic() - 100, IDLE
    with display.live_progress() as tell:
        tell(moving)
    drawn = told.getvalue().rpartition("\nadvances")[2].splitlines()
    words, trouble = " ".join(map(str.strip, drawn)).split(" left ")
    assert words.startswith("0-23/2000, median loss in training 0.9395, best 0.921, 5 min")
    assert trouble.startswith(f"waiting: {IDLE}")
    assert max(map(len, drawn)) <= 60


def test_notebook_has_one_line_that_changes(monkeypatch):
    """IPython's display gets one output, which is updated."""
    shown = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(content["text/plain"]))
    ipython = SimpleNamespace(display=lambda *a, **b: handle)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=ipython))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    monkeypatch.setattr(display.err, "is_jupyter", True)
    with display.live_progress() as tell:
        tell(Progress(4, 2, work=2.0))
        tell(Progress(4, 2, work=2.5))
        tell(Progress(4, 2, items_done=4, shards_done=2))
    assert [line.partition(",")[0] for line in shown] == [
        "━" * 15 + "─" * 15 + " 50% 0/4 items",
        "━" * 30 + " 100% 4/4 items",
    ]


def test_what_is_slow_is_told_while_it_lasts(capsys, monkeypatch):
    monkeypatch.setattr(display, "SLOW_S", 0.01)
    with display.told_if_slow("reducing"):
        until(lambda: "reducing" in capsys.readouterr().err, "it is told")
    with display.told_if_slow("drawing", quiet=True):
        time.sleep(0.05)
    monkeypatch.setattr(display, "SLOW_S", 60)
    with display.told_if_slow("planning"):
        pass
    assert capsys.readouterr().err == ""


def test_plain_lines_get_rarer(capsys, monkeypatch):
    """A line a minute at first; after two hours, one every hundredth of the time."""
    began = float(int(time.monotonic()))  # whole seconds: sums of them are exact
    now = [began]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with display.live_progress() as tell:
        progress = Progress(8, 1, advances=(7,), started=began)
        times = []
        while now[0] < began + 7200:
            tell(progress)
            if capsys.readouterr().err:
                times.append(now[0] - began)
            now[0] += 1
        progress.items_done, progress.shards_done = 8, 1
        for _ in range(2):  # after the last shard, and at the end of the run
            tell(progress)
    assert capsys.readouterr().err == "8/8 items, 1/1 shard, advance 7, in 2 h 0 min\n"
    gaps = np.diff(times).tolist()
    assert times[0] == 0
    assert gaps[0] == 60
    assert gaps[-1] == pytest.approx(72, abs=2)
    assert gaps == sorted(gaps)


HOSTILE = [
    "[/red]x",
    "[link=http://x]y[/link]",
    ":smile:",
    "\x1b]0;title\x07",
    "a\x9bb",
    "\u202eevil",
    "line\nbreak",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_text(capsys, text):
    """No markup, no emoji, and nothing that a terminal would obey."""
    display.show_table(pd.DataFrame({text: [text]}), title="t")
    display.out.print(text)
    display.show_error(text)
    told = capsys.readouterr()
    for where in (told.out, told.err):
        assert all(c.isprintable() or c == "\n" for c in where), where
    assert display.printable(text) in told.out
    assert told.err == f"error: {display.printable(text)}\n"


def test_shown_writes_out_what_a_terminal_would_obey():
    assert display.printable("a\x1b[31mb\u202e\tc\n") == "a\\x1b[31mb\\u202e\tc\n"
    assert display.printable("a\nb", keep="") == "a\\nb"


WIDE = pd.DataFrame(
    {
        "item": [3, 62599],
        "q": [8.359e-08, 1e-300],
        "name": ["a text that is a good deal longer than others", "b"],
        "z": [1 - 2.5e-05j, 2j],
    }
)


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (60, 1), (40, 2), (20, 3)])
def test_table_cuts_no_value(capsys, monkeypatch, width, tables):
    """Text goes on in a further line; further tables begin with the first column."""
    monkeypatch.setattr(display.out, "_width", width)
    display.show_table(WIDE)
    told = capsys.readouterr().out
    assert told.count("62599") == told.count("item") == tables
    for value in ("8.359e-8", "1e-300", "1-2.5e-5i", "0+2i"):
        assert value in told
    words = told.split()
    assert all(
        word in words
        for word in ["a", "text", "that", "is", "good", "deal", "longer", "than", "others"]
    )
    assert max(len(line.rstrip()) for line in told.splitlines()) <= max(width, 27)


def test_further_tables_begin_with_all_columns_of_the_key(capsys, monkeypatch):
    monkeypatch.setattr(display.out, "_width", 20)
    table = {"group": [0, 1], "row": [7, 8], "first": [3, 3], "second": [4, 4]}
    display.show_table(table, keys=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["group", "row", "first"], ["0", "7", "3"], ["1", "8", "3"], [],
        ["group", "row", "second"], ["0", "7", "4"], ["1", "8", "4"],
    ]  # fmt: skip


def test_table_names_the_columns_that_it_leaves_out(capsys, monkeypatch):
    monkeypatch.setattr(display.out, "_width", 40)
    display.show_table(WIDE, all_columns=False)
    assert capsys.readouterr().out.splitlines()[-1] == "+1 column, --columns all shows them: z"


def test_json_is_strict(capsys):
    """JSON has neither NaN nor Infinity: most readers refuse them."""
    rows = display.records({"loss": np.array([0.5, np.nan, -np.inf]), "n": np.arange(3)})
    display.show_json({"rows": rows, "mean": np.float32("nan"), "more": (pd.NA, [pd.NaT, 1j])})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["loss"] for row in found["rows"]] == [0.5, None, None]
    assert (found["mean"], found["more"]) == (None, [None, [None, "1j"]])
