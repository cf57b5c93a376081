"""The scans of LFADS: an encoder, and controller and generator in turn.

Those of GRUs have hand-written gradients (back-propagation through time). At each step the backward scan stores only the
gradient of what enters the units; the gradient of each weight matrix is then one product over all steps and trials::

    a_t = h_{t-1} W + drive_t        dW = sum_t h_{t-1}^T da_t,  ddrive_t = da_t

With JAX's own gradients every step adds to those of all weights, and the forward pass stores five times as much; a
training step then takes a quarter longer on a CPU. The neural ODE as the generator has JAX's own.

Arrays are (time, trial, feature); products are rows of trials times weights, x @ w. Widths: n units of a GRU, whose gates
take 2n entries and whose drive takes 3n, gates r and u before the candidate.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from ctd.late import Array, Float, custom_vjp, jax, jnp, lax


class Units(NamedTuple):
    """The values of the units of a GRU, split along the last axis: the gates r and u, and the candidate."""

    gates: Float[Array, "*rest two_n"]
    candidate: Float[Array, "*rest n"]


class Gru(NamedTuple):
    """The recurrent weights of `ctd.cells.gru`, transposed for products with rows of trials."""

    recurrent: Units
    """(n, 2n) and (n, n)"""
    bias: Float[Array, "three_n"]


# --- products -------------------------------------------------------------------------------------


def over_trials(
    x: Float[Array, "*rows n_in"], slope: Float[Array, "*rows n_out"]
) -> Float[Array, "n_in n_out"]:
    """The sum over time and trials of x^T slope: the gradient of w in x @ w.

    It is one product with the narrower matrix first, an order that the barrier keeps. Other forms make XLA copy
    arrays on a CPU, or take up to twice the time.

    >>> over_trials(jnp.ones((5, 2, 1)), jnp.ones((5, 2, 1)))  # 5 steps of 2 trials
    Array([[10.]], dtype=float32)
    """
    rows = lambda array: array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    # (slope^T x)^T = x^T slope: the same sums, laid out as XLA multiplies them fastest.
    if x.shape[-1] > slope.shape[-1]:
        return lax.optimization_barrier(rows(slope).T @ rows(x)).T
    return lax.optimization_barrier(rows(x).T @ rows(slope))


@custom_vjp
def product(
    x: Float[Array, "time trial n_in"], w: Float[Array, "n_in n_out"]
) -> Float[Array, "time trial n_out"]:
    """x @ w, with `over_trials` as the gradient in w.

    >>> product(jnp.ones((5, 2, 3)), jnp.ones((3, 1))).shape
    (5, 2, 1)
    """
    return x @ w


def _product_back(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, w = residuals
    return slope @ w.T, over_trials(x, slope)


product.defvjp(lambda x, w: (x @ w, (x, w)), _product_back)


def times_transposed(units: Units, w: Float[Array, "n_in three_n"]) -> Float[Array, "*rest n_in"]:
    """joined(units) @ w.T, without joining them."""
    n = units.gates.shape[-1]
    return units.gates @ w[:, :n].T + units.candidate @ w[:, n:].T


def masked(
    x: Float[Array, "*shape"], mask: Float[Array, "*shape"] | None
) -> Float[Array, "*shape"]:
    """x times a dropout mask; x itself where the mask is None.

    >>> masked(jnp.array([1.0, 2.0]), jnp.array([0.0, 2.0]))  # half of the entries are kept
    Array([0., 4.], dtype=float32)
    """
    return x if mask is None else x * mask


# --- one step -------------------------------------------------------------------------------------


def gru_step(
    w: Gru, h: Float[Array, "trial n"], drive: Float[Array, "trial three_n"]
) -> tuple[Float[Array, "trial n"], Units]:
    """One step of `ctd.cells.gru`: the states after it, and the values of gates and candidate."""
    # Drives hold the gates, then the candidate: cut at 2n.
    n = h.shape[-1]
    total = drive + w.bias
    gates = jax.nn.sigmoid(h @ w.recurrent.gates + total[:, : 2 * n])
    r, u = jnp.split(gates, 2, axis=-1)
    c = jnp.tanh((r * h) @ w.recurrent.candidate + total[:, 2 * n :])
    return u * h + (1 - u) * c, Units(gates, c)


def gru_back(
    w: Gru, h: Float[Array, "trial n"], units: Units, slope: Float[Array, "trial n"]
) -> tuple[Float[Array, "trial n"], Units]:
    """The gradients in the states before a step and in its drive, from `slope`, that in the states after it."""
    r, u = jnp.split(units.gates, 2, axis=-1)
    c = units.candidate
    # h' = u h + (1 - u) c, and tanh' = 1 - c^2, sigmoid' = g (1 - g) of the values themselves.
    to_candidate = slope * (1 - u) * (1 - c**2)
    to_product = to_candidate @ w.recurrent.candidate.T
    to_gates = jnp.concatenate([to_product * h, slope * (h - c)], axis=-1)
    to_gates = to_gates * units.gates * (1 - units.gates)
    to_h = slope * u + to_product * r + to_gates @ w.recurrent.gates.T
    return to_h, Units(to_gates, to_candidate)


def gru_slopes(h: Float[Array, "time trial n"], units: Units, to_drive: Units) -> Gru:
    """The gradients in the weights. h: the states before every step."""
    # The candidate sees r h (Cho et al. 2014), so its weights get the gradient of r h.
    r = units.gates[..., : h.shape[-1]]
    recurrent = over_trials(h, to_drive.gates), over_trials(r * h, to_drive.candidate)
    bias = jnp.concatenate([slope.sum((0, 1)) for slope in to_drive])
    return Gru(Units(*recurrent), bias)


def joined(units: Units) -> Float[Array, "*rest three_n"]:
    """Gates and candidate along one axis.

    >>> joined(Units(jnp.zeros((1, 4)), jnp.ones((1, 2))))
    Array([[0., 0., 0., 0., 1., 1.]], dtype=float32)
    """
    return jnp.concatenate(units, axis=-1)


def before(
    start: Float[Array, "trial n"], states: Float[Array, "time trial n"], reverse: bool = False
) -> Float[Array, "time trial n"]:
    """The state before each step, from those after it.

    >>> before(jnp.zeros((1, 1)), jnp.array([[[1.0]], [[2.0]]])).ravel()
    Array([0., 1.], dtype=float32)
    """
    if reverse:
        return jnp.concatenate([states[1:], start[None]])
    return jnp.concatenate([start[None], states[:-1]])


# --- one cell -------------------------------------------------------------------------------------


@partial(custom_vjp, nondiff_argnums=(3,))
def run_gru(
    w: Gru,
    start: Float[Array, "trial n"],
    drive: Float[Array, "time trial three_n"],
    reverse: bool = False,
) -> Float[Array, "time trial n"]:
    """The states of a GRU from `start` on; reverse: from the last step to the first.

    >>> w = Gru(Units(jnp.zeros((1, 2)), jnp.zeros((1, 1))), jnp.zeros(3))
    >>> run_gru(w, jnp.ones((1, 1)), jnp.zeros((2, 1, 3))).ravel()  # gates half open, candidate 0
    Array([0.5 , 0.25], dtype=float32)
    """
    return _run_gru(w, start, drive, reverse)[0]


def _run_gru(w: Gru, start: Array, drive: Array, reverse: bool) -> tuple[Array, Units]:
    def step(h: Array, drive: Array) -> tuple[Array, tuple[Array, Units]]:
        h, units = gru_step(w, h, drive)
        return h, (h, units)

    outputs: tuple[Array, Units] = lax.scan(step, start, drive, reverse=reverse)[1]
    return outputs


type GruResiduals = tuple[Gru, Array, Array, Units]
"""Weights, first state, states and units of a forward pass: what its gradient needs."""


def _run_gru_forward(
    w: Gru, start: Array, drive: Array, reverse: bool
) -> tuple[Array, GruResiduals]:
    states, units = _run_gru(w, start, drive, reverse)
    return states, (w, start, states, units)


def _run_gru_back(
    reverse: bool, residuals: GruResiduals, slopes: Array
) -> tuple[Gru, Array, Array]:
    w, start, states, units = residuals
    h = before(start, states, reverse)

    def step(slope: Array, now: tuple[Array, Units, Array]) -> tuple[Array, Units]:
        h, units, from_outside = now
        return gru_back(w, h, units, slope + from_outside)

    rows = (h, units, slopes)
    # Backwards in time, whichever way the forward scan went.
    to_start, to_drive = lax.scan(step, jnp.zeros_like(start), rows, reverse=not reverse)
    return gru_slopes(h, units, to_drive), to_start, joined(to_drive)


run_gru.defvjp(_run_gru_forward, _run_gru_back)
