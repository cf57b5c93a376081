"""The largest Lyapunov exponent of a run: the mean log growth of one tangent vector, renormalised at every step.

Benettin et al. 1980, Meccanica 15:9. The kernel `fixed_points.exponents` computes whole spectra, from frames.
"""

from __future__ import annotations

from collections.abc import Callable

from ctd.late import Array, Float, jax, jnp, lax

MEAN_OVER = 500
"""Steps of a mean of which the standard error is made: that of `fixed_points.exponents` by default."""


def tangent_growth[State](
    step: Callable[[State, Array], State], start: State, tangent: State, xs: Float[Array, "t k"]
) -> tuple[Float[Array, "t"], State]:
    """Log growth of a tangent vector in each step of a run from `start`, and the state at its end.

    step: (state, input (k,)) -> the next state; a state is any tree of float arrays, and `tangent` one alike, not all 0.

    >>> growth, end = tangent_growth(lambda h, x: 0.5 * h, jnp.ones(2), jnp.ones(2), jnp.zeros((3, 0)))
    >>> print(growth.round(3))  # log 0.5
    [-0.693 -0.693 -0.693]
    """

    def carry(at: tuple[State, State], x: Array) -> tuple[tuple[State, State], Array]:
        state, moved = jax.jvp(lambda state: step(state, x), (at[0],), (at[1],))
        size = norm(moved)
        # A vector that a step contracts to 0 gives log 0 = -inf, and divided by 1 it stays 0 in place of NaN.
        scaled = jax.tree.map(lambda leaf: leaf / jnp.where(size > 0, size, 1), moved)
        return (state, scaled), jnp.log(size)

    norm = lambda tree: jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))
    unit = jax.tree.map(lambda leaf: leaf / norm(tangent), tangent)
    (end, _), growth = lax.scan(carry, (start, unit), xs)
    return growth, end


def mean_growth(growth: Float[Array, "t"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(mean growth a step, its standard error from the means over MEAN_OVER steps as if independent; NaN of less than two).

    >>> mean, error = mean_growth(jnp.repeat(jnp.array([1.0, 2.0, 3.0]), MEAN_OVER))
    >>> round(float(mean), 4), round(float(error), 4)  # sd / sqrt(3)
    (2.0, 0.5774)
    """
    n = len(growth) // MEAN_OVER
    means = growth[: n * MEAN_OVER].reshape(n, MEAN_OVER).mean(axis=1)
    error = means.std(ddof=1) / n**0.5 if n > 1 else jnp.full((), jnp.nan, growth.dtype)
    return growth.mean(), error
