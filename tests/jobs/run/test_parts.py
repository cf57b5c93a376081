"""jobs.run.shards: drivers that share a store deal its shards out, and do not mix with one that has it all."""

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from failing import Failing, Flaky, holds
from messages import refused
from stores import BASE, make

from jobs import keys
from jobs.report.history import history
from jobs.report.summary import state
from jobs.run import shards
from jobs.run.prepare import open_or_create
from jobs.run.progress import progress_of
from jobs.run.shards import Part, claim, open_shards, run_parts, run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.lease import Lease, LeaseHeld, LeaseRecord, holder, part_place, running
from jobs.storage.process import machine
from jobs.store.events import Begin, Events, read_events
from jobs.store.look import Look

JOB = {
    "kernel": "toy",
    "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 24]}}},
    "run": {"shard_items": 2, "slots": 2, "microbatch": 1},
}


@pytest.fixture
def store(tmp_path):
    address = str(tmp_path / "job.zarr")
    return open_or_create(parse_job(JOB, "job"), BASE, "job", address, SerialExecutor(1))


def test_parts_cover_every_shard_once():
    parts = [Part(k, 5) for k in range(5)]
    assert all(sum(shard in part for part in parts) == 1 for shard in range(23))


def test_a_shard_that_another_driver_commits_has_not_failed(store):
    """The first of two parts gives up a shard, which another driver computes during the second."""
    others = []

    def listen(progress):
        if progress.failed == {} and progress.shards_done >= 6 and not others:
            others.append(run_shards(store, SerialExecutor(1), part=Part(0, 2)))

    executor = Failing(lambda task: task.shard.number == 0 and "input")
    progress = run_parts(store, executor, 0, 2, listen, Stop())
    assert others
    assert (progress.shards_done, progress.failed) == (12, {})


def test_the_end_names_items_that_failed_under_another_driver(tmp_path):
    store = make(tmp_path / "f.zarr", {**JOB, "run": {**JOB["run"], "retries": 0}})
    fails = lambda task: holds(task, {8}) and "error"
    before = run_parts(store, Failing(fails), 0, 2, lambda p: None, Stop())
    now = run_parts(store, SerialExecutor(1), 0, 2, lambda p: None, Stop())
    assert now.failed_items == before.failed_items
    assert len(now.failed_items) == 1


def test_drivers_share_the_shards(store):
    """Three at once: together they do all, each shard once, and each sees the whole at the end or less."""
    finished = []

    def drive(first):
        finished.append(run_parts(store, SerialExecutor(1), first, 6, lambda p: None, Stop()))

    threads = [threading.Thread(target=drive, args=(first,)) for first in (0, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.committed.numbers() == set(range(12))
    assert not any(progress.failed for progress in finished)
    assert sum(event.done for event in read_events(store) if event.kind == "end") == 12
    assert max(progress.shards_done for progress in finished) == 12
    done = [event.shard for event in read_events(store) if event.kind == "done"]
    assert sorted(done) == list(range(12))


def test_held_part_is_left_alone(store):
    with Lease.acquire(part_place(store.address, "0001"), store.address).renewing(Stop()):
        progress = run_parts(store, SerialExecutor(1), 0, 3, lambda p: None, Stop())
        assert store.committed.numbers() == {shard for shard in range(12) if shard % 3 != 1}
        assert progress.shards_done == 8
        with refused(LeaseHeld):
            run_shards(store, SerialExecutor(1))
    done = store.committed.numbers()
    assert [k for k in range(3) if open_shards(store, done, Part(k, 3))] == [1]
    run_shards(store, SerialExecutor(1))
    assert len(store.committed.numbers()) == 12


def test_a_driver_of_a_part_is_at_work_and_not_killed(store):
    events = Events(store)
    events.note(Begin(host=socket.gethostname(), pid=os.getpid()))
    events.flush()
    with Lease.acquire(part_place(store.address, "0001"), store.address).renewing(Stop()):
        found = state(Look(store))
        assert f"process {os.getpid()} of " in found["running"]
        assert found["stopped"] is None
        assert [event.kind for event in history(store)] == ["run"]
    assert "was killed" in state(Look(store))["stopped"]
    assert [event.kind for event in history(store)] == ["run", "killed"]


def test_the_last_sign_of_life_of_a_killed_driver_stays(store):
    """Each driver that follows has a lease of its own, and the one that said it is deleted."""
    dead = {"host": "node7", "pid": 2**22 + 5}  # no process has such a number
    events, began = Events(store), time.time() - 100
    events.note(Begin(time=began, **dead))
    events.flush()
    lease = LeaseRecord(generation=7, machine=machine(), born="1", renewed=began + 58, **dead)
    objects.write(store.objects, keys.lease(7), json.dumps(lease.model_dump()).encode())
    before = history(store)
    assert [(event.kind, event.time - began) for event in before] == [("run", 0), ("killed", 58)]
    for _ in range(2):
        claim(store).release()
        assert history(store) == before


def test_parts_beside_a_driver_of_the_whole(store):
    with Lease.acquire(store.objects, store.address).renewing(Stop()):
        with refused(LeaseHeld):
            claim(store, Part(0, 2))
        progress = run_parts(store, SerialExecutor(1), 0, 2, lambda p: None, Stop())
    assert progress.shards_done == 0


@pytest.mark.parametrize("part", [None, Part(0, 2)])
def test_a_driver_of_the_other_kind_that_comes_between_look_and_lease_is_seen(
    store, monkeypatch, part
):
    """The later one computes nothing, and leaves no lease behind."""
    ours, theirs = store.objects, part_place(store.address, "0000")
    if part is not None:
        ours, theirs = theirs, ours
    acquire = Lease.acquire
    monkeypatch.setattr(shards, "YIELD_S", 0.1)
    monkeypatch.setattr(
        Lease,
        "acquire",
        staticmethod(lambda *at: (acquire(theirs, store.address), acquire(*at))[1]),
    )
    with refused(LeaseHeld):
        run_shards(store, SerialExecutor(1), part=part)
    assert store.committed.numbers() == set()
    assert running(ours) is None
    assert running(theirs)


def test_of_two_kinds_that_start_together_the_driver_of_the_whole_wins(store, monkeypatch):
    both, acquire = threading.Barrier(2, timeout=100), Lease.acquire

    def together(*at):
        both.wait()
        lease = acquire(*at)
        both.wait()
        return lease

    monkeypatch.setattr(shards, "YIELD_S", 200.0)
    monkeypatch.setattr(Lease, "acquire", staticmethod(together))
    with ThreadPoolExecutor(2) as threads:
        whole, part = threads.submit(claim, store), threads.submit(claim, store, Part(0, 2))
        with pytest.raises(LeaseHeld):
            part.result()
        whole.result().release()


def test_a_lease_that_a_dead_driver_left_keeps_nobody_out(store, monkeypatch):
    monkeypatch.setattr("jobs.storage.lease.TTL_S", 0.0)
    monkeypatch.setattr("jobs.storage.lease.RENEW_S", 0.1)
    monkeypatch.setattr("jobs.storage.lease.POLL_S", 0.05)
    place = part_place(store.address, "0001")
    Lease.acquire(place, store.address)
    elsewhere = holder(place).model_copy(update={"machine": "other", "host": "node7"})
    objects.write(place, keys.lease(0), json.dumps(elsewhere.model_dump()).encode())
    claim(store).release()


def test_stop_ends_all_parts(store):
    stop = Stop()
    stop.ask("test")
    progress = run_parts(store, SerialExecutor(1), 0, 2, lambda p: None, stop)
    assert progress.stopped == "test"
    assert progress.shards_done == 0


def test_a_stop_asks_the_storage_for_nothing_more(store, monkeypatch):
    """It may be away, and the run has ended by the stop all the same; what failed before is not forgotten."""
    stop, made = Stop(), iter([progress_of(Look(store)), progress_of(Look(store))])

    def run_one(*given):
        progress = next(made)
        progress.failed = {given[-1].number: "why"}
        if given[-1].number == 1:
            progress.stopped = "test"
            monkeypatch.setattr(store.committed, "markers", Flaky(store.committed.markers))
        return progress

    monkeypatch.setattr("jobs.run.shards.run_shards", run_one)
    progress = run_parts(store, SerialExecutor(1), 0, 3, lambda p: None, stop)
    assert (progress.stopped, progress.failed) == ("test", {0: "why", 1: "why"})


def test_the_lease_of_a_part_of_a_remote_store_takes_no_request_to_find(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("jobs.storage.connect.first_request", Flaky(None))
    assert part_place("s3://lab/a.zarr/", "0001").prefix == "a.zarr/run/parts/0001"
