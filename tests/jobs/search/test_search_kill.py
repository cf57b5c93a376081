"""SIGKILL in the midst of a search: it ends with the same bits and the same lineage all the same."""

from pathlib import Path

import numpy as np
import pytest
from killing import killed_at_a_write, killed_at_random
from search_jobs import HALVING, POPULATION, results
from stores import make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.serial import SerialExecutor
from jobs.run.shards import run_shards
from jobs.store.store import Store

JOBS = {"halving": HALVING, "population": POPULATION}


@pytest.fixture(scope="module", params=sorted(JOBS))
def whole(request, tmp_path_factory):
    job = JOBS[request.param]
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", job)
    gather(store)
    return store, job


def ends_as(store, whole):
    """The store is resumed, and comes to the bytes of the one that was not disturbed."""
    progress = run_shards(store, SerialExecutor(1))
    gather(store)
    assert progress.shards_done == progress.n_shards
    np.testing.assert_equal(results(store), results(whole))
    assert tree_bytes(store.address) == tree_bytes(whole.address)
    check(store.address, repair=True)
    assert check(store.address) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [
        ("after", "run/checkpoints", 33),
        ("before", "results/0/status/c/0", 1),  # decided, and being written
    ],
)
def test_killed_at_a_write_and_run_again(tmp_path, whole, when, what, nth):
    undisturbed, job = whole
    path = tmp_path / "k.zarr"
    killed_at_a_write(path, job, when, what, nth, often=True)
    ends_as(make(path, job), undisturbed)


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(tmp_path, whole):
    """Three times, each soon after the first checkpoint that it wrote."""
    undisturbed, job = whole
    store = make(tmp_path / "r.zarr", job)
    kills = killed_at_random(store, kept)
    assert kills
    ends_as(Store.open(store.address), undisturbed)
    if kills == 3:
        assert store.committed.markers()[0].resumed_at > 0


def kept(store):
    """The times of the checkpoints."""
    folder = Path(store.address) / "run" / "checkpoints"
    return sorted(p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file())
