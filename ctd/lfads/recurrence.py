"""The scans of LFADS, with hand-written gradients (back-propagation through time).

At each step the backward scans store only the gradient of what enters the units. The gradient of each weight
matrix is then one product over all steps and trials::

    a_t = h_{t-1} W + drive_t        dW = sum_t h_{t-1}^T da_t,  ddrive_t = da_t

With autodiff, every step adds to the gradients of all weights, and five times as much is stored for the
backward pass; a training step then takes a quarter longer on a CPU.

Arrays are (time, trial, feature); products are rows of trials times weights, x @ w.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from ctd.late import custom_vjp, jax, jnp, lax


class Units(NamedTuple):
    """An array split along its last axis: the part of the gates r and u, and the part of the candidate."""

    gates: jax.Array
    """(..., 2n)"""
    candidate: jax.Array
    """(..., n)"""


class Gru(NamedTuple):
    """The recurrent weights of `ctd.cells.gru`, transposed for products with rows of trials."""

    recurrent: Units
    """(n, 2n) and (n, n)"""
    bias: jax.Array
    """(3n,) of r, u and the candidate"""


# --- products -------------------------------------------------------------------------------------


def over_trials(x: jax.Array, slope: jax.Array) -> jax.Array:
    """sum over time and trials of x^T slope: the gradient of w in x @ w.

    It is one product with the narrower matrix first; the barrier keeps that order. With other forms XLA makes
    copies on a CPU, or takes up to twice the time.
    """
    rows = lambda array: array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    if x.shape[-1] > slope.shape[-1]:
        return lax.optimization_barrier(rows(slope).T @ rows(x)).T
    return lax.optimization_barrier(rows(x).T @ rows(slope))


@custom_vjp
def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w for x (time, trial, feature), with `over_trials` as the gradient in w."""
    return x @ w


def _product_back(kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> Any:
    x, w = kept
    return slope @ w.T, over_trials(x, slope)


product.defvjp(lambda x, w: (x @ w, (x, w)), _product_back)


def times_transposed(units: Units, w: jax.Array) -> jax.Array:
    """joined(units) @ w.T"""
    n = units.gates.shape[-1]
    return units.gates @ w[:, :n].T + units.candidate @ w[:, n:].T


def masked(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """x times a dropout mask; None: x."""
    return x if mask is None else x * mask


# --- one step -------------------------------------------------------------------------------------


def gru_step(w: Gru, h: jax.Array, drive: jax.Array) -> tuple[jax.Array, Units]:
    """(trial, n) states after one step under drive (trial, 3n), and the values of the units."""
    n = h.shape[-1]
    total = drive + w.bias
    gates = jax.nn.sigmoid(h @ w.recurrent.gates + total[:, : 2 * n])
    r, u = jnp.split(gates, 2, axis=-1)
    c = jnp.tanh((r * h) @ w.recurrent.candidate + total[:, 2 * n :])
    return u * h + (1 - u) * c, Units(gates, c)


def gru_back(w: Gru, h: jax.Array, units: Units, slope: jax.Array) -> tuple[jax.Array, Units]:
    """(gradient in the states before a step, gradient in its drive), from that in the states after it."""
    r, u = jnp.split(units.gates, 2, axis=-1)
    c = units.candidate
    to_candidate = slope * (1 - u) * (1 - c**2)
    to_product = to_candidate @ w.recurrent.candidate.T
    to_gates = jnp.concatenate([to_product * h, slope * (h - c)], axis=-1)
    to_gates = to_gates * units.gates * (1 - units.gates)
    to_h = slope * u + to_product * r + to_gates @ w.recurrent.gates.T
    return to_h, Units(to_gates, to_candidate)


def gru_slopes(h: jax.Array, units: Units, to_drive: Units) -> Gru:
    """Gradients in the weights; h: (time, trial, n) states before every step."""
    r = units.gates[..., : h.shape[-1]]
    recurrent = over_trials(h, to_drive.gates), over_trials(r * h, to_drive.candidate)
    bias = jnp.concatenate([slope.sum((0, 1)) for slope in to_drive])
    return Gru(Units(*recurrent), bias)


def joined(units: Units) -> jax.Array:
    """(..., 3n)"""
    return jnp.concatenate(units, axis=-1)


def before(start: jax.Array, states: jax.Array, reverse: bool = False) -> jax.Array:
    """The state before each step."""
    if reverse:
        return jnp.concatenate([states[1:], start[None]])
    return jnp.concatenate([start[None], states[:-1]])


# --- one cell -------------------------------------------------------------------------------------


@partial(custom_vjp, nondiff_argnums=(3,))
def run_gru(w: Gru, start: jax.Array, drive: jax.Array, reverse: bool = False) -> jax.Array:
    """(time, trial, n) states from `start` (trial, n) under drive (time, trial, 3n); reverse: back in time."""
    return _run_gru(w, start, drive, reverse)[0]


def _run_gru(w: Gru, start: jax.Array, drive: jax.Array, reverse: bool) -> tuple[jax.Array, Units]:
    def step(h: jax.Array, drive: jax.Array) -> Any:
        h, units = gru_step(w, h, drive)
        return h, (h, units)

    found: tuple[jax.Array, Units] = lax.scan(step, start, drive, reverse=reverse)[1]
    return found


def _run_gru_forward(w: Gru, start: jax.Array, drive: jax.Array, reverse: bool) -> Any:
    states, units = _run_gru(w, start, drive, reverse)
    return states, (w, start, states, units)


def _run_gru_back(reverse: bool, kept: Any, slopes: jax.Array) -> Any:
    w, start, states, units = kept
    h = before(start, states, reverse)

    def step(slope: jax.Array, now: Any) -> Any:
        h, units, from_outside = now
        return gru_back(w, h, units, slope + from_outside)

    rows = (h, units, slopes)
    to_start, to_drive = lax.scan(step, jnp.zeros_like(start), rows, reverse=not reverse)
    return gru_slopes(h, units, to_drive), to_start, joined(to_drive)


run_gru.defvjp(_run_gru_forward, _run_gru_back)


# --- controller and generator in turn -------------------------------------------------------------


class Loop(NamedTuple):
    """Weights of controller and generator, and of the connections between them."""

    controller: Gru
    feedback: jax.Array
    """(factor, 3 controller)"""
    moments: jax.Array
    """(controller, 2 inferred) mean and log variance of the inferred inputs"""
    moments_bias: jax.Array
    generator: Gru
    from_inputs: jax.Array
    """(inferred, 3 generator)"""
    readout: jax.Array
    """(generator, factor)"""


class Drives(NamedTuple):
    """What enters the loop from outside at every step, (time, trial, ...)."""

    controller: jax.Array
    """(..., 3 controller) from the data"""
    generator: jax.Array | None
    """(..., 3 generator) from external inputs"""
    noise: jax.Array
    """(..., inferred) N(0, 1)"""
    mask: jax.Array | None
    """(..., generator) dropout mask of the states that the factors see"""


class Decoding(NamedTuple):
    """The outputs of the loop at every step, (time, trial, ...)."""

    states: jax.Array
    factors: jax.Array
    mean: jax.Array
    variance: jax.Array
    """(..., inferred)"""


@custom_vjp
def run_loop(w: Loop, start: tuple[jax.Array, ...], drives: Drives, floor: jax.Array) -> Decoding:
    """Run controller, inferred inputs, generator and factors step by step from start = (c, g, f)::

        c_t = GRU(c_{t-1}, drive_t + f_{t-1} feedback)       m_t, log s_t = c_t moments + bias
        u_t = m_t + sqrt(v_t) noise_t, v_t = s_t + floor     g_t = GRU(g_{t-1}, drive_t + u_t from_inputs)
        f_t = (mask_t g_t) readout

    Gradients in noise, mask and floor are returned as zeros.
    """
    return _run_loop(w, start, drives, floor)[0]


def _run_loop(w: Loop, start: tuple[jax.Array, ...], drives: Drives, floor: jax.Array) -> Any:
    def step(carry: tuple[jax.Array, ...], now: Drives) -> Any:
        c, g, f = carry
        c, units_c = gru_step(w.controller, c, now.controller + f @ w.feedback)
        mean, log_variance = jnp.split(c @ w.moments + w.moments_bias, 2, axis=-1)
        variance = jnp.exp(log_variance) + floor
        to_generator = (mean + jnp.sqrt(variance) * now.noise) @ w.from_inputs
        if now.generator is not None:
            to_generator += now.generator
        g, units_g = gru_step(w.generator, g, to_generator)
        f = masked(g, now.mask) @ w.readout
        return (c, g, f), (Decoding(g, f, mean, variance), c, units_c, units_g)

    return lax.scan(step, start, drives)[1]


def _run_loop_forward(
    w: Loop, start: tuple[jax.Array, ...], drives: Drives, floor: jax.Array
) -> Any:
    decoding, *others = _run_loop(w, start, drives, floor)
    return decoding, (w, start, drives, floor, decoding, *others)


def _run_loop_back(kept: Any, slopes: Decoding) -> Any:
    w, start, drives, floor, decoding, c, units_c, units_g = kept
    c_before, g_before = before(start[0], c), before(start[1], decoding.states)
    deviation = jnp.sqrt(decoding.variance)
    # Derivatives by log s: of the variance s + floor, and of the draw, whose deviation is sqrt(s + floor).
    in_variance = decoding.variance - floor
    in_draw = in_variance / (2 * deviation) * drives.noise

    def step(carry: tuple[jax.Array, ...], now: Any) -> Any:
        to_c, to_g, to_f = carry
        slope, c, units_c, g, units_g, in_draw, in_variance, mask = now
        to_f += slope.factors
        to_g += slope.states + masked(to_f @ w.readout.T, mask)
        to_g, to_generator = gru_back(w.generator, g, units_g, to_g)
        to_u = times_transposed(to_generator, w.from_inputs)
        to_log_variance = to_u * in_draw + slope.variance * in_variance
        moments = jnp.concatenate([to_u + slope.mean, to_log_variance], axis=-1)
        to_c, to_controller = gru_back(w.controller, c, units_c, to_c + moments @ w.moments.T)
        carry = to_c, to_g, times_transposed(to_controller, w.feedback)
        return carry, (to_controller, moments, to_generator, to_f)

    rows = (slopes, c_before, units_c, g_before, units_g, in_draw, in_variance, drives.mask)
    to_start, (to_controller, moments, to_generator, to_f) = lax.scan(
        step, tuple(map(jnp.zeros_like, start)), rows, reverse=True
    )
    f_before = before(start[2], decoding.factors)
    u = decoding.mean + deviation * drives.noise
    drive_c = joined(to_controller)
    to_weights = Loop(
        controller=gru_slopes(c_before, units_c, to_controller),
        feedback=over_trials(f_before, drive_c),
        moments=over_trials(c, moments),
        moments_bias=moments.sum((0, 1)),
        generator=gru_slopes(g_before, units_g, to_generator),
        from_inputs=jnp.concatenate([over_trials(u, slope) for slope in to_generator], axis=1),
        readout=over_trials(masked(decoding.states, drives.mask), to_f),
    )
    to_drives = jax.tree.map(jnp.zeros_like, drives)._replace(
        controller=drive_c,
        generator=None if drives.generator is None else joined(to_generator),
    )
    return to_weights, to_start, to_drives, jnp.zeros_like(floor)


run_loop.defvjp(_run_loop_forward, _run_loop_back)
