"""Checkpoints, stops and resumption: a run that was disturbed ends with the bits of one that was not."""

import errno
import hashlib
import shutil
import sys
import time
from dataclasses import replace

import gated
import numpy as np
import pytest
from failing import Interrupted
from killing import begun, command
from processes import until
from small import runs
from stores import JOB, make, run, tree_bytes

from jobs.gather.gather import gather
from jobs.keys import CHECKPOINTS, place
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor, Worker
from jobs.spec.job import read_job
from jobs.storage import objects
from jobs.store import checkpoint
from jobs.store.checkpoint import Checkpoints, decode, encode
from jobs.store.events import read_events
from jobs.store.store import Store


def test_decode_refuses_any_damage():
    run = runs("toy")()
    data = encode(run.snapshot(), {})
    _, _, body = data.replace(b'"seconds": 0.0, ', b"").partition(b"\n")
    older = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    assert older != data
    assert decode(older)[1].rounds == 0, (
        "a checkpoint of an older ctd, which does not tell the time"
    )
    rng = np.random.default_rng(0)
    for _ in range(200):
        at = int(rng.integers(len(data)))
        flipped = data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :]
        assert decode(flipped) is None
        assert decode(data[:at]) is None


# --- a shard of a store ---------------------------------------------------------------------------

SLOW = {**JOB, "params": {"n_steps": 30}, "run": {**JOB["run"], "checkpoint_s": 0}}
"""Ten advances an item, and a checkpoint after each of them."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", SLOW)
    gather(store)
    return store


def test_stop_and_resume_at_many_places_ends_in_the_same_bytes(tmp_path, finished):
    store = make(tmp_path / "s.zarr", SLOW)
    stops = resumed = 0
    for after in [1, 2, 5, 13, 34]:
        stop = Stop()
        progress = run_shards(Store.open(store.address), Interrupted(stop, after), stop=stop)
        if progress.stopped is None:
            break
        stops += 1
    assert progress.stopped == "test"
    assert run_shards(store, SerialExecutor(1)).shards_done == 8
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(finished.address)
    resumed = sum(marker.resumed_at is not None for marker in store.committed.markers())
    assert stops == 5
    assert resumed >= 3
    assert list(objects.list_keys(store.objects, "run/checkpoints")) == []
    assert [e.kind for e in read_events(store)].count("stopped") == stops


SPENT_S = 1000.0


def make_longer(store, shard):
    """Let the checkpoints of a shard say that it took 1,000 s so far."""
    for k in (0, 1):
        key = f"{place(CHECKPOINTS, shard.group, shard.number)}/{k}"
        identity, snapshot = decode(objects.read(store.objects, key))
        assert snapshot.seconds > 0
        objects.write(store.objects, key, encode(replace(snapshot, seconds=SPENT_S), identity))


def test_no_advance_is_computed_twice_and_its_time_is_kept(tmp_path, finished):
    store = make(tmp_path / "once.zarr", SLOW)
    stop = Stop()
    run_shards(store, Interrupted(stop, 7), stop=stop)
    advances = []
    worker = Worker(store.address)
    (first, *_) = store.job.plan.shards()
    make_longer(store, first)
    report = worker.do(Task(first, begin="resume"), advances.append)
    assert report.error is None
    assert report.marker.resumed_at == 7
    assert report.marker.seconds > SPENT_S
    assert len([now for now in advances if not now.waiting]) == report.marker.rounds - 7
    assert report.marker.rounds == finished.committed.markers()[0].rounds


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The address of a store whose run was stopped after seven advances."""
    store = make(tmp_path_factory.mktemp("stopped") / "c.zarr", SLOW)
    stop = Stop()
    run_shards(store, Interrupted(stop, 7), stop=stop)
    return store.address


@pytest.fixture
def stopped_shard(interrupted, tmp_path):
    """(a copy of it, its first shard, which has two generations of checkpoints)."""
    store = Store.open(str(shutil.copytree(interrupted, tmp_path / "c.zarr")))
    shard = next(store.job.plan.shards())
    keys = sorted(objects.list_keys(store.objects, "run/checkpoints"))
    assert keys == [f"{place(CHECKPOINTS, shard.group, shard.number)}/{k}" for k in (0, 1)]
    return store, shard


def test_checkpoint_that_cannot_be_deleted_fails_no_committed_shard(stopped_shard, monkeypatch):
    store, shard = stopped_shard

    def delete(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(objects, "delete", delete)
    report = Worker(store.address).do(Task(shard, 2, begin="resume"))
    assert (report.error, report.marker.resumed_at) == (None, 7)
    assert [marker.shard for marker in store.committed.markers()] == [shard]


def rounds(store, shard):
    data = [
        objects.read(store.objects, f"{place(CHECKPOINTS, shard.group, shard.number)}/{k}")
        for k in (0, 1)
    ]
    return [decode(d)[1].rounds if d and decode(d) else None for d in data]


@pytest.mark.parametrize("damaged", [["newest"], ["newest", "older"]])
def test_damaged_checkpoint_falls_back(stopped_shard, finished, damaged):
    """To the older generation, then to the start; the bytes are the same."""
    store, shard = stopped_shard
    kept = rounds(store, shard)
    newest = int(np.argmax(kept))
    assert min(kept) < max(kept) == 7
    for which in damaged:
        key = f"{place(CHECKPOINTS, shard.group, shard.number)}/{newest if which == 'newest' else 1 - newest}"
        data = bytearray(objects.read(store.objects, key))
        data[len(data) // 2] ^= 1
        objects.write(store.objects, key, bytes(data))
    report = Worker(store.address).do(Task(shard, begin="resume"))
    assert report.marker.resumed_at == (min(kept) if damaged == ["newest"] else None)
    assert run_shards(store, SerialExecutor(1)).shards_done == 8
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(finished.address)


@pytest.mark.parametrize("what", ["device_kind", "jax", "microbatch"])
def test_checkpoint_of_another_machine_is_not_continued(stopped_shard, monkeypatch, what):
    store, shard = stopped_shard
    task = Task(shard, begin="resume")
    if what == "device_kind":
        here = checkpoint.host()
        monkeypatch.setattr(checkpoint, "host", lambda: {**here, "device_kind": "other"})
    elif what == "jax":
        monkeypatch.setattr(checkpoint.jax, "__version__", "9.9")
    else:
        task = task._replace(slots=1)  # memory that does not hold a microbatch
    report = Worker(store.address).do(task)
    assert report.error is None
    assert report.marker.resumed_at is None


def test_shard_that_was_too_large_goes_on_in_fewer_slots(stopped_shard, finished):
    """A device that runs out of memory costs no advance that a checkpoint holds."""
    store, shard = stopped_shard
    report = Worker(store.address).do(Task(shard, begin="resume", slots=2))
    assert (report.marker.resumed_at, report.marker.layout.slots) == (7, 2)
    run_shards(store, SerialExecutor(1))
    gather(store)
    found, wanted = store.results(0), finished.results(0)
    for name in wanted.array_keys():
        np.testing.assert_array_equal(found[name][:], wanted[name][:])


def test_checkpoints_take_a_bounded_share_of_the_time(tmp_path, monkeypatch):
    """A slow storage gets fewer checkpoints than one after each advance."""
    store = make(tmp_path / "d.zarr", SLOW)
    shard = next(store.job.plan.shards())
    saved = Checkpoints(store, shard, np.arange(6), 2)
    write = objects.write
    monkeypatch.setattr(objects, "write", lambda *args: (time.sleep(0.05), write(*args)))
    began = time.monotonic()
    saved.keep(runs("toy")())
    assert saved._due - began > 0.05 + 0.05 / checkpoint.COST


# --- signals --------------------------------------------------------------------------------------


JOB_FILE = """
kernel: gated_walk
params: {gate: %s}
sweep: {zip: {rate: {linspace: [0, 0.5, 8]}, n_steps: [3, 3, 3, 3, 12, 12, 12, 12]}}
run: {microbatch: 2, slots: 4, shard_items: 4, workers: 1, checkpoint_s: 0.2}
"""
"""The first shard ends in a single advance; the second stays at the gate."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["serial", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.endurance])]
)
def test_a_driver_that_gets_sigterm_exits_75_and_resume_ends_the_job(
    tmp_path, executor, monkeypatch, command_line
):
    path, gate = tmp_path / "job.yaml", tmp_path / "gate"
    path.write_text(JOB_FILE % gate)
    gated.prepare(tmp_path)
    monkeypatch.delitem(sys.modules, "gated_walk", raising=False)  # it came from another folder
    monkeypatch.setattr(sys, "path", [*sys.path])
    where = (str(tmp_path), "job", str(tmp_path / "whole.zarr"))
    whole = open_or_create(read_job(path), *where, SerialExecutor(1))
    run_shards(whole, SerialExecutor(1))
    gather(whole)
    gate.touch()
    said = tmp_path / "said.txt"
    process = begun(command, "run", str(path), "--executor", executor, said=said)
    run = tmp_path / "job.zarr" / "run"
    under_way = lambda: (
        any(run.glob("done/0/000000-*.json")) and any(run.glob("checkpoints/0/000001/*"))
    )
    until(under_way, "the second shard is under way", 600)
    process.terminate()
    process.join(600)
    gate.unlink()
    err = said.read_text()
    assert process.exitcode == 75, err
    assert "stopped (SIGTERM) at 50%; `ctd resume" in err
    store = Store.open(str(tmp_path / "job.zarr"))
    assert len(store.committed.numbers()) == 1
    code, _, err = command_line("resume", store.address, "--executor", "serial")
    assert code == 0, err
    assert store.committed.markers()[1].resumed_at is not None
    assert tree_bytes(store.address) == tree_bytes(whole.address)
