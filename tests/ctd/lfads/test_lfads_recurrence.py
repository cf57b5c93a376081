"""The gradients written out in ctd/lfads/recurrence.py and generator.py, against autodiff of the same scans in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctd.lfads import generator, recurrence
from ctd.lfads.generator import Drives, Loop
from ctd.lfads.recurrence import Gru, Units

T, TRIALS, N_C, N_G, FACTORS, INPUTS = 5, 4, 3, 6, 2, 2
# Rounding of some hundred float64 operations on numbers near 1.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-12}

pytestmark = pytest.mark.usefixtures("float64")


def draw(rng, *shape):
    return rng.standard_normal(shape) / 2


def gru(rng, n):
    return Gru(Units(draw(rng, n, 2 * n), draw(rng, n, n)), draw(rng, 3 * n))


def slopes(f, n):
    """The gradient, in n arguments, of a sum of all that f returns, each entry with a weight of its own."""

    def summed(*arguments):
        leaves = jax.tree.leaves(f(*arguments))
        return sum(jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)) for leaf in leaves)  # fmt: skip

    return jax.grad(summed, argnums=tuple(range(n)))


def assert_same_slopes(ours, plain, *arguments):
    got, expected = (jax.jit(slopes(f, len(arguments)))(*arguments) for f in (ours, plain))
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize(("n_in", "n_out"), [(3, 5), (5, 3), (0, 2)])
def test_product_slopes(n_in, n_out):
    rng = np.random.default_rng(0)
    x, w = draw(rng, T, TRIALS, n_in), draw(rng, n_in, n_out)
    assert_same_slopes(recurrence.product, jnp.matmul, x, w)


@pytest.mark.parametrize("reverse", [False, True])
def test_run_gru_slopes(reverse):
    rng = np.random.default_rng(1)
    start, drive = draw(rng, TRIALS, N_G), draw(rng, T, TRIALS, 3 * N_G)
    ours = lambda *a: recurrence.run_gru(*a, reverse)
    plain = lambda *a: recurrence._run_gru(*a, reverse)[0]
    assert_same_slopes(ours, plain, gru(rng, N_G), start, drive)


def test_run_gru_back_in_time_is_the_run_over_reversed_drives():
    rng = np.random.default_rng(2)
    w, start, drive = gru(rng, N_G), draw(rng, TRIALS, N_G), draw(rng, T, TRIALS, 3 * N_G)
    back = recurrence.run_gru(w, start, drive, True)
    ahead = np.asarray(recurrence.run_gru(w, start, drive[::-1]))
    np.testing.assert_array_equal(back, ahead[::-1])


def loop(rng):
    return Loop(
        controller=gru(rng, N_C),
        feedback=draw(rng, FACTORS, 3 * N_C),
        moments=draw(rng, N_C, 2 * INPUTS),
        moments_bias=draw(rng, 2 * INPUTS),
        generator=gru(rng, N_G),
        from_inputs=draw(rng, INPUTS, 3 * N_G),
        readout=draw(rng, N_G, FACTORS),
    )


def given(rng):
    rows = lambda n: draw(rng, T, TRIALS, n)
    start = draw(rng, TRIALS, N_C), draw(rng, TRIALS, N_G), draw(rng, TRIALS, FACTORS)
    return (
        start,
        (rows(3 * N_C), rows(3 * N_G)),
        (rows(INPUTS), np.abs(rows(N_G)), np.asarray(1e-2)),
    )


def over(run, fixed):
    """`run` of weights, start and drives alone: no gradient is taken in noise, mask and floor."""
    noise, mask, floor = fixed
    return lambda w, start, drives: run(w, start, Drives(*drives, noise, mask), floor)


def test_run_loop_slopes():
    """With external inputs and a mask, of several models side by side.

    Training always draws a mask; slopes of one model, without external inputs: `test_gradient_finite_differences` in
    test_lfads_forward.py.
    """
    rng = np.random.default_rng(3)
    models = [loop(rng) for _ in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    start, drives, fixed = given(rng)
    ours = slopes(over(generator.run_loop, fixed), 3)
    plain = jax.jit(slopes(over(lambda *a: generator._run_loop(*a)[0], fixed), 3))
    together = jax.jit(jax.vmap(ours, (0, None, None)))(stacked, start, drives)
    together = jax.tree.map(np.asarray, together)
    found = [jax.tree.map(lambda leaf, k=k: leaf[k], together) for k in range(3)]
    expected = [plain(model, start, drives) for model in models]
    for got, of in zip(found, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), got, of)
