"""Searched jobs: the same bytes whatever happens, what a user sees, fork."""

import numpy as np
import pytest
from failing import Interrupted
from messages import refused
from search_jobs import HALVING, JOBS, POPULATION, changed, cut, left, results, same, whole_store
from stores import make, run, tree_bytes

from jobs import Store, open_store
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.query import query
from jobs.run.fork import fork
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.events import read_events

# --- the same bits, whatever happens --------------------------------------------------------------


@pytest.fixture(scope="module", params=["halving", "population"])
def whole(request, tmp_path_factory):
    job = HALVING if request.param == "halving" else POPULATION
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", job)
    gather(store)
    return store, job


def test_stop_and_resume_at_many_places_ends_in_the_same_bytes(tmp_path, whole):
    """And no advance is made twice."""
    undisturbed, job = whole
    store, stops, made = make(tmp_path / "s.zarr", job), 0, 0
    for after in [1, 3, 8, 21]:
        stop = Stop()
        executor = Interrupted(stop, after)
        stops += run_shards(Store.open(store.address), executor, stop=stop).stopped == "test"
        made += after - executor.after
    assert stops == 4
    executor = Interrupted(Stop(), 10**6)
    assert run_shards(store, executor).shards_done == store.job.plan.n_shards
    assert made + 10**6 - executor.after == sum(m.rounds for m in undisturbed.committed.markers())
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(undisturbed.address)
    assert left(store) + left(store, "run/checkpoints") == []


@pytest.mark.parametrize(
    ("name", "slots", "shard_items"),
    [
        ("halving", 2, 27),
        ("halving", None, None),  # as planned: as many as there are slots
        ("tournament", 2, 4),
        ("truncation", None, 6),
        pytest.param("halving", 32, 9, marks=pytest.mark.endurance),
        pytest.param("tournament", 2, 8, marks=pytest.mark.endurance),
        pytest.param("tournament", 4, 1, marks=pytest.mark.endurance),
    ],
)
def test_bits_do_not_depend_on_slots_and_rounds(tmp_path, name, slots, shard_items):
    """Nor do shards end where populations do."""
    job = cut(JOBS[name], shard_items) if shard_items else JOBS[name]
    store, progress = run(tmp_path / "s.zarr", changed(job, "run.slots", slots) if slots else job)
    n, each = len(results(store)["status"]), shard_items or 4
    assert progress.shards_done == store.job.plan.n_shards == -(-n // each)
    assert progress.best.startswith("best loss ")
    assert progress.outcomes == run_shards(whole_store(name), SerialExecutor(1)).outcomes
    same(store, whole_store(name))


# --- what a user sees -----------------------------------------------------------------------------


def test_lineage_opens_as_xarray_and_the_end_can_be_asked_for(whole):
    store, job = whole
    group = open_store(store.address)["results/0"]
    population = job["search"]["method"] == "population"
    axis = "generation" if population else "rung"
    assert group.search_metric.dims == ("item", axis)
    assert group.sizes[axis] == (9 if population else 3)
    if population:
        assert group.search_parent.dims == group.search_rate.dims == ("item", "generation")
        frame = query(store, where="rate > 0.1", sort="loss")
        assert len(frame) == (group.rate.values > 0.1).sum() > 0
    else:
        assert "dropped" in group.status.attrs["flag_meanings"]
        assert len(query(store, where="status == 'dropped' and search_rung >= 1")) == 8
    items = open_store(store.address)["items"]
    np.testing.assert_array_equal(items.search_advances, group.search_advances)


def test_an_old_store_without_a_search_keeps_its_digest():
    job = changed(HALVING, "search", None)
    assert "search" not in parse_job(job, "job").science()
    assert parse_job(job, "job").digest() != parse_job(HALVING, "job").digest()


def test_fork_goes_on_with_a_search_of_fixed_size_only(tmp_path):
    bare = changed(POPULATION, "search.size", 8) | {"sweep": [POPULATION["sweep"]]}
    grown = bare | {"sweep": [*bare["sweep"], {"grid": {"rate": [0.01] * 8}}]}
    old, _ = run(tmp_path / "old.zarr", bare)
    made = lambda job, old, to: fork(
        parse_job(job, "job"), old.job.base, "job", str(tmp_path / to), old, SerialExecutor(1)
    )
    new = made(grown, old, "new.zarr")
    progress = run_shards(new, SerialExecutor(1))
    assert (progress.items_before, progress.items_done) == (8, 16)
    once, _ = run(tmp_path / "once.zarr", grown)
    a, b = results(new), results(once)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    loose = lambda job: changed(
        job, "search", {k: v for k, v in job["search"].items() if k != "size"}
    )
    with refused(JobError):
        made(loose(grown), make(tmp_path / "l.zarr", loose(bare)), "x.zarr")


def test_events_and_markers_tell_of_the_search(whole):
    store, _ = whole
    markers = store.committed.markers()
    assert sum(m.advances for m in markers) == results(store)["search_advances"].sum()
    assert [e.kind for e in read_events(store)] == ["run", *["done"] * len(markers), "end"]
