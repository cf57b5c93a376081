"""The pages of docs/ say what the code reads and writes."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr
import yaml
from places import EXAMPLES, ROOT

import jobs
from ctd.cells import CELLS
from ctd.lfads.data import NAMES
from ctd.lfads.names import SCORES
from ctd.tasks import TASKS, Mante, batch
from ctd.train_rnn.loss import eval_trials
from jobs.inputs.measure import Evaluated
from jobs.plan.layout import Machines
from jobs.run.prepare import prepare
from jobs.search.method import searched
from jobs.spec.job import parse_job

SPIKES, LFADS, NETWORKS = (
    (ROOT / "docs" / page).read_text() for page in ("spikes.md", "lfads.md", "networks.md")
)


def test_networks_page_has_every_cells_weights_with_their_shapes():
    n, n_in, n_out = 7, 3, 2
    rows = dict(re.findall(r"^\| `?(\w+)`? \| (`.*)\|$", NETWORKS, re.MULTILINE))
    value = {"n": n, "n_in": n_in, "n_out": n_out, "n + n_in": n + n_in, "100": 100, "128": 128} | {
        f"{k} n": k * n for k in (2, 3, 4)
    }
    for name, cell in CELLS.items():
        told = {}
        for weight, shape in re.findall(r"`(\w+)` \(([^;)]*)", rows[name] + rows["all"]):
            told[weight] = tuple(value[part] for part in shape.split(", ") if part)
        told["h0"] = (cell.state_size(n),)
        # The shapes alone: weights are drawn an operation at a time, each of them a program.
        draw = lambda key, cell=cell: cell.init(key, n, n_in, n_out)
        weights = jax.eval_shape(draw, jax.random.key(0))
        assert told == {weight: array.shape for weight, array in weights.items()}


def test_networks_page_has_every_task_with_its_defaults():
    for name, task in TASKS.items():
        (row,) = [
            line
            for line in NETWORKS.splitlines()
            if line.startswith("|") and f"`{name}`" in line.split("|")[1]
        ]
        defaults = {field: info.default for field, info in task.model_fields.items()}
        assert dict(re.findall(r"`(\w+)` ([\w.]+)", row)) == {
            k: str(v).lower() for k, v in defaults.items() if not isinstance(v, tuple)
        }
        assert {k for k, v in defaults.items() if isinstance(v, tuple)} <= set(
            re.findall(r"`(\w+)` [\[±]", row)
        )


def test_spikes_page_has_the_names_of_both_layouts():
    for layout, roles in (("ctd", ("train", "eval")), ("lfads-torch", ("train", "valid"))):
        for field, pattern in NAMES[layout].items():
            truth = field in ("rates", "inputs", "initial_states", "states", "condition")
            for role in roles[1:] if truth else roles:
                assert f"`{pattern.format(role)}`" in SPIKES


def test_search_page_has_jobs_that_fit_and_names_what_is_stored(tmp_path, monkeypatch):
    """Its jobs are planned, and its tables are the results of a search, no more and no less."""
    # What the compiler says of the memory of an item is no matter of the page, and compiles three programs of 50 units.
    monkeypatch.setattr(Evaluated, "measured", lambda group, layout, devices: group.sizes)
    page = (ROOT / "docs" / "search.md").read_text()
    jobs = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    tables = re.findall(r"\| stored \|.*?\n\|---.*?\n((?:\|.*\n)+)", page)
    assert len(jobs) == len(tables) == 3
    for job, table in zip(jobs, tables, strict=True):
        spec = parse_job(yaml.safe_load(job), "job")
        ready = prepare(spec, str(tmp_path), "job", lambda: Machines(1, 10**9))
        told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
        params = spec.ranges
        expanded = {
            name.replace("PARAM", param): axes
            for name, axes in told.items()
            for param in (params if "PARAM" in name else [""])
        }
        new = searched(ready.kernel, spec.search).dims.items() - ready.kernel.dims.items()
        assert expanded == {name: ", ".join(("item", *var.axes)) for name, var in new}


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_pages_name_files_that_there_are(page):
    """Every path of this repository, but for placeholders such as ctd/NAME.py."""
    text = (ROOT / page).read_text()
    places = r"(?<![\w./])(?:ctd|jobs|cluster|tests|docs|examples|benchmarks)/[\w./-]*\w(?:\.\w+|/)"
    paths = {path for path in re.findall(places, text) if not re.search("[A-Z]{3}", path)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_architecture_rows():
    """A row has two files, or three at most, and a test; the names behind a file's colon are in that file."""
    text = (ROOT / "docs/architecture.md").read_text().partition("## Where to change what")[2]
    rows = re.findall(r"(?m)^\| (?!to |-)(.+) \| (.+) \| (.+) \|$", text.partition("## Words")[0])
    assert len(rows) > 40
    for _, change, proof in rows:
        assert 1 <= len(re.findall(r"`tests/", proof)) <= 2
        assert len(re.findall(r"(?:ctd|jobs|cluster|docs)/[\w/.]+", change)) <= 3
        for path, names in re.findall(r"`([\w./]+\.\w+): ([\w, ]+)`", change):
            source = (ROOT / path).read_text()
            assert [n for n in names.split(", ") if not re.search(rf"\b{n}\b", source)] == [], path


def test_lfads_page_has_every_metric_over_all_trials():
    section = LFADS.partition("## Metrics of `lfads`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(SCORES)


# --- code that a reader copies ----------------------------------------------------------------------


def what_readers_see(page):
    """Session -> the code of a page that is shown, in order."""
    sessions = {}
    text = (ROOT / "docs" / page).read_text()
    for options, code in re.findall(r"```python (exec=.*)\n((?:.*\n)*?)```", text):
        if 'source="above"' in options:
            session = re.search(r'session="(\w+)"', options)
            sessions.setdefault(session and session[1], []).extend(code.splitlines())
    return {name: "\n".join([*lines, ""]) for name, lines in sessions.items()}


SHOWN = [
    (path.relative_to(ROOT / "docs"), session)
    for path in sorted((ROOT / "docs").rglob("*.md"))
    for session in what_readers_see(path.relative_to(ROOT / "docs"))
]


@pytest.mark.parametrize(("page", "session"), SHOWN, ids=str)
def test_shown_code_is_whole(page, session):
    """It is Python, and defines or imports every name that it uses."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=E9,F821", "-"]
    code = what_readers_see(page)[session]
    found = subprocess.run(ruff, input=code, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_code_for_the_site_alone_is_hidden_in_the_files(monkeypatch):
    """In comments, out of which the site takes it. The pages of reference/ are made by the site."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    from pages import uncovered

    docs = ROOT / "docs"
    for path in [*docs.glob("*.md"), *docs.glob("tutorials/*.md")]:
        seen = re.sub(r"<!-- site\n.*?-->\n", "", text := path.read_text(), flags=re.DOTALL)
        # A line that the site alone hides would be copied from the file.
        assert not re.search(r"from pages import|\bdrawn\(|markdown-exec: hide", seen), path
        assert "<!-- site\n" not in uncovered(text), path
    assert uncovered("a\n<!-- site\nb\n-->\nc") == "a\nb\nc"


@pytest.mark.endurance
@pytest.mark.parametrize(("page", "session"), SHOWN, ids=str)
def test_shown_code_runs_in_the_folder_of_the_examples(page, session, tmp_path):
    for file in EXAMPLES.glob("*.h5"):
        (tmp_path / file.name).symlink_to(file)
    code = what_readers_see(page)[session]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def code_of_tasks_page():
    text = (ROOT / "docs" / "tasks.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_tasks_page_averages_saved_trials_by_context(monkeypatch):
    trials = eval_trials(Mante(), 16)
    inputs, cue = np.asarray(trials.inputs), np.asarray(trials.inputs)[:, 10, 3] > 0
    states = xr.DataArray(
        inputs[None], dims=("item", "trial", "time", "state"), coords={"item": [0]}
    )
    made = {
        "gathered/0": xr.Dataset({"inputs": (("trial", "time", "input"), inputs)}),
        "results/0": xr.Dataset({"states": states}),
    }
    for tables in made:  # conditions repeat along `trial`
        made[tables]["trial"] = np.asarray(trials.condition)
    monkeypatch.setattr(jobs, "open_store", lambda name: made)
    space = {}
    exec(code_of_tasks_page()[0], space)
    wanted = np.stack([inputs[cue == k].clip(min=0).mean(axis=0) for k in (False, True)])
    np.testing.assert_allclose(
        space["means"].transpose("context", ...), wanted, rtol=1e-6, atol=1e-7
    )


def test_tasks_page_has_a_task_of_ones_own():
    _, code = code_of_tasks_page()
    space = {"__name__": "mytasks"}
    exec(code, space)
    task = space["Sign"]()
    trials = batch(task, jax.random.key(0), 8)
    assert trials.inputs.shape == (8, task.n_steps, task.n_in)
    right = np.sign(trials.targets)
    assert jax.vmap(task.success)(trials, right).all()
    assert not jax.vmap(task.success)(trials, -right).any()
