"""Dynamical similarity analysis (Ostrow et al. 2023): linear dynamics of a network, and their best alignment.

H has the rows [h_t, h_(t-d), ..., h_(t-(k-1)d)] of all trials. Its singular value decomposition H = V S U' gives
eigen-time-delay coordinates v_t, of which the first `rank` are kept; A is the least-squares fit v_(t+1) = A v_t
(HAVOK, Brunton et al. 2017). Two networks are compared by

    max over orthogonal C of <A, C B C'> / (|A| |B|),    the cosine of their angle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctd.late import jax, jnp, lax

LEAST = 1e-6
"""Singular values below this share of the largest are noise of rounding in V."""

TOL = 1e-12
"""The ascent ends where a step gains less of the cosine."""


def delay_embedded(states: np.ndarray, n_delays: int, interval: int) -> np.ndarray:
    """(trial, time - (n_delays - 1) interval, n_delays * state): states with those before them, the latest first.

    Raises ValueError where trials are too short.
    """
    steps = states.shape[1]
    first = (n_delays - 1) * interval
    if steps - first < 2:
        raise ValueError(
            f"n_delays: {n_delays} states {interval} apart span {first + 1} steps, but trials have {steps}; two rows "
            "at least are needed: fewer delays, or longer trials"
        )
    shifts = [states[:, first - k * interval : steps - k * interval] for k in range(n_delays)]
    return np.concatenate(shifts, axis=2)


def linear_dynamics(states: np.ndarray, n_delays: int, interval: int, rank: int) -> np.ndarray:
    """(rank, rank) A of unit norm, of states (trial, time, state). Raises ValueError where the rank is too high."""
    h = delay_embedded(states, n_delays, interval)
    flat = h.reshape(-1, h.shape[-1])
    # Eigenvectors of H'H: a tenth of the time of H's singular value decomposition.
    squares, u = np.linalg.eigh(flat.T @ flat)
    s = np.sqrt(np.maximum(squares[::-1], 0))
    usable = int((s > LEAST * s[0]).sum())
    if rank > usable:
        raise ValueError(
            f"rank: {rank} given, but a network's states span {usable} dimensions with {n_delays} delays; lower the "
            "rank, or give more delays"
        )
    v = (h @ u[:, ::-1][:, :rank]) / s[:rank]
    before, after = v[:, :-1].reshape(-1, rank), v[:, 1:].reshape(-1, rank)
    a = np.linalg.lstsq(before, after, rcond=None)[0].T
    return a / np.linalg.norm(a)


def alignment(a: jax.Array, b: jax.Array, starts: int, max_iterations: int, key: Any) -> jax.Array:
    """The largest <A, C B C'> over orthogonal C that is found from `starts` rotations.

    The first start is the exact answer where B = Q A Q' and A's symmetric part has distinct eigenvalues; the others
    are drawn uniformly. a, b: (rank, rank) of unit norm.
    """
    drawn = jax.random.orthogonal(key, a.shape[0], (starts,), a.dtype)
    first = drawn.at[0].set(_matched(a, b))
    return jnp.max(lax.map(lambda c: _ascend(a, b, c, max_iterations), first))


def _value(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.sum(a * (c @ b @ c.T))


def _matched(a: jax.Array, b: jax.Array) -> jax.Array:
    """Match the eigenvectors of both symmetric parts, in order; their signs, by the antisymmetric parts."""
    _, u = jnp.linalg.eigh((a + a.T) / 2)
    _, v = jnp.linalg.eigh((b + b.T) / 2)
    # s_i s_j of the right signs makes all products positive, so s has the signs of the leading eigenvector.
    agree = (u.T @ (a - a.T) @ u) * (v.T @ (b - b.T) @ v)
    _, vectors = jnp.linalg.eigh(agree)
    signs = jnp.where(vectors[:, -1] < 0, -1, 1).astype(a.dtype)
    return (u * signs) @ v.T


def _ascend(a: jax.Array, b: jax.Array, start: jax.Array, max_iterations: int) -> jax.Array:
    """Climb <A, C B C'> from `start`: C <- the orthogonal factor of G + shift C, with the gradient G.

    <A, C B C'> + shift |C|^2 / 2 is convex for shift = 2 |A|_2 |B|_2, so that its tangent plane, which the polar
    factor maximises over all orthogonal matrices, lies below it: no step goes down (Journee et al. 2010). Smaller
    shifts take longer steps; one that goes down is taken back, and the shift doubled.
    """
    bound = 2 * jnp.linalg.norm(a, 2) * jnp.linalg.norm(b, 2)

    def step(carry: Any) -> Any:
        c, value, shift, k, _ = carry
        u, _, vt = jnp.linalg.svd(a @ c @ b.T + a.T @ c @ b + shift * c)
        new = u @ vt
        reached = _value(a, b, new)
        better = reached > value
        gain = jnp.where(better, reached - value, jnp.where(shift < bound, jnp.inf, 0))
        shift = jnp.where(better, shift / 2, jnp.minimum(2 * shift + bound / 64, bound))
        keep = lambda x, y: jnp.where(better, x, y)
        return keep(new, c), keep(reached, value), shift, k + 1, gain

    def going(carry: Any) -> jax.Array:
        *_, k, gain = carry
        return (k < max_iterations) & (gain > TOL)

    first = (
        start,
        _value(a, b, start),
        bound / 8,
        jnp.zeros((), jnp.int32),
        jnp.full((), jnp.inf, a.dtype),
    )
    return lax.while_loop(going, step, first)[1]
