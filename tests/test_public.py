"""What users build on is as tests/public.txt has it: who changes it sees there what a release breaks or adds (docs/versions.md)."""

import difflib

from places import TESTS
from public import lines

PATH = TESTS / "public.txt"


def test_public_unchanged(pytestconfig):
    now = [f"{line}\n" for line in lines()]
    if pytestconfig.getoption("write_snapshots"):
        PATH.write_text("".join(now))
    before = PATH.read_text().splitlines(keepends=True)
    changes = "".join(difflib.unified_diff(before, now, n=0))
    assert not changes, f"{changes}pytest --write-snapshots writes it"
