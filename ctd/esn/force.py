"""FORCE: recursive least squares (RLS) trains the readout while its output is fed back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ctd.esn.params import EchoState
from ctd.esn.reservoir import Units, Weights, disturbances, step, units
from ctd.esn.series import Series
from ctd.kernel import Values, View
from ctd.late import Array, Float, Number, PyTree, jax, jnp, lax


class Now(NamedTuple):
    """The state of a network between two samples."""

    units: Units
    z: Float[Array, "m"]
    """Output fed back into the next sample, in `state_dtype`."""


class Symmetric(NamedTuple):
    """A symmetric matrix [[A, B^T], [B, C]] of size p, q = p // 2, without its upper right quarter.

    Without that quarter, network and P of n = 500 fit into the cache of one core, which saves 15 % of a step.
    """

    A: Float[Array, "q q"]
    B: Array
    """(p - q, q)"""
    C: Array
    """(p - q, p - q)"""


class Rls(NamedTuple):
    """Readout and inverse correlation of RLS, of p features and m outputs, in `dtype`."""

    readout: Float[Array, "m p"]
    P: Symmetric
    """Inverse of I / alpha + sum of the features' outer products."""


class Pass(NamedTuple):
    """The end of a pass over the training range."""

    now: Now
    rls: Rls
    squared_error: Float[Array, ""]
    """Sum over samples and outputs of (z - f)^2, each z before its update."""
    definite: Float[Array, ""]
    """False if any h P h was 0 or less. NaN does not count: it comes from the states, not from P."""


def features(static: View[EchoState], h: Array) -> Array:
    """The features (..., p) of the readout for rates h (..., n), in `dtype`: the rates, then 1 with an intercept."""
    h = h.astype(static.dtype)
    if static.intercept:
        h = jnp.concatenate([h, jnp.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)
    return h


def begin(static: View[EchoState], w: Weights, readout: Array) -> Now:
    """The network at its initial activation. readout: (m, p), whose output is fed back first."""
    start = units(static, w.start)
    return Now(start, (readout @ features(static, start.h)).astype(static.state_dtype))


def free_step(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> tuple[Now, Array]:
    """Advance by one sample with the network's own output fed back: (network, (m,) output in `dtype`).

    x: (k,) inputs.
    """
    moved = step(static, w, now.units, x, now.z)
    z = readout @ features(static, moved.h)
    return Now(moved, z.astype(static.state_dtype)), z


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


class Updated(NamedTuple):
    """RLS after one sample of a block."""

    readout: Float[Array, "m p"]
    K: Float[Array, "block p"]
    """Updates of P that are not yet subtracted, see `update`."""
    z: Float[Array, "m"]
    """Output before the update."""
    hPh: Float[Array, ""]
    """H P h, positive as long as P is positive definite."""


def update(rls: Rls, K: Array, j: Array, forgetting: Array, h: Array, f: Array) -> Updated:
    """Update the readout by sample j of a block.

    With l = forgetting, u = P_j h and s = h u, RLS (Haykin, Adaptive Filter Theory, ch. 10) is::

        readout -= (z - f) u^T / (l + s)        P_{j+1} = (P_j - u u^T / (l + s)) / l

    Within a block P keeps its first value P_0, and K collects the updates: P_j = l^-j (P_0 - K^T K), where
    row j of K is l^(j/2) u / sqrt(l + s). A step then reads P once and does not write it, and rounding
    loses less, since the updates are summed before they are subtracted.

    Args:
        rls: readout after sample j - 1, and P_0.
        K: (block, p), rows from j on are 0.
        h: (p,) features.
        f: (m,) targets.
    """
    power = forgetting**j
    # P_j h without forming P_j; the rows of K from j on are 0 and add nothing.
    u = (times(rls.P, h) - (K @ h) @ K) / power
    s = h @ u
    z = rls.readout @ h
    # u / (l + s) is P_{j+1} h, the gain; one outer product with the error serves all outputs.
    readout = rls.readout - jnp.outer(z - f, u / (forgetting + s))
    K = lax.dynamic_update_index_in_dim(K, jnp.sqrt(power / (forgetting + s)) * u, j, 0)
    return Updated(readout, K, z, s)


def flush(P: Symmetric, K: Array, forgetting: Array) -> Symmetric:
    """P after a block of len(K) samples: l^-len(K) (P - K^T K), see `update`."""
    q, power = P.A.shape[0], forgetting ** len(K)
    left, right = K[:, :q], K[:, q:]
    return Symmetric(
        (P.A - left.T @ left) / power,
        (P.B - right.T @ left) / power,
        (P.C - right.T @ right) / power,
    )


def in_blocks[C](f: Callable[[C, Number, PyTree], C], carry: C, rows: PyTree, length: int) -> C:
    """Apply carry = f(carry, index, block) to blocks of `length` rows in order; the last block may be shorter.

    >>> in_blocks(lambda c, k, rows: c + rows.sum(), jnp.asarray(0), jnp.arange(7), 3)
    Array(21, dtype=int32)
    """
    total = len(jax.tree.leaves(rows)[0])
    whole = total // length
    cut = jax.tree.map(lambda r: r[: whole * length].reshape(whole, length, *r.shape[1:]), rows)
    carry, _ = lax.scan(lambda c, at: (f(c, *at), None), carry, (jnp.arange(whole), cut))
    # A scan needs blocks of one length, so the rest is traced by itself.
    if total % length:
        carry = f(carry, whole, jax.tree.map(lambda r: r[whole * length :], rows))
    return carry


def force_pass(
    static: View[EchoState],
    shared: Series,
    traced: Values[EchoState],
    key: Array,
    w: Weights,
    rls: Rls,
) -> Pass:
    """Run one pass from the initial activation: washout, then RLS at every sample of the training range.

    Sussillo & Abbott 2009 (Neuron 63:544), eqs. 4-5. The network feeds back each output as it was before its update.
    """
    start, stop = static.washout, static.washout + static.train
    x = shared.inputs.astype(static.state_dtype)
    now = begin(static, w, rls.readout)
    # The washout runs with the readout of the pass before, and updates nothing.
    now, _ = lax.scan(lambda c, x: free_step(static, w, rls.readout, c, x), now, x[:start])

    def block(carry: Pass, index: Number, rows: tuple[Array, ...]) -> Pass:
        P = carry.rls.P
        length = len(rows[0])

        def sample(
            c: tuple[Now, Array, Array, Array, Array], row: tuple[Array, ...]
        ) -> tuple[tuple[Now, Array, Array, Array, Array], None]:
            now, readout, K, total, definite = c
            x, f, noise, j = row
            moved = step(static, w, now.units, x, now.z, noise)
            h = features(static, moved.h)
            readout, K, z, s = update(Rls(readout, P), K, j, traced.forgetting, h, f)
            total += (z - f) @ (z - f)
            now = Now(moved, z.astype(static.state_dtype))
            # ~(s <= 0), not s > 0: NaN must not count as a P that is not definite.
            return (now, readout, K, total, definite & ~(s <= 0)), None

        noise = disturbances(static, traced, key, index, length)
        K = jnp.zeros((length, carry.rls.readout.shape[1]), static.dtype)
        state = (carry.now, carry.rls.readout, K, carry.squared_error, carry.definite)
        rows = (*rows, noise, jnp.arange(length))
        (now, readout, K, total, definite), _ = lax.scan(sample, state, rows)
        return Pass(now, Rls(readout, flush(P, K, traced.forgetting)), total, definite)

    rows = (x[start:stop], shared.targets[start:stop].astype(static.dtype))
    state = Pass(now, rls, jnp.zeros((), static.dtype), jnp.ones((), bool))
    end = in_blocks(block, state, rows, static.block)
    # A flush keeps A and C symmetric up to rounding. Making them symmetric once a pass stops the drift.
    even = lambda M: (M + M.T) / 2
    P = end.rls.P._replace(A=even(end.rls.P.A), C=even(end.rls.P.C))
    return end._replace(rls=end.rls._replace(P=P))
