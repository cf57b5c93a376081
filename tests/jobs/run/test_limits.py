"""How long an advance may take, and how a run waits for a storage that fails: jobs.run.limits, with the serial executor."""

import re
import time
from itertools import groupby
from pkgutil import resolve_name

import numpy as np
import pytest
from failing import RUN, Failing, Flaky, holds
from messages import refused
from stores import JOB, make

from jobs.plan.layout import Shard
from jobs.run.driver import Driver
from jobs.run.limits import LEAST_LIMIT_S, LONGEST_PAUSE_S, Durations, Pause
from jobs.run.shards import open_ledger, run_shards
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Report, ShardProgress, Task
from jobs.run.worker import SerialExecutor, Worker, fault_of
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store.events import read_events
from jobs.store.marker import Marker
from jobs.store.writer import write_shard

# --- time -----------------------------------------------------------------------------------------


class Hanging(SerialExecutor):
    """Some tasks never end until their worker is killed."""

    def __init__(self, hangs, said):
        super().__init__(1)
        self.said = said
        self.hangs, self.hanging, self.ended = hangs, {}, []

    def wait(self, timeout):
        for task in list(self._waiting):
            if self.hangs(task):
                self._waiting.remove(task)
                self.hanging[task.key] = task
        reports, self.ended = self.ended, []
        return reports + super().wait(timeout)

    def heartbeats(self):
        return dict.fromkeys(self.hanging, self.said)

    def try_elsewhere(self, task):
        return False

    def end(self, attempt, cause=None):
        self.hanging.pop(attempt)
        self.ended.append(Report(*attempt, None, cause, "", "death", {"died": "killed"}))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            Heartbeat(ShardProgress(advancing=True), 61.0),
            "no advance has ended for 61 s (limit 60 s)",
        ),
        (
            Heartbeat(ShardProgress(), 3601.0),
            "loading or writing has not ended for 3601 s (limit 3600 s)",
        ),
        (Heartbeat(None, 3601.0), "loading or writing has not ended for 3601 s (limit 3600 s)"),
    ],
)
def test_hung_advance_is_ended_and_its_item_found(tmp_path, said, why):
    store = make(tmp_path / "h.zarr", {**JOB, "run": RUN})
    executor = Hanging(lambda task: task.shard.group == 1 and holds(task, {21}), said)
    progress = run_shards(store, executor)
    assert list(progress.failed_items.values()) == [why]
    assert progress.shards_done == 8


@pytest.mark.parametrize("progress", [None, ShardProgress(advances=3)])
def test_loading_and_writing_are_no_hung_advance(tmp_path, progress):
    """With a limit of an advance far below what they take."""
    store = make(tmp_path / "l.zarr", {**JOB, "run": {**RUN, "time_limit_s": 10}})
    executor = Hanging(lambda task: False, None)
    driver = Driver(open_ledger(store), executor, lambda progress: None, Stop())
    for silent_s in (0.0, 11.0, 3600.0):
        driver._end_hung({(0, 1): Heartbeat(progress, silent_s)})
    assert executor.ended == []


def test_the_pulse_tells_an_advance_from_all_else(tmp_path, monkeypatch):
    """Loading, reading, checkpoints and the commit: none is an advance; measuring the microbatch is some."""
    heard = []

    def spied(name, function):
        def call(*args):
            heard.append((name, worker.pulse.last[0]))
            return function(*args)

        return call

    job = {**JOB, "run": {**RUN, "microbatch": None, "checkpoint_s": 0}}
    worker = Worker(make(tmp_path / "p.zarr", job).address)
    for place, name in (
        ("jobs.run.worker.load_group", "load"),
        ("jobs.store.checkpoint.Checkpoints.keep", "keep"),
        ("jobs.run.worker.write_shard", "write"),
        ("jobs.run.attempt.Attempt._column", "read"),
        ("ctd.batch.run.Run.step", "advance"),
    ):
        monkeypatch.setattr(place, spied(name, resolve_name(place)))
    assert worker.do(Task(worker.job.plan.shard(0))).error is None
    assert dict(heard) == {
        "load": False, "keep": False, "write": False, "read": False, "advance": True,
    }  # fmt: skip
    assert len(set(heard)) == 5
    assert not worker.pulse.last[0]


def test_workers_that_do_not_start_are_said_to_be_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.driver.IDLE_S", 0.3)
    heard = set()

    class Late(SerialExecutor):
        def capacity(self):
            return super().capacity() if any("no worker" in text for text in heard - {None}) else 0

    store = make(tmp_path / "l.zarr", {**JOB, "run": RUN})
    progress = run_shards(store, Late(1), lambda p: heard.add(p.trouble))
    assert progress.shards_done == 8
    said = [text for text in heard - {None} if text != "the first worker starts"]
    assert said
    for text in said:
        assert re.fullmatch(
            r"no worker has been ready for \d+ s \(serial's own logs may say why\)", text
        )
    assert progress.trouble is None


def test_time_limit_comes_from_measured_times():
    durations = Durations(None)
    note = lambda longest_s: durations.note((0, None), 20.0, longest_s)
    # A shard in which nothing was computed, and a round in which everything failed, tell nothing of compilation.
    note(None)
    note(0.0)
    assert durations.limit(0) == float("inf")
    note(0.1)
    assert durations.limit(0) == LEAST_LIMIT_S
    note(10.0)
    note(1.0)
    assert durations.limit(0) == 200
    assert durations.limit(1) == float("inf")
    assert Durations(3.0).limit(1) == 3.0


def test_a_probe_that_cannot_load_blames_no_item(tmp_path):
    store = make(tmp_path / "o.zarr", {**JOB, "run": {**RUN, "retries": 1}})
    fails = lambda task: task.shard.number == 0 and ("outside" if task.probe else "error")
    executor = Failing(fails)
    progress = run_shards(store, executor)
    assert (progress.failed, progress.failed_items) == ({0: "outside of 0"}, {})
    # The attempts at the whole, then those at the first part.
    seen = [task.probe for task in executor.seen if task.shard.number == 0]
    assert seen == [False, False, True, True]
    left = progress.n_items - progress.items_done
    assert (progress.items_given_up, progress.left_s) == (left, None)


# --- storage --------------------------------------------------------------------------------------


def test_storage_that_fails_pauses_the_run_which_then_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.2)
    store = make(tmp_path / "s.zarr", {**JOB, "run": {**RUN, "retries": 0}})
    left, heard = iter(range(6)), set()
    executor = Failing(
        lambda task: task.shard.number == 3 and next(left, None) is not None and "storage"
    )
    progress = run_shards(store, executor, lambda p: heard.add(p.trouble))
    assert progress.failed == {}
    assert progress.shards_done == 8
    assert len([e for e in read_events(store) if e.kind == "error"]) == 6
    trouble = (heard - {None}).pop()
    assert store.address in trouble
    assert "MB free" in trouble
    assert progress.trouble is None


def test_damaged_ids_end_their_group_and_not_the_run(tmp_path):
    store = make(tmp_path / "d.zarr", {**JOB, "run": RUN})
    chunk = tmp_path / "d.zarr" / "results/0/item/c/0"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    progress = run_shards(store, SerialExecutor(1))
    assert set(progress.failed) == {0, 1, 2, 3}
    assert progress.shards_done == 4


@pytest.mark.parametrize(
    "fault", ["error", pytest.param("death", marks=pytest.mark.endurance), "death of the whole"]
)
def test_storage_that_fails_while_a_failure_is_decided(tmp_path, monkeypatch, fault):
    """The attempt is made again, uncharged; nothing is blamed or forgotten for it."""
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.01)
    job = {**JOB, "run": {**RUN, "microbatch": None}}  # as the workers measure it

    def bad(task):
        if fault == "death of the whole":  # unless its slots are halved
            return task.shard == whole_shard and (task.slots or 8) > 4 and "death"
        return task.shard.group == 0 and holds(task, {8}) and fault

    found = []
    for name in ("quiet", "flaky"):
        store = make(tmp_path / f"{name}.zarr", job)
        whole_shard = next(store.job.plan.shards())
        objects.write(store.objects, "run/layout/0-cpu.json", checksummed({"microbatch": 2}))
        if name == "flaky":
            layouts = Flaky(objects.list_keys, lambda where, prefix: prefix == "run/layout")
            monkeypatch.setattr(store, "rows", rows := Flaky(store.rows))
            monkeypatch.setattr(objects, "list_keys", layouts)
        executor = Failing(bad)
        progress = run_shards(store, executor)
        assert progress.failed == {}
        # Without the attempt's number and its repetition.
        tasks = [(task.shard, task.slots, task.without, task.probe) for task in executor.seen]
        found.append((progress.failed_items, [task for task, _ in groupby(tasks)]))
    assert rows.n == 2  # failed, and was asked again
    assert layouts.n >= 2
    errors = [event for event in read_events(store) if event.kind == "error"]
    assert len(errors) == sum(bool(bad(task)) for task in executor.seen)
    assert found[0] == found[1]
    assert found[0][0] or fault == "death of the whole"


def test_pause_doubles_up_to_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    pause, waits = Pause(), []
    for _ in range(9):
        pause.begin("full")
        pause.begin("full")
        waits.append(pause._until - now[0])
        now[0] = pause._until
        assert not pause.lasts
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    pause.end()
    assert pause.reason is None


def test_values_that_do_not_read_back_are_the_storages_fault(tmp_path, monkeypatch):
    store = make(tmp_path / "b.zarr")
    shard = Shard(0, 0, 0, 6)
    write = objects.write
    lossy = lambda to, key, data: write(to, key, bytes(len(data)) if "norm" in key else data)
    monkeypatch.setattr(objects, "write", lossy)
    values = {name: np.ones((6, *store.array(0, name).shape[1:])) for name in store.names(0)}
    values["status"] = np.ones(6, np.int8)
    with refused(OSError) as caught:
        write_shard(store, Marker(shard=shard), values, np.arange(6))
    assert fault_of(caught.value) == "storage"
    assert store.committed.numbers() == set()


def test_durations_do_not_follow_the_clock(tmp_path, monkeypatch):
    """A clock that is set back a year while shards are computed."""
    now = [time.time()]

    def back():
        now[0] -= 365 * 86400.0 / 20
        return now[0]

    store = make(tmp_path / "clock.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", back)
        run_shards(store, SerialExecutor(1))
    assert all(0 <= marker.seconds < 600 for marker in store.committed.markers())
