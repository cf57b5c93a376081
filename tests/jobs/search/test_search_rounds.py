"""A search in rounds on the driver's side: who makes them in which order, what is written first, what is told."""

import random

import numpy as np
import pytest
from failing import Nodes
from search_jobs import (
    DECISIONS,
    HALVING,
    JOBS,
    POPULATION,
    SHORT,
    changed,
    cut,
    in_rounds,
    left,
    results,
    same,
    whole_store,
)
from stores import make, run

from jobs.gather.check import check
from jobs.run.shards import Part, open_shards, run_parts, run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.storage.checksums import read_verified
from jobs.store.events import read_events
from jobs.store.rounds import read_decisions, round_digest

# --- the same bits --------------------------------------------------------------------------------


class Watched(Nodes):
    """Workers that take a time drawn from 1 s to 30 s; looks at the log of decisions whenever a task is handed out."""

    def __init__(self, n, seed):
        draw = random.Random(seed)
        super().__init__(n, lambda task: draw.uniform(1, 30))
        self.store, self.heard = None, {}

    def wait(self, timeout):
        return super().wait(timeout) + super().wait(timeout)  # so that a decision tells of several

    def submit(self, task, place=0):
        decisions = list(read_decisions(self.store, task.shard.group))
        told = {number for decision in decisions for number, _, _ in decision.told}
        if task.step.search_results is None:
            asked = [decision.asked for decision in decisions if decision.asked is not None]
            assert round_digest(asked[task.step.number]) == round_digest(task.step.round)
        # Whatever it goes on from, or tells of, is in the log as well.
        assert {*task.step.round.rounds.tolist()} - {-1} <= told
        super().submit(task, place)


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("halving", 3),
        ("tournament", 4),
        pytest.param("halving", 1, marks=pytest.mark.endurance),
        pytest.param("truncation", 2, marks=pytest.mark.endurance),
    ],
)
def test_bits_do_not_depend_on_the_workers_and_who_is_first(tmp_path, monkeypatch, name, n):
    """And a decision is written before anything that follows from it is handed out."""
    executor = Watched(n, n)
    executor.store = store = make(tmp_path / "s.zarr", in_rounds(name))
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        assert run_shards(store, executor).failed == {}
    same(store, whole_store(name))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.endurance)])
def test_what_depends_on_who_is_first_goes_on_from_the_log(tmp_path, monkeypatch, seed):
    """ASHA on four workers is stopped, and another driver decides on from what is written: nothing is asked anew."""
    draw = np.random.default_rng(seed)
    zipped = {
        "rate": draw.uniform(0.01, 0.4, 27).tolist(),
        "limit": draw.integers(1, 30, 27).tolist(),
    }
    job = changed(cut(HALVING, 2), "sweep", {"zip": zipped})
    job = changed(job, "search.method", "asha")
    store, stop, asked = make(tmp_path / "s.zarr", job), Stop(), []
    enough = lambda p: stop.ask("test") if len(left(store, DECISIONS)) > 14 else None
    for halt in (stop, None):
        executor = Watched(4, seed)
        executor.store = store
        with monkeypatch.context() as patch:
            patch.setattr("time.monotonic", lambda: executor.now)  # noqa: B023
            patch.setattr("jobs.run.task.TICK_S", 0.0)
            progress = run_shards(store, executor, enough, halt)
        assert progress.failed == {}
        log = [d.asked for d in read_decisions(store, 0) if d.asked is not None]
        asked.append([round_digest(one) for one in log])
    assert 10 < len(asked[0]) < len(asked[1])
    assert asked[1][: len(asked[0])] == asked[0]
    assert progress.shards_done == store.job.plan.n_shards


def test_members_are_copied_from_other_rounds():
    parents = results(whole_store("tournament"))["search_parent"]
    assert (parents // 2 != np.arange(8)[:, None] // 2).sum() > 10


def test_populations_end_each_by_itself(tmp_path):
    """One whose members finish early keeps its last generation, however long another one lasts."""
    rates = np.linspace(0.05, 0.4, 8).tolist()
    job = changed(POPULATION, "sweep", {"grid": {"limit": [14, 60], "rate": rates}})
    job = changed(changed(job, "params.noise", 0.05), "search.size", 8)
    whole, _ = run(tmp_path / "a.zarr", cut(job, 8))
    store, _ = run(tmp_path / "s.zarr", cut(job, 6))
    assert (results(whole)["search_parent"][:8, -1] == -1).all()
    same(store, whole)


def test_broken_members_copy_from_another_round(tmp_path):
    """All of the first round diverge, and the second has what they go on from."""
    rates = [0.9, 0.88, 0.89, 0.85, 0.1, 0.2, 0.05, 0.3]
    job = changed(POPULATION, "sweep", {"grid": {"rate": rates}})
    job["search"] |= {"every": 20, "generations": 3, "perturb": 0.02}
    whole, _ = run(tmp_path / "w.zarr", cut(job, 8))
    store, progress = run(tmp_path / "s.zarr", cut(job, 4))
    assert (results(store)["search_parent"][:4, 1] >= 4).all()
    assert progress.outcomes == {"descended": 8, "diverged": 0}
    same(store, whole)


@pytest.mark.endurance
def test_networks_with_keys_and_moments_are_copied_whole(tmp_path):
    """A kernel's own state: weights, both moments of Adam, a step, in float32."""
    job = {
        "kernel": "train_rnn",
        "params": {"task": {"name": "integrator", "n_steps": 8}, "n": 6, "batch_size": 4, "n_batches": 60,
                   "report_every": 5, "n_eval": 16},
        "sweep": {"random": {"learning_rate": {"loguniform": [1e-3, 3e-2]}}, "samples": 6},
        "search": {"method": "population", "metric": "eval_loss", "every": 2, "generations": 4,
                   "params": {"learning_rate": {"loguniform": [1e-3, 3e-2]}}},
        "run": {"microbatch": 1, "slots": 2},
    }  # fmt: skip
    whole, _ = run(tmp_path / "w.zarr", cut(job, 6))
    store, _ = run(tmp_path / "s.zarr", cut(job, 2))
    parents = results(store)["search_parent"]
    assert (parents // 2 != np.arange(6)[:, None] // 2).any()
    same(store, whole)


def test_rounds_are_told_apart_beyond_the_digits_of_their_names(tmp_path, monkeypatch):
    """Round 10 comes after round 9, whatever the order of their names."""
    monkeypatch.setattr("jobs.keys.place", lambda folder, group, n: f"{folder}/{group}/{n}")
    monkeypatch.setattr("jobs.keys.decision", lambda group, n: f"run/decisions/{group}/{n}.json")
    monkeypatch.setattr("jobs.keys.is_ours", lambda key: True)
    store, stop = make(tmp_path / "s.zarr", in_rounds("tournament")), Stop()
    executor = SerialExecutor(1)
    enough = lambda p: stop.ask("test") if len(left(store, DECISIONS)) > 13 else None
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    assert run_shards(store, executor, enough, stop).stopped == "test"
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole_store("tournament"))


# --- several groups, several drivers --------------------------------------------------------------

GROUPS = changed(POPULATION, "params", {"dtype": "float64", "noise": 0.05})
GROUPS = changed(GROUPS, "sweep", {"grid": {"steps": [40, 50, 60]}, **POPULATION["sweep"]})
GROUPS = changed(GROUPS, "search.generations", 4)
"""A population of 8 in each of three groups."""


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    whole, progress = run(tmp_path_factory.mktemp("store") / "w.zarr", cut(GROUPS, 8))
    assert progress.shards_done == 3
    return whole


def test_groups_have_a_search_each_on_one_driver(tmp_path, monkeypatch, groups):
    """Three workers: the groups do not wait for each other."""
    executor = Watched(3, 0)
    executor.store = store = make(tmp_path / "s.zarr", cut(GROUPS, 2))
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        assert run_shards(store, executor).failed == {}
    same(store, groups)


def test_groups_are_dealt_out_to_drivers(tmp_path, groups):
    """Group g belongs to part g mod n, whatever the shards; a driver runs the parts that nobody else does."""
    store = make(tmp_path / "s.zarr", cut(GROUPS, 4))
    parts = [Part(k, 2) for k in range(2)]
    assert [open_shards(store, {1}, part) for part in parts] == [{0, 4, 5}, {2, 3}]
    run_shards(store, SerialExecutor(1), part=parts[1])
    assert store.committed.numbers() == {2, 3}
    assert {key.split("/")[2] for key in left(store, DECISIONS)} == {"1"}
    progress = run_parts(store, SerialExecutor(1), 1, 2, lambda p: None, Stop())
    assert (progress.shards_done, progress.failed) == (6, {})
    # In no time: parts without a shard are not asked for.
    run_parts(store, SerialExecutor(1), 5, 10**12, lambda p: None, Stop())
    same(store, groups)


# --- what is told ---------------------------------------------------------------------------------


def test_markers_tell_of_all_rounds(tmp_path):
    """Of the time from the first one on, and of the longest advance, which the last step has not made."""
    job = cut(changed(SHORT, "run", {"slots": 2, "checkpoint_s": 0}), 2)
    store, _ = run(tmp_path / "t.zarr", job)
    events = read_events(store)
    ended = {e.shard: e.time for e in events if e.kind == "done"}
    for marker in store.committed.markers():
        # Its `seconds` are its items' share of the rounds, of which the longest advance may be more.
        assert 0 < marker.longest_s < marker.ended - marker.started
        assert marker.seconds > 0
        assert events[0].time < marker.started + 0.01
        assert marker.ended < ended[marker.shard.number] + 0.01
    (layout,) = objects.list_keys(store.objects, "run/layout")
    before = read_verified(store.objects, layout)["microbatch"]
    objects.delete(store.objects, layout)
    check(store.address, repair=True)
    assert read_verified(store.objects, layout)["microbatch"] == before


def test_a_search_that_compares_too_late_says_so(tmp_path):
    """Each time it is run, and only the groups whose items finish too early."""
    job = changed(cut(POPULATION, 4), "sweep.grid", {"steps": [20, 60]})
    job = changed(changed(job, "search.every", 30), "params", {"dtype": "float64", "noise": 0.05})
    store, progress = run(tmp_path / "l.zarr", job)
    for again in (progress, run_shards(store, SerialExecutor(1))):
        assert sorted(again.failed) == [0, 1]
        assert "search.every: 30 advances given, but items finish after 20" in again.failed[0]
        assert again.shards_done == 2


@pytest.mark.parametrize("name", sorted(JOBS))
def test_what_a_search_keeps_in_the_store_is_told_apart(name):
    """The log of decisions stays, and repeats the search; the states go."""
    store = whole_store(name)
    decisions = list(read_decisions(store, 0))
    asked = [decision.asked for decision in decisions if decision.asked is not None]
    told = [number for decision in decisions for number, _, _ in decision.told]
    assert sorted(told) == list(range(len(asked)))
    advances = np.zeros(len(results(store)["status"]), int)
    for decision in decisions:
        for _, report, _ in decision.told:
            advances[report.rows] += report.advances
    np.testing.assert_array_equal(advances, results(store)["search_advances"])
    assert left(store) == []
