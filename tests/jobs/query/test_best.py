"""The best item of a store, its spread over seeds, and the commands that follow; against NumPy over the items."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import stores
import yaml
from messages import refused
from page_stores import finished
from search_jobs import HALVING, POPULATION, changed

from ctd.catalogue import load_kernel
from jobs.errors import JobError
from jobs.query.best import (
    best,
    bests,
    bests_of,
    differing_bases,
    ends,
    require_metric,
    rows_of,
)
from jobs.query.collection import StoreCollection
from jobs.query.next import commands, computes_once
from jobs.query.query import query
from jobs.query.tables import ask
from jobs.query.tree import StoreTree
from jobs.report.page import Content, several
from jobs.report.sweep import overview
from jobs.report.sweep import sweep as sweep_of
from jobs.spec.description import Description
from jobs.spec.job import JobSpec, parse_job
from jobs.store.card import write_card
from jobs.store.look import Look
from jobs.store.roles import Metric


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six small networks: two learning rates, three seeds each."""
    sweep = {"grid": {"learning_rate": [1e-3, 0.1]}, "seeds": 3}
    job = {
        "kernel": "train_rnn",
        "params": stores.SMALL_RNN,
        "sweep": sweep,
        "run": stores.FOUR_SLOTS,
    }
    return stores.run(tmp_path_factory.mktemp("best") / "nets.zarr", job)[0]


def test_best_item_and_its_seeds(trained):
    frame = query(trained, table="items")
    found = best(trained, require_metric(trained, "--by"))
    row = frame.loc[frame["eval_loss"].idxmin()]
    assert (found.item, found.metric, found.value) == (row["item"], "eval_loss", row["eval_loss"])
    assert found.params == {"learning_rate": row["learning_rate"], "seed": row["seed"]}
    seeds = frame["eval_loss"][frame["learning_rate"] == row["learning_rate"]].astype(float)
    assert found.seeds.n == 3
    assert np.allclose([found.seeds.mean, found.seeds.sd], [seeds.mean(), seeds.std()], rtol=1e-12)
    assert found.items.n == 6
    assert found.items.median == frame["eval_loss"].median()
    tree = StoreTree.from_store(trained)
    assert tree.best() == found
    assert tree.best(mode="max").value == frame["eval_loss"].max()


def test_best_outcome(trained):
    """The first one of a kernel is not worth a line; any other is."""
    frame = query(trained, table="items")
    first, second = trained.description.outcomes[:2]
    for name, text in ((first.name, None), (second.name, f"{second.name}: {second.reason}")):
        columns = {k: frame[k].to_numpy() for k in frame} | {"outcome": np.full(len(frame), name)}
        assert bests_of(trained, columns, Metric("eval_loss"))[0].facts().get("outcome") == text


def test_a_metric_that_the_job_does_not_have_is_told_by_what_it_is(trained):
    """No near word is proposed, which would be another metric."""
    name = min(trained.description.dims.keys() - set(trained.names(0)))
    with refused(JobError) as told:
        require_metric(trained, "--by", name)
    assert "did you mean" not in str(told.value)


def test_next_jobs_of_a_submitted_store_are_submitted(trained, monkeypatch):
    """`ctd run` would compute on the login node."""
    sent = ["a.yaml", "--cluster", "my lab"]
    monkeypatch.setattr(sys.modules[commands.__module__], "words_sent", lambda _: sent)
    found = [line.partition(" && ")[2] for line in commands(trained, 0).values()]
    assert found[0] == "", "writes files here"
    assert found[1] == "ctd submit nets-0-fixed-points.yaml --cluster 'my lab'"


def test_failed_items_are_never_best():
    """An item of this store has failed, and the kernel names no metric."""
    store = finished("toy")
    frame = query(store, "status == 'done'", table="items")
    found = best(store, Metric("norm", more_is_better=True))
    assert found.value == frame["norm"].max()
    assert found.seeds is None
    with refused(JobError):
        require_metric(store, "--by")
    with refused(JobError):
        require_metric(store, "--by", "x")


def test_the_best_of_a_search_is_the_best_of_those_that_went_to_the_end(tmp_path):
    """27 items, of which each rung drops two thirds: one goes to the end."""
    job = changed(changed(HALVING, "search.method", "asha"), "run.shard_items", 27)
    store, _ = stores.run(tmp_path / "search.zarr", job)
    found = best(store, require_metric(store, "--by"))
    status = query(store, table="items")["status"].value_counts()
    assert (found.items.n, found.dropped) == (status["done"], status["dropped"])
    facts = found.facts()
    n = found.items.n
    assert facts["item"] == f"{found.item}, the best of {n} that went to the end by loss (less is better)"  # fmt: skip
    assert facts["seeds"].startswith(
        "one item per setting: what a search keeps of 27 is partly luck"
    )
    assert facts["dropped"] == f"{found.dropped} items on the way, {found.items.n} went to the end"
    assert "all items" not in facts
    # Aggregates say that they count what was judged at an earlier age.
    [note] = query(store, agg="median(loss)").attrs["notes"]
    assert note.startswith(f"{found.dropped} of 27 counted items were dropped; --where")
    assert not query(store, "status == 'done'", agg="median(loss)").attrs["notes"]


TRIED = """
from ctd import tasks
from ctd.kernel import Params, Static, Traced, Var, one_shot


class Item(Params):
    task: Static[tasks.AnyTask] = tasks.Decision()
    x: Traced[float] = 1.0


kernel = one_shot("tried", Item, {"loss": Var()}, lambda static, shared, traced, key: {"loss": traced.x})
"""


def test_items_of_other_tasks_are_no_seeds(tmp_path, monkeypatch):
    """The columns shown by default, which the page has, lack a swept mapping and have its fields."""
    (tmp_path / "tried_kernel.py").write_text(TRIED)
    monkeypatch.syspath_prepend(tmp_path)
    sweep = {"grid": {"task": ["decision", "flipflop"]}, "seeds": 3}
    store, _ = stores.run(tmp_path / "t.zarr", {"kernel": "tried_kernel", "sweep": sweep})
    shown = ask(store, lambda tables: tables["items"].columns())
    assert "task" not in shown
    found, page = best(store, Metric("loss")), bests_of(store, shown, Metric("loss"))[0]
    assert page.seeds == found.seeds
    assert page.seeds.n == 3
    assert page.params["task.name"] in found.params["task"]
    assert not {"nan", ""} & {*page.facts().values()}
    assert "task.name" in sweep_of(store, shown)["parameters"]
    assert overview(store, "loss").title == "loss against task.name"


def test_a_swept_field_that_begins_as_results_of_a_search_do_keeps_its_name(tmp_path, monkeypatch):
    named = TRIED.replace("tried", "ended").replace(
        "class Item(Params):", "class Item(Params):\n    final_x: Traced[float] = 0.0"
    )
    (tmp_path / "ended_kernel.py").write_text(named)
    monkeypatch.syspath_prepend(tmp_path)
    sweep = {"zip": {"x": [1.0, 2.0], "final_x": [0.5, 0.25]}}
    store, _ = stores.run(tmp_path / "t.zarr", {"kernel": "ended_kernel", "sweep": sweep})
    assert best(store, Metric("loss")).params == {"x": 1.0, "final_x": 0.5}


def test_a_seed_is_no_parameter_that_matters(trained, monkeypatch):
    shown = ask(trained, lambda tables: tables["items"].columns())
    found = sweep_of(trained, shown)
    assert found["unmeasured"].endswith(
        "6 items can be compared, and 8 are needed whose results differ."
    )
    monkeypatch.setattr("jobs.report.effects.LEAST_ITEMS", 2)
    found = sweep_of(trained, shown)
    assert {effect["parameter"] for effect in found["effects"]} == {"learning_rate"}
    assert (found["replicates"], found["unmeasured"]) == (["seed"], "")


def test_what_was_not_judged_is_told():
    columns = {
        "item": np.arange(6), "rate": np.linspace(0, 1, 6), "norm": np.array([3, np.nan, 1, np.inf, 0, 2.0]),
        "status": np.array(["done", "done", "done", "done", "failed", "done"]),
    }  # fmt: skip
    [found] = bests_of(finished("toy"), columns, Metric("norm"))
    assert found.facts()["item"] == "2, the best of 3 by norm (less is better)"
    assert found.facts()["not counted"] == "1 failed, 2 with a norm that is not finite"
    columns["norm"][[0, 5]] = 1
    [found] = bests_of(finished("toy"), columns, Metric("norm"))
    assert (found.item, found.equals, found.facts()["item"].partition("; ")[2]) == (0, 3, "3 have this value")  # fmt: skip


CUT = """
from ctd.kernel import Display, Params, Traced, Var, one_shot


class Item(Params):
    x: Traced[float] = 0.0
    part: Traced[int] = 0


def loss(static, shared, traced, key):
    return {"loss": traced.x * traced.part + (1 - traced.x) / 2}


kernel = one_shot("cut", Item, {"loss": Var()}, loss, display=Display(metric="loss", replicates=("part",)))
"""


def test_items_that_differ_in_a_field_that_repeats_are_of_one_setting(tmp_path, monkeypatch):
    """Losses by part: 0.5 of x 0; 0, 1, 2 of x 1, whose best one is luck."""
    (tmp_path / "cut_kernel.py").write_text(CUT)
    monkeypatch.syspath_prepend(tmp_path)
    sweep = {"grid": {"x": [0.0, 1.0], "part": [0, 1, 2]}}
    store, _ = stores.run(tmp_path / "c.zarr", {"kernel": "cut_kernel", "sweep": sweep})
    found = best(store, require_metric(store, "--by"))
    facts = found.facts()
    assert (found.params, found.seeds.n, found.once) == ({"x": 1.0, "part": 0}, 3, False)
    assert facts["3 parts"] == "mean 1, sd 1, 0 to 2"
    assert facts["best mean"] == "0.5, sd 0, of 3 parts with x 0"
    assert sweep_of(store, ask(store, lambda tables: tables["items"].columns()))["replicates"] == ["part"]  # fmt: skip


SCALED = """
from ctd.kernel import Data, Display, Params, Traced, Var, one_shot


class Item(Params):
    data: Data[str] = "a"
    x: Traced[float] = 0.0


def loss(static, shared, traced, key):
    return {"loss": shared * (traced.x + 1)}


kernel = one_shot(
    "scaled", Item, {"loss": Var()}, loss, load=lambda inputs: {"a": 1.0, "b": 10.0}[inputs.data],
    display=Display(metric="loss", measured_on=("data",)),
)
"""
"""The loss on data b is ten times that on data a."""


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """Two data, two values of x; then each of them in a store of its own."""
    folder = tmp_path_factory.mktemp("scaled")
    (folder / "scaled_kernel.py").write_text(SCALED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        grids = {"both": ["a", "b"], "one": ["a"], "other": ["b"]}
        jobs = {
            name: {"kernel": "scaled_kernel", "sweep": {"grid": {"data": data, "x": [1.0, 0.5]}}}
            for name, data in grids.items()
        }
        yield [stores.run(folder / f"{name}.zarr", job)[0] for name, job in jobs.items()]


def test_best_for_each_data(scaled):
    both = scaled[0]
    found = bests(both, require_metric(both, "--by"))
    assert [(one.basis, one.item, one.value) for one in found] == [
        ({"data": "a"}, 1, 1.5), ({"data": "b"}, 3, 15.0),
    ]  # fmt: skip
    assert {one.items.n for one in found} == {2}
    with pytest.raises(JobError) as error:
        StoreTree.from_store(both).best()
    assert "data" in str(error.value)
    assert StoreTree.from_store(both).bests() == found
    assert write_card(Look(both)).best is None
    answers = Content(both).all()["answers"]
    assert [answer["lead"].split(",")[0] for answer in answers] == ["Item 1", "Item 3"]


def test_best_of_stores_by_data(scaled):
    """Stores of other data do not compare, though their losses do."""
    both, one, other = scaled
    collection = StoreCollection([other, both, one])
    found = {
        label: bests(store, Metric("loss"))
        for label, store in zip(collection.labels, collection.stores, strict=True)
    }
    rows = rows_of(found, collection)
    assert [(row.store, row.best.value) for row in rows] == [
        ("other", 15.0), ("both", 15.0), ("both", 1.5), ("one", 1.5),
    ]  # fmt: skip
    assert differing_bases(rows) == {"loss": ["data"]}
    assert write_card(Look(one)).best == 1.5
    page = several([Content(store).all() for store in (other, one)], StoreCollection([other, one]))
    assert [answer["lead"].split(":")[0] for answer in page["answers"]] == ["other", "one"]


def test_a_setting_that_is_better_on_average_is_told(trained):
    rates, seeds = np.repeat([0.01, 0.1, 0.2], 3), np.tile(range(3), 3)
    columns = {
        "item": np.arange(9), "status": np.full(9, "done"), "learning_rate": rates, "seed": seeds,
        "eval_loss": np.array([1.0, 9.0, 8.0, 3.0, 2.0, 4.0, 2.5, np.nan, np.nan]),
    }  # fmt: skip
    facts = bests_of(trained, columns, Metric("eval_loss"))[0].facts()
    assert facts["item"].startswith("0, the best of 7")
    assert facts["best mean"] == "3, sd 1, of 3 seeds with learning_rate 0.1"
    columns["eval_loss"][1:3] = 2.0
    assert "best mean" not in bests_of(trained, columns, Metric("eval_loss"))[0].facts()


def test_of_one_item_a_setting_the_luck_is_told_and_seeds_are_proposed(trained, monkeypatch):
    for part in (best, commands):
        monkeypatch.setattr(sys.modules[part.__module__], "computes_once", lambda store: True)
    found = replace(best(trained, Metric("eval_loss")), seeds=None, ends={"l2": "lower"})
    facts = found.facts()
    assert facts["seeds"] == "one item per setting: the lowest of 6 is partly luck, expect worse"
    assert facts["range"] == "l2 is at the lower end of its range"
    write = shlex.split(found.next["its setting with 10 seeds"])[1]
    again = parse_job(json.loads(write), "again")
    # Item 5 with seed 5 would draw what the sixth trial of a study draws.
    assert again.sweep.grid["seed"].values().tolist() == list(range(6, 16))
    given = load_kernel(again.kernel).Params.model_validate(again.params)
    assert (given.learning_rate, given.seed) == (found.params["learning_rate"], 0)
    assert given.n_batches == stores.SMALL_RNN["n_batches"]


def test_seeds_of_a_kernel_without_the_field_are_of_another_job(tmp_path, monkeypatch):
    for part in (best, commands):
        monkeypatch.setattr(sys.modules[part.__module__], "computes_once", lambda store: True)
    (write,) = [
        text for what, text in best(finished("toy"), Metric("norm")).next.items() if "seeds" in what
    ]
    again = parse_job(json.loads(shlex.split(write)[1]), "again")
    assert (again.seed, again.sweep.seeds) == (finished("toy").job.spec.seed + 1, 10)


def test_last_values_of_a_population_are_no_setting(trained, monkeypatch, tmp_path):
    found = best(stores.copied_run(tmp_path / "p.zarr", POPULATION), Metric("loss"))
    assert found.last == ("rate",)
    assert "last rate" in found.facts()
    assert found.next["its generations, each from the state of its parent"].endswith(
        f"--table search --where 'item == {found.item}'"
    )
    # As if this job, which has no search, had a population.
    monkeypatch.setattr(JobSpec, "has_parents", True)
    found = best(trained, Metric("eval_loss"))
    assert [*found.next][1:] == [
        "its generations, each from the state of its parent",
        "its fixed points",
    ]


def test_an_answer_does_not_propose_itself(trained, monkeypatch):
    proposed = {"another metric": "ctd best x --by steps", "itself": "ctd best x --by eval_loss"}
    monkeypatch.setattr(sys.modules[commands.__module__], "_proposed", lambda *_: proposed)
    assert [*best(trained, Metric("eval_loss")).next][1:] == ["another metric"]


def test_commands_write_jobs_that_are_valid(trained, tmp_path):
    """What is shown is typed into a shell: each job file that it writes is one of the named kernel, about the best item."""
    found = best(trained, Metric("eval_loss"))
    assert list(found.next) == [
        "its trained model as a file (its other results: --results)",
        "its fixed points",
        "train another for longer",
    ]
    for what in list(found.next)[1:]:
        write = found.next[what].partition(" && ")[0]
        subprocess.run(["bash", "-c", write], cwd=tmp_path, check=True)
        assert shlex.split(write)[-1].startswith(f"nets-{found.item}-")
        content = yaml.safe_load((tmp_path / shlex.split(write)[-1]).read_text())
        spec = parse_job(content, what)
        load_kernel(spec.kernel).Params.model_validate(spec.params)
    assert content["params"]["n_batches"] == 2 * stores.SMALL_RNN["n_batches"]
    assert content["params"]["learning_rate"] == found.params["learning_rate"]


LISTED = """
from ctd.kernel import Display, File, Params, Static, Traced, Var, one_shot


class Item(Params):
    tables: File[tuple[str, ...]] = ()
    names: Static[tuple[str, ...]] = ()
    one: File[str] = ""
    seed: Static[int] = 0
    x: Traced[float] = 0.0


def loss(static, shared, traced, key):
    return {"loss": traced.x}


kernel = one_shot("listed", Item, {"loss": Var()}, loss, display=Display(metric="loss"))
"""


@pytest.mark.parametrize("names", [[], ["a long name" * 3] * 9])
def test_next_job_holds_anywhere(tmp_path, monkeypatch, ctd, names):
    """The job names its files in any folder; a long one is no wall of JSON in the terminal."""
    (tmp_path / "listed_kernel.py").write_text(LISTED)
    monkeypatch.syspath_prepend(tmp_path)
    params = {"tables": ["toy.py", "stores.py"], "names": names}
    job = {"kernel": "listed_kernel", "params": params, "sweep": {"grid": {"x": [0.0, 1.0]}}}
    store, _ = stores.run(tmp_path / "l.zarr", job)
    (elsewhere := tmp_path / "else").mkdir()
    step = "its setting with 10 seeds"
    write, _, run = commands(store, 1)[step].partition(" && ")
    monkeypatch.chdir(elsewhere)
    if names:
        assert ctd(*shlex.split(write)[1:])[0] == 0
    else:
        subprocess.run(["bash", "-c", write], check=True)
    assert (len(write) < 3 * 80 + len(store.address), run) == (
        True,
        "ctd run l-1-setting-with-10-seeds.yaml",
    )
    given = yaml.safe_load((elsewhere / run.split()[-1]).read_text())["params"]
    assert given["tables"] == [f"{stores.BASE}/toy.py", f"{stores.BASE}/stores.py"]
    assert (given.get("names", []), "one" in given) == (names, False)


def test_ctd_best(trained, ctd):
    code, out, err = ctd("best", trained.address)
    assert (code, err) == (0, "")
    found = json.loads(ctd("best", trained.address, "--json")[1])
    assert out.startswith(
        f"item           {found['item']}, the best of 6 by eval_loss (less is better)"
    )
    assert "3 seeds        mean" in out
    in_python = best(trained, Metric("eval_loss"))
    assert f"{in_python}\n" == out
    assert f"{in_python!r}\n\n#" == out[: out.index("#") + 1], "without the commands"
    assert f"ctd export {trained.address} {found['item']} nets-{found['item']}.h5" in out
    code, out, err = ctd("best", trained.address, finished("toy").address)
    head, row = (line.split() for line in out.splitlines())
    assert (code, head) == (0, ["store", "item", "eval_loss", "learning_rate", "seed"])
    assert row[:3] == ["nets", str(found["item"]), f"{found['value']:.4g}"]
    assert err.startswith("left out: toy: kernel toy names no metric")
    code, out, _ = ctd("best", trained.address, finished("toy").address, "--by", "norm", "--json")
    assert [(one["store"], one["metric"]) for one in json.loads(out)] == [("toy", "norm")]
    assert ctd("best", trained.address, "--by", "eval_los") == (
        2, "", "error: --by eval_los: the store has no such result; did you mean 'eval_loss'?\n"
    )  # fmt: skip


# --- settings ------------------------------------------------------------------------------------

RATE = {"loguniform": [1e-4, 1e-1]}
DRAWN = {"random": {"learning_rate": RATE}, "samples": 4}
SEARCH = {"metric": "eval_loss", "params": {"learning_rate": RATE}}
OPTUNA = SEARCH | {"method": "optuna", "trials": 4}
MOVING = SEARCH | {"method": "population", "every": 1, "generations": 2}


@pytest.mark.parametrize(
    ("fields", "content", "once"),
    [
        ({"seed": ""}, {"sweep": DRAWN}, True),
        ({"seed": ""}, {"search": OPTUNA}, True),
        ({}, {"sweep": DRAWN}, False),
        ({"g": ""}, {"search": OPTUNA}, True),
        ({"g": ""}, {"sweep": DRAWN | {"seeds": 3}}, False),
        ({"seed": ""}, {"sweep": DRAWN | {"seeds": 3}}, False),
        ({"seed": ""}, {"sweep": [DRAWN, {"grid": {"seed": [1, 2]}}]}, False),
        ({"seed": ""}, {"sweep": DRAWN, "search": MOVING}, False),
    ],
)
def test_settings_that_are_computed_once(fields, content, once):
    spec = parse_job({"kernel": "train_rnn", **content}, "job")
    # A kernel with the field `g`, as `esn` has it, draws without a field `seed`.
    description = Description(dims={}, fields=fields, draws="g" in fields)
    store = SimpleNamespace(job=SimpleNamespace(spec=spec), description=description)
    assert computes_once(store) == once


@pytest.mark.parametrize(
    ("content", "value", "found"),
    [
        ({"sweep": DRAWN}, 1.05e-4, "lower"),
        ({"search": OPTUNA}, 0.095, "upper"),
        ({"sweep": {"seeds": 3}, "search": MOVING}, 1e-4, "lower"),
        ({"search": OPTUNA}, 1.1e-4, None),  # 1.4 % of the logarithm
        ({"sweep": {"grid": {"learning_rate": [1e-4, 1e-1]}}}, 1e-4, None),
        ({"sweep": {"grid": {"learning_rate": [1e-4, 1e-1, 1e-2]}}}, 1e-4, "lower"),
        ({"sweep": {"grid": {"learning_rate": {"geomspace": [1e-4, 1, 9]}}}}, 1.0, "upper"),
        ({"sweep": {"grid": {"learning_rate": {"geomspace": [1e-4, 1, 9]}}}}, 3.1e-4, None),
        ({"sweep": {"grid": {"learning_rate": [0, 0.1, 0.2]}}}, 0.0, None),
    ],
)
def test_values_at_an_end_of_their_range(content, value, found):
    spec = parse_job({"kernel": "train_rnn", **content}, "job")
    expected = {} if found is None else {"learning_rate": found}
    assert ends(spec, {"learning_rate": value, "seed": 3}) == expected


def test_each_sweep_of_a_list_has_its_own_ranges():
    """That of the other one may have no logarithm of the value."""
    parts = [{"grid": {"rate": [-0.5]}, "seeds": 2}, {"random": {"rate": {"loguniform": [0.01, 0.9]}}, "samples": 3}]  # fmt: skip
    spec = parse_job({"kernel": "toy", "sweep": parts}, "job")
    assert ends(spec, {"rate": -0.5}, item=1) == {}
    assert ends(spec, {"rate": 0.01}, item=2) == {"rate": "lower"}
