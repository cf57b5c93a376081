"""Noise: its distribution against SciPy, and where it goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ctd import tasks
from ctd.cells import get_cell, run
from ctd.tasks.noise import deviates, first_state, noisy, seeded


def draws(seeds):
    entry = np.arange(50, dtype=np.uint32)
    many = jax.jit(jax.vmap(lambda s: deviates(s[0], s[1], entry, jnp.float32)))
    return np.asarray(many(np.asarray(seeds, np.float32)), float)


@pytest.mark.parametrize("kind", ["drawn", "neighbours"])
def test_deviates_are_normal_and_independent(kind):
    """Of random seeds, and of those next to each other, which a weak hash would not tell apart."""
    grid = np.stack(np.meshgrid(np.arange(100), np.arange(100)), axis=-1).reshape(-1, 2)
    random = np.random.default_rng(0).integers(0, 2**24, (10_000, 2))
    x = draws(random if kind == "drawn" else grid)
    # 500,000 values: standard errors 1.4e-3, 2e-3 and 7e-3; 1,021 levels and the polynomial move F by 2e-3.
    assert x.mean() == pytest.approx(0, abs=6e-3)
    assert x.var() == pytest.approx(1, abs=8e-3)
    assert scipy.stats.kurtosis(x.ravel()) == pytest.approx(0, abs=0.03)
    assert scipy.stats.kstest(x.ravel(), "norm").statistic < 5e-3
    for values in (x, x**2):
        r = np.corrcoef(values.T)[np.triu_indices(50, 1)] * 100
        # 1,225 correlations of 10,000 rows: N(0, 1) times the root of their number.
        assert np.std(r) == pytest.approx(1, abs=0.15)
        assert np.abs(r).max() < 5


def test_noise_is_added_to_state_and_input():
    cell, key = get_cell("vanilla"), jax.random.key(0)
    rng = np.random.default_rng(0)
    normal = lambda *shape: np.float32(rng.standard_normal(shape))
    weights = {"wI": normal(4, 1), "wR": normal(4, 4), "bR": normal(4)}
    weights |= {"wO": normal(1, 4), "bO": normal(1), "h0": normal(4)}
    trials = tasks.Trial(normal(5, 3, 1), normal(5, 3, 1), np.ones((5, 3), np.float32))
    given = np.asarray(jax.jit(lambda key: seeded(trials, key, 0.7).inputs)(key))
    assert given.shape == (5, 3, 3)
    h, x, seeds = weights["h0"], trials.inputs[0], given[0, :, 1:]

    @jax.jit
    def run_and_draw(given, seeds, numbers):
        states, _ = run(noisy(cell, jnp.asarray(0.3)), weights, given)
        draw = jax.vmap(lambda s: deviates(s[0], s[1], numbers, jnp.float32))
        return states, draw(seeds)

    numbers = np.array([0, 1, 2, 3, 2**32 - 1], np.uint32)  # of units; of the input
    states, xi = map(np.asarray, run_and_draw(given[0], seeds, numbers))
    for t in range(3):
        drive = weights["wI"] @ (x[t] + 0.7 * xi[t, 4:]) + weights["wR"] @ h + weights["bR"]
        h = np.tanh(drive) + 0.3 * xi[t, :4]
        np.testing.assert_allclose(states[t], h, rtol=1e-5, atol=1e-6)


def test_noise_of_first_states():
    """N(0, 0.3^2) about h0, other noise in each trial and entry, and none of the noise of the first step's state."""
    h0, many = np.linspace(-1, 1, 20, dtype=np.float32), 2000
    blank = np.zeros((many, 1, 1), np.float32)
    entry = np.arange(20, dtype=np.uint32)

    @jax.jit
    def draw(key):
        given = seeded(tasks.Trial(blank, blank, blank), key, 0.0).inputs
        of_step = jax.vmap(lambda s: deviates(s[0], s[1], entry, jnp.float32))(given[:, 0, 1:])
        return jax.vmap(lambda x: first_state(h0, x, 0.3))(given), of_step

    start, of_step = draw(jax.random.key(0))
    x = (np.asarray(start, float) - h0) / 0.3
    # 40,000 values, standard error of their variance 0.7 %.
    assert scipy.stats.kstest(x.ravel(), "norm").statistic < 0.01
    assert x.var() == pytest.approx(1, abs=0.03)
    r = np.corrcoef(np.concatenate([x, of_step], axis=1).T)[np.triu_indices(40, 1)]
    assert np.abs(r).max() < 5 / np.sqrt(many)
