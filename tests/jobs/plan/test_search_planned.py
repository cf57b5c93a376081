"""Searches that fit their job or do not, and how their items are laid out."""

import jsonschema
import pytest
from hill import kernel
from search_jobs import HALVING, POPULATION, RATE, changed, spread
from stores import BASE, FOUR_SLOTS, make, run

from jobs.errors import JobError
from jobs.plan.layout import Machines, Sizes, Together, lay_out
from jobs.report.summary import plan_rows
from jobs.run.prepare import prepare
from jobs.run.task import Task
from jobs.run.worker import Worker
from jobs.spec.job import RunSettings, parse_job
from jobs.spec.schema import job_schema
from jobs.spec.search import Population


@pytest.mark.parametrize(
    ("job", "path", "value", "said"),
    [
        (HALVING, "search.metric", "los", "search.metric: 'los' is not a scalar result of kernel hill; did you mean 'loss'?"),
        (HALVING, "search.metric", "x", "search.metric: 'x' is not a scalar"),
        (HALVING, "search.metric", "outcome", "search.metric: 'outcome' is not a scalar"),
        (HALVING, "search.eta", 1, "search.eta: Input should be greater than or equal to 2"),
        (HALVING, "search.min_advance", 3, "search.min_advance: unknown field; did you mean 'min_advances'?"),
        (HALVING, "search.method", "asha", "expected a mapping with `method: halving` or `method: population`"),
        (HALVING, "search.size", 2, "search.size: 2 items given, but a comparison needs at least 3"),
        (HALVING, "search.size", 10, "search.size: group 0 has 27 items, which is not a multiple of 10"),
        (HALVING, "run.shard_items", 6, "run.shard_items: 6 is not a multiple of the 27 items"),
        (HALVING, "search.min_advances", 60, "search.min_advances: the items finish after 60 advances"),
        (POPULATION, "search.every", 100, "search.every: the items finish after 60 advances"),
        (POPULATION, "search.params", {"rat": RATE}, "search.params: rat: unknown field; did you mean 'rate'?"),
        (POPULATION, "search.params", {"n": RATE}, "search.params: n: is a static field; a population moves traced real numbers: rate, noise"),
        (POPULATION, "search.params", {"steps": RATE}, "steps: is a data field"),
        (POPULATION, "search.params", {"limit": {"uniform": [1, 9]}}, "limit: is no real number"),
        (POPULATION, "search.params", {"push": {"uniform": [0, 1]}}, "push: is no real number"),
        (POPULATION, "search.params", {"rate": {"uniform": [1, 1]}}, "search.params: rate: [1.0, 1.0] given; expected low < high"),
        (POPULATION, "search.params", {"rate": {"loguniform": [0, 1]}}, "search.params.rate.loguniform.0: Input should be greater than 0"),
        (POPULATION, "search.params", {"rate": None}, "search.params.rate: expected one of {uniform: [low, high]} and {loguniform: [low, high]}"),
        (POPULATION, "search.params", {"rate": {"integers": [1, 5]}}, "search.params.rate: expected one of {uniform: [low, high]} and {loguniform"),
        (POPULATION, "search.params", {"rate": {"uniform": [1e-4, 11]}}, "search.params: rate: Input should be less than or equal to 10 (given: 11.0)"),
        (POPULATION, "search.params", {"rate": {"loguniform": [0.5, 0.9]}}, "outside of its range [0.5, 0.9]"),
        (POPULATION, "search.params", {}, "search.params: Dictionary should have at least 1 item"),
        (POPULATION, "search.generations", 1, "search.generations: Input should be greater than or equal to 2"),
        (POPULATION, "search.fraction", 0.6, "search.fraction: Input should be less than or equal to 0.5"),
        (POPULATION, "sweep.samples", 1, "search.size: 1 items given"),
        (POPULATION, "sweep.grid", {"n": [2, 3]}, None),
        (POPULATION, "sweep.random.n", {"integers": [2, 5]}, "search.size: 1 items given, but a comparison needs at least 2; group 0 (n = "),
        (POPULATION, "sweep.grid", {"noise": [0.0, 0.1]}, "'noise' is given in params and in sweep"),
        (POPULATION, "sweep.grid", {"limit": [50, 60]}, "search: limit differs inside the population of items 0-15"),
    ],
)  # fmt: skip
def test_searches_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, job, path, value, said
):
    job, where = changed(job, path, value), tmp_path / "s.zarr"
    if said is None:
        assert len(make(where, job).job.plan.group_sizes) == 2
        return
    if "items finish" in said:  # how long items live is known once they have
        _, progress = run(where, job)
        assert said in progress.failed[0]
        return
    with pytest.raises(JobError) as caught:
        make(where, job)
    assert said in str(caught.value)
    assert not where.exists()


RNN = {
    "kernel": "train_rnn",
    "params": {"cell": "vanilla", "task": {"name": "integrator", "n_steps": 6}, "n": 4, "batch_size": 4, "n_batches": 21,
               "report_every": 4, "n_eval": 8},
    "sweep": {"seeds": 4},
    "search": {"method": "halving", "metric": "eval_loss", "min_advances": 1, "eta": 2},
    "run": FOUR_SLOTS,
}  # fmt: skip


ONE_SHOT = RNN | {"kernel": "kuramoto", "params": {}}
ONE_SHOT["search"] = RNN["search"] | {"metric": "order"}


@pytest.mark.parametrize(
    ("job", "path", "value", "said"),
    [
        (RNN, "search.min_advances", 6, "search.min_advances: 6 advances given, but items finish after 6, before their first comparison; lower it, or let items make more and shorter advances (lower report_every)"),
        (RNN, "search", {"method": "population", "metric": "eval_loss", "every": 7, "generations": 2, "params": {"learning_rate": {"uniform": [0, 1]}}}, "search.every: 7 advances given, but items finish after 6"),
        (ONE_SHOT, "search.eta", 2, "search: an item of kernel kuramoto makes a single advance here, so that nothing can be compared before its end; leave the section out"),
        (HALVING, "search.metric", "gain", "search.mode: missing, but a larger gain is better; give `mode: max`"),
        (HALVING, "search.metric", "never", "search.metric: 'never': kernel hill has no such result with these params and data (`ctd kernels hill`)"),
    ],
)  # fmt: skip
def test_searches_that_would_compare_nothing_or_the_wrong_way(tmp_path, job, path, value, said):
    job = changed(job, path, value)
    with pytest.raises(JobError) as caught:
        make(tmp_path / "n.zarr", job)
    assert said in str(caught.value)
    assert not (tmp_path / "n.zarr").exists()


def test_items_make_the_advances_that_their_kernel_tells(tmp_path):
    # Of the worker itself: a driver hears of it now and then.
    store, stages = make(tmp_path / "r.zarr", RNN), []
    (shard,) = store.job.plan.shards()
    Worker(store.address).do(Task(shard), lambda now: stages.append(now.stage))
    params = RNN["params"]
    assert store.rows(0, "search_advances", 0, 4).max() == -(-params["n_batches"] // 4) == 6
    assert stages[-1].startswith("rung 3 of 3, best eval_loss ")
    ready = prepare(parse_job(RNN, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "none"), 1)
    assert total["search"] == (
        "halving by least eval_loss: 4, 2, 1 items, up to 1, 2 advances and the end; items make 6 "
        "advances at most and are compared 2 times"
    )


@pytest.mark.parametrize(
    ("every", "generations", "advances", "n"),
    [(3, 9, 60, 8), (3, 9, 24, 7), (3, 9, 25, 8), (10, 5, 10, 0), (10, 5, 11, 1)],
)
def test_how_often_a_population_is_compared(every, generations, advances, n):
    """At the ends of all generations but the last, where some have not finished."""
    search = Population(
        method="population", metric="loss", every=every, generations=generations,
        params={"rate": RATE},
    )  # fmt: skip
    assert search.n_comparisons(8, advances) == n
    assert n == sum(every * g < advances for g in range(1, generations))


@pytest.mark.parametrize(
    ("settings", "workers", "memory", "expected"),
    [
        ({}, 1, 10**9, (8, 8)),  # as many of four as fill the kernel's 8 slots
        ({}, 6, 10**9, (4, 4)),
        ({"slots": 3}, 1, 10**9, (3, 4)),
        ({"shard_items": 16}, 1, 10**9, (8, 16)),
        ({}, 1, 1000 + 4 * 100 + 2 * 300, (2, 4)),
    ],
)
def test_a_shard_holds_whole_populations(settings, workers, memory, expected):
    sizes = Sizes(state=100, work=100, result=100, shared=1000)
    plan = lay_out(
        [(24, sizes)], kernel, RunSettings(**settings), Machines(workers, memory), Together([4])
    )
    (layout,) = plan.layouts
    assert (layout.slots, layout.shard_items) == expected


def test_members_that_wait_are_in_the_memory_of_the_worker_once():
    """On four cores each has a quarter of the memory, and of the 24 members."""
    sizes = Sizes(state=100, work=100, result=100, shared=1000)
    least = 1000 + 24 * 100 // 4 + 2 * 100 + 100
    lay_out([(24, sizes)], kernel, RunSettings(), Machines(1, least, 4), Together([24]))
    with pytest.raises(
        JobError, match=r"1 B more than the 1\.9 kB of each of a worker's 4 devices"
    ):
        lay_out([(24, sizes)], kernel, RunSettings(), Machines(1, least - 1, 4), Together([24]))


def test_a_population_that_does_not_fit_is_refused():
    sizes = Sizes(state=100, work=100, result=100, shared=1000)
    said = "1 kB of shared data and 2.4 kB of items that the search compares, 100 B more"
    with pytest.raises(JobError, match=said):
        lay_out([(24, sizes)], kernel, RunSettings(), Machines(1, 3600), Together([24]))


@pytest.mark.parametrize("job", [HALVING, POPULATION], ids=["halving", "population"])
def test_schema_and_plan_show_the_search(tmp_path, job):
    jsonschema.validate(job, job_schema(kernel))
    bad = changed(job, "search.method", "asha")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, job_schema(kernel))
    ready = prepare(parse_job(job, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "none.zarr"), 1)
    assert (
        total["search"]
        == {
            "halving": "halving by least loss: 27, 9, 3, 1 items, up to 2, 6, 18 advances and the end",
            "population": "population of 8 by least loss: 9 generations of 3 advances, rate searched",
        }[job["search"]["method"]]
    )


@pytest.mark.parametrize(
    ("settings", "unit", "workers", "memory", "expected"),
    [
        ({}, 24, 1, 10**9, (8, 8)),  # the kernel's 8 slots
        ({}, 24, 4, 10**9, (6, 6)),  # one for each worker
        ({}, 12, 5, 10**9, (4, 4)),  # 5 divides no population of 12
        ({}, 6, 5, 10**9, (3, 3)),
        ({}, 22, 5, 10**9, (8, 22)),  # divided by 1, 2, 11 alone: whole
        ({}, 4, 1, 10**9, (8, 8)),  # two whole ones
        ({"shard_items": 3}, 12, 1, 10**9, (3, 3)),
        ({}, 24, 1, 1000 + 4 * 400, (4, 4)),
    ],
)
def test_layout_of_populations_in_several_shards(settings, unit, workers, memory, expected):
    sizes = Sizes(state=100, work=100, result=100, shared=1000)
    n = 24 if 24 % unit == 0 else unit
    plan = lay_out(
        [(n, sizes)], kernel, RunSettings(**settings), Machines(workers, memory), Together([unit], spread=True)
    )  # fmt: skip
    (layout,) = plan.layouts
    assert (layout.slots, layout.shard_items) == expected


@pytest.mark.parametrize(
    ("size", "shard_items", "said"),
    [
        (9, 6, "run.shard_items: 6 is not a multiple or divisor of the 9 items"),
        (9, 3, None),
        (9, 18, None),
        (None, 9, None),
        (None, 6, "not a multiple or divisor of the 27 items"),
    ],
)
def test_shards_that_do_not_fit_the_search(tmp_path, size, shard_items, said):
    job = spread(changed(HALVING, "search.size", size), shard_items)
    if said is None:
        assert make(tmp_path / "s.zarr", job).job.plan.layouts[0].shard_items == shard_items
        return
    with pytest.raises(JobError, match=said):
        make(tmp_path / "s.zarr", job)
    with pytest.raises(
        JobError, match=r"or let the shards exchange states: `search: \{spread: true\}`"
    ):
        make(tmp_path / "n.zarr", changed(job, "search.spread", False))


def test_plan_tells_of_it(tmp_path):
    spec = parse_job(spread(POPULATION, 2), "job")
    _, total = plan_rows(
        prepare(spec, BASE, "job", lambda: Machines(1, 10**9)), str(tmp_path / "n"), 1
    )
    assert total["shards"] == 4
    assert total["search"].endswith("rate searched, in shards that meet")
    whole = changed(changed(POPULATION, "search.spread", True), "run.slots", 8)
    ready = prepare(parse_job(whole, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "n"), 1)
    assert total["search"].endswith("rate searched, each whole in one shard (workers: 1)")
