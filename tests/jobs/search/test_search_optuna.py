"""Optuna's proposals: those of Optuna alone with the same seed and order; what it is told; pruning as its own pruner does."""

import importlib.util
import math
import warnings
from itertools import pairwise

import numpy as np
import optuna
import pytest
from messages import refused
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from search_jobs import HALVING, Items, play, play_again, results, same_round, searcher_of
from stores import run

from jobs import open_store
from jobs.errors import JobError
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.search.optuna import Optuna
from jobs.search.searcher import RoundReport
from jobs.spec.job import parse_job

PARAMS = {
    "rate": {"loguniform": [1e-4, 1.0]},
    "leak": {"uniform": [0.1, 1.0]},
    "limit": {"integers": [1, 9]},
    "batch": {"choice": [4, 16, 64]},
}
DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "leak": FloatDistribution(0.1, 1.0),
    "limit": IntDistribution(1, 8),
    "batch": CategoricalDistribution([4, 16, 64]),
}
SEED = 7


def alone(sampler, together):
    """Optuna's own study, as a user would make it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some samplers are experimental
        made = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=SEED, constant_liar=together > 1),
            "gp": lambda: optuna.samplers.GPSampler(seed=SEED),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(
                seed=SEED, warn_independent_sampling=False
            ),
            "random": lambda: optuna.samplers.RandomSampler(seed=SEED),
            "qmc": lambda: optuna.samplers.QMCSampler(
                seed=SEED, scramble=True, warn_independent_sampling=False
            ),
        }[sampler]()
    return optuna.create_study(sampler=made)


def search(trials=30, **more):
    return Optuna(
        **{"method": "optuna", "metric": "loss", "trials": trials, "params": PARAMS} | more
    )


def made(spec, n=None):
    return searcher_of(spec, SEED, np.arange(n or spec.trials))


def height(values):
    """A loss of the four fields, with a hole where it is NaN."""
    if values["leak"] > 0.9:
        return math.nan
    return (
        math.log10(values["rate"] / 0.01) ** 2
        + values["leak"]
        + abs(values["limit"] - 4)
        + values["batch"] / 64
    )


class Proposed(Items):
    """Items whose metric follows from what was proposed."""

    def __init__(self, searcher, **more):
        at = lambda row, age: (
            height({k: v[0] for k, v in searcher.values(np.array([row])).items()}) + 1 / age
        )
        super().__init__(at, lambda row: 40, **more)


@pytest.mark.parametrize(("workers", "together", "most"), [(1, 1, 8), (1, 6, 8), (3, 4, 3)])
@pytest.mark.parametrize(
    "sampler",
    ["tpe", pytest.param("gp", marks=pytest.mark.frameworks), "cmaes", "random", "qmc"],
)
def test_proposals_are_those_of_optuna_alone(sampler, workers, together, most):
    """To the bit, and again for a driver that starts anew."""
    # Gaussian processes take seconds a trial after the tenth, the last that is drawn at random.
    trials = 13 if sampler == "gp" else 30
    spec, rng = search(trials, sampler=sampler, together=together), np.random.default_rng(1)
    searcher = made(spec)
    items = Proposed(searcher, failing={5: 0})
    work = lambda k, asked: (rng.exponential(), items.report(k, asked))
    played = play(searcher, work, workers, most)
    study, trials, rounds = alone(sampler, together), {}, []
    for name, value in played.calls:
        if name == "ask":
            assert len(value.rows) <= min(together, most)
            rounds.append(value)
            for k, row in enumerate(value.rows.tolist()):
                trials[row] = study.ask(DISTRIBUTIONS)
                assert trials[row].number == row
                assert {key: v[k] for key, v in value.values.items()} == trials[row].params
        elif name == "tell":
            for row in value[1].failed:
                study.tell(trials[row], state=TrialState.FAIL)
            for row, metric in zip(value[1].rows.tolist(), value[1].metric.tolist(), strict=True):
                state = TrialState.PRUNED if math.isnan(metric) else TrialState.COMPLETE
                study.tell(trials[row], None if math.isnan(metric) else metric, state)
    again = made(spec)
    for a, b in zip(play_again(again, played, most), played.rounds, strict=True):
        assert same_round(a, b)
    kinds = {name: values.dtype for name, values in searcher.records().items()}
    assert kinds == {
        "final_rate": "f8",
        "final_leak": "f8",
        "final_limit": "i8",
        "final_batch": "i8",
    }


def test_pruning_is_that_of_optunas_pruner():
    """One trial at a time, as Optuna runs alone: the same trials leave at the same steps."""
    searcher = made(search(trials=40, sampler="random", prune={"min_advances": 2, "eta": 3}))
    items = Proposed(searcher)
    play(searcher, lambda k, asked: (1, items.report(k, asked)))
    study = alone("random", 1)
    study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    for row in range(40):
        trial = study.ask(DISTRIBUTIONS)
        ended = 40
        for age in (2, 6, 18):
            value = height(trial.params) + 1 / age
            trial.report(value, age)
            if trial.should_prune():
                ended = age
                break
        assert searcher.ages[row] == ended
        pruned = ended < 40 or math.isnan(value)
        study.tell(
            trial,
            None if pruned else height(trial.params) + 1 / 40,
            TrialState.PRUNED if pruned else None,
        )
    assert 5 < (searcher.ages == 2).sum() < 40
    assert (searcher.ages == 40).any()


def test_what_optuna_is_told():
    """Pruned with the metrics at its rungs, complete with its last, failed after an error; a search for the largest."""
    spec = search(
        trials=9, together=9, sampler="random", mode="max", prune={"min_advances": 2, "eta": 3}
    )
    searcher, metric = made(spec), np.array([1, 2, 3, 4, 5, 6, 7, np.nan, 9])
    items = Items(lambda row, age: metric[row] + age, lambda row: 50, {6: 4}, {5: 1, 8: 0})
    play(searcher, lambda k, asked: (1, items.report(k, asked)), most=9)
    (study,) = searcher._studies
    found = [(t.state.name, t.value, t.intermediate_values) for t in study.trials]
    # Eight come to the first rung, in one round: two go on. Of these 5 fails with an error and 6 ends in a failure of the kernel.
    assert found[:5] == [("PRUNED", v + 2, {2: v + 2}) for v in (1, 2, 3, 4, 5)]
    assert found[5:] == [
        ("FAIL", None, {2: 8}),
        ("PRUNED", 9, {2: 9}),
        ("PRUNED", None, {}),
        ("FAIL", None, {}),
    ]
    assert study.direction.name == "MAXIMIZE"
    np.testing.assert_array_equal(searcher.records()["search_rung"], [0] * 5 + [1, 1, 0, 0])
    np.testing.assert_array_equal(np.flatnonzero(searcher.dropped), [0, 1, 2, 3, 4, 7])
    assert searcher.stage == "9 of 9 trials"


def test_progress_tells_the_best_so_far():
    spec = search(trials=4, together=2, sampler="random")
    searcher = made(spec)
    items = Items(lambda row, age: [3.0, 0.25, 2.0, 5.0][row], lambda row: 10, {1: 10})
    assert (searcher.stage, searcher.best) == ("0 of 4 trials", "")
    asked = searcher.ask(2)
    searcher.tell(0, items.report(0, asked))
    # The other one is broken.
    assert (searcher.stage, searcher.best) == ("2 of 4 trials", "best loss 3")


@pytest.mark.parametrize("together", [2, 5])
def test_pruning_of_rounds_is_by_all_that_have_come(together):
    """The items of a round come at once: those within the best floor(m / eta), at least one, go on."""
    searcher = made(
        search(trials=20, together=together, sampler="random", prune={"min_advances": 2, "eta": 2})
    )
    items = Proposed(searcher)
    rounds = play(searcher, lambda k, asked: (1, items.report(k, asked)), most=together).rounds
    came = {age: [] for age in (2, 4, 8, 16)}
    for number, (asked, after) in enumerate(pairwise(rounds)):
        age = items.states[number, int(asked.rows[0])]
        if age not in came:
            continue
        losses = {row: items.metric(row, age) for row in asked.rows.tolist()}
        came[age] += [math.inf if math.isnan(loss) else loss for loss in losses.values()]
        limit = sorted(came[age])[max(1, len(came[age]) // 2) - 1]
        going = [row for row, loss in losses.items() if loss <= limit]
        assert after.rows.tolist() == going if going else after.rounds[0] == -1
    assert came[16]


@pytest.mark.parametrize(
    ("metric", "go_on"),
    [
        ([0.5, math.nan, math.nan, math.nan], [0]),
        ([math.nan, math.inf, math.nan, 0.5], [3]),
        ([math.nan, 1.0, 0.5, 0.75], [2, 3]),
        ([math.nan] * 4, []),
    ],
)
def test_a_number_is_not_pruned_where_few_are_numbers(metric, go_on):
    """Two of four go on: where fewer have a metric, those that do."""
    searcher = made(
        search(trials=4, together=4, sampler="random", prune={"min_advances": 2, "eta": 2})
    )
    items = Items(lambda row, age: metric[row], lambda row: 40)
    searcher.tell(0, items.report(0, searcher.ask(4)))
    assert np.flatnonzero(searcher.ready).tolist() == go_on


def test_points_of_a_sweep_are_studies_of_their_own():
    """Two studies in a group: each has the proposals of the first alone, and they are asked in turn."""
    spec = search(trials=10, together=5, sampler="tpe")
    both, one = made(spec, 20), made(spec)
    items = [Proposed(both), Proposed(one)]
    rounds = [
        play(s, lambda k, asked, i=i: (1, i.report(k, asked)), most=5).rounds
        for s, i in zip((both, one), items, strict=True)
    ]
    assert [int(asked.rows[0]) // 10 for asked in rounds[0]] == [0, 1, 0, 1]
    for name, values in one.records().items():
        np.testing.assert_array_equal(both.records()[name], np.tile(values, 2))


def test_an_item_tried_again_is_a_new_trial_with_the_same_values():
    """As Optuna's own `RetryFailedTrialCallback` enqueues it; the proposals of the others stay."""
    searcher = made(search(together=6))
    items = Proposed(searcher, failing={5: 0})
    play(searcher, lambda k, asked: (1, items.report(k, asked)), most=6)
    before = {name: values.copy() for name, values in searcher.records().items()}
    items.failing = {}
    searcher.retry(np.array([5]))
    number = 30
    while (asked := searcher.ask(6)) is not None:
        assert asked.rows.tolist() == [5]
        searcher.tell(number, items.report(number, asked))
        searcher.decide()
    assert searcher.ended.all()
    assert not searcher.failed.any()
    np.testing.assert_equal(searcher.records(), before)
    trials = searcher._studies[0].trials
    assert len(trials) == 31
    assert (trials[5].state.name, trials[30].params) == ("FAIL", trials[5].params)
    assert (trials[30].state.name, trials[30].value) == ("COMPLETE", searcher.metric[5, 0])


def test_an_item_tried_again_has_the_same_choice_of_texts_and_numbers():
    """An array of both would hold texts, which Optuna does not know."""
    law = {"mixed": {"choice": ["auto", 1, 2, 3]}, "rate": {"uniform": [0, 1]}}
    asked = Optuna(method="optuna", metric="loss", trials=4, together=4, params=law)
    variants = [{"mixed": value} for value in law["mixed"]["choice"]]
    searcher = searcher_of(asked, 0, np.arange(4), variants=variants)
    number = 0
    while (asked := searcher.ask(4)) is not None:
        none, failed = np.zeros(0, int), tuple(asked.rows.tolist())
        searcher.tell(number, RoundReport(none, np.zeros(0), none, none > 0, none > 0, failed))
        number += 1
    searcher.retry(np.arange(4))
    trials = searcher._studies[0].trials
    assert [trial.params for trial in trials[4:]] == [trial.params for trial in trials[:4]]


def test_a_real_field_is_computed_with_reals(tmp_path):
    """Whatever list proposes them: 300^4 is more than 32 bits hold."""
    (tmp_path / "fourth_kernel.py").write_text(FOURTH)
    searched = {"method": "optuna", "sampler": "random", "metric": "y", "trials": 3, "together": 3}
    searched |= {"params": {"g": {"choice": [300, 400]}, "h": {"integers": [1, 5]}}}
    spec = parse_job({"kernel": "fourth_kernel", "search": searched}, "job")
    store = open_or_create(spec, str(tmp_path), "job", str(tmp_path / "f.zarr"), SerialExecutor(1))
    run_shards(store, SerialExecutor(1))
    found = results(store)
    np.testing.assert_allclose(
        found["y"], found["final_g"].astype(float) ** 4 + found["final_h"], rtol=1e-6
    )


FOURTH = """
from ctd.kernel import Params, Traced, Var, one_shot


class Fourth(Params):
    g: Traced[float] = 1.0
    h: Traced[float] = 1.0


kernel = one_shot("fourth_kernel", Fourth, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.g**4 + traced.h})
"""


@pytest.mark.parametrize(
    ("sampler", "lacks"),
    [
        ("tpe", "optuna"),
        ("cmaes", "cmaes"),
        ("gp", "torch"),
    ],
)
def test_a_sampler_that_is_not_installed(monkeypatch, sampler, lacks):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "ctd.installed.find_spec", lambda name: None if name == lacks else there("math")
    )
    with refused(JobError):
        made(search(sampler=sampler))


@pytest.mark.parametrize("prune", [None, {"min_advances": 2, "eta": 3}])
def test_items_are_computed_with_what_was_proposed(tmp_path, prune):
    """From a job to its table: `limit` is the number of steps that an item of `hill.py` makes."""
    law = {"rate": {"loguniform": [1e-3, 0.3]}, "limit": {"integers": [20, 60]}}
    searched = {
        "method": "optuna",
        "metric": "loss",
        "trials": 9,
        "together": 3,
        "params": law,
        "prune": prune,
    }
    job = HALVING | {"params": {"dtype": "float64", "steps": 60}, "sweep": {}, "search": searched}
    store, _ = run(tmp_path / "o.zarr", job)
    found = results(store)
    done = found["status"] == 1
    assert done.all() if prune is None else 0 < done.sum() < 9
    np.testing.assert_array_equal(found["taken"][done], found["final_limit"][done])
    table = open_store(store.address).table("search")
    first = table[table.rung == 0]
    np.testing.assert_array_equal(first.rate, found["final_rate"])
    if prune is None:
        np.testing.assert_array_equal(table.loss, found["loss"])
