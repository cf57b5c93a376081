"""The growth of a tangent vector, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctd.tangent import tangent_growth


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
