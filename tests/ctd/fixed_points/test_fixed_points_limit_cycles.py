"""Limit cycles against normal forms and closed forms.

One program holds the flows, and one the maps: which of them an item is, the whole number next to its last state says, to
which that state decays.
"""

import re
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from places import ROOT

from ctd.fixed_points import cycles
from ctd.fixed_points.limit_cycles import OUTCOMES

MU, OMEGA = 0.25, 3.0
R = 3.2
"""The logistic map has a stable cycle of two steps there."""


def flow(h):
    """Which: 0 Hopf's normal form, 1 decay, 2 an outward spiral."""
    x, y, which = h
    r2 = x**2 + y**2
    hopf = [MU * x - OMEGA * y - x * r2, OMEGA * x + MU * y - y * r2]
    kinds = jnp.array([hopf, [-x, -2 * y], [x * r2, y * r2]])
    return jnp.append(kinds[jnp.round(which).astype(int)], jnp.round(which) - which)


def step(h):
    """Which: 0 the logistic map, 1 a turn by 1 radian on the circle, 2 half of it."""
    x, y, which = h
    c, s = jnp.cos(1.0), jnp.sin(1.0)
    pull = 1.5 - 0.5 * (x**2 + y**2)
    kinds = jnp.array(
        [[R * x * (1 - x), 0 * y], [pull * (c * x - s * y), pull * (s * x + c * y)], [x / 2, y / 2]]
    )
    return jnp.append(kinds[jnp.round(which).astype(int)], (jnp.round(which) + which) / 2)


def ended(found):
    return [OUTCOMES[k].name for k in found.results["outcome"]]


def test_cycles_of_flows():
    """Radius sqrt(mu), period 2 pi / omega, multiplier exp(-2 mu T); that of the last state, which decays, is exp(-T).
    Runge and Kutta's error is of order dt^4 = 6e-10."""
    states = [[0.1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 2]]
    found = cycles(flow, states, time="continuous", dt=0.005, transient=8000, n_steps=4000)
    assert ended(found) == ["cycle", "cycle", "point", "diverged"]
    assert np.isnan(found.results["period"][2:]).all()
    unique, period = found.unique, 2 * np.pi / OMEGA
    assert unique["cycle_period"].tolist() == pytest.approx([period], rel=1e-8)
    assert unique["cycle_count"].tolist() == [2]
    assert unique["cycle_size"].tolist() == pytest.approx([2 * np.sqrt(MU)], rel=1e-8)
    radius = np.linalg.norm(found.results["cycle_state"][:2, :, :2], axis=-1)
    np.testing.assert_allclose(radius, np.sqrt(MU), rtol=1e-8)
    expected = [1, np.exp(-2 * MU * period), np.exp(-period)]
    np.testing.assert_allclose(unique["cycle_multiplier"][0], expected, rtol=1e-6)
    assert unique["cycle_stability"].tolist() == ["stable"]
    assert len(found.figure().axes) == 2


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


def test_cycles_of_maps():
    """The logistic map's two states (r + 1 +- sqrt((r - 3) (r + 1))) / 2 r, whose multiplier is 4 + 2 r - r^2; a turn by an
    irrational part of the circle never comes back."""
    states = [[0.3, 0, 0], [0.6, 0, 0], [0.5, 0.1, 1], [0.4, 0.4, 2]]
    found = cycles(step, states, n_points=32, transient=2000)
    assert ended(found) == ["cycle", "cycle", "none", "point"]
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


@pytest.mark.parametrize(
    ("r", "period", "ends"),
    [
        (
            3.566,
            [16],
            {"cycle"},
        ),  # between 3.5644 and 3.5688 (Feigenbaum); its 8 states repel with -1.17
        (3.99, [], {"none", "lost"}),  # chaos: its returns are beside cycles that repel
    ],
)
def test_a_return_beside_a_cycle_that_repels_is_none(r, period, ends):
    starts = np.random.default_rng(0).uniform(0.1, 0.9, (20, 1))
    found = cycles(lambda h: r * h * (1 - h), starts)
    assert set(ended(found)) <= ends
    assert found.unique["cycle_period"].tolist() == period


def test_unstable_cycle_by_a_guess_of_its_period():
    """The normal form backwards in time: the multiplier is the inverse of the one forwards."""
    backwards = lambda h: -flow(jnp.append(h, 0.0))[:2]
    settings = {"time": "continuous", "dt": 0.01, "transient": 0, "period_guess": 2.0}
    unique = cycles(backwards, [0.45, 0.1], **settings).unique
    period = 2 * np.pi / OMEGA
    assert unique["cycle_period"].tolist() == pytest.approx([period], rel=1e-8)
    assert unique["cycle_stability"].tolist() == ["unstable"]
    assert unique["cycle_leading"].tolist() == pytest.approx([np.exp(2 * MU * period)], rel=1e-6)


def test_a_multiple_of_a_period_is_lost():
    """Of the normal form, whose cycle Newton closes after any number of turns."""
    period = 2 * np.pi / OMEGA
    settings = {"time": "continuous", "dt": 0.05, "transient": 1000}
    normal = lambda h: flow(jnp.append(h, 0.0))[:2]
    found = [
        ended(cycles(normal, [0.4, 0.1], period_guess=k * period + 0.01, **settings))
        for k in (1, 2, 3)
    ]
    assert found == [["cycle"], ["lost"], ["lost"]]


def test_flow_of_one_unit_has_no_cycle():
    found = cycles(lambda h: -h, [[1.0]], time="continuous", transient=100, n_steps=200)
    assert ended(found) == ["none"]
    assert not len(found.unique["cycle_period"])


BAD = [
    (np.zeros((2, 0)), {}, "states: .*at least one state"),
    ([[np.nan]], {}, "states: 1 of 1 entries are NaN"),
    (np.zeros((2, 3, 1)), {}, r"states: shape \(2, 3, 1\), \(k, state\) expected"),
    ([[0.0]], {"near": 2}, "near"),
    ([[0.0]], {"dtype": "float32"}, "dtype"),
    ([[0.0]], {"unique_tol": 0}, "unique_tol"),
]


@pytest.mark.parametrize(("states", "settings", "said"), BAD)
def test_cycles_refuses(states, settings, said):
    with pytest.raises(ValueError, match=said):
        cycles(lambda h: h, states, **settings)
