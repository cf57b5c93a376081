"""Limit cycles against normal forms and closed forms.

One program holds the flows, and one the maps: which of them an item is, the whole number next to its last state says, to
which that state decays.
"""

import re
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from places import ROOT

from ctd.batch import run_items
from ctd.fixed_points import cycles
from ctd.fixed_points.limit_cycles import LimitCycle, kernel
from ctd.fixed_points.limit_cycles.table import Options
from ctd.fixed_points.network import make_network
from ctd.fixed_points.notebook import Cycles
from ctd.kernel import inputs_of

MU, OMEGA = 0.25, 3.0
PERIOD = 2 * np.pi / OMEGA
R = 3.2
"""The logistic map has a stable cycle of two steps there."""
DOUBLED, CHAOS = 3.566, 3.99
"""A cycle of 16 steps, between 3.5644 and 3.5688 (Feigenbaum), beside one of 8 that repels with -1.17; and chaos."""


def flow(h):
    """Which: 0 Hopf's normal form, 1 decay, 2 an outward spiral, 3 the normal form backwards in time."""
    x, y, which = h
    r2 = x**2 + y**2
    hopf = jnp.array([MU * x - OMEGA * y - x * r2, OMEGA * x + MU * y - y * r2])
    kinds = jnp.array([hopf, jnp.array([-x, -2 * y]), jnp.array([x * r2, y * r2]), -hopf])
    return jnp.append(kinds[jnp.round(which).astype(int)], jnp.round(which) - which)


def step(h):
    """Which: 0 the logistic map, 1 a turn by 1 radian on the circle, 2 half of it, 3 and 4 other logistic maps."""
    x, y, which = h
    c, s = jnp.cos(1.0), jnp.sin(1.0)
    pull = 1.5 - 0.5 * (x**2 + y**2)
    turn = [pull * (c * x - s * y), pull * (s * x + c * y)]
    logistic = lambda r: [r * x * (1 - x), 0 * y]
    kinds = jnp.array([logistic(R), turn, [x / 2, y / 2], logistic(DOUBLED), logistic(CHAOS)])
    return jnp.append(kinds[jnp.round(which).astype(int)], (jnp.round(which) + which) / 2)


def ended(found):
    return [found.outcomes[k] for k in found.results["outcome"]]


def hunted(f, params, cases):
    """{name: what `cycles` finds from these states with these settings} for {name: (states, settings)}, in one run."""
    states = np.concatenate([states for states, _ in cases.values()])
    sizes = [len(states) for states, _ in cases.values()]
    network = make_network(lambda weights, h, x: f(h), {}, states, "float64")
    columns = {"start": np.arange(len(states))}
    for name in {name for _, settings in cases.values() for name in settings}:
        each = [settings.get(name, getattr(params, name)) for _, settings in cases.values()]
        columns[name] = np.repeat(each, sizes)
    results, inputs = run_items(kernel, params, columns, shared=network), inputs_of(params)
    found = {}
    for name, rows in zip(cases, np.split(np.arange(len(states)), np.cumsum(sizes)), strict=False):
        some = {key: values[rows] for key, values in results.items()}
        unique = kernel.tables.reduce(inputs, network, {}, some, Options())
        found[name] = Cycles(some, unique, kernel, network, inputs)
    return found


@pytest.fixture(scope="module")
def flows():
    guess = lambda k: ([[0.4, 0.1, 0]], {"dt": 0.05, "transient": 1000, "period_guess": k * PERIOD + 0.01})  # fmt: skip
    cases = {
        "kinds": (
            [[0.1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 2]],
            {"dt": 0.005, "transient": 8000, "n_steps": 4000},
        ),
        "backwards": ([[0.45, 0.1, 3]], {"transient": 0, "period_guess": 2.0}),
        **{f"{k} turns": guess(k) for k in (1, 2, 3)},
    }
    return hunted(flow, LimitCycle(time="continuous"), cases)


@pytest.fixture(scope="module")
def maps():
    starts = np.random.default_rng(0).uniform(0.1, 0.9, 20)
    many = lambda which: np.column_stack([starts, 0 * starts, np.full(20, which)])
    cases = {
        "kinds": ([[0.3, 0, 0], [0.6, 0, 0], [0.5, 0.1, 1], [0.4, 0.4, 2]], {"transient": 2000}),
        "curve": ([[0.5, 0.1, 1]], {"near": 0.1}),
        DOUBLED: (many(3), {}),
        CHAOS: (many(4), {}),
    }
    return hunted(step, LimitCycle(n_points=32), cases)


def test_cycles_of_flows(flows):
    """Radius sqrt(mu), period 2 pi / omega, multiplier exp(-2 mu T); that of the last state, which decays, is exp(-T).
    Runge and Kutta's error is of order dt^4 = 6e-10."""
    found = flows["kinds"]
    assert ended(found) == ["cycle", "cycle", "point", "diverged"]
    assert np.isnan(found.results["period"][2:]).all()
    unique = found.unique
    assert unique["cycle_period"].tolist() == pytest.approx([PERIOD], rel=1e-8)
    assert unique["cycle_count"].tolist() == [2]
    assert unique["cycle_size"].tolist() == pytest.approx([2 * np.sqrt(MU)], rel=1e-8)
    radius = np.linalg.norm(found.results["cycle_state"][:2, :, :2], axis=-1)
    np.testing.assert_allclose(radius, np.sqrt(MU), rtol=1e-8)
    expected = [1, np.exp(-2 * MU * PERIOD), np.exp(-PERIOD)]
    np.testing.assert_allclose(unique["cycle_multiplier"][0], expected, rtol=1e-6)
    assert unique["cycle_stability"].tolist() == ["stable"]
    assert len(found.figure().axes) == 2


@pytest.mark.endurance  # always: cycles of flows by the kernel, above
def test_cycle_of_van_der_pol_as_the_page_prints_it():
    """The period for mu = 1 to ten digits; the multiplier is exp of the divergence, 1 - x^2, integrated around the cycle
    (Liouville)."""
    page = (ROOT / "docs" / "dynamics.md").read_text()
    blocks = re.findall(r"```python\n([\s\S]*?)\n```\n\n((?:    .*\n)+)", page)
    code, shown = next(block for block in blocks if "van_der_pol" in block[0])
    *lines, last = code.splitlines()
    names = {"jnp": jnp}
    exec("\n".join(lines), names)
    found = eval(last, names)
    assert repr(found).splitlines() == textwrap.dedent(shown).splitlines()
    unique = found.unique
    assert unique["cycle_period"].tolist() == pytest.approx([6.6632868593], rel=1e-8)
    x = unique["cycle_points"][0, :, 0]
    divergence = unique["cycle_period"][0] * np.mean(1 - x**2)
    assert unique["cycle_leading"].tolist() == pytest.approx([np.exp(divergence)], rel=1e-6)


def test_cycles_of_maps(maps):
    """The logistic map's two states (r + 1 +- sqrt((r - 3) (r + 1))) / 2 r, whose multiplier is 4 + 2 r - r^2; a turn by an
    irrational part of the circle never comes back, but by 19 radians, three turns and 0.15, within 0.1 of the circle's size."""
    found = maps["kinds"]
    assert ended(found) == ["cycle", "cycle", "none", "point"]
    assert ended(maps["curve"]) == ["lost"]
    unique = found.unique
    assert unique["cycle_period"].tolist() == [2]
    assert unique["cycle_count"].tolist() == [2]
    root = np.sqrt((R - 3) * (R + 1))
    expected = (R + 1 + np.array([-root, root])) / (2 * R)
    np.testing.assert_allclose(np.sort(unique["cycle_points"][0, :2, 0]), expected, rtol=1e-12)
    assert np.isnan(unique["cycle_points"][0, 2:]).all()
    np.testing.assert_allclose(
        unique["cycle_multiplier"][0], [1 / 4, 4 + 2 * R - R**2, 0], atol=1e-9
    )


def test_cycles_on_both_sides_of_a_saddle_are_two():
    """Both spend most of their period near it; the first is found twice, at two phases."""

    def path(phase):
        turn = np.pi * (1 + np.tanh(10 * ((np.arange(64) + phase) / 64 - 0.5)))
        return np.stack([1.001 - np.cos(turn), np.sin(turn)], axis=1)

    states = np.stack([path(0), path(0.5), -path(0)])
    results = {
        "outcome": np.zeros(3, int),
        "period": np.ones(3),
        "cycle_state": states,
        "multiplier": np.tile([[1.0, 0.0], [0.5, 0.0]], (3, 1, 1)),
        "size": np.full(3, 2.0),
        "constant_input": np.zeros((3, 0)),
    }
    inputs = inputs_of(LimitCycle(time="continuous"))
    unique = kernel.tables.reduce(inputs, None, {}, results, Options())
    assert unique["cycle_count"].tolist() == [2, 1]
    assert unique["cycle_item"].tolist() == [0, 2]


def test_pictures_tell_cycles_apart():
    """Two cycles of a map, of 2 states and of 1, whose rows end in NaN, and eleven."""
    nan = np.nan
    reduced = {
        "cycle_period": np.array([2.0, 1.0]),
        "cycle_stability": np.array(["stable", "unstable"]),
        "cycle_points": np.array([[[0, 1], [2, 4]], [[5, 3], [nan, nan]]]),
        "cycle_multiplier": np.array([[0.5, 0.1], [2.0, 0.5]], complex),
    }
    names = ["cycle 0: period 2, stable", "cycle 1: period 1, unstable"]
    space, spectrum = kernel.display.plots(inputs_of(LimitCycle()), None, {}, {}, reduced)
    for layers, sizes in ((space.layers, [2, 1]), (spectrum.layers[1:], [2, 2])):
        assert [layer.name for layer in layers] == names
        assert [(layer.hollow, layer.hue) for layer in layers] == [(False, 0), (True, 1)]
        assert [len(layer.x) for layer in layers] == sizes
    assert spectrum.layers[2].x.tolist() == [2, 0.5]
    many = {name: np.concatenate([values[:1], *[values[1:]] * 10]) for name, values in reduced.items()}  # fmt: skip
    space, _ = kernel.display.plots(inputs_of(LimitCycle()), None, {}, {}, many)
    assert [(layer.name, len(layer.x)) for layer in space.layers] == [("stable", 2), ("unstable", 10)]  # fmt: skip
    assert space.layers[1].text[9] == "cycle 10: period 1, unstable"


@pytest.mark.parametrize(
    ("r", "period", "ends"), [(DOUBLED, [16], {"cycle"}), (CHAOS, [], {"none", "lost"})]
)
def test_a_return_beside_a_cycle_that_repels_is_none(maps, r, period, ends):
    assert set(ended(maps[r])) <= ends
    assert maps[r].unique["cycle_period"].tolist() == period


def test_unstable_cycle_by_a_guess_of_its_period(flows):
    """The normal form backwards in time: the multiplier is the inverse of the one forwards."""
    unique = flows["backwards"].unique
    assert unique["cycle_period"].tolist() == pytest.approx([PERIOD], rel=1e-8)
    assert unique["cycle_stability"].tolist() == ["unstable"]
    assert unique["cycle_leading"].tolist() == pytest.approx([np.exp(2 * MU * PERIOD)], rel=1e-6)


def test_a_multiple_of_a_period_is_lost(flows):
    """Of the normal form, whose cycle Newton closes after any number of turns."""
    found = [ended(flows[f"{k} turns"]) for k in (1, 2, 3)]
    assert found == [["cycle"], ["lost"], ["lost"]]


@pytest.mark.endurance  # of a map of one unit: the example of `cycles` (tests/test_docstrings.py)
def test_flow_of_one_unit_has_no_cycle():
    found = cycles(lambda h: -h, [[1.0]], time="continuous", transient=100, n_steps=200)
    assert ended(found) == ["none"]
    assert not len(found.unique["cycle_period"])


BAD = [
    (np.zeros((2, 0)), {}),
    ([[np.nan]], {}),
    (np.zeros((2, 3, 1)), {}),
    ([[0.0]], {"near": 2}),
    ([[0.0]], {"dtype": "float32"}),
    ([[0.0]], {"unique_tol": 0}),
]


@pytest.mark.parametrize(("states", "settings"), BAD)
def test_cycles_refuses(states, settings):
    with refused(ValueError):
        cycles(lambda h: h, states, **settings)
