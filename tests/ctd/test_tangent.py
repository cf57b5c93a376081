"""The growth of a tangent vector, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctd.cells import runge_kutta
from ctd.tangent import MEAN_OVER, mean_growth, tangent_growth


def test_growth_of_the_logistic_map():
    """ln 2 a step at r = 4."""
    step = lambda h, x: 4 * h * (1 - h)
    growth, end = jax.jit(
        lambda h: tangent_growth(step, h, jnp.ones_like(h), jnp.zeros((1001, 0)))
    )(np.array([0.3]))
    assert growth.mean() == pytest.approx(np.log(2), abs=0.01)
    assert 0 < end < 1


def test_growth_of_a_tree_and_of_a_vector_that_vanishes():
    """(a, b) -> (2 a, 0) turns a tangent to (1, 0), and grows it by 2 from then on; (a, b) -> 0 leaves -inf, not NaN."""
    start = {"a": jnp.ones(1), "b": jnp.ones((2, 2))}
    doubled = lambda s, x: {"a": 2 * s["a"], "b": 0 * s["b"]}
    growth, _ = tangent_growth(doubled, start, start, jnp.zeros((3, 0)))
    np.testing.assert_allclose(growth, np.log([2 / 5**0.5, 2, 2]), rtol=1e-6)
    growth, _ = tangent_growth(lambda s, x: jax.tree.map(lambda v: 0 * v, s), start, start, jnp.zeros((2, 0)))  # fmt: skip
    assert np.isneginf(growth).all()


def lorenz(h, x):
    field = lambda h: jnp.stack([10 * (h[1] - h[0]), h[0] * (28 - h[2]) - h[1], h[0] * h[1] - 8 / 3 * h[2]])  # fmt: skip
    return runge_kutta(field, h, 0.01)


def henon(h, x):
    return jnp.stack([1 - 1.4 * h[0] ** 2 + h[1], 0.3 * h[0]])


def test_error_of_chaos_over_seeds():
    """The error against the spread of 100 estimates, which 100 seeds tell to 7 %. Lorenz's growth comes back, for the most part, and
    independent means would make its error 3.9 times too large; the Henon map's diffuses."""
    starts = np.random.default_rng(0).normal(size=(100, 3))
    for step, h in ((lorenz, starts), (henon, 0.1 * starts[:, :2])):
        estimate = lambda h, step=step: mean_growth(
            tangent_growth(step, h, jnp.ones_like(h), jnp.zeros((21_000, 0)))[0][1000:]
        )
        mean, error = jax.jit(jax.vmap(estimate))(h)
        ratio = float(np.sqrt(np.mean(np.square(error))) / np.std(mean, ddof=1))
        assert 1 / 1.5 < ratio < 1.5, step.__name__


def test_error_of_whole_periods():
    """A sine whose periods fill the means: the estimate is off by at most 2 a / t, although all means are equal."""
    t = 8 * MEAN_OVER
    a = 0.5
    path = a * jnp.sin(2 * jnp.pi * jnp.arange(t + 1) / (MEAN_OVER / 2))
    mean, error = jax.jit(mean_growth)(jnp.diff(path))
    assert mean == pytest.approx(0, abs=1e-6)
    # The difference of two independent places of a sine: its standard deviation is a.
    assert error == pytest.approx(a / t, rel=0.02)


@pytest.mark.parametrize(("n", "known"), [(3, False), (4, True)])
def test_error_of_few_means(n, known):
    growth = np.random.default_rng(0).normal(size=n * MEAN_OVER + 100)
    assert np.isfinite(mean_growth(growth)[1]) == known
