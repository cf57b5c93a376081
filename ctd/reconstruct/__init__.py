"""Kernel: fit a network to recordings, so that its own trajectories are those of the recorded system.

A sequence of a recording is predicted step by step, while the data pull the network's state towards theirs. This keeps the gradients of
chaotic systems from exploding, as they otherwise must (Mikhaeil, Monfared & Durstewitz 2022):

    z_t = F(z~_{t-1}, s_t)                      the network's next state, from a forced one
    x^_t = wO z_t + bO, or the first units      the prediction, whose squared error is the loss
    z~_t = (1 - alpha) z_t + alpha z^_t         generalised teacher forcing; z^ is the state that the data stand for

`forcing: bound` sets alpha by the product bound of Jacobian norms, and lets it fall slowly (Hess, Monfared, Brenner & Durstewitz 2023,
"Generalized teacher forcing for learning chaotic dynamics"); `constant` keeps it; `sparse` sets z~ = z^ every `interval` steps. After
training, the network runs freely from the first sample of each recording, and is measured: D_stsp, D_H, the error of predictions, the
largest Lyapunov exponent.

    kernel: reconstruct
    params: {data: lorenz.npy, n: 3, hidden: 100}
    sweep: {seeds: 20}

An item is one network. One `advance` is `report_every` training steps.

    params    Reconstruction: the parameters of one item   model     parameters, forced and free runs, the bound
    data      the recordings                               measures  D_stsp, D_H, PE(n), the exponent, of free runs
    summary   the best fits of a group, medians, pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd import training
from ctd.cells import get_cell, weight_dims
from ctd.kernel import OWN_WEIGHTS, Coordinate, Display, Kernel, Outcome, Tables, Values, Var, View
from ctd.late import Array, Bool, Float, Int, PyTree, jax, jnp, lax, optax
from ctd.reconstruct.data import Shared, load
from ctd.reconstruct.measures import error_of_mean, free_runs, measured, rests
from ctd.reconstruct.model import (
    OBSERVED,
    Parameters,
    bound,
    draw,
    forced,
    observed,
    states_of,
    strengths,
    trained,
)
from ctd.reconstruct.params import AT_REST, DIVERGED, FITTED, WORSE_THAN_MEAN, Reconstruction
from ctd.reconstruct.summary import REDUCED, next_jobs, plots, reduce
from ctd.rows import Best

__all__ = ["Reconstruction", "kernel"]

FIRST = 16
"""Training steps are folded into the key of an item's minibatches from this number on; `measures` folds in lower ones."""


class State(NamedTuple):
    """A network in training."""

    parameters: Parameters
    optimizer: PyTree
    step: Int[Array, ""]
    """Minibatches seen."""
    alpha: Float[Array, ""]
    """Strength of forcing."""
    curve: Float[Array, "batch"]
    """Mean loss of each block; NaN where not reached."""
    alphas: Float[Array, "batch"]
    """Strength of forcing at the end of each block."""
    diverged: Bool[Array, ""]


def optimizer(
    static: View[Reconstruction], traced: Values[Reconstruction]
) -> optax.GradientTransformation:
    """RAdam (Liu et al. 2020) with a learning rate that falls exponentially from the first step to the last."""
    rate = training.falling(traced.learning_rate, traced.final_learning_rate, static.n_batches)
    return training.optimizer(rate, optax.scale_by_radam(), clip_norm=traced.clip_norm)


def init(
    static: View[Reconstruction], shared: Shared, traced: Values[Reconstruction], key: Array
) -> State:
    """Draw a network and start its optimiser."""
    channels, n_in = shared.fitted.x.shape[2], shared.fitted.inputs.shape[2]
    p = draw(static, n_in, channels, training.item_keys(key, traced)[0])
    nothing = training.empty_curve(static)
    alpha = jnp.asarray(traced.alpha, static.dtype)
    # Without the cell's constants, which are not trained.
    started = optimizer(static, traced).init(trained(static, p)[0])
    step, diverged = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return State(p, started, step, alpha, nothing, nothing, diverged)


def minibatch(
    static: View[Reconstruction], shared: Shared, traced: Values[Reconstruction], key: Array
) -> tuple[Array, Array]:
    """(data (sequence, time + 1, channel), inputs (sequence, time + 1, n_in)) from anywhere in the recordings, with noise."""
    key_which, key_start, key_noise = jax.random.split(key, 3)
    x, s = (jnp.asarray(value) for value in shared.fitted)
    n = static.batch_size
    recordings = jax.random.randint(key_which, (n,), 0, x.shape[0])
    # A sequence has length + 1 samples: one to begin from, and `length` to predict. randint leaves its end out.
    start = jax.random.randint(key_start, (n,), 0, x.shape[1] - static.length)
    cut = lambda series, k, t: lax.dynamic_slice(
        series, (k, t, 0), (1, static.length + 1, series.shape[2])
    )[0]
    some, inputs = (
        jax.vmap(lambda k, t, series=series: cut(series, k, t))(recordings, start)
        for series in (x, s)
    )
    # The same noisy samples force the states and are predicted.
    return some + traced.noise * jax.random.normal(key_noise, some.shape, x.dtype), inputs


def loss(
    static: View[Reconstruction],
    traced: Values[Reconstruction],
    alpha: Array,
    p: Parameters,
    batch: tuple[Array, Array],
) -> tuple[Array, Array]:
    """(penalised loss, mean squared error of the forced predictions)."""
    x, s = batch
    cell, channels = get_cell(static.cell), x.shape[-1]
    z = states_of(p, x)
    # Forcing signals are data; of the first state alone the lift is trained.
    to = jnp.concatenate([z[:, :1], lax.stop_gradient(z[:, 1:])], axis=1)
    strength = strengths(static, traced, alpha, channels)  # (time, unit)
    states = jax.vmap(lambda z, s: forced(cell, p, z, s, strength))(to, s[:, 1:])
    error = jnp.mean((observed(p, states, channels) - x[:, 1:]) ** 2)  # states from z_1 on
    # A unit with A = 1 and no other weights keeps its state: the penalty draws A to 1, all other weights to 0.
    size = lambda name: jnp.sum((1 - p[name] if name == "A" else p[name]) ** 2)
    network_sizes = [size(name) for name in p if name not in (*OBSERVED, *cell.constants)]
    penalty = traced.l2 * sum(network_sizes)
    observation_sizes = [size(name) for name in OBSERVED if name in p]
    # `observation_sizes` is empty where all units are channels.
    return error + penalty + traced.l2_observation * sum(observation_sizes, jnp.zeros(())), error


def advance(
    static: View[Reconstruction],
    shared: Shared,
    traced: Values[Reconstruction],
    key: Array,
    state: State,
) -> State:
    """Take `report_every` training steps."""
    _, key_data = training.item_keys(key, traced)
    optimize, cell = optimizer(static, traced), get_cell(static.cell)
    batch_of = lambda step: minibatch(
        static, shared, traced, jax.random.fold_in(key_data, step + FIRST)
    )

    def take_step(at: State) -> tuple[State, Array, Array]:
        some, constants = trained(static, at.parameters)
        batch_loss = lambda some, batch: loss(static, traced, at.alpha, some | constants, batch)
        (_, error), gradient = jax.value_and_grad(batch_loss, has_aux=True)(some, batch_of(at.step))
        updates, moments = optimize.update(gradient, at.optimizer, some)
        new = optax.apply_updates(some, updates) | constants
        after = at._replace(parameters=new, optimizer=moments, step=at.step + 1)
        return after, error, training.is_finite(error, gradient)

    def several(at: State, _: None) -> tuple[State, Array]:
        if static.forcing == "bound":
            # Of the first minibatch of these steps.
            p, (x, s) = at.parameters, batch_of(at.step)
            least = bound(cell, p, states_of(p, x)[:, 1:], s[:, 1:])
            # alpha rises at once to what bounds the gradients, and falls slowly where less would do.
            lower = traced.anneal * at.alpha + (1 - traced.anneal) * least
            alpha = jnp.where(least > at.alpha, least, lower).astype(at.alpha.dtype)
            at = at._replace(alpha=alpha)
        n, n_batches = static.alpha_every, static.n_batches
        (at, diverged), errors = training.take_steps(take_step, at, at.diverged, n, n_batches)
        return at._replace(diverged=diverged), errors

    n = static.report_every // static.alpha_every  # without rest, by Reconstruction._whole_blocks
    end, errors = lax.scan(several, state, length=n)
    block = state.step // static.report_every
    return end._replace(
        curve=state.curve.at[block].set(jnp.nanmean(errors)),  # NaN are steps that were not taken
        alphas=state.alphas.at[block].set(end.alpha),
    )


def result(
    static: View[Reconstruction],
    shared: Shared,
    traced: Values[Reconstruction],
    key: Array,
    state: State,
) -> dict[str, Array]:
    """The weights of the network, and the measures of its free run."""
    p, (_, key_data) = state.parameters, training.item_keys(key, traced)
    x, s = (jnp.asarray(value) for value in shared.measured)
    cell, channels = get_cell(static.cell), x.shape[2]
    states, inputs = free_runs(static, cell, p, x, s)
    values = measured(static, cell, p, (x, s), (states, inputs), key_data)
    # The step of the network is the time between two samples.
    for name in ("exponent", "peak_frequency"):
        values[name] = values[name] / jnp.asarray(shared.dt)
    # Observation identity as a readout, so that kernels which read weights need not know of it.
    identity_readout = {
        "wO": jnp.eye(channels, static.n, dtype=static.dtype),
        "bO": jnp.zeros(channels, static.dtype),
    }
    weights = (
        identity_readout
        | {k: v for k, v in p.items() if k != "lift"}
        | {"h0": states_of(p, x[0, 0])}
    )
    if "lift" in p:
        values["lift"] = p["lift"]
    # The last block that is complete; a fit that diverges in its first one has that.
    last = jnp.maximum(state.step // static.report_every - 1, 0)
    diverged = state.diverged | ~jnp.isfinite(states).all()  # a fit may diverge when it runs freely
    at_rest = rests(observed(p, states, channels), x)
    values["peak_frequency"] = jnp.where(at_rest, jnp.nan, values["peak_frequency"])  # rounding's
    # Not >=: predictions may overflow.
    worse = ~(values["prediction_error"] < error_of_mean(x, static.ahead))
    moving = jnp.where(worse, WORSE_THAN_MEAN, FITTED)
    return (
        values
        | {f"weights.{name}": value for name, value in weights.items()}
        | {
            "states": states[0, : static.n_saved],  # of the first recording
            "curve": state.curve,
            "alpha_curve": state.alphas,
            "train_loss": state.curve[last],
            "batches": state.step,
            "outcome": jnp.where(diverged, DIVERGED, jnp.where(at_rest, AT_REST, moving)),
        }
    )


def coords(inputs: View[Reconstruction], shared: Shared) -> Mapping[str, Coordinate]:
    """Training steps, and the time of stored states, in the unit of dt."""
    n = min(inputs.n_saved, shared.measured.x.shape[1])
    return {
        **training.batch_axis(inputs),
        "step": Coordinate(
            np.asarray(inputs.dt * jnp.arange(n)), "1", "time in the free run, as dt"
        ),
    }


kernel = Kernel(
    name="reconstruct", Params=Reconstruction,
    dims=weight_dims(["shplrnn", "alrnn"])
    | {
        "d_stsp": Var((), "1", "D_stsp as Hess et al. 2023 have it: KL divergence of histograms over the range of the data and .1 sd more; from six channels on that of mixtures; 0 is best"),
        "d_stsp_mixture": Var((), "1", "D_stsp: KL divergence of mixtures of Gaussians of variance 1 around samples (Koppe et al. 2019), however many channels; 0 is best"),
        "d_stsp_legacy": Var((), "1", "D_stsp: KL divergence of histograms between -2 and 2 sd (Brenner et al. 2022), of up to five channels; 0 is best"),
        "d_h": Var((), "1", "D_H: mean Hellinger distance of smoothed power spectra (Mikhaeil et al. 2022); 0 is best, 1 worst"),
        "prediction_error": Var((), "1", "PE(n): mean squared error `ahead` steps ahead (Hess et al. 2023); 0 is best, 1 the error of the data's mean where they are standardised"),
        "exponent": Var((), "1/time", "largest Lyapunov exponent of the free run (Benettin et al. 1980), per unit of dt; about 0 on a cycle, below 0 at "
        "rest. With inputs, the recording's drive the run; without, the run has 10,000 steps or more"),
        "peak_frequency": Var((), "1/time", "frequency at which the free run has most power, per unit of dt", may_be_nan=True),
        "end_spread": Var((), "1", "sd of the free run in time after 10,000 steps or more, divided by that of the data: about 1 if the run goes on "
        "like the data, 0 if it comes to rest, infinite if it leaves all bounds; only without inputs"),
        "lift": Var(("free_unit", "channel"), "1", "matrix that gives the first values of the units that are not channels, from the channels"),
        "states": Var(("step", "state"), "1", "states of the free run, after its transient"),
        "curve": Var(("batch",), "1", "squared error of forced predictions, mean over each block"),
        "alpha_curve": Var(("batch",), "1", "strength of forcing at the end of each block"),
        "train_loss": Var((), "1", "squared error over the last block"),
        "batches": Var((), "1", "training steps taken"),
        "outcome": Var((), "1", "how the fit ended"),
    },
    load=load, init=init, advance=advance,
    # The last entry of the curve is filled by the last step.
    finished=lambda state: state.diverged | ~jnp.isnan(state.curve[-1]), result=result,
    outcomes=(
        Outcome("fitted", "all training steps were taken"),
        Outcome("diverged", "loss or gradient not finite, or the free run leaves all bounds", failed=True),
        Outcome("at_rest", "all training steps were taken, but the free run stays at one point, unlike the data"),
        Outcome("worse_than_mean", "all training steps were taken, but the mean of the data predicts `ahead` steps ahead as well or better"),
    ),
    coords=coords, tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Best), advances=training.n_blocks,
    batching=OWN_WEIGHTS,
    display=Display(
        summary=("item", "d_stsp", "d_h", "prediction_error", "exponent", "end_spread", "peak_frequency", "data_d_stsp", "data_d_h", "data_peak_frequency"),
        plots=plots, png_plots=2, metric="d_stsp",
        # Other recordings, in another unit, or other settings of the measures.
        measured_on=(
        "data", "dataset", "input_dataset", "test", "standardise", "bins", "smoothing", "ahead", "transient",
    ),
        next_jobs=next_jobs, curves=("curve",),
    ),
)  # fmt: skip
