"""The neural ODE as the generator, alone and with a controller; its gradients are JAX's own.

A bin is one step of `ctd.cells.node`, dg/dt = MLP(g, [inferred inputs, external inputs]) with inputs constant within it.
Arrays are (time, trial, feature).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from ctd.cells import Weights, node
from ctd.late import jax, jnp, lax
from ctd.lfads.recurrence import Decoding, Drives, Gru, gru_step, masked


def run_ode(field: Weights, start: jax.Array, external: jax.Array) -> jax.Array:
    """(time, trial, n) states from `start` (trial, n) under external inputs (time, trial, input)."""
    step = jax.vmap(partial(node.step, field))
    states: jax.Array = lax.scan(lambda g, x: (step(g, x),) * 2, start, external)[1]
    return states


class OdeLoop(NamedTuple):
    """`ctd.lfads.recurrence.Loop` with a field in place of the generator's weights and those of its inputs."""

    controller: Gru
    feedback: jax.Array
    moments: jax.Array
    moments_bias: jax.Array
    readout: jax.Array
    field: Weights


def run_ode_loop(
    w: OdeLoop, start: tuple[jax.Array, ...], drives: Drives, floor: jax.Array
) -> Decoding:
    """`ctd.lfads.recurrence.run_loop` with g_t from the field; drives.generator has the external inputs themselves."""
    step_ode = jax.vmap(partial(node.step, w.field))

    def step(carry: tuple[jax.Array, ...], now: Drives) -> Any:
        c, g, f = carry
        assert now.generator is not None
        c, _ = gru_step(w.controller, c, now.controller + f @ w.feedback)
        mean, log_variance = jnp.split(c @ w.moments + w.moments_bias, 2, axis=-1)
        variance = jnp.exp(log_variance) + floor
        u = mean + jnp.sqrt(variance) * now.noise
        g = step_ode(g, jnp.concatenate([u, now.generator], axis=-1))
        f = masked(g, now.mask) @ w.readout
        return (c, g, f), Decoding(g, f, mean, variance)

    found: Decoding = lax.scan(step, start, drives)[1]
    return found
