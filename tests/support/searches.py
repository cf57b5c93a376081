"""What tests of `ctd.fixed_points` start from, how a search ends, and a map of known modes."""

import jax
import numpy as np

from ctd.cells import get_cell

FIXED, SLOW, LIMIT, DIVERGED = range(4)


def starts(n_candidates, n, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal((n_candidates, n))


def drawn(cell, seed, *sizes):
    """The weights of a network; by one program, not by one for each of their draws."""
    return jax.jit(lambda key: get_cell(cell).init(key, *sizes))(jax.random.key(seed))


def spiral(radius, angle):
    """A rotation by an angle, which shrinks by the radius."""
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def cube(weights, h, x):
    """h - 0.4 (h^3 - h) in each of three axes: points at -1, 0, 1; 0 is unstable, as in a 3-bit flip-flop."""
    del weights, x
    return h - 0.4 * (h**3 - h)
