"""The network: its Euler steps between two bins, a training run, a free run, and its currents by source region.

tau dh/dt = -h + J r + noise w, r = tanh(h), begins at each recording with h = its first bin (Perich et al. 2020). w is white noise,
filtered with the time constant tau_noise, and begins with 1.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.curbd.params import Curbd, Shared
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, jnp, lax
from ctd.rls import GainOf, Symmetric, even, learn


class Constants(NamedTuple):
    """The numbers of an Euler step."""

    rate: Float[Array, ""]
    """The step divided by tau."""
    decay: Float[Array, ""]
    """Factor by which the filtered noise falls in a step."""
    spread: Float[Array, ""]
    """Standard deviation of the white noise, sqrt(tau_noise / step)."""
    noise: Float[Array, ""]
    """Amplitude of the filtered noise as an input."""


def constants(static: View[Curbd], shared: Shared, traced: Values[Curbd]) -> Constants:
    """Compute the numbers of an Euler step, in `dtype`."""
    step = jnp.asarray(shared.dt) / static.steps  # in the unit of tau
    numbers = (
        step / traced.tau,
        jnp.exp(-step / traced.tau_noise),
        jnp.sqrt(traced.tau_noise / step),
        traced.noise,
    )
    return Constants(*(jnp.asarray(value, static.dtype) for value in numbers))


class Now(NamedTuple):
    """The network between two bins."""

    h: Float[Array, "unit"]
    """Currents"""
    w: Float[Array, "unit"]
    """Filtered noise, before its amplitude."""
    r: Float[Array, "unit"]
    """Rates at the last step, before it changed the currents: those that are compared with the bin."""


def begin(x: Float[Array, "unit"]) -> Now:
    """The network at a recording's first bin x."""
    # The noise begins with 1, as inputWN of rajanlab/CURBD does.
    return Now(x, jnp.ones_like(x), jnp.tanh(x))


def next_bin(c: Constants, J: Array, now: Now, white: Float[Array, "step unit"]) -> Now:
    """Advance by the steps of one bin. white: standard normal numbers."""

    def step(now: Now, xi: Array) -> tuple[Now, None]:
        r = jnp.tanh(now.h)
        # The exact filter of dw/dt = (spread xi - w) / tau_noise over a step in which xi is constant.
        w = c.decay * now.w + (1 - c.decay) * c.spread * xi
        # Weights see the rate before the step, and so does the comparison with the bin, as in rajanlab/CURBD.
        return Now(now.h + c.rate * (J @ r + c.noise * w - now.h), w, r), None

    return lax.scan(step, now, white)[0]


class Learned(NamedTuple):
    """A network in a training run, or after it."""

    now: Now
    J: Float[Array, "unit unit"]
    error: Float[Array, ""]
    """Sum over bins and units of the squared errors, each before its update."""
    apart: Float[Array, ""]
    """Sum over bins and units of (x - r)^2, of which pVar is made."""
    sound: Bool[Array, ""]
    """False if any update was not, see `ctd.rls.Gain`."""


def training_run(
    static: View[Curbd], c: Constants, x: Array, white: Array, J: Array, P: Symmetric
) -> tuple[Learned, Symmetric]:
    """Run through the recordings once; at each bin, RLS pulls every unit's rate r to its own activity x.

    J <- J - (r - x) (P r)^T / (1 + r P r): all rows of J see the same rates, so that one P serves them.

    Args:
        x: (recording, time, unit).
        white: (recording, time - 1, step, unit) standard normal numbers.
    """
    zero, forgetting = jnp.zeros((), static.dtype), jnp.ones((), x.dtype)  # 1: nothing is forgotten

    def update(
        net: Learned, row: tuple[Array, ...], _: Array, gain: GainOf
    ) -> tuple[Learned, Array]:
        xi, target, actual = row
        now = next_bin(c, net.J, net.now, xi)
        # The error is that of before the update (a priori).
        update_gain, error = gain(now.r), now.r - target
        net = Learned(
            now,
            net.J - jnp.outer(error, update_gain.k),  # k is P r / (1 + r P r), equal for all rows
            net.error + error @ error,
            net.apart + jnp.sum((now.r - actual) ** 2),
            net.sound & update_gain.sound,
        )
        return net, update_gain.K

    def recording(
        at: tuple[Learned, Symmetric], activity_and_noise: tuple[Array, Array]
    ) -> tuple[tuple[Learned, Symmetric], None]:
        (net, P), (x, white) = at, activity_and_noise
        # J and P go on from recording to recording; currents and noise begin anew.
        now = begin(x[0])
        net = net._replace(now=now, apart=net.apart + jnp.sum((now.r - x[0]) ** 2))
        # With lag 1 the rate at bin t is pulled towards the activity at bin t - 1.
        rows = (white, x[1 - static.lag : len(x) - static.lag], x[1:])
        return learn(update, net, P, rows, forgetting), None

    start = Learned(begin(x[0, 0]), J, zero, zero, jnp.ones((), bool))
    (end, P), _ = lax.scan(recording, (start, P), (x, white))
    return end, even(P)


def free_run(c: Constants, x: Array, white: Array, J: Array) -> Float[Array, "recording time unit"]:
    """The rates of a network that no longer learns, from the first bin of each recording on; arguments as of `training_run`."""

    def recording(activity_and_noise: tuple[Array, Array]) -> Array:
        now = begin(activity_and_noise[0][0])
        advance = lambda now, xi: (next_bin(c, J, now, xi),) * 2  # the state goes on and out
        rates = lax.scan(advance, now, activity_and_noise[1])[1].r
        return jnp.concatenate([now.r[None], rates])

    # Recordings one after the other, as in training.
    return lax.map(recording, (x, white))


def explained(x: Array, apart: Array) -> Array:
    """pVar = 1 - |x - r|^2 / (entries of x times their variance), from `apart` = |x - r|^2."""
    return 1 - apart / (x.size * jnp.var(x))  # one variance over all units and bins


def currents(J: Array, rates: Float[Array, "*any unit"], member: Float[Array, "unit"]) -> Array:
    """(..., unit) the currents that units get from the units of one source region, J[:, source] r[source]."""
    return (rates * member) @ J.T  # rates of other regions are 0 here
