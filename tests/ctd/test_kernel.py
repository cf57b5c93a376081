"""The kernel contract, over every kernel of ctd, the example's and the tests' own."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from messages import refused
from places import EXAMPLES
from pydantic import ValidationError
from small import results, runs, small

from ctd.batch import Layout, evaluated, precision, traced_columns
from ctd.catalogue import kernel_names, load_kernel
from ctd.kernel import (
    Data,
    Display,
    Kind,
    Outcome,
    Params,
    Static,
    Traced,
    Var,
    field_kinds,
    inputs_of,
    one_shot,
    static_of,
    traced_of,
)
from jobs.store.checkpoint import decode, encode


@pytest.fixture(params=sorted({*kernel_names(), "kuramoto", "lyapunov", "toy"}))
def case(request):
    return small(request.param)


def test_contract_results_are_described(case):
    """Every result has its axes, units and a name; equal axis names have equal lengths.

    Evaluation refuses an advance that changes the state's shapes: tests/ctd/test_contract.py.
    """
    kernel, params = case
    static = static_of(params)
    with precision(static):
        shared = kernel.load(inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    traced = traced_columns(type(params), columns, static.dtype)
    first = jax.tree.map(lambda leaf: leaf[0], traced)
    results = evaluated(kernel, static, shared, first).results
    lengths = {}
    for name, shape in results.items():
        var = kernel.dims[name]
        assert len(var.axes) == len(shape.shape), name
        assert var.units, name
        assert var.long_name, name
        assert len(set(var.axes)) == len(var.axes), f"{name}: an axis stands twice"
        for axis, length in zip(var.axes, shape.shape, strict=True):
            assert lengths.setdefault(axis, length) == length, f"{name}: {axis}"
    if not kernel.coords:
        return
    found = kernel.coordinates(inputs_of(params), shared)
    assert {axis: len(one.values) for axis, one in found.items()}.items() <= lengths.items()


def test_contract_names_do_not_collide(case):
    """Sweep columns and results share one namespace in the store."""
    kernel, _ = case
    own = {"item", "status", "group", "row", "seed"}
    assert not set(kernel.dims) & (set(kernel.Params.model_fields) | own)
    assert set(kernel.display.summary) <= set(kernel.tables.dims or kernel.dims)
    assert all(
        kernel.dims[name].axes == ()
        for name in (kernel.display.metric, kernel.display.chosen_by)
        if name
    )
    assert all(len(kernel.dims[name].axes) == 1 for name in kernel.display.curves)
    assert ("outcome" in kernel.dims) == bool(kernel.outcomes)


def test_contract_static_is_hashable_and_json(case):
    kernel, params = case
    assert hash(static_of(params)) == hash(static_of(params))
    content = json.loads(json.dumps(params.model_dump(mode="json")))
    assert kernel.Params.model_validate(content) == params


def test_contract_every_field_is_explained(case):
    kernel, _ = case
    for name, info in kernel.Params.model_fields.items():
        if name not in ("dtype",) and kernel.name != "toy":
            assert info.description, f"{kernel.name}.{name}"


def test_contract_item_does_not_depend_on_neighbours(case):
    """Alone or among others, in one microbatch or the next: the same bits."""
    kernel, _ = case
    several, alone = results(kernel.name), results(kernel.name, 1)
    for name in alone:
        assert alone[name][0].tobytes() == several[name][0].tobytes(), name
    if kernel.outcomes:
        assert set(np.unique(several["outcome"])) <= set(range(len(kernel.outcomes)))


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("kuramoto", "similarity")
        else pytest.param(name, marks=pytest.mark.endurance)
        for name in sorted({*kernel_names(), "kuramoto"})
    ],
)
def test_contract_item_does_not_depend_on_the_number_of_slots(name):
    """A program of fewer slots has a loop of its own round the same code."""
    several, few = results(name), results(name, 1, Layout(2, 2))
    for key in few:
        assert few[key][0].tobytes() == several[key][0].tobytes(), key


def test_contract_checkpoint_goes_on_with_the_same_bits(case):
    """Bytes written after each advance and read into a fresh run end in the bits of an undisturbed one."""
    name = case[0].name
    new = runs(name)
    run = new()
    while not run.finished:
        run.advance()
        identity, saved = decode(encode(run.snapshot(), {"a": 1}))
        assert identity == {"a": 1}
        run = new()
        run.restore(saved)
    for key, values in results(name).items():
        assert run.results[key].dtype == values.dtype
        assert run.results[key].tobytes() == values.tobytes(), key


# --- Params and loading ---------------------------------------------------------------------------


def test_params_need_a_kind():
    with refused(TypeError):
        type("Bad", (Params,), {"__annotations__": {"rate": float}, "rate": 1.0, "__module__": "m"})


@pytest.mark.parametrize("kind", [str, float | None, list[float]])
def test_a_traced_field_is_numbers(kind):
    with refused(TypeError):
        type("Bad", (Params,), {"__annotations__": {"rate": Traced[kind]}, "__module__": "m"})


def test_params_views_split_by_kind():
    class Some(Params):
        n: Static[int] = 3
        path: Data[str] = "a"
        rate: Traced[float] = 0.5

    params = Some()
    assert static_of(params)._asdict() == {"dtype": "float32", "n": 3}
    assert inputs_of(params)._asdict() == {"dtype": "float32", "n": 3, "path": "a"}
    assert traced_of(params)._asdict() == {"rate": 0.5}
    assert field_kinds(Some)["path"] is Kind.DATA
    with pytest.raises(ValidationError):
        Some(rats=1)


@pytest.mark.parametrize(
    "name",
    [
        "train_rn",
        "json",
        "batch",
        "decay.py",
        "../lab/decay",
        "wilson-cowan.py",
        "no.such.module",
    ],
)
def test_load_kernel_refuses(name):
    with refused(ValueError):
        load_kernel(name)


def test_an_unknown_kernel_is_also_looked_for_beside_the_job(tmp_path):
    (tmp_path / "kuramoto.py").touch()
    with refused(ValueError):
        load_kernel("kuramotto", str(tmp_path))
    (tmp_path / "wilson-cowan.py").touch()
    for name in ("wilson-cowan", "wilson_cowan"):
        with refused(ValueError):
            load_kernel(name, str(tmp_path))


def test_load_kernel_shows_a_users_missing_import(tmp_path, monkeypatch):
    (tmp_path / "broken_kernel.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with refused(ModuleNotFoundError):
        load_kernel("broken_kernel")


def test_kernel_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_kernel("toy").name = "other"


def test_example_kernel_is_short():
    """The promise of the README: a kernel of one's own in under 40 lines."""
    source = EXAMPLES / "kuramoto.py"
    assert len(source.read_text().splitlines()) < 40


@pytest.mark.parametrize(
    ("outcomes", "dims"),
    [
        (("fixed", "cycle"), {"outcome": Var()}),
        ((Outcome("fixed"),), {"x": Var()}),
    ],
)
def test_outcomes_that_are_none_are_refused_where_the_kernel_is_made(outcomes, dims):
    with refused(TypeError) as caught:
        one_shot("mine", Params, dims, lambda *a: {}, outcomes=outcomes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "display",
    [
        Display(metric="radiu"),
        Display(chosen_by="radiu"),
        Display(curves=("radius", "radiu")),
    ],
    ids=["metric", "chosen by", "curves"],
)
def test_results_that_there_are_not_are_refused_where_the_kernel_is_made(display):
    with refused(TypeError):
        one_shot("mine", Params, {"radius": Var()}, lambda *a: {}, display=display)
