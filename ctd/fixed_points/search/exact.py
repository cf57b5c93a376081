"""Fixed points of piecewise linear maps, by solving one linear region after the other (SCYFI, Eisenmann et al. 2023).

On the region of h, F is affine, and its fixed point there is the end of Newton's step, h - (dF/dh - 1)^-1 (F(h) - h). If that end
lies in the same region, it is a fixed point of F, to rounding. Otherwise the region in which it lies is solved next. There are
finitely many regions, so that a search ends: at a fixed point, or where it comes back to a region.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from ctd.fixed_points.search.methods import (
    LIMIT,
    RUNNING,
    Problem,
    Problems,
    run_block,
    speed,
    verdict,
)
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
    earlier: jax.Array
    """(state,) an earlier h; one that comes back begins the same rounds again."""
    iterations: jax.Array
    """int32, regions solved."""
    outcome: jax.Array


def begin(problems: Problems, h: jax.Array) -> Solved:
    """A search at its start."""
    zero = jnp.zeros((), jnp.int32)
    nowhere = jnp.full_like(h, jnp.inf)
    return _landed(problems.fine, Solved(h, h, h[0], h, nowhere, zero, zero), h)


def advance(problems: Problems, s: Solved) -> Solved:
    """A block of regions."""
    return run_block(partial(_tick, problems.fine), BLOCK, lambda s: s.outcome == RUNNING, s)


def _tick(problem: Problem, s: Solved) -> Solved:
    """Solve the region of h."""
    j = jax.jacfwd(problem.step)(s.h) - jnp.eye(len(s.h), dtype=s.h.dtype)
    to = s.h - jnp.linalg.solve(j, problem.step(s.h) - s.h)
    # Brent's rule (1980): the h that is kept for comparison moves on at powers of two, so that any round is noticed.
    n = s.iterations + 1
    keep = (n & (n - 1)) == 0
    ahead = s._replace(iterations=n, earlier=jnp.where(keep, s.h, s.earlier))
    return _landed(problem, ahead, to)


def _landed(problem: Problem, s: Solved, h: jax.Array) -> Solved:
    """The search at h, with its outcome. No state is too far away: the next region may lie anywhere."""
    q, g = jax.value_and_grad(speed(problem.step))(h)
    # Equal regions give equal ends, but for the rounding of states that differ.
    root = jnp.sqrt(jnp.finfo(h.dtype).eps)
    again = jnp.max(jnp.abs(h - s.earlier)) <= root * jnp.max(jnp.abs(h))
    outcome = verdict(h, q, s.iterations, problem._replace(bound=jnp.asarray(jnp.inf)))
    outcome = jnp.where((outcome == RUNNING) & again, LIMIT, outcome).astype(jnp.int32)
    return s._replace(h=h, q=q, g=g, outcome=outcome)
