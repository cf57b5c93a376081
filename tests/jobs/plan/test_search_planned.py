"""Searches that fit their job or do not, and how their items are laid out."""

import importlib.util
import sys
from dataclasses import replace

import jsonschema
import pytest
from hill import Descent, kernel
from messages import refused
from pydantic import Field
from search_jobs import HALVING, POPULATION, RATE, changed
from stores import BASE, FOUR_SLOTS, SMALL_RNN, run

from ctd.installed import how_to_install, install
from ctd.kernel import Traced
from jobs.errors import JobError
from jobs.inputs.measure import evaluate_group
from jobs.plan.items import checked_items
from jobs.plan.layout import Machines
from jobs.plan.search import check_search
from jobs.report.planned import plan_rows
from jobs.run.prepare import prepare
from jobs.search.method import searched, shapes
from jobs.search.population import Population
from jobs.spec.job import find_kernel, parse_job
from jobs.spec.presets import job_schema


def planned(job):
    """(spec, items) of a job whose search is checked; nothing is laid out or written."""
    spec = parse_job(job, "job")
    used = find_kernel(spec.kernel, BASE)
    items = checked_items(spec, used, "job")
    found = [evaluate_group(used, group.params, BASE) for group in items.groups]
    shapes, started = [one.outputs.shapes for one in found], [one.started for one in found]
    check_search(spec.search, used, items, shapes, started, "job")
    return spec, items


@pytest.mark.parametrize(
    ("job", "path", "value", "said"),
    [
        (HALVING, "search.metric", "los", "search.metric: 'los' is not a scalar result of kernel hill; did you mean 'loss'?"),
        (HALVING, "search.metric", "x", "search.metric: 'x' is not a scalar"),
        (HALVING, "search.metric", ["loss", "x"], "search.metric: expected one metric; a search with several objectives is not supported"),
        (HALVING, "search.metric", "outcome", "search.metric: 'outcome' is not a scalar"),
        (HALVING, "search.eta", 1, "search.eta: must be greater than or equal to 2"),
        (HALVING, "search.min_advance", 3, "search.min_advance: unknown field; did you mean 'min_advances'?"),
        (HALVING, "search.method", "hyperband", "search.method: 'hyperband' given; known: asha, halving, optuna, population"),
        (HALVING, "search.method", ["halving"], "search.method: ['halving'] given; "),
        (HALVING, "search.method", {"halving": 1}, "search.method: {'halving': 1} given; "),
        (HALVING, "search.size", 2, "search.size: 2 items given, but a comparison needs at least 3"),
        (HALVING, "search.size", 10, "search.size: group 0 has 27 items, which is not a multiple of 10"),
        (HALVING, "run.shard_items", 6, None),
        (POPULATION, "run.shard_items", 3, None),
        (HALVING, "search.min_advances", 60, "search.min_advances: 60 advances given, but items finish after 60"),
        (POPULATION, "search.every", 100, "search.every: 100 advances given, but items finish after 60"),
        (POPULATION, "search.params", {"rat": RATE}, "search.params: rat: unknown field; did you mean 'rate'?"),
        (POPULATION, "search.params", {"n": RATE}, "search.params: n: is a static field; a population moves traced numbers, here rate, noise"),
        (POPULATION, "search.params", {"steps": RATE}, "steps: is a data field"),
        (POPULATION, "search.params", {"limit": {"uniform": [1, 9]}}, "limit: is no real number"),
        (POPULATION, "search.params", {"push": {"uniform": [0, 1]}}, "push: is no real number"),
        (POPULATION, "search.params", {"rate": {"uniform": [1, 1]}}, "search.params.rate.uniform: [1.0, 1.0] given; expected low < high"),
        (POPULATION, "search.params", {"rate": {"loguniform": [0, 1]}}, "search.params.rate.loguniform.0: must be greater than 0"),
        (POPULATION, "search.params", {"rate": None}, "search.params.rate: expected one of {uniform: [low, high]} and {loguniform: [low, high]}"),
        (POPULATION, "search.params", {"rate": {"integers": [1, 5]}}, "search.params.rate: expected one of {uniform: [low, high]} and {loguniform"),
        (POPULATION, "search.params", {"rate": {"uniform": [1e-4, 11]}}, "search.params: rate: must be less than or equal to 10 (given: 11.0)"),
        (POPULATION, "search.params", {"rate": {"loguniform": [0.5, 0.9]}}, "outside of its range [0.5, 0.9]"),
        (POPULATION, "search.params", {}, "search.params: must have at least 1 item"),
        (POPULATION, "search.generations", 1, "search.generations: must be greater than or equal to 2"),
        (POPULATION, "sweep.samples", 1, "search: group 0 has 1 item, but"),
        (POPULATION, "sweep.grid", {"n": [2, 3]}, None),
        (POPULATION, "sweep.random.n", {"integers": [2, 5]}, "search: group 0 (n = 2) has 1 item, but a comparison needs at least 2"),
        (POPULATION, "sweep.grid", {"noise": [0.0, 0.1]}, "'noise' is given in params and in sweep"),
        (POPULATION, "sweep.grid", {"limit": [50, 60]}, "search: limit differs inside the population of items 0-15"),
    ],
)  # fmt: skip
def test_searches_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, job, path, value, said
):
    job, where = changed(job, path, value), tmp_path / "s.zarr"
    if said is None:
        planned(job)
        return
    if "items finish" in said:  # how long items live is known once they have
        _, progress = run(where, job)
        assert said in progress.failed[0]
        return
    with pytest.raises(JobError) as caught:
        planned(job)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


ASHA = changed(HALVING, "search.method", "asha")
OPTUNA = HALVING | {
    "params": {"dtype": "float64", "steps": 60},
    "sweep": {},
    "search": {
        "method": "optuna", "metric": "loss", "trials": 12, "together": 4,
        "params": {"rate": RATE, "limit": {"integers": [1, 60]}, "noise": {"choice": [0.0, 0.1]}},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "path", "value", "said"),
    [
        (ASHA, "search.size", 9, "search.size: unknown field"),
        (ASHA, "search.metric", "los", "search.metric: 'los' is not a scalar result of kernel hill; did you mean 'loss'?"),
        (ASHA, "sweep.samples", 2, "search: group 0 has 2 items, but a comparison needs at least 3"),
        (OPTUNA, "search.sampler", "tp", "search.sampler: must be 'tpe', 'gp', 'cmaes', 'random' or 'qmc' (given: 'tp')"),
        (OPTUNA, "search.params", {"rat": RATE}, "search.params: rat: unknown field; did you mean 'rate'?"),
        (OPTUNA, "search.params", {"n": {"integers": [3, 5]}}, "search.params: n: is a static field, which is compiled in or read before; list its values, `n: {choice: [...]}`"),
        (OPTUNA, "search.params", {"steps": {"integers": [3, 4]}}, "job: 'steps' is given in params, but"),
        (OPTUNA, "search.params", {"push": {"uniform": [0, 1]}}, "search.params: push: is no real number; Optuna proposes traced numbers, here rate, noise"),
        (OPTUNA, "search.params", {"limit": {"uniform": [1, 9]}}, "search.params: limit: is no real number; Optuna proposes"),
        (OPTUNA, "search.params", {"rate": {"uniform": [1, 0.5]}}, "search.params.rate.uniform: [1.0, 0.5] given; expected low < high"),
        (OPTUNA, "search.params", {"rate": {"loguniform": [0, 1]}}, "search.params.rate.loguniform.0: must be greater than 0"),
        (OPTUNA, "search.params", {"limit": {"integers": [4, 4]}}, "search.params.limit.integers: [4, 4] given; expected low < high"),
        (OPTUNA, "search.params", {"rate": {"choice": [[1], 1]}}, "search.params: rate: [[1], 1] given; expected numbers or texts"),
        (OPTUNA, "search.params", {"rate": {"choice": [0.1, 11]}}, "search.params: rate: must be less than or equal to 10 (given: 11)"),
        (OPTUNA, "search.params", {"rate": {"uniform": [0.1, 11]}}, "search.params: rate: must be less than or equal to 10 (given: 11.0)"),
        (OPTUNA, "search.params", {"rate": {"choice": ["1", "2"]}}, "search.params: rate: ['1', '2'] given; a traced field takes numbers, without quotes"),
        (OPTUNA, "search.params", {}, "search.params: must have at least 1 item"),
        (OPTUNA, "sweep.grid", {"limit": [3, 4]}, "job: 'limit' is given in sweep, but its values begin in search.params; keep one of them"),
        (OPTUNA, "params.rate", 0.5, "job: 'rate' is given in params, but its values begin in search.params; keep one of them"),
        (OPTUNA, "sweep.seeds", 3, "sweep: seeds are given, but column `seed` numbers the trials of a study; leave them out"),
        (OPTUNA, "search.trials", 3, "search: together: 4 given, but there are 3 trials; lower it, or give more trials"),
        (OPTUNA, "search.metric", "los", "search.metric: 'los' is not a scalar result of kernel hill; did you mean 'loss'?"),
        (OPTUNA, "search.metric", "gain", "search.mode: missing, but a larger gain is better; give `mode: max`"),
        (OPTUNA, "search.prune", {"min_advance": 3}, "search.prune.min_advance: unknown field; did you mean 'min_advances'?"),
        (OPTUNA, "search.size", 3, "search.size: unknown field"),
    ],
)  # fmt: skip
def test_asha_and_optuna_that_do_not_fit_are_refused(job, path, value, said):
    with pytest.raises(JobError) as caught:
        planned(changed(job, path, value))
    assert said in str(caught.value)
    # A misspelt field is unknown, and the right one is missing.
    assert len(str(caught.value).splitlines()) == (
        2 if "did you mean 'min_advances'" in said else 1
    )


@pytest.mark.parametrize(
    ("sampler", "lacks", "said"),
    [
        ("tpe", "optuna", f"job: search.sampler: tpe needs Optuna; {how_to_install('optuna')}"),
        ("gp", "torch", f"job: search.sampler: gp needs PyTorch; {install('torch')}, or take another sampler"),
    ],
)  # fmt: skip
def test_what_a_sampler_needs_is_told_before_anything_is_written(monkeypatch, sampler, lacks, said):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "ctd.installed.find_spec", lambda name: None if name == lacks else there(name)
    )
    with pytest.raises(JobError) as caught:
        planned(changed(OPTUNA, "search.sampler", sampler))
    assert str(caught.value) == said
    with refused(JobError):
        planned(changed(OPTUNA, "search.params", {"rat": RATE}))
    with refused(JobError):
        planned(changed(OPTUNA, "search.metric", "los"))


def test_a_broken_optuna_is_told_by_its_cause(monkeypatch, tmp_path):
    """One that is found, but of which something is missing, as after half an installation."""
    (tmp_path / "optuna.py").write_text("import alembic_that_is_missing\n")
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    cause = "No module named 'alembic_that_is_missing'"
    with pytest.raises(JobError) as caught:
        planned(OPTUNA)
    assert str(caught.value) == (
        "job: search.sampler: tpe needs Optuna, which is installed but cannot be imported "
        f"(ModuleNotFoundError: {cause}); {how_to_install('optuna', again=True)}"
    )
    assert "--force-reinstall" in str(caught.value)


def test_items_of_optuna_are_trials_at_the_base_value():
    """The point of no sweep, or each of a sweep, as often as there are trials; static fields split the studies."""
    spec, items = planned(OPTUNA)
    assert (items.n, list(items.columns), [len(g.items) for g in items.groups]) == (
        12,
        ["seed"],
        [12],
    )
    assert items.groups[0].params.rate == 0.1
    assert spec.swept() == ["seed"]
    assert parse_job(spec.science(), "again").digest() == spec.digest()
    job = changed(OPTUNA, "sweep.grid", {"n": [2, 3], "push": [[0.0], [1.0]]})
    spec, items = planned(job)
    assert [len(g.items) for g in items.groups] == [24, 24]
    for name in ("n", "push"):
        (same,) = {len(set(block)) for block in items.columns[name].codes.reshape(-1, 12).tolist()}
        assert same == 1


def test_a_required_field_that_is_searched_needs_no_value():
    class Needs(Descent):
        rate: Traced[float] = Field(gt=0, le=10)

    needs, job = replace(kernel, Params=Needs), changed(OPTUNA, "params", {"steps": 60})
    (group,) = checked_items(parse_job(job, "job"), needs, "job").groups
    assert group.params.rate == RATE["loguniform"][0]


def test_results_that_searches_add():
    """What the store keeps of each, with its axes and dtypes."""
    named = lambda job: {
        name: (searched(kernel, spec).dims[name].axes, shape.shape, shape.dtype.name)
        for spec in [parse_job(job, "job").search]
        for name, shape in shapes(spec, kernel, 27).items()
    }
    rungs = {
        "search_advances": ((), (), "int32"),
        "search_rung": ((), (), "int32"),
        "search_metric": (("rung",), (3,), "float64"),
    }
    finals = {
        "final_rate": ((), (), "float64"),
        "final_limit": ((), (), "int64"),
        "final_noise": ((), (), "float64"),
    }
    assert named(HALVING) == named(ASHA) == rungs
    assert named(OPTUNA) == finals | {"search_advances": ((), (), "int32")}
    pruned = changed(OPTUNA, "search.prune", {"min_advances": 2})
    assert named(pruned) == finals | rungs | {"search_metric": (("rung",), (2,), "float64")}
    outcomes = lambda job: [o.name for o in searched(kernel, parse_job(job, "job").search).outcomes]
    assert outcomes(ASHA)[-1] == outcomes(pruned)[-1] == "dropped"
    assert "dropped" not in outcomes(OPTUNA)


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
    ("job", "path", "value"),
    [
        (RNN, "search.min_advances", 6),
        (RNN, "search", {"method": "population", "metric": "eval_loss", "every": 7, "generations": 2, "params": {"learning_rate": {"uniform": [0, 1]}}}),
        (ONE_SHOT, "search.eta", 2),
        (HALVING, "search.metric", "gain"),
        (HALVING, "search.metric", "never"),
    ],
)  # fmt: skip
def test_searches_that_would_compare_nothing_or_the_wrong_way(job, path, value):
    with refused(JobError):
        planned(changed(job, path, value))


def test_a_population_does_not_search_what_acts_at_the_start_alone():
    search = {
        "method": "population", "metric": "eval_loss", "every": 1, "generations": 2,
        "params": {name: {"uniform": [0.01, 1]} for name in ("learning_rate", "alpha", "recurrent_scale", "l2")},
    }  # fmt: skip
    job = {
        "kernel": "train_rnn",
        "params": SMALL_RNN | {"cell": "leaky", "l2": 0.1},
        "sweep": {"seeds": 4},
    }
    with refused(JobError):
        prepare(parse_job(job | {"search": search}, "job"), BASE, "job", Machines)


@pytest.mark.parametrize(
    ("params", "advances", "compared", "laps"),
    [
        (SMALL_RNN, 2, 1, "4, 2 items, up to 1"),
        # Its last advance makes one of four steps.
        pytest.param(RNN["params"], 6, 2, "4, 2, 1 items, up to 1, 2", marks=pytest.mark.endurance),
    ],
)
def test_items_make_the_advances_that_their_kernel_tells(
    tmp_path, params, advances, compared, laps
):
    """The plan and the progress leave out rungs that no item comes to before its end."""
    job = RNN | {"params": params}
    store, progress = run(tmp_path / "r.zarr", job)
    assert store.rows(0, "search_advances", 0, 4).max() == advances
    assert progress.stage.startswith(f"first past the last of {compared} rung")
    ready = prepare(parse_job(job, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "none"), 1)
    said = f"halving by least eval_loss: {laps} advances and the end"
    assert total["search"].startswith(said)
    told = f"; items make {advances} advances at most and are compared {compared} time"
    assert total["search"].rstrip("s").endswith(told)
    kernel = replace(ready.kernel, advances=None)
    _, total = plan_rows(replace(ready, kernel=kernel), str(tmp_path / "none"), 1)
    assert "is known only when they run: the kernel does not declare `advances`" in total["search"]


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
    assert len(search.ends(8, advances)) == n
    assert n == sum(every * g < advances for g in range(1, generations))


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (HALVING, "halving by least loss: 27, 9, 3, 1 items, up to 2, 6, 18 advances and the end"),
        (POPULATION, "population of 8 by least loss: 9 generations of 3 advances, rate searched"),
        (ASHA, "asynchronous halving of 27 by least loss: the best 1 / 3 of those that have come to 2, 6, 18 advances go on, the last to the end"),
        (OPTUNA, "12 trials of Optuna's tpe by least loss, 4 together, rate, limit, noise searched"),
        (changed(OPTUNA, "search.prune", {"min_advances": 4}), "noise searched; the best 1 / 3 of those that have come to 4, 12 advances go on"),
    ],
    ids=["halving", "population", "asha", "optuna", "optuna pruned"],
)  # fmt: skip
def test_schema_and_plan_show_the_search(tmp_path, job, said):
    jsonschema.validate(job, job_schema(kernel))
    bad = changed(job, "search.method", "hyperband")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, job_schema(kernel))
    ready = prepare(parse_job(job, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "none.zarr"), 1)
    assert said in total["search"]
