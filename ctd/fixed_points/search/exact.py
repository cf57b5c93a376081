"""Fixed points of piecewise linear maps, by solving one linear region after the other (SCYFI, Eisenmann et al. 2023).

On the region of h, F is affine, and its fixed point there is the end of Newton's step, h - (dF/dh - 1)^-1 (F(h) - h). If that end
lies in the same region, it is a fixed point of F, to rounding. Otherwise the region in which it lies is solved next. There are
finitely many regions, so that a search ends: at a fixed point, or where it comes back to a region.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.fixed_points.search.methods import DIVERGED, FIXED, LIMIT, RUNNING, Settings, Step
from ctd.late import jax, jnp

BLOCK = 16
"""Regions that are solved in one `advance`; most searches need fewer."""


class Solved(NamedTuple):
    """A search between two regions."""

    start: jax.Array
    h: jax.Array
    q: jax.Array
    g: jax.Array
    """Gradient of q at h."""
    seen: jax.Array
    """(state,) an earlier h; one that comes back begins the same rounds again."""
    iterations: jax.Array
    """int32, regions solved."""
    outcome: jax.Array


def begin(step: Step, h: jax.Array, limits: Settings) -> Solved:
    """A search at its start."""
    zero = jnp.zeros((), jnp.int32)
    nowhere = jnp.full_like(h, jnp.inf)
    return _landed(step, limits, Solved(h, h, h[0], h, nowhere, zero, zero), h)


def tick(step: Step, limits: Settings, s: Solved) -> Solved:
    """Solve the region of h."""
    j = jax.jacfwd(step)(s.h) - jnp.eye(len(s.h), dtype=s.h.dtype)
    to = s.h - jnp.linalg.solve(j, step(s.h) - s.h)
    # Brent's rule (1980): the h that is kept for comparison moves on at powers of two, so that any round is noticed.
    n = s.iterations + 1
    keep = (n & (n - 1)) == 0
    ahead = s._replace(iterations=n, seen=jnp.where(keep, s.h, s.seen))
    return _landed(step, limits, ahead, to)


def _landed(step: Step, limits: Settings, s: Solved, h: jax.Array) -> Solved:
    """The search at h, with its outcome: a state far away is as good as another, so that none is said to stray."""
    f, back = jax.vjp(lambda h: step(h) - h, h)
    q = jnp.sum(f * f) / 2
    eps = jnp.finfo(h.dtype).eps
    # F(h) - h carries a rounding error of a few eps |h|; below it q means nothing.
    floor = (4 * eps) ** 2 * jnp.sum(h * h) / 2
    # Equal regions give equal ends, but for the rounding of states that differ.
    again = jnp.max(jnp.abs(h - s.seen)) <= jnp.sqrt(eps) * jnp.max(jnp.abs(h))
    outcome = jnp.where(again | (s.iterations >= limits.max_iterations), LIMIT, RUNNING)
    outcome = jnp.where(q <= jnp.maximum(limits.q_tol, floor), FIXED, outcome)
    outcome = jnp.where(jnp.isfinite(q), outcome, DIVERGED).astype(jnp.int32)
    return s._replace(h=h, q=q, g=back(f)[0], outcome=outcome)
