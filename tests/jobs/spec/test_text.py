"""jobs.spec.text: what a text in YAML may hold, and how much of it."""

import os
import subprocess
import sys
import time

import pytest
from messages import refused

from jobs.errors import JobError
from jobs.spec.text import MOST_BYTES, parse_file, parse_text


def nested(width, of="[{}]"):
    """Each line ten times the one before: 10^width values."""
    lines = ["a0: &a0 [x]"]
    for k in range(1, width):
        lines.append(f"a{k}: &a{k} " + of.format(", ".join([f"*a{k - 1}"] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "line 1, column 8: not valid YAML or JSON: the value of &a holds itself"),
        ("&a {b: &b {c: *a}}", "the value of &a holds itself"),
        ("a: " + "[" * 3000, "line 1, column 103: not valid YAML or JSON: more than 100 lists"),
        ('{"a": ' * 3000, "more than 100 lists and mappings inside of each other"),
        ("- " * 3000 + "x", "more than 100 lists and mappings inside of each other"),
        ("\n".join(f"a{k}: &a{k} [{f'*a{k - 1}' if k else ''}]" for k in range(200)), "more than 100"),
        ("a: " + "1" * 5000, "line 1, column 4: not valid YAML or JSON: 1111"),
        ("a: " + "9" * 20, "more than 64 bits"),
        ("a: !!int x", "x is no int that can be read"),
        ("a: !!bool x", "x is no bool that can be read"),
        ("a: " + "1:" * 500 + "1.5", "is no float that can be read"),
        ("a: !!python/name:os.system x", "line 1, column 4"),
        ("a: !!binary x", "line 1, column 4"),
        ("a: !!set {x}", "line 1, column 4"),
        (nested(9), "more than 300,000 values; sweep by range"),
        (nested(9, "{{<<: [{}]}}"), "more than 300,000 values"),
    ],
)  # fmt: skip
def test_text_beyond_the_bounds_is_refused_at_once(text, said):
    began = time.process_time()
    with pytest.raises(JobError) as caught:
        parse_text(text, "job.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("job.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.process_time() - began < 5  # the values that stand in the text, and no more


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n\tb: 2", "cannot start any token; indent with spaces, not tabs"),
        ("a: 1\n  b: 2", "not allowed here; is this line indented as its neighbours?"),
        ("a:\n  b: 2\n c: 3", "'<block mapping start>'; is this line indented as its neighbours?"),
        ("params: {n:8, m: 3}", "line 1, column 10: not valid YAML or JSON: write `n: 8`, with a space after the colon"),
    ],
)  # fmt: skip
def test_what_may_be_wrong_with_the_form_is_told(text, said):
    with pytest.raises(JobError) as caught:
        parse_text(text, "job.yaml")
    assert str(caught.value).endswith(said)


def test_a_name_may_hold_a_colon_or_have_no_value():
    text = "{a, 'n:8', \"m:3\": , k:1: 2, b: }"
    assert parse_text(text, "x") == {"a": None, "n:8": None, "m:3": None, "k:1": 2, "b": None}


def test_text_holds_what_json_can_hold():
    text = "a: &a [1, 1e-4, .inf, null, yes, 2024-01-05, 1:30]\nb: *a\nc: {<<: {d: x}, 1: 0x1f}"
    same = [1, 1e-4, float("inf"), None, True, "2024-01-05", "1:30"]
    assert parse_text(text, "x") == {"a": same, "b": same, "c": {"d": "x", 1: 31}}
    assert parse_text(str([2**64 - 1, -(2**63)]), "x") == [2**64 - 1, -(2**63)]


def test_file_beyond_the_bound_is_refused(tmp_path):
    with (tmp_path / "job.yaml").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with refused(JobError):
        parse_file(tmp_path / "job.yaml")


def test_a_bracket_that_is_left_open_is_told_where_it_is():
    with pytest.raises(JobError) as caught:
        parse_text("kernel: esn\nparams: {n: 5\nsweep: {seeds: 3}\n", "job.yaml")
    assert str(caught.value).endswith("; { in line 2, column 9 may lack its end")
    with refused(JobError):  # the fault has no bracket to name
        parse_text("{range:", "--set sweep.grid.n={range:")


def test_a_file_is_utf_8_whatever_the_locale(tmp_path):
    """As on a node whose locale is C, where Python is kept from taking UTF-8 for it."""
    (tmp_path / "job.yaml").write_text("name: Kötter", encoding="utf-8")
    code = "from pathlib import Path; from jobs.spec.text import parse_file; print(ascii(parse_file(Path('job.yaml'))))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **plain, **path}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout == "{'name': 'K\\xf6tter'}\n"
