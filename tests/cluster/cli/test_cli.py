"""The command line, with the serial executor: what it prints, writes and refuses."""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import page_stores
import pytest
import xarray as xr
import yaml
from messages import usage_error
from places import ROOT
from search_jobs import HALVING
from stores import TOY, copied_run, run

from cluster.cli.main import _for_users
from cluster.cli.outcome import other_outcomes, show_results, show_summary
from ctd.catalogue import load_kernel
from ctd.cells import Scales, get_cell
from ctd.data import write_hdf5
from ctd.kernel import Outcome
from jobs.gather.gather import gather
from jobs.plan.layout import Shard
from jobs.store.marker import Marker
from jobs.store.store import Store

HERE = Path(__file__).parent


POINTS = """
kernel: fixed_points
params: {weights: net.h5, n_trials: 4, q_tol: 1e-20}
sweep: {grid: {candidate: {range: 12}}}
run: {microbatch: 4, slots: 4}
"""


@cache
def weights():
    """A small GRU's weights."""
    init = lambda key: get_cell("gru").init(key, 5, 1, 1, Scales(0.5))
    shapes, rng = jax.eval_shape(init, jax.random.key(0)), np.random.default_rng(0)
    return {name: rng.normal(size=shape.shape) for name, shape in shapes.items()}


@pytest.fixture
def network(tmp_path):
    """Those weights in a file; returns them."""
    write_hdf5(tmp_path / "net.h5", weights())
    return weights()


def test_run_status_query_gather(ctd, job_file):
    path = job_file(TOY)
    code, out, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    assert "best_norm" in out
    assert f"store   {path.with_suffix('.zarr')}" in out
    assert "6/6 items" in err
    store = path.with_suffix(".zarr")
    state = json.loads(ctd("status", store, "--json")[1])
    assert (state["items_done"], state["complete"]) == (6, True)
    assert "items        done 6\n" in ctd("status", store)[1]
    rows = json.loads(ctd("query", store, "--where", "rate > 0.25", "--sort", "-rate", "--json")[1])
    assert [row["rate"] for row in rows] == [0.5, 0.4, pytest.approx(0.3)]
    code, out, err = ctd("gather", store, "--set", "top=1")
    assert code == 0, err
    assert xr.open_datatree(store, engine="zarr")["gathered/0"].sizes["place"] == 1
    code, out, err = ctd("query", store, "--to", "rows.csv")
    assert (code, len(Path("rows.csv").read_text().splitlines())) == (0, 7), err


@pytest.mark.usefixtures("no_pictures")
def test_run_again_and_changed(ctd, job_file, monkeypatch):
    """The axes of the data are told by the run that reads them."""
    monkeypatch.setattr("jobs.run.prepare.data_told", lambda groups: ["x: trial 4, time 3"])
    path = job_file(TOY)
    for told in (True, False):
        code, _, err = ctd("run", path, "--executor", "serial")
        assert (code, "data  x: trial 4, time 3\n" in err) == (0, told)
    code, _, err = ctd("run", path, "--executor", "serial", "--set", "params.n_steps=6")
    assert code == 2
    assert "params.n_steps: 5 in the store, 6 in the job" in err


@pytest.mark.usefixtures("no_pictures")
def test_run_takes_settings_of_reductions(ctd, job_file):
    """Where nothing is left to compute, too; those that the job does not give stay; faults change nothing."""
    run = ("run", path := job_file(TOY), "--executor", "serial")
    store = path.with_suffix(".zarr")
    places = lambda: xr.open_datatree(store, engine="zarr")["gathered/0"].sizes["place"]
    for words, n in ((), 3), (["gather.top=2"], 2), ([], 2):
        code, _, err = ctd(*run, *words)
        assert (code, places()) == (0, n), err
    for wrong, said in (
        ("gather.tpo=1", "job.yaml: gather: tpo: unknown field; did you mean 'top'?"),
        ("gather.reductions=[{name: best, by: nrm}]", "unknown column 'nrm'; did you mean 'norm'?"),
    ):
        code, _, err = ctd(*run, wrong)
        assert (code, said in err) == (2, True), err
    assert Store.open(str(store)).job.spec.gather == {"top": 2}


@pytest.mark.usefixtures("no_pictures")
def test_run_takes_settings_of_the_run(ctd, job_file):
    """But for those of the layout, which it says."""
    run = ("run", path := job_file(TOY), "--executor", "serial")
    settings = lambda: Store.open(str(path.with_suffix(".zarr"))).job.spec.run
    assert (ctd(*run)[0], settings().retries) == (0, 2)
    code, _, err = ctd(*run, "run.retries=5", "run.shard_items=7")
    assert (code, settings().retries, settings().shard_items) == (0, 5, None)
    assert "run.shard_items: 7 given" in err
    assert (ctd(*run)[0], settings().retries) == (0, 2)


@pytest.mark.usefixtures("no_pictures")
def test_run_takes_overrides_among_the_files(ctd, job_file):
    """The store is that of --set; --trust beside them changes no other word."""
    path = job_file(TOY)
    code, _, err = ctd("run", "seed=3", path, "params.n=6", "--executor", "serial", "--trust")
    assert code == 0, err
    again = ctd(
        "run", path, "--set", "seed=3", "--set", "params.n=6", "--executor", "serial", "--trust"
    )
    assert again[0] == 0, again[2]
    assert ctd("run", path, "--executor", "serial")[0] == 2


def test_run_json_is_json_alone(ctd, job_file):
    """Its pictures have the whole name of a store without an ending."""
    run = ["run", job_file(TOY), "--executor", "serial", "--json", "--store"]
    found = json.loads(ctd(*run, "s0.1")[1])
    assert (found["items_done"], found["figures"]) == (6, ["s0.1.png"])
    assert Path("s0.1.png").exists()


RANKED = """
from dataclasses import replace

import numpy as np
import toy
from ctd.kernel import Display, Var


def reduce(inputs, shared, columns, results, options):
    found = toy.reduce(inputs, shared, columns, results, options)
    if inputs.n == 3:
        found = {name: values[:0] for name, values in found.items()}
    rates = columns["rate"][found["best_item"] % 6]
    return found | {"rate": rates, "said": np.full(len(rates), "a"), "gap_width": np.zeros(0)}


kernel = replace(
    toy.kernel,
    name="ranked",
    reduce=reduce,
    reduced=toy.kernel.reduced
    | {"rate": Var(("place",), "1", "their rates"), "said": Var(("place",), usual="a"), "gap_width": Var(("gap",))},
    display=Display(summary=("gap_width", "best_norm", "said")),
)
"""


@pytest.mark.usefixtures("no_pictures")
def test_last_table_names_the_points_and_itself(ctd, job_file, tmp_path, capsys, monkeypatch):
    """Swept fields that the kernel's `summary` does not list are columns too: without them all rows look alike. Its first
    table has no rows."""
    (tmp_path / "ranked.py").write_text(RANKED)
    path = job_file(TOY.replace("toy", "ranked") + "gather: {top: 6}\n")
    code, _, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    store = Store.open(str(path.with_suffix(".zarr")))
    show_summary(store)
    name, heads, *rows = capsys.readouterr().out.splitlines()
    assert (name.strip(), heads.split()) == ("place", ["place", "rate", "best_norm"])
    assert {row.split()[1] for row in rows} == {"0", "0.1", "0.2", "0.3", "0.4", "0.5"}
    reduced = store.description.reduced
    other = reduced | {"said": reduced["said"]._replace(usual="b")}
    monkeypatch.setitem(
        vars(store), "description", store.description.model_copy(update={"reduced": other})
    )
    show_summary(store)
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "said"
    ids = store.description.model_copy(update={"summary": ("best_item",)})
    monkeypatch.setitem(vars(store), "description", ids)
    show_summary(store)
    assert capsys.readouterr().out.strip().startswith("their items (table place)")
    plain = store.description.model_copy(update={"reduced": {}, "summary": ("norm",)})
    monkeypatch.setitem(vars(store), "description", plain)
    show_summary(store)
    heads, *rows = capsys.readouterr().out.splitlines()
    assert (heads.split(), len(rows)) == (["item", "rate", "norm"], 6)


def test_a_summary_without_the_ids_of_its_items_has_not_their_fields(tmp_path, capsys, monkeypatch):
    """Rows may be about groups, and name an item beside."""
    store = copied_run(tmp_path / "s.zarr")
    gather(store)
    for summary, heads in (
        (("best_norm",), ["group", "place", "n", "best_norm"]),
        (
            ("best_norm", "best_item"),
            ["group", "place", "n", "push", "rate", "best_norm", "best_item"],
        ),
    ):
        found = store.description.model_copy(update={"summary": summary})
        monkeypatch.setitem(vars(store), "description", found)
        show_summary(store)
        shown = capsys.readouterr().out.splitlines()[1].split()
        assert sorted(shown) == sorted(heads)


@pytest.mark.usefixtures("no_pictures")
def test_last_words_name_groups_without_rows(ctd, job_file, tmp_path):
    (tmp_path / "ranked.py").write_text(RANKED)
    path = job_file(TOY.replace("toy", "ranked").replace("grid: {", "grid: {n: [3, 4], "))
    code, out, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    said = "table place has no rows of group 0: 6 items ended as stopped (ran its steps)"
    assert out.splitlines()[-2] == said
    assert "no picture: the kernel's plots have nothing to show" in err


def test_warnings_of_data_are_told_once():
    told = _for_users(lambda *_: "other")
    shown = [told("a", UserWarning), told("a", UserWarning), told("b", UserWarning)]
    assert shown == ["warning: a\n", "", "warning: b\n"]
    assert [told("a", RuntimeWarning) for _ in range(2)] == ["other"] * 2


def test_last_words_say_what_became_of_the_few():
    ends = Outcome("fixed", "found"), Outcome("limit", "gave up"), Outcome("bad", "no", failed=True)
    marker = lambda n, outcomes: Marker(shard=Shard(0, 0, 0, n), outcomes=outcomes)
    markers = [marker(10, {"fixed": 9, "bad": 1}), marker(6, {"limit": 2, "fixed": 4})]
    store = SimpleNamespace(
        committed=SimpleNamespace(markers=lambda: markers),
        description=SimpleNamespace(outcomes=ends),
        job=SimpleNamespace(
            spec=SimpleNamespace(kernel="esn", search=None),
            plan=SimpleNamespace(n_items=76, n_shards=4),
        ),
    )
    assert other_outcomes(store) == ["2 limit: gave up", "1 bad: no"]
    store.description.outcomes = [outcome._replace(reason="") for outcome in ends]
    assert other_outcomes(store) == ["13 fixed, 2 limit, 1 bad"], "which may all be the answer"
    store.description.outcomes = ends
    markers.append(marker(40, {"limit": 40}))
    assert other_outcomes(store) == ["1 bad: no"]
    markers.append(marker(20, {"bad": 20}))
    assert other_outcomes(store) == [], "a warning tells of many"


@pytest.mark.usefixtures("no_pictures")
def test_plan_writes_nothing_and_learns_the_time(ctd, job_file, monkeypatch):
    monkeypatch.setattr("cluster.cli.display.SLOW_S", 0.0)
    path = job_file(TOY)
    assert "planning" not in ctd("plan", path)[2]  # it is no terminal
    before = json.loads(ctd("plan", path, "--json")[1])
    assert json.loads(ctd("plan", path, "sweep.seeds=2", "--json")[1])["items"] == 12
    assert (before["items"], before["groups"], before["estimated_s"]) == (6, 1, None)
    assert not path.with_suffix(".zarr").exists()
    assert ctd("run", path, "--executor", "serial")[0] == 0
    after = json.loads(ctd("plan", path, "--json")[1])
    assert (after["items"], after["left"], after["estimated_s"]) == (6, 0, 0)
    store = ["--store", path.with_suffix(".zarr")]
    other = json.loads(ctd("plan", path, "sweep.seeds=2", *store, "--json")[1])
    assert (other["estimated_s"], "left" in other) == (None, False)
    assert "holds another job" in other["warnings"]
    assert "sweep.seeds: 1 in the store, 2 in the job" in other["warnings"]
    assert "result_MB" in ctd("plan", path)[1]
    assert after["planned_for"] == "serial, 1 worker"
    assert re.search("planned_for +ray, 3 workers", ctd("plan", path, "--workers", "3")[1])


def test_plan_takes_several_files_as_run_does(ctd, job_file, tmp_path):
    first, second = job_file(TOY), tmp_path / "second.yaml"
    second.write_text(TOY)
    code, out, _ = ctd("plan", first, second, "sweep.seeds=2", "--json")
    assert (code, out.count('"planned_for"')) == (0, 2)


def test_kernels_new_schema(ctd, job_file):
    listed = [line.split()[0] for line in ctd("kernels")[1].splitlines() if line[0] != " "]
    assert listed == [
        "curbd", "esn", "esn.nvar", "fixed_points", "fixed_points.ablation", "fixed_points.connections",
        "fixed_points.continuation", "fixed_points.exponents", "fixed_points.limit_cycles", "fixed_points.trials", "full_force",
        "latent_circuit", "lfads", "lfads.posterior", "mechanisms", "mechanisms.evidence", "reconstruct", "similarity", "spikes", "train_rnn",
    ]  # fmt: skip
    assert [*json.loads(ctd("kernels", "--json")[1])] == listed
    code, text, err = ctd("new", "fixed_points")
    assert code == 0, err
    assert "# weights:" in text
    # The starter is a job as it stands, but for what it must be told.
    code, _, err = ctd("plan", job_file(text))
    assert (code, "weights" in err) == (2, True)
    assert ctd("plan", job_file(ctd("new", "toy")[1]))[0] == 0
    assert "params" in json.loads(ctd("schema", "fixed_points")[1])["properties"]
    assert json.loads(ctd("schema")[1])["title"] == "JobSpec"


@pytest.mark.parametrize("name", ["esn", "fixed_points", "lfads", "spikes", "train_rnn", "toy"])
def test_kernels_tells_what_one_computes(ctd, name):
    code, out, err = ctd("kernels", name, "--all")
    assert code == 0, err
    kernel = load_kernel(name)
    short = ctd("kernels", name)[1]
    assert len(short.splitlines()) <= 50
    words = re.findall(r"[\w.]+", short)
    singles = [result for result, var in kernel.dims.items() if not var.axes]
    assert {*kernel.Params.model_fields, *singles} <= {*words}
    found = json.loads(ctd("kernels", name, "--json")[1])
    for title, names in (("results/G", kernel.dims), ("gathered/G", kernel.reduced)):
        assert [row["name"] for row in found.get(title, [])] == list(names)
        assert all(var.long_name in out for var in names.values())
    ends = [row["name"] for row in found.get("outcome", [])]
    assert ends == [end.name for end in kernel.outcomes]


def test_kernels_of_a_module_without_docstring_begins_with_the_fields(ctd, tmp_path):
    (tmp_path / "undocumented.py").write_text("from toy import kernel\n")
    code, out, err = ctd("kernels", "undocumented")
    assert code == 0, err
    assert out.startswith("compiled in")


def test_fixed_points_from_file_to_figure(ctd, job_file, tmp_path):
    """By the programs of another job of as many slots; the points: tests/ctd/fixed_points/."""
    page_stores.network(tmp_path)
    path = job_file(json.dumps(page_stores.JOBS["fixed_points"]))
    code, out, err = ctd("run", path, "--executor", "serial")
    assert code == 0, err
    assert "leading" in out
    assert path.with_suffix(".png").stat().st_size > 10_000
    found = xr.open_datatree(path.with_suffix(".zarr"), engine="zarr")["results/0"]
    assert set(np.unique(found.outcome)) <= {0, 1}


def broken(name, value):
    """A change to the network's file: an array without a value goes."""
    kept = lambda arrays: {key: array for key, array in arrays.items() if key != name}
    return lambda arrays: kept(arrays) | ({name: value(arrays[name])} if value else {})


def nan(a):
    return np.where(np.arange(a.size).reshape(a.shape) == 0, np.nan, a)


BAD_NETWORK = [
    (broken("wRUHX", None), "lacks wRUHX"),
    (broken("wRUHX", lambda a: a[:, :-1]), "has the shape"),
    (broken("bC", nan), "bC has 1 NaN"),
    (lambda arrays: {**arrays, "wX": arrays["bC"]}, "does not know wX"),
]


@pytest.mark.parametrize(("change", "said"), BAD_NETWORK)
def test_run_refuses_network(ctd, job_file, network, tmp_path, change, said):
    write_hdf5(tmp_path / "net.h5", change(network))
    path = job_file(POINTS)
    usage_error(ctd("run", path, "--executor", "serial"), said, "net.h5")
    assert not path.with_suffix(".zarr").exists()


def test_version_and_starter_choices(ctd):
    assert ctd("--version")[1] == f"ctd {version('ctd-jobs')}\n"
    text = ctd("new", "esn")[1]
    assert (
        "data: chaotic-feedback, chaotic, mackey-glass-17, mackey-glass-30, lorenz, narma10, sines, file: "
        in text
    )
    assert (
        "static: integrator, decision, contextual_integrator, flipflop"
        in ctd("new", "train_rnn")[1]
    )


@pytest.fixture(scope="module")
def toy_store(tmp_path_factory):
    """The finished store of a toy job."""
    path = tmp_path_factory.mktemp("store") / "some.zarr"
    run(path, yaml.safe_load(TOY))
    return path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "job.yaml", "--base", "nowhere"), "--base nowhere: there is no such folder"),
        (
            ("run", "job.yaml", "--base", "file:///nowhere"),
            "file:///nowhere: there is no such folder",
        ),
        (("run", "job.yaml", "--store", "job.yaml"), "job.yaml: is a file; a store is a folder"),
        (("status", "job.yaml"), "job.yaml: is a file; a store is a folder"),
        (("query", "some.yaml"), "some.yaml: is a file; give one of its stores: some.zarr"),
        (("run", "some.zarr"), "some.zarr: is a store; give a job file, or `ctd resume some.zarr`"),
        (
            ("run", "jobb"),
            "jobb: cannot be read (No such file or directory); did you mean job.yaml?",
        ),
        (("run", "/dev/null"), "/dev/null: an empty file given; expected a mapping"),
        (
            ("export", "some.zarr", "0", "x.mat"),
            "x.mat: cannot be written with this ending; give one of .h5",
        ),
        (("export", "some.zarr", "0", "x.h5"), "kernel toy stores no weights in this job"),
        (("new", "../lab/decay"), "the dotted path of a module expected, such as 'decay'"),
    ],
)
def test_what_is_given_in_the_wrong_place_is_told(ctd, job_file, tmp_path, toy_store, args, said):
    job_file(TOY)
    (tmp_path / "some.zarr").symlink_to(toy_store)
    (tmp_path / "some.yaml").touch()
    usage_error(ctd(*args), said)


BAD_JOBS = [
    ("params.n_trails=3", ["job.yaml: params: n_trails: unknown field; did you mean 'n_trials'?"]),
    ("prams.n=3", ["job.yaml: prams: unknown field; did you mean 'params'?"]),
    ("params.n_trials=many", ["params: n_trials", "must be a whole number", "'many'"]),
    ("params.q_tol=0", ["params: q_tol", "greater than 0"]),
    ("params.q_tol=-1e-3", ["params: q_tol", "greater than 0"]),
    ("params.cell=gruu", ["params: cell", "'gru'"]),
    ("params.method=newton", ["params: method", "'lm', 'adam' or 'exact'"]),
    ("params.weights=none.h5", ["params: weights", "none.h5: there is no such file"]),
    ("params.weights=nett.h5", ["nett.h5: there is no such file; did you mean ", "net.h5?"]),
    ("params.weights=job.yaml", ["job.yaml", "expected .h5"]),
    ("params.x=[1.0, 2.0]", ["job.yaml: params: x: 2 numbers given, but the network has 1 input"]),
    ("kernel=fixed_point", ["kernel: 'fixed_point' is unknown; did you mean 'fixed_points'?"]),
    ("kernel=json", ["kernel: 'json': ", "defines no `kernel`"]),
    ("sweep.grid.candidate.range=0", ["sweep: 0 items"]),
    ("sweep.grid.candidate.range=9000000000", ["9,000,000,000 items"]),
    ("sweep.seeds=0", ["sweep.seeds", "greater than"]),
    ("gather.unique_toll=1", ["unique_toll: unknown field; did you mean 'unique_tol'?"]),
    ("gather.unique_tol=-1", ["unique_tol", "greater than"]),
    ("run.memory_gb=.inf", ["run.memory_gb: must be a finite number"]),
    ("run.slots=0", ["run.slots", "greater than 0"]),
]


FAULTY = """
kernel: fixed_points
nme: x
params: {weights: net.h5, q_toll: 1, n_trials: 0}
sweep: {grid: {candidat: [1, 2], dt: [a, b]}}
gather: {unique_toll: 1}
run: {retry: 1}
"""
FAULTS = [
    (True, "nme: unknown field; did you mean 'name'?"),
    (True, "run.retry: unknown field; did you mean 'retries'?"),
    (False, "params: q_toll: unknown field; did you mean 'q_tol'?"),
    (False, "params: n_trials: must be greater than 0 (given: 0)"),
    (False, "sweep: unknown field 'candidat'; did you mean 'candidate'?"),
    (False, "sweep: dt: must be a number (given: 'a')"),
    (False, "gather: unique_toll: unknown field; did you mean 'unique_tol'?"),
]  # fmt: skip


def test_all_faults_of_a_job_file_are_told_at_once(ctd, job_file, network):
    """Those of its form and of its kernel's fields together; and a form that is right changes nothing of the others."""
    code, _, err = ctd("plan", job_file(FAULTY))
    assert (code, len(err.splitlines())) == (2, len(FAULTS))
    assert all(f"job.yaml: {said}" in err for _, said in FAULTS), err
    fine = FAULTY.replace("nme: x\n", "").replace("run: {retry: 1}\n", "")
    code, _, err = ctd("plan", job_file(fine))
    assert (code, len(err.splitlines())) == (2, len(FAULTS) - 2)
    assert all(f"job.yaml: {said}" in err for form, said in FAULTS if not form), err


@pytest.mark.parametrize(("override", "said"), BAD_JOBS)
def test_run_refuses_job(ctd, job_file, network, override, said):
    path = job_file(POINTS)
    usage_error(ctd("run", path, "--executor", "serial", "--set", override), *said)
    assert not path.with_suffix(".zarr").exists()


def test_plan_names_a_misspelt_kernel(ctd, job_file):
    wrong = job_file(POINTS.replace("kernel", "kernal"))
    usage_error(ctd("plan", wrong), "kernal: unknown field; did you mean 'kernel'?")


def test_run_refuses_memory_that_no_item_fits_in(ctd, job_file):
    """Of a kernel that compiles soon: what an item takes is asked of its program."""
    tight = ("--set", "params.n=1000", "--set", "run.memory_gb=1e-6")
    path = job_file(TOY)
    usage_error(ctd("run", path, "--executor", "serial", *tight), "more than the 1 kB of a worker")
    assert not path.with_suffix(".zarr").exists()


def test_run_refuses_candidates_with_nan(ctd, job_file, network, tmp_path):
    write_hdf5(tmp_path / "states.h5", {"hiddens": np.full((3, 5), np.nan)})
    path = job_file(POINTS)
    usage_error(
        ctd("run", path, "--executor", "serial", "--set", "params.candidates=states.h5"),
        "states.h5", "NaN",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("/proc/none/x.zarr", "/proc/none/x.zarr: cannot be written"),
        ("net.h5", "net.h5"),
        (".", ".: is a folder of other files; give a store, or for a new one a path that does not"),
    ],
)
def test_run_refuses_store_path(ctd, job_file, network, store, said):
    """Of a kernel that compiles soon: it is planned before."""
    usage_error(ctd("run", job_file(TOY), "--executor", "serial", "--store", store), said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["status", "none.zarr"], "none.zarr: no such store"),
        (["query", "loss < 1"], "loss < 1: no such store; give a condition as --where"),
        (["query", "."], "no store lies in this folder; `ctd ls` lists stores"),
        (["run", "none.yaml"], "none.yaml: cannot be read"),
        (["plan", "."], ".: is a folder; give a file in YAML or JSON"),
        (["stop", "x.zarr"], "No such command 'stop'. Type ctd cancel STORE"),
        (["rm", "x.zarr"], "No such command 'rm'. Type rm -r STORE"),
        (["list"], "No such command 'list'. Did you mean 'ls'?"),
        (["schema", "nope"], "kernel: 'nope' is unknown"),
        (["run", "job.yaml", "--frobnicate"], "frobnicate"),
        (["run", "job.yaml", "--workers", "4"], "run.workers=4"),
        (["run", "job.yaml", "--executor", "seriall"], "did you mean"),
        (["run", "job.yaml", "--seed=4"], "seed=4"),
        (["run", "job.yaml", "--seed"], "seed=VALUE"),
        (["run", "job.yaml", "--seed", "4"], "job file: --set seed=4"),
        (["resume", "x.zarr", "--workers", "4"], "job file; give it to"),
        (["logs", "x.zarr", "--item", "7", "--shard", "2"], "--shard 2: not with --item 7"),
        (
            ["plan", "stages.fine-tune.params.rate=3"],
            "stages.fine-tune.params.rate=3: overrides fields of a job file",
        ),
        (["submit", "a.yaml", "b.yaml"], "a.yaml, b.yaml: 2 job files given"),
        (["submit", "seed=4"], "seed=4: overrides fields of a job file; give the file too"),
        (["plan", f"sweep.grid.n={list(range(99))}"], "overrides fields of a job file; give"),
        (["status", "a" * 300], "the name is too long; file systems take 255 bytes"),
        (["run", "seed=4"], "seed=4: overrides fields of a job file; give the file too"),
    ],
)
def test_commands_refuse(ctd, args, said):
    code, _, err = ctd(*args)
    assert code == 2
    assert said in err


LEAVES = """
import atexit, sys, warnings
from cluster.cli import main

class Torn:
    def __del__(self):
        print("torn down")

kept = Torn()

def ends():
    atexit.register(print, "handled")
    warnings.warn("few trials")
    {end}

main.main = ends
main.command()
"""


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(75)", 75), ("pass", 0), ("sys.exit('no')", 1), ("1 / 0", 1)]
)
def test_process_ends_with_its_code_before_python_is_torn_down(end, code):
    """Exit handlers run. A thread of obstore would not survive the rest, and take the process with it. Warnings about data are their
    text alone."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES.format(end=end)], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "handled\n"), done.stderr
    assert done.stderr.startswith("warning: few trials\n")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("n_stepz: 5", "params: n_stepz: unknown field; did you mean 'n_steps'?"),
        ("n: 1001", "params: n: must be less than or equal to 1000"),
    ],
)
def test_faults_of_fields_are_told_before_ray_starts(ctd, job_file, params, said):
    """Ray takes 15 s to start on a laptop, and a misspelt field waited for it."""
    path = job_file(f"kernel: toy\nparams: {{{params}}}\nsweep: {{seeds: 2}}\n")
    code, out, err = ctd("run", path, "--executor", "ray")
    assert (code, out) == (2, "")
    assert said in err
    assert "starting Ray" not in err


def test_a_search_ends_with_its_best_by_its_own_metric(tmp_path, capsys):
    store = copied_run(tmp_path / "h.zarr", HALVING)
    show_results(store)
    title, head, row, best, following = capsys.readouterr().out.splitlines()
    assert (title, head.split()) == ("items, the best by loss first", ["item", "rate", "loss"])
    item, _, loss = row.split()
    assert best == f"best    item {item}, loss {loss}"
    assert following == f"next    ctd best {store.address}"
