"""Progress moves with the advances of running shards, is described in a line, and is told to other processes."""

import math
import time
from collections import Counter
from dataclasses import replace

import pytest
from failing import Interrupted
from page_stores import create
from processes import until

from jobs import keys
from jobs.errors import duration
from jobs.report.planned import done_so_far
from jobs.report.summary import _reported, facts, state
from jobs.run.progress import Progress
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import ShardProgress
from jobs.run.worker import SerialExecutor
from jobs.storage import lease, objects
from jobs.storage.lease import LeaseRecord
from jobs.store.live import Value
from jobs.store.look import Look
from jobs.store.store import Store
from jobs.store.tally import Tally


@pytest.mark.parametrize(
    ("advances", "most", "said"),
    [
        ((), 0, ""),
        ((1, 0), 0, ""),
        ((1,), 1, ""),
        ((1, 0), 50, "advances 0-1/50"),
        ((37,), 0, "advance 37"),
        ((37,), 50, "advance 37/50"),
        ((7, 7), 8, "advance 7/8, then results"),
        ((12, 40, 12), 40, "advances 12-40/40"),
    ],
)
def test_text_of_advances(advances, most, said):
    assert Progress(8, 1, advances=advances, most_advances=most).text() == said


def test_items_that_have_ended_before_the_most_advances_are_written():
    now = Progress(2, 1)
    now.update([ShardProgress(finished=2, advances=1, most=8, work=2.0)])
    assert now.text() == "writing results"


@pytest.mark.parametrize(
    ("stage", "best", "said"),
    [
        ("", "", "advance 2/4, median eval_loss 0.5, best 0.2"),
        ("generation 1 of 8", "", "generation 1 of 8 (advance 2/4), median eval_loss 0.5, best 0.2"),
        ("generation 2 of 8", "best eval_loss 0.3", "generation 2 of 8 (advance 2/4), best eval_loss 0.3"),
    ],
)  # fmt: skip
def test_advances_of_a_search_stand_beside_its_lap(stage, best, said):
    now = Progress(8, 1, stage=stage, best=best)
    now.update([ShardProgress(advances=2, most=4, value=Value("eval_loss", 0.5, 0.2))])
    assert now.text() == said


def test_a_value_of_which_nothing_says_what_is_better_has_no_best():
    now = Progress(8, 1)
    now.update([ShardProgress(value=Value("rate", 0.5, math.nan))])
    assert now.text() == "median rate 0.5"


def test_value_of_an_earlier_advance_says_so():
    now, value = Progress(8, 1), Value("eval_loss", 0.5, 0.2, advances=2)
    now.update([ShardProgress(advances=2, most=4, value=value)])
    assert now.text() == "advance 2/4, median eval_loss 0.5, best 0.2"
    now.update([ShardProgress(advances=3, most=5, value=value)])
    assert now.text() == "advance 3/5, median eval_loss 0.5 at advance 2, best 0.2"


def test_items_that_fail_are_told_before_their_shard_ends():
    now = Progress(8, 2, outcomes=Counter(trained=3, diverged=1), shards_done=1)
    now.update([ShardProgress(failed={"diverged": 2})])
    assert now.text() == "3 trained, 3 diverged"
    now.outcomes["diverged"], now.shards_done = 3, 2  # the marker has them, too
    assert now.text().startswith("3 trained, 3 diverged")


def test_time_left_falls_between_two_advances_and_is_not_told_when_it_is_over():
    now = time.monotonic()
    going = Progress(8, 2, work=3.0, work_before=1.0, moving_since=now - 60, moved_at=now - 10)
    assert going.text() == f"{duration(115)} left"
    assert replace(going, moved_at=now - 50).text() == "", "no item is done"
    late = replace(going, moved_at=now - 50, running_items=1)
    assert late.text() == f"{duration(5)} an item"
    going.update([ShardProgress(work=3.0)])
    assert going.moved_at is not None
    assert going.moved_at >= now
    moved = going.moved_at
    going.update([ShardProgress(work=3.0)])
    assert going.moved_at == moved


def test_a_rate_of_rounding_alone_and_more_than_a_year_are_not_told():
    """Three items after one of ten advances: once the round is past, their work is another sum."""
    now = time.monotonic()
    rounded = Progress(3, 1, work=0.1 + 0.1 + 0.1, work_before=3 / 10, moving_since=now - 60)
    assert rounded.work > rounded.work_before
    assert (rounded.rate, rounded.text()) == (None, "")
    slow = replace(rounded, work=0.3001)
    assert slow.text().endswith(" left")
    assert "left" not in replace(slow, moving_since=now - 6000).text()


def test_text_of_waits_metric_and_time_left():
    now = time.monotonic()
    assert Progress(8, 1, waiting="tuning", waiting_since=now - 7).text() == "tuning, 7 s"
    value = Value("eval_loss", 0.312345, 0.24)
    going = Progress(8, 2, work=3.0, work_before=1.0, moving_since=now - 100, value=value)
    assert going.text() == f"median eval_loss 0.3123, best 0.24, {duration(250)} left"
    assert "left" not in replace(going, stopping=True).text()
    assert replace(going, n_items=1).text().startswith("eval_loss 0.3123"), "of one item"
    fast = replace(going, n_items=10**6, work=1e5)
    assert " items/s, " in fast.text()
    whole = replace(going, shards_done=2)
    assert "eval_loss" not in whole.text(), "it is from before the last advances"
    assert replace(whole, items_done=8, started=now - 30, moved_at=now).text() == "in 30 s"


@pytest.mark.parametrize("tick_s", [-1.0, 600.0])
def test_advance_that_ends_after_a_stop_counts(tmp_path, monkeypatch, tick_s):
    """Its checkpoint holds it, whether or not a tick told of it before the attempt ended."""
    monkeypatch.setattr("jobs.run.task.TICK_S", tick_s)
    store, stop, works = create(tmp_path, "train_rnn"), Stop(), []
    run_shards(store, Interrupted(stop, 3), lambda p: works.append((p.work, p.stopping)), stop)
    assert [work for work, _ in works] == sorted(work for work, _ in works)
    assert works[-1] == (7.5, True)
    assert state(Look(store))["unfinished"]["work"] == 7.5
    so_far = done_so_far(Look(store))
    assert (so_far.ended, so_far.work) == (0, 7.5)
    assert so_far.s_left(10) == pytest.approx(so_far.seconds / 3)
    # A worker that dies with its node leaves less than it told.
    (kept,) = objects.list_keys(store.objects, keys.CHECKPOINTS)
    objects.delete(store.objects, kept)
    assert state(Look(store))["unfinished"]["work"] == 0.0


def test_a_shard_that_was_committed_since_a_report_counts_once():
    """Of six items two were nearly done when the driver told so; now they are committed."""
    told = LeaseRecord(generation=0, said={"done": 2, "work": 3.0, "rate": 0.1, "text": "x"})
    found = _reported([told], Tally(items=6, done=4))
    assert (found["share"], found["left_s"]) == (5 / 6, 10)
    assert _reported([told, told], Tally(items=6))["share"] == 1.0, "each tells of its own work"


def test_best_of_a_run_never_gets_worse():
    progress = Progress(8, 2)
    for values in ([3.0, 5.0], [4.0], [], [2.5]):
        seen = [Value("r2", one, one, more_is_better=True) for one in values]
        progress.update([ShardProgress(value=value) for value in seen or [None]])
        assert seen or progress.value is None, "those that were looked at have ended"
    assert progress.value == Value("r2", 2.5, 5.0, True)


def test_work_moves_with_advances_and_is_told_to_other_processes(tmp_path, monkeypatch):
    """Ten networks in one shard make 4 advances each: after one of them a quarter of the work is done, and the lease says so."""
    monkeypatch.setattr("jobs.run.task.TICK_S", -1.0)
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    monkeypatch.setattr(lease, "RENEW_S", 0.0)
    store, works, told = create(tmp_path, "train_rnn"), [], []

    def listen(p):
        works.append(p.work)
        if p.advances == (1,):
            reader = lambda: state(Look(Store.open(store.address)))["progress"]
            until(lambda: (found := reader()) and found["share"] == 0.25, "the lease says it")
            told.append(reader())

    progress = run_shards(store, SerialExecutor(1), listen)
    assert [work for k, work in enumerate(works) if work not in works[:k]] == [0, 2.5, 5, 7.5, 10]
    assert progress.share == 1
    assert state(Look(store))["progress"] is None
    said = lambda told: facts(Tally(), state(Look(store)) | {"progress": told})["progress"]
    assert said(told[0] | {"texts": ["advance 1"]}).startswith("25%, advance 1 (told ")
    assert said(told[0] | {"texts": [], "age_s": 3}) == "25% (told 3 s ago)"
