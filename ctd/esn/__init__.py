"""Kernel: echo-state networks, random recurrent networks of which FORCE or ridge regression trains the readout alone.

    params     EchoState: the parameters of one network       reservoir  random weights, one time step
    force      recursive least squares in the closed loop     ridge      teacher forcing, memory capacity
    replay     the trained network on its own                 summary    success rates over the seeds
    series     target series                                  plots      figures of an ensemble
    nvar       a second kernel: reservoirs without units, next-generation reservoir computing

Sources: Jaeger 2001 (GMD report 148); Jaeger & Haas 2004 (Science 304:78); Sussillo & Abbott 2009
(Neuron 63:544).

An item is one network. A job file, which trains 640 of them:

    kernel: esn
    params: {target: mackey-glass-17, dt: 1, m: 1, n: 200, train: 2000, test: 500, washout: 100, passes: 1}
    sweep: {grid: {g: {linspace: [0.8, 1.8, 11]}, seed: {range: 64}}}
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.cells import CELLS, spectral_radius
from ctd.esn import series
from ctd.esn.force import Now, Rls, begin, force_pass, free_step
from ctd.esn.params import EchoState as EchoState
from ctd.esn.plots import figure, plots
from ctd.esn.replay import (
    EXPONENT,
    REPLAYED,
    TRACES,
    Replay,
    Stretch,
    free_run,
    largest_exponent,
    replay,
)
from ctd.esn.reservoir import Weights, draw
from ctd.esn.ridge import memory_capacity, ridge_fit, teacher_forced
from ctd.esn.summary import MEMORY, SHOWN, SWEPT, reduce, reduced_of
from ctd.esn.summary import Options as Options
from ctd.kernel import Coordinate, Kernel, Outcome, Values, Var, View
from ctd.late import Array, Float, Int, jax, jnp
from ctd.rls import scaled_identity

OUTCOMES = (
    Outcome("done", "trained and replayed"),
    Outcome("diverged", "a state, a weight or the replay is not finite", failed=True),
    Outcome(
        "ill_conditioned",
        "P of RLS or the Gram matrix is no longer positive definite; use dtype float64, a smaller "
        "alpha or a larger ridge",
        failed=True,
    ),
    Outcome(
        "no_spectrum",
        "the recurrent matrix has spectral radius 0 and cannot be scaled; use more units or a larger sparsity",
        failed=True,
    ),
)
DONE, DIVERGED, ILL_CONDITIONED, NO_SPECTRUM = range(4)

DIMS = {
    "outcome": Var((), "1", "how the item ended"),
    "train_nrmse": Var(
        ("pass",), "1", "NRMSE in training, before each update; nan: pass not reached"
    ),
    **REPLAYED,
    "trained_spectral_radius": Var(
        (), "1", "spectral radius of one step of the trained network at rest"
    ),
    # How it is measured: `memory_delays`.
    "memory": Var(
        ("delay",), "1", "squared correlation of past noise with its readout, other samples"
    ),
    "memory_capacity": Var((), "1", "sum of `memory` over the delays", True),
    **EXPONENT,
    "readout_weights": Var(("output", "feature"), "1", "readout, the constant last"),
    **TRACES,
    **{
        f"weights.{name}": Var(axes, "1", f"weight {name} of the closed network, see ctd.cells")
        for name, axes in CELLS["leaky"].axes.items()
    },
    "weights.h0": Var(
        ("state",), "1", "initial state, before the washout; see `replay_state` for the replay"
    ),
    "replay_state": Var(
        ("state",),
        "1",
        "state of the closed network after the first sample of the first replay: `trace` goes on from it",
    ),
}


class State(NamedTuple):
    """One network between two passes. A ridge readout takes one pass, and its P is empty."""

    weights: Weights
    rls: Rls
    now: Now
    """Activations and output after the last training sample."""
    train_nrmse: Float[Array, "passes"]
    passes: Int[Array, ""]
    """Passes done."""
    outcome: Int[Array, ""]
    """Index into OUTCOMES."""


def load(inputs: View[EchoState]) -> series.Series:
    """Make or read the target over washout, training, validation and test. Raises ValueError if that fails."""
    length = inputs.washout + inputs.train + inputs.validation + inputs.test
    return series.load_series(inputs, length)


def init(
    static: View[EchoState], shared: series.Series, traced: Values[EchoState], key: Array
) -> State:
    """Draw an untrained network. The entries of its readout are N(0, 1/n)."""
    # 0, 1 and 2 folded into the item's key separate the network, the training noise and the memory test.
    key_network, key_readout = jax.random.split(jax.random.fold_in(key, 0))
    weights, scalable = draw(static, shared, traced, key_network)
    p = static.n + static.intercept
    force = static.readout == "force"
    # FORCE feeds this readout back from the first sample on; ridge regression replaces it.
    readout = jax.random.normal(key_readout, (static.m, p), static.dtype) / static.n**0.5
    rls = Rls(readout, scaled_identity(traced.alpha, p if force else 0, static.dtype))
    return State(
        weights,
        rls,
        begin(static, weights, readout),
        jnp.full(static.passes if force else 1, jnp.nan, static.dtype),
        jnp.zeros((), jnp.int32),
        jnp.where(scalable, DONE, NO_SPECTRUM).astype(jnp.int32),
    )


def advance(
    static: View[EchoState],
    shared: series.Series,
    traced: Values[EchoState],
    key: Array,
    state: State,
) -> State:
    """Run one pass of FORCE, or the whole ridge fit."""
    # Each pass has its own noise, whichever pass a resumed job begins with.
    key = jax.random.fold_in(jax.random.fold_in(key, 1), state.passes)
    if static.readout == "force":
        end = force_pass(static, shared, traced, key, state.weights, state.rls)
        rls, now, squared_error, definite = end.rls, end.now, end.squared_error, end.definite
    else:
        fit = ridge_fit(static, shared, traced, key, state.weights)
        rls, now = state.rls._replace(readout=fit.readout), fit.now
        squared_error, definite = fit.squared_error, fit.definite
    mean = squared_error / (static.train * static.m)
    nrmse = jnp.sqrt(mean / shared.variance.astype(static.dtype))
    finite = jnp.isfinite(now.units.a).all()
    # `definite` ignores NaN, so divergence is never reported as bad conditioning.
    outcome = jnp.where(definite, jnp.where(finite, DONE, DIVERGED), ILL_CONDITIONED)
    return state._replace(
        rls=rls,
        now=now,
        train_nrmse=state.train_nrmse.at[state.passes].set(nrmse),
        passes=state.passes + 1,
        outcome=outcome.astype(jnp.int32),
    )


def finished(state: State) -> Array:
    """Tell if all passes are done, or the item has failed."""
    return (state.passes == len(state.train_nrmse)) | (state.outcome != DONE)


class Alone(NamedTuple):
    """A trained network's validation and test."""

    validation: Replay | None
    """Replays of the validation range; None without one."""
    found: Replay
    """Replays of the test range, or of the training range without one."""
    start: Now
    """The network at the start of that range."""
    x: Float[Array, "t k"]
    """The inputs of that range."""


def _alone(static: View[EchoState], shared: series.Series, state: State) -> Alone:
    w, readout = state.weights, state.rls.readout
    x = shared.inputs.astype(static.state_dtype)
    y, variance = (leaf.astype(static.dtype) for leaf in (shared.targets, shared.variance))
    whole = Stretch(x, y, variance)
    at = static.washout + static.train
    now, validation = state.now, None
    if static.validation:
        end = at + static.validation
        # `now`, after the range, is where the test range starts.
        validation, now = replay(static, w, readout, now, whole.cut(at, end))
        at = end
    if not static.test:
        # Return to the start of the training range, through the same washout as in training: FORCE fed
        # back its own outputs, ridge the targets.
        skip, at = static.washout, static.washout + static.train
        now = begin(static, w, readout)
        if static.readout == "force":
            now, _ = free_run(static, w, readout, now, x[:skip])
        else:
            silent = jnp.zeros((skip, static.n), static.state_dtype)
            forced = y[:skip].astype(static.state_dtype)
            now, _ = teacher_forced(static, w, now, x[:skip], forced, silent)
        found, _ = replay(static, w, readout, now, whole.cut(skip, at))
        return Alone(validation, found, now, x[skip:at])
    found, _ = replay(static, w, readout, now, whole.cut(at))
    return Alone(validation, found, now, x[at:])


def result(
    static: View[EchoState],
    shared: series.Series,
    traced: Values[EchoState],
    key: Array,
    state: State,
) -> dict[str, Array]:
    """Compute the replay errors, and the results that `record` and `memory_delays` ask for. Errors of a failed item are NaN."""
    w, readout = state.weights, state.rls.readout
    validation, found, now, x = _alone(static, shared, state)
    dt = shared.dt.astype(static.dtype)
    # A network that learns may still diverge on its own.
    outcome = jnp.where(
        (state.outcome == DONE) & ~jnp.isfinite(found.nrmse), DIVERGED, state.outcome
    )
    or_nan = lambda value: jnp.where(outcome == DONE, value, jnp.nan)
    values = {
        "outcome": outcome,
        "train_nrmse": state.train_nrmse,
        "replay_nrmse": or_nan(found.nrmse),
        "replay_last_nrmse": or_nan(found.last_nrmse),
        "valid_time": or_nan(found.valid_samples * dt),
        "trained_spectral_radius": spectral_radius(linearised(static, closed(static, w, readout))),
    }
    if validation is not None:
        values["validation_nrmse"] = or_nan(validation.nrmse)
        values["validation_valid_time"] = or_nan(validation.valid_samples * dt)
    if static.memory_delays:
        values["memory"] = memory_capacity(static, traced, jax.random.fold_in(key, 2), w)
        values["memory_capacity"] = values["memory"].sum()
    if "lyapunov" in static.record:
        exponent = largest_exponent(static, w, readout, now, x)  # per step
        values["lyapunov"] = or_nan(exponent.value / dt)
        values["lyapunov_error"] = or_nan(exponent.error / dt)
    if "readout" in static.record:
        values["readout_weights"] = readout
    if "weights" in static.record:
        values |= {f"weights.{name}": value for name, value in closed(static, w, readout).items()}
        # At the first sample the last target is fed back, after which the network is closed.
        values["replay_state"] = free_step(static, w, readout, now, x[0])[0].units.a
    if "traces" in static.record:
        values |= {"trace": found.outputs[0], "trace_target": found.targets[0]}
    return values


def closed(static: View[EchoState], w: Weights, readout: Array) -> dict[str, Array]:
    """Fold the feedback into the recurrent weights: the network as a cell of `ctd.cells`.

    Outputs are linear in rates, so W_R h + W_F z = (W_R + W_F readout) h. A `continuous` network is a `leaky` cell, a
    `discrete` one `leaky_rates`.

    Returns:
        Weights by name: wI (n, k), wR (n, n), bR (n,), alpha (), wO (m, n), bO (m,), h0 (n,), in `state_dtype`.
    """
    n, m = static.n, static.m
    readout = readout.astype(static.state_dtype)
    # The constant of an intercept is the last feature.
    wO, bO = readout[:, :n], readout[:, n] if static.intercept else jnp.zeros(m, readout.dtype)
    feedback = w.drive[:, -m:] if static.feedback else jnp.zeros((n, m), readout.dtype)
    return {
        "wI": w.drive[:, n : w.drive.shape[1] - m * static.feedback],
        "wR": w.drive[:, :n] + feedback @ wO,
        "bR": w.bias + feedback @ bO,
        "alpha": w.rate,
        "wO": wO,
        "bO": bO,
        "h0": w.start,
    }


def linearised(static: View[EchoState], cell: dict[str, Array]) -> Array:
    """The Jacobian (n, n) of one step at rest, where tanh' = 1: (1 - alpha) I + alpha wR, multiplied layer by layer."""
    eye = jnp.eye(static.n, dtype=cell["wR"].dtype)
    whole = cell["alpha"] * cell["wR"] + (1 - cell["alpha"]) * eye
    layer, found = jnp.arange(static.n) // (static.n // static.layers), eye
    # A layer sees the new rates of the layer before: factor k moves the rows of layer k alone.
    for k in range(static.layers):
        found = jnp.where((layer == k)[:, None], whole, eye) @ found if static.layers > 1 else whole
    return found


def coords(inputs: View[EchoState], shared: series.Series) -> dict[str, Coordinate]:
    """Coordinates of the results: pass numbers, time since a replay's start (unit of dt), delays (samples)."""
    del shared
    found = {"pass": Coordinate(np.arange(1, 1 + _passes(inputs)), "1", "number of the pass")}
    if "traces" in inputs.record:
        horizon = inputs.horizon or inputs.test or inputs.train
        steps = inputs.dt * np.arange(1, 1 + horizon)
        found["time"] = Coordinate(steps, "1", "time since the replay's start, as dt")
    if inputs.memory_delays:
        delays = np.arange(1, 1 + inputs.memory_delays)
        found["delay"] = Coordinate(delays, "1", "delay in samples")
    return found


def _passes(inputs: View[EchoState]) -> int:
    return inputs.passes if inputs.readout == "force" else 1


kernel = Kernel(
    "esn",
    EchoState,
    DIMS,
    init,
    advance,
    finished,
    result,
    load=load,
    outcomes=OUTCOMES,
    coords=coords,
    reduce=reduce,
    reduced=reduced_of(EchoState) | MEMORY,
    Options=Options,
    summary=(*SWEPT, *SHOWN, *MEMORY),
    metric="replay_nrmse",
    chosen_by="validation_nrmse",
    draws=True,
    curves=("train_nrmse",),
    figure=figure,
    plots=plots,
    advances=_passes,
    width=64,
    # Each network has weights, and a P, of its own: on a CPU they fill the cache one by one.
    microbatches=(0,),
    cpu_microbatches=(1,),
)
