"""Echo-state networks: ensembles of random networks of which only the readout is trained, by FORCE or ridge.

    params     EchoState: what one item is                    reservoir  weights, step
    force      recursive least squares in the loop            ridge      teacher forcing, memory capacity
    replay     the trained network on its own                 summary    success over the seeds
    series     what the networks learn                        plots      its pictures
    nvar       the kernel of next-generation reservoirs, which have no units

Sources: Jaeger 2001 (GMD report 148); Jaeger & Haas 2004 (Science 304:78); Sussillo & Abbott 2009
(Neuron 63:544).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ctd.cells import CELLS, spectral_radius
from ctd.esn import series
from ctd.esn.force import Now, Rls, begin, force_pass, scaled_identity
from ctd.esn.params import EchoState as EchoState
from ctd.esn.plots import figure, plots
from ctd.esn.replay import Replay, Stretch, free_run, largest_exponent, replay
from ctd.esn.reservoir import Weights, draw
from ctd.esn.ridge import memory_capacity, ridge_fit, teacher_forced
from ctd.esn.summary import REDUCED, reduce
from ctd.esn.summary import Options as Options
from ctd.kernel import Coordinate, Kernel, Outcome, Var
from ctd.late import jax, jnp

OUTCOMES = (
    Outcome("done", "trained and replayed"),
    Outcome("diverged", "a state, a weight or the replay is not finite", failed=True),
    Outcome(
        "ill_conditioned",
        "P of RLS, or the Gram matrix, stopped being positive definite; use dtype float64, a smaller "
        "alpha or a larger ridge",
        failed=True,
    ),
    Outcome(
        "no_spectrum", "the recurrent matrix has spectral radius 0: no scaling sets it", failed=True
    ),
)
DONE, DIVERGED, ILL_CONDITIONED, NO_SPECTRUM = range(4)

DIMS = {
    "outcome": Var((), "1", "how the item ended"),
    "train_nrmse": Var(
        ("pass",), "1", "NRMSE while training, before each update; nan: not reached"
    ),
    "replay_nrmse": Var((), "1", "NRMSE of the replays of the test range"),
    "replay_last_nrmse": Var((), "1", "NRMSE at the last sample of those replays"),
    "validation_nrmse": Var((), "1", "NRMSE of the replays of the validation range"),
    "valid_time": Var((), "time", "mean time that a replay stays valid", True),
    "spectral_radius": Var((), "1", "of the trained network linearised at rest, one sample on"),
    "memory": Var(("delay",), "1", "squared correlation of past input with its readout"),
    "memory_capacity": Var((), "1", "sum of `memory` over the delays", True),
    "lyapunov": Var((), "1/time", "largest exponent of the trained network on its own"),
    "readout_weights": Var(("output", "feature"), "1", "readout, the constant last"),
    "trace": Var(("time", "output"), "1", "outputs of the first replay of the test range"),
    **{
        f"weights.{name}": Var(axes, "1", f"weight {name} of the closed network, see ctd.cells")
        for name, axes in CELLS["leaky"].axes.items()
    },
}


class State(NamedTuple):
    """One network between passes. A ridge readout takes one pass, and its P is empty."""

    weights: Weights
    rls: Rls
    now: Now
    train_nrmse: jax.Array
    """(passes,)"""
    passes: jax.Array
    outcome: jax.Array


def load(inputs: Any) -> series.Series:
    """The target, over washout, training, validation and test. Raises ValueError where it cannot be made or read."""
    length = inputs.washout + inputs.train + inputs.validation + inputs.test
    return series.load_series(inputs, length)


def init(static: Any, shared: Any, traced: Any, key: jax.Array) -> State:
    """The untrained network, with a readout drawn from N(0, 1/n)."""
    key_network, key_readout = jax.random.split(jax.random.fold_in(key, 0))
    weights, scalable = draw(static, shared, traced, key_network)
    p = static.n + static.intercept
    force = static.readout == "force"
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


def advance(static: Any, shared: Any, traced: Any, key: jax.Array, state: State) -> State:
    """One pass of FORCE, or the whole ridge fit."""
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
    outcome = jnp.where(definite, jnp.where(finite, DONE, DIVERGED), ILL_CONDITIONED)
    return state._replace(
        rls=rls,
        now=now,
        train_nrmse=state.train_nrmse.at[state.passes].set(nrmse),
        passes=state.passes + 1,
        outcome=outcome.astype(jnp.int32),
    )


def finished(state: State) -> jax.Array:
    """Whether all passes are done, or the item has failed."""
    return (state.passes == len(state.train_nrmse)) | (state.outcome != DONE)


class Alone(NamedTuple):
    """What a trained network does on its own."""

    validation: jax.Array
    """NRMSE on the validation range; NaN if there is none"""
    found: Replay
    """replays of the test range; if there is none, of the training range"""
    start: Now
    """the network at the start of that range"""
    x: jax.Array
    """(t, k) the inputs of that range"""


def _alone(static: Any, shared: Any, state: State) -> Alone:
    w, readout = state.weights, state.rls.readout
    x = shared.inputs.astype(static.state_dtype)
    y, variance = (leaf.astype(static.dtype) for leaf in (shared.targets, shared.variance))
    whole = Stretch(x, y, variance)
    at = static.washout + static.train
    now, validation = state.now, jnp.asarray(jnp.nan, static.dtype)
    if static.validation:
        end = at + static.validation
        found, now = replay(static, w, readout, now, whole.cut(at, end))
        at, validation = end, found.nrmse
    if not static.test:
        # Back to the start of the training range, through the washout as it was in training: FORCE ran
        # on its own outputs, ridge was fed the targets.
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
    static: Any, shared: Any, traced: Any, key: jax.Array, state: State
) -> dict[str, jax.Array]:
    """Replay errors, and what else `record` and `memory_delays` ask for. A failed item has NaN errors."""
    w, readout = state.weights, state.rls.readout
    validation, found, now, x = _alone(static, shared, state)
    dt = shared.dt.astype(static.dtype)
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
        "spectral_radius": spectral_radius(linearised(static, closed(static, w, readout))),
    }
    if static.validation:
        values["validation_nrmse"] = or_nan(validation)
    if static.memory_delays:
        values["memory"] = memory_capacity(static, traced, jax.random.fold_in(key, 2), w)
        values["memory_capacity"] = values["memory"].sum()
    if "lyapunov" in static.record:
        values["lyapunov"] = or_nan(largest_exponent(static, w, readout, now, x) / dt)
    if "readout" in static.record:
        values["readout_weights"] = readout
    if "weights" in static.record:
        values |= {f"weights.{name}": value for name, value in closed(static, w, readout).items()}
    if "traces" in static.record:
        values["trace"] = found.outputs[0]
    return values


def closed(static: Any, w: Weights, readout: jax.Array) -> dict[str, jax.Array]:
    """The trained network as one network without feedback, in the weights of a cell of `ctd.cells`.

    Outputs are linear in rates, so wR = W_R + W_F readout. `continuous` networks are `leaky` cells. For
    `discrete` ones the same names stand in h' = (1 - alpha) h + alpha tanh(wR h + wI x + bR).
    """
    n, m = static.n, static.m
    readout = readout.astype(static.state_dtype)
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


def linearised(static: Any, cell: dict[str, jax.Array]) -> jax.Array:
    """(n, n) derivative of one step at rest, where tanh' = 1: (1 - alpha) I + alpha wR, one layer after the other."""
    eye = jnp.eye(static.n, dtype=cell["wR"].dtype)
    whole = cell["alpha"] * cell["wR"] + (1 - cell["alpha"]) * eye
    layer, found = jnp.arange(static.n) // (static.n // static.layers), eye
    for k in range(static.layers):
        found = jnp.where((layer == k)[:, None], whole, eye) @ found if static.layers > 1 else whole
    return found


def coords(inputs: Any, shared: Any) -> dict[str, Coordinate]:
    """Coordinates: pass numbers, time since a replay's start, delays in samples."""
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


def _passes(inputs: Any) -> int:
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
    reduced=REDUCED,
    Options=Options,
    summary=("g", "alpha", "ridge", "count", "success_rate", "nrmse_median"),
    metric="replay_nrmse",
    curves=("train_nrmse",),
    figure=figure,
    plots=plots,
    advances=_passes,
    width=64,
    # Each network has weights, and a P, of its own: on a CPU they fill the cache one by one.
    microbatches=(0,),
    cpu_microbatches=(1,),
)
