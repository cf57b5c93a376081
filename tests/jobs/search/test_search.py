"""Searched jobs: the same bytes whatever happens, what a user sees, fork."""

import numpy as np
import pytest
from failing import Failing, Interrupted
from search_jobs import HALVING, POPULATION, changed, results
from search_reference import halve, members_of, train_population
from stores import make, run, tree_bytes

from jobs import Store, open_store
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.query import query
from jobs.run.fork import fork
from jobs.run.serial import SerialExecutor
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.store.events import read_events

# --- the same bits, whatever happens --------------------------------------------------------------


@pytest.fixture(scope="module", params=["halving", "population"])
def whole(request, tmp_path_factory):
    job = HALVING if request.param == "halving" else POPULATION
    store, _ = run(tmp_path_factory.mktemp("store") / "whole.zarr", job)
    gather(store)
    return store, job


def test_stop_and_resume_at_many_places_ends_in_the_same_bytes(tmp_path, whole):
    undisturbed, job = whole
    store, stops = make(tmp_path / "s.zarr", job), 0
    for after in [1, 2, 3, 5, 8, 13, 21]:
        stop = Stop()
        progress = run_shards(Store.open(store.address), Interrupted(stop, after), stop=stop)
        stops += progress.stopped == "test"
    assert stops == 7
    assert run_shards(store, SerialExecutor(1)).shards_done == 1
    gather(store)
    assert store.committed.markers()[0].resumed_at == sum([1, 2, 3, 5, 8, 13, 21])
    assert tree_bytes(store.address) == tree_bytes(undisturbed.address)
    assert list(objects.list_keys(store.objects, "run/checkpoints")) == []


@pytest.mark.parametrize("slots", [2, 8, 32])
def test_decisions_do_not_depend_on_the_slots(tmp_path, whole, slots):
    """Also where the slots are halved because memory ran out: all items are compared all the same."""
    undisturbed, job = whole
    store = make(tmp_path / "s.zarr", job)
    (shard,) = store.job.plan.shards()
    report = Worker(store.address).do(Task(shard, slots=slots))
    assert report.error is None
    gather(store)
    assert tree_bytes(store.address) == tree_bytes(undisturbed.address)


@pytest.mark.parametrize("job", [HALVING, POPULATION], ids=["halving", "population"])
def test_an_item_that_fails_is_found_and_the_others_are_searched_without_it(tmp_path, job):
    job = job | {"run": job["run"] | {"retries": 0, "backoff_s": 0.0}}
    store = make(tmp_path / "f.zarr", job)
    fails = lambda task: (
        "error" if task.shard.start <= 4 < task.shard.stop and 4 not in task.without else None
    )
    progress = run_shards(store, Failing(fails))
    assert list(progress.failed_items) == [4]
    assert progress.shards_done == 1
    found, others = results(store), np.delete(np.arange(len(results(store)["status"])), 4)
    assert found["status"][4] == 2
    members = [m for m in members_of(store) if m.item != 4]
    if job["search"]["method"] == "halving":
        left = halve(members, 2, 3, 3)  # 8, 2 and 1 of 26 items are left after the rungs
        rungs = [left.get(m.item, 3) for m in members]
        np.testing.assert_array_equal(found["search_rung"][others], rungs)
    else:
        train_population(members, 3, 9, "tournament", 0.1, 0.0)
        np.testing.assert_array_equal(found["search_parent"][others], [m.parents for m in members])


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
        frame = query(store, where="final_rate > 0.1", sort="loss")
        assert len(frame) == (group.final_rate.values > 0.1).sum() > 0
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
    with pytest.raises(JobError, match=r"search\.size"):
        made(loose(grown), run(tmp_path / "l.zarr", loose(bare))[0], "x.zarr")


def test_events_and_markers_tell_of_the_search(whole):
    store, _ = whole
    (marker,) = store.committed.markers()
    assert marker.advances == results(store)["search_advances"].sum()
    assert [e.kind for e in read_events(store)] == ["run", "done", "end"]
