"""ctd.dotted: which module a text names, and the import of that one."""

import sys

import pytest
from messages import refused

from ctd.dotted import NoModule, load, module_of, modules_in

NAMED = {
    "lab.tasks.Mine": "lab.tasks",
    "lab.Mine": "lab",
    "leaky:lab.units.square": "lab.units",
    "a:b:lab.f": "lab",
    "größe.f": "größe",
    "net.h5": "net",
    "lab": None,
    "leaky:relu": None,
    "": None,
    ":": None,
    ".lab": None,
    "lab.": None,
    "lab..f": None,
    "lab.f-x": None,
    "lab.f:x": None,
    "lab.f ": None,
    " lab.f": None,
    "lab.f\n": None,
    "la b.f": None,
    "lab.1": None,
    "../lab.py": None,
    "/tmp/lab.py": None,
    "lab.\udcff": None,
    "lab.\0": None,
}


@pytest.mark.parametrize("text", NAMED, ids=repr)
def test_module_of_a_text(text):
    assert module_of(text) == NAMED[text]


def test_modules_in_a_value_are_those_of_all_its_texts():
    value = {"a": ["x.f", 3, None, {"b": ("y.z.f", "leaky:w.f")}], "c.d": "plain"}
    assert list(modules_in(value)) == ["x", "y.z", "w"]


def test_load_imports_the_module_of_a_path(tmp_path, monkeypatch):
    (tmp_path / "dotted_lab.py").write_text("f = 3\n")
    (tmp_path / "dotted_broken.py").write_text("import dotted_absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("dotted_lab.f", "task") == 3
    assert load("dotted_lab.g", "task") is None
    with refused(NoModule):
        load("dotted_lab.deep.f", "task x")
    with refused(ModuleNotFoundError):  # it is there, and lacks another
        load("dotted_broken.f", "task")
    sys.modules.pop("dotted_lab")


@pytest.mark.parametrize(
    "path", ["dotted_lab", "a:dotted_lab.f", "dotted_lab.f-x", ".dotted_lab.f", ""]
)
def test_load_imports_nothing_for_what_is_no_path(path, tmp_path, monkeypatch):
    (tmp_path / "dotted_lab.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    with refused(NoModule):
        load(path, "task")
