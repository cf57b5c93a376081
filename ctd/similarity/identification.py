"""Linear dynamics of driven networks, and the distance of the effects of their inputs (InputDSA, Huang & Ostrow 2026).

Subspace identification (N4SID, van Overschee & De Moor 1994) finds the states x_t of

    x_(t+1) = A x_t + B u_t,    y_t = C x_t + D u_t

from outputs y (a network's states, or some of them) and known inputs u. With p past and p future outputs and inputs as
the columns of Y_p, U_p, Y_f and U_f, the regression Y_f = L [U_p; Y_p] + M U_f gives O = L [U_p; Y_p], the part of the
future outputs that the past tells. O = U S V' has the rank of the system, and x = S^(1/2) V'; A and B are the least-squares
fit of x_(t+1) to x_t and u_t.

Two systems are aligned by the orthogonal C that brings their controllability matrices

    K = [B, A B, A' B, A^2 B, A'^2 B, ..., A^(r-1) B, A'^(r-1) B]

closest to each other, min |C K_1 - K_2| (orthogonal Procrustes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctd.late import Array, Float, jnp, scipy
from ctd.similarity.dynamics import leading


class Driven(NamedTuple):
    """x_(t+1) = A x_t + B u_t."""

    a: np.ndarray
    """A (rank, rank)"""
    b: np.ndarray
    """B (rank, n_in)"""


def driven_dynamics(
    states: Sequence[np.ndarray], inputs: Sequence[np.ndarray], n_delays: int, rank: int
) -> Driven:
    """Fit A and B to trials of states (time, state) and inputs (time, n_in), with p = n_delays steps of past and of future.

    Raises ValueError if trials are too short for so many delays, or the past tells fewer than `rank` dimensions.

    >>> rng = np.random.default_rng(0)
    >>> u, x = rng.standard_normal((400, 1)), np.zeros((401, 1))
    >>> for t in range(400):
    ...     x[t + 1] = 0.5 * x[t] + u[t]
    >>> driven_dynamics([x[:-1]], [u], n_delays=2, rank=1).a.round(6).tolist()
    [[0.5]]
    """
    # A trial of T steps has T - 2p times with p steps before and p from then on.
    long = [(y, u) for y, u in zip(states, inputs, strict=True) if len(y) > 2 * n_delays + 1]
    times = [len(y) - 2 * n_delays for y, _ in long]
    n_out, n_in = states[0].shape[1], inputs[0].shape[1]
    n_regressors = n_delays * (2 * n_in + n_out)
    if sum(times) <= n_regressors:
        raise ValueError(
            f"n_delays: {n_delays} of {n_out} states and {n_in} inputs make {n_regressors} regressors, but the trials have "
            f"{sum(times)} times with {n_delays} steps before and after; give fewer delays, or longer trials"
        )
    windows = lambda k, start: np.hstack([_windows(pair[k], start, n_delays) for pair in long])
    past = np.vstack([windows(1, 0), windows(0, 0)])
    future_in, future = windows(1, n_delays), windows(0, n_delays)
    oblique = _oblique(future, past, future_in)
    # The eigenvectors of O O' are the left singular vectors of O, which is much wider than high.
    span = "the past tells {} dimensions of a network's states"
    u, s = leading(oblique @ oblique.T, rank, f"{span} with {n_delays} delays")
    # S^(1/2) V' = S^(-1/2) U' O
    x = (u.T @ oblique) / np.sqrt(s[:, None])
    # No step leads from the end of one trial to the start of the next.
    parts = np.split(x, np.cumsum(times)[:-1], axis=1)
    before = np.hstack([part[:, :-1] for part in parts])
    after = np.hstack([part[:, 1:] for part in parts])
    now = np.hstack([u[n_delays : -n_delays - 1].T for _, u in long])
    fit = np.linalg.lstsq(np.vstack([before, now]).T, after.T, rcond=None)[0].T
    return Driven(fit[:, :rank], fit[:, rank:])


def _windows(x: np.ndarray, start: int, n_delays: int) -> np.ndarray:
    """Columns of n_delays steps of x (time, k) from each time on, shifted by `start`: (n_delays * k, time)."""
    count = len(x) - 2 * n_delays
    return np.concatenate([x[start + k : start + k + count].T for k in range(n_delays)])


def _oblique(future: np.ndarray, past: np.ndarray, future_in: np.ndarray) -> np.ndarray:
    """The part L past of the regression future = L past + M future_in; all (row, time)."""
    n_in, n_past = len(future_in), len(past)
    # H' = Q R: R has the regression of rows on those above them, as in van Overschee & De Moor's LQ decomposition.
    r = np.linalg.qr(np.vstack([future_in, past, future]).T, mode="r")
    past_rows = slice(n_in, n_in + n_past)
    # gelsy, pivoted QR, takes a fifth of the time of the singular value decomposition.
    solution = scipy.linalg.lstsq(
        r[past_rows, past_rows], r[past_rows, n_in + n_past :], lapack_driver="gelsy"
    )
    return solution[0].T @ past


# --- distances --------------------------------------------------------------------------------------


def controllability(a: Float[Array, "r r"], b: Float[Array, "r n_in"]) -> Float[Array, "r k"]:
    """[B, A B, A' B, ..., A^(r-1) B, A'^(r-1) B].

    >>> controllability(jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([[0.0], [1.0]])).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    blocks = [b]
    forward = backward = b
    for _ in range(1, len(a)):
        forward, backward = a @ forward, a.T @ backward
        blocks += [forward, backward]
    return jnp.concatenate(blocks, axis=1)


def joint_distance(
    first: Float[Array, "r columns"], second: Float[Array, "r columns"]
) -> Float[Array, ""]:
    """min over orthogonal C of |C K_1 - K_2| of systems [A | B]."""
    turn, k_1, k_2 = _aligned(first, second)
    return jnp.linalg.norm(turn @ k_1 - k_2)


def input_distance(
    first: Float[Array, "r columns"], second: Float[Array, "r columns"]
) -> Float[Array, ""]:
    """|C B_1 - B_2| of systems [A | B], with the C that aligns their controllability matrices."""
    turn, *_ = _aligned(first, second)
    r = len(first)
    return jnp.linalg.norm(turn @ first[:, r:] - second[:, r:])


def _aligned(
    first: Float[Array, "r columns"], second: Float[Array, "r columns"]
) -> tuple[Float[Array, "r r"], Float[Array, "r k"], Float[Array, "r k"]]:
    """C and both controllability matrices; of K_2 K_1' = U S V', C = U V'."""
    r = len(first)
    k_1, k_2 = (controllability(x[:, :r], x[:, r:]) for x in (first, second))
    u, _, vt = jnp.linalg.svd(k_2 @ k_1.T)
    return u @ vt, k_1, k_2
