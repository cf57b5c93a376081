"""Replay: run a trained network on its own, its readout frozen, and compare it with its target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.esn.params import EchoState, OfSeries
from ctd.esn.reservoir import Now, Weights, free_run, free_step, teacher_forced
from ctd.esn.series import Series
from ctd.kernel import Coordinate, Var, View
from ctd.late import Array, Float, jax, jnp, lax
from ctd.tangent import MEAN_OVER, mean_growth, tangent_growth

VALID = (
    "mean time until the error of a replay of the {} range first exceeds valid_error; 0 if its first sample does; at most the "
    "horizon"
)

REPLAYED = {
    "replay_nrmse": Var((), "1", "NRMSE of test replays, in standard deviations of the target over all samples read"),
    "replay_last_nrmse": Var((), "1", "NRMSE at the last sample of those replays"),
    "validation_nrmse": Var((), "1", "NRMSE of the replays of the validation range"),
    "valid_time": Var((), "time", VALID.format("test"), True),
    "validation_valid_time": Var((), "time", VALID.format("validation"), True),
}  # fmt: skip
"""The results of replays, which `esn` and `esn.nvar` have."""

TRACES = {
    "trace": Var(("time", "output"), "1", "outputs of the first replay of the test range"),
    "trace_target": Var(("time", "output"), "1", "targets of that replay"),
}
"""The first replay, which both kernels store for `record: [traces]`."""


def replay_time(inputs: View[OfSeries]) -> Coordinate:
    """The coordinate of traces."""
    horizon = inputs.horizon or inputs.test or inputs.train
    steps = inputs.dt * np.arange(1, 1 + horizon)
    return Coordinate(steps, "1", "time since the replay's start, as dt")


TRANSIENT, STEPS = 1000, 20_000
"""Steps before the measurement of a Lyapunov exponent, and of it: the defaults of `fixed_points.exponents`."""

EXPONENT = {
    "lyapunov": Var(
        (), "1/time",
        f"largest Lyapunov exponent of the trained network on its own, over {STEPS:,} steps after {TRANSIENT:,}, from the first replay's start; "
        "with inputs, along those of the test range, but for its first tenth"
    ),
    "lyapunov_error": Var(
        (), "1/time", f"standard error, from how means over {MEAN_OVER} steps and a quarter of the run vary; too small for a network intermittent on longer "
        f"scales; NaN with fewer than {4 * MEAN_OVER:,} steps", may_be_nan=True
    ),
}  # fmt: skip
"""The largest Lyapunov exponent of `esn`."""


class Replay(NamedTuple):
    """Replays of one range: s starts, h samples each."""

    nrmse: Float[Array, ""]
    """NRMSE over all replays and samples."""
    last_nrmse: Float[Array, ""]
    """NRMSE over the last sample of each replay: NRMSE_h of Jaeger's tests."""
    valid_samples: Float[Array, ""]
    """Mean number of samples before the error of a replay exceeds `valid_error` deviations."""
    outputs: Float[Array, "s h m"]
    targets: Float[Array, "s h m"]


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


def scores(test: Replay, validation: Replay | None, dt: Array) -> dict[str, Array]:
    """The results of REPLAYED."""
    results = {
        "replay_nrmse": test.nrmse,
        "replay_last_nrmse": test.last_nrmse,
        "valid_time": test.valid_samples * dt,
    }
    if validation is not None:
        results["validation_nrmse"] = validation.nrmse
        results["validation_valid_time"] = validation.valid_samples * dt
    return results


def windows(static: View[OfSeries], length: int) -> tuple[int, Array]:
    """(samples between two starts, (start, time) numbers of the samples) of replays that are evenly spaced over a range."""
    horizon = static.horizon or length
    stride = (length - horizon) // (static.starts - 1) if static.starts > 1 else 0
    return stride, jnp.arange(static.starts)[:, None] * stride + jnp.arange(horizon)


def replay(
    static: View[EchoState], shared: Series, w: Weights, readout: Array, now: Now, samples: slice
) -> tuple[Replay, Now]:
    """Replay a range from evenly spaced starts, beginning with the network `now`.

    Between the starts, and up to the end of the range, the network is teacher-forced. Without feedback,
    inputs alone drive a replay.

    Returns:
        (the replays, the network after the range).
    """
    x = shared.inputs[samples].astype(static.state_dtype)
    y = shared.targets[samples].astype(static.dtype)
    forced = y.astype(static.state_dtype)
    stride, window = windows(static, len(x))

    def hop(c: Now, i: Array) -> tuple[Now, Now]:
        cut = lambda rows: lax.dynamic_slice_in_dim(rows, i * stride, stride)
        return teacher_forced(static, w, c, cut(x), cut(forced))[0], c

    # `hop` emits the network before it moves on, so `begun` holds the starts, the first included.
    _, begun = lax.scan(hop, now, jnp.arange(static.starts))
    run = lambda start, x: free_run(static, w, readout, start, x)[1]
    z = jax.vmap(run)(begun, x[window])
    replays = compared(static.valid_error, z, y[window], shared.variance.astype(static.dtype))
    return replays, teacher_forced(static, w, now, x, forced)[0]


def largest_exponent(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> tuple[Array, Array]:
    """(largest Lyapunov exponent per sample, its standard error) of the network driven by its own outputs, from `now` on.

    Without inputs the network runs for TRANSIENT steps, in which it settles and the tangent turns to the fastest
    direction, and for STEPS that count. Inputs x (t, k) last for t samples, of which the first tenth does not count.
    """
    skip = len(x) // 10
    if not x.shape[1]:
        skip, x = TRANSIENT, jnp.zeros((TRANSIENT + STEPS, 0), x.dtype)
    # The tangent of the whole state: activations, rates, and the output that is fed back.
    tangent = jax.tree.map(lambda leaf: jnp.ones_like(leaf) / leaf.size**0.5, now)
    step = lambda now, x: free_step(static, w, readout, now, x)[0]
    return mean_growth(tangent_growth(step, now, tangent, x)[0][skip:])
