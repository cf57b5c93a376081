"""Items compared across shards: the bits of one shard, who meets, what is told of it."""

import numpy as np
import pytest
from killing import dies_at_a_meeting, killed
from search_jobs import POPULATION, changed, results, spread
from spread_jobs import FOLDER, JOBS, same, started_over, whole_store
from stores import run

from jobs.gather.check import check
from jobs.run.fork import fork
from jobs.run.parts import Part, open_shards
from jobs.run.rendezvous import populations
from jobs.run.serial import SerialExecutor
from jobs.run.shards import run_shards
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import read_verified
from jobs.store.events import read_events
from jobs.store.store import Store

# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shard_items"),
    [("halving", 3), ("tournament", 1), ("tournament", 4), ("truncation", 2)],
)
def test_shards_that_meet_come_to_the_bits_of_one_shard(tmp_path, name, shard_items):
    store, progress = run(tmp_path / "s.zarr", spread(JOBS[name], shard_items))
    n = len(results(store)["status"])
    assert progress.shards_done == store.job.plan.n_shards == n // shard_items
    assert ", best loss " in progress.stage
    assert progress.outcomes == run_shards(whole_store(name), SerialExecutor(1)).outcomes
    same(store, whole_store(name))


def test_members_are_copied_from_other_shards():
    parents = results(whole_store("tournament"))["search_parent"]
    assert (parents // 2 != np.arange(8)[:, None] // 2).sum() > 10


def test_populations_in_shards_of_their_own_do_not_meet(tmp_path):
    job = changed(POPULATION, "sweep.grid", {"noise": [0.05, 0.2, 0.4]})
    job = changed(changed(job, "params", {"dtype": "float64", "steps": 60}), "search.size", 8)
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    assert populations(store.job) == {
        0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3), 4: (4, 5), 5: (4, 5),
    }  # fmt: skip
    same(store, whole)
    parts = [Part(k, 2) for k in range(2)]
    assert [open_shards(store, {3}, part) for part in parts] == [{0, 1, 4, 5}, {2}]


def test_populations_of_one_shard_end_each_by_itself(tmp_path):
    """One whose members finish early keeps its last generation, however long another one lasts."""
    rates = np.linspace(0.05, 0.4, 8).tolist()
    job = changed(POPULATION, "sweep", {"grid": {"limit": [14, 60], "rate": rates}})
    job = changed(changed(job, "params.noise", 0.05), "search.size", 8)
    apart, _ = run(tmp_path / "a.zarr", changed(job, "run.shard_items", 8))
    beside, _ = run(tmp_path / "b.zarr", changed(job, "run.shard_items", 16))
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    ended = results(apart)["search_parent"][:8, -1]
    assert (ended == -1).all()
    same(beside, apart)
    same(store, apart)


def test_broken_members_copy_from_another_shard(tmp_path):
    """All of the first shard diverge, and the second has what they go on from."""
    job = changed(
        POPULATION, "sweep", {"grid": {"rate": [0.9, 0.88, 0.89, 0.85, 0.1, 0.2, 0.05, 0.3]}}
    )
    job["search"] |= {"every": 20, "generations": 3, "perturb": 0.02}
    whole, _ = run(tmp_path / "w.zarr", job)
    store, progress = run(tmp_path / "s.zarr", spread(job, 4))
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
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 2))
    parents = results(store)["search_parent"]
    assert (parents // 2 != np.arange(6)[:, None] // 2).any()
    same(store, whole)


def test_laps_are_told_apart_beyond_the_digits_of_their_names(tmp_path, monkeypatch):
    """Generation 10 comes after generation 9, whatever the order of their names."""
    name = lambda self, lap, shard: f"{self._meeting.folder}/{lap}/{shard:06d}"
    monkeypatch.setattr("jobs.run.rendezvous.Meetings._key", name)
    job = changed(changed(POPULATION, "search.generations", 11), "search.every", 1)
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    assert started_over(store) == 0
    same(store, whole)


def test_fork_of_a_job_whose_shards_meet(tmp_path):
    bare = changed(POPULATION, "search.size", 8) | {"sweep": [POPULATION["sweep"]]}
    bare["search"]["spread"] = True
    bare = changed(bare, "run.slots", 2)
    grown = bare | {"sweep": [*bare["sweep"], {"grid": {"rate": [0.01 * k for k in range(1, 9)]}}]}
    old, _ = run(tmp_path / "old.zarr", bare)
    assert old.job.plan.n_shards == 4
    new = fork(
        parse_job(grown, "job"), old.job.base, "job", str(tmp_path / "new.zarr"), old, SerialExecutor(1)
    )  # fmt: skip
    progress = run_shards(new, SerialExecutor(1))
    assert (progress.items_before, progress.items_done, progress.failed) == (8, 16, {})
    once, _ = run(tmp_path / "once.zarr", grown)
    same(new, once)


def test_shards_meet_in_a_bucket(s3):
    del s3
    address = "s3://lab/spread.zarr"
    job = spread(JOBS["tournament"], 2)
    killed(dies_at_a_meeting, address, job, 6)
    store = Store.open(address)
    assert len(list(objects.list_keys(store.objects, FOLDER))) == 6
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole_store("tournament"))


# --- what is told ---------------------------------------------------------------------------------


def test_markers_tell_of_all_attempts(tmp_path):
    """Of the time from the first one on, and of the longest advance, which the last one has not made."""
    job = spread(changed(POPULATION, "run", {"slots": 2, "checkpoint_s": 0}), 2)
    store, _ = run(tmp_path / "t.zarr", job)
    ended = {e.shard: e.time for e in read_events(store) if e.kind == "done"}
    for marker in store.committed.markers():
        assert 0 < marker.longest_s < marker.seconds
        assert marker.ended < ended[marker.shard.number] + 0.01
    (layout,) = objects.list_keys(store.objects, "run/layout")
    before = read_verified(store.objects, layout)["microbatch"]
    objects.delete(store.objects, layout)
    check(store.address, repair=True)
    assert read_verified(store.objects, layout)["microbatch"] == before


def test_a_search_that_compares_too_late_says_so(tmp_path):
    job = spread(changed(POPULATION, "search.every", 100), 4)
    _, progress = run(tmp_path / "l.zarr", job)
    assert "search.every: the items finish after 60 advances" in progress.failed[0]
    assert sorted(progress.failed) == [0, 1]
