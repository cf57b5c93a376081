"""The largest Lyapunov exponent of a run: the mean log growth of one tangent vector, renormalised at every step.

Benettin et al. 1980, Meccanica 15:9. The kernel `fixed_points.exponents` computes whole spectra, from frames.
"""

from __future__ import annotations

from collections.abc import Callable

from ctd.late import Array, Float, Int, jax, jnp, lax

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
    """(mean growth a step, its standard error from the means over MEAN_OVER steps, by `mean_error`).

    >>> mean, error = mean_growth(jnp.repeat(jnp.array([1.0, 2.0] * 4), MEAN_OVER))
    >>> round(float(mean), 4), round(float(error), 4)  # the sum varies by 1/2, and has eight means
    (1.5, 0.0625)
    """
    n = len(growth) // MEAN_OVER
    batches = growth[: n * MEAN_OVER].reshape(n, MEAN_OVER, 1)
    means = batches.mean(axis=1)
    inner = jax.vmap(swing)(batches).mean(axis=0)
    return growth.mean(), mean_error(means, n, inner / MEAN_OVER**2)[0]


def swing(growth: Float[Array, "t number"]) -> Float[Array, "number"]:
    """Variance of log growth about its mean rise, over a span.

    >>> print(swing(jnp.array([[1.0], [-1.0], [1.0], [-1.0]])))
    [0.25]
    """
    return jnp.cumsum(growth - growth.mean(axis=0), axis=0).var(axis=0)


def mean_error(
    means: Float[Array, "batch number"], n: int | Int[Array, ""], inner: Float[Array, "number"]
) -> Float[Array, "number"]:
    """Standard error of the mean of the first n of some batch means, which follow each other; NaN for n < 4.

    Growth fluctuates in two ways: over m batches its sum varies by D m, as a random walk does, plus V, since a state and its tangent
    come back. Batches taken for independent would make n V of V. Overlapping windows (Meketon & Schmeiser 1984) of two lengths tell
    D from V, as two sizes of batches do in Vats & Flegal 2022, Biometrika 109:735.

    inner: mean `swing` of a batch, over its length squared. 2 inner is the least V: none is seen between batches that are whole periods.
    """
    place = jnp.arange(len(means) + 1)[:, None]
    counts = place[1:] <= n
    mean = jnp.where(counts, means, 0).sum(axis=0) / n
    path = jnp.cumsum(jnp.where(counts, means - mean, 0), axis=0)
    path = jnp.concatenate([jnp.zeros_like(path[:1]), path])

    def variance(m: int | Array) -> Array:
        apart = jnp.roll(path, -m, axis=0) - path
        return jnp.where(place + m <= n, apart**2, 0).sum(axis=0) / (n + 1 - m)

    # A walk that is made to end at 0 varies by D m (1 - m / n).
    walk = lambda m: m * (1 - m / n)
    long = jnp.maximum(n // 4, 2)
    slope = jnp.maximum((variance(long) - variance(1)) / (walk(long) - walk(1)), 0)
    offset = jnp.maximum(variance(1) - slope * walk(1), 2 * inner)
    return jnp.where(n >= 4, jnp.sqrt(slope * n + offset) / n, jnp.nan)
