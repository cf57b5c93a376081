"""Recursive least squares (RLS): the inverse correlation of features, updated by one of them after another.

With l = forgetting, u = P_j h and s = h u, RLS (Haykin, Adaptive Filter Theory, ch. 10) is::

    W -= (error) u^T / (l + s)        P_{j+1} = (P_j - u u^T / (l + s)) / l

One P serves all rows of W: the outputs of a readout (FORCE), or the units of a network (CURBD, full-FORCE).

Within a block P keeps its first value P_0, and K collects the updates: P_j = l^-j (P_0 - K^T K), where row j of K is
l^(j/2) u / sqrt(l + s). A step then reads P once and does not write it, and rounding loses less, since the updates are summed
before they are subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ctd.late import Array, Bool, Float, Number, PyTree, jax, jnp, lax

UNDERFLOW = 1e-30
"""Features that fade to 0 pass numbers so small that some terms of s vanish, and others, perhaps below 0, do not."""


class Symmetric(NamedTuple):
    """A symmetric matrix [[A, B^T], [B, C]] of size p, q = p // 2, without its upper right quarter.

    Without that quarter, network and P of n = 500 fit into the cache of one core, which saves 15 % of a step.
    """

    A: Float[Array, "q q"]
    B: Array
    """(p - q, q)"""
    C: Array
    """(p - q, p - q)"""


def scaled_identity(scale: Array, p: int, dtype: jax.typing.DTypeLike) -> Symmetric:
    """The matrix scale I of size p."""
    q = p // 2
    eye = lambda n: scale * jnp.eye(n, dtype=dtype)
    return Symmetric(eye(q), jnp.zeros((p - q, q), dtype), eye(p - q))


def times(P: Symmetric, h: Array) -> Array:
    """The product P h, (p,), of h (p,)."""
    q = P.A.shape[0]
    # [A B^T; B C] [h1; h2]: B serves both quarters.
    return jnp.concatenate([P.A @ h[:q] + h[q:] @ P.B, P.B @ h[:q] + P.C @ h[q:]])


class Gain(NamedTuple):
    """The gain of sample j of a block."""

    k: Float[Array, "p"]
    """The gain P_{j+1} h = u / (l + s): the outer product of an error with it is the update of W."""
    K: Float[Array, "block p"]
    """Updates of P that are not yet subtracted."""
    sound: Bool[Array, ""]
    """False if s is below 0, as of no P that is positive definite. Features of 0 have s = 0, and teach nothing; NaN does not count:
    it comes from the features, not from P."""


def gain(P: Symmetric, K: Array, j: Array, forgetting: Array, h: Array) -> Gain:
    """Compute the gain of sample j of a block.

    Args:
        P: P_0, before the block.
        K: (block, p), rows from j on are 0.
        h: (p,) features.
    """
    power = forgetting**j
    # P_j h without forming P_j; the rows of K from j on are 0 and add nothing.
    u = (times(P, h) - (K @ h) @ K) / power
    s = h @ u
    k = u / (forgetting + s)
    K = lax.dynamic_update_index_in_dim(K, jnp.sqrt(power / (forgetting + s)) * u, j, 0)
    return Gain(k, K, ~(s < -UNDERFLOW))


def flush(P: Symmetric, K: Array, forgetting: Array) -> Symmetric:
    """P after a block of len(K) samples: l^-len(K) (P - K^T K)."""
    q, power = P.A.shape[0], forgetting ** len(K)
    first, second = K[:, :q], K[:, q:]
    return Symmetric(
        (P.A - first.T @ first) / power,
        (P.B - second.T @ first) / power,
        (P.C - second.T @ second) / power,
    )


type GainOf = Callable[[Array], Gain]
"""Features (p,) of the present sample -> its gain."""


def in_blocks[C](f: Callable[[C, Number, PyTree], C], carry: C, rows: PyTree, length: int) -> C:
    """Apply carry = f(carry, index, block) to blocks of `length` rows in order; the last block may be shorter.

    >>> in_blocks(lambda c, k, rows: c + rows.sum(), jnp.asarray(0), jnp.arange(7), 3)
    Array(21, dtype=int32)
    """
    total = len(jax.tree.leaves(rows)[0])
    n_blocks = total // length
    cut = jax.tree.map(
        lambda r: r[: n_blocks * length].reshape(n_blocks, length, *r.shape[1:]), rows
    )
    carry, _ = lax.scan(lambda c, at: (f(c, *at), None), carry, (jnp.arange(n_blocks), cut))
    # A scan needs blocks of one length, so the rest is traced by itself.
    if total % length:
        carry = f(carry, n_blocks, jax.tree.map(lambda r: r[n_blocks * length :], rows))
    return carry


def learn[C](
    step: Callable[[C, Any, Array, GainOf], tuple[C, Array]],
    carry: C,
    P: Symmetric,
    rows: tuple[PyTree, ...],
    forgetting: Array,
    length: int = 32,
    more: Callable[[Number, int], tuple[Array, ...]] = lambda block, length: (),
) -> tuple[C, Symmetric]:
    """Learn from samples, the rows, one after the other, in blocks of `length`: (carry, P) after the last.

    step: (carry, row, K, gain) -> (carry, K): the K of the sample's gain, or the one given if nothing is learnt from it.
    more: (number of a block, its samples) -> further arrays of its rows, made when the block begins.
    """

    def block(
        at: tuple[C, Symmetric], index: Number, rows: tuple[PyTree, ...]
    ) -> tuple[C, Symmetric]:
        carry, P = at
        n = len(jax.tree.leaves(rows)[0])

        def learn_row(at: tuple[C, Array], row: tuple[Any, Array]) -> tuple[tuple[C, Array], None]:
            carry, K = at
            return step(carry, row[0], K, lambda h: gain(P, K, row[1], forgetting, h)), None

        K = jnp.zeros((n, len(P.A) + len(P.C)), P.A.dtype)
        rows = (*rows, *more(index, n))
        (carry, K), _ = lax.scan(learn_row, (carry, K), (rows, jnp.arange(n)))
        return carry, flush(P, K, forgetting)

    return in_blocks(block, (carry, P), rows, length)


def even(P: Symmetric) -> Symmetric:
    """P with A and C symmetric again: a flush keeps them so up to rounding, and the error would grow from block to block."""
    return P._replace(A=(P.A + P.A.T) / 2, C=(P.C + P.C.T) / 2)
