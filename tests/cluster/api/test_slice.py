"""The statements that define a name, and no others."""

import pytest

from cluster.api.slice import module_text
from jobs.errors import JobError

CASES = {
    "what it needs, and what that needs": (
        ["import os\nimport sys", "a = 1\nb = a + 1\nunused = 7", "def f():\n    return b"],
        "a = 1\n\nb = a + 1\n\ndef f():\n    return b\n",
    ),
    "changes of a value": (
        ["d = {}", "d['x'] = 1\nd.update(y=2)", "d |= {'z': 3}", "def f(): return d"],
        "d = {}\n\nd['x'] = 1\n\nd.update(y=2)\n\nd |= {'z': 3}\n\ndef f(): return d\n",
    ),
    "a function of a module changes nothing": (
        ["import os", "os.makedirs('a')\nprint(os)", "def f(): return os"],
        "import os\n\ndef f(): return os\n",
    ),
    "now: the value that it had then": (
        ["n = 1", "def f(k=n): return k", "n = 2"],
        "n = 1\n\ndef f(k=n): return k\n",
    ),
    "later: the value that it has at last": (
        ["n = 1", "def f(): return n", "n = 2"],
        "def f(): return n\n\nn = 2\n",
    ),
    "a cell executed again": (["def f(): return 1", "def f(): return 2"], "def f(): return 2\n"),
    "names inside of functions are their own": (
        ["x = plot()", "def f(x):\n    y = [x for x in range(x)]\n    return y"],
        "def f(x):\n    y = [x for x in range(x)]\n    return y\n",
    ),
    "decorators, bases and annotations": (
        [
            "import abc",
            "deco = abc.abstractmethod\nclass B: pass",
            "@deco\nclass f(B):\n    a: B = 1",
        ],
        "import abc\n\ndeco = abc.abstractmethod\n\nclass B: pass\n\n@deco\nclass f(B):\n    a: B = 1\n",
    ),
    "comprehensions, whose names are their own": (
        ["g = 2", "w = [g * i for i in range(3)]\nv = {k: 1 for k in w}", "def f(): return v"],
        "g = 2\n\nw = [g * i for i in range(3)]\n\nv = {k: 1 for k in w}\n\ndef f(): return v\n",
    ),
    "the name of an exception": (
        [
            "try:\n    import nothing_there\nexcept ImportError as e:\n    m = str(e)",
            "def f(): return m",
        ],
        "try:\n    import nothing_there\nexcept ImportError as e:\n    m = str(e)\n\ndef f(): return m\n",
    ),
    "a block that may leave a name as it was": (
        ["g = 3.0\ndebug = False", "if debug:\n    g = 1.0", "def f(): return g"],
        "g = 3.0\n\ndebug = False\n\nif debug:\n    g = 1.0\n\ndef f(): return g\n",
    ),
    "magics and cells that failed": (["%matplotlib inline", "def f(:", "f = 1"], "f = 1\n"),
    "cells that failed before they were executed": (
        ["f = 1", "def g(a, a): return a", "f = 2\nreturn f", "nonlocal f"],
        "f = 1\n",
    ),
    "cells that wait at the top": (
        ["g = 1", "x = await g", "def f(): return g"],
        "g = 1\n\ndef f(): return g\n",
    ),
    "form feeds": (
        ["d = str\n\f\n@d\ndef f(): return 1\n"],
        "d = str\n\n@d\ndef f(): return 1\n",
    ),
    "blocks, unpacking and aliases": (
        [
            "import numpy.linalg as la, os.path",
            "if la:\n    g = 1\nelse:\n    g = 2",
            "f, h = g, 3",
        ],
        "import numpy.linalg as la, os.path\n\nif la:\n    g = 1\nelse:\n    g = 2\n\nf, h = g, 3\n",
    ),
    "functions that call each other": (
        ["def f(n): return g(n)", "def g(n): return n and f(n - 1)"],
        "def f(n): return g(n)\n\ndef g(n): return n and f(n - 1)\n",
    ),
    "a builtin's name given anew": (
        ["sum = len", "def f(): return sum([max(1, 2)])"],
        "sum = len\n\ndef f(): return sum([max(1, 2)])\n",
    ),
    "globals declared in a function": (
        ["count = 0", "def f():\n    global count\n    count += 1"],
        "count = 0\n\ndef f():\n    global count\n    count += 1\n",
    ),
}


@pytest.mark.parametrize(("cells", "text"), CASES.values(), ids=CASES)
def test_slice_is_what_defines_the_name(cells, text):
    assert module_text(["f"], cells) == text


@pytest.mark.parametrize(("cells", "text"), CASES.values(), ids=CASES)
def test_slice_can_be_executed(cells, text):
    """The statements alone define the name: no NameError."""
    space = {"plot": None}
    exec(compile(text, "slice", "exec"), space)
    assert "f" in space


@pytest.mark.parametrize(("line", "value"), [(None, 3), (4, 2), (3, 2), (2, 1)])
def test_slice_ends_before_the_statement_under_way(line, value):
    cells = ["def f(): return n", "n = 1\nn = 2\nfor n in [3]:\n    abs(n)"]
    text = module_text(["f"], cells, line)
    space = {}
    exec(compile(text, "slice", "exec"), space)
    assert space["f"]() == value


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["g = 1"], "f: is not defined at the top level"),
        (["from numpy import *", "f = array(1)"], "array: is used by `f = array"),
        (["f = lambda: get_ipython()"], "get_ipython: is used by"),
        (["f += 1"], "f: is not defined at the top level"),
    ],
)
def test_slice_says_what_is_missing(cells, said):
    with pytest.raises(JobError, match=said.split("`")[0]):
        module_text(["f"], cells)
