"""The LFADS model: a sequential variational auto-encoder of neural data (Sussillo et al. 2016, arXiv
1608.06315; Pandarinath et al. 2018, Nat Methods 15:805).

    data x_t -> encoder, forwards and backwards -> q(g_0) = N(m, v)                    initial condition
                                                -> controller -> q(u_t) = N(m_t, v_t)  inferred inputs
    g_t = GRU(g_{t-1}, [u_t, external input])                                          generator
    f_t = W g_t, rows of W of norm 1                                                   factors
    log rates = V f_t + b   (or mean and log variance, for a Gaussian likelihood)

The controller's input at step t is the encoder's states and f_{t-1}; without a controller there are no u_t.
All cells are `ctd.cells.gru`, whose states stay within [-1, 1] or shrink towards it, so that none is clipped.

Arrays are (time, trial, feature); all trials of a minibatch are one product. What does not depend on the
recurrence is computed before or after a scan, for all steps in one product: the data's part of the inputs
of encoder and controller, and the output.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ctd.cells import CANDIDATE_BIAS

Tree = Any


class Noise(NamedTuple):
    """All that is random in one pass; masks are 0 or 1 / keep, and None where nothing is dropped."""

    ic: jax.Array
    """(trial, state) N(0, 1)"""
    inputs: jax.Array
    """(time, trial, inferred) N(0, 1)"""
    data: jax.Array | None = None
    """(encoded time, trial, encoded unit)"""
    ends: jax.Array | None = None
    """(trial, 2 encoder)"""
    encoded: jax.Array | None = None
    """(time, trial, 2 encoder); None without a controller."""
    states: jax.Array | None = None
    """(time, trial, state)"""


class Encoded(NamedTuple):
    """What the encoder says of a minibatch."""

    ic_mean: jax.Array
    ic_variance: jax.Array
    """(trial, state)"""
    drive: jax.Array | None
    """(time, trial, 3 controller) the data's part of the controller's input; None without one."""


class Decoded(NamedTuple):
    """What the generator makes of one draw."""

    states: jax.Array
    """(time, trial, state)"""
    factors: jax.Array
    input_mean: jax.Array
    input_variance: jax.Array
    """(time, trial, inferred); no columns without a controller."""
    output: jax.Array
    """(time, trial, unit) log rates; mean and log variance, (time, trial, 2 unit), if Gaussian."""


# --- weights --------------------------------------------------------------------------------------


def init_weights(
    static: Any, traced: Any, key: jax.Array, n_encoded: int, n_external: int, bias: jax.Array
) -> Tree:
    """Random weights, N(0, 1 / fan-in) as in `ctd.cells`; priors at their given moments.

    bias: (output,) of the output layer: the log mean counts, so that training starts at flat rates.
    """
    dtype, n = static.dtype, static.generator
    n_inferred = static.n_inputs if static.controller else 0
    shapes = {
        **_gru_shapes("encoder_forward", static.encoder, n_encoded),
        **_gru_shapes("encoder_backward", static.encoder, n_encoded),
        ("ic", "w"): [(2 * n, 2 * static.encoder)],
        **_gru_shapes("generator", n, n_inferred + n_external),
        ("generator", "wO"): [(static.n_factors, n)],
        ("output", "w"): [(len(bias), static.n_factors)],
    }
    if static.controller:
        n_in = 2 * static.encoder + static.n_factors
        shapes |= _gru_shapes("controller", static.controller, n_in)
        shapes |= {("inputs", "w"): [(2 * n_inferred, static.controller)]}
    weights: dict[str, dict[str, jax.Array]] = {}
    for (part, name), value in _draw(shapes, key, dtype).items():
        weights.setdefault(part, {})[name] = value
    zeros = lambda size: jnp.zeros(size, dtype)
    for cell in ("encoder_forward", "encoder_backward", "generator", "controller"):
        if cell in weights:
            rows = len(weights[cell]["wCHX"])
            weights[cell] |= {"bRU": zeros(2 * rows), "bC": zeros(rows)}
            if cell != "generator":
                weights[cell]["h0"] = zeros(rows)
    weights["ic"]["b"] = zeros(2 * n)
    weights["output"]["b"] = bias
    weights["ic_prior"] = _prior(n, traced.ic_prior_variance, dtype)
    if static.controller:
        weights["inputs"]["b"] = zeros(2 * n_inferred)
        prior = _prior(n_inferred, traced.input_prior_variance, dtype)
        if static.input_prior == "ar1":
            prior["log_tau"] = jnp.full(n_inferred, jnp.log(traced.input_prior_tau), dtype)
        weights["input_prior"] = prior
    return weights


Blocks = dict[tuple[str, str], list[tuple[int, int]]]


def _gru_shapes(name: str, n: int, n_in: int) -> Blocks:
    """Of each matrix, the blocks for the state and for the input."""
    return {(name, "wRUHX"): [(2 * n, n), (2 * n, n_in)], (name, "wCHX"): [(n, n), (n, n_in)]}


def _draw(shapes: Blocks, key: jax.Array, dtype: Any) -> dict[tuple[str, str], jax.Array]:
    """Blocks of N(0, 1 / columns) side by side, all from one draw: a draw of each would compile for long."""
    flat = [shape for blocks in shapes.values() for shape in blocks]
    drawn = iter(cut(jax.random.normal(key, (entries(flat),), dtype), flat))
    scaled = lambda columns: next(drawn) * max(columns, 1) ** -0.5
    return {
        name: jnp.concatenate([scaled(columns) for _, columns in blocks], axis=1)
        for name, blocks in shapes.items()
    }


def entries(shapes: Sequence[tuple[int, ...]]) -> int:
    """How many entries arrays of these shapes have together."""
    return sum(map(math.prod, shapes))


def cut(vector: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """The entries of a vector as arrays of these shapes, one after another."""
    stops = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(vector, stops[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _prior(n: int, variance: jax.Array, dtype: Any) -> Tree:
    return {
        "mean": jnp.zeros(n, dtype),
        "log_variance": jnp.full(n, jnp.log(variance), dtype),
    }


def flatten(weights: Tree) -> jax.Array:
    """All weights as one vector: what the optimiser works on, in one pass."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights)])


def unflatten(vector: jax.Array, like: Tree) -> Tree:
    """The inverse, for weights with the shapes of `like`."""
    leaves, tree = jax.tree.flatten(like)
    return jax.tree.unflatten(tree, cut(vector, [leaf.shape for leaf in leaves]))


def factor_weights(generator: Tree) -> jax.Array:
    """(factor, state) with rows of norm 1: the scale of factors is that of states."""
    w = generator["wO"]
    # The small constant keeps the gradient finite at a row of zeros.
    unit: jax.Array = w * lax.rsqrt(jnp.sum(w**2, axis=1, keepdims=True) + 1e-12)
    return unit


# --- one pass -------------------------------------------------------------------------------------


def encode(
    static: Any, weights: Tree, data: jax.Array, n_steps: int, floor: Any, noise: Noise
) -> Encoded:
    """The posterior of the initial condition, and the data's part of the controller's input.

    data: (encoded time, trial, encoded unit); n_steps is the length of a trial, held-out bins included.
    """
    data = _drop(data, noise.data)
    forward = _run_encoder(weights["encoder_forward"], data)
    backward = _run_encoder(weights["encoder_backward"], data[::-1])[::-1]
    ends = _drop(jnp.concatenate([forward[-1], backward[0]], axis=-1), noise.ends)
    mean, log_variance = jnp.split(_affine(weights["ic"], ends), 2, axis=-1)
    variance = jnp.exp(log_variance) + floor
    if not static.controller:
        return Encoded(mean, variance, None)
    both = jnp.concatenate([_shift(forward, static.lag), _shift(backward, -static.lag)], axis=-1)
    both = _drop(both, noise.encoded)
    # What the encoder has not seen is 0 to the controller, as where the lag hides it.
    both = jnp.pad(both, ((0, n_steps - len(both)), (0, 0), (0, 0)))
    from_data = _input_weights(weights["controller"])[: both.shape[-1]]
    return Encoded(mean, variance, both @ from_data + _bias(weights["controller"]))


def decode(
    static: Any, weights: Tree, encoded: Encoded, external: jax.Array, floor: Any, noise: Noise
) -> Decoded:
    """Initial condition and inputs drawn with `noise`, and what the generator makes of them.

    external: (time, trial, external input).
    """
    generator = weights["generator"]
    g0 = encoded.ic_mean + jnp.sqrt(encoded.ic_variance) * noise.ic
    readout = factor_weights(generator).T
    from_inputs = _input_weights(generator)
    n_inferred = len(from_inputs) - external.shape[-1]
    drive = external @ from_inputs[n_inferred:] + _bias(generator)
    if encoded.drive is None:
        states = _run_gru(generator, g0, drive)
        factors = _drop(states, noise.states) @ readout
        mean = variance = jnp.zeros((*external.shape[:2], 0), drive.dtype)
    else:
        states, factors, mean, variance = _run_controlled(
            weights, g0, (encoded.drive, drive, noise.inputs, noise.states), readout, floor
        )
    return Decoded(states, factors, mean, variance, _affine(weights["output"], factors))


# --- recurrences ----------------------------------------------------------------------------------


def _gru_step(recurrent: tuple[jax.Array, jax.Array], h: jax.Array, drive: jax.Array) -> jax.Array:
    """One step of `ctd.cells.gru` for rows of trials; drive (trial, 3n) is the input part with biases."""
    gates, candidate = recurrent
    n = h.shape[-1]
    r, u = jnp.split(jax.nn.sigmoid(h @ gates + drive[:, : 2 * n]), 2, axis=-1)
    c = jnp.tanh((r * h) @ candidate + drive[:, 2 * n :])
    return u * h + (1 - u) * c


def _run_gru(cell: Tree, start: jax.Array, drive: jax.Array) -> jax.Array:
    """(time, trial, unit) states."""
    recurrent = _recurrent_weights(cell)

    def step(h: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = _gru_step(recurrent, h, drive)
        return h, h

    return lax.scan(step, start, drive)[1]


def _run_controlled(
    weights: Tree, g0: jax.Array, drives: tuple[Any, ...], readout: jax.Array, floor: Any
) -> tuple[jax.Array, ...]:
    """Controller and generator in turn: states, factors, means and variances of the inferred inputs.

    drives: (time, trial, ...) the data's part of the controller's input, the external part of the
    generator's, noise of the inputs, mask of the states that the factors see or None.
    """
    controller, generator = weights["controller"], weights["generator"]
    c_recurrent, g_recurrent = _recurrent_weights(controller), _recurrent_weights(generator)
    n_factors = readout.shape[1]
    feedback = _input_weights(controller)[-n_factors:]
    n_inferred = drives[2].shape[-1]
    from_inputs = _input_weights(generator)[:n_inferred]

    def step(carry: tuple[jax.Array, ...], drive: tuple[Any, ...]) -> Any:
        c, g, f = carry
        to_controller, to_generator, noise, mask = drive
        c = _gru_step(c_recurrent, c, to_controller + f @ feedback)
        mean, log_variance = jnp.split(_affine(weights["inputs"], c), 2, axis=-1)
        variance = jnp.exp(log_variance) + floor
        u = mean + jnp.sqrt(variance) * noise
        g = _gru_step(g_recurrent, g, to_generator + u @ from_inputs)
        f = _drop(g, mask) @ readout
        return (c, g, f), (g, f, mean, variance)

    c0 = jnp.broadcast_to(controller["h0"], (len(g0), len(controller["h0"])))
    return lax.scan(step, (c0, g0, g0 @ readout), drives)[1]


def _run_encoder(cell: Tree, data: jax.Array) -> jax.Array:
    """(time, trial, unit) states over data (time, trial, n_in), from the learned first one."""
    start = jnp.broadcast_to(cell["h0"], (data.shape[1], len(cell["h0"])))
    return _run_gru(cell, start, data @ _input_weights(cell) + _bias(cell))


def _recurrent_weights(cell: Tree) -> tuple[jax.Array, jax.Array]:
    """Of the gates (n, 2n) and of the candidate (n, n), for products with rows of trials."""
    n = cell["wCHX"].shape[0]
    return cell["wRUHX"][:, :n].T, cell["wCHX"][:, :n].T


def _input_weights(cell: Tree) -> jax.Array:
    """(n_in, 3n), the columns for the gates r and u and for the candidate."""
    n = cell["wCHX"].shape[0]
    return jnp.concatenate([cell["wRUHX"][:, n:], cell["wCHX"][:, n:]]).T


def _bias(cell: Tree) -> jax.Array:
    """(3n,) in the order of `_input_weights`."""
    return jnp.concatenate([cell["bRU"], cell["bC"] + CANDIDATE_BIAS])


def _affine(layer: Tree, x: jax.Array) -> jax.Array:
    return x @ layer["w"].T + layer["b"]


def _drop(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return x if mask is None else x * mask


def _shift(x: jax.Array, steps: int) -> jax.Array:
    """x later by `steps` (earlier if negative), zeros where nothing came."""
    if steps == 0:
        return x
    zeros = jnp.zeros_like(x[: abs(steps)])
    if steps > 0:
        return jnp.concatenate([zeros, x[:-steps]])
    return jnp.concatenate([x[-steps:], zeros])
