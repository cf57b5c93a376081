"""jobs.spec.trust: whose code may be imported, found without importing it."""

import shutil
import sys

import pytest
from messages import refused
from stores import JOB

from jobs.errors import JobError
from jobs.spec.code import find
from jobs.spec.job import parse_job
from jobs.spec.trust import (
    allow_and_remember,
    folder_of,
    is_ctds_kernel,
    is_known,
    modules_of,
    own_code,
    refuse_untrusted,
    trust,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with modules that must not be imported: a file, a package, and one in a folder without __init__."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for known in ("_allowed", "_trusted"):
        monkeypatch.setattr(f"jobs.spec.trust.{known}", set())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    here = tmp_path / "lab"
    for name in (
        "trap.py",
        "traps/__init__.py",
        "traps/inner.py",
        "bare/deep/trap.py",
        "train_rnn.py",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("raise SystemExit('imported')\n")
    return here


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("trap", "trap.py"),
        ("traps", "traps/__init__.py"),
        ("traps.inner", "traps/inner.py"),
        ("traps.none", "traps/__init__.py"),  # which is imported on the way
        ("bare.deep.trap", "bare/deep/trap.py"),
        ("nowhere", None),
        ("nowhere.trap", None),
        ("../trap.py", None),
    ],
)
def test_find_imports_nothing(folder, module, file):
    found = find(module, str(folder))
    if file is None:
        assert found is None or found.folder != str(folder)
    else:
        assert (found.file, found.folder) == (folder / file, str(folder))
    assert not {"trap", "traps", "bare"} & sys.modules.keys()


def test_modules_of_a_job_are_its_kernel_and_what_its_texts_name():
    params = {"task": {"name": "lab.tasks.Mine"}, "weights": "net.h5", "cell": "gru", "n": 3}
    assert modules_of("fixed_points", params) == {
        "ctd.fixed_points",
        "lab.tasks",
    }  # weights are a file
    units = modules_of("train_rnn", {"cell": "leaky:lab.units.square"})
    assert units == {"ctd.train_rnn", "lab.units"}
    assert modules_of("mine", params) == {"mine", "lab.tasks", "net"}
    spec = parse_job(
        {**JOB, "sweep": [{"grid": {"task": ["decision", "own.Task"]}}, {"zip": {"f": ["a.b.c"]}}]}, "job"
    )  # fmt: skip
    assert spec.modules() == {"toy", "own", "a.b"}


def test_ctds_own_kernels_are_never_those_beside_a_job(folder):
    found = [
        n for n in ("train_rnn", "esn", "toy", "plots", "tasks", "os", "..") if is_ctds_kernel(n)
    ]
    assert found == ["train_rnn", "esn"]
    modules = modules_of("train_rnn", {"task": "decision"})
    refuse_untrusted(str(folder), modules, "store")
    assert folder_of(str(folder), modules) is None
    assert own_code(str(folder), {*modules, "trap"}) == [folder / "trap.py"]
    # A task is looked for under its own name, and that file is a stranger's.
    with refused(JobError):
        refuse_untrusted(str(folder), modules_of("train_rnn", {"task": "train_rnn.Task"}), "store")


def test_what_is_on_the_import_path_is_computed_with_and_not_looked_with(folder, monkeypatch):
    with refused(JobError):
        refuse_untrusted(str(folder), ["trap"], "store")
    sys.path.append(str(folder))
    refuse_untrusted("/nowhere", ["trap"], "store")
    assert folder_of("/nowhere", ["trap"]) is None
    assert not is_known("/nowhere", ["trap"])
    # The folder that `python -m` is run in is not a path that anybody gave.
    monkeypatch.chdir(folder)
    sys.path[:] = [str(folder), *sys.path[:-1]]
    with refused(JobError):
        refuse_untrusted("/nowhere", ["trap"], "store")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    refuse_untrusted("/nowhere", ["trap"], "store")


@pytest.fixture
def later(monkeypatch):
    """Go on as another process of the same user."""
    return lambda: monkeypatch.setattr("jobs.spec.trust._allowed", set())


def test_a_job_file_is_remembered_with_its_modules(folder, later):
    allow_and_remember(str(folder), ["trap", "nowhere", "train_rnn"])
    for again in (lambda: None, later):
        again()
        assert is_known(str(folder), ["trap", "train_rnn", "nowhere"])
        assert not is_known(str(folder), ["trap", "traps"])  # which no job file has named
        assert not is_known(str(folder.parent), ["lab.trap"])
    (folder.parent / "zarr.json").write_text("{}")  # inside of a store it never is
    assert not is_known(str(folder), ["trap"])
    sys.path.append(str(folder))
    with refused(JobError):
        refuse_untrusted(str(folder), ["trap"], "store")
    trust(str(folder))
    refuse_untrusted(str(folder), ["trap"], "store")
    assert folder_of(str(folder), ["trap"]) == str(folder)


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", None])
def test_note_says_what_it_trusts(folder, later, monkeypatch, content):
    """A note of the right name that another program wrote, such as a page through a link, trusts nothing."""
    allow_and_remember(str(folder), ["trap"])
    later()
    notes = list((folder.parent / "settings" / "ctd" / "trusted").iterdir())
    assert is_known(str(folder), ["trap"])
    for note in notes:
        note.unlink() if content is None else note.write_bytes(content)
    assert not is_known(str(folder), ["trap"])
    allow_and_remember(str(folder), ["trap"])
    later()
    assert is_known(str(folder), ["trap"])


CHANGES = {
    "the module": ("mine.py", "x = 1"),
    "what it imports": ("helper.py", "x = 1"),
    "what that imports": ("deep/inner.py", "x = 1"),
    "what its function imports": ("lazily.py", "x = 1"),
    "a package on the way": ("deep/__init__.py", "x = 1"),
    "a submodule that was not there": ("deep/other.py", "x = 1"),
    "what it imports as a package": ("helper/__init__.py", "x = 1"),
    "Python's own module before it": ("colorsys.py", "x = 1"),
    "a package's before it": ("h5py/__init__.py", "x = 1"),
}
"""What changes of the code that a job has run -> (file, text)."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_module_that_has_changed_since_is_a_strangers(folder, later, change):
    (folder / "deep").mkdir()
    for name, text in {
        "mine.py": "import numpy\nimport helper\nfrom deep import other\ndef f():\n    import lazily\n",
        "helper.py": "from deep.inner import x",
        "lazily.py": "",
        "deep/__init__.py": "",
        "deep/inner.py": "x = 2",
        "unused.py": "",
    }.items():
        (folder / name).write_text(text)
    allow_and_remember(str(folder), ["mine"])
    later()
    (folder / "unused.py").write_text("x = 1")
    (folder / "notes.txt").write_text("x = 1")
    assert is_known(str(folder), ["mine"])
    name, text = CHANGES[change]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    assert not is_known(str(folder), ["mine"])
    with refused(JobError):
        refuse_untrusted(str(folder), ["mine"], "store")
    with refused(JobError):
        refuse_untrusted(str(folder), ["trap"], "store")
    allow_and_remember(str(folder), ["mine"])
    later()
    assert is_known(str(folder), ["mine"])


def test_a_module_that_was_not_there_is_a_strangers(folder, later):
    """Of two packages, one that has the module only later, and a text that named nothing."""
    allow_and_remember(str(folder), ["traps.later", "after"])
    assert is_known(str(folder), ["traps.later", "after"])
    for again in (lambda: None, later):
        again()
        (folder / "after.py").write_text("")
        assert not is_known(str(folder), ["after"])
        (folder / "traps" / "later.py").write_text("")
        assert not is_known(str(folder), ["traps.later"])


def test_looking_imports_nothing_that_is_built_into_python(folder):
    """`builtins.input` as a cell waits for the terminal, `sys.exit` ends the command."""
    for module in ("builtins", "sys", "os", "subprocess"):
        assert not is_known(str(folder), [module])
        refuse_untrusted(str(folder), [module], "store")


def test_what_comes_first_on_the_import_path_is_what_is_judged(folder, tmp_path):
    """A base that is on the path already is not put before the others."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "trap.py").write_text("")
    allow_and_remember(str(folder), ["trap"])
    sys.path[:0] = [str(other), str(folder)]
    assert find("trap", str(folder)).file == other / "trap.py"
    assert not is_known(str(folder), ["trap"])


def test_nothing_is_remembered_of_a_cluster_jobs_working_directory(folder, later, monkeypatch):
    monkeypatch.chdir(folder)
    allow_and_remember(".", ["trap"])
    assert is_known(".", ["trap"])
    assert not is_known(".", ["traps"])
    later()
    assert not is_known(".", ["trap"])
    assert not (folder.parent / "settings").exists()


def test_a_working_directory_that_is_gone_is_where_it_was(folder, monkeypatch):
    """Ray replaces the folder of a job that runs in it."""
    monkeypatch.chdir(folder)
    allow_and_remember(".", ["trap"])
    folder.rename(folder.with_name("old"))
    shutil.copytree(folder.with_name("old"), folder)
    shutil.rmtree(folder.with_name("old"))
    refuse_untrusted(".", ["trap"], "store")
    assert folder_of(".", ["trap"]) == "."
    monkeypatch.chdir(folder)
