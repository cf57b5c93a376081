"""The curve g(h, p) = 0 of points that move with a parameter p: corrected points, tangents, unstable modes.

Coordinates are w = (h / unit, (p - low) / (high - low)): a step of length 1 moves h by its unit, or p by its whole
range. A point is corrected by Newton on g(w) = 0 within a plane; across the tangent, that passes folds, where
dp/ds = 0 (Keller 1977; Allgower & Georg 2003, chapters 2 and 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ctd.late import Array, Bool, Float, Int, jax, jnp, lax

type Residual = Callable[[Array, Array], Array]
"""(h, p) -> g, zero on the curve."""

NEWTON = 8
"""Iterations of a corrector, which mostly needs two or three."""

TOLERANCE = 1e-11
"""Largest |g| / (1 + |h|) of a corrected point: the rounding of a few hundred units in float64 stays below."""


class Point(NamedTuple):
    """A point of the curve."""

    w: Array
    t: Array
    """Unit tangent."""
    unstable: Array
    """int32, number of unstable modes."""


class System(NamedTuple):
    """The equation g(h, p) = 0, the units of w, and the bounds of a branch."""

    g: Residual
    flow: bool
    """True: g is dh/dt; false: g = F(h) - h of a map F."""
    unit: Array
    low: Array
    high: Array
    longest: Array
    """Longest step."""
    bound: Array
    """A branch on which an |h_i| exceeds this has gone away."""

    def split(self, w: Array) -> tuple[Array, Array]:
        """(h, p) of w."""
        return w[:-1] * self.unit, self.low + w[-1] * (self.high - self.low)

    def join(self, h: Array, p: Array) -> Array:
        """w of (h, p)."""
        return jnp.append(h / self.unit, (p - self.low) / (self.high - self.low))

    def residual(self, w: Array) -> Array:
        """g at w."""
        return self.g(*self.split(w))

    def modes(self, w: Array) -> Array:
        """(n,) complex eigenvalues of dg/dh of a flow, of dF/dh of a map."""
        h, p = self.split(w)
        jacobian = jax.jacfwd(self.g)(h, p)
        identity = jnp.eye(len(h), dtype=h.dtype)
        # g = F(h) - h of a map: its own Jacobian is that of g plus 1.
        return jnp.linalg.eigvals(jacobian if self.flow else jacobian + identity)

    def growth(self, modes: Array) -> Array:
        """Growth of each mode, positive where it is unstable: Re of a flow's eigenvalue, magnitude - 1 of a map's."""
        return jnp.real(modes) if self.flow else jnp.abs(modes) - 1

    def point(self, w: Array, before: Array) -> Point:
        """The point w with its tangent, which makes an acute angle with `before`."""
        # dg/dw t = 0 and before . t = 1: the last row fixes the length and the side, at folds too.
        border = along_parameter(w)
        # Derivative and border together are (n + 1, n + 1), and regular at folds.
        t = jnp.linalg.solve(jnp.vstack([jax.jacfwd(self.residual)(w), before]), border)
        unstable = jnp.sum(self.growth(self.modes(w)) > 0).astype(jnp.int32)
        return Point(w, t / jnp.linalg.norm(t), unstable)


def along_parameter(w: Array) -> Array:
    """The unit vector along the parameter."""
    return jnp.zeros_like(w).at[-1].set(1)


type Corrected = tuple[Int[Array, ""], Float[Array, "curve"], Float[Array, ""]]
"""Iterations of Newton, a point w, and its error."""


def correct(system: System, w: Array, normal: Array) -> tuple[Array, Array]:
    """(the curve's point in the plane through w across `normal`, True if Newton converged)."""

    def miss(now: Array) -> Array:
        return jnp.append(system.residual(now), normal @ (now - w))  # g is (n,), the plane one more

    def off(now: Array) -> Array:
        h, _ = system.split(now)
        return jnp.linalg.norm(system.residual(now)) / (1 + jnp.linalg.norm(h))

    def newton(carry: Corrected) -> Corrected:
        count, now, _ = carry
        now = now - jnp.linalg.solve(jax.jacfwd(miss)(now), miss(now))
        return count + 1, now, off(now)

    def going(carry: Corrected) -> Bool[Array, ""]:
        return (carry[0] < NEWTON) & (carry[2] > TOLERANCE)

    # At least one iteration: the error of a point that is only just good enough is squared.
    first = newton((jnp.zeros((), jnp.int32), w, off(w)))
    _, point, error = lax.while_loop(going, newton, first)
    return point, error <= TOLERANCE
