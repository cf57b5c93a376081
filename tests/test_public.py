"""What users build on is as tests/public.txt has it: who changes it sees there what a release breaks or adds (docs/versions.md)."""

import difflib
import subprocess
import sys

from places import TESTS
from public import PACKAGES, lines

PATH = TESTS / "public.txt"

IMPORT_ALL = """
import importlib, pkgutil, sys
for package in map(importlib.import_module, sys.argv[1:]):
    names = dict(vars(package))
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{package.__name__}.{module.name}")
    print(*(f"{package.__name__}.{n}" for n, value in names.items() if vars(package)[n] is not value))
"""


def test_public_unchanged(pytestconfig):
    now = [f"{line}\n" for line in lines()]
    if pytestconfig.getoption("write_snapshots"):
        PATH.write_text("".join(now))
    before = PATH.read_text().splitlines(keepends=True)
    changes = "".join(difflib.unified_diff(before, now, n=0))
    assert not changes, f"{changes}pytest --write-snapshots writes it"


def test_no_module_takes_the_name_of_a_function():
    """Python binds a module in its package at the first import, over a function of the same name."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *PACKAGES], capture_output=True, text=True
    )
    assert (done.stdout.split(), done.returncode) == ([], 0), done.stderr
