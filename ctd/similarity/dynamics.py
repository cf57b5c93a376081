"""Dynamical similarity analysis (Ostrow et al. 2023): fit linear dynamics to each network, and align them.

H has the rows [h_t, h_(t-d), ..., h_(t-(k-1)d)] of all trials. Its singular value decomposition H = V S U' gives
eigen-time-delay coordinates v_t, of which the first `rank` are kept; A is the least-squares fit v_(t+1) = A v_t
(HAVOK, Brunton et al. 2017). The similarity of two networks with dynamics A and B is

    max over orthogonal C of <A, C B C'> / (|A| |B|),    the cosine of the angle between A and the aligned B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctd.late import Array, jax, jnp, lax, optax

LEAST = 1e-6
"""Singular values below this share of the largest leave only rounding in V; as roots of eigenvalues they are exact to 1e-8."""

TOL = 1e-12
"""The ascent ends when a step raises the cosine by less."""

SAME = 1e-8
"""Ascents that end at cosines nearer to each other have reached one top."""

AGREE = 3
"""Drawn starts that have to reach the top: two often reach the same lower one."""

MOST = 8
"""Times `starts` that an alignment draws at most."""


def delay_embedded(states: np.ndarray, n_delays: int, interval: int) -> np.ndarray:
    """Join each state with the states before it: (time - (n_delays - 1) interval, n_delays * state), the latest first.

    states: (time, state). Raises ValueError if the trial is too short.

    >>> delay_embedded(np.arange(4.0).reshape(4, 1), n_delays=2, interval=1).tolist()
    [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]
    """
    steps = len(states)
    first = (n_delays - 1) * interval
    if steps - first < 2:
        raise ValueError(
            f"n_delays: {n_delays} states {interval} apart span {first + 1} steps, but a trial has {steps} and at least "
            "two rows are needed; give fewer delays, or longer trials"
        )
    shifts = [states[first - k * interval : steps - k * interval] for k in range(n_delays)]
    return np.concatenate(shifts, axis=1)


def linear_dynamics(
    states: Sequence[np.ndarray], n_delays: int, interval: int, rank: int
) -> np.ndarray:
    """Fit the linear dynamics A (rank, rank) of trials of states (time, state).

    Raises ValueError if trials are too short, or the states span fewer than `rank` dimensions.
    """
    # Trials too short for one step are left out, unless all are.
    least = (n_delays - 1) * interval + 2
    long = [trial for trial in states if len(trial) >= least] or states
    h = [delay_embedded(trial, n_delays, interval) for trial in long]
    flat = np.concatenate(h)
    # The eigenvectors of H'H take a tenth of the time of H's singular value decomposition.
    span = "a network's states span {} dimensions"
    u, s = leading(flat.T @ flat, rank, f"{span} with {n_delays} delays")
    # V of H = V S U', trial by trial: no step leads from the end of one trial to the start of the next.
    v = [trial @ u / s for trial in h]
    before, after = (np.concatenate([x[part] for x in v]) for part in (np.s_[:-1], np.s_[1:]))
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def leading(gram: np.ndarray, rank: int, span: str) -> tuple[np.ndarray, np.ndarray]:
    """The first `rank` singular vectors and values of a matrix, (n, rank) and (rank,), from its products H'H, or H H' (n, n).

    span: what is said of the dimensions that are there, whose number takes the place of {}. Raises ValueError if they are fewer.
    """
    squares, u = np.linalg.eigh(gram)
    s = np.sqrt(np.maximum(squares[::-1], 0))
    usable = int((s > LEAST * s[0]).sum())
    if rank > usable:
        raise ValueError(
            f"rank: {rank} given, but {span.format(usable)}; lower the rank, or give more delays"
        )
    return u[:, ::-1][:, :rank], s[:rank]


def eigenvalues(a: np.ndarray) -> np.ndarray:
    """The eigenvalues of A (rank, rank) as rows of real and imaginary part: (rank, 2)."""
    values = np.linalg.eigvals(a)
    return np.stack([values.real, values.imag], axis=1)


def eigenvalue_distance(a: Array, b: Array) -> Array:
    """The root mean square of |a_k - b_p(k)| under the best matching p of eigenvalues: their 2-Wasserstein distance, ().

    a, b: (rank, 2), see `eigenvalues`. The matching is found by the Hungarian method.

    >>> eigenvalue_distance(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])).round(4).item()
    0.70709...
    """
    squares = jnp.sum((a[:, None] - b[None]) ** 2, axis=-1)
    row, column = optax.assignment.hungarian_algorithm(squares)
    return jnp.sqrt(jnp.mean(squares[row, column]))


def alignment(a: Array, b: Array, starts: int, max_iterations: int, key: Array) -> Array:
    """The largest <A, C B C'> over orthogonal C that ascents find, ().

    a, b: (rank, rank) of norm 1. One start is the exact solution if B = Q A Q' and A's symmetric part has distinct eigenvalues,
    another is if A consists of rotations. The others are drawn uniformly: `starts` - 1 of them, and up to MOST times `starts` while
    fewer than AGREE have reached the top, unless it is 1.

    >>> a = jnp.array([[0.0, 1.0], [-1.0, 0.0]]) / 2**0.5
    >>> float(alignment(a, a.T, 2, 100, jax.random.key(0)).round(3))  # a reflection turns a into its transpose
    1.0
    """
    climb = lambda c: _ascend(a, b, c, max_iterations)

    def try_further(carry: Tries) -> Tries:
        k, top, reached = carry
        value = climb(jax.random.orthogonal(jax.random.fold_in(key, k), a.shape[0], (), a.dtype))
        again = jnp.where(value > top + SAME, 1, reached + (value > top - SAME))
        return k + 1, jnp.maximum(top, value), again

    def going(carry: Tries) -> Array:
        k, top, reached = carry
        more = (k < MOST * starts) & (reached < AGREE)
        return (top < 1 - SAME) & ((k < starts - 1) | more)

    zero = jnp.zeros((), jnp.int32)
    # One start after the other: under vmap all would climb as long as the slowest.
    best = jnp.max(lax.map(climb, jnp.stack([_matched(a, b), _turned(a, b)])))
    top: Array = lax.while_loop(going, try_further, (zero, best, zero))[1]
    return top


type Tries = tuple[Array, Array, Array]
"""Starts drawn, the highest cosine, the drawn starts that reached it."""


def _value(a: Array, b: Array, c: Array) -> Array:
    return jnp.sum(a * (c @ b @ c.T))


def _matched(a: Array, b: Array) -> Array:
    """A first C: match the eigenvectors of both symmetric parts in order, and their signs by the antisymmetric parts."""
    _, u = jnp.linalg.eigh((a + a.T) / 2)
    _, v = jnp.linalg.eigh((b + b.T) / 2)
    # The right signs s make every s_i s_j agree_ij positive: s has the signs of the leading eigenvector of `agree`.
    agree = (u.T @ (a - a.T) @ u) * (v.T @ (b - b.T) @ v)
    _, vectors = jnp.linalg.eigh(agree)
    signs = jnp.where(vectors[:, -1] < 0, -1, 1).astype(a.dtype)
    return (u * signs) @ v.T


def _turned(a: Array, b: Array) -> Array:
    """A first C for rotations, each of which gives both of its modes one eigenvalue of the symmetric part S.

    With the antisymmetric part K, S + iK is Hermitian, and a mode exp(+-iw) has the eigenvalues cos w +- sin w: match these in order.
    """
    u, v = (jnp.linalg.eigh((x + x.T) / 2 + 0.5j * (x - x.T))[1] for x in (a, b))
    both = u @ v.conj().T
    # The two vectors of a mode are each other's conjugates up to a sign. In the real part alone, or the imaginary one, they might cancel.
    left_vectors, _, right_vectors = jnp.linalg.svd(both.real - both.imag)
    return left_vectors @ right_vectors


type Climb = tuple[Array, Array, Array, Array, Array]
"""C, its value, the shift, iterations, the last gain."""


def _ascend(a: Array, b: Array, start: Array, max_iterations: int) -> Array:
    """Climb <A, C B C'> from `start`: C <- the orthogonal factor of G + shift C, with the gradient G.

    <A, C B C'> + shift |C|^2 / 2 is convex for shift = 2 |A|_2 |B|_2. Its tangent plane, which the polar factor
    maximises over all orthogonal matrices, then lies below it, so that no step goes down (Journee et al. 2010).
    Smaller shifts take longer steps; a step that goes down is taken back, and the shift doubled.
    """
    bound = 2 * jnp.linalg.norm(a, 2) * jnp.linalg.norm(b, 2)

    def step(carry: Climb) -> Climb:
        c, value, shift, k, _ = carry
        # G = A C B' + A' C B; the orthogonal factor of its polar decomposition is U V'.
        u, _, vt = jnp.linalg.svd(a @ c @ b.T + a.T @ c @ b + shift * c)
        new = u @ vt
        reached = _value(a, b, new)
        better = reached > value
        # A step back goes on with a larger shift; at the bound no step can go down, so that a top is reached.
        gain = jnp.where(better, reached - value, jnp.where(shift < bound, jnp.inf, 0))
        shift = jnp.where(better, shift / 2, jnp.minimum(2 * shift + bound / 64, bound))
        keep = lambda x, y: jnp.where(better, x, y)
        return keep(new, c), keep(reached, value), shift, k + 1, gain

    def going(carry: Climb) -> Array:
        *_, k, gain = carry
        return (k < max_iterations) & (gain > TOL)

    no_step, any_gain = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, a.dtype)
    first = (start, _value(a, b, start), bound / 8, no_step, any_gain)
    top: Array = lax.while_loop(going, step, first)[1]
    return top
