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
from typing import Any, NamedTuple

from ctd.cells import Weights, node
from ctd.late import Array, Float, Number, custom_vjp, jax, jnp, lax


class Units(NamedTuple):
    """What belongs to the units of a GRU, split along its last axis: the gates r and u, and the candidate."""

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


def _product_back(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, w = kept
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

    found: tuple[Array, Units] = lax.scan(step, start, drive, reverse=reverse)[1]
    return found


type KeptGru = tuple[Gru, Array, Array, Units]
"""Weights, first state, states and units of a forward pass: what its gradient needs."""


def _run_gru_forward(w: Gru, start: Array, drive: Array, reverse: bool) -> tuple[Array, KeptGru]:
    states, units = _run_gru(w, start, drive, reverse)
    return states, (w, start, states, units)


def _run_gru_back(reverse: bool, kept: KeptGru, slopes: Array) -> tuple[Gru, Array, Array]:
    w, start, states, units = kept
    h = before(start, states, reverse)

    def step(slope: Array, now: tuple[Array, Units, Array]) -> tuple[Array, Units]:
        h, units, from_outside = now
        return gru_back(w, h, units, slope + from_outside)

    rows = (h, units, slopes)
    # Backwards in time, whichever way the forward scan went.
    to_start, to_drive = lax.scan(step, jnp.zeros_like(start), rows, reverse=not reverse)
    return gru_slopes(h, units, to_drive), to_start, joined(to_drive)


run_gru.defvjp(_run_gru_forward, _run_gru_back)


# --- controller and generator in turn -------------------------------------------------------------


class Loop(NamedTuple):
    """The weights of controller and generator, and of the connections between them."""

    controller: Gru
    feedback: Float[Array, "factor three_controller"]
    """From the factors to the controller."""
    moments: Float[Array, "controller two_inferred"]
    """From the controller to mean and log variance of the inferred inputs."""
    moments_bias: Float[Array, "two_inferred"]
    generator: Gru
    from_inputs: Float[Array, "inferred three_generator"]
    readout: Float[Array, "generator factor"]


class Drives(NamedTuple):
    """What enters the loop from outside: (time, trial, ...), within a step (trial, ...)."""

    controller: Float[Array, "*step three_controller"]
    """The data's part of the controller's drive."""
    generator: Float[Array, "*step three_generator"] | None
    """The external inputs' part of the generator's drive; for a neural ODE these inputs themselves, (..., external)."""
    noise: Float[Array, "*step inferred"]
    """N(0, 1)."""
    mask: Float[Array, "*step generator"] | None
    """Dropout mask of the states that the factors see."""


class Decoding(NamedTuple):
    """The outputs of the loop: (time, trial, ...), within a step (trial, ...)."""

    states: Float[Array, "*step generator"]
    factors: Float[Array, "*step factor"]
    mean: Float[Array, "*step inferred"]
    """Moments of the posterior of the inferred inputs."""
    variance: Float[Array, "*step inferred"]


@custom_vjp
def run_loop(w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Decoding:
    """Run controller, inferred inputs, generator and factors step by step from start = (c, g, f)::

        c_t = GRU(c_{t-1}, drive_t + f_{t-1} feedback)       m_t, log s_t = c_t moments + bias
        u_t = m_t + sqrt(v_t) noise_t, v_t = s_t + floor     g_t = GRU(g_{t-1}, drive_t + u_t from_inputs)
        f_t = (mask_t g_t) readout

    The gradients in noise, mask and floor, which nobody needs, are returned as zeros.
    """
    return _run_loop(w, start, drives, floor)[0]


type Looped = tuple[Decoding, Array, Units, Units]
"""The outputs of the loop, the controller's states, and the units of both cells."""
type KeptLoop = tuple[Loop, tuple[Array, ...], Drives, Number, Decoding, Array, Units, Units]
"""What the gradient of the loop needs of its forward pass: the arguments, then the outputs."""


def _run_loop(w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Looped:
    def step(carry: tuple[Array, ...], now: Drives) -> tuple[tuple[Array, ...], Looped]:
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

    found: Looped = lax.scan(step, start, drives)[1]
    return found


def _run_loop_forward(
    w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number
) -> tuple[Decoding, KeptLoop]:
    decoding, c, units_c, units_g = _run_loop(w, start, drives, floor)
    return decoding, (w, start, drives, floor, decoding, c, units_c, units_g)


def _run_loop_back(
    kept: KeptLoop, slopes: Decoding
) -> tuple[Loop, tuple[Array, ...], Drives, Array]:
    w, start, drives, floor, decoding, c, units_c, units_g = kept
    c_before, g_before = before(start[0], c), before(start[1], decoding.states)
    deviation = jnp.sqrt(decoding.variance)
    # Derivatives with respect to log s: of the variance s + floor, and of the draw, whose deviation is sqrt(s + floor).
    in_variance = decoding.variance - floor
    in_draw = in_variance / (2 * deviation) * drives.noise

    # Gradients flow backwards through f_t, g_t, u_t, then c_t; f_t feeds the controller of step t + 1 alone.
    def step(
        carry: tuple[Array, ...], now: tuple[Any, ...]
    ) -> tuple[tuple[Array, ...], tuple[Units, Array, Units, Array]]:
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
    # f_0 = W g_0 stands before the first step.
    f_before = before(start[2], decoding.factors)
    # The draws are computed again, instead of being kept for every step.
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
    # Noise and masks are random numbers: nobody asks for their gradients.
    to_drives = jax.tree.map(jnp.zeros_like, drives)._replace(
        controller=drive_c,
        generator=None if drives.generator is None else joined(to_generator),
    )
    return to_weights, to_start, to_drives, jnp.zeros_like(floor)


run_loop.defvjp(_run_loop_forward, _run_loop_back)


# --- the neural ODE -------------------------------------------------------------------------------


def run_ode(
    field: Weights, start: Float[Array, "trial n"], external: Float[Array, "time trial input"]
) -> Float[Array, "time trial n"]:
    """The states of the neural ODE from `start` on, under external inputs that are constant within a bin.

    A bin is one step of `ctd.cells.node`: dg/dt = MLP(g, inputs).

    >>> from ctd.cells import Scales
    >>> field = node.draw(jax.random.key(0), 3, 1, Scales(), "float32")
    >>> run_ode(field, jnp.zeros((2, 3)), jnp.zeros((5, 2, 1))).shape
    (5, 2, 3)
    """
    # ctd.cells has one example; trials are a vmap.
    step = jax.vmap(partial(node.step, field))
    states: Array = lax.scan(lambda g, x: (step(g, x),) * 2, start, external)[1]
    return states


class OdeLoop(NamedTuple):
    """`Loop` with a field in place of the generator's weights and of those of its inputs."""

    controller: Gru
    feedback: Float[Array, "factor three_controller"]
    moments: Float[Array, "controller two_inferred"]
    moments_bias: Float[Array, "two_inferred"]
    readout: Float[Array, "generator factor"]
    field: Weights


def run_ode_loop(w: OdeLoop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Decoding:
    """`run_loop` with g_t from the field, which sees u_t and the external inputs side by side."""
    step_ode = jax.vmap(partial(node.step, w.field))

    def step(carry: tuple[Array, ...], now: Drives) -> tuple[tuple[Array, ...], Decoding]:
        c, g, f = carry
        assert now.generator is not None
        c, _ = gru_step(w.controller, c, now.controller + f @ w.feedback)
        mean, log_variance = jnp.split(c @ w.moments + w.moments_bias, 2, axis=-1)
        variance = jnp.exp(log_variance) + floor
        # Inferred inputs first, then external ones: the order of the columns of wFHX.
        u = mean + jnp.sqrt(variance) * now.noise
        g = step_ode(g, jnp.concatenate([u, now.generator], axis=-1))
        f = masked(g, now.mask) @ w.readout
        return (c, g, f), Decoding(g, f, mean, variance)

    found: Decoding = lax.scan(step, start, drives)[1]
    return found
