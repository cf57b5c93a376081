"""`ctd logs`: each event as a line that says what happened, to which shard, and where."""

import time

import numpy as np
import pytest
from search_jobs import results, whole_store

from ctd.batch import Layout
from jobs.plan.layout import Shard
from jobs.report.history import by_shard, dropped_at, history_lines
from jobs.store.arrays import DROPPED
from jobs.store.events import Begin, Commit, End, Event, Failure, Kill, Remark
from jobs.store.marker import FailedItem, Marker

TRACE = '  File "/me/hill.py", line 3, in advance\n    return 1 / 0\nZeroDivisionError: division by zero'
HERE = {"host": "node7", "pid": 5}
EVENTS = [
    (Begin(executor="ray", pending=12, workers=2, **HERE), "run: 12 shards to compute, ray, 2 workers (node7, process 5)"),
    (Commit(shard=4, attempt=1, seconds=0.5, n_failed=2, **HERE), "shard 4 done, 0.5 s, 2 items failed (node7, process 5)"),
    (Commit(kind="committed", shard=4, seconds=1234.5, device_kind="cpu", rounds=20, outcomes={"trained": 3, "diverged": 0}),
     "shard 4 committed, 20 min 34 s, 20 advances, 3 trained (cpu)"),
    (Failure(shard=3, attempt=2, error="ValueError: x", fault="error", probe=True, rows=[4, 8]), "shard 3, attempt 2 failed in rows 4 to 7 alone: ValueError: x"),
    (Failure(shard=3, error="x", probe=True, rows=[4, 5]), "shard 3 failed in row 4 alone: x"),
    (Failure(shard=3, attempt=1, error="no room", fault="memory", rows=[0, 8]), "shard 3 failed (memory): no room"),
    (Failure(shard=3, error="the worker died (node): gone", fault="death", died="node"), "shard 3 failed: the worker died (node): gone"),
    (Failure(kind="stopped", shard=1, error="stopped after 4 advances", fault="stopped"), "shard 1 stopped: stopped after 4 advances"),
    (Remark(group=1, text="3 shards given up"), "group 1: 3 shards given up"),
    (Remark(text="changed source accepted: hill"), "changed source accepted: hill"),
    (End(done=11, failed=1, stopped="SIGTERM", lost=[3, 4]), "end: 11 shards done, 1 failed, stopped: SIGTERM; running then: 3, 4"),
    (End(done=12, failed=0, stopped=None, **HERE), "end: 12 shards done, 0 failed (node7, process 5)"),
    (End(done=2, failed=0, n_failed=2, stopped=None), "end: 2 shards done, 0 failed; 2 items failed"),
    (Kill(**HERE), "killed: the driver (node7, process 5)"),
    (Event(kind="of another version", shard=2, x=1), "of another version: shard 2, x 1"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=[line[:20] for _, line in EVENTS])
def test_line_of_an_event(event, line):
    (said,) = history_lines([event], time.gmtime)
    assert said.split("  ", 1)[1] == line


def test_a_commit_is_told_with_all_that_its_marker_says():
    marker = Marker(
        shard=Shard(4, 0, 0, 8), attempt=2, outcomes={"trained": 8}, layout=Layout(8, 8), rounds=20, seconds=28.61,
        host="node7", pid=5, device_kind="cpu",
    )  # fmt: skip
    told = history_lines(by_shard([marker], [], {})[4], time.gmtime)
    what = "shard 4, attempt 2 committed, 28.6 s, 20 advances, 8 trained (node7, process 5, cpu)"
    assert told == [f"1970-01-01 00:00:28  {what}"]


def test_an_item_that_a_search_dropped_says_at_which_rung():
    """Halving at 2, 6 and 18 advances."""
    store = whole_store("halving")
    found = results(store)
    dropped = found["status"] == DROPPED
    assert dropped_at(store, int(np.flatnonzero(~dropped)[0])) == ""
    for rung in range(3):
        row = int(np.flatnonzero(dropped & (found["search_advances"] == 2 * 3**rung))[0])
        said = f"at rung {rung + 1} of the search, after {2 * 3**rung} advances"
        assert dropped_at(store, row) == said


def test_an_item_with_fields_of_a_stranger_is_left_out():
    items = [FailedItem(row=k, item=k, error="no", pid=pid) for k, pid in enumerate([5, "[/]"])]
    assert history_lines(by_shard([], [], {0: items})[0], time.gmtime) == [
        "1970-01-01 00:00:00  item 0 failed: no"
    ]


def test_lines_of_an_error_end_with_its_traceback():
    event = Failure(time=0, kind="item failed", item=7, error="ZeroDivisionError: x", trace=TRACE)
    first, *frames = history_lines([event], time.gmtime, full=False)
    assert first == "1970-01-01 00:00:00  item 7 failed: ZeroDivisionError: x"
    assert frames == ["    /me/hill.py:3 in advance: return 1 / 0"]
    assert len(history_lines([event], time.gmtime)) == 1 + len(TRACE.splitlines())
