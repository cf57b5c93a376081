"""What fails, and what is done about it: jobs.run.retry and decisions, with the serial executor."""

import re
import time
from pkgutil import resolve_name

import numpy as np
import pytest
from failing import Failing, Flaky, holds
from stores import JOB, make, run, tree_bytes

from ctd.batch import Layout
from jobs import keys
from jobs.errors import JobError
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.plan.layout import Shard
from jobs.run.driver import Driver
from jobs.run.limits import LEAST_LIMIT_S, LONGEST_PAUSE_S, Pause, TimeLimits
from jobs.run.retry import MAX_FOUND, Bisection, Failures
from jobs.run.shards import open_ledger, run_shards
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Report, ShardProgress, Task
from jobs.run.worker import SerialExecutor, Worker, fault_of
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store.events import read_events
from jobs.store.marker import Marker
from jobs.store.store import Store
from jobs.store.writer import ShardWriter


def searched(n, failing, flaky=0, confirm=2):
    """(rows that the search finds, number of probes); the first `flaky` probes fail whatever they hold."""
    search, probes = Bisection(range(n), confirm), 0
    while search.probe is not None:
        probes += 1
        start, stop = search.probe
        search.tell(probes <= flaky or any(start <= row < stop for row in failing))
    return search.found, probes


@pytest.mark.parametrize("n", [2, 3, 7, 64, 100])
def test_search_finds_exactly_the_failing_rows(n):
    rng = np.random.default_rng(n)
    for k in range(min(n, 6)):
        failing = set(rng.choice(n, k, replace=False).tolist())
        assert set(searched(n, failing)[0]) == failing
    for row in range(n):
        found, probes = searched(n, {row})
        assert found == [row]
        assert probes <= np.ceil(np.log2(n)) * 2 + 2


def test_search_skips_rows_that_are_known():
    search = Bisection([0, 3, 4, 9], 1)
    assert search.probe == (0, 4)
    search.tell(failed=True)
    assert search.probe == (0, 1)
    search.tell(failed=False)
    assert search.probe == (3, 4)
    search.tell(failed=True)
    assert search.probe == (4, 10)
    search.tell(failed=False)
    assert (search.probe, search.found) == (None, [3])


def test_search_blames_nothing_where_only_the_whole_fails():
    assert searched(50, set())[0] == []


def test_search_does_not_blame_a_row_for_a_failure_by_chance():
    for flaky in range(1, 7):
        assert searched(64, set(), flaky)[0] == []


# --- a store --------------------------------------------------------------------------------------

RUN = {**JOB["run"], "retries": 1, "backoff_s": 0.0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job's store where nothing fails."""
    return run(tmp_path_factory.mktemp("store") / "whole.zarr", {**JOB, "run": RUN})[0]


@pytest.mark.parametrize(
    ("fault", "rows"),
    [
        ("error", {6, 11}),
        ("error", {0, 1, 2, 3, 4, 5}),
        ("death", {21}),
        pytest.param("death", {8}, marks=pytest.mark.endurance),
    ],
)
def test_items_that_fail_are_found_and_the_others_are_as_without_them(tmp_path, whole, fault, rows):
    store = make(tmp_path / "f.zarr", {**JOB, "run": RUN})
    bad = lambda task: task.shard.group == 0 and holds(task, rows) and fault
    progress = run_shards(store, Failing(bad))
    items = store.rows(0, "item", 0, 22)
    assert progress.failed == {}
    assert set(progress.failed_items) == {int(items[row]) for row in rows}
    assert progress.shards_done == 8
    good = np.array([row for row in range(22) if row not in rows])
    for name in [*store.names(0), "status"]:
        values, expected = store.rows(0, name, 0, 22), whole.rows(0, name, 0, 22)
        assert values[good].tobytes() == expected[good].tobytes(), name
    assert (store.rows(0, "status", 0, 22)[list(rows)] == 2).all()
    assert np.isnan(store.rows(0, "x", 0, 22)[list(rows)]).all()
    assert sum(marker.n_failed for marker in store.committed.markers()) == len(rows)
    kept = Store.open(store.address).failed.items()
    assert {item.row for items in kept.values() for item in items} == rows
    first = kept[min(rows) // 6][0]
    assert (first.error.startswith(fault), first.trace) == (True, "trace")
    assert list(objects.list_all(store.objects, keys.FAILED)) == []
    # Shards without such an item are computed once, and nothing else of them is asked.
    others = {m.shard.number for m in store.committed.markers()} - {row // 6 for row in rows}
    attempts = {m.shard.number: m.attempt for m in store.committed.markers()}
    assert all(attempts[k] == 1 for k in others)
    gather(store)


@pytest.mark.parametrize("shard_items", [1, 3])
def test_an_item_that_fails_after_a_checkpoint_leaves_none(tmp_path, shard_items):
    class Late(SerialExecutor):
        """The items with odd rows fail in their second advance."""

        def wait(self, timeout):
            do = self._worker.do

            def failing(task, note):
                def second(now):
                    note(now)
                    if now.advances == 2 and holds(task, {1, 3, 5}):
                        raise RuntimeError("no more")

                return do(task, second)

            self._worker.do = failing
            try:
                return super().wait(timeout)
            finally:
                self._worker.do = do

    job = {**JOB, "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 6]}}}}
    given = {
        "shard_items": shard_items,
        "slots": 4,
        "microbatch": 2,
        "retries": 0,
        "checkpoint_s": 0,
    }
    store = make(tmp_path / "l.zarr", {**job, "run": given})
    progress = run_shards(store, Late(1))
    assert (progress.failed, set(progress.failed_items)) == ({}, {1, 3, 5})
    assert list(objects.list_all(store.objects, keys.CHECKPOINTS)) == []
    assert check(store.address) == []


def test_items_that_failed_are_known_to_the_next_run(tmp_path):
    store = make(tmp_path / "n.zarr", {**JOB, "run": RUN})
    bad = lambda task: task.shard.group == 0 and holds(task, {8}) and "error"
    run_shards(store, Failing(bad))
    before = tree_bytes(store.address)
    store.committed.forget(list(store.job.plan.shards())[1:2])
    again = Failing(bad)
    progress = run_shards(Store.open(store.address), again)
    assert [task.without for task in again.seen] == [(8,)]
    assert len(progress.failed_items) == 1
    assert tree_bytes(store.address) == before


def test_shard_whose_parts_all_pass_is_given_up(tmp_path):
    store = make(tmp_path / "w.zarr", {**JOB, "run": RUN})
    whole = lambda task: task.shard.number == 1 and not task.probe and "error"
    progress = run_shards(store, Failing(whole))
    assert progress.failed == {1: "error of 1"}
    assert progress.failed_items == {}
    assert progress.shards_done == 7


def test_shard_in_which_everything_fails_is_given_up_as_a_whole(tmp_path):
    job = {**JOB, "sweep": {"grid": {"rate": {"linspace": [0, 1, 200]}}}}
    store = make(tmp_path / "e.zarr", {**job, "run": {**RUN, "shard_items": 100}})
    progress = run_shards(store, Failing(lambda task: task.shard.number == 0 and "error"))
    assert f"{MAX_FOUND} of its items fail" in progress.failed[0]
    assert progress.shards_done == 1


@pytest.mark.parametrize(("fault", "attempts"), [("input", 1), ("outside", 2)])
def test_fault_outside_of_the_items_is_not_searched_for_in_them(tmp_path, fault, attempts):
    store = make(tmp_path / "i.zarr", {**JOB, "run": RUN})
    executor = Failing(lambda task: task.shard.number == 1 and fault)
    assert run_shards(store, executor).failed == {1: f"{fault} of 1"}
    assert len([task for task in executor.seen if task.shard.number == 1]) == attempts


@pytest.mark.parametrize(
    ("shard_items", "n", "tried"),
    [(100, 400, 2), pytest.param(1, 80, 64, marks=pytest.mark.endurance)],
)
def test_group_of_which_nothing_can_be_computed_is_given_up(tmp_path, shard_items, n, tried):
    """A mistake in a kernel is not searched for in every shard; another group is none the worse."""
    rates = {"linspace": [0, 1, n]}, {"linspace": [0, 1, 2 * shard_items]}
    sweeps = [
        {"grid": {"n": [size], "rate": rate}} for size, rate in zip((3, 5), rates, strict=True)
    ]
    settings = {**RUN, "retries": 0, "shard_items": shard_items}
    store = make(tmp_path / "h.zarr", {**JOB, "sweep": sweeps, "run": settings})
    everything = set(range(n))
    executor = Failing(lambda task: task.shard.group == 0 and holds(task, everything) and "error")
    progress = run_shards(store, executor)
    of_group_0 = {task.shard.number for task in executor.seen if task.shard.group == 0}
    assert tried <= len(of_group_0) <= tried + 1
    assert "nothing of group 0 could be computed" in progress.failed[max(progress.failed)]
    first = n // shard_items
    done = {m.shard.number for m in store.committed.markers() if m.shard.group == 1}
    assert done == {first, first + 1}


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fits", "layout"), [(2, (2, 2)), (1, (1, 1))])
def test_memory_halves_the_slots_of_the_group_then_the_microbatch(tmp_path, whole, fits, layout):
    store = make(tmp_path / "m.zarr", {**JOB, "run": {**RUN, "retries": 0}})
    over = lambda task: task.shard.group == 0 and (task.slots or 4) > fits and "memory"
    progress = run_shards(store, Failing(over))
    assert progress.failed == {}
    layouts = {
        m.shard.group: (m.layout.slots, m.layout.microbatch) for m in store.committed.markers()
    }
    assert layouts == {0: layout, 1: (4, 2)}
    assert Failures(store).task(next(store.job.plan.shards()), 1, "fresh").slots == fits
    if fits == 2:  # the microbatch is what was planned: no bit has changed
        assert tree_bytes(store.address) == tree_bytes(whole.address)


def test_deaths_that_no_item_explains_narrow_the_group_but_change_no_bit(tmp_path):
    store = make(tmp_path / "d.zarr", {**JOB, "run": RUN})
    dies = lambda task: (
        task.shard.number == 1 and not task.probe and (task.slots or 4) > 2 and "death"
    )
    assert run_shards(store, Failing(dies)).failed == {}
    assert store.committed.markers()[1].layout == Layout(2, 2, 1)


def test_only_the_words_of_xla_and_python_mean_memory():
    from jax.errors import JaxRuntimeError
    from obstore.exceptions import GenericError

    assert (
        fault_of(JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
        == "memory"
    )
    assert fault_of(MemoryError()) == "memory"
    assert fault_of(JaxRuntimeError("INTERNAL: out of memory of what I meant to say")) == "error"
    assert fault_of(ValueError("RESOURCE_EXHAUSTED")) == "error"
    assert fault_of(GenericError("No space left on device")) == "storage"
    assert fault_of(OSError(28, "No space left on device")) == "storage"
    assert fault_of(FileNotFoundError(2, "no such file")) == "error"


def test_an_input_out_of_reach_is_no_bad_input():
    assert fault_of(JobError("no such dataset")) == "input"
    assert fault_of(objects.StorageFailed("busy")) == "storage"
    assert fault_of(objects.StorageFailed("no server answers")) == "storage"


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

    def end(self, attempt, why=None):
        self.hanging.pop(attempt)
        self.ended.append(Report(*attempt, None, why, "", "death", {"died": "killed"}))


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
        driver._end_hung({(0, 1): Heartbeat(progress, silent_s)}, executor)
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
        ("jobs.store.writer.ShardWriter.write", "write"),
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
            return super().capacity() if any("since" in text for text in heard - {None}) else 0

    store = make(tmp_path / "l.zarr", {**JOB, "run": RUN})
    progress = run_shards(store, Late(1), lambda p: heard.add(p.trouble))
    assert progress.shards_done == 8
    said = [text for text in heard - {None} if text != "the first worker starts"]
    assert said
    for text in said:
        assert re.fullmatch(
            r"no worker is ready since \d+ s \(serial's own logs may say why\)", text
        )
    assert progress.trouble is None


def test_time_limit_comes_from_measured_times():
    limits = TimeLimits(None)
    # A shard in which nothing was computed, and a round in which everything failed, tell nothing of compilation.
    limits.note(0, None)
    limits.note(0, 0.0)
    assert limits.of(0) == float("inf")
    limits.note(0, 0.1)
    assert limits.of(0) == LEAST_LIMIT_S
    limits.note(0, 10.0)
    limits.note(0, 1.0)
    assert limits.of(0) == 200
    assert limits.of(1) == float("inf")
    assert TimeLimits(3.0).of(1) == 3.0


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


def test_a_group_that_is_given_up_is_not_tried_for_what_was_postponed(tmp_path):
    """Of three failures, the first two wait for the storage when the third has the group given up."""
    store = make(tmp_path / "u.zarr", {**JOB, "run": RUN})
    ledger = open_ledger(store)
    for shard in (ledger.shards[0], ledger.shards[1]):
        ledger.postponed.append((Task(shard), Report(shard.number, 1, None, "text", "trace")))
    ledger.give_up_group(0)
    assert ledger.postponed == []
    assert set(ledger.progress.failed) >= {0, 1}


@pytest.mark.parametrize(
    "fault", ["error", pytest.param("death", marks=pytest.mark.endurance), "death of the whole"]
)
def test_storage_that_fails_while_a_failure_is_decided(tmp_path, monkeypatch, fault):
    """The decision waits for the storage; nothing is blamed, forgotten or tried more often for it."""
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
        found.append((progress.failed_items, [task[:-1] for task in executor.seen]))
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
    with pytest.raises(OSError, match="does not read back") as caught:
        ShardWriter(store).write(Marker(shard=shard), values, np.arange(6))
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
