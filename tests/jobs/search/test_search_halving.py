"""Successive halving: decisions against plain NumPy, bits against an unsearched run, its closed form."""

import numpy as np
import pytest
from search_jobs import (
    HALVING,
    Items,
    changed,
    cut,
    halve,
    members_of,
    play,
    results,
    searcher_of,
    whole_store,
)
from stores import run

from jobs.search.halving import Halving
from jobs.store.events import planned_warnings, read_events


def in_one_shard(path, job):
    """The store of a job, and how it ended; shards change no bit, as tests/jobs/search/test_search.py shows."""
    return run(path, cut(job, 27))


@pytest.mark.parametrize(("n", "eta", "first"), [(27, 3, 2), (16, 2, 1), (10, 3, 4)])
def test_halving_decides_as_numpy_does(tmp_path, n, eta, first):
    job = changed(HALVING, "sweep.samples", n)
    job["search"] |= {"eta": eta, "min_advances": first}
    store, progress = in_one_shard(tmp_path / "h.zarr", job)
    found, members = results(store), members_of(store)
    n_rungs = len(Halving(**job["search"]).ends(n))
    left = halve(members, first, eta, n_rungs)
    for k, member in enumerate(members):
        assert found["search_advances"][k] == member.advances == found["taken"][k]
        assert found["search_rung"][k] == left.get(k, n_rungs)
        assert found["status"][k] == (2 if member.diverged else 3 if k in left else 1)
        assert found["outcome"][k] == (1 if member.diverged else 2 if k in left else 0)
        # Up to 60 steps of a contraction in float64.
        np.testing.assert_allclose(found["x"][k], member.x, rtol=1e-12, atol=1e-12)
        metrics = np.pad(member.metrics, (0, n_rungs - len(member.metrics)), constant_values=np.nan)
        np.testing.assert_allclose(found["search_metric"][k], metrics, rtol=1e-12)
    assert progress.outcomes["dropped"] == (found["status"] == 3).sum() > 0
    assert len(left) == n - max(1, n // eta**n_rungs)


def test_halving_survivors_have_the_bits_of_an_unsearched_run(tmp_path):
    plain, _ = run(tmp_path / "p.zarr", changed(HALVING, "search", None))
    a, b = results(whole_store("halving")), results(plain)
    done = a["status"] == 1
    assert done.sum() == 1
    for name in b:
        assert a[name][done].tobytes() == b[name][done].tobytes(), name


def test_halving_makes_the_advances_of_the_closed_form(tmp_path):
    """eta^K items: n r (1 + (K-1)(1 - 1/eta)), and for the last one what it lacks to its end."""
    job = changed(HALVING, "params", {"dtype": "float64", "steps": 60})
    job["sweep"]["random"]["rate"] = {"loguniform": [1e-3, 0.5]}  # below 2/3 nothing diverges
    store, _ = in_one_shard(tmp_path / "h.zarr", job)
    r, eta, rungs = 2, 3, 3
    rest = 60 - r * eta ** (rungs - 1)
    expected = 27 * r * (1 + (rungs - 1) * (1 - 1 / eta)) + rest
    told = sum(marker.advances for marker in store.committed.markers())
    assert told == results(store)["search_advances"].sum() == expected


def test_halving_compares_in_brackets(tmp_path):
    job = changed(HALVING, "search.size", 9)
    store, _ = run(tmp_path / "h.zarr", job | {"run": job["run"] | {"shard_items": 18}})
    assert [(s.start, s.stop) for s in store.job.plan.shards()] == [(0, 18), (18, 27)]
    found = results(store)
    for bracket in (slice(0, 9), slice(9, 18), slice(18, 27)):
        members = members_of(store)[bracket]
        left = halve(members, 2, 3, 2)
        rungs = [left.get(m.item, 2) for m in members]
        np.testing.assert_array_equal(found["search_rung"][bracket], rungs)


def test_halving_by_largest_is_halving_by_smallest_of_the_negative(tmp_path):
    job = changed(HALVING, "search", HALVING["search"] | {"metric": "gain", "mode": "max"})
    b, _ = in_one_shard(tmp_path / "b.zarr", job)
    a = whole_store("halving")
    np.testing.assert_array_equal(results(a)["search_rung"], results(b)["search_rung"])


def test_halving_an_item_that_finishes_keeps_its_result(tmp_path):
    """It is not dropped, whether it is among the best or not, and takes a place where it is."""
    job = changed(HALVING, "sweep", {
        "zip": {"rate": [0.05, 0.3, 0.01, 0.4, 0.02, 0.4, 0.001, 0.002, 0.003],
                "limit": [1, 99, 2, 99, 99, 2, 99, 99, 99]}})  # fmt: skip
    job = changed(job, "params.noise", 0.0)
    store, _ = in_one_shard(tmp_path / "h.zarr", job)
    found = results(store)
    np.testing.assert_array_equal(found["status"], [1, 3, 1, 1, 3, 1, 3, 3, 3])
    np.testing.assert_array_equal(found["search_rung"], [0, 1, 0, 2, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(found["taken"], [1, 6, 2, 60, 2, 2, 2, 2, 2])


def test_a_rung_at_which_all_items_are_equal_is_warned_of_once(tmp_path):
    """As where a kernel's `result` has no present answer before its end: the order of the items decides."""
    job = changed(cut(HALVING, 4), "search.metric", "taken")
    store, _ = run(tmp_path / "h.zarr", job | {"search": {**job["search"], "mode": "max"}})
    (said,) = planned_warnings(read_events(store))
    assert said.startswith("after 2 advances all items had taken 2, so only their order")
    assert not planned_warnings(read_events(whole_store("halving")))


@pytest.mark.parametrize(("n", "size", "eta"), [(27, None, 3), (16, None, 2), (40, 10, 3)])
@pytest.mark.parametrize(("workers", "most"), [(1, 40), (4, 5)])
def test_halving_in_rounds_decides_as_sorted_lists_do(n, size, eta, workers, most):
    """Without a store: brackets of `size`, NaN, in rounds of any size that take any time."""
    rng = np.random.default_rng(n)
    loss = rng.integers(0, 30, (n, 60)).astype(float)
    loss[rng.random((n, 60)) < 0.1] = np.nan
    search = Halving(method="halving", metric="loss", min_advances=2, eta=eta, size=size)
    searcher = searcher_of(search, 0, np.arange(n))
    items = Items(lambda row, age: loss[row, age], lambda row: 50)
    play(searcher, lambda k, asked: (rng.random(), items.report(k, asked)), workers, most)
    size, rungs = size or n, len(search.ends(size or n))
    for block in range(0, n, size):
        here = list(range(block, block + size))
        for rung in range(rungs):
            age = 2 * eta**rung
            np.testing.assert_array_equal(
                searcher.records()["search_metric"][here, rung], loss[here, age]
            )
            here.sort(key=lambda row: (np.isnan(loss[row, age]), loss[row, age]))
            left = here[max(1, size // eta ** (rung + 1)) :]
            here = sorted(here[: -len(left)])
            assert (searcher.records()["search_rung"][left] == rung).all()
            assert (searcher.ages[left] == age).all()
        assert searcher.done[here].all()
