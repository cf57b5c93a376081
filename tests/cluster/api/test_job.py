"""Jobs from Python: the same jobs as in files, and kernels that were typed into a notebook."""

import ast
import json
import re
import subprocess
import sys
import types
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy
import yaml
from disks import full_disk
from places import EXAMPLES, ROOT, SUPPORT
from stores import FOUR_SLOTS, SMALL_RNN

import ctd.fixed_points
from cluster import Job, Submitted
from cluster.api.job import Stopped
from cluster.cli.choice import make_executor
from ctd.tasks import FlipFlop
from ctd.train_rnn import Network
from jobs import keys, open_store
from jobs.errors import JobError
from jobs.pipeline import read_stages
from jobs.run.shards import claim
from jobs.run.stop import Interrupted
from jobs.spec.job import parse_job
from jobs.storage.lease import Held
from jobs.store.store import Store

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
    with full_disk(room=10), pytest.raises(OSError, match="too large"):
        Job("esn").save(tmp_path / "job.yaml")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"job.yaml": "old"}


@pytest.mark.parametrize("kernel", ["toy", toy, toy.kernel], ids=["name", "module", "kernel"])
def test_kernel_is_given_by_name_module_or_itself(kernel):
    assert Job(kernel, base=str(SUPPORT)).content == {"kernel": "toy"}


def test_kernel_that_a_notebook_imports_is_that_of_its_module(monkeypatch):
    main = types.ModuleType("__main__")
    main.kernel = toy.kernel
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert Job(toy.kernel, base=str(SUPPORT)).content == {"kernel": "toy"}


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


@pytest.mark.parametrize(("source", "options"), [("", ""), ("typed = 1", " --trust")])
def test_a_job_that_was_stopped_says_what_goes_on(tmp_path, monkeypatch, source, options):
    """With --trust if its code was typed into a notebook, and so lies in the store."""

    def stops(*given):
        raise Interrupted("Ctrl-C")

    monkeypatch.setattr(Job, "_run", stops)
    job = Job(toy, base=str(SUPPORT))
    job._source = source
    with pytest.raises(Stopped, match=f"`ctd resume '.*a b.zarr'{options}`, continues it"):
        job.run(tmp_path / "a b.zarr")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Job("toy", parms={}), "parms: .* did you mean 'params'"),
        (lambda: Job("toy", params={"n": object()}), "params.n: .* given; expected numbers, texts"),
        (lambda: Job("toy", params={"n": np.complex64(1j)}), "params.n: 1j given; expected"),
        (lambda: Job("toy", params={"n": np.longdouble(1)}), "params.n: .* given; expected"),
        (lambda: Job(3), "kernel: 3 given; expected a name, a module or a Kernel"),
        (lambda: Job("toy", base=str(SUPPORT), params={"m": 1}).plan(), "job toy: params: m"),
        (lambda: Job("fixed_point").plan(), "did you mean 'fixed_points'"),
        (
            lambda: Job.read(EXAMPLES / "decision_pipeline.yaml"),
            "holds several jobs; `ctd run",
        ),
        (lambda: Job("toy").submit({"kind": "local"}), "is this machine; use Job.run"),
        (lambda: Job("toy").submit("nowhere"), "cluster 'nowhere': .* does not exist"),
        (
            lambda: Job("toy", base=str(SUPPORT)).plan(workers=0),
            "workers: .* given; expected a whole number of at least 1",
        ),
        (
            lambda: make_executor("dask", parse_job({"kernel": "toy"}, "job").run, None),
            "executor: .* expected 'auto'",
        ),
        (lambda: Submitted.of("nothing.zarr"), "nothing.zarr: no such store"),
    ],
)
def test_bad_input_is_named(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=said):
        call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("base: there", "job.yaml: base: unknown field"),
        ("1: 2", "job.yaml: 1: Keys should be strings"),
        ("parms: {}", "job.yaml: parms: unknown field; did you mean 'params'"),
    ],
)
def test_file_with_what_is_no_field_is_refused(tmp_path, line, said):
    (tmp_path / "job.yaml").write_text(f"kernel: esn\n{line}\n")
    with pytest.raises(JobError, match=said):
        Job.read(tmp_path / "job.yaml")


@pytest.mark.parametrize("base", ["file:///a%20b", Path("/a b"), "~/a b"])
def test_base_may_be_an_address_a_path_or_at_home(base, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert Job("esn", base=base).base == "/a b"


SCRIPT = """import numpy as np
from cluster import Job
from ctd.kernel import Params, Traced, Var, one_shot
gain, settings, rng = 1.0, {}, np.random.default_rng(0)
drawn = [rng.normal(), rng.normal()][1:]
class Wave(Params):
    rate: Traced[float] = 1.0
def height(static, shared, traced, key):
    return {"height": gain * traced.rate * settings.get("unit", 1)}
wave = one_shot("wave", Wave, {"height": Var()}, height)
"""


PUT = "def put():\n    global gain\n    gain = 2.0\nput()\n"
HEIGHT = "def height(static, shared, traced, key{}): return {{'height': {}}}\n"
AGAIN = "wave = one_shot('wave', Wave, {'height': Var()}, height)\njob = Job(wave)"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (PUT + HEIGHT.format(", g=gain", "g") + AGAIN, "gain: wave reads it"),
        (PUT + "class Wave(Params):\n    rate: Traced[float] = gain\n" + HEIGHT.format("", "traced.rate") + AGAIN, "gain: wave reads it"),
        ("from types import SimpleNamespace\nc = SimpleNamespace(g=1.0)\ndef put(c): c.g = 2.0\nput(c)\n"
         + HEIGHT.format("", "c.g") + AGAIN, "c: wave reads it"),
        ("def f(x): return x\ndef other(x): return 2 * x\nglobals()['f'] = other\n" + HEIGHT.format("", "f(traced.rate)") + AGAIN, "f: wave reads it"),
        ("from functools import partial\nimport operator\nf = partial(operator.mul, 2)\nglobals()['f'] = partial(operator.mul, 9)\n"
         + HEIGHT.format("", "f(traced.rate)") + AGAIN, "f: wave reads it"),
        ("import jax\nk = jax.random.key(1)\ndef wrap(f): return jax.jit(lambda x, n=2: f(x) * n)\n@wrap\ndef twice(x): return x\n"
         + HEIGHT.format("", "twice(jax.random.normal(k))") + AGAIN, "jax.random.key(1)"),
        ("job = Job(wave)\ngain = 2.0", "gain, settings, rng = 1.0"),
        ("gain = 2.0\njob = Job(wave)\ngain = 3.0", "\ngain = 2.0\n"),
        ("settings.update(unit=3)\njob = Job(wave)", "settings.update(unit=3)"),
        ("for gain in (1.0, 2.0): job = Job(wave)", "gain: wave reads it; it is 2.0 here, but 1.0"),
        ("rng.shuffle(drawn)\ngain = rng.normal()\njob = Job(wave)", "rng.shuffle"),
        ("u = rng.normal()\ngain = rng.normal(size=2)\njob = Job(wave)", "gain: wave reads it"),
        ("if gain:\n    tide = one_shot('tide', Wave, {}, height)\n    Job(tide)", "tide: is not defined"),
        ("def fill(): settings['unit'] = 2\nfill()\njob = Job(wave)", "settings: wave reads it"),
        ("import sys\nsys.unit = 2\ngain = sys.unit\ndel sys.unit\njob = Job(wave)", "gain = sys.unit"),
        ("made = False\ndef twice():\n    global made\n    assert not made and __name__ == '__main__'\ntwice()\n"
         "gain = twice() or 1\njob = Job(wave)", "raises AssertionError"),
    ],
)  # fmt: skip
def test_kernel_of_a_script_has_the_values_of_its_moment(lines, said, tmp_path, monkeypatch):
    """Its source gives what its functions read the values that these have where the Job is made, or is refused."""
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    Path(main.__file__).write_text(SCRIPT + lines)
    monkeypatch.setitem(sys.modules, "__main__", main)
    try:
        exec(compile(SCRIPT + lines, main.__file__, "exec"), vars(main))
        told = main.job._source
    except JobError as error:
        told = str(error)
    assert said in told


def test_refused_and_mistaken_code_leaves_a_store_as_it_is(tmp_path, monkeypatch):
    def job(gain):
        main = types.ModuleType("__main__")
        main.__file__ = str(tmp_path / "script.py")
        text = SCRIPT.replace("rng = 1.0", f"rng = {gain}") + "job = Job(wave)\n"
        Path(main.__file__).write_text(text)
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(text, main.__file__, "exec"), vars(main))
        return main.job

    monkeypatch.setattr("sys.path", [*sys.path])
    path = str(tmp_path / "a.zarr")
    with pytest.raises(JobError):
        job("[]").run(path, executor="serial")
    assert job("1.0").run(path, executor="serial").table()["height"].tolist() == [1.0], (
        "no store was made before"
    )
    code = tmp_path / "a.zarr" / keys.CODE / "notebook_wave.py"
    before = code.read_text()
    with claim(Store.open(path)).held(), pytest.raises(Held):
        job("4.0").run(path, executor="serial", accept_changes=True)
    assert code.read_text() == before
    assert job("4.0").run(path, executor="serial", accept_changes=True).table()[
        "height"
    ].tolist() == [1.0]
    assert code.read_text() != before
    del sys.modules["notebook_wave"]  # another test's store has one of this name


CELLS = [
    "import jax.numpy as jnp\nimport numpy as np\nfrom cluster import Job\nfrom ctd.kernel import Params, Traced, Var, one_shot\nfrom ctd.tasks import Decision",
    "scale = 3.0\n\nclass Wave(Params):\n    rate: Traced[float] = 1.0",
    "%alias_magic t time",
    'def run(static, shared, traced, key):\n    return {"y": jnp.multiply(np.float32(scale), traced.rate)}\n'
    'wave = one_shot("wave", Wave, {"y": Var()}, run)',
    'def job(): return Job(wave, sweep={"grid": {"rate": np.linspace(0, 1, 5)}}, run={"workers": 1})',
    'job().run("wave.zarr")',
    "scale = 4.0",
    'job().run("wave.zarr", executor="serial")',
    'job().run("again.zarr", executor="serial")',
    'job().save("wave.yaml")',
    'class Later(Decision):\n    """Typed here."""',
    f"small = {SMALL_RNN!r} | {{'task': Later}}\n"
    'six = {"grid": {"learning_rate": np.geomspace(1e-3, 1e-1, 3)}, "seeds": 2}\n'
    f'Job("train_rnn", name="later", params=small, sweep=six, run={FOUR_SLOTS}).run(executor="serial")',
]
PAGE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
PARAMS = re.search(r"params=(\{.*\})", PAGE[0])[1]
# A smaller network has the programs that other tests have.
PAGE[0] = PAGE[0].replace(PARAMS, f"{SMALL_RNN}, run={FOUR_SLOTS}")
NOTEBOOK = f"""
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {[*CELLS, *PAGE]!r}:
    ran = shell.run_cell(cell, store_history=True)
    if ran.error_in_exec and "another source" not in str(ran.error_in_exec):
        sys.exit(f"{{cell}}: {{ran.error_in_exec}}")
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The folder in which these cells were executed, and what they printed."""
    folder = tmp_path_factory.mktemp("notebook")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_kernel_of_a_notebook_runs_on_ray(notebook):
    """Its source is cut out and lies in the store, without what it does not need."""
    folder, _ = notebook
    table = open_store(folder / "wave.zarr").table()
    assert table["y"].tolist() == [0, 0.75, 1.5, 2.25, 3]
    text = (folder / "wave.zarr" / "run" / "code" / "notebook_wave.py").read_text()
    assert "scale = 3.0" in text
    assert "Job" not in text
    assert "Decision" not in text
    assert (folder / "wave.yaml").exists()
    assert (folder / "notebook_wave.py").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_kernel_of_a_notebook_that_has_changed_is_refused(notebook):
    """In one line, without a traceback; another store takes it."""
    folder, printed = notebook
    assert "was made with another source of notebook_wave" in printed
    assert "accept_changes=True" in printed
    assert "Traceback" not in printed
    assert open_store(folder / "again.zarr").table()["y"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.ray
def test_task_of_a_notebook_trains_a_network(notebook):
    folder, _ = notebook
    store = open_store(folder / "later.zarr")
    assert store.table()["status"].tolist() == ["done"] * 6
    job = json.loads((folder / "later.zarr" / "run" / "job.json").read_text())
    assert job["spec"]["params"]["task"] == "notebook_later.Later"


@pytest.mark.slow
@pytest.mark.ray
def test_cells_of_the_page_run(notebook):
    folder, printed = notebook
    assert len(PAGE) == 3
    assert Network(**ast.literal_eval(PARAMS)).n == 8
    assert open_store(folder / "rates.zarr").table()["outcome"].tolist() == ["trained"] * 6
    assert open_store(folder / "tall.zarr").table()["height"].tolist() == [0, 0.75, 1.5, 2.25, 3]
    assert "shards" in printed


@pytest.mark.slow
@pytest.mark.ray
def test_resume_of_a_notebooks_store_takes_trust(notebook, command_line):
    folder, _ = notebook
    code, _, err = command_line("resume", folder / "again.zarr", "--executor", "serial")
    assert code == 2
    assert "run/code/notebook_wave.py, which lies inside of a store" in err
    code, _, err = command_line("resume", folder / "again.zarr", "--executor", "serial", "--trust")
    assert code == 0, err
