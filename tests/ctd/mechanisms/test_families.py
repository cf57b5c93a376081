"""The equations of mechanisms against closed forms."""

from functools import cache

import jax
import numpy as np
import pytest
from jax import lax

from ctd.mechanisms.families import NAMES, RANGES, Member, draw_member, simulate, step

MEMBER = Member(*map(np.float32, (5.0, 20.0, 15.0, 0.1, 28.0, 0.05, 8.0, 0.8)))


@cache
def _runner():
    def run(mechanism, z, u):
        one = lambda z, _: (jax.vmap(lambda z: step(mechanism, MEMBER, z, u))(z),) * 2
        return lax.scan(one, z, length=200)[1]

    return jax.jit(run)


def states(name, z, u=(0, 0, 0)):
    """(200, start, 3) states after 1, 2, ... bins."""
    z = np.asarray(z, np.float32)
    return np.asarray(_runner()(NAMES.index(name), z, np.asarray(u, np.float32)), float)


def test_two_attractors_are_the_roots_of_the_cubic():
    ends = states("two_attractors", [[-0.5, 1, 1], [0.5, 1, 1]])[-1]
    roots = np.sort(np.roots([-1, 0, 1, 0.1]).real)
    np.testing.assert_allclose(ends, [[roots[0], 0, 0], [roots[2], 0, 0]], atol=1e-5)


def test_a_line_keeps_its_places_and_nothing_else():
    path = states("line", [[0.7, 1, -1], [1.5, 0, 0]])
    np.testing.assert_allclose(path[-1], [[0.7, 0, 0], [1, 0, 0]], atol=1e-5)
    # dz/dt = -z / 5: after 10 bins exp(-2).
    np.testing.assert_allclose(path[9, 0, 1], np.exp(-2), rtol=1e-3)


@pytest.mark.parametrize("name", ["ring", "limit_cycle"])
def test_radius_of_ring_and_cycle(name):
    end = states(name, [[0.3, 0.4, 1], [-1.5, 0, 0]])[-1]
    np.testing.assert_allclose(np.hypot(end[:, 0], end[:, 1]), 1, atol=1e-4)
    np.testing.assert_allclose(end[:, 2], 0, atol=1e-5)


def test_a_ring_keeps_its_angle():
    end = states("ring", [[0.3, 0.4, 0]])[-1, 0]
    np.testing.assert_allclose(end[:2], [0.6, 0.8], atol=1e-4)


def test_a_plane_keeps_places_within_its_disc():
    end = states("plane", [[0.3, -0.4, 1], [3, 4, 0]])[-1]
    np.testing.assert_allclose(end, [[0.3, -0.4, 0], [0.6, 0.8, 0]], atol=1e-4)


def test_period_of_the_limit_cycle():
    path = states("limit_cycle", [[1.0, 0, 0]])[:, 0]
    # Ten periods of 20 bins: the start again.
    np.testing.assert_allclose(path[199, :2], [1, 0], atol=5e-3)
    np.testing.assert_allclose(path[4, :2], [0, 1], atol=1e-3)


def test_decay_and_turn_of_the_rotation():
    path = states("decaying_rotation", [[1.0, 0, 0]])[:, 0]
    z = np.exp((-1 / 15 + 2j * np.pi / 20) * 13)
    np.testing.assert_allclose(path[12, :2], [z.real, z.imag], atol=1e-4)


def test_lorenz_has_its_exponent():
    """.906 per unit of time for rho 28; .05 units a bin. The growth of 64 small distances over 100 bins."""
    rng = np.random.default_rng(0)
    on = states("chaos", rng.normal(size=(64, 3)))[-1]
    apart = 1e-4 * rng.normal(size=(64, 3))
    near, far = states("chaos", on), states("chaos", on + apart)
    size = np.linalg.norm(far - near, axis=-1)
    growth = np.log(size[69] / size[9]).mean() / 60
    # Over 60 bins trajectories differ by .01; five times that, and apart from rounding far from 0.
    assert growth == pytest.approx(0.0453, abs=0.012)


def test_driven_follows_its_input_and_forgets():
    path = states("driven", [[1.0, 0, 0]], u=(0, 0.5, 0))[:, 0]
    np.testing.assert_allclose(path[9], [np.exp(-2), 0.5 * (1 - np.exp(-2)), 0], atol=1e-4)


def test_members_differ_and_hidden_inputs_have_their_variance():
    several = jax.jit(lambda key: jax.vmap(draw_member)(jax.random.split(key, 50)))
    assert [*RANGES] == [*Member._fields]
    for value, (low, high) in zip(several(jax.random.key(1)), RANGES.values(), strict=True):
        assert low <= np.min(value) < np.max(value) <= high
    driven, still = NAMES.index("driven"), np.float32(0)
    run = jax.jit(lambda which, key: simulate(which, MEMBER, key, (400, 20), still))
    found = np.asarray(run(driven, jax.random.key(0)))
    # A process of variance 1 and time constant a behind a filter of time constant tau: variance a / (a + tau).
    np.testing.assert_allclose(found[:, -1, :2].var(0), 8 / 13, rtol=0.2)
    np.testing.assert_allclose(found[..., 2], 0, atol=1e-7)
