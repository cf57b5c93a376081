"""The LFADS model: a sequential variational auto-encoder of neural data (Sussillo et al. 2016, arXiv
1608.06315; Pandarinath et al. 2018, Nat Methods 15:805).

    data x_t -> encoder, forwards and backwards -> q(g_0) = N(m, v)                    initial condition
                                                -> controller -> q(u_t) = N(m_t, v_t)  inferred inputs
    g_t = GRU(g_{t-1}, [u_t, external input])                                          generator
          or g(t) of the neural ODE dg/dt = MLP(g, [u_t, external input])
    f_t = W g_t, rows of W of norm 1, or f_t = g_t                                     factors
    log rates = V f_t + b   (V, b of the trial's session; or mean and log variance, for a Gaussian likelihood)

Each of several sessions has a read-in, A x_t + a instead of x_t, and a readout of its own (`ctd.lfads.readins`).

The controller's input at step t is the encoder's states and f_{t-1}, with f_0 = W g_0 as in the original
TensorFlow code (the tutorial starts from zeros). A model without a controller has no u_t. All GRUs are
`ctd.cells.gru`, whose states stay within [-1, 1] or shrink towards it, so no state is clipped. The neural ODE is
`ctd.cells.node` (Sedler et al. 2023) with a bin as its unit of time; if its states leave all bounds, the loss is not
finite and the model has diverged.

Arrays are (time, trial, feature), so that one product serves all trials of a minibatch. The part of the inputs of encoder
and controller that comes from the data, and the output, do not depend on the recurrence: one product computes them for
all steps, before or after the scan.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.cells import UPDATE_BIAS
from ctd.kernel import View
from ctd.late import Array, Float, Number, jax, jnp
from ctd.lfads.data import Dataset
from ctd.lfads.generator import Decoded, Drives, Loop, run_loop, run_ode, run_ode_loop
from ctd.lfads.params import Model
from ctd.lfads.recurrence import Gru, Units, masked, product, run_gru
from ctd.lfads.weights import Tree, factor_weights


class Fitted(NamedTuple):
    """A model, trained or in training, with its data."""

    static: View[Model]
    floor: Number
    """Least variance of a posterior."""
    dataset: Dataset
    weights: Tree


class Noise(NamedTuple):
    """All random numbers of one forward pass: two draws of N(0, 1), then dropout masks, None without dropout.

    A mask's entries are 0 or 1 / (share that is kept), so that means stay the same.
    """

    ic: Float[Array, "trial state"]
    """N(0, 1), for the initial condition."""
    inputs: Float[Array, "time trial inferred"]
    """N(0, 1), for the inferred inputs."""
    data: Float[Array, "encoded_time trial encoded_unit"] | None = None
    ends: Float[Array, "trial two_encoder"] | None = None
    """For the last states of both encoders."""
    encoded: Float[Array, "time trial two_encoder"] | None = None
    """For the states of both encoders at every step; None without a controller."""
    states: Float[Array, "time trial state"] | None = None


class Encoded(NamedTuple):
    """The posterior of the initial conditions of a minibatch, and what the controller gets from the data."""

    ic_mean: Float[Array, "trial state"]
    ic_variance: Float[Array, "trial state"]
    drive: Float[Array, "time trial three_controller"] | None
    """The part of the controller's drive (gates, then candidate) that comes from the data; None without a controller."""


# --- one pass -------------------------------------------------------------------------------------


def encode(
    model: Fitted, data: Float[Array, "encoded_time trial encoded_unit"], n_steps: int, noise: Noise
) -> Encoded:
    """Infer the posterior of the initial condition, and the part of the controller's drive that comes from the data.

    n_steps: the length of a trial, held-out bins included.
    """
    static, weights = model.static, model.weights
    data = masked(data, noise.data)
    # Units of a session become factors that all sessions share; the encoder sees only these.
    if "readin" in weights:
        data = _affine(weights["readin"], data)
    forward = _run_encoder(weights["encoder_forward"], data)
    backward = _run_encoder(weights["encoder_backward"], data, reverse=True)
    # Each encoder has read the whole trial at its last step: the end for one, the first bin for the other.
    ends = masked(jnp.concatenate([forward[-1], backward[0]], axis=-1), noise.ends)
    mean, log_variance = jnp.split(ends @ weights["ic"]["w"].T + weights["ic"]["b"], 2, axis=-1)
    # The floor keeps the KL finite, and the posterior from collapsing onto one state.
    variance = jnp.exp(log_variance) + model.floor
    if not static.controller:
        return Encoded(mean, variance, None)
    both = jnp.concatenate([_shift(forward, static.lag), _shift(backward, -static.lag)], axis=-1)
    both = masked(both, noise.encoded)
    # In held-out bins the controller sees zeros, as it does where the lag hides the encoder.
    both = jnp.pad(both, ((0, n_steps - len(both)), (0, 0), (0, 0)))
    from_data = _inputs(weights["controller"], 0, both.shape[-1])
    return Encoded(mean, variance, product(both, from_data))


def decode(
    model: Fitted, encoded: Encoded, external: Float[Array, "time trial external"], noise: Noise
) -> tuple[Decoded, Float[Array, "time trial output"]]:
    """Draw the initial condition and the inputs with `noise`, and run the generator from them.

    Returns the generator's states, factors and inferred inputs, and log rates; or all numbers of the likelihood, in the order of `data_log_likelihood`.
    """
    static, generator = model.static, model.weights["generator"]
    # The reparametrisation trick: the draw is differentiable in mean and variance.
    g0 = encoded.ic_mean + jnp.sqrt(encoded.ic_variance) * noise.ic
    if encoded.drive is None:
        if static.generator_cell == "node":
            states = run_ode(generator, g0, external)
        else:
            states = run_gru(_recurrent(generator), g0, product(external, _inputs(generator)))
        factors = masked(states, noise.states)
        if static.readout == "factors":
            factors = product(factors, factor_weights(generator).T)
        none = jnp.zeros((*external.shape[:2], 0), g0.dtype)
        decoded = Decoded(states, factors, none, none)
    else:
        drives = Drives(encoded.drive, external, noise.inputs, noise.states)
        decoded = _run_controlled(model, g0, drives)
    return decoded, _affine(model.weights["output"], decoded.factors)


def _run_controlled(model: Fitted, g0: Float[Array, "trial state"], drives: Drives) -> Decoded:
    """Run controller and generator in turn. drives.generator: the external inputs themselves, of either cell."""
    controller, moments, cell = (
        model.weights[part] for part in ("controller", "inputs", "generator")
    )
    is_ode, n_inferred = model.static.generator_cell == "node", drives.noise.shape[-1]
    readout = factor_weights(cell).T
    loop = Loop(
        controller=_recurrent(controller),
        # The controller's inputs are the encoders' states, then the factors: its last columns are the feedback.
        feedback=_inputs(controller, -readout.shape[1]),
        moments=moments["w"].T,
        moments_bias=moments["b"],
        generator=cell if is_ode else _recurrent(cell),
        from_inputs=None if is_ode else _inputs(cell, 0, n_inferred),
        readout=readout,
    )
    # All trials start from the one learned state of the controller.
    c0 = jnp.broadcast_to(controller["h0"], (len(g0), len(controller["h0"])))
    start = (c0, g0, g0 @ readout)
    if is_ode:
        return run_ode_loop(loop, start, drives, model.floor)
    external_drive = None  # without external inputs the loop skips the addition
    if drives.generator is not None and drives.generator.shape[-1]:
        external_drive = product(drives.generator, _inputs(cell, n_inferred))
    decoded: Decoded = run_loop(loop, start, drives._replace(generator=external_drive), model.floor)
    return decoded


def _affine(layer: Tree, x: jax.Array) -> jax.Array:
    """(time, trial, output) w x + b; w is (output, input), or (trial, output, input) if sessions differ in it."""
    if layer["w"].ndim == 2:
        # One matrix for all trials, or one for each trial of a minibatch that mixes sessions.
        output: jax.Array = product(x, layer["w"].T)
    else:
        output = jnp.einsum("tbi,boi->tbo", x, layer["w"])
    return output + layer["b"]


def _run_encoder(
    cell: Tree, data: Float[Array, "time trial n_in"], reverse: bool = False
) -> Float[Array, "time trial n"]:
    """The states of an encoder over the data, from its learned initial state; reverse: from the last bin to the first."""
    # One learned initial state for all trials.
    start = jnp.broadcast_to(cell["h0"], (data.shape[1], len(cell["h0"])))
    return run_gru(_recurrent(cell), start, product(data, _inputs(cell)), reverse)


# --- weights, as the recurrences take them --------------------------------------------------------


def _recurrent(cell: Tree) -> Gru:
    """The recurrent weights of a GRU, with the constant of its update gate added to the bias."""
    n = cell["wCHX"].shape[0]
    # The first n columns act on the state, the others on the input.
    weights = Units(cell["wRUHX"][:, :n].T, cell["wCHX"][:, :n].T)
    return Gru(weights, jnp.concatenate([cell["bRU"].at[n:].add(UPDATE_BIAS), cell["bC"]]))


def _inputs(cell: Tree, start: int = 0, stop: int | None = None) -> Float[Array, "input three_n"]:
    """The weights of the inputs start:stop of a GRU; columns for the gates, then for the candidate."""
    n = cell["wCHX"].shape[0]
    return jnp.concatenate([cell["wRUHX"][:, n:], cell["wCHX"][:, n:]]).T[start:stop]


def _shift(x: Float[Array, "time *rest"], steps: int) -> Float[Array, "time *rest"]:
    """x delayed by `steps` (advanced if negative), with zeros at the free end."""
    if steps == 0:
        return x
    zeros = jnp.zeros_like(x[: abs(steps)])
    if steps > 0:
        return jnp.concatenate([zeros, x[:-steps]])
    return jnp.concatenate([x[-steps:], zeros])
