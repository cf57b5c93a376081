"""Items as trials of studies: what Optuna reads back is what a query of the store says."""

import math

import optuna
import pytest
from failing import Failing
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from page_stores import finished
from search_jobs import HALVING, POPULATION, changed
from stores import JOB, make, run

import jobs
from jobs.run.shards import reconsider, run_shards
from jobs.run.worker import SerialExecutor

RATE = {"rate": FloatDistribution(1e-3, 0.9, log=True)}


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """The stores of a halving search and of a population, each with an item that fails with an error."""
    folder, found = tmp_path_factory.mktemp("searches"), {}
    for name, job in (("halving", HALVING), ("population", POPULATION)):
        store = make(folder / f"{name}.zarr", changed(job, "run.retries", 0))
        run_shards(store, Failing(without(4)))
        found[name] = store.address
    return found


def without(row):
    """A fault of the shard of group 0 that has this row, until the row is left out."""
    return lambda task: (
        task.shard.group == 0
        and task.shard.start <= row < task.shard.stop
        and row not in task.without
        and "error"
    )


@pytest.fixture
def study(ctd):
    """Export a store by the command and load the study; from a journal, which takes a tenth of SQLite's time."""

    def load(address, *words, storage="study.log"):
        code, out, err = ctd("export", address, "--to", "optuna", storage, *words)
        assert code == 0, err
        assert f"optuna-dashboard {storage}" in out.replace("\n", "")
        if "://" not in storage:
            storage = JournalStorage(JournalFileBackend(storage))
        return optuna.load_study(study_name=None, storage=storage)

    return load


def states(found):
    return [trial.state.name for trial in found.trials]


def test_sweep_is_a_study_of_complete_trials(study):
    store = finished("train_rnn")
    found = study(store.address, storage="sqlite:///study.db")
    items = jobs.open_store(store.address).query(sort="item")
    assert found.study_name == "train_rnn"
    assert (found.direction.name, found.user_attrs["metric"]) == ("MINIMIZE", "eval_loss")
    assert [t.user_attrs["item"] for t in found.trials] == list(range(10)) == items.item.tolist()
    assert states(found) == ["COMPLETE"] * 10
    assert [t.value for t in found.trials] == items.eval_loss.tolist()
    assert [t.params["learning_rate"] for t in found.trials] == items.learning_rate.tolist()
    law = {"learning_rate": FloatDistribution(1e-4, 0.1, log=True)}
    assert all(t.distributions == law for t in found.trials)
    about = {"item": 3, "group": 0, "status": "done", "outcome": items.outcome[3]}
    assert found.trials[3].user_attrs == about
    assert found.best_trial.number == items.eval_loss.argmin()
    fixed = found.user_attrs["params"]
    assert (fixed["n"], fixed["task.name"], "learning_rate" in fixed) == (6, "integrator", False)


def test_halving_is_a_study_with_pruned_trials(searches, study):
    found, store = study(searches["halving"]), jobs.open_store(searches["halving"])
    items, rungs = store.query(sort="item"), store.table("search")
    word = {"done": "COMPLETE", "dropped": "PRUNED", "failed": "FAIL"}
    assert states(found) == [word[status] for status in items.status]
    assert {"COMPLETE", "PRUNED", "FAIL"} == set(states(found))
    for trial, (_, item) in zip(found.trials, items.iterrows(), strict=True):
        own = rungs[rungs["item"] == item["item"]]
        # min_advances 2, eta 3: the rungs are after 2, 6 and 18 advances.
        assert trial.intermediate_values == dict(zip(2 * 3**own.rung, own.loss, strict=True))
        assert trial.value == (None if item.status == "failed" else item.loss)
        assert (trial.params, trial.distributions) == ({"rate": item.rate}, RATE)
    assert found.best_value == items.loss[items.status == "done"].min()


def test_population_is_a_study_of_last_parameters(searches, study):
    found, store = study(searches["population"]), jobs.open_store(searches["population"])
    items, members = store.query(sort="item"), store.table("search")
    done = items.status == "done"
    for trial, (_, item) in zip(found.trials, items.iterrows(), strict=True):
        own = members[members["item"] == item["item"]]
        assert trial.intermediate_values == dict(zip(own.generation, own.loss, strict=True))
        if item["item"] == 4:  # it has an error and no results
            assert (trial.state.name, trial.params, len(own)) == ("FAIL", {}, 0)
        else:
            assert (trial.params, trial.distributions) == ({"rate": item.final_rate}, RATE)
            assert (trial.value, len(own)) == (item.loss, 9)
    best = found.best_trial
    assert best.user_attrs["item"] == items["item"][items.loss[done].idxmin()]
    assert best.value == items.loss[done].min()


def test_metric_and_mode_may_be_others_than_the_searchs(searches, study):
    """Intermediate values are those of the search's metric, and left out of a study of another one."""
    found = study(searches["halving"], "--metric", "gain")
    items = jobs.open_store(searches["halving"]).query(sort="item")
    assert found.direction.name == "MAXIMIZE"  # the kernel says that more is better
    assert found.best_value == items.gain[items.status == "done"].max()
    assert not any(trial.intermediate_values for trial in found.trials)
    other = study(searches["halving"], "--metric", "taken", "--mode", "max", storage="taken.log")
    assert (other.direction.name, other.best_value) == ("MAXIMIZE", 60)


SWEEP = {
    "grid": {"n": [3, 5], "rate": {"geomspace": [0.01, 0.1, 2]}},
    "zip": {"n_steps": {"range": [2, 9, 3]}, "push": [[0, 0], [1, -1], [0, 0]]},
    "random": {"offset": {"choice": [0.0, 0.5]}},
    "samples": 2,
    "seeds": 2,
}
FORMS = {
    "one": (SWEEP, {
        "n": CategoricalDistribution([3, 5]),
        "rate": FloatDistribution(0.01, 0.1, log=True),
        "n_steps": IntDistribution(2, 8),
        "push": CategoricalDistribution(["[0.0, 0.0]", "[1.0, -1.0]"]),
        "offset": CategoricalDistribution([0.0, 0.5]),
    }),
    "several": ([
        {"random": {"rate": {"uniform": [-0.5, 0.5]}, "n_steps": {"integers": [3, 9]}}, "samples": 4},
        {"grid": {"rate": [0.75, -0.9], "n": [5]}},
        {"grid": {"rate": {"linspace": [0, 0.5, 2]}}},
    ], {
        "rate": FloatDistribution(-0.9, 0.75),
        "n_steps": IntDistribution(3, 10),  # 10 is the kernel's default, of the second sweep
        "n": CategoricalDistribution([4, 5]),
    }),
    "lists": ([
        {"grid": {"push": [[0, 0], [1, -1]]}},
        {"random": {"push": {"choice": [[0, 0], [1, -1]]}}, "samples": 3},
    ], {"push": CategoricalDistribution(["[0.0, 0.0]", "[1.0, -1.0]"])}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_parameters_have_the_distributions_of_the_sweep(tmp_path, study, name):
    sweep, expected = FORMS[name]
    run_in = {**JOB["run"], "shard_items": 48}  # the programs of JOB
    job = {"kernel": "toy", "seed": 1, "sweep": sweep, "run": run_in}
    store, _ = run(tmp_path / "t.zarr", job)
    found = study(store.address, "--metric", "norm")
    items = jobs.open_store(store.address).query(sort="item")
    for trial, (_, item) in zip(found.trials, items.iterrows(), strict=True):
        assert trial.distributions == expected
        for field in expected.keys() - {"push"}:
            assert trial.params[field] == item[field]
        assert trial.user_attrs["group"] == item.group
        assert trial.user_attrs.get("seed") == item.get("seed")


def test_importance_is_that_of_what_matters(study):
    """`norm` follows the noise and the push, which is listed, and hardly the rate."""
    found = study(finished("toy").address, "--metric", "norm")
    assert states(found).count("FAIL") == 1  # item 8 has an error and no result
    assert found.trials[8].state.name == "FAIL"
    importance = optuna.importance.get_param_importances(found)
    assert importance.keys() == {"n", "rate", "push"}
    assert math.isclose(sum(importance.values()), 1)


def test_export_again_adds_what_is_new(tmp_path, study):
    """First six shards of eight with a failed item, then all of them computed, then once more."""
    store = make(tmp_path / "t.zarr", changed(JOB, "run.retries", 0))
    run_shards(store, Failing(without(8)))
    shards = list(store.job.plan.shards())
    store.committed.forget(shards[6:])
    first = study(store.address, "--metric", "norm")
    n = len(first.trials)
    assert (n, states(first).count("FAIL"), first.trials[8].state.name) == (34, 1, "FAIL")
    reconsider(store, failed=True)
    run_shards(store, SerialExecutor(1))
    for _ in range(2):
        again = study(store.address, "--metric", "norm")
        added = [trial.user_attrs["item"] for trial in again.trials[n:]]
        assert sorted(added) == [8, *range(34, 44)]
        assert states(again)[n:] == ["COMPLETE"] * 11


def test_export_refuses_what_is_no_study(searches, tmp_path, ctd, monkeypatch):
    here = f"sqlite:///{tmp_path}/study.db"
    for name, direction in (("halving", "minimize"), ("population", "maximize")):
        made = optuna.create_study(study_name=name, storage=here, direction=direction)
        made.add_trial(optuna.create_trial(value=1.0))
    (tmp_path / "text").write_text("no journal\n")
    said = {
        ("--metric", "los"): "--metric los: the store has no such result; did you mean 'loss'?",
        ("--metric", "x"): "--metric x: is not one real number an item; known: drawn, gain, loss",
        ("--where", "item < 0"): "none of 0 items is done",
        ("--where", "status == 'dropped'"): "none of 25 items is done",
        ("--folder", "f"): "--folder: not with --to optuna",
        ("--results",): "--results: not with --to optuna",
        ("file",): "give one storage after it",
    }
    cases = [("halving", ("new.log", *words), text) for words, text in said.items()]
    cases += [
        ("halving", (), "give one storage after it: sqlite:///study.db, or the path of a journal"),
        ("halving", (here,), "has a study 'halving', and its job is None, not"),
        ("population", (here,), "has a study 'population', and its direction is maximize, not minimize"),
        ("halving", (f"sqlite:///{tmp_path}/none/s.db",), "Optuna cannot write a study there"),
        ("halving", ("none/journal",), "Optuna cannot write a study there"),
        ("halving", ("text",), "text: is no journal of Optuna"),
        ("halving", ("study.db",), "no journal of Optuna; for a database give sqlite:///study.db"),
        ("halving", ("nosuch://u:secret-pw@host/x",), "nosuch://***@host/x: Optuna cannot write"),
    ]  # fmt: skip
    for name, words, text in cases:
        code, out, err = ctd("export", searches[name], "--to", "optuna", *words)
        assert (code, out, text in err.replace("\n", " ")) == (2, "", True), (words, err)
        assert not {"Traceback", "secret-pw"} & set(err.split())
    assert [len(optuna.load_study(study_name=n, storage=here).trials) for n in searches] == [1, 1]
    assert not (tmp_path / "new.log").exists()
    assert (tmp_path / "text").read_text() == "no journal\n"
    monkeypatch.setattr("ctd.installed.find_spec", lambda name: None)
    code, _, err = ctd("export", searches["halving"], "--to", "optuna", "new.log")
    assert (code, "--to optuna: needs optuna; " in err) == (2, True)


def test_export_refuses_a_study_that_went_on(searches, ctd, study):
    """Optuna has proposed a trial since."""
    found = study(searches["halving"], "--where", "status == 'done'")
    study(searches["halving"])
    found.optimize(lambda trial: trial.suggest_float("rate", 1e-3, 0.9, log=True), n_trials=1)
    code, _, err = ctd("export", searches["halving"], "--to", "optuna", "study.log")
    assert (code, "its trial 27 is no item of a store" in err.replace("\n", " ")) == (2, True), err
