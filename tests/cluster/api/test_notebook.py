"""The source of a kernel is found, and computes the same on a worker, in whatever way IPython or Python executed it."""

import ast
import linecache
import sys
import types

import pytest

from cluster import Job
from jobs.errors import JobError

KERNEL = """import jax.numpy as jnp
import numpy as np
from cluster import Job
from ctd.kernel import Params, Traced, Var, one_shot
gain = 2.0
class Wave(Params):
    rate: Traced[float] = 1.0
def height(static, shared, traced, key):
    for k in range(2):
        y = jnp.log(traced.rate) if k else np.float32(1)
    return {"y": gain * jnp.asarray(y)}
wave = one_shot("wave", Wave, {"y": Var((), "1", "y")}, height)
"""
MADE = "job = Job(wave)\ngain = 3.0\n"


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.fixture
def history(monkeypatch):
    """The cells that IPython remembers."""
    cells = [""]
    shell = types.SimpleNamespace(history_manager=types.SimpleNamespace(input_hist_parsed=cells))
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return cells


def execute_cell(text, main, name):
    """Execute a cell as IPython does: each statement is compiled by itself."""
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    for node in ast.parse(text).body:
        exec(compile(ast.Module([node], []), name, "exec"), vars(main))


def cells(main, history, file):
    for number, text in enumerate([KERNEL, MADE], start=1):
        history.append(text.rstrip("\n"))
        execute_cell(text, main, f"<cell {number}>")


def one_cell(main, history, file):
    history.append((KERNEL + MADE).rstrip("\n"))
    execute_cell(KERNEL + MADE, main, "<cell>")


def file_of_python(main, history, file):
    """`ipython FILE.py`, and `%run FILE.py`."""
    file.write_text(KERNEL + MADE)
    exec(compile(KERNEL + MADE, str(file), "exec"), vars(main))


def file_of_cells(main, history, file):
    """`ipython FILE.ipy`."""
    execute_cell(KERNEL + MADE, main, "<cell of a file>")


def file_then_cell(main, history, file):
    """`%run FILE.py`, which leaves its names."""
    file.write_text(KERNEL)
    run = types.ModuleType("__main__")
    exec(compile(KERNEL, str(file), "exec"), vars(run))
    del run.__name__
    vars(main).update({k: v for k, v in vars(run).items() if not k.startswith("__")})
    history.append(f"get_ipython().run_line_magic('run', '{file}')")
    history.append(MADE.rstrip("\n"))
    execute_cell(MADE, main, "<cell after a file>")


WAYS = [cells, one_cell, file_of_python, file_of_cells, file_then_cell]


@pytest.mark.parametrize("way", WAYS)
def test_kernel_is_found_however_it_was_executed(way, main, history, tmp_path):
    way(main, history, tmp_path / "file.py")
    assert main.job._source.startswith('"""Cut out of a notebook or script')
    assert KERNEL.partition("\nclass")[2].replace("\n", "") in main.job._source.replace("\n", "")
    assert "gain = 2.0" in main.job._source
    assert "gain = 3.0" not in main.job._source


PUT = "def put():\n    global gain\n    gain = 2.5\nput()\n"
OTHER = "def other(static, shared, traced, key): return {'y': jnp.exp(traced.rate)}\nglobals()['height'] = other\n"
AGAIN = "wave = one_shot('wave', Wave, {'y': Var()}, height)\n"
LOOP = """def height(static, shared, traced, key):
    y = traced.rate
    if gain:
        y = jnp.log(y){}y = jnp.exp(y)
    return {{'y': y}}
"""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (PUT, "^gain: wave reads it; it is 2.5 here, but 2.0 on a worker, which executes only"),
        ("gain = list(range(99))\ngain.append(1)\ndef put(): gain[0] = 7\nput()\n",
         r"it is \[7, 1, 2.{29}\.\.\. here, but \[0, 1, 2"),
        (OTHER + AGAIN, "^height: wave reads it; another function of this name is here than on a worker"),
        (LOOP.format("\n    ") + "inside = height\n" + LOOP.format("\n        ") + "globals()['height'] = inside\n" + AGAIN,
         "^height: wave reads it; another function"),
        ("wave = one_shot('wave', Wave, {'y': Var((), 'm')}, height)\nkept = wave\n" + AGAIN + "globals()['wave'] = kept\n",
         "^wave: another Kernel of this name is here"),
    ],
)  # fmt: skip
def test_refusal_names_what_differs(changed, said, main, history):
    history.append(KERNEL + changed)
    execute_cell(KERNEL + changed, main, "<cell>")
    with pytest.raises(JobError, match=said):
        Job(main.wave)
