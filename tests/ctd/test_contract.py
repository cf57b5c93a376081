"""ctd.contract: every way to get a kernel wrong is told by function, line and what was expected."""

import sys

import pytest
from messages import refused

from ctd.contract import located
from jobs.errors import JobError
from jobs.inputs import measure
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.store import Store

RIGHT = """
import jax, jax.numpy as jnp
from ctd.kernel import Kernel, Batching, Display, Outcome, Params, Static, Tables, Traced, Var

class P(Params):
    n: Static[int] = 3
    rate: Traced[float] = 0.5

def load(inputs):
    return jnp.ones(inputs.n)

def init(static, shared, traced, key):
    return {"x": shared, "k": jnp.int32(0)}

def advance(static, shared, traced, key, s):
    return {"x": traced.rate * s["x"], "k": s["k"] + 1}

def finished(s):
    return s["k"] >= 5

def result(static, shared, traced, key, s):
    return {"x": s["x"]}

kernel = Kernel("own", P, {"x": Var(("unit",))}, init, advance, finished, result, load)
"""

MISTAKES = {
    "annotation": ("n: Static[int]", "n: int", ["P.n: write its type as Static", "line 5"]),
    "import": ("import jax,", "import jaxx,", ["cannot be imported", "No module named 'jaxx'"]),
    "syntax": ("def init(", "def init((", ["cannot be imported: SyntaxError", "line 12"]),
    "no finished": ("advance, finished, result, load", "advance, result=result", ["'finished'"]),
    "no kernel": ("kernel = Kernel", "other = Kernel", ["defines no `kernel`"]),
    "load": ("jnp.ones(inputs.n)", "inputs.m", ["load: AttributeError", "line 10, in load: "]),
    "init": ("shared, \"k\"", "static.m, \"k\"", ["init: static has no field 'm'", "line 13, in init: "]),
    "shape": ("traced.rate * s[\"x\"]", "jnp.ones(4)", ["advance: x is float32[3] in the state and float32[4]"]),
    "dtype": ("traced.rate * s[\"x\"]", "s[\"x\"].astype(\"float16\")", ["advance: x is float32[3] in the state and float16[3]"]),
    "names": ("\"k\": s[\"k\"] + 1", "\"l\": s[\"k\"]", ["advance: k of the state is not returned"]),
    "more": ("\"k\": s[\"k\"] + 1", "\"k\": s[\"k\"], \"l\": 1", ["advance: l is not part of the state"]),
    "structure": ("{\"x\": traced.rate * s[\"x\"], \"k\": s[\"k\"] + 1}", "(s,)", ["advance: "]),
    "if": ("    return {\"x\": traced", "    if traced.rate > 1: s = s\n    return {\"x\": traced", ["jnp.where or lax.cond", "line 16, in advance: if traced.rate > 1"]),
    "carry": ("    return {\"x\": traced", "    jax.lax.fori_loop(0, 2, lambda _, c: c > 0, s[\"x\"])\n    return {\"x\": traced", ["has type float32[3]", "has type bool[3]", "line 16, in advance: jax.lax.fori"]),
    "another key": ("shared, \"k\"", "jax.random.split(jax.random.key(0, impl=\"rbg\"), 3), \"k\"", ["init: the state has a key<rbg>; expected a key<fry>"]),
    "static list": ("n: Static[int] = 3", "n: Static[list[int] | None] = None", ["P.n: Static[list[int] | None] given; expected a tuple, or Data[...]", "line 5"]),
    "no Var": ("Var((\"unit\",))", "(\"unit\",)", ["kernel own: x: ('unit',) given; expected Var("]),
    "axes as text": ("Var((\"unit\",))", "Var(\"unit\")", ["kernel own: x: Var(axes='unit'"]),
    "key": ("s[\"k\"] >= 5", "s[\"kk\"] >= 5", ["finished: KeyError: 'kk'"]),
    "arguments": ("def finished(s)", "def finished(s, t)", ["finished: TypeError", "'t'; it is called as finished(state)"]),
    "arguments of init": ("def init(static, ", "def init(", ["init: TypeError", "given; it is called as init(static, shared, traced, key)"]),
    "one boolean": ("s[\"k\"] >= 5", "s[\"x\"] >= 5", ["finished: one boolean expected, got bool[3]"]),
    "a number": ("s[\"k\"] >= 5", "s[\"k\"]", ["finished: one boolean expected, got int32[]"]),
    "no dict": ("{\"x\": s[\"x\"]}", "s[\"x\"]", ["result: a dict of name -> array expected, got float32[3]"]),
    "unknown": ("{\"x\": s[\"x\"]}", "{\"y\": s[\"x\"]}", ["result: y is returned, which `dims` does not describe"]),
    "axes": ("Var((\"unit\",))", "Var()", ["result: x is float32[3], `dims` gives it the axes (); write Var((\"axis0\",), ...), with a name for each axis, or return a scalar"]),
    "two axes": ("{\"x\": s[\"x\"]}", "{\"x\": jnp.outer(s[\"x\"], s[\"x\"])}", ["write Var((\"axis0\", \"axis1\"), ...), with"]),
    "a static field as traced": ("shared, \"k\"", "shared * traced.n, \"k\"", ["init: n is static: write static.n", "line 13"]),
    "a traced field as static": ("traced.rate", "static.rate", ["advance: rate is traced: write traced.rate"]),
    "no axes": ("{\"x\": s[\"x\"]}", "{\"x\": s[\"x\"][0]}", ["the axes ('unit',); write Var((), ...) or return an array with the axes ('unit',)"]),
    "metric": ("result, load)", "result, load, display=Display(metric=\"x\"))", ["metric: x is float32[3], expected one real number an item"]),
    "chosen by": ("result, load)", "result, load, display=Display(chosen_by=\"x\"))", ["chosen_by: x is float32[3], expected one real number an item"]),
    "curves": (
        "return {\"x\": s[\"x\"]}\n\nkernel = Kernel(\"own\", P, {\"x\": Var((\"unit\",))}, init, advance, finished, result, load)",
        "return {\"x\": s[\"x\"][0]}\n\nkernel = Kernel(\"own\", P, {\"x\": Var()}, init, advance, finished, result, load, display=Display(curves=(\"x\",)))",
        ["curves: x is float32[], expected real numbers along one axis"],
    ),
    "complex metric": (
        "return {\"x\": s[\"x\"]}\n\nkernel = Kernel(\"own\", P, {\"x\": Var((\"unit\",))}, init, advance, finished, result, load)",
        "return {\"x\": 1j * s[\"x\"][0]}\n\nkernel = Kernel(\"own\", P, {\"x\": Var()}, init, advance, finished, result, load, display=Display(metric=\"x\"))",
        ["metric: x is complex64[], expected one real number an item"],
    ),
    "no outcome": (
        "{\"x\": Var((\"unit\",))}, init, advance, finished, result, load)",
        "{\"x\": Var((\"unit\",)), \"outcome\": Var()}, init, advance, finished, result, load, outcomes=(Outcome(\"fixed\"),))\n",
        ["result: outcome is not returned; return the index of how the item ended, 0 for 'fixed'"],
    ),
    "a real outcome": (
        "return {\"x\": s[\"x\"]}\n\nkernel = Kernel(\"own\", P, {\"x\": Var((\"unit\",))}, init, advance, finished, result, load)",
        "return {\"outcome\": s[\"x\"][0]}\n\nkernel = Kernel(\"own\", P, {\"outcome\": Var()}, init, advance, finished, result, load)",
        ["result: outcome is float32[], expected one int32"],
    ),
    "bfloat16": ("{\"x\": s[\"x\"]}", "{\"x\": s[\"x\"].astype(\"bfloat16\")}", ["result: x is bfloat16[3], which no store holds"]),
    "a key": ("{\"x\": s[\"x\"]}", "{\"x\": jax.random.split(key, 3)}", ["result: x is key<fry>[3], which no store holds"]),
    "coords": ("result, load)", "result, load, coords=lambda inputs, shared: inputs.m)", ["coords: AttributeError"]),
    "axis of coords": ("result, load)", "result, load, coords=lambda inputs, shared: {\"unti\": [1, 2, 3]})", ["coords: no result has the axis 'unti'; did you mean 'unit'?"]),
    "advances": ("result, load)", "result, load, advances=lambda inputs: inputs.n - 6)", ["kernel own: advances: ValueError: -3 given; expected 0 or more"]),
    "microbatches": ("result, load)", "result, load, batching=Batching(cpu_microbatches=(1, -2)))", ["microbatches: -2 given; expected 0 or more"]),
    "summary": ("result, load)", "result, load, display=Display(summary=(\"y\",)))", ["summary: `dims` or `tables` has no 'y'"]),
}  # fmt: skip


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make the store of a kernel with this source."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"contract_{abs(hash(str(tmp_path)))}"

    def made(text):
        (tmp_path / f"{name}.py").write_text(text)
        spec = parse_job({"kernel": name, "sweep": {"seeds": 2}}, "job.yaml")
        address = str(tmp_path / "s.zarr")
        return open_or_create(spec, str(tmp_path), "job.yaml", address, SerialExecutor(1))

    return made


def test_a_kernel_that_is_right_makes_a_store(make):
    assert make(RIGHT).names(0) == ["x"]


@pytest.mark.parametrize(
    ("init", "advance"),
    [
        ('{"x": shared, "k": 0}', '{"x": s["x"], "k": s["k"] + jnp.int32(1)}'),
        ('{"x": jnp.full(3, 0.0), "k": 0}', '{"x": s["x"] * jnp.bfloat16(2), "k": s["k"] + 1}'),
        ('{"x": shared, "k": 0, "key": key, "none": None}', '{**s, "k": s["k"] + 1}'),
    ],
)
def test_a_state_of_python_numbers_is_right(make, init, advance):
    text = RIGHT.replace('{"x": shared, "k": jnp.int32(0)}', init)
    text = text.replace('{"x": traced.rate * s["x"], "k": s["k"] + 1}', advance)
    store = make(text)
    run_shards(store, SerialExecutor(1))
    assert store.committed.numbers() == {0}


def test_a_load_that_fails_in_a_worker_is_tried_again(make):
    text = RIGHT.replace("def load(inputs):", "CALLS = []\ndef load(inputs):\n    CALLS.append(0)")
    store = make(
        text.replace(
            "    return jnp.ones", "    if len(CALLS) == 2: raise RuntimeError\n    return jnp.ones"
        )
    )
    measure._last.clear()  # a worker in a process of its own has not loaded anything yet
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.retried, store.committed.numbers()) == (1, {0})


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_and_nothing_is_made(make, tmp_path, mistake):
    old, new, said = MISTAKES[mistake]
    assert RIGHT.count(old) == 1
    with pytest.raises(JobError) as caught:
        make(RIGHT.replace(old, new))
    text = str(caught.value)
    assert all(part in text for part in said), text
    assert not any(part in text for part in ("site-packages", "catalogue.py", "dotted.py"))
    assert len(text.splitlines()) <= 5
    assert not Store.exists(str(tmp_path / "s.zarr"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("static, shared, traced", "lyap: TypeError: lyap() takes 3 positional arguments but 4 were given; it is called as lyap(static, shared, traced, key)"),
        ("static, shared, traced, key", "lyap: x is float32[3], `dims` gives it the axes ();"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_function_of_one_shot_names_it(make, arguments, said):
    head = RIGHT.partition("def load")[0].replace("import Kernel,", "import one_shot,")
    work = f'def lyap({arguments}):\n    return {{"x": jnp.ones(3)}}\n'
    with pytest.raises(JobError) as caught:
        make(f'{head}{work}kernel = one_shot("own", P, {{"x": Var()}}, lyap)\n')
    assert f"kernel own: {said}" in str(caught.value)


def test_located_of_an_exception_without_text_or_frames():
    assert located(ValueError()) == "ValueError: "


NAMES = {
    "result with a slash": (('"x": Var', '"a/x": Var'), ('return {"x": s["x"]}', 'return {"a/x": s["x"]}')),
    "result like Zarr's own": (('"x": Var', '"zarr.json": Var'), ('return {"x": s["x"]}', 'return {"zarr.json": s["x"]}')),
    "long result": (('"x": Var', '201 * "x": Var'), ('return {"x": s["x"]}', 'return {201 * "x": s["x"]}')),
    "axis of two lines": (('Var(("unit",))', 'Var(("a\\nb",))'),),
    "reduced with a slash": (("result, load)", 'result, load, tables=Tables(dims={"a/x": Var()}))'),),
    "coords without an axis": (("result, load)", 'result, load, coords=lambda inputs, shared: {"unit": 3})'),),
    "result with a dot first": (('"x": Var', '".x": Var'), ('return {"x": s["x"]}', 'return {".x": s["x"]}')),
    "result like a pack": (('"x": Var', '"numbers.x": Var'), ('return {"x": s["x"]}', 'return {"numbers.x": s["x"]}')),
    "axis like a pack": (('Var(("unit",))', 'Var(("packed.x.entry",))'),),
    "result like a parameter": (('"x": Var', '"rate": Var'), ('return {"x": s["x"]}', 'return {"rate": s["x"]}')),
    "result like a column of items": (('"x": Var', '"row": Var'), ('return {"x": s["x"]}', 'return {"row": s["x"]}')),
    "parameter like a column of items": (("n: Static[int] = 3", "n: Static[int] = 3\n    group: Static[int] = 3"),),
    "axis like a column": (("result, load)", 'result, load, coords=lambda inputs, shared: {"item": [1, 2, 3]})'),),
    "axis like the items'": (('Var(("unit",))', 'Var(("item",))'),),
    "result like its axis": (("result, load)", 'result, load, coords=lambda inputs, shared: {"x": [1, 2, 3]})'),),
    "axis of two lengths": (("result, load)", 'result, load, coords=lambda inputs, shared: {"unit": [1, 2]})'),),
}  # fmt: skip


@pytest.mark.parametrize("mistake", NAMES)
def test_names_that_cannot_stand_beside_each_other_in_a_store(make, mistake):
    text = RIGHT
    for old, new in NAMES[mistake]:
        assert old in text
        text = text.replace(old, new)
    with refused(JobError):
        make(text)
