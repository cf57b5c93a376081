"""One branch, followed step by step from a point: first backwards, where p falls at the start, then forwards."""

from __future__ import annotations

from typing import NamedTuple

from ctd.fixed_points.continuation.bifurcation import Bifurcations, locate, none
from ctd.fixed_points.continuation.curve import Point, System, along_parameter, correct
from ctd.late import Array, jax, jnp, lax

GOING = -1
END, CLOSED, AWAY, LIMIT, LOST_TRACK, NOWHERE, ELSEWHERE = range(7)
"""The reasons for which a side ends, the graver the higher."""

TURN = 0.95
"""Smallest cosine between the tangents of neighbouring points: a sharper turn may be a jump to another branch."""

SMALLEST = 1e-6
"""Length of a step below which a branch counts as lost."""

GROWTH = 1.4
"""Factor of the next step's length after one that was taken."""


class Branch(NamedTuple):
    """A branch between two steps. The lists run from its back over the start, row N, to its front."""

    at: Point
    start: Point
    ds: Array
    forward: Array
    """False while the back is followed, which comes first; then true."""
    n_taken: Array
    """int32, steps of this side."""
    parameter: Array
    """(2 N + 1,), NaN where there is no point."""
    state: Array
    """(2 N + 1, n)"""
    unstable: Array
    """(2 N + 1,) int32, -1 where there is no point."""
    bifurcations: Bifurcations
    ends: Array
    """(2,) int32, the reasons for which the back and the front ended."""


def begin(system: System, h: Array, p: Array, n_steps: int, most: int) -> Branch:
    """The branch through the point near h at the parameter p; it has ended NOWHERE if Newton finds none.

    n_steps: room for the steps of a side; most: for bifurcations.
    """
    guess = system.join(h, p)
    upward = along_parameter(guess)
    w, converged = correct(system, guess, upward)
    # From a slow point Newton may reach a fixed point elsewhere, which is another start's.
    converged &= jnp.linalg.norm(w - guess) <= system.longest
    start = system.point(w, upward)
    h, p = system.split(w)
    length = 2 * n_steps + 1
    fine = converged & jnp.isfinite(start.t).all()
    or_nan = lambda value: jnp.where(fine, value, jnp.nan)  # else no point is on the branch
    return Branch(
        start._replace(t=-start.t),  # the back is walked against the start's tangent
        start,
        system.longest / 4,  # each step that succeeds is GROWTH longer
        jnp.zeros((), bool),
        jnp.zeros((), jnp.int32),
        jnp.full(length, jnp.nan, h.dtype).at[n_steps].set(or_nan(p)),
        jnp.full((length, len(h)), jnp.nan, h.dtype).at[n_steps].set(or_nan(h)),
        jnp.full(length, -1, jnp.int32).at[n_steps].set(jnp.where(fine, start.unstable, -1)),
        none(most, h),
        jnp.full(2, jnp.where(fine, GOING, NOWHERE), jnp.int32),
    )


def ended(b: Branch) -> Array:
    """Tell if both sides have ended."""
    return b.ends[1] != GOING


def step(system: System, b: Branch) -> Branch:
    """Make one step along the branch; or, where the corrector fails or the curve turns too sharply, halve its length."""
    predicted = b.at.w + b.ds * b.at.t
    w, converged = correct(system, predicted, b.at.t)
    new = system.point(w, b.at.t)
    # A corrector that moves farther than the step itself has found another branch.
    good = converged & (new.t @ b.at.t >= TURN) & (jnp.linalg.norm(w - predicted) <= b.ds)
    outside = (w[-1] < 0) | (w[-1] > 1)  # w[-1] is p in units of its range
    new, reached = lax.cond(
        good & outside, lambda: _cut(system, b.at, new), lambda: (new, jnp.ones((), bool))
    )
    return lax.cond(good & reached, lambda: _accept(system, b, new, outside), lambda: _shorten(b))


def _shorten(b: Branch) -> Branch:
    """Halve the step; a side whose steps are too short is lost."""
    ds = b.ds / 2
    return _end_side(b._replace(ds=ds), jnp.where(ds < SMALLEST, LOST_TRACK, GOING))


def _cut(system: System, at: Point, new: Point) -> tuple[Point, Array]:
    """(the point at the end of the parameter's range between two points, True if Newton converged)."""
    bound = jnp.where(new.w[-1] < 0, 0.0, 1.0).astype(new.w.dtype)
    share = (bound - at.w[-1]) / (new.w[-1] - at.w[-1])
    near = (at.w + share * (new.w - at.w)).at[-1].set(bound)
    w, converged = correct(system, near, along_parameter(near))
    return system.point(w, at.t), converged


def _accept(system: System, b: Branch, new: Point, last: Array) -> Branch:
    """Go to the new point, and look for bifurcations on the way."""
    n_steps = (len(b.parameter) - 1) // 2
    n_taken = b.n_taken + 1
    row = jnp.where(b.forward, n_steps + n_taken, n_steps - n_taken)
    h, p = system.split(new.w)
    # Back at the start, in the same direction: the tangent there points upward, the back's walk began against it.
    same_way = jnp.where(b.forward, 1, -1) * (new.t @ b.start.t) >= TURN
    # The first two points are near the start on every branch.
    home = (jnp.linalg.norm(new.w - b.start.w) < b.ds) & same_way & (n_taken > 2)
    # The last rule that applies decides: an end of the range comes before all else.
    reason = jnp.where(n_taken >= n_steps, LIMIT, GOING)
    reason = jnp.where(jnp.max(jnp.abs(h)) > system.bound, AWAY, reason)
    reason = jnp.where(home, CLOSED, reason)
    reason = jnp.where(last, END, reason)
    moved = b._replace(
        at=new,
        ds=jnp.minimum(GROWTH * b.ds, system.longest),
        n_taken=n_taken,
        parameter=b.parameter.at[row].set(p),
        state=b.state.at[row].set(h),
        unstable=b.unstable.at[row].set(new.unstable),
        bifurcations=locate(system, b.at, new, b.bifurcations),
    )
    return _end_side(moved, reason)


def _end_side(b: Branch, reason: Array) -> Branch:
    """End the side that is followed, unless `reason` is GOING: after the back comes the front, after the front the end."""
    reason = reason.astype(jnp.int32)
    back = b._replace(
        at=b.start,
        # A back that was lost leaves a step near SMALLEST: the front would be lost after one failure.
        ds=jnp.maximum(b.ds, SMALLEST * 1e3),
        forward=jnp.ones((), bool),
        n_taken=jnp.zeros((), jnp.int32),
        # A closed curve has been walked whole.
        ends=jnp.stack([reason, jnp.where(reason == CLOSED, CLOSED, GOING).astype(jnp.int32)]),
    )
    front = b._replace(ends=b.ends.at[1].set(reason))
    over = jax.tree.map(lambda x, y: jnp.where(b.forward, x, y), front, back)
    return jax.tree.map(lambda x, y: jnp.where(reason == GOING, x, y), b, over)


def outcome(b: Branch) -> Array:
    """The graver reason of both ends, GOING before they are known."""
    return jnp.where(ended(b), jnp.max(b.ends), GOING)
