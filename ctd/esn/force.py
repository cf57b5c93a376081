"""FORCE: recursive least squares (RLS) trains the readout while its output is fed back."""

from __future__ import annotations

from typing import NamedTuple

from ctd.esn.params import EchoState
from ctd.esn.reservoir import Units, Weights, disturbances, step, units
from ctd.esn.series import Series
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, Number, jnp, lax
from ctd.rls import Symmetric, even, flush, gain, in_blocks


class Now(NamedTuple):
    """The state of a network between two samples."""

    units: Units
    z: Float[Array, "m"]
    """Output fed back into the next sample, in `state_dtype`."""


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
    definite: Bool[Array, ""]
    """False if any update was not sound."""


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


class Updated(NamedTuple):
    """RLS after one sample of a block."""

    readout: Float[Array, "m p"]
    K: Float[Array, "block p"]
    """Updates of P that are not yet subtracted, see `ctd.rls`."""
    z: Float[Array, "m"]
    """Output before the update."""
    sound: Bool[Array, ""]
    """As in `ctd.rls.Gain`."""


def update(rls: Rls, K: Array, j: Array, forgetting: Array, h: Array, f: Array) -> Updated:
    """Update the readout by sample j of a block.

    Args:
        rls: readout after sample j - 1, and P_0.
        K: (block, p), rows from j on are 0.
        h: (p,) features.
        f: (m,) targets.
    """
    found = gain(rls.P, K, j, forgetting, h)
    z = rls.readout @ h
    # One outer product of the error with the gain serves all outputs.
    readout = rls.readout - jnp.outer(z - f, found.k)
    return Updated(readout, found.K, z, found.sound)


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
            readout, K, z, sound = update(Rls(readout, P), K, j, traced.forgetting, h, f)
            total += (z - f) @ (z - f)
            now = Now(moved, z.astype(static.state_dtype))
            return (now, readout, K, total, definite & sound), None

        noise = disturbances(static, traced, key, index, length)
        K = jnp.zeros((length, carry.rls.readout.shape[1]), static.dtype)
        state = (carry.now, carry.rls.readout, K, carry.squared_error, carry.definite)
        rows = (*rows, noise, jnp.arange(length))
        (now, readout, K, total, definite), _ = lax.scan(sample, state, rows)
        return Pass(now, Rls(readout, flush(P, K, traced.forgetting)), total, definite)

    rows = (x[start:stop], shared.targets[start:stop].astype(static.dtype))
    state = Pass(now, rls, jnp.zeros((), static.dtype), jnp.ones((), bool))
    end = in_blocks(block, state, rows, static.block)
    # Once a pass is enough to stop the drift.
    return end._replace(rls=end.rls._replace(P=even(end.rls.P)))
