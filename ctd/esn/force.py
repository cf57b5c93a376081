"""FORCE: recursive least squares (RLS) trains the readout while its output is fed back."""

from __future__ import annotations

from typing import NamedTuple

from ctd.esn.params import EchoState
from ctd.esn.reservoir import Now, Weights, begin, disturbances, features, free_run, step
from ctd.esn.series import Series
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jnp
from ctd.rls import GainOf, Symmetric, even, learn


class Trained(NamedTuple):
    """A network at the end of the training range."""

    now: Now
    readout: Float[Array, "m p"]
    """The weights of p features for m outputs, in `dtype`."""
    squared_error: Float[Array, ""]
    """Sum over samples and outputs of (z - f)^2; FORCE takes each z before its update."""
    definite: Bool[Array, ""]
    """False if the states were finite, but an update was not sound or the Gram matrix not positive definite."""


def force_pass(
    static: View[EchoState],
    shared: Series,
    traced: Values[EchoState],
    key: Array,
    w: Weights,
    readout: Array,
    P: Symmetric,
) -> tuple[Trained, Symmetric]:
    """Run one pass from the initial activation: washout, then RLS at every sample of the training range.

    Sussillo & Abbott 2009 (Neuron 63:544), eqs. 4-5. The network feeds back each output as it was before its update.

    P: the inverse of I / alpha + the sum of the features' outer products, in `dtype`.
    """
    start, stop = static.washout, static.washout + static.train
    x = shared.inputs.astype(static.state_dtype)
    # The washout runs with the readout of the pass before, and updates nothing.
    now, _ = free_run(static, w, readout, begin(static, w, readout), x[:start])

    def sample(c: Trained, row: tuple[Array, ...], _: Array, gain: GainOf) -> tuple[Trained, Array]:
        x, f, noise = row
        now = step(static, w, c.now, x, noise)
        h = features(static, now.h)
        update, z = gain(h), c.readout @ h
        # One outer product of the error with the gain serves all outputs.
        readout = c.readout - jnp.outer(z - f, update.k)
        error = c.squared_error + (z - f) @ (z - f)
        now = now._replace(z=z.astype(static.state_dtype))
        return Trained(now, readout, error, c.definite & update.sound), update.K

    rows = (x[start:stop], shared.targets[start:stop].astype(static.dtype))
    begun = Trained(now, readout, jnp.zeros((), static.dtype), jnp.ones((), bool))
    noise = lambda block, length: (disturbances(static, traced, key, block, length),)
    end, P = learn(sample, begun, P, rows, traced.forgetting, static.block, noise)
    # Once a pass is enough to stop the drift.
    return end, even(P)
