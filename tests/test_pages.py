"""What README and docs/answers.md show runs, in the suite with a smaller network, in a folder that is no checkout."""

import ast
import json
import re
import shlex

import pytest
import yaml
from page_stores import finished
from places import ROOT
from stores import FOUR_SLOTS, SMALL_RNN

from ctd.train_rnn import Network
from jobs.spec.job import read_job

README = (ROOT / "README.md").read_text()
ANSWERS = (ROOT / "docs" / "answers.md").read_text()
PLANNED = [f"run.{name}={value}" for name, value in FOUR_SLOTS.items()]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


NETWORK = re.compile(r"\{[^{}]*n_batches[^{}]*\}")


def smaller(job):
    """The same job of a network whose programs other tests have too."""
    small, n = NETWORK.subn(json.dumps(SMALL_RNN), job)
    assert n == 1
    return small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The stores that the snippets of docs/answers.md open."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "train.zarr").symlink_to(finished("swept").address)
    for name in ("decision_fixed_points", "points"):
        (folder / f"{name}.zarr").symlink_to(finished("fixed_points").address)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [smaller, pytest.param(str, marks=pytest.mark.endurance)],
    ids=["smaller", "as printed"],
)
def test_first_job_of_the_readme_runs(tmp_path, monkeypatch, command_line, change):
    monkeypatch.chdir(tmp_path)
    (job,) = blocks(README, "yaml")
    (python,) = (block for block in blocks(README, "python") if "n_batches" in block)
    params = yaml.safe_load(job)["params"]
    assert Network(**params).n == 20
    assert ast.literal_eval(NETWORK.search(python)[0]) == params
    (tmp_path / "nets.yaml").write_text(change(job))
    (commands,) = (block for block in blocks(README, "bash") if "ctd run nets.yaml" in block)
    for line in commands.splitlines():
        _, *words = shlex.split(line, comments=True)
        given = {"plan": PLANNED, "run": ["--executor", "serial", *PLANNED]}.get(words[0], [])
        code, out, err = command_line(*words, *given)
        assert code == 0, (line, out, err)
    assert (tmp_path / "nets.html").exists()
    # The Python beside it is the same job, and finds it done.
    space = {}
    exec(change(python), space)
    assert space["job"].digest() == read_job(tmp_path / "nets.yaml").digest()
    assert space["store"].table().shape[0] == 12


def test_snippets_of_the_answers_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    space = {}
    for code in blocks(ANSWERS, "python"):
        if "items.x." in code:  # the job of these points sweeps no input
            code = code.replace(
                ".to_dataset()", ".to_dataset().assign(x=lambda d: d.constant_input)"
            )
        exec(code, space)
    assert space["loss"].mean("seed").dims == ("learning_rate",)
    assert space["q"].dims == ("x1", "candidate")
