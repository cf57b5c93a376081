"""Bifurcations within one step along a curve: found by bisection, and where branches cross by Newton; told apart by the
critical mode.

A step across which the number of unstable modes changes, or the sign of dp/ds, holds one. Two that cancel within one
step are not seen: the longest step bounds how near to each other they may lie.

| kind | critical eigenvalue, map (flow) | what else |
|---|---|---|
| fold | 1 (0) | p turns |
| pitchfork | 1 (0) | no quadratic term along the mode; or p turns, and stability does not change: an arm's vertex |
| transcritical | 1 (0) | a quadratic term |
| flip | -1 | a cycle of two steps begins |
| hopf | a pair on the unit circle (imaginary axis) | a cycle begins; of maps: Neimark-Sacker |

Kuznetsov, Elements of Applied Bifurcation Theory (2004), chapters 3, 4 and 7.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.fixed_points.continuation.curve import NEWTON, TOLERANCE, Point, System, correct
from ctd.late import Array, Float, Number, jax, jnp, lax

KINDS = ("fold", "pitchfork", "transcritical", "flip", "hopf")
FOLD, PITCHFORK, TRANSCRITICAL, FLIP, HOPF = range(len(KINDS))

HALVINGS = 45
"""Halvings of a step: they locate a bifurcation along it to rounding."""

SYMMETRIC = 1e-2
"""A quadratic term below this share of the cubic one, in the units of w, counts as none."""

REAL = 1e-6
"""An eigenvalue with a smaller imaginary part counts as real. Rounding splits a double real one by about the square
root of float64's eps, 1.5e-8."""


class Bifurcations(NamedTuple):
    """The bifurcations of a branch in the order in which they were met; room for k."""

    n: Array
    kind: Array
    """(k,) int32, index into KINDS; -1: no more."""
    parameter: Array
    """(k,)"""
    state: Array
    """(k, n)"""
    mode: Array
    """(k, 2) real and imaginary part of the critical eigenvalue."""


def none(most: int, template: Array) -> Bifurcations:
    """Room for `most` bifurcations, whose states have the length and dtype of `template`."""
    empty = lambda *shape: jnp.full(shape, jnp.nan, template.dtype)
    return Bifurcations(
        jnp.zeros((), jnp.int32),
        jnp.full(most, -1, jnp.int32),
        empty(most),
        empty(most, len(template)),
        empty(most, 2),
    )


def differ(a: Point, b: Point) -> Array:
    """Tell if p turns or the number of unstable modes changes between two points."""
    return (a.unstable != b.unstable) | _turns(a, b)


def _turns(a: Point, b: Point) -> Array:
    # The last entry of a tangent is dp/ds.
    return (a.t[-1] > 0) != (b.t[-1] > 0)


def locate(system: System, a: Point, b: Point, bifurcations: Bifurcations) -> Bifurcations:
    """Add to `bifurcations` those between the neighbouring points a and b, as many as there is room for."""

    def going(carry: tuple[Point, Bifurcations]) -> Array:
        behind, bifurcations = carry
        return differ(behind, b) & (bifurcations.n < len(bifurcations.kind))

    def next_one(carry: tuple[Point, Bifurcations]) -> tuple[Point, Bifurcations]:
        behind, bifurcations = carry
        turns = _turns(behind, b)
        low, high = _bisect(system, behind, b, turns)
        # Where p turns, one eigenvalue is zero to rounding: at a fold it changes its sign, and with it that of det dg/dh, at the
        # vertex of a pitchfork it does not. What is counted so near to it means nothing.
        modes = system.modes(low.w)
        simple = _simple(system, modes)
        k = jnp.argmin(jnp.abs(simple))
        others = _sign(simple.at[k].set(1))
        before, after = (_sign(_simple(system, system.modes(w))) for w in (behind.w, b.w))
        count = jnp.sum((system.growth(modes) > 0).at[k].set(after * others > 0))
        high = high._replace(unstable=jnp.where(turns, count.astype(jnp.int32), high.unstable))
        is_fold = turns & (before != after)
        w = (low.w + high.w) / 2
        crossing = _crossing(system, w, jnp.linalg.norm(b.w - behind.w))
        # At folds, flips and Hopf points dg/dw has full rank, so that bisection located them to rounding.
        w = jnp.where(is_fold | ~_is_simple(system, _critical(system, w)), w, crossing)
        return high, _add(bifurcations, system, w, turns, is_fold)

    return lax.while_loop(going, next_one, (a, bifurcations))[1]


type Halved = tuple[Float[Array, ""], Float[Array, ""], Point, Point]
"""An interval, as shares of the whole, and the points at its ends."""


def _bisect(system: System, a: Point, b: Point, turns: Array) -> tuple[Point, Point]:
    """Two points of the curve as near as rounding allows: across the turn of p, or the first change of `unstable`."""
    length = a.t @ (b.w - a.w)  # how far b lies along the tangent at a

    def halve(_: Number, carry: Halved) -> Halved:
        low, high, lower, upper = carry
        share = (low + high) / 2
        w, converged = correct(system, a.w + share * length * a.t, a.t)
        middle = system.point(w, a.t)
        same = jnp.where(turns, ~_turns(a, middle), a.unstable == middle.unstable)
        pick = lambda x, y: jax.tree.map(lambda p, q: jnp.where(same, p, q), x, y)
        new = (*pick((share, high), (low, share)), *pick((middle, upper), (lower, middle)))
        # Next to where branches meet, Newton finds nothing: the interval stays as it is, and `_crossing` takes over.
        interval: Halved = jax.tree.map(lambda p, q: jnp.where(converged, p, q), new, carry)
        return interval

    ends = jnp.zeros((), a.w.dtype), jnp.ones((), a.w.dtype)
    _, _, lower, upper = lax.fori_loop(0, HALVINGS, halve, (*ends, a, b))
    return lower, upper


def _critical(system: System, w: Array) -> Array:
    """The mode at w that is nearest to neither growing nor decaying."""
    modes = system.modes(w)
    return modes[jnp.argmin(jnp.abs(system.growth(modes)))]


def _simple(system: System, modes: Array) -> Array:
    """The eigenvalues of dg/dh: the modes of a flow, those of a map less 1."""
    return modes if system.flow else modes - 1


def _sign(modes: Array) -> Array:
    """The sign of the product of modes, of which complex ones come in conjugate pairs."""
    return jnp.sign(jnp.real(jnp.prod(jnp.sign(modes))))


def _is_simple(system: System, mode: Array) -> Array:
    """Tell if a critical mode is 1 (map) or 0 (flow): dg/dh is then singular."""
    return (jnp.abs(jnp.imag(mode)) <= REAL) & (system.flow | (jnp.real(mode) > 0))


def _crossing(system: System, w: Array, reach: Array) -> Array:
    """The point within `reach` of w where another branch crosses this one; w itself where Newton finds none.

    There dg/dw, (n, n + 1), loses its full rank, so a corrector has no footing near it. Newton's method solves for the
    point, the left null vector u and a defect e at once: g + e u = 0, u' dg/dw = 0, u'u = 1, which is regular where two
    branches cross (Moore 1980; so does MatCont, Dhooge et al. 2003).
    """
    n = len(w) - 1

    def miss(z: Array) -> Array:
        at, u = z[: n + 1], z[n + 1 : -1]
        g, pull = jax.vjp(system.residual, at)
        return jnp.concatenate([g + z[-1] * u, pull(u)[0], (u @ u - 1)[None]])

    u = jnp.linalg.svd(jax.jacfwd(system.residual)(w))[0][:, -1]  # for the smallest singular value
    z = jnp.concatenate([w, u, jnp.zeros(1, w.dtype)])
    newton = lambda _, z: z - jnp.linalg.solve(jax.jacfwd(miss)(z), miss(z))
    z = lax.fori_loop(0, NEWTON, newton, z)
    converged = (jnp.linalg.norm(miss(z)) <= TOLERANCE) & (jnp.linalg.norm(z[: n + 1] - w) <= reach)
    return jnp.where(converged, z[: n + 1], w)


def _add(
    bifurcations: Bifurcations, system: System, w: Array, turns: Array, is_fold: Array
) -> Bifurcations:
    """Add the bifurcation at w to `bifurcations`. turns: True if p turns there."""
    h, p = system.split(w)
    mode = _critical(system, w)
    kind = jnp.where(_is_symmetric(system, w), PITCHFORK, TRANSCRITICAL)
    if not system.flow:
        kind = jnp.where(jnp.real(mode) < 0, FLIP, kind)
    kind = jnp.where(jnp.abs(jnp.imag(mode)) > REAL, HOPF, kind)
    kind = jnp.where(turns, jnp.where(is_fold, FOLD, PITCHFORK), kind)
    k = bifurcations.n
    return Bifurcations(
        k + 1,
        bifurcations.kind.at[k].set(kind.astype(jnp.int32)),
        bifurcations.parameter.at[k].set(p),
        bifurcations.state.at[k].set(h),
        # A real map's modes come in conjugate pairs: the one above the axis stands for both.
        bifurcations.mode.at[k].set(jnp.stack([jnp.real(mode), jnp.abs(jnp.imag(mode))])),
    )


def _is_symmetric(system: System, w: Array) -> Array:
    """Tell if g has no quadratic term along its null vector v at w, projected on its left null vector.

    Both terms are those of the equation that is left on the slow manifold (Lyapunov-Schmidt: Golubitsky & Schaeffer 1985, I.3).
    """
    g = lambda z: system.residual(jnp.append(z, w[-1]))
    u, size, vt = jnp.linalg.svd(jax.jacfwd(g)(w[:-1]))
    left_vector, v = u[:, -1], vt[-1]
    zero = jnp.zeros((), w.dtype)
    # The other modes follow as s^2. Where g is quadratic, the cubic term comes from them alone.
    push = jax.jacfwd(jax.jacfwd(lambda s: g(w[:-1] + s * v)))(zero)
    bend = -vt[:-1].T @ (u[:, :-1].T @ push / size[:-1])
    along = lambda s: left_vector @ g(w[:-1] + s * v + s**2 / 2 * bend)
    second = jax.grad(jax.grad(along))
    # Taylor's coefficients of s^2 and s^3.
    return jnp.abs(second(zero)) / 2 <= SYMMETRIC * jnp.abs(jax.grad(second)(zero)) / 6
