"""The first part of an `lm` search: from the start to beside a minimum of q, by gradients alone and in float32.

L-BFGS (Nocedal & Wright 2006, algorithm 7.5) follows a curved valley of q with one gradient a step, where steps of
Newton's need several products with the Hessian; and float32 halves the price of each. It certifies nothing: where it ends,
Levenberg-Marquardt goes on in the precision of the item.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from ctd.fixed_points.search.methods import (
    LM_BLOCK,
    NEAR,
    RUNNING,
    Descent,
    Problem,
    Problems,
    lm_init,
    lm_tick,
    run_block,
    speed,
    verdict,
)
from ctd.late import Array, jax, jnp

MEMORY = 6
"""Steps that are remembered. More save few gradients and cost as much as they save."""

BLOCK = 128
"""Ticks of one `advance`: most approaches take fewer, so that the candidates of a microbatch enter the descent together."""

ENOUGH = 1e-6
"""The approach is over once the next step would gain less than this part of q."""

MOST_IDLE = 6
"""After more ticks in a row that gain less than ENOUGH of q, or nothing, the rounding of q hides any gain."""


class Approach(NamedTuple):
    """An L-BFGS search between two ticks: at h, p the next step."""

    h: Array
    q: Array
    g: Array
    """Gradient of q at h."""
    p: Array
    steps: Array
    """(MEMORY, state) the last steps, the latest at the end."""
    changes: Array
    """(MEMORY, state) of the gradient in these."""
    rho: Array
    """(MEMORY,) 1 / (step . change), the rho of Nocedal & Wright; 0 where there is none."""
    idle: Array
    """Ticks since q last fell."""
    iterations: Array
    """int32, gradients so far."""
    over: Array


class Search(NamedTuple):
    """A search of `lm`: its approach, and the descent that takes over when this is over."""

    approach: Approach
    descent: Descent
    begun: Array
    """True once the descent has begun; until then its h and q are those of the approach."""


def begin(problems: Problems, h: Array) -> Search:
    """The search at its start h."""
    coarse = problems.coarse
    at = h.astype(coarse.longest.dtype)
    q, g = jax.value_and_grad(speed(coarse.step))(at)
    none = jnp.zeros((MEMORY, *at.shape), at.dtype)
    zero = jnp.zeros((), jnp.int32)
    over = verdict(at, q, zero, coarse) != RUNNING  # a start may be a fixed point
    # The second g holds the place of the first step p, which the next line computes.
    approach = Approach(at, q, g, g, none, none, none[:, 0], zero, zero, over)
    approach = approach._replace(p=_next_step(approach, coarse))
    cast = lambda value: value.astype(h.dtype)
    nothing = jnp.zeros((0, 0), h.dtype)  # the descent only holds h and q until `_land`
    descent = lm_init(nothing, h, h, cast(q), cast(g), cast(coarse.longest))
    return Search(approach, descent, jnp.zeros((), bool))


def advance(problems: Problems, s: Search) -> Search:
    """A block of ticks of the approach, if it is not over, then one of the descent, if it has begun.

    A loop ends at once if no candidate of the microbatch is in its part. Candidates that began together mostly are in one part.
    """
    approach = run_block(partial(_tick, problems.coarse), BLOCK, lambda s: ~s.over, s.approach)
    s = s._replace(approach=approach)
    s = run_block(partial(_land, problems.fine), 1, lambda s: ~s.begun, s)
    descent = run_block(
        partial(lm_tick, problems.fine),
        LM_BLOCK,
        lambda descent: s.begun & (descent.outcome == RUNNING),
        s.descent,
    )
    return s._replace(descent=descent)


def _land(fine: Problem, s: Search) -> Search:
    """Put the descent where the approach stands; it begins if the approach is over."""
    first, reached = s.descent.start, s.approach.h.astype(s.descent.h.dtype)
    # Where the approach ended at once, the start keeps the digits that float32 would cut off.
    h = jnp.where(s.approach.iterations == 0, first, reached)
    q, g = jax.value_and_grad(speed(fine.step))(h)
    iterations = s.approach.iterations
    descent = lm_init(fine.inverse, first, h, q, g, fine.longest)
    # In the item's precision: what ended the approach in float32 need not be a fixed point.
    outcome = jnp.where(s.approach.over, verdict(h, q, iterations, fine), RUNNING)
    descent = descent._replace(iterations=iterations, outcome=outcome)
    return s._replace(descent=descent, begun=s.approach.over)


def _tick(coarse: Problem, s: Approach) -> Approach:
    """Try the step p: go there if q falls enough (Armijo's rule), otherwise halve it."""
    at = s.h + s.p
    q, g = jax.value_and_grad(speed(coarse.step))(at)
    slope = s.g @ s.p
    # 1e-4 is the constant that Nocedal & Wright (2006, section 3.1) use.
    accepted = q <= s.q + 1e-4 * slope
    change = g - s.g
    along = change @ s.p
    # A pair without positive curvature would make the approximate Hessian indefinite.
    curved = accepted & (along > jnp.finfo(q.dtype).eps * (change @ change))
    push = lambda old, new: jnp.where(curved, jnp.concatenate([old[1:], new[None]]), old)
    pick = lambda new, old: jnp.where(accepted, new, old)
    s = s._replace(
        h=pick(at, s.h),
        q=pick(q, s.q),
        g=pick(g, s.g),
        steps=push(s.steps, s.p),
        changes=push(s.changes, change),
        # `push` drops the pair where it is not curved; 1 keeps the division finite there.
        rho=push(s.rho, 1 / jnp.where(curved, along, 1)),
        idle=jnp.where(s.q - q > ENOUGH * s.q, 0, s.idle + 1),
    )
    s = s._replace(p=pick(_next_step(s, coarse), s.p / 2))
    iterations = s.iterations + 1
    over = verdict(s.h, s.q, iterations, coarse) != RUNNING
    # -g.p / 2 is the gain of p by the quadratic model whose Hessian is the inverse of B.
    over |= (-(s.g @ s.p) / 2 <= ENOUGH * s.q) | (s.idle > MOST_IDLE)
    return s._replace(iterations=iterations, over=over)


def _next_step(s: Approach, coarse: Problem) -> Array:
    """-B g, B the approximate inverse of the Hessian: a multiple of 1, once steps are short (NEAR) of `inverse`, corrected by
    the steps known. Earlier, `inverse` would lead into other basins than gradient descent does."""
    inverse, last_length = coarse.inverse, jnp.linalg.norm(s.steps[-1])
    near = (last_length > 0) & (last_length <= NEAR * coarse.spread)
    r, parts = -s.g, []
    # The two loops of algorithm 7.4 (Nocedal & Wright 2006). A pair whose `rho` is 0 changes nothing.
    for k in reversed(range(MEMORY)):
        part = s.rho[k] * (s.steps[k] @ r)
        r = r - part * s.changes[k]
        parts.append(part)
    spread = lambda v: jnp.where(near, inverse @ v, v) if inverse.size else v
    last = s.changes[-1]
    size = last @ spread(last)
    # s.y / y.By, the usual scale of the first guess (Nocedal & Wright 2006, equation 7.20 with B = 1), in the metric B.
    r = spread(r) * jnp.where(size > 0, 1 / (s.rho[-1] * size), 1)
    for k, part in zip(range(MEMORY), reversed(parts), strict=True):
        r = r + s.steps[k] * (part - s.rho[k] * (s.changes[k] @ r))
    length = jnp.linalg.norm(r)
    return r * jnp.minimum(1, coarse.longest / jnp.maximum(length, jnp.finfo(r.dtype).tiny))
