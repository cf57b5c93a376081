"""Shards that meet, stopped, killed, damaged or without storage: the bits of one shard all the same."""

import errno
import shutil
from pathlib import Path

import pytest
from failing import Failing, Flaky, Interrupted
from killing import killed_at_a_write, killed_at_random
from search_jobs import POPULATION, changed, spread
from spread_jobs import FOLDER, in_shards, same, started_over, whole_store
from stores import make, run

from jobs.gather.check import check
from jobs.run.serial import SerialExecutor
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Task
from jobs.run.worker import Worker
from jobs.storage import objects
from jobs.store.store import Store


@pytest.fixture(scope="module", params=["halving", "tournament"])
def disturbed(request):
    """A job in shards, and its results in one."""
    return in_shards(request.param), whole_store(request.param)


@pytest.fixture(
    scope="module", params=[pytest.param("halving", marks=pytest.mark.endurance), "tournament"]
)
def killed_often(request):
    """The same for processes that are killed, of which each takes seconds to start."""
    return in_shards(request.param), whole_store(request.param)


class Meddling(SerialExecutor):
    """Does something to the store when the nth report has come."""

    def __init__(self, nth, what):
        super().__init__(1)
        self.left, self.what = nth, what

    def wait(self, timeout):
        reports = super().wait(timeout)
        self.left -= len(reports)
        if self.what and self.left <= 0:
            self.what = self.what()
        return reports


# --- stops and kills ------------------------------------------------------------------------------


def test_stopped_at_many_places(tmp_path, disturbed):
    job, whole = disturbed
    store, stops = make(tmp_path / "s.zarr", job), 0
    for after in [1, 2, 3, 5, 8, 13, 21]:
        stop = Stop()
        stops += run_shards(store, Interrupted(stop, after), stop=stop).stopped == "test"
    assert stops == 7
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [
        ("after", FOLDER, 1),
        ("before", FOLDER, 6),
        ("before", "run/done", 2),  # one is committed, the others are at the last meeting
    ],
)
def test_killed_at_a_write(tmp_path, killed_often, when, what, nth):
    job, whole = killed_often
    path = tmp_path / "k.zarr"
    killed_at_a_write(path, job, when, what, nth, often=True)
    store = Store.open(str(path))
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)
    assert check(store.address) == []


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, killed_often):
    job, whole = killed_often
    store = make(tmp_path / "r.zarr", job)
    kills = killed_at_random(store, lambda store: set(objects.list_keys(store.objects, FOLDER)))
    assert kills
    assert run_shards(store, SerialExecutor(1)).failed == {}
    check(store.address, repair=True)  # a driver killed after its last commit has not tidied up
    same(store, whole)


def test_a_hang_is_ended_again_after_a_report_that_came_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.executor.TICK_S", 0.0)

    class Silent(SerialExecutor):
        ended = 0

        def heartbeats(self):
            return {(0, 1): Heartbeat(None, 1e9)}

        def try_elsewhere(self, task):
            return False

        def end(self, attempt, why=None):
            self.ended += 1

    executor = Silent()
    job = spread(changed(POPULATION, "run.time_limit_s", 1.0), 4)
    run_shards(make(tmp_path / "h.zarr", job), executor)
    assert executor.ended > 5


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nth", "harm"),
    [
        (2, "cut"),
        (6, "removed"),
        (6, "state"),
        *(
            pytest.param(*rest, marks=pytest.mark.endurance)
            for rest in ((2, "removed"), (6, "cut"), (2, "head"), (6, "head"), (2, "state"))
        ),
    ],
)
def test_what_was_left_is_damaged(tmp_path, disturbed, harm, nth):
    """All of a population start over; the bits are those of the first time."""
    job, whole = disturbed
    store = make(tmp_path / "d.zarr", job)

    def damage():
        # Every arrival of shard 0: as if its last two had been in one lost block of the disk.
        for key in [k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000000")]:
            data = bytearray(objects.read(store.objects, key))
            at = 40 if harm == "head" else len(data) - 3
            data[at] ^= 1
            if harm == "removed":
                objects.delete(store.objects, key)
            else:
                objects.write(store.objects, key, bytes(data[: at if harm == "cut" else None]))

    progress = run_shards(store, Meddling(nth, damage))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert started_over(store) == 1
    same(store, whole)


def test_an_arrival_that_is_lost_is_left_again_from_the_one_before(tmp_path, disturbed):
    """A driver that died: one shard stands a lap behind the others, whose arrivals are there still."""
    job, whole = disturbed
    store, stop = make(tmp_path / "b.zarr", job), Stop()
    n = store.job.plan.n_shards
    run_shards(store, Meddling(3 * n, lambda: stop.ask("test")), stop=stop)
    last = max(k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000000"))
    objects.delete(store.objects, last)
    progress = run_shards(store, SerialExecutor(1))
    assert progress.failed == {}
    assert started_over(store) == 0
    same(store, whole)


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_committed_shard_that_is_damaged_is_computed_again_with_its_population(
    tmp_path, disturbed, harm
):
    job, whole = disturbed
    store, _ = run(tmp_path / "c.zarr", job)
    path = Path(store.address) / min(store.committed.markers()[1].sha256)
    path.unlink() if harm == "removed" else path.write_bytes(path.read_bytes()[:-1])
    check(store.address, repair=True)
    assert 1 not in store.committed.numbers()
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.shards_done, progress.items_done) == (progress.n_shards, progress.n_items)
    assert progress.outcomes == run_shards(whole, SerialExecutor(1)).outcomes
    assert started_over(store) == 1
    same(store, whole)
    assert check(store.address) == []


def test_check_knows_what_shards_have_left(tmp_path, disturbed):
    job, whole = disturbed
    store, stop = make(tmp_path / "c.zarr", job), Stop()
    run_shards(store, Meddling(4, lambda: stop.ask("test")), stop=stop)
    left = list(objects.list_keys(store.objects, FOLDER))
    assert left
    assert not any(finding.cure for finding in check(store.address))
    data = bytearray(objects.read(store.objects, left[0]))
    data[-1] ^= 1
    objects.write(store.objects, left[0], bytes(data))
    found = [finding for finding in check(store.address, repair=True) if finding.cure]
    assert [(f.key, f.what) for f in found] == [(left[0], "damaged")]
    kept = tmp_path / "kept"
    shutil.copytree(Path(store.address) / FOLDER, kept)
    run_shards(store, SerialExecutor(1))
    same(store, whole)
    shutil.copytree(kept, Path(store.address) / FOLDER)
    assert {f.what for f in check(store.address)} == {"left over: its shard is committed"}


# --- attempts that fail, a storage that fails -----------------------------------------------------


@pytest.mark.parametrize("fault", ["death", "memory", "storage"])
def test_shards_that_are_tried_again(tmp_path, disturbed, fault):
    """Each third attempt fails (each ninth where the driver then pauses); where memory runs out, the slots are halved on the way."""
    job, whole = disturbed
    job, every = (
        job | {"run": job["run"] | {"backoff_s": 0.0, "retries": 99}},
        9 if fault == "storage" else 3,
    )
    store, calls = make(tmp_path / "t.zarr", job), iter(range(10**6))
    progress = run_shards(store, Failing(lambda task: fault if next(calls) % every == 2 else None))
    assert progress.failed == {}
    same(store, whole)


@pytest.mark.parametrize("microbatch", [1, 4])
def test_memory_that_forces_a_smaller_microbatch_midway(tmp_path, microbatch):
    """All start over where it changes the arithmetic, and go on where it does not."""
    job = changed(changed(POPULATION, "run.microbatch", microbatch), "run.backoff_s", 0.0)
    store, calls = make(tmp_path / "m.zarr", spread(job, 4)), iter(range(10**6))
    progress = run_shards(store, Failing(lambda task: "memory" if next(calls) == 5 else None))
    assert progress.failed == {}
    assert bool(started_over(store)) == (microbatch == 4)
    assert {m.layout.microbatch for m in store.committed.markers()} == {min(microbatch, 2)}
    whole = make(tmp_path / "w.zarr", job)
    (shard,) = whole.job.plan.shards()
    assert Worker(whole.address).do(Task(shard, slots=2)).error is None
    same(store, whole)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_storage_that_fails_while_a_population_starts_over(tmp_path, monkeypatch, disturbed, nth):
    """The driver waits, and goes on where it was; what it cannot remove at the end, check finds."""
    job, whole = disturbed
    store, left = make(tmp_path / "e.zarr", job), [nth]
    really = objects.delete

    def delete(where, key):
        left[0] -= "run/meetings" in key or "run/checkpoints" in key
        if left[0] == 0:
            raise OSError(errno.EIO, "the storage fails")
        really(where, key)

    def damage():
        for key in [k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000001")]:
            objects.write(store.objects, key, b"half")
        monkeypatch.setattr(objects, "delete", delete)

    progress = run_shards(store, Meddling(5, damage))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert left[0] < 0
    check(store.address, repair=True)
    same(store, whole)


def test_a_storage_that_fails_while_it_is_settled_who_meets(tmp_path, monkeypatch):
    """Memory has run out, and whether that changes the bits is told by what the workers chose."""
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.01)
    job = changed(changed(POPULATION, "run.microbatch", None), "run.backoff_s", 0.0)
    store, calls = make(tmp_path / "m.zarr", spread(job, 4)), iter(range(10**6))
    flaky = Flaky(objects.list_keys, lambda where, prefix: prefix == "run/layout")
    monkeypatch.setattr(objects, "list_keys", flaky)
    progress = run_shards(store, Failing(lambda task: "memory" if next(calls) == 5 else None))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert flaky.n > 4
    monkeypatch.undo()
    assert check(store.address) == []
