"""SIGKILL in the midst of a search: it ends with the same bits and the same lineage all the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_kill import killed_at_a_write
from test_search import HALVING, POPULATION, results
from test_store import BASE, make, run, tree_bytes

from jobs.check import check
from jobs.gather import gather
from jobs.run import SerialExecutor, run_shards
from jobs.store import Store

JOBS = {"halving": HALVING, "population": POPULATION}
OFTEN = "from jobs import checkpoint; checkpoint.COST = 1e9\n"
"""A checkpoint after every advance, whatever it costs."""

ENV = {**os.environ, "JAX_PLATFORMS": "cpu"}


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
    killed_at_a_write(path, job, when, what, nth, OFTEN)
    ends_as(make(path, job), undisturbed)


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(tmp_path, whole):
    """Three times, each within a second of the first checkpoint that it wrote."""
    undisturbed, job = whole
    store = make(tmp_path / "r.zarr", job)
    kills = killed_at_random(store, kept)
    assert kills
    ends_as(Store.open(store.address), undisturbed)
    if kills == 3:
        assert store.markers()[0]["resumed_at"] > 0


def killed_at_random(store, seen):
    """Run a store in three processes, one after another, each killed within half a second of the first
    change in what `seen` tells of it; how many were still at work."""
    kills = 0
    script = (
        f"{OFTEN}import sys; sys.path.insert(0, {BASE!r})\n"
        "from jobs.run import SerialExecutor, run_shards\nfrom jobs.store import Store\n"
        f"run_shards(Store.open({store.address!r}), SerialExecutor(1))"
    )
    for _ in range(3):
        before = seen(store)
        process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(BASE).parent, env=ENV)
        while seen(store) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.random() * 0.5)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    return kills


def kept(store):
    """The times of the checkpoints."""
    folder = Path(store.address) / "run" / "checkpoints"
    return sorted(p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file())
