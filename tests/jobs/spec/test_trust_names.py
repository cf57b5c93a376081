"""Whatever a text may make a loader import, the check of trust has judged; what it does not judge is not imported."""

import sys
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctd.catalogue import kernel_names, load_kernel
from ctd.cells import get_cell
from ctd.cells.ungated import get_units
from ctd.fixed_points.network import find_cell, known_cell
from ctd.tasks import get_task
from jobs.errors import JobError
from jobs.plan.items import checked_job
from jobs.spec.job import find_kernel, parse_job
from jobs.spec.trust import modules_of

PIECES = [
    "evil", "evil", "evil", "F", "x", "", "F-x", "F x", " evil", "evil ", "\tevil", "F\n", "1x", "é", "évil", "ﬁn",
    "evil\u200b", "\udcff", "\0", "..", "../evil", "F/x", "evil.py", "F()", "-", "*", "class", "__init__", "leaky", "gru",
    "vanilla", "relu", "ctd",
]  # fmt: skip
JOINTS = [".", ".", ".", ":", "..", ".:", ":.", "::", " . ", "/"]


@st.composite
def spellings(draw):
    """Texts like `evil.F`, `leaky:evil.F-x`, `.evil`, `evil..x`, `evil.F:x`."""
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5))
    text = pieces[0]
    for piece in pieces[1:]:
        text += draw(st.sampled_from(JOINTS)) + piece
    return text


TEXTS = st.one_of(spellings(), st.text(max_size=12))
REAL = {*sys.stdlib_module_names, "ctd", "jobs", "cluster"}
KERNELS = {name: load_kernel(name) for name in kernel_names()}


class Everywhere:
    """A finder and loader: each module that Python does not have is there, empty, and noted when it is imported."""

    def __init__(self):
        self.asked = set()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REAL:
            return None
        self.asked.add(name)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass


@contextmanager
def imported():
    """The names of the modules that are imported meanwhile, of those that only a text can have named."""
    finder = Everywhere()
    sys.meta_path.insert(0, finder)
    try:
        yield finder.asked
    finally:
        sys.meta_path.remove(finder)
        for name in finder.asked:  # none was there before: it would not have been asked for
            sys.modules.pop(name, None)


def judged(modules):
    """With the packages that they lie in, which are imported on the way."""
    parts = [module.split(".") for module in modules]
    return {".".join(part[:k]) for part in parts for k in range(1, len(part) + 1)}


LOADERS = {
    "task": get_task,
    "task by name": lambda text: get_task({"name": text}),
    "cell": get_cell,
    "units": get_units,
    "network": find_cell,
    "field": known_cell,
    "leaky": lambda text: find_cell(f"leaky:{text}"),
}


@pytest.mark.parametrize("loader", LOADERS)
@settings(max_examples=150)
@given(text=TEXTS)
def test_what_a_loader_imports_was_judged(loader, text):
    with imported() as asked, suppress(ValueError):
        LOADERS[loader](text)
    assert asked <= judged(modules_of("fixed_points", {"cell": text}))


@settings(max_examples=150)
@given(text=TEXTS)
def test_what_a_kernels_name_imports_was_judged(text):
    modules = modules_of(text)
    with imported() as asked, suppress(JobError):
        find_kernel(text, None)
    assert asked <= judged(modules)


def test_the_loaders_import_what_a_text_names():
    """That the tests above see imports at all."""
    for loader, text in {
        "task": "evil.x.F",
        "network": "evil.x.F",
        "cell": "leaky:evil.x.F",
    }.items():
        with imported() as asked, suppress(ValueError):
            LOADERS[loader](text)
        assert asked == {"evil", "evil.x"}, loader


SPELT = ["evil.F", "evil.x.F", "leaky:evil.F", "evil.F-x", "evil.F:x", ".evil", "evil..x", "évil.F", "evil.F ", "leaky:evil.F-x"]  # fmt: skip

SOME = ["evil.F", "leaky:evil.x.F", "evil.F-x"]


@pytest.mark.parametrize("name", KERNELS)
def test_no_field_of_a_kernel_imports_what_was_not_judged(name):
    """Of all fields, files too, alone, in a list, as a mapping's value and as its key."""
    params = KERNELS[name].Params
    for field in params.model_fields:
        # In a list or a mapping a text is judged as alone: some spellings stand for all there.
        for text in SPELT:
            inside = ([text], {"name": text}, {text: text}) if text in SOME else ()
            for value in (text, *inside):
                modules = modules_of(name, {field: value})
                with imported() as asked, suppress(ValueError):
                    params.model_validate({field: value})
                assert asked <= judged(modules), (field, value)


@pytest.mark.parametrize("text", SPELT)
def test_no_part_of_a_job_imports_what_was_not_judged(text):
    """Its search, its reductions, how it runs, and what it sweeps."""
    parts = [
        {"params": {"cell": text}},
        {"sweep": {"grid": {"cell": [text]}}},
        {"sweep": [{"zip": {"task.name": [text]}}, {"random": {"cell": {"choice": [text]}}, "samples": 1}]},
        {"sweep": {"grid": {text: [text]}}},
        {"search": {"method": text}},
        {"search": {"method": "population", "metric": text, "every": 1, "params": {text: {"uniform": [0, 1]}}}},
        {"gather": {text: text, "unique_tol": text}},
        {"gather": {"reductions": [{"by": [text], "of": text, text: text}]}},
        {"keep_bits": {text: 3}},
        {"run": {text: text}},
        {"name": text},
    ]  # fmt: skip
    for part in parts:
        content = {"kernel": "fixed_points", **part}
        with imported() as asked, suppress(JobError):
            checked_job(content, KERNELS["fixed_points"], "job")
        try:
            modules = parse_job(content, "job").modules()
        except JobError:
            modules = set()
        assert asked <= judged(modules), part
