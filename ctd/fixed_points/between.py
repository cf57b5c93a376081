"""Fixed points between known ones: Newton from halfway between two finds saddles at which no search ends.

A saddle parts the basins of the points around it, so that it lies between them; but trials leave it, and the searches
from their states pass it by.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ctd.fixed_points.candidates import Map
from ctd.fixed_points.unique import cover, nearest_distance
from ctd.late import jax, jnp, scipy

type Newton = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points (k, n) -> (|F(h) - h| (k,), Newton's step for F(h) = h (k, n))."""

STEPS = 30
"""Most steps of Newton: at a simple zero it needs less than ten."""

LONGEST = 0.25
"""Longest step, in units of the states' spread."""

TOLERANCE = 1e-11
"""Largest |F(h) - h| / (1 + |h|) at a fixed point: the rounding of a few hundred units in float64 stays below."""

CLOSE = 1e-6
"""Largest last step, in units of the states' spread: where dF/dh - 1 is nearly singular, a small |F(h) - h| says
little of where the point is."""

BLOCK = 64
"""Points whose steps are computed at a time, fewer if their Jacobians would take more than ENTRIES."""

ENTRIES = 1 << 24

WORK = 8e9
"""Most n^3, summed over the starts: a minute or so of one core."""


def newton_of(f: Map, weights: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    """(x, points) -> Newton's steps of the map F(weights, h, x) in float64; compiled at the first call."""
    steps = _steps(f)

    def newton(x: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = points.shape[1]
        block = max(1, min(BLOCK, ENTRIES // n**2))
        # Each block has the same shape, so that one program serves all.
        padded = np.concatenate([points, np.zeros((-len(points) % block, n))])
        sizes, moves = [np.zeros(0)], [np.zeros((0, n))]
        with jax.enable_x64(True):
            for k in range(0, len(padded), block):
                size, move = steps(weights, padded[k : k + block], x)
                sizes.append(np.asarray(size))
                moves.append(np.asarray(move))
        return np.concatenate(sizes)[: len(points)], np.concatenate(moves)[: len(points)]

    return newton


@lru_cache(32)
def _steps(f: Map) -> Any:
    """(weights, points, x) -> sizes and steps, compiled once for the networks of a cell."""

    def one(weights: Any, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        g = lambda h: f(weights, h, x) - h
        return jnp.linalg.norm(g(h)), -jnp.linalg.solve(jax.jacfwd(g)(h), g(h))

    return jax.jit(jax.vmap(one, (None, 0, None)))


def descend(newton: Newton, starts: np.ndarray, spread: float) -> np.ndarray:
    """(m, n) the fixed points at which Newton arrives from starts (k, n), in units of `spread`; m <= k."""
    ends, h = [starts[:0]], starts
    for _ in range(STEPS):
        if not len(h):
            break
        size, move = newton(h)
        length = np.linalg.norm(move, axis=1)
        there = (size <= TOLERANCE * (1 + np.linalg.norm(h, axis=1))) & (length <= CLOSE * spread)
        ends.append(h[there] + move[there])
        going = ~there & np.isfinite(length)
        shortened = np.minimum(1, LONGEST * spread / np.maximum(length[going], 1e-300))
        h = h[going] + move[going] * shortened[:, None]
    return np.concatenate(ends)


def between(
    newton: Newton, fixed: np.ndarray, slow: np.ndarray, spread: float, tol: float, most: int
) -> np.ndarray:
    """(m, n) further fixed points, found from halfway between two of `fixed` (k, n) or of those found so.

    Each is more than `tol` from all others and from the slow points. A point that was found to a coarser tolerance, as
    Newton's first step from it tells, stands for all zeros that it may mean, and no search starts beside it: so a line
    attractor that was searched coarsely, where hundreds of points pass for fixed, stays as it is. most: starts.
    """
    most = min(most, int(WORK / fixed.shape[1] ** 3))
    if len(fixed) < 2 or most < 1:
        return fixed[:0]
    error = np.linalg.norm(newton(fixed)[1], axis=1)
    error = np.where(np.isfinite(error), error, np.inf)
    coarse = error > tol
    reach = np.minimum(2 * error[coarse], LONGEST * spread)
    taken, points, tried = np.concatenate([fixed[~coarse], slow]), fixed[~coarse], 0
    n_known = len(points)
    while most > 0 and len(starts := _halfway(points, tried, most)):
        most -= len(starts)
        ends = descend(newton, starts, spread)
        ends = ends[nearest_distance(ends, taken) > tol]
        apart = scipy.spatial.distance.cdist(ends, fixed[coarse])
        ends = ends[(apart > reach).all(axis=1)]
        fresh = ends[np.unique(cover(ends, tol))]
        if not len(fresh):
            break
        tried = len(points)
        points, taken = np.concatenate([points, fresh]), np.concatenate([taken, fresh])
    return points[n_known:]


def _halfway(points: np.ndarray, tried: int, most: int) -> np.ndarray:
    """(pair, n) the middles of the `most` nearest pairs that are not among the first `tried` points."""
    i, j = np.triu_indices(len(points), 1)
    i, j = i[j >= tried], j[j >= tried]
    squares = np.einsum("ij,ij->i", points, points)
    apart = (squares[:, None] + squares - 2 * points @ points.T)[i, j]
    near = np.argsort(apart, kind="stable")[:most]
    return (points[i[near]] + points[j[near]]) / 2
