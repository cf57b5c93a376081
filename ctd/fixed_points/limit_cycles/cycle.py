"""One limit cycle: a trajectory settles, comes back to where it was, and Newton closes it.

A cycle of a map has an integer period p, F^p(h) = h; a cycle of a flow a real one, T. Newton's method on the return (single
shooting) corrects a point of it, of a flow together with T, across the flow. The Floquet multipliers are the eigenvalues
of the derivative of the return, dF^p/dh or dPhi_T/dh (Guckenheimer & Holmes 1983, section 1.5; Kuznetsov 2004, section 10.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ctd.cells import runge_kutta
from ctd.late import Array, jax, jnp, lax

RUNNING = -1
CYCLE, POINT, NONE, LOST_TRACK, DIVERGED = range(5)

PARTS = np.arange(2.0, 6.0)
"""A flow's cycle that is closed after one of these parts of its period, too, repeats a shorter one."""

SETTLES, RETURNS, CORRECTS = range(3)
"""The stages of a hunt."""

BLOCK = 100
"""Steps of one advance."""

NEWTON = 20
"""Most iterations of Newton, one in an advance; from a close return it takes a few."""

TOLERANCE = 1e-9
"""Largest error of a closed cycle, |return - h|, and largest last step, in units of 1 + |h|: the rounding of a few thousand
steps in float64 stays below."""

REST_RADIUS = 1e-6
"""A trajectory that stays within this of a state, in units of 1 + |h|, has come to rest there."""

GROWS = 1 + 1e-6
"""A cycle with a multiplier above this, the one along a flow's cycle not counted, repels; as the table counts."""

AWAY = 0.1
"""Newton may move a point this far from the return that was seen, in units of the cycle's size."""


class System(NamedTuple):
    """The map or flow that trajectories follow, and the bounds of the stages of a hunt."""

    f: Callable[[Array], Array]
    """h -> the next state, or dh/dt."""
    flow: bool
    dt: Array
    """Length of a step, of a flow."""
    transient: Array
    n_steps: Array
    """Most steps until the return."""
    near: Array
    """A state this near, in units of the cycle's size so far, has returned."""

    def step(self, h: Array, dt: Array) -> Array:
        """The state after one step."""
        return runge_kutta(self.f, h, dt) if self.flow else self.f(h)

    def steps(self, period: Array) -> tuple[Array, Array]:
        """(whole number of steps in a period, their length)."""
        if not self.flow:
            return jnp.round(period).astype(jnp.int32), jnp.ones_like(period)
        # Equal steps, none longer than dt, that end at the period exactly.
        n = jnp.maximum(jnp.ceil(period / self.dt), 1)
        return n.astype(jnp.int32), period / n

    def run(self, h: Array, period: Array) -> Array:
        """The state after a period."""
        n, dt = self.steps(period)
        return lax.fori_loop(0, n, lambda _, now: self.step(now, dt), h)


class Hunt(NamedTuple):
    """The hunt for a cycle between two advances."""

    h: Array
    stage: Array
    n_taken: Array
    """int32, steps, or iterations of Newton, in this stage."""
    anchor: Array
    """The state to which the trajectory is to return."""
    size: Array
    """The largest distance from the anchor."""
    period: Array
    residual: Array
    """|return - h|."""
    multiplier: Array
    """(n, 2) real and imaginary parts."""
    return_state: Array
    """The state of the trajectory at the return that Newton corrects."""
    waited: Array
    """int32, steps from the anchor to it."""
    outcome: Array


def begin(h: Array, period: Array) -> Hunt:
    """The hunt at its start. period: a guess, or 0."""
    zero, none = jnp.zeros((), jnp.int32), jnp.zeros((), h.dtype)
    unknown = jnp.full((len(h), 2), jnp.nan, h.dtype)
    running = jnp.full((), RUNNING, jnp.int32)
    return Hunt(h, zero, zero, h, none, period, none + jnp.nan, unknown, h, zero, running)


def advance(system: System, s: Hunt) -> Hunt:
    """A block of steps, or one iteration of Newton."""
    s = lax.switch(s.stage, [partial(go, system) for go in (_settle, _wait, _correct)], s)
    failed = (s.outcome == RUNNING) & ~jnp.isfinite(s.h).all()
    outcome = jnp.where(s.stage == CORRECTS, LOST_TRACK, DIVERGED).astype(jnp.int32)
    return s._replace(outcome=jnp.where(failed, outcome, s.outcome))


def _settle(system: System, s: Hunt) -> Hunt:
    n = jnp.minimum(BLOCK, system.transient.astype(jnp.int32) - s.n_taken)
    h = lax.fori_loop(0, n, lambda _, h: system.step(h, system.dt), s.h)
    over = s.n_taken + n >= system.transient
    stage = jnp.where(over, jnp.where(s.period > 0, CORRECTS, RETURNS), SETTLES).astype(jnp.int32)
    return s._replace(h=h, anchor=h, stage=stage, n_taken=jnp.where(over, 0, s.n_taken + n))


def _wait(system: System, s: Hunt) -> Hunt:
    """Step until the state returns to the anchor; a flow returns where it crosses the plane through the anchor, across the flow."""
    ahead = system.f(s.anchor)

    def look(s: Hunt) -> Hunt:
        h = system.step(s.h, system.dt)
        if system.flow:
            before, after = ahead @ (s.h - s.anchor), ahead @ (h - s.anchor)
            # Linear between two steps: a guess of the crossing, which Newton corrects.
            share = before / (before - after)
            crossed = (before < 0) & (after >= 0)
            gap = jnp.linalg.norm(s.h + share * (h - s.h) - s.anchor)
            period = (s.n_taken + share) * system.dt
        else:
            crossed, gap = jnp.ones((), bool), jnp.linalg.norm(h - s.anchor)
            period = (s.n_taken + 1).astype(h.dtype)
        # A trajectory at rest is back at every step; its size tells it from a cycle.
        back = crossed & (gap <= system.near * s.size) & (s.size > _rest_radius(s.anchor))
        return s._replace(
            h=h,
            n_taken=s.n_taken + 1,
            size=jnp.maximum(s.size, jnp.linalg.norm(h - s.anchor)),
            period=jnp.where(back, period, s.period),
            stage=jnp.where(back, CORRECTS, RETURNS).astype(jnp.int32),
        )

    until = jnp.minimum(s.n_taken + BLOCK, system.n_steps.astype(jnp.int32))
    s = lax.while_loop(lambda s: (s.stage == RETURNS) & (s.n_taken < until), look, s)
    missed = (s.stage == RETURNS) & (s.n_taken >= system.n_steps)
    reason = jnp.where(s.size > _rest_radius(s.anchor), NONE, POINT)
    back = s.stage == CORRECTS
    return s._replace(
        h=jnp.where(back, s.anchor, s.h),
        n_taken=jnp.where(back, 0, s.n_taken),
        return_state=jnp.where(back, s.h, s.return_state),
        waited=jnp.where(back, s.n_taken, s.waited),
        outcome=jnp.where(missed, reason, RUNNING).astype(jnp.int32),
    )


def _rest_radius(h: Array) -> Array:
    return REST_RADIUS * (1 + jnp.linalg.norm(h))


def _correct(system: System, s: Hunt) -> Hunt:
    """One iteration of Newton: of a flow, for the point and the period, and no step along the flow."""
    end = system.run(s.h, s.period)
    # Forward mode: the loop of `run` has a traced length, through which JAX has no reverse mode.
    derivative = jax.jacfwd(system.run)(s.h, s.period)
    square, miss = derivative - jnp.eye(len(s.h)), s.h - end
    if system.flow:
        # A cycle of a flow has the multiplier 1 along the flow, so that `square` alone is singular. The border adds the period
        # as an unknown, with derivative f(end), and the condition that the move is across the flow.
        ahead = system.f(s.h)
        square = jnp.block([[square, system.f(end)[:, None]], [ahead[None], jnp.zeros((1, 1))]])
        miss = jnp.append(miss, 0)
    move = jnp.linalg.solve(square, miss)
    unit, gap = 1 + jnp.linalg.norm(s.h), jnp.linalg.norm(end - s.h)
    closed = (gap <= TOLERANCE * unit) & (jnp.linalg.norm(move[: len(s.h)]) <= TOLERANCE * unit)
    values = jnp.linalg.eigvals(derivative)
    period = s.period + move[-1] if system.flow else s.period
    n_taken = s.n_taken + 1
    next_one = s._replace(
        h=s.h + move[: len(s.h)],
        period=period,
        n_taken=n_taken,
        residual=gap,
        multiplier=jnp.stack([jnp.real(values), jnp.imag(values)], axis=1),
        # At a period of 0 every state is its own return, which is no cycle.
        outcome=jnp.where((n_taken >= NEWTON) | ~(period > 0), LOST_TRACK, RUNNING).astype(
            jnp.int32
        ),
    )
    return lax.cond(closed, lambda: _judge(system, next_one, s.h), lambda: next_one)


def _judge(system: System, s: Hunt, h: Array) -> Hunt:
    """The hunt at a closed trajectory through h: a cycle, unless it rests, repeats a shorter one, or is another one.

    No trajectory ends at a cycle that repels: a return beside one is passed by, and the next waited for. Thus chaos has no
    cycle, and an attractor whose period has doubled its whole period.
    """
    n, dt = system.steps(s.period)

    def look(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        now, size, soonest = carry
        now = system.step(now, dt)
        gap = jnp.linalg.norm(now - h)
        return now, jnp.maximum(size, gap), jnp.where(k < n - 1, jnp.minimum(soonest, gap), soonest)

    # `soonest` leaves out the last step, the return itself: a smaller gap before it is a shorter period.
    _, size, soonest = lax.fori_loop(0, n, look, (h, jnp.zeros((), h.dtype), jnp.inf))
    elsewhere = (s.size > 0) & (jnp.linalg.norm(h - s.anchor) > AWAY * s.size)
    if system.flow:  # whose neighbours in time are near, so that only parts of the period tell
        ends = jax.vmap(lambda k: system.run(h, s.period / k))(PARTS)
        soonest = jnp.linalg.norm(ends - h, axis=1).min()
    repeats = soonest <= _rest_radius(h)
    outcome = jnp.where(elsewhere | repeats, LOST_TRACK, CYCLE)
    outcome = jnp.where(size <= _rest_radius(h), POINT, outcome).astype(jnp.int32)
    # After a guess of the period there was no return; s.size is 0 then.
    repels = (s.size > 0) & _repels(system, s)
    waits = s._replace(h=s.return_state, stage=jnp.full_like(s.stage, RETURNS), n_taken=s.waited)
    waits = waits._replace(outcome=jnp.full_like(outcome, RUNNING))
    judged = s._replace(size=size, outcome=outcome)
    return jax.tree.map(lambda a, b: jnp.where(repels, a, b), waits, judged)


def _repels(system: System, s: Hunt) -> Array:
    real, imaginary = s.multiplier.T
    size = jnp.hypot(real, imaginary)
    if system.flow:  # the multiplier nearest to 1 is the one along the cycle
        size = size.at[jnp.argmin(jnp.hypot(real - 1, imaginary))].set(0)
    return size.max() > GROWS


def orbit(system: System, s: Hunt, n_points: int) -> Array:
    """(n_points, n) the cycle from its point on: of a flow at equal times; of a map, NaN beyond its period."""
    if not system.flow:
        path = lax.scan(lambda h, _: (system.f(h), h), s.h, length=n_points)[1]
        inside = jnp.arange(n_points) < jnp.round(s.period)
        return jnp.where(inside[:, None], path, jnp.nan)
    part = s.period / n_points
    return lax.scan(lambda h, _: (system.run(h, part), h), s.h, length=n_points)[1]
