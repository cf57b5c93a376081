"""A shard that runs far longer than its peers is tried a second time: jobs.run.driver."""

import pytest
from failing import Nodes
from search_jobs import in_rounds, same, whole_store
from stores import JOB, make, run, tree_bytes

from jobs.plan.layout import Shard
from jobs.report.history import history, history_lines
from jobs.run.limits import LEAST_PATIENCE_S, PEERS, Durations, should_try_elsewhere
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.storage import objects
from jobs.store.events import read_events

SLOW = 3
"""The shard that is slow."""


def took(**others):
    """What a task takes: 10 s; an attempt at the slow shard what is given for it (`first`, `second`, `third`)."""
    names = ("first", "second", "third")

    def seconds(task):
        return others.get(names[task.attempt - 1], 10) if task.shard.number == SLOW else 10

    return seconds


def drive(tmp_path, monkeypatch, executor, **settings):
    """(store, progress) after a run by the executor's clock."""
    settings = {"retries": 0, "backoff_s": 0, **settings}
    store = make(tmp_path / "s.zarr", {**JOB, "run": {**JOB["run"], **settings}})
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        progress = run_shards(store, executor)
    return store, progress


def told(store, *kinds):
    return [(e.kind, e.shard, e.attempt) for e in read_events(store) if e.kind in kinds]


def attempts(store):
    return {marker.shard.number: marker.attempt for marker in store.committed.markers()}


def test_a_round_of_a_search_that_is_slow_is_tried_a_second_time(tmp_path, monkeypatch):
    """Its peers are the rounds as long as it; the others of its generation wait for it no longer than for a shard."""
    slow = 9  # the second of the four rounds of the second generation: see jobs.run.search
    executor = Nodes(4, lambda task: 1000 if task.key == (slow, 1) else 10)
    store = make(tmp_path / "s.zarr", in_rounds("tournament"))
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        progress = run_shards(store, executor)
    assert progress.failed == {}
    assert executor.dropped == [(slow, 1)]
    # The events of a round have its group; its number is none of a shard.
    assert told(store, "second", "superseded") == [("second", None, 2), ("superseded", None, 1)]
    # Six generations and the last step of 10 s each, and until it is outrun 4 x 10 s.
    assert 110 <= executor.now <= 115
    same(store, whole_store("tournament"))


def test_straggler_is_tried_a_second_time_where_workers_idle(tmp_path, monkeypatch):
    """The second attempt begins once nothing waits and 4 x 10 s are over, and is committed 10 s later."""
    executor = Nodes(4, took(first=1000))
    store, progress = drive(tmp_path, monkeypatch, executor)
    whole, _ = run(tmp_path / "whole.zarr")
    assert tree_bytes(store.address) == tree_bytes(whole.address)
    assert 50 <= executor.now <= 52
    assert executor.dropped == [(SLOW, 1)]
    assert told(store, "second", "superseded", "error") == [
        ("second", SLOW, 2),
        ("superseded", SLOW, 1),
    ]
    assert attempts(store) == {k: 1 + (k == SLOW) for k in range(8)}
    assert (progress.retried, progress.failed, progress.shards_done) == (0, {}, 8)
    lines = [line.split("  ", 1)[1] for line in history_lines(history(store))]
    assert "shard 3, attempt 2 begun a second time: the first attempt has run for 40 s" in lines


@pytest.mark.parametrize(
    ("case", "factor"),
    [
        ({"nodes": [0, 0, 0, 0]}, 4),  # all workers are on the node that is slow
        ({}, 0),  # the job does not want it
        ({}, 200),  # it is not that slow
    ],
)
def test_straggler_is_left_alone(tmp_path, monkeypatch, case, factor):
    executor = Nodes(4, took(first=1000), **case)
    store, _ = drive(tmp_path, monkeypatch, executor, straggler_factor=factor)
    assert told(store, "second") == []
    assert executor.now >= 1000


def test_shards_that_wait_come_before_a_second_attempt(tmp_path, monkeypatch):
    """Two workers, one of which is slow: the other computes everything else first."""
    executor = Nodes(2, lambda task: 1000 if task.key == (0, 1) else 20)
    store, _ = drive(tmp_path, monkeypatch, executor)
    kinds = [e.kind for e in read_events(store) if e.kind in ("done", "second")]
    assert kinds == ["done"] * 7 + ["second", "done"]
    assert 160 <= executor.now <= 162


@pytest.mark.parametrize(
    ("times", "attempt", "dropped", "errors"),
    [
        ({"first": 45, "second": 60}, 1, [(SLOW, 2)], 0),  # the first was committed after all
        ({"first": 90, "second": (10, "error")}, 1, [], 1),  # the second failed: the first goes on
        ({"first": (45, "death"), "second": 30}, 2, [], 1),  # the reverse
        ({"first": (45, "memory"), "second": 30}, 2, [], 1),
    ],
    ids=["first wins", "second fails", "first dies", "first lacks memory"],
)
def test_the_attempt_that_is_left_counts(tmp_path, monkeypatch, times, attempt, dropped, errors):
    """Without retries: an attempt that fails beside another one is not charged, nor is anything searched for."""
    executor = Nodes(4, took(**times))
    store, progress = drive(tmp_path, monkeypatch, executor)
    assert attempts(store)[SLOW] == attempt
    assert executor.dropped == dropped
    assert len(told(store, "error")) == errors
    assert told(store, "decision") == []
    assert (progress.retried, progress.failed, progress.failed_items) == (0, {}, {})


@pytest.mark.parametrize(("second_s", "failed"), [(40, [1, 2]), (10, [2, 1])])
def test_two_attempts_that_fail_are_one_failure(tmp_path, monkeypatch, second_s, failed):
    """It is tried again, once, with a number of its own, and not a second time beside that."""
    executor = Nodes(4, took(first=(60, "error"), second=(second_s, "error"), third=1000))
    store, progress = drive(tmp_path, monkeypatch, executor, retries=1)
    errors = [("error", SLOW, attempt) for attempt in failed]
    assert told(store, "second", "error") == [("second", SLOW, 2), *errors]
    assert attempts(store)[SLOW] == 3
    assert progress.retried == 1


def test_stop_ends_both_attempts(tmp_path, monkeypatch):
    store = make(tmp_path / "s.zarr", {**JOB, "run": {**JOB["run"], "grace_s": 5}})
    executor, stop = Nodes(4, took(first=1000, second=1000)), Stop()
    monkeypatch.setattr("time.monotonic", lambda: executor.now)
    hear = lambda p: stop.ask("test") if executor.now > 60 else None
    progress = run_shards(store, executor, hear, stop)
    assert progress.stopped == "test"
    (end,) = [e for e in read_events(store) if e.kind == "end"]
    assert end.lost == [SLOW]


def test_second_attempt_goes_on_from_the_checkpoint_of_the_first_and_keeps_none(tmp_path):
    store = make(tmp_path / "c.zarr", {**JOB, "run": {**JOB["run"], "checkpoint_s": 0}})
    shard, left = (
        next(store.job.plan.shards()),
        lambda: list(objects.list_keys(store.objects, "run/checkpoints")),
    )
    first, second = Worker(store.address), Worker(store.address)
    first.do(Task(shard), lambda now: now.advances == 2 and first.interrupt())
    before = left()
    assert before
    seen = []
    report = second.do(Task(shard, 2, begin="beside"), lambda now: seen.append(left()))
    assert report.marker.resumed_at == 2
    assert report.marker.checkpoints == 0
    assert all(keys == before for keys in seen)
    assert left() == []


SHARD = Task(Shard(3, 0, 6, 8))


@pytest.mark.parametrize(
    ("task", "seconds", "peers", "factor", "slots", "begins"),
    [
        (SHARD, 81, [20, 20, 20], 4, None, True),
        (SHARD, 80, [20, 20, 20], 4, None, False),
        (SHARD, 81, [1, 20, 900], 4, None, True),
        (SHARD, LEAST_PATIENCE_S, [1], 4, None, False),
        (SHARD, LEAST_PATIENCE_S + 1, [1], 4, None, True),
        (SHARD, 1e6, [], 4, None, False),
        (SHARD, 1e6, [20], 0, None, False),
        (SHARD._replace(probe=True), 1e6, [20], 4, None, False),
        (SHARD, 1e6, [20], 4, 1, False),
        (SHARD._replace(slots=1), 1e6, [20], 4, 1, True),
        (SHARD._replace(slots=2), 1e6, [20], 4, 1, False),
    ],
    ids=[
        "slow", "at the limit", "median", "short peers", "short peers, slow", "no peers", "not wanted",
        "probe", "narrowed since", "narrowed", "narrowed further",
    ],
)  # fmt: skip
def test_second_attempt_decided(task, seconds, peers, factor, slots, begins):
    assert should_try_elsewhere(task, seconds, peers, factor, slots) is begins


def test_peers_are_the_last_alike():
    """Shards of the task's group, no rounds; of those the last ones alone."""
    durations = Durations(None)
    durations.note((0, 3), 5.0, 0.5)
    assert not durations.recent(SHARD)
    for seconds in range(PEERS + 1):
        durations.note((0, None), seconds, 0.5)
    assert list(durations.recent(SHARD)) == [*range(1, PEERS + 1)]
