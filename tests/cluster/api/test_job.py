"""Jobs from Python: the same jobs as in files."""

import ast
import re
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy
import yaml
from messages import refused
from places import EXAMPLES, ROOT, SUPPORT
from processes import full_disk
from stores import FOUR_SLOTS, SMALL_RNN

import ctd.fixed_points
from cluster import Job, Submitted
from cluster.api.job import Stopped
from cluster.cli.choice import make_executor
from ctd.kernel import Params, Traced, Var, one_shot
from ctd.tasks import FlipFlop
from ctd.train_rnn import Network
from jobs import open_store
from jobs.errors import JobError
from jobs.pipeline import read_stages
from jobs.run.stop import Interrupted
from jobs.spec.job import parse_job

FILES = [path for path in EXAMPLES.glob("*.yaml") if "stages" not in path.read_text()]
FILES = [path for path in FILES if path.name != "kuberay_rayjob.yaml"]
WALK = {"params": {"n_steps": 5}, "sweep": {"grid": {"rate": np.linspace(0, 0.5, 6)}}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_job_of_a_file_has_its_digest(path, tmp_path):
    """Read as it is, and written and read again."""
    job = Job.read(path)
    (stage,) = read_stages(path)
    spec = stage.spec({})  # with what a preset stands for
    assert job.digest() == spec.digest()
    assert job.name == path.stem
    (tmp_path / "again.yaml").write_text(job.to_yaml())
    (again,) = read_stages(tmp_path / "again.yaml")
    assert again.spec({}).digest() == spec.digest()


def test_fields_are_written_as_in_a_file():
    job = Job(
        ctd.fixed_points,
        params={"weights": Path("a.h5"), "task": FlipFlop, "learning_rate": np.float32(0.5)},
        sweep={"grid": {"candidate": range(3)}, "zip": {"q": (1, 2)}},
    )
    # Of NumPy, float64 and str_ are floats and texts of Python, too, but YAML writes them as neither.
    numpys = Job("esn", params={"g": np.float64(0.9), "precision": np.str_("x"), "n": np.int64(5)})
    assert yaml.safe_load(numpys.to_yaml())["params"] == {"g": 0.9, "precision": "x", "n": 5}
    # Arrays of objects, as pandas has in a column of several types, and the members of an Enum.
    mixed = pd.Series([np.float32(1.5), 2], dtype=object)
    tasks = np.array([FlipFlop, StrEnum("Own", "decision").decision], object)
    swept = Job("train_rnn", sweep={"zip": {"learning_rate": mixed, "task": tasks}})
    assert yaml.safe_load(swept.to_yaml())["sweep"]["zip"] == {
        "learning_rate": [1.5, 2],
        "task": ["ctd.tasks.FlipFlop", "decision"],
    }
    assert job.content == {
        "kernel": "fixed_points",
        "params": {"weights": "a.h5", "task": "ctd.tasks.FlipFlop", "learning_rate": 0.5},
        "sweep": {"grid": {"candidate": [0, 1, 2]}, "zip": {"q": [1, 2]}},
    }


def test_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "job.yaml").write_text("old")
    with full_disk(room=10), refused(OSError):
        Job("esn").save(tmp_path / "job.yaml")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"job.yaml": "old"}


@pytest.mark.parametrize("kernel", ["toy", toy, toy.kernel], ids=["name", "module", "kernel"])
def test_kernel_is_given_by_name_module_or_itself(kernel):
    assert Job(kernel, base=str(SUPPORT)).content == {"kernel": "toy"}


def test_what_workers_cannot_import_is_refused(monkeypatch):
    """The kernel's own module is taken, whatever `__main__` imports."""
    monkeypatch.setattr(Wave, "__module__", "__main__")
    typed = one_shot("wave", Wave, {"y": Var()}, lambda static, shared, traced, key: {"y": 0.0})
    for give in (lambda: Job(typed), lambda: Job("train_rnn", params={"task": Wave})):
        with refused(JobError):
            give()


def test_job_misspelt_field():
    with pytest.raises(ValueError, match="parms; did you mean 'params'"):
        Job("toy", parms={})


class Wave(Params):
    rate: Traced[float] = 1.0


def test_run_goes_on_and_returns_the_store(tmp_path, capsys):
    job = Job(toy, base=str(SUPPORT), **WALK)
    planned = job.plan()
    assert planned.total["items"] == 6
    assert "items            6" in repr(planned)
    store = job.run(tmp_path / "walk.zarr", executor="serial")
    assert store.table()["steps"].tolist() == [5] * 6
    before = (tmp_path / "walk.zarr" / "run" / "job.json").read_bytes()
    job.run(tmp_path / "walk.zarr", executor="serial")
    assert (tmp_path / "walk.zarr" / "run" / "job.json").read_bytes() == before
    again = Job(toy, base=str(SUPPORT), **WALK, gather={"top": 2})
    assert again.run(tmp_path / "walk.zarr", executor="serial")["gathered/0"].sizes["place"] == 2


def test_a_job_that_was_stopped_says_what_goes_on(tmp_path, monkeypatch):
    def stops(*given):
        raise Interrupted("Ctrl-C")

    monkeypatch.setattr(Job, "_run", stops)
    job = Job(toy, base=str(SUPPORT))
    with refused(Stopped):
        job.run(tmp_path / "a b.zarr")


@pytest.mark.parametrize(
    "call",
    [
        lambda: Job("toy", params={"n": object()}),
        lambda: Job("toy", params={"n": np.complex64(1j)}),
        lambda: Job("toy", params={"n": np.longdouble(1)}),
        lambda: Job(3),
        lambda: Job("toy", base=str(SUPPORT), params={"m": 1}).plan(),
        lambda: Job("train_rnn", sweep={"grid": {"lr": [1]}}).plan(),
        lambda: Job("fixed_point").plan(),
        lambda: Job.read(EXAMPLES / "decision_pipeline.yaml"),
        lambda: Job("toy").submit({"kind": "local"}),
        lambda: Job("toy").submit("nowhere"),
        lambda: Job("toy", base=str(SUPPORT)).plan(workers=0),
        lambda: make_executor("dask", parse_job({"kernel": "toy"}, "job").run, None),
        lambda: Submitted.of("nothing.zarr"),
    ],
)
def test_bad_input_is_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(JobError):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "base: there",
        "1: 2",
        "parms: {}",
    ],
)
def test_file_with_what_is_no_field_is_refused(tmp_path, line):
    (tmp_path / "job.yaml").write_text(f"kernel: esn\n{line}\n")
    with refused(JobError):
        Job.read(tmp_path / "job.yaml")


@pytest.mark.parametrize("base", ["file:///a%20b", Path("/a b"), "~/a b"])
def test_base_may_be_an_address_a_path_or_at_home(base, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert Job("esn", base=base).base == "/a b"


def test_cells_of_the_page_run(tmp_path, monkeypatch):
    """A cell that begins with %%writefile makes its module; the others are executed in one process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    cells = re.findall(
        r"```python( notest)?\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL
    )
    params = re.search(r"params=(\{.*\})", cells[0][1])[1]
    assert Network(**ast.literal_eval(params)).n == 8
    # A smaller network has the programs that other tests have.
    small = f"{SMALL_RNN}, run={FOUR_SLOTS | {'workers': 1}}"
    space = {}
    for skipped, cell in cells:
        first, _, rest = cell.partition("\n")
        if first.startswith("%%writefile "):
            (tmp_path / first.split()[1]).write_text(rest)
        elif not skipped:
            text = cell.replace(params, small).replace('.zarr")', '.zarr", executor="serial")')
            exec(text, space)
    assert open_store("rates.zarr").table()["outcome"].tolist() == ["trained"] * 6
    assert open_store("tall.zarr").table()["height"].tolist() == [0, 0.75, 1.5, 2.25, 3]
