"""The scans of LFADS's decoder: controller and generator in turn, the generator a GRU or a neural ODE.

Those of GRUs have hand-written gradients, as `ctd.lfads.recurrence` has. Arrays are (time, trial, feature).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from ctd.cells import Weights, node
from ctd.late import Array, Float, Number, custom_vjp, jax, jnp, lax
from ctd.lfads.recurrence import (
    Gru,
    Units,
    before,
    gru_back,
    gru_slopes,
    gru_step,
    joined,
    masked,
    over_trials,
    times_transposed,
)


class Loop(NamedTuple):
    """The weights of controller and generator, and of the connections between them."""

    controller: Gru
    feedback: Float[Array, "factor three_controller"]
    """From the factors to the controller."""
    moments: Float[Array, "controller two_inferred"]
    """From the controller to mean and log variance of the inferred inputs."""
    moments_bias: Float[Array, "two_inferred"]
    generator: Any
    """A Gru; or the weights of a neural ODE."""
    from_inputs: Any
    """(inferred, three_generator) from the inferred inputs to a GRU; None for a neural ODE, whose weights have them."""
    readout: Float[Array, "generator factor"]


class Drives(NamedTuple):
    """The inputs of the loop: (time, trial, ...), within a step (trial, ...)."""

    controller: Float[Array, "*step three_controller"]
    """The data's part of the controller's drive."""
    generator: Float[Array, "*step three_generator"] | None
    """The external inputs' part of a GRU's drive, None without any; for a neural ODE these inputs themselves, (..., external)."""
    noise: Float[Array, "*step inferred"]
    """N(0, 1)."""
    mask: Float[Array, "*step generator"] | None
    """Dropout mask of the states that the factors see."""


class Decoded(NamedTuple):
    """The decoder's output for one draw of initial conditions and inputs: (time, trial, ...), within a step (trial, ...)."""

    states: Float[Array, "*step generator"]
    factors: Float[Array, "*step factor"]
    input_mean: Float[Array, "*step inferred"]
    """Moments of the posterior of the inferred inputs; no columns without a controller."""
    input_variance: Float[Array, "*step inferred"]


@custom_vjp
def run_loop(w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Decoded:
    """Run controller, inferred inputs, generator and factors step by step from start = (c, g, f)::

        c_t = GRU(c_{t-1}, drive_t + f_{t-1} feedback)       m_t, log s_t = c_t moments + bias
        u_t = m_t + sqrt(v_t) noise_t, v_t = s_t + floor     g_t = GRU(g_{t-1}, drive_t + u_t from_inputs)
        f_t = (mask_t g_t) readout

    The gradients in noise, mask and floor are returned as zeros: no weight depends on them.
    """
    return _run_loop(w, start, drives, floor)[0]


type Looped = tuple[Decoded, Array, Units, Units]
"""The outputs of the loop, the controller's states, and the units of both cells."""
type LoopResiduals = tuple[Loop, tuple[Array, ...], Drives, Number, Decoded, Array, Units, Units]
"""The residuals of the forward pass that the loop's gradient needs: the arguments, then the outputs."""


def _run_loop(w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Looped:
    def step(carry: tuple[Array, ...], now: Drives) -> tuple[tuple[Array, ...], Looped]:
        c, g, f = carry
        c, units_c, u, mean, variance = _control(w, c, f, now, floor)
        to_generator = u @ w.from_inputs
        if now.generator is not None:
            to_generator += now.generator
        g, units_g = gru_step(w.generator, g, to_generator)
        f = masked(g, now.mask) @ w.readout
        return (c, g, f), (Decoded(g, f, mean, variance), c, units_c, units_g)

    looped: Looped = lax.scan(step, start, drives)[1]
    return looped


def _control(
    w: Loop, c: Array, f: Array, now: Drives, floor: Number
) -> tuple[Array, Units, Array, Array, Array]:
    """One step of the controller: its states and units, a draw of the inputs, and their mean and variance."""
    c, units = gru_step(w.controller, c, now.controller + f @ w.feedback)
    mean, log_variance = jnp.split(c @ w.moments + w.moments_bias, 2, axis=-1)
    variance = jnp.exp(log_variance) + floor
    return c, units, mean + jnp.sqrt(variance) * now.noise, mean, variance


def _run_loop_forward(
    w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number
) -> tuple[Decoded, LoopResiduals]:
    decoded, c, units_c, units_g = _run_loop(w, start, drives, floor)
    return decoded, (w, start, drives, floor, decoded, c, units_c, units_g)


def _run_loop_back(
    residuals: LoopResiduals, slopes: Decoded
) -> tuple[Loop, tuple[Array, ...], Drives, Array]:
    w, start, drives, floor, decoded, c, units_c, units_g = residuals
    c_before, g_before = before(start[0], c), before(start[1], decoded.states)
    deviation = jnp.sqrt(decoded.input_variance)
    # Derivatives with respect to log s: of the variance s + floor, and of the draw, whose deviation is sqrt(s + floor).
    in_variance = decoded.input_variance - floor
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
        to_log_variance = to_u * in_draw + slope.input_variance * in_variance
        moments = jnp.concatenate([to_u + slope.input_mean, to_log_variance], axis=-1)
        to_c, to_controller = gru_back(w.controller, c, units_c, to_c + moments @ w.moments.T)
        carry = to_c, to_g, times_transposed(to_controller, w.feedback)
        return carry, (to_controller, moments, to_generator, to_f)

    rows = (slopes, c_before, units_c, g_before, units_g, in_draw, in_variance, drives.mask)
    to_start, (to_controller, moments, to_generator, to_f) = lax.scan(
        step, tuple(map(jnp.zeros_like, start)), rows, reverse=True
    )
    # f_0 = W g_0 stands before the first step.
    f_before = before(start[2], decoded.factors)
    # The draws are computed again, instead of being kept for every step.
    u = decoded.input_mean + deviation * drives.noise
    drive_c = joined(to_controller)
    to_weights = Loop(
        controller=gru_slopes(c_before, units_c, to_controller),
        feedback=over_trials(f_before, drive_c),
        moments=over_trials(c, moments),
        moments_bias=moments.sum((0, 1)),
        generator=gru_slopes(g_before, units_g, to_generator),
        from_inputs=jnp.concatenate([over_trials(u, slope) for slope in to_generator], axis=1),
        readout=over_trials(masked(decoded.states, drives.mask), to_f),
    )
    to_drives = jax.tree.map(jnp.zeros_like, drives)._replace(
        controller=drive_c, generator=None if drives.generator is None else joined(to_generator)
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


def run_ode_loop(w: Loop, start: tuple[Array, ...], drives: Drives, floor: Number) -> Decoded:
    """`run_loop` of a neural ODE, whose field sees u_t and the external inputs side by side."""
    step_ode = jax.vmap(partial(node.step, w.generator))

    def step(carry: tuple[Array, ...], now: Drives) -> tuple[tuple[Array, ...], Decoded]:
        c, g, f = carry
        assert now.generator is not None
        c, _, u, mean, variance = _control(w, c, f, now, floor)
        # Inferred inputs first, then external ones: the order of the columns of wFHX.
        g = step_ode(g, jnp.concatenate([u, now.generator], axis=-1))
        f = masked(g, now.mask) @ w.readout
        return (c, g, f), Decoded(g, f, mean, variance)

    decoded: Decoded = lax.scan(step, start, drives)[1]
    return decoded
