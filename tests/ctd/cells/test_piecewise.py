"""Piecewise linear cells against NumPy from the formulas of their papers: steps, Jacobians, linear regions."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctd.cells import Scales, check_params, get_cell, run, sizes

N, N_IN, HIDDEN = 4, 2, 5
NAMES = ["shplrnn", "shplrnn:clipped", "alrnn"]


def drawn(name):
    """(weights in float64, of few hidden units; a state; an input)."""
    rng, cell = np.random.default_rng(0), get_cell(name)
    sizes = (N, N_IN, HIDDEN) if name.startswith("shplrnn") else (N, N_IN)
    weights = {k: rng.normal(size=shape) for k, shape in cell.shapes(*sizes).items()}
    if name == "alrnn":
        weights["rectified"] = np.array([0.0, 1.0, 0.0, 1.0])
    return weights, rng.normal(size=(20, N)), rng.normal(size=N_IN)


def by_formula(name, w, z, s):
    """(F, dF/dz) of Hess et al. 2023, eq. 3 and 4, and of Brenner et al. 2024, eq. 2."""
    relu, on = lambda a: np.maximum(a, 0), lambda a: (a > 0).astype(float)
    if name == "alrnn":
        kinked = w["rectified"] == 1
        slope = np.where(kinked, on(z), 1)
        f = w["A"] * z + w["W"] @ np.where(kinked, relu(z), z) + w["h"] + w["C"] @ s
        return f, np.diag(w["A"]) + w["W"] @ np.diag(slope)
    a = w["W2"] @ z
    hidden, slope = relu(a + w["h2"]), on(a + w["h2"])
    if name == "shplrnn:clipped":
        hidden, slope = hidden - relu(a), slope - on(a)
    f = np.diag(w["A"]) @ z + w["W1"] @ hidden + w["h1"] + w["C"] @ s
    return f, np.diag(w["A"]) + w["W1"] @ np.diag(slope) @ w["W2"]


@pytest.mark.parametrize("name", NAMES)
def test_step_and_jacobian_numpy(name):
    weights, states, s = drawn(name)
    step = get_cell(name).step

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, None))
    def both(w, z, s):
        return step(w, z, s), jax.jacfwd(lambda z: step(w, z, s))(z)

    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, both(weights, states, s))
    for z, f, j in zip(states, *found, strict=True):
        expected = by_formula(name, weights, z, s)
        np.testing.assert_allclose(f, expected[0], atol=1e-13)
        np.testing.assert_allclose(j, expected[1], atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_linear_regions_are_those_of_the_step(name):
    """The region in which a state lies is among all of them, with the step's own J and b."""
    weights, states, s = drawn(name)
    pieces = get_cell(name).pieces
    all_digits = np.array(list(itertools.product(range(pieces.base), repeat=pieces.count(weights))))
    with jax.enable_x64(True):
        affine = jax.jit(jax.vmap(pieces.affine, in_axes=(None, 0, None)))
        js, bs = jax.tree.map(np.asarray, affine(weights, all_digits, s))
    for z in states:
        f, j = by_formula(name, weights, z, s)
        same = np.isclose(js, j, atol=1e-12).all((1, 2)) & np.isclose(bs, f - j @ z).all(1)
        assert same.any()


def test_clipped_orbits_are_bounded():
    """|z'| <= |A| |z| + |W1| |h2|, where the other form grows without bound."""
    names = "shplrnn", "shplrnn:clipped"

    @jax.jit
    def draw_and_run(key):
        weights = get_cell("shplrnn").init(key, 3, 0, 1, Scales(30.0))
        runs = (run(get_cell(name), weights, jnp.zeros((200, 0)), jnp.ones(3)) for name in names)
        return weights, [states[-1] for states, _ in runs]

    weights, ends = jax.tree.map(np.abs, draw_and_run(jax.random.key(0)))
    other, clipped = ends
    assert (clipped <= weights["W1"] @ weights["h2"] / (1 - weights["A"].max())).all()
    assert not other.max() < 1e6


def test_drawn_weights_follow_the_papers():
    @jax.jit
    def draw(key):
        shallow = get_cell("shplrnn").init(key, 50, 20, 1, Scales(0.5, 2.0))
        return shallow, get_cell("alrnn").init(key, 20, 1, 1)

    w, almost = jax.tree.map(np.asarray, draw(jax.random.key(0)))
    for name, weights, n, n_in in (("shplrnn", w, 50, 20), ("alrnn", almost, 20, 1)):
        check_params(name, weights, "here")
        assert sizes(name, weights) == (n, n_in, 1)
        assert weights["h0"].shape == (n,)
    assert 0 < w["A"].min() <= w["A"].max() < 1
    # Uniform entries up to g / sqrt(fan-in), whose standard deviation is 1 / sqrt(3) of that.
    for name, bound in (("W1", 0.5 / 10), ("W2", 50**-0.5)):
        assert bound * 0.99 < np.abs(w[name]).max() <= bound
        np.testing.assert_allclose(w[name].std(), bound / 3**0.5, rtol=0.05)
    np.testing.assert_allclose(w["C"].std(), 2 / 20**0.5, rtol=0.1)
    assert np.flatnonzero(almost["rectified"]).tolist() == [18, 19]
