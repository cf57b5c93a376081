"""Items and shards that fail among shards that meet: the others are compared without them."""

import pytest
from failing import Failing
from search_jobs import POPULATION, changed, spread
from spread_jobs import JOBS, same, whole_store
from stores import make, run

from jobs.run.serial import SerialExecutor
from jobs.run.shards import reconsider, run_shards


def computes_item_4(task):
    return task.shard.start <= 4 < task.shard.stop and 4 not in task.without


def has_failing(task):
    return {2, 3} & ({*range(task.shard.start, task.shard.stop)} - {*task.without})


@pytest.fixture(scope="module", params=["halving", "tournament"])
def without_one(request, tmp_path_factory):
    """The name of a job, the job, and its store in one shard, of which item 4 fails."""
    quick = {"retries": 0, "backoff_s": 0.0}
    job = JOBS[request.param]
    job = changed(job, "run", job["run"] | quick)
    whole = make(tmp_path_factory.mktemp("store") / "w.zarr", job)
    run_shards(whole, Failing(lambda task: "error" if computes_item_4(task) else None))
    return request.param, job, whole


@pytest.mark.parametrize("from_the_start", [True, False])
def test_an_item_that_fails_is_left_out_and_the_others_start_over(
    tmp_path, without_one, from_the_start
):
    """Also where it fails only after it has met the others; once it is well again, all are compared."""
    name, job, whole = without_one
    store, seen = make(tmp_path / "s.zarr", spread(job, 9 if name == "halving" else 2)), []

    def fails(task):
        seen.append(task)
        late = sum(computes_item_4(t) and not t.probe for t in seen) > 2
        return "error" if computes_item_4(task) and (from_the_start or late) else None

    progress = run_shards(store, Failing(fails))
    assert (list(progress.failed_items), progress.failed) == ([4], {})
    same(store, whole)

    n_shards = store.job.plan.n_shards
    reconsider(store, failed=True)
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.shards_done, progress.failed_items) == (n_shards, {})
    same(store, whole_store(name))


def test_a_shard_whose_items_all_fail_takes_part_no_more(tmp_path):
    job = changed(POPULATION, "run", POPULATION["run"] | {"retries": 0, "backoff_s": 0.0})
    whole, store = make(tmp_path / "w.zarr", job), make(tmp_path / "s.zarr", spread(job, 2))
    for here in (whole, store):
        progress = run_shards(here, Failing(lambda task: "error" if has_failing(task) else None))
        assert sorted(progress.failed_items) == [2, 3]
    same(store, whole)


@pytest.fixture(scope="module")
def without_two(tmp_path_factory):
    """A job of two generations, and its store in one shard, of which two items fail."""
    job = changed(POPULATION, "run", POPULATION["run"] | {"retries": 0, "backoff_s": 0.0})
    job = changed(changed(job, "search.generations", 2), "search.every", 20)
    whole = make(tmp_path_factory.mktemp("store") / "w.zarr", job)
    run_shards(whole, Failing(lambda task: "error" if has_failing(task) else None))
    return job, whole


@pytest.mark.parametrize(
    "late", [pytest.param(k, marks=[pytest.mark.endurance] * (k % 3 > 0)) for k in range(6, 14)]
)
def test_all_items_of_a_shard_fail_while_others_are_committed(tmp_path, without_two, late):
    """Those that were committed have met it: they start over without it."""
    job, whole = without_two
    store, calls = make(tmp_path / "s.zarr", spread(job, 2)), iter(range(10**6))
    fails = lambda task: "error" if next(calls) >= late and has_failing(task) else None
    progress = run_shards(store, Failing(fails))
    assert sorted(progress.failed_items) in ([2, 3], [])
    if progress.failed_items:
        same(store, whole)


def test_a_shard_that_is_given_up_takes_its_population_with_it(tmp_path):
    """The other populations of the group end; the next run goes on."""
    job = changed(changed(POPULATION, "sweep.samples", 16), "search.size", 8)
    whole, _ = run(tmp_path / "w.zarr", job)
    store = make(tmp_path / "s.zarr", spread(job, 2))
    progress = run_shards(store, Failing(lambda task: "input" if task.shard.number == 2 else None))
    assert store.committed.numbers() == {4, 5, 6, 7}
    assert progress.failed[2] == "input of 2"
    for k in (0, 1, 3):
        assert progress.failed[k] == (
            "not ended: shard 2, whose items its own are compared with, was given up"
        )
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)
