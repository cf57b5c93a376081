"""The command line, with the serial executor: what it prints, writes and refuses."""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import page_stores
import pytest
import xarray as xr
import yaml
from messages import usage_error
from places import ROOT
from stores import TOY, run

from cluster.cli.main import _for_users
from ctd.cells import Scales, get_cell
from ctd.data import write_hdf5
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


def test_warnings_of_data_are_told_once():
    told = _for_users(lambda *_: "other")
    shown = [told("a", UserWarning), told("a", UserWarning), told("b", UserWarning)]
    assert shown == ["warning: a\n", "", "warning: b\n"]
    assert [told("a", RuntimeWarning) for _ in range(2)] == ["other"] * 2


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


@pytest.mark.parametrize(
    "change",
    [
        broken("wRUHX", None),
        broken("wRUHX", lambda a: a[:, :-1]),
        broken("bC", nan),
        lambda arrays: {**arrays, "wX": arrays["bC"]},
    ],
    ids=["lacks", "shape", "nan", "unknown"],
)
def test_run_refuses_network(ctd, job_file, network, tmp_path, change):
    write_hdf5(tmp_path / "net.h5", change(network))
    path = job_file(POINTS)
    usage_error(ctd("run", path, "--executor", "serial"))
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
    "args",
    [
        ("run", "job.yaml", "--base", "nowhere"),
        ("run", "job.yaml", "--base", "file:///nowhere"),
        ("run", "job.yaml", "--store", "job.yaml"),
        ("status", "job.yaml"),
        ("query", "some.yaml"),
        ("run", "some.zarr"),
        ("run", "jobb"),
        ("run", "/dev/null"),
        ("export", "some.zarr", "0", "x.mat"),
        ("export", "some.zarr", "0", "x.h5"),
        ("new", "../lab/decay"),
    ],
    ids=" ".join,
)
def test_arguments_in_the_wrong_place(ctd, job_file, tmp_path, toy_store, args):
    job_file(TOY)
    (tmp_path / "some.zarr").symlink_to(toy_store)
    (tmp_path / "some.yaml").touch()
    usage_error(ctd(*args))


BAD_JOBS = [
    "params.n_trails=3",
    "prams.n=3",
    "params.n_trials=many",
    "params.q_tol=0",
    "params.q_tol=-1e-3",
    "params.cell=gruu",
    "params.method=newton",
    "params.weights=none.h5",
    "params.weights=nett.h5",
    "params.weights=job.yaml",
    "params.x=[1.0, 2.0]",
    "kernel=fixed_point",
    "kernel=json",
    "sweep.grid.candidate.range=0",
    "sweep.grid.candidate.range=9000000000",
    "sweep.seeds=0",
    "gather.unique_toll=1",
    "gather.unique_tol=-1",
    "run.memory_gb=.inf",
    "run.slots=0",
]


FAULTY = """
kernel: fixed_points
nme: x
params: {weights: net.h5, q_toll: 1, n_trials: 0}
sweep: {grid: {candidat: [1, 2], dt: [a, b]}}
gather: {unique_toll: 1}
run: {retry: 1}
"""


def test_all_faults_of_a_job_file_are_told_at_once(ctd, job_file, network):
    """Those of its form and of its kernel's fields together; and a form that is right changes nothing of the others."""
    fine = FAULTY.replace("nme: x\n", "").replace("run: {retry: 1}\n", "")
    for text in (FAULTY, fine):
        usage_error(ctd("plan", job_file(text)))


@pytest.mark.parametrize("override", BAD_JOBS)
def test_run_refuses_job(ctd, job_file, network, override):
    path = job_file(POINTS)
    usage_error(ctd("run", path, "--executor", "serial", "--set", override))
    assert not path.with_suffix(".zarr").exists()


def test_plan_names_a_misspelt_kernel(ctd, job_file):
    wrong = job_file(POINTS.replace("kernel", "kernal"))
    usage_error(ctd("plan", wrong))


def test_run_refuses_memory_that_no_item_fits_in(ctd, job_file):
    """Of a kernel that compiles soon: what an item takes is asked of its program."""
    tight = ("--set", "params.n=1000", "--set", "run.memory_gb=1e-6")
    path = job_file(TOY)
    usage_error(ctd("run", path, "--executor", "serial", *tight), "more than the 1 kB of a worker")
    assert not path.with_suffix(".zarr").exists()


def test_run_refuses_candidates_with_nan(ctd, job_file, network, tmp_path):
    write_hdf5(tmp_path / "states.h5", {"hiddens": np.full((3, 5), np.nan)})
    path = job_file(POINTS)
    usage_error(ctd("run", path, "--executor", "serial", "params.candidates=states.h5"))


@pytest.mark.parametrize("store", ["/proc/none/x.zarr", "net.h5", "."])
def test_run_refuses_store_path(ctd, job_file, network, store):
    """Of a kernel that compiles soon: it is planned before."""
    usage_error(ctd("run", job_file(TOY), "--executor", "serial", "--store", store))


@pytest.mark.parametrize(
    "words",
    [
        "status none.zarr",
        "query 'loss < 1'",
        "query .",
        "run none.yaml",
        "plan .",
        "stop x.zarr",
        "rm x.zarr",
        "list",
        "schema nope",
        "run job.yaml --frobnicate",
        "run job.yaml --workers 4",
        "run job.yaml --executor seriall",
        "run job.yaml --seed=4",
        "run job.yaml --seed",
        "run job.yaml --seed 4",
        "resume x.zarr --workers 4",
        "logs x.zarr --item 7 --shard 2",
        "plan stages.fine-tune.params.rate=3",
        "submit a.yaml b.yaml",
        "submit seed=4",
        "run seed=4",
        f"plan sweep.grid.n={list(range(99))}".replace(", ", ","),
        "status " + "a" * 300,
    ],
)
def test_commands_refuse(ctd, words):
    usage_error(ctd(*shlex.split(words)))


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


@pytest.mark.parametrize("params", ["n_stepz: 5", "n: 1001"])
def test_faults_of_fields_are_told_before_ray_starts(ctd, job_file, params):
    """Ray takes 15 s to start on a laptop, and a misspelt field waited for it."""
    path = job_file(f"kernel: toy\nparams: {{{params}}}\nsweep: {{seeds: 2}}\n")
    usage_error(ctd("run", path, "--executor", "ray"))
