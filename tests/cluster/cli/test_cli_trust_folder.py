"""A stranger's store and code, unpacked into a folder in which the user has run code: looking runs the user's code alone."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import page_stores
import pytest
from stores import reseal

from jobs import open_store
from jobs.errors import JobError
from jobs.report.page import Content
from jobs.store.store import Store

OWN = """
from toy import *
from dataclasses import replace

kernel = replace(kernel, name="ownsteps")
"""
JOB = "kernel: ownsteps\nparams: {n_steps: 5}\nsweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}\n"
PAYLOAD = "from pathlib import Path\nPath({mark!r}).write_text('run')\nF = abs\n"

SPELLINGS = [
    "evil.F",
    "evil.F-x",
    "evil.F ",
    ".evil.F",
    "evil..F",
    "leaky:evil.F",
    "leaky:evil.F-x",
]
OTHERS = [("given", "the same"), (".", "another")]
"""(base, process), in which two spellings stand for all: how a text is judged depends on neither."""


@pytest.fixture(scope="module")
def found():
    """A store of `fixed_points` that was never gathered: looking at it reduces its groups."""
    return page_stores.computed("fixed_points")


class Lab:
    """The user's folder, in which a job with the user's kernel has run, and what a stranger has put there since."""

    def __init__(self, folder: Path, found: str) -> None:
        self.folder, self.found = folder, found
        self.store, self.mark = folder / "evil.zarr", folder.parent / "hacked"

    def unpack(self, base: str, **params: str) -> str:
        """Put the stranger's store here, whose job names these params, beside a module `evil`."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(self.found, self.store)
        store = Store.open(str(self.store))
        group = store.results(0)
        group.attrs.update({"params": {**group.attrs["params"], **params}})
        reseal(store, base, "fixed_points", **params)
        (self.folder / "evil.py").write_text(PAYLOAD.format(mark=str(self.mark)))
        return str(self.store)


@pytest.fixture
def lab(ctd, no_pictures, tmp_path, found, monkeypatch):
    for name in ("evil", "ownsteps"):
        sys.modules.pop(name, None)
    folder = tmp_path / "lab"
    folder.mkdir()
    page_stores.network(folder)
    (folder / "ownsteps.py").write_text(OWN)
    (folder / "job.yaml").write_text(JOB)
    monkeypatch.chdir(folder)
    code, _, err = ctd("run", "job.yaml", "--executor", "serial")
    assert code == 0, err
    return Lab(folder, found)


@pytest.mark.parametrize(
    ("base", "process", "spellings"),
    [
        ("given", "another", SPELLINGS),
        *((*other, ["evil.F", "leaky:evil.F-x"]) for other in OTHERS),
    ],
)
def test_looking_runs_nothing_that_lies_beside_the_users_code(
    lab, ctd, base, process, spellings, monkeypatch
):
    """The store names a module that the user has run, which puts the folder on the import path, and another one."""
    if process == "another":
        monkeypatch.setattr("jobs.spec.trust._allowed", set())
    base = str(lab.folder) if base == "given" else base
    for cell in spellings:
        store = lab.unpack(base, cell=cell, dataset="ownsteps.kernel")
        # How a text is judged depends on no command: of the other spellings one, which reduces and draws, stands for all.
        first = cell == spellings[0]
        others = [["query", store, "--table", "fixed_point"], ["query", store]]
        for command in (*others * first, ["report", store]):
            _, _, err = ctd(*command)
            assert "Traceback" not in err
            assert not lab.mark.exists(), (cell, command)
        if not first:
            continue
        with suppress(JobError):
            open_store(store).query(table="fixed_point")
        with suppress(JobError):
            Content(Store.open(store)).all()
        assert not lab.mark.exists(), cell


def test_what_the_arrays_name_is_judged_as_what_the_job_names(lab, ctd):
    store = lab.unpack(str(lab.folder), dataset="ownsteps.kernel")
    group = Store.open(store).results(0)
    for cell in SPELLINGS:
        group.attrs.update({"params": {**group.attrs["params"], "cell": cell}})
        _, _, err = ctd("report", store)
        assert "Traceback" not in err
        assert not lab.mark.exists(), cell


def test_code_that_has_changed_since_is_not_looked_with(lab, ctd, monkeypatch):
    """The stranger's archive brings another module of the name of the user's."""
    monkeypatch.setattr("jobs.spec.trust._allowed", set())
    sys.modules.pop("ownsteps", None)
    own = lab.folder / "job.zarr"
    (lab.folder / "ownsteps.py").write_text(PAYLOAD.format(mark=str(lab.mark)) + OWN)
    code, _, err = ctd("report", own)
    assert (code, lab.mark.exists()) == (0, False), err
    code, _, err = ctd("resume", own, "--executor", "serial")
    assert (code, lab.mark.exists()) == (2, False)
    assert "ownsteps.py" in err
    assert "has changed since you ran it; if the change is yours, --accept-changes of `ctd" in err
