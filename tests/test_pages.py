"""What README and docs/answers.md show runs as it is printed, in a folder that is no checkout."""

import re
import shlex

import pytest
import yaml
from places import EXAMPLES, ROOT
from stores import FOUR_SLOTS

from cluster import Job
from jobs.spec.job import read_job

README = (ROOT / "README.md").read_text()
ANSWERS = (ROOT / "docs" / "answers.md").read_text()
PLANNED = [f"run.{name}={value}" for name, value in FOUR_SLOTS.items()]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shorter(job):
    """The same job, of a tenth of the steps: code that was not optimised takes long over them."""
    assert len(re.findall(r'\bn_batches"?: 200\b', job)) == 1
    return job.replace("200", "20")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The stores that the snippets of docs/answers.md open; networks are those of the README, so one program serves both."""
    folder = tmp_path_factory.mktemp("pages")
    points = {"weights": str(EXAMPLES / "decision_gru.h5"), "q_tol": 1e-10}
    nets = yaml.safe_load(shorter(blocks(README, "yaml")[0]))["params"]
    for name, kernel, params, sweep in (
        ("decision_fixed_points", "fixed_points", points, {"grid": {"candidate": range(20)}}),
        ("train", "train_rnn", nets, {"grid": {"learning_rate": [0.01, 0.1]}, "seeds": 2}),
    ):
        job = Job(kernel, params=params, sweep=sweep, run=FOUR_SLOTS)
        job.run(folder / f"{name}.zarr", executor="serial")
    (folder / "points.zarr").symlink_to(folder / "decision_fixed_points.zarr")
    return folder


@pytest.mark.slow
def test_first_job_of_the_readme_runs(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    (job,) = blocks(README, "yaml")
    (tmp_path / "nets.yaml").write_text(shorter(job))
    (commands,) = (block for block in blocks(README, "bash") if "ctd run nets.yaml" in block)
    for line in commands.splitlines():
        _, *words = shlex.split(line, comments=True)
        code, out, err = command_line(
            *words, *(["--executor", "serial", *PLANNED] if words[0] == "run" else [])
        )
        assert code == 0, (line, out, err)
    assert (tmp_path / "nets.html").exists()
    # The Python beside it is the same job, and finds it done.
    space = {}
    exec(shorter(blocks(README, "python")[0]), space)
    assert space["job"].digest() == read_job(tmp_path / "nets.yaml").digest()
    assert space["store"].table().shape[0] == 12


def test_snippets_of_the_answers_run(folder, monkeypatch):
    pytest.importorskip("duckdb")
    monkeypatch.chdir(folder)
    space = {}
    for code in blocks(ANSWERS, "python"):
        exec(code, space)
    assert space["loss"].mean("seed").dims == ("learning_rate",)
