"""Kernel: echo-state networks: random recurrent networks, in which FORCE or ridge regression trains the readout alone.

    params     EchoState: the parameters of one network       reservoir  random weights, a time step, runs
    force      recursive least squares in the closed loop     ridge      teacher forcing, memory capacity
    replay     the trained network on its own                 summary    success rates over the seeds
    series     target series                                  plots      figures of an ensemble
    nvar       a second kernel: reservoirs without units, next-generation reservoir computing

Sources: Jaeger 2001 (GMD report 148); Jaeger & Haas 2004 (Science 304:78); Sussillo & Abbott 2009
(Neuron 63:544).

An item is one network. A job file, which trains 704 of them by FORCE; most learn where g is between 1.3 and 1.7:

    kernel: esn
    params: {target: sines, m: 1, n: 200, train: 1200, test: 600, passes: 10}
    sweep: {grid: {g: {linspace: [0.8, 1.8, 11]}, seed: {range: 64}}}
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.cells import spectral_radius, weight_dims
from ctd.esn.force import force_pass
from ctd.esn.params import DIVERGED, DONE, ILL_CONDITIONED, NO_SPECTRUM, EchoState
from ctd.esn.plots import plots
from ctd.esn.replay import EXPONENT, REPLAYED, TRACES, largest_exponent, replay, replay_time, scores
from ctd.esn.reservoir import Now, Weights, begin, draw, free_run, free_step, teacher_forced
from ctd.esn.ridge import memory_capacity, ridge_fit
from ctd.esn.series import Series, load_series
from ctd.esn.summary import MEMORY, SUMMARISED, SWEPT, Options, reduce, reduced_of
from ctd.kernel import OWN_WEIGHTS, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Float, Int, jax, jnp
from ctd.rls import Symmetric, scaled_identity

__all__ = ["EchoState", "Options", "closed", "kernel", "linearised"]

OUTCOMES = (
    Outcome("done", "trained and replayed"),
    Outcome("diverged", "a state, a weight or the replay is not finite", failed=True),
    Outcome(
        "ill_conditioned",
        "P of RLS or the Gram matrix is no longer positive definite; use dtype float64, a smaller alpha or a larger ridge", failed=True
    ),
    Outcome(
        "no_spectrum", "the recurrent matrix has spectral radius 0 and cannot be scaled; use more units or a larger sparsity", failed=True
    ),
)  # fmt: skip

DIMS = {
    "outcome": Var((), "1", "how the item ended"),
    "train_nrmse": Var(("pass",), "1", "NRMSE in training, before each update; nan: pass not reached"),
    **REPLAYED,
    "trained_spectral_radius": Var(
        (), "1",
        "spectral radius, to 1e-3, of (1 - r) I + r wR with r = dt / tau or leak: one step of the trained network where tanh' = 1, whatever the bias",
    ),
    # How it is measured: `memory_delays`.
    "memory": Var(("delay",), "1", "squared correlation of the past random input with its readout, on samples that the readout was not fitted to"),
    "memory_capacity": Var((), "1", "sum of `memory` over the delays, of the network without feedback; weights.wR has the feedback inside and does not give it", True),
    **EXPONENT,
    "readout_weights": Var(("output", "feature"), "1", "readout, the constant last"),
    **TRACES,
    **weight_dims(["leaky"], " of the closed network"),
    "weights.h0": Var(("state",), "1", "initial state, before the washout; see `replay_state` for the replay"),
    "replay_state": Var(
        ("state",), "1", "state of the closed network after the first sample of the first replay: `trace` goes on from it"
    ),
}  # fmt: skip


class State(NamedTuple):
    """One network between two passes. A ridge readout takes one pass, and its P is empty."""

    weights: Weights
    readout: Float[Array, "m p"]
    P: Symmetric
    now: Now
    """Activations and output after the last training sample."""
    train_nrmse: Float[Array, "passes"]
    passes: Int[Array, ""]
    """Passes done."""
    outcome: Int[Array, ""]
    """Index into OUTCOMES."""


def load(inputs: View[EchoState]) -> Series:
    """Make or read the target over washout, training, validation and test. Raises ValueError if that fails."""
    length = inputs.washout + inputs.train + inputs.validation + inputs.test
    return load_series(inputs, length)


def init(static: View[EchoState], shared: Series, traced: Values[EchoState], key: Array) -> State:
    """Draw an untrained network. The entries of its readout are N(0, 1/n)."""
    # 0, 1 and 2 folded into the item's key separate the network, the training noise and the memory test.
    key_network, key_readout = jax.random.split(jax.random.fold_in(key, 0))
    weights, scalable = draw(static, shared, traced, key_network)
    p = static.n + static.intercept
    force = static.readout == "force"
    # FORCE feeds this readout back from the first sample on; ridge regression replaces it.
    readout = jax.random.normal(key_readout, (static.m, p), static.dtype) / static.n**0.5
    return State(
        weights,
        readout,
        scaled_identity(traced.alpha, p if force else 0, static.dtype),
        begin(static, weights, readout),
        jnp.full(static.passes if force else 1, jnp.nan, static.dtype),
        jnp.zeros((), jnp.int32),
        jnp.where(scalable, DONE, NO_SPECTRUM).astype(jnp.int32),
    )


def advance(
    static: View[EchoState], shared: Series, traced: Values[EchoState], key: Array, state: State
) -> State:
    """Run one pass of FORCE, or the whole ridge fit."""
    # Each pass has its own noise, whichever pass a resumed job begins with.
    key = jax.random.fold_in(jax.random.fold_in(key, 1), state.passes)
    w, readout, P = state.weights, state.readout, state.P
    if static.readout == "force":
        end, P = force_pass(static, shared, traced, key, w, readout, P)
    else:
        end = ridge_fit(static, shared, traced, key, w)
    mean = end.squared_error / (static.train * static.m)
    nrmse = jnp.sqrt(mean / shared.variance.astype(static.dtype))
    finite = jnp.isfinite(end.now.a).all()
    # `definite` ignores NaN, so divergence is never reported as bad conditioning.
    outcome = jnp.where(end.definite, jnp.where(finite, DONE, DIVERGED), ILL_CONDITIONED)
    curve = state.train_nrmse.at[state.passes].set(nrmse)
    return State(w, end.readout, P, end.now, curve, state.passes + 1, outcome.astype(jnp.int32))


def finished(state: State) -> Array:
    """Tell if all passes are done, or the item has failed."""
    return (state.passes == len(state.train_nrmse)) | (state.outcome != DONE)


def result(
    static: View[EchoState], shared: Series, traced: Values[EchoState], key: Array, state: State
) -> dict[str, Array]:
    """Compute the replay errors, and the results that `record` and `memory_delays` ask for. Errors of a failed item are NaN."""
    w, readout, now = state.weights, state.readout, state.now
    at, validation = static.washout + static.train, None
    if static.validation:
        samples = slice(at, at + static.validation)
        # `now`, after the range, is where the test range starts.
        validation, now = replay(static, shared, w, readout, now, samples)
        at += static.validation
    if not static.test:
        now, at = _after_washout(static, shared, w, readout), static.washout
    samples = slice(at, at + (static.test or static.train))
    replayed, _ = replay(static, shared, w, readout, now, samples)
    x = shared.inputs[samples].astype(static.state_dtype)
    # A network that learns may still diverge on its own.
    has_diverged = (state.outcome == DONE) & ~jnp.isfinite(replayed.nrmse)
    outcome = jnp.where(has_diverged, DIVERGED, state.outcome)
    dt = shared.dt.astype(static.dtype)
    values = scores(replayed, validation, dt)
    if "lyapunov" in static.record:
        value, error = largest_exponent(static, w, readout, now, x)  # per step
        values |= {"lyapunov": value / dt, "lyapunov_error": error / dt}
    values = {name: jnp.where(outcome == DONE, value, jnp.nan) for name, value in values.items()}
    cell = closed(static, w, readout)
    values |= {
        "outcome": outcome,
        "train_nrmse": state.train_nrmse,
        "trained_spectral_radius": spectral_radius(linearised(static, cell)),
    }
    if static.memory_delays:
        values["memory"] = memory_capacity(static, traced, jax.random.fold_in(key, 2), w)
        values["memory_capacity"] = values["memory"].sum()
    if "readout" in static.record:
        values["readout_weights"] = readout
    if "weights" in static.record:
        values |= {f"weights.{name}": value for name, value in cell.items()}
        # At the first sample the last target is fed back, after which the network is closed.
        values["replay_state"] = free_step(static, w, readout, now, x[0])[0].a
    if "traces" in static.record:
        values |= {"trace": replayed.outputs[0], "trace_target": replayed.targets[0]}
    return values


def _after_washout(static: View[EchoState], shared: Series, w: Weights, readout: Array) -> Now:
    """The network after the same washout as in training: FORCE feeds back its own outputs, ridge the targets."""
    now, skip = begin(static, w, readout), static.washout
    x = shared.inputs[:skip].astype(static.state_dtype)
    if static.readout == "force":
        return free_run(static, w, readout, now, x)[0]
    y = shared.targets[:skip].astype(static.dtype).astype(static.state_dtype)
    return teacher_forced(static, w, now, x, y)[0]


def closed(static: View[EchoState], w: Weights, readout: Array) -> dict[str, Array]:
    """Fold the feedback into the recurrent weights, W_R + W_F W_O: the network as a cell of `ctd.cells`.

    Outputs are linear in rates, so W_R h + W_F z = (W_R + W_F W_O) h. A `continuous` network is a `leaky` cell, a
    `discrete` one `leaky_rates`.

    Args:
        static: the static fields of `EchoState`.
        w: the random weights.
        readout: (m, n) weights W_O, or (m, n + 1) with an intercept.

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
    """(1 - alpha) I + alpha wR, layer by layer: the Jacobian of one step where tanh' = 1, as at rest without a bias.

    Args:
        static: the static fields of `EchoState`.
        cell: the weights that `closed` returns.

    Returns:
        (n, n) matrix.
    """
    eye = jnp.eye(static.n, dtype=cell["wR"].dtype)
    step_matrix = cell["alpha"] * cell["wR"] + (1 - cell["alpha"]) * eye
    layer, jacobian = jnp.arange(static.n) // (static.n // static.layers), eye
    # A layer sees the new rates of the layer before: factor k moves the rows of layer k alone.
    for k in range(static.layers):
        jacobian = (
            jnp.where((layer == k)[:, None], step_matrix, eye) @ jacobian
            if static.layers > 1
            else step_matrix
        )
    return jacobian


def coords(inputs: View[EchoState], shared: Series) -> dict[str, Coordinate]:
    """Coordinates of the results: pass numbers, time since a replay's start (unit of dt), delays (samples)."""
    del shared
    coordinates = {"pass": Coordinate(np.arange(1, 1 + _passes(inputs)), "1", "number of the pass")}
    if "traces" in inputs.record:
        coordinates["time"] = replay_time(inputs)
    if inputs.memory_delays:
        delays = np.arange(1, 1 + inputs.memory_delays)
        coordinates["delay"] = Coordinate(delays, "1", "delay in samples")
    return coordinates


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
    tables=Tables(reduce=reduce, of_failed=True, dims=reduced_of(EchoState) | MEMORY, Options=Options),
    advances=_passes,
    batching=OWN_WEIGHTS,
    display=Display(
        summary=(*SWEPT, *SUMMARISED, *MEMORY),
        metric="replay_nrmse",
        chosen_by="validation_nrmse",
        # Another series, or replays of other lengths. `washout` and `train` only say how much of a series is learned.
        measured_on=(
            "target", "target_seed", "dt", "path", "dataset", "input_dataset", "m", "validation", "test", "starts",
            "horizon",
        ),
        draws=True,
        curves=("train_nrmse",),
        plots=plots,
        png_plots=3,
    ),
)  # fmt: skip
