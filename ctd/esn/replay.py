"""Replay: run a trained network on its own, its readout frozen, and compare it with its target."""

from __future__ import annotations

from typing import NamedTuple

from ctd.esn.force import Now, free_step
from ctd.esn.params import EchoState
from ctd.esn.reservoir import Weights
from ctd.esn.ridge import teacher_forced
from ctd.kernel import Var, View
from ctd.late import Array, Float, jax, jnp, lax
from ctd.tangent import MEAN_OVER, Exponent, mean_growth, tangent_growth

REPLAYED = {
    "replay_nrmse": Var(
        (),
        "1",
        "NRMSE of test replays, in deviations of the target over all samples read",
    ),
    "replay_last_nrmse": Var((), "1", "NRMSE at the last sample of those replays"),
    "validation_nrmse": Var((), "1", "NRMSE of the replays of the validation range"),
    **{
        name: Var(
            (),
            "time",
            f"mean time before the error of a replay of the {which} range first exceeds valid_error, 0 where that of its first sample does; at most the horizon",
            True,
        )
        for name, which in (("valid_time", "test"), ("validation_valid_time", "validation"))
    },
}
"""The results of replays, which `esn` and `esn.nvar` have."""

TRACES = {
    "trace": Var(("time", "output"), "1", "outputs of the first replay of the test range"),
    "trace_target": Var(("time", "output"), "1", "targets of that replay"),
}
"""The first replay, which both kernels store for `record: [traces]`."""

TRANSIENT, STEPS = 1000, 20_000
"""Steps before the measurement of a Lyapunov exponent, and of it: the defaults of `fixed_points.exponents`."""

EXPONENT = {
    "lyapunov": Var(
        (),
        "1/time",
        f"largest Lyapunov exponent of the trained network on its own, over {STEPS:,} steps; with inputs, along those of the test range",
    ),
    "lyapunov_error": Var(
        (),
        "1/time",
        f"standard error, from the means over {MEAN_OVER} steps as if independent; NaN of less than two",
        may_be_nan=True,
    ),
}
"""The largest Lyapunov exponent of `esn`."""


class Replay(NamedTuple):
    """Replays of one range: s starts, h samples each."""

    nrmse: Float[Array, ""]
    """NRMSE over all replays and samples."""
    last_nrmse: Float[Array, ""]
    """NRMSE over the last sample of each replay: NRMSE_h of Jaeger's tests."""
    valid_samples: Float[Array, ""]
    """Mean number of samples before the error of a replay exceeds `valid_error` standard deviations."""
    outputs: Float[Array, "s h m"]
    targets: Float[Array, "s h m"]


class Stretch(NamedTuple):
    """A range of samples of inputs and targets."""

    x: Float[Array, "t k"]
    """Inputs"""
    y: Float[Array, "t m"]
    """Targets"""
    variance: Float[Array, ""]
    """Variance of the targets over the whole series; errors are relative to it."""

    def cut(self, start: int, stop: int | None = None) -> Stretch:
        """The samples start ... stop - 1."""
        return self._replace(x=self.x[start:stop], y=self.y[start:stop])


def free_run(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> tuple[Now, Array]:
    """Run the network on inputs x (t, k) with its own outputs fed back: (network, (t, m) outputs)."""
    end, outputs = lax.scan(lambda c, x: free_step(static, w, readout, c, x), now, x)
    return end, outputs


def compared(valid_error: float, z: Array, y: Array, variance: Array) -> Replay:
    """Compare replays z with their targets y, each (s, h, m)."""
    # (s, h) squared error in units of the targets' variance.
    error = jnp.mean((z - y) ** 2, axis=-1) / variance
    # ~(<=), not >: a NaN ends the valid time.
    exceeded = ~(error <= valid_error**2)
    valid = jnp.where(exceeded.any(axis=1), jnp.argmax(exceeded, axis=1), error.shape[1])
    return Replay(
        jnp.sqrt(jnp.mean(error)),
        jnp.sqrt(jnp.mean(error[:, -1])),
        jnp.mean(valid.astype(z.dtype)),
        z,
        y,
    )


def replay(
    static: View[EchoState], w: Weights, readout: Array, now: Now, stretch: Stretch
) -> tuple[Replay, Now]:
    """Replay a stretch from evenly spaced starts, beginning with the network `now`.

    Between the starts, and up to the end of the stretch, the network is teacher-forced. Without feedback,
    inputs alone drive a replay.

    Returns:
        (the replays, the network after the stretch).
    """
    x, y, variance = stretch
    length = len(x)
    horizon = static.horizon or length
    stride = (length - horizon) // (static.starts - 1) if static.starts > 1 else 0
    forced = y.astype(static.state_dtype)
    silent = jnp.zeros((length, static.n), static.state_dtype)

    def hop(c: Now, i: Array) -> tuple[Now, Now]:
        cut = lambda rows: lax.dynamic_slice_in_dim(rows, i * stride, stride)
        return teacher_forced(static, w, c, cut(x), cut(forced), silent[:stride])[0], c

    # `hop` emits the network before it moves on, so `begun` holds the starts, the first included.
    _, begun = lax.scan(hop, now, jnp.arange(static.starts))
    window = jnp.arange(static.starts)[:, None] * stride + jnp.arange(horizon)
    run = lambda start, x: free_run(static, w, readout, start, x)[1]
    z = jax.vmap(run)(begun, x[window])
    found = compared(static.valid_error, z, y[window], variance)
    return found, teacher_forced(static, w, now, x, forced, silent)[0]


def largest_exponent(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> Exponent:
    """Largest Lyapunov exponent, per sample, of the network driven by its own outputs, from `now` on.

    Without inputs the network runs for TRANSIENT steps, in which it settles and the tangent turns to the fastest
    direction, and for STEPS that count. Inputs x (t, k) last for t samples, of which the first tenth does not count.
    """
    skip = len(x) // 10
    if not x.shape[1]:
        skip, x = TRANSIENT, jnp.zeros((TRANSIENT + STEPS, 0), x.dtype)
    # The tangent of the whole state: activations, rates, and the output that is fed back.
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf) / leaf.size**0.5, now)
    step = lambda now, x: free_step(static, w, readout, now, x)[0]
    return mean_growth(tangent_growth(step, now, ones, x)[0][skip:])
