"""ctd.batch: slots, microbatches, devices; an item's bits depend on its microbatch's width alone."""

import sys
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from messages import refused
from small import SMALL, small

from ctd.batch import (
    DeviceSlots,
    Layout,
    Run,
    layout_for,
    make_room,
    precision,
    program,
    run_items,
    traced_columns,
)
from ctd.kernel import (
    Batching,
    Params,
    Static,
    Traced,
    Var,
    inputs_of,
    one_shot,
    static_of,
    traced_of,
)
from jobs.inputs.measure import load_group

N = 23
COLUMNS = {
    "n_steps": np.arange(N) % 7 * 4,
    "rate": np.linspace(-0.9, 0.9, N),
    "push": np.stack([np.arange(N) * 0.1, -np.arange(N) * 0.2], axis=1),
}
LAYOUTS = [Layout(23, 23), Layout(8, 4), Layout(5, 1)]


# In float64, in which NumPy's walk is exact; float32: test_round.py.
PARAMS = toy.Walk(dtype="float64")


def run_toy(layout, columns=COLUMNS):
    return run_items(toy.kernel, PARAMS, columns, seed=3, layout=layout)


@pytest.fixture(scope="module")
def walks():
    """Where each item ends, in NumPy."""
    with jax.enable_x64(True):
        return [
            toy.walk(i, 3, 4, 0.0, COLUMNS["n_steps"][i], COLUMNS["rate"][i], COLUMNS["push"][i])
            for i in range(N)
        ]


def test_settings_of_jax_change_no_draw():
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        found = run_toy(LAYOUTS[0])
    np.testing.assert_array_equal(found["x"], run_toy(LAYOUTS[0])["x"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_run_matches_numpy_walk(layout, walks):
    found = run_toy(layout)
    assert found["x"].dtype == np.float64
    # The same operations in the same order: a few units in the last place of numbers near 1.
    np.testing.assert_allclose(found["x"], walks, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(found["steps"], COLUMNS["n_steps"])


@pytest.mark.parametrize(("a", "b"), [(Layout(24, 4), Layout(8, 4)), (Layout(5, 1), Layout(2, 1))])
def test_run_same_bits_at_one_microbatch(a, b):
    one, two = run_toy(a), run_toy(b)
    for name in one:
        assert one[name].tobytes() == two[name].tobytes()


def test_run_neighbour_nan_changes_nothing():
    broken = {**COLUMNS, "rate": COLUMNS["rate"].copy()}
    broken["rate"][5] = np.nan
    good, bad = run_toy(Layout(8, 4)), run_toy(Layout(8, 4), columns=broken)
    assert bad["outcome"][5] == 1
    assert np.isnan(bad["x"][5]).all()
    others = np.arange(N) != 5
    for name in good:
        assert good[name][others].tobytes() == bad[name][others].tobytes()


def toy_run(layout):
    prog = program(toy.kernel, static_of(PARAMS), layout)
    traced = traced_columns(toy.Walk, COLUMNS, "float64")
    return Run(prog, toy.kernel.load(inputs_of(PARAMS)), 3, np.arange(N), traced)


@cache
def undisturbed(layout):
    """A whole run."""
    run = toy_run(layout)
    while not run.finished:
        run.advance()
    return run


def assert_goes_on(before, after, rounds, twice=None):
    """A run in `before`, stopped after so many advances, ends in `after` with the bits of an undisturbed run.

    twice: a layout in which it is stopped again, after one more advance.
    """
    whole, first = undisturbed(before), toy_run(before)
    for _ in range(rounds):
        first.advance()
    if twice:
        second = toy_run(twice)
        second.restore(first.snapshot())
        second.advance()
        first = second
    last = toy_run(after)
    last.restore(first.snapshot())
    assert last.n_finished == first.n_finished
    rows, shown = last.peek(("steps",))
    np.testing.assert_array_less(shown["steps"], COLUMNS["n_steps"][rows] + 1)
    while not last.finished:
        last.advance()
    for name in whole.results:
        assert last.results[name].tobytes() == whole.results[name].tobytes()
    return last.rounds, whole.rounds


@pytest.mark.parametrize("rounds", [0, 1, 3, 6])
def test_run_snapshot_goes_on_with_same_bits(rounds):
    last, whole = assert_goes_on(Layout(8, 4), Layout(8, 4), rounds)
    assert last == whole


@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize(
    ("before", "after", "twice"),
    [
        (Layout(8, 4), Layout(24, 4), None),
        (Layout(24, 4), Layout(8, 4), None),
        # Items that wait for a slot are stopped again.
        (Layout(24, 4), Layout(24, 4), Layout(8, 4)),
        (Layout(5, 1), Layout(5, 1), Layout(2, 1)),
    ],
)
def test_run_snapshot_goes_on_in_other_slots(before, after, twice, rounds):
    assert_goes_on(before, after, rounds, twice)


def test_run_does_not_start_more_than_needed():
    """Finished items leave: 100 items of which one runs long take far fewer rounds than 100 in turn."""
    steps = np.full(100, 3)
    steps[0] = 90
    params = toy.Walk()
    traced = traced_columns(toy.Walk, {
        "n_steps": steps, "rate": np.zeros(100), "push": np.zeros((100, 2))}, "float32")  # fmt: skip
    prog = program(toy.kernel, static_of(params), Layout(4, 2))
    run = Run(prog, toy.kernel.load(inputs_of(params)), 0, np.arange(100), traced)
    while not run.finished:
        run.advance()
    # 3 of the 4 slots take 33 items each, one round an item, beside the long one's 30 rounds.
    assert run.rounds <= 40


@pytest.mark.parametrize(
    "columns",
    [
        {"n": [1, 2]},
        {"m": [1, 2]},
        {"rate": 0.1},
        {"rate": [0.1], "n_steps": [1, 2]},
        {"rate": []},
        {"n_steps": [0.5, 1.7]},
        {"rate": ["0.1"]},
        {"rate": [0.1 + 1j]},
        {"rate": [0.1, -2, 0.7]},
        {"n_steps": [2**31]},
    ],
)
def test_run_items_bad_columns(columns):
    with refused(ValueError):
        run_items(toy.kernel, toy.Walk(), columns)


def test_run_items_takes_whole_numbers_of_a_real_field_as_reals():
    class Power(Params):
        x: Traced[float] = 0.0

    run = lambda static, shared, traced, key: {"y": traced.x**5}
    kernel = one_shot("power", Power, {"y": Var()}, run)
    np.testing.assert_array_equal(
        run_items(kernel, Power(), {"x": [100, 101]})["y"], np.float32([1e10, 101.0**5])
    )


def test_layout_for_rounds_up_to_microbatch():
    assert layout_for(toy.kernel, 100) == Layout(8, 1)
    of = lambda m: replace(toy.kernel, batching=Batching(width=8, microbatches=(m,)))
    assert layout_for(of(8), 3) == Layout(3, 3)
    assert layout_for(of(3), 100) == Layout(9, 3)


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("toy", "esn", "fixed_points")
        else pytest.param(name, marks=pytest.mark.endurance)
        for name in sorted(SMALL)
    ],
)
def test_an_advance_is_compiled_for_slots_that_are_not_there_as_for_those_that_are(name):
    """The plan's memory, which needs the shapes of the slots alone, is that of the program that runs."""
    kernel, params = small(name)
    shared, static = load_group(kernel, params, "."), static_of(params)
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    traced = traced_columns(type(params), columns, static.dtype)
    args = program(kernel, static, Layout(4, 2)), shared, 0, np.zeros(1, int), traced
    absent = DeviceSlots(*args).abstract_slots()
    aval = lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type)
    with precision(static):
        there = jax.eval_shape(lambda: Run(*args)._slots)  # what they would be; nothing is compiled
        assert jax.tree.map(aval, there) == jax.tree.map(aval, absent)


def test_programs_are_forgotten_before_a_process_has_too_many_maps(monkeypatch):
    """And not at each new program, where what is in use takes as many."""
    module = sys.modules["ctd.batch.program"]
    before = run_toy(Layout(8, 4))
    assert program.cache_info().currsize
    monkeypatch.setattr(module, "_maps_kept", 0)
    make_room(1)
    assert not program.cache_info().currsize
    after = run_toy(Layout(8, 4))
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    make_room(1)
    assert program.cache_info().currsize


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1, 1.0), (1, True)])
def test_static_values_that_are_equal_have_programs_of_their_own(one, other):
    class Own(Params):
        z: Static[bool | int | float] = 0

    def told(static, shared, traced, key):
        kind = [bool, int, float].index(type(static.z))
        return {"x": jnp.float32(np.copysign(1 + kind, static.z))}

    kernel = one_shot("own", Own, {"x": Var()}, told)
    found = [float(run_items(kernel, Own(z=z))["x"][0]) for z in (one, other)]
    assert found[0] != found[1]
