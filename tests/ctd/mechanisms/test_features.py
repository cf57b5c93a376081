"""What is read off maps whose answers are known, and features without a model."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctd.mechanisms.counts import factors_of, poisson
from ctd.mechanisms.features import FEATURES, PLAIN, plain, read

N = 40


@cache
def _reader():
    def step(a, z):
        # Linear, and beyond radius 1 pulled back if a[2, 2] > 0: a cycle, or a rotation that decays.
        return jnp.concatenate([a[:2, :2] @ z[:2] * jnp.minimum(1, 1 / (1e-9 + jnp.linalg.norm(z[:2]))) ** a[2, 2], 0.5 * z[2:]])  # fmt: skip

    def features(a, start):
        one = lambda x, _: (jax.vmap(lambda z: step(a, z))(x),) * 2
        x = jnp.concatenate([start[None], lax.scan(one, start, length=N - 1)[1]])
        return read(lambda z: step(a, z), jnp.swapaxes(x, 0, 1))

    return jax.jit(features)


def read_of(scale, angle, cycle):
    """Features of z <- scale R(angle) z, in trials that follow it from random starts."""
    a = np.zeros((3, 3), np.float32)
    a[:2, :2] = scale * np.asarray(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    a[2, 2] = cycle
    start = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    values = np.asarray(_reader()(a, start))
    return dict(zip(FEATURES, values.tolist(), strict=True))


def test_a_rotation_that_decays():
    found = read_of(0.9, 0.3, 0)
    assert found["free_r2"] == pytest.approx(1, abs=1e-4)
    assert found["stable_points"] == pytest.approx(np.log(2), abs=1e-6)
    assert found["unstable_points"] == 0
    for k in (1, 2):
        assert found[f"exponent_{k}"] == pytest.approx(np.arcsinh(N * np.log(0.9)), abs=1e-3)
    assert found["exponent_3"] == pytest.approx(np.arcsinh(N * np.log(0.5)), abs=1e-3)
    # The spectral radius is that of the slowest mode.
    assert found["point_memory"] == pytest.approx(np.log10(-1 / np.log(0.9) / N), abs=0.02)
    assert found["ends"] == 0
    assert found["spread_late"] < 1e-3


def test_exponents_are_in_falling_order():
    """A map along its own axes, of which the last is the slowest."""
    rates = jnp.asarray([0.9, 0.8, 0.95])
    x = rates ** jnp.arange(N)[:, None] * jax.random.normal(jax.random.key(0), (9, 1, 3))
    found = dict(zip(FEATURES, jax.jit(lambda x: read(lambda z: rates * z, x))(x), strict=True))
    expected = np.arcsinh(N * np.log([0.95, 0.9, 0.8]))
    values = [float(found[f"exponent_{k}"]) for k in (1, 2, 3)]
    assert values == pytest.approx(expected.tolist(), abs=1e-3)


def test_two_slow_modes_are_stable():
    """A norm of a power has a factor of sqrt(2) here, which hides a decay of 0.0005 a bin."""
    found = read_of(0.9995, 0.0, 0)
    assert found["stable_points"] == pytest.approx(np.log(2), abs=1e-6)
    assert found["unstable_points"] == 0
    assert found["point_memory"] == pytest.approx(np.log10(-1 / np.log(0.9995) / N), abs=0.02)


def test_a_cycle_moves_and_has_an_unstable_point():
    found = read_of(1.1, 0.3, 1)
    assert found["unstable_points"] == pytest.approx(np.log(2), abs=1e-6)
    assert found["stable_points"] == 0
    assert found["exponent_1"] == pytest.approx(0, abs=0.05)
    assert found["hollow"] == pytest.approx(1, abs=0.15)
    assert found["motion"] > 0.5
    assert found["end_dimension"] == pytest.approx(2, abs=0.3)


def test_a_plane_of_points_keeps_its_states():
    found = read_of(1.0, 0.0, 0)
    assert found["exponent_1"] == found["exponent_2"] == pytest.approx(0, abs=1e-3)
    assert found["motion"] == pytest.approx(-2, abs=0.05)
    assert found["rotation"] < 0.05
    assert found["end_dimension"] == pytest.approx(2, abs=0.3)
    assert found["ends"] > 0.8


def test_plain_features_of_a_rotation_and_of_a_decay():
    t = np.arange(50)
    phase = 2 * np.pi * np.random.default_rng(0).random((200, 1))
    turning = np.stack([np.cos(0.2 * t + phase), np.sin(0.2 * t + phase), 0 * t + 0 * phase], -1)
    variances, of = np.asarray([2.0, 1.0, 1.0], np.float32), jax.jit(plain)
    read_plain = lambda x: dict(zip(PLAIN, np.asarray(of(x, variances)), strict=True))
    found = read_plain(turning.astype(np.float32))
    assert found["jpca_ratio"] == pytest.approx(1, abs=0.02)
    assert found["correlation_short"] == pytest.approx(np.cos(1.0), abs=0.02)
    assert found["share_1"] == pytest.approx(0.5)
    assert found["dimension"] == pytest.approx(16 / 6)
    starts = np.random.default_rng(1).normal(size=(200, 1, 3))
    falling = read_plain((starts * 0.9 ** t[:, None]).astype(np.float32))
    assert falling["linear_r2"] == pytest.approx(1, abs=0.02)
    assert falling["jpca_ratio"] == pytest.approx(0, abs=0.02)


def test_counts_are_poisson():
    draw = jax.jit(poisson)
    for mean in (0.3, 20.0):
        counts = np.asarray(draw(jax.random.key(0), np.full(20_000, mean, np.float32)))
        # Five standard errors.
        assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / 20_000))
        assert counts.var() == pytest.approx(mean, rel=0.06)


def test_factors_are_the_signals_that_units_share():
    rng = np.random.default_rng(0)
    signal = np.repeat(rng.normal(size=(100, 1, 1)), 50, 1)
    counts = rng.poisson(3 * np.exp(0.5 * signal * rng.choice([-1, 1], 30)))
    found = jax.jit(lambda counts: factors_of(counts, np.float32(3), 3, "float32"))
    factors, variances = found(counts)
    assert np.mean(np.sum(np.asarray(factors) ** 2, -1)) == pytest.approx(1, abs=1e-4)
    assert abs(np.corrcoef(np.asarray(factors)[:, 25, 0], signal[:, 0, 0])[0, 1]) > 0.97
    assert variances[0] > 5 * variances[1]
