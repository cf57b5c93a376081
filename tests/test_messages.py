"""The file of messages: how a text is normalised, and that every entry has a test."""

import ast
import json

import pytest
from messages import PATH, normal
from places import ROOT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp/pytest-of-me/pytest-3/popen-gw0/test_x0/a.h5: bad", "TMP/a.h5: bad"),
        ("load('/var/t/pytest-of-me/pytest-3/test_x0/a.h5')", "load('TMP/a.h5')"),
        (f"{ROOT}/ctd/data.py, line 41, in f: x", "ROOT/ctd/data.py, line N"),
        ("process 42 of me on n1 (since 0 s, last sign of life -3 s ago)",
         "process PID on n1 (since N s, last sign of life N s ago)"),
        ("127.0.0.1:4711, at 0x7f00; jax is 0.9.1", "127.0.0.1:PORT, at ADDRESS; jax is VERSION"),
        ("12345678 of 0a1b2c3d, 0.0712345678", "12345678 of HASH, 0.07123"),
    ],
)  # fmt: skip
def test_normal(text, expected):
    assert normal(text) == expected


def test_no_stale_messages():
    for file, tests in json.loads(PATH.read_text()).items():
        tree = ast.parse((ROOT / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {test.partition("[")[0] for test in tests} <= names, file
