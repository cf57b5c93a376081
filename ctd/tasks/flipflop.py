"""The flip-flop: remember bits."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ctd.late import jax, jnp, lax
from ctd.tasks.task import Task, Trial


class FlipFlop(Task):
    """Remember k bits: output i is the sign of the last pulse on input i (Sussillo & Barak 2013).

    Pulses of +1 or -1 last one step and are independent; every trial begins with one on each channel, so
    that the targets are defined from the first step on.
    """

    name = "flipflop"

    n_steps: int = Field(50, gt=0, description="steps of a trial")
    n_bits: int = Field(3, gt=0, description="bits k, each with its input and its output")
    p_pulse: float = Field(0.1, gt=0, le=1, description="probability of a pulse, per step and bit")

    @property
    def n_in(self) -> int:
        return self.n_bits

    @property
    def n_out(self) -> int:
        return self.n_bits

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        key_time, key_sign = jax.random.split(key)
        shape = (self.n_steps, self.n_bits)
        pulse = jax.random.bernoulli(key_time, self.p_pulse, shape).at[0].set(True)
        sign = jax.random.rademacher(key_sign, shape, dtype)
        steps = jnp.arange(self.n_steps)[:, None]
        latest = lax.cummax(jnp.where(pulse, steps, 0), axis=0)
        targets = jnp.take_along_axis(sign, latest, axis=0)
        return Trial(jnp.where(pulse, sign, 0), targets, jnp.ones(self.n_steps, dtype))
