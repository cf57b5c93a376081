"""What an executor owes to `run_shards`, for all of them; and what only processes can suffer."""

import os
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import toy
from failing import attempts, errors, make_faulty
from messages import refused
from processes import mentioning, until

from cluster.ray.executor import RayExecutor
from ctd.batch import Layout, run_items
from jobs.errors import JobError
from jobs.keys import number_of
from jobs.run.limits import Durations
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.storage import objects
from jobs.store.events import read_events


@pytest.fixture(scope="module")
def ray_pool(ray_address):
    """A Ray executor that all tests share: its two actors take one store after another."""
    executor = RayExecutor(RunSettings(workers=2), ray_address)
    yield executor
    executor.close()


@pytest.fixture(params=["serial", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request):
    if request.param == "ray":
        return request.getfixturevalue("ray_pool")
    return SerialExecutor()


# --- a Ray, found or started ----------------------------------------------------------------------
# (First in the file: these are about connecting, and the pools below stay connected to their Ray.)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "127.0.0.1:1"),
        ({"cpus_per_worker": 64}, None),
        ({"gpus_per_worker": 8}, None),
    ],
)
def test_a_ray_without_room_is_refused(ray_address, settings, address):
    executor = RayExecutor(RunSettings(**settings), address or ray_address)
    with refused(JobError):
        executor.machines()
    executor.close()


@pytest.mark.ray
@pytest.mark.endurance  # that a command's Ray leaves nothing is seen in test_lost.py
def test_a_ray_of_its_own_leaves_nothing_behind(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # not looked at
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    executor = RayExecutor(RunSettings(workers=2))
    temporary = executor._local._folder
    try:
        store = make_faulty(folder, executor, "own", {"fault": [0] * 6}, workers=2)
        assert run_shards(store, executor).shards_done == 6
        assert mentioning(temporary)
        assert temporary.stat().st_mode & 0o077 == 0, (
            "its sockets and token are for this user alone"
        )
    finally:
        executor.close()
    until(lambda: not mentioning(temporary), "it has ended")
    assert not temporary.exists()
    assert not (tmp_path / ".ray").exists()
    assert before == {name: os.environ.get(name) for name in before}


# --- all executors --------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_executor(executor, folder):
    rates = np.linspace(-0.5, 0.9, 23)
    store = make_faulty(
        folder, executor, "same", {"rate": rates.tolist()}, kernel="toy", params={"n_steps": 20},
        microbatch=2, slots=4, shard_items=6,
    )  # fmt: skip
    progress = run_shards(store, executor)
    assert progress.items_done == 23
    expected = run_items(
        toy.kernel, toy.Walk(n_steps=20), {"rate": rates}, layout=Layout(slots=4, microbatch=2)
    )
    for name, values in expected.items():
        assert store.rows(0, name, 0, 23).tobytes() == values.tobytes(), name


@pytest.mark.ray
@pytest.mark.slow
def test_the_cores_of_a_worker_share_its_items(ray_address, folder):
    """A population in one worker, on three devices of a core each: the bits of one device alone."""
    job = {
        "kernel": "toy",
        "params": {"n_steps": 24},
        "sweep": {"samples": 8, "random": {"rate": {"uniform": [-0.5, 0.9]}}},
        "search": {"method": "population", "metric": "norm", "every": 2, "generations": 3,
                   "params": {"rate": {"uniform": [-0.5, 0.9]}}},
        "run": {"microbatch": 1, "cpus_per_worker": 3, "workers": 1, "memory_gb": 3},
    }  # fmt: skip
    stores = []
    spec = parse_job(job, "cores")
    for executor in (RayExecutor(spec.run, ray_address), SerialExecutor()):
        try:
            if executor.name == "ray":
                assert executor.machines().memory == 1e9, "each device has a third"
            address = str(folder / f"cores-{executor.name}.zarr")
            store = open_or_create(spec, str(folder), "cores", address, executor)
            assert not run_shards(store, executor).failed
        finally:
            executor.close()
        stores.append(store)
    layouts = [s.committed.markers()[0].layout for s in stores]
    assert [(one.devices, one.slots) for one in layouts] == [(3, 3), (1, 8)]
    for name in stores[0].names(0):
        first, second = (np.asarray(s.array(0, name)[:]) for s in stores)
        assert first.tobytes() == second.tobytes(), name


def test_progress_counts_items_shards_and_outcomes(executor, folder):
    heard = []
    store = make_faulty(
        folder, executor, "counts", {"rate": [0.5, 1e30, 0.1, 1e30, 0.2]}, kernel="toy",
        params={"n_steps": 5}, shard_items=2,
    )  # fmt: skip
    progress = run_shards(store, executor, lambda p: heard.append((p.items_done, p.running_items)))
    assert (progress.n_items, progress.n_shards, progress.shards_done) == (5, 3, 3)
    assert progress.outcomes == {"stopped": 3, "diverged": 2}
    done = [items for items, _ in heard]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 5
    assert all(items + running <= 5 for items, running in heard)
    assert run_shards(store, executor).items_before == 5


def test_progress_inside_a_running_shard_is_seen(executor, folder):
    store = make_faulty(folder, executor, "live", {"fault": [5] * 6}, shard_items=6, slots=1)
    heard = set()
    run_shards(store, executor, lambda p: heard.add((p.running_items, p.advances)))
    inside = {(n, advances) for n, advances in heard if 0 < n < 6}
    # One item on the devices at a time, of one advance each.
    assert inside <= {(n, (n,)) for n in range(1, 6)}
    assert inside, heard


@pytest.mark.ray
def test_a_heartbeat_on_its_way_as_a_run_ended_is_asked_for_anew_by_the_next(ray_pool, folder):
    for slot in ray_pool._pool.slots:
        slot.asked = Future()  # it was to answer the run before
    store = make_faulty(folder, ray_pool, "next", {"fault": [5] * 6}, shard_items=6, slots=1)
    heard = set()
    run_shards(store, ray_pool, lambda p: heard.update(p.advances))
    assert heard & set(range(1, 6)), heard


def test_an_exception_is_reported_and_the_shard_retried(executor, folder):
    store = make_faulty(folder, executor, "once", {"fault": [0, 2, 0]})
    progress = run_shards(store, executor)
    assert progress.failed == {}
    assert progress.retried == 1
    assert attempts(store) == {0: 1, 1: 2, 2: 1}
    (error,) = errors(store)
    assert error.shard == 1
    assert "this item says no" in error.error + error.trace
    assert store.rows(0, "value", 0, 3).tolist() == [10, 10, 10]


def test_an_item_that_always_fails_is_marked_and_leaves_the_others_alone(executor, folder):
    store = make_faulty(
        folder, executor, "always", {"fault": [0, 0, 1, 0, 0, 0]}, retries=1, shard_items=4
    )
    progress = run_shards(store, executor)
    assert progress.failed == {}
    assert list(progress.failed_items) == [2]
    assert "this item says no" in store.failed.items()[0][0].trace
    assert store.rows(0, "status", 0, 6).tolist() == [1, 1, 2, 1, 1, 1]
    np.testing.assert_array_equal(store.rows(0, "value", 0, 6), [10, 10, np.nan, 10, 10, 10])


@pytest.mark.parametrize(
    ("mode", "tries", "text"),
    [
        ("hopeless", 1, "bad data"),  # the input is at fault
        ("stubborn", 2, "Stubborn"),  # an error that can be neither pickled nor printed
    ],
)
def test_a_group_that_cannot_be_loaded_leaves_the_others_alone(executor, folder, mode, tries, text):
    store = make_faulty(folder, executor, mode, {"mode": ["good", mode]}, retries=1)
    (folder / "armed").touch()
    try:
        progress = run_shards(store, executor)
    finally:
        (folder / "armed").unlink()
    assert list(progress.failed) == [1]
    assert text in progress.failed[1]
    assert len(errors(store)) == tries
    assert attempts(store) == {0: 1}
    assert all("died" not in error.about for error in errors(store))


def test_a_stop_leaves_shards_at_checkpoints_that_the_next_run_goes_on_from(
    executor, folder, monkeypatch
):
    """Each shard that runs stays at half of its steps, at a gate that opens once the run is stopped."""
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    gate = folder / f"gate-{executor.name}"
    gate.touch()
    rates = np.linspace(-0.5, 0.9, 8)
    store = make_faulty(
        folder, executor, "stop", {"rate": rates.tolist()}, kernel="gated_walk",
        params={"n_steps": 12, "gate": str(gate)}, microbatch=2, slots=4, shard_items=4,
    )  # fmt: skip
    stop = Stop()

    def once_a_shard_is_at_the_gate(progress):
        if any(advances > 2 for advances in progress.advances):
            stop.ask("test")

    stopped = run_shards(store, executor, once_a_shard_is_at_the_gate, stop)
    assert stopped.stopped == "test"
    left_at = [event.error for event in read_events(store) if event.kind == "stopped"]
    assert any("advances" in text for text in left_at)
    gate.unlink()
    assert run_shards(store, executor).stopped is None
    assert any(marker.resumed_at is not None for marker in store.committed.markers())
    expected = run_items(
        toy.kernel, toy.Walk(n_steps=12), {"rate": rates}, layout=Layout(slots=4, microbatch=2)
    )
    for name, values in expected.items():
        assert store.rows(0, name, 0, 8).tobytes() == values.tobytes(), name


@pytest.mark.ray
def test_a_worker_dies_in_a_round_of_a_search(ray_pool, folder, monkeypatch):
    """A population of 8 in rounds of 2 on two workers; the bits are those of rounds of 8."""
    law = {"loguniform": [1e-3, 0.9]}
    content = {
        "kernel": "hill", "seed": 5, "params": {"dtype": "float64", "noise": 0.05, "steps": 60},
        "sweep": {"random": {"rate": law}, "samples": 8},
        "search": {"method": "population", "metric": "loss", "every": 3, "generations": 6,
                   "params": {"rate": law}},
        "run": {"microbatch": 2, "slots": 4, "checkpoint_s": 0, "backoff_s": 0},
    }  # fmt: skip

    def planned(name, shard_items):
        job = content | {"run": content["run"] | {"shard_items": shard_items}}
        address = str(folder / f"{name}.zarr")
        return open_or_create(parse_job(job, name), str(folder), name, address, ray_pool)

    whole, store = planned("whole", 8), planned("apart", 2)
    run_shards(whole, SerialExecutor())
    killed = []
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)

    def kill(_):
        if killed:
            return
        # Beyond the second generation of four rounds.
        if any(number_of(key) >= 10 for key in objects.list_keys(store.objects, "run/decisions")):
            killed.extend(list(ray_pool.heartbeats())[:1])
            for attempt in killed:
                ray_pool.end(attempt, "ended by the test")

    assert run_shards(store, ray_pool, kill).failed == {}
    assert killed
    for name in [*whole.names(0), "status"]:
        assert store.rows(0, name, 0, 8).tobytes() == whole.rows(0, name, 0, 8).tobytes(), name


@pytest.mark.ray
def test_a_straggler_is_superseded_on_another_node(ray_pool, folder, monkeypatch):
    """Its first attempt stays at a gate that nobody opens; the second ends the run, and the first one's process."""
    monkeypatch.setattr("jobs.run.limits.LEAST_PATIENCE_S", 0.0)
    measured = Durations.recent

    # On a busy machine the second attempt might be at the gate before the first one.
    def peers_once_there(self, task):
        return measured(self, task) if (folder / "waits").exists() else ()

    monkeypatch.setattr(Durations, "recent", peers_once_there)
    params = {"tag": "superseded"}
    faults = {"fault": [0, 0, 0, 8]}
    store = make_faulty(folder, ray_pool, "superseded", faults, params=params, straggler_factor=2)

    def apart(_):  # the two workers are on one node
        for k, slot in enumerate(ray_pool._pool.slots):
            slot.place = slot.place and slot.place._replace(node=f"node {k}")

    progress = run_shards(store, ray_pool, apart)
    # Another one may seem slow on a busy machine, with no patience at all.
    assert attempts(store)[3] == 2
    kinds = [(e.kind, e.attempt) for e in read_events(store) if e.attempt and e.shard == 3]
    assert kinds[-3:] == [("second", 2), ("done", 2), ("superseded", 1)]
    assert (progress.retried, progress.failed, progress.failed_items) == (0, {}, {})
    until(lambda: not Path(f"/proc/{(folder / 'waits').read_text()}").exists(), "it has ended")
    here = make_faulty(folder, SerialExecutor(), "superseded", faults, params=params)
    run_shards(here, SerialExecutor())
    for name in [*here.names(0), "status"]:
        assert store.rows(0, name, 0, 4).tobytes() == here.rows(0, name, 0, 4).tobytes(), name
    until(lambda: ray_pool.wait(0.1) or ray_pool.capacity() >= 2, "another worker is ready")


@pytest.fixture
def pool(ray_pool):
    """One worker of the pool: what is queued is queued behind what runs."""
    aside = ray_pool._pool.slots.pop()
    yield ray_pool
    ray_pool._pool.slots.append(aside)


def collect(executor, n):
    reports = {}
    deadline = time.monotonic() + 300
    while len(reports) < n and time.monotonic() < deadline:
        reports |= {report.shard: report for report in executor.wait(0.5)}
    return reports


@pytest.mark.ray
def test_an_attempt_that_dies_or_is_ended_is_reported_and_another_worker_comes(pool, folder):
    store = make_faulty(folder, pool, "ended", {"fault": [0, 4, 6, 6, 0]})
    shards = list(store.job.plan.shards())
    pool.start(store.address)
    until(lambda: pool.wait(0.1) or pool.capacity() == 1, "a worker is ready")
    pool.submit(Task(shards[0]))
    assert pool.capacity() == 0
    first = collect(pool, 1)[0]
    pool.submit(Task(shards[1]))
    died = collect(pool, 1)[1]
    assert (died.about["died"], died.attempt) == ("killed", 1)
    assert died.error.startswith("the worker died (killed)")
    assert len(died.error) < 120, died.error
    for shard, why in ((2, "it hangs"), (3, None)):
        until(lambda: pool.wait(0.1) or pool.capacity() == 1, "another worker is ready")
        pool.submit(Task(shards[shard]))
        pool.end((shard, 1), why)
        if why:
            ended = collect(pool, 1)[shard]
            assert (ended.error, ended.fault) == ("it hangs", "death")
    until(lambda: pool.wait(0.1) or pool.capacity() == 1, "another worker is ready")
    pool.submit(Task(shards[1], 2))
    again = collect(pool, 1)[1]
    assert (again.error, again.attempt) == (None, 2)
    assert again.marker.pid != first.marker.pid
    pool.submit(Task(shards[4]))
    until(lambda: any(slot.answer.done() for slot in pool._pool.slots), "its answer is in")
    pool.end((4, 1), "late")
    assert collect(pool, 1)[4].error is None


def test_a_store_that_cannot_be_opened_is_the_users_error(executor, folder):
    def start():
        executor.start(str(folder / "nowhere.zarr"))
        until(lambda: executor.wait(0.2), "a report")

    with refused(JobError):
        start()
