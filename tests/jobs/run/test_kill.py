"""SIGKILL at chosen writes: whatever the last thing was that a process wrote, the next one goes on."""

import pytest
from killing import killed_at_a_write
from stores import make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.store.store import Store

JOB = {
    "kernel": "toy",
    "params": {"n_steps": 30},
    "sweep": {"grid": {"rate": {"linspace": [-0.5, 0.5, 12]}}},
    "run": {"shard_items": 6, "slots": 4, "microbatch": 2, "checkpoint_s": 0},
}

POINTS = [
    ("before", "results/0/zarr.json", 1),  # in the midst of making the store
    ("before", "run/done/0/000001", 1),  # between data and marker
    ("after", "run/done/0/000001", 1),  # between marker and status: the driver never hears of it
    ("after", "run/segments", 1),  # between the segment and the deletion of what it holds
    ("before", "items/rate/c/0", 1),  # in the midst of gathering
]
MORE = [
    ("before", "run/job.json", 1),
    ("before", "results/0/status/c/1", 1),  # between two arrays of a shard
    ("before", "run/segments", 1),  # between the last marker and its segment
    ("after", "run/checkpoints", 2),
    ("before", "run/sums/gathered.json", 1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", JOB)
    gather(store)
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [*POINTS, *(pytest.param(*point, marks=pytest.mark.endurance) for point in MORE)],
)
def test_killed_at_a_write_and_run_again(tmp_path, whole, when, what, nth):
    path = tmp_path / "k.zarr"
    killed_at_a_write(path, JOB, when, what, nth)
    before = (
        len(Store.open(str(path)).committed.numbers())
        if (path / "run" / "job.json").exists()
        else 0
    )
    store = make(path, JOB)  # the dead driver's lease does not hold this one up
    progress = run_shards(store, SerialExecutor(1))
    gather(store)
    assert progress.items_before == 6 * before
    assert progress.items_done == 12
    if what.startswith("run/done"):
        assert before == (2 if when == "after" else 1)
    assert tree_bytes(path) == tree_bytes(whole.address)
    check(str(path), repair=True)
    assert check(str(path)) == []
