"""SIGKILL in the midst of a search: it ends with the same bytes and the same lineage all the same."""

import numpy as np
import pytest
from killing import killed_at_a_write, killed_at_random, middle, stopped_at_writes
from search_jobs import DECISIONS, HALVING, ROUNDS, changed, cut, in_rounds, left, results
from stores import make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.store.store import Store

JOBS = {
    "halving of 9": cut(changed(changed(HALVING, "sweep.samples", 9), "params.steps", 20), 2),
    "halving": in_rounds("halving"),
    "tournament": in_rounds("tournament"),
}


@pytest.fixture(
    scope="module",
    params=[
        "halving of 9",
        pytest.param("halving", marks=pytest.mark.endurance),
        pytest.param("tournament", marks=pytest.mark.endurance),
    ],
)
def whole(request, tmp_path_factory):
    job = JOBS[request.param]
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", job)
    gather(store)
    return store, job


def ends_as(store, whole):
    """The store is resumed, and comes to the bytes of the one that was not disturbed."""
    progress = run_shards(store, SerialExecutor(1))
    gather(store)
    assert (progress.shards_done, progress.failed) == (progress.n_shards, {})
    np.testing.assert_equal(results(store), results(whole))
    assert tree_bytes(store.address) == tree_bytes(whole.address)
    check(store.address, repair=True)  # a driver killed after its last commit has not tidied up
    assert check(store.address) == []
    assert left(store) + left(store, "run/checkpoints") == []


KINDS = [
    f"put {DECISIONS}", f"put {ROUNDS}", f"delete {ROUNDS}", "put run/checkpoints", "put run/done",
]  # fmt: skip
"""What a search writes and other runs do not, or at other times; for the rest see tests/jobs/run/test_kill.py."""


@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.endurance)])
def test_stopped_at_writes(monkeypatch, tmp_path, whole, every):
    """At the one in the middle of each kind, or at all of them."""
    undisturbed, job = whole
    states = stopped_at_writes(make(tmp_path / "s.zarr", job), tmp_path, monkeypatch, every)
    some = middle(states, *KINDS)
    for what, copy in states if every == 1 else some:
        try:
            ends_as(Store.open(str(copy)), undisturbed)
        except Exception as error:
            error.add_note(f"stopped before {what} ({copy.name})")
            raise


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [
        ("before", DECISIONS, 1),
        ("after", DECISIONS, 4),
        ("before", ROUNDS, 1),
        ("after", ROUNDS, 4),
        ("after", "run/checkpoints", 17),
        ("before", "run/done", 2),
    ],
)
def test_killed_at_a_write_and_run_again(tmp_path, whole, when, what, nth):
    undisturbed, job = whole
    path = tmp_path / "k.zarr"
    killed_at_a_write(path, job, when, what, nth, often=True)
    ends_as(make(path, job), undisturbed)


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(tmp_path, whole):
    """Three times, each soon after the first decision that it wrote."""
    undisturbed, job = whole
    store = make(tmp_path / "r.zarr", job)
    assert killed_at_random(store, lambda store: len(left(store, DECISIONS)))
    ends_as(Store.open(store.address), undisturbed)
