"""SIGKILL in the midst of a search: it ends with the same bytes and the same lineage all the same."""

import numpy as np
import pytest
from killing import killed_at_a_write, killed_at_random, stopped_at_writes
from search_jobs import DECISIONS, ROUNDS, in_rounds, left, results
from stores import make, run, tree_bytes

from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.store.store import Store


@pytest.fixture(scope="module", params=["halving", "tournament"])
def whole(request, tmp_path_factory):
    job = in_rounds(request.param)
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
    f"put {DECISIONS}", f"put {ROUNDS}", f"delete {ROUNDS}", "put run/checkpoints", "delete run/checkpoints",
    "put results", "put run/done", "put run/segments",
]  # fmt: skip


def begun_again(monkeypatch, tmp_path, whole, choose, every):
    undisturbed, job = whole
    states = stopped_at_writes(make(tmp_path / "s.zarr", job), tmp_path, monkeypatch, every)
    kinds = {
        kind: [k for k, (what, _) in enumerate(states) if what.startswith(kind)] for kind in KINDS
    }
    assert all(kinds.values())
    for k in choose(kinds, len(states)):
        what, copy = states[k]
        try:
            ends_as(Store.open(str(copy)), undisturbed)
        except Exception as error:
            error.add_note(f"stopped at write {k}: {what}")
            raise


def test_stopped_at_writes_of_each_kind(monkeypatch, tmp_path, whole):
    """At the one in the middle."""
    some = lambda kinds, n: [found[len(found) // 2] for found in kinds.values()]
    begun_again(monkeypatch, tmp_path, whole, some, 15)


@pytest.mark.endurance
def test_stopped_at_every_write(monkeypatch, tmp_path, whole):
    begun_again(monkeypatch, tmp_path, whole, lambda kinds, n: range(n), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [
        ("after", DECISIONS, 6),
        *(
            pytest.param(*rest, marks=pytest.mark.endurance)
            for rest in (
                ("before", DECISIONS, 1),
                ("before", ROUNDS, 1),
                ("after", ROUNDS, 4),
                ("after", "run/checkpoints", 33),
                ("before", "run/done", 2),
            )
        ),
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
