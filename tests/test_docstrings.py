"""The docstrings of public functions name what they take, return and raise; their examples run, and print what stands below them.

A module takes part as soon as its source holds an example. An example sees what its module defines and imports, and besides
`jax`, `jnp`, `np`, `jobs` and the store points.zarr, in an empty folder that it may write to. Numbers are compared as text: round them
(`.round(3)`), since the last bits differ between machines; `...` stands for any text.
"""

import doctest
import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from page_stores import finished
from places import ROOT
from public import PACKAGES, functions

import jobs
from ctd import similarity
from ctd.fixed_points import cycles, find, follow, lyapunov
from ctd.fixed_points.continuation import Continuation
from ctd.fixed_points.exponents import Trajectory
from ctd.fixed_points.limit_cycles import LimitCycle
from ctd.fixed_points.search.params import FixedPoint
from ctd.fixed_points.search.params import Options as FixedPointOptions
from ctd.similarity import compare
from ctd.similarity.params import Comparison

MODULES = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("ctd", "jobs", "cluster")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
)


SLOW = {
    "ctd.batch.items", "ctd.cells", "ctd.cells.piecewise", "ctd.esn.nvar", "ctd.fixed_points.notebook", "ctd.lfads",
    "ctd.lfads.distributions", "ctd.lfads.generator", "ctd.lfads.metrics", "ctd.lfads.scores", "ctd.reconstruct.measures",
    "ctd.similarity.dynamics", "ctd.tasks.chaotic", "ctd.tasks.decisions", "ctd.tasks.flipflop", "ctd.tasks.spiking",
    "ctd.tasks.task", "ctd.tasks.white_noise",
}  # fmt: skip
"""Their examples compile dozens of programs, two thirds of those of all examples; the tests beside them in tests/ctd/ call the
same functions in the same way."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.endurance] * (name in SLOW)) for name in MODULES],
)
def test_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    if "points.zarr" in inspect.getsource(module):
        (tmp_path / "points.zarr").symlink_to(finished("fixed_points").address)
    given = {**vars(module), "jax": jax, "jnp": jnp, "np": np, "jobs": jobs}
    found = [t for t in doctest.DocTestFinder().find(module, globs=given) if t.examples]
    assert found, "no docstring of a function, a class or the module holds the example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


PUBLIC = dict(sorted(functions(PACKAGES)))


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_sections(name):
    """Every parameter below Args, a result below Returns, and below Raises the errors of a function that raises some."""
    function = PUBLIC[name]
    signature = inspect.signature(function)
    parts = re.split(r"(?m)^(Args|Returns|Raises):\n", inspect.getdoc(function) or "")
    text, sections = parts[0], dict(zip(parts[1::2], parts[2::2], strict=True))
    parameters = list(signature.parameters.keys() - {"self"})
    # A misspelt keyword would be lost in `**options`.
    assert not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    described = re.findall(r"(?m)^    (\w+): ", sections.get("Args", ""))
    assert sorted(described) == sorted(parameters)
    if parameters and signature.return_annotation not in ("None", None):
        assert sections["Returns"].strip()
    if re.search(r"(?m)^ +raise ", inspect.getsource(function)):
        assert re.search(r"(?m)^    \w+: ", sections["Raises"])
    assert text.strip()
    assert not re.search(r"\bRaises? \w*Error", text)


SETTINGS = {
    find: (FixedPoint, FixedPointOptions),
    follow: (Continuation,),
    cycles: (LimitCycle,),
    lyapunov: (Trajectory,),
    compare: (Comparison, similarity.kernel.tables.Options),
}
"""A function, and the parameters of a kernel that it takes as keywords, with the same defaults."""


@pytest.mark.parametrize("function", SETTINGS, ids=lambda function: function.__name__)
def test_keyword_defaults(function):
    fields = {k: field for model in SETTINGS[function] for k, field in model.model_fields.items()}
    parameters = inspect.signature(function).parameters
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    # Without `x`, a search calls F(h); a job gives F zeros.
    for name in (defaults.keys() & fields.keys()) - {"x"}:
        assert defaults[name] == fields[name].default, name
