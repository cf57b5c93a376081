"""Flip-flop tasks: remember the last pulse on each input, without and with noise."""

from __future__ import annotations

from pydantic import Field

from ctd.late import Array, jax, jnp, lax
from ctd.tasks.scores import every_near
from ctd.tasks.task import Task, Trial


class Bits(Task):
    """The base of tasks that remember k bits, each with its own input and output."""

    n_bits: int = Field(3, gt=0, description="bits k, each with its input and its output")

    @property
    def n_in(self) -> int:
        return self.n_bits

    @property
    def n_out(self) -> int:
        return self.n_bits


class FlipFlop(Bits):
    """Remember k bits: output i is the sign of the last pulse on input i (Sussillo & Barak 2013).

    Pulses of +1 or -1 last one step and are independent. Every trial begins with a pulse on each channel, so
    that the targets are defined from the first step on.

    >>> trial = FlipFlop(n_bits=2, n_steps=8).trial(jax.random.key(0), "float32")
    >>> trial.inputs.shape, bool((trial.inputs[0] == trial.targets[0]).all())
    ((8, 2), True)
    """

    name = "flipflop"

    n_steps: int = Field(50, gt=0, description="steps of a trial")
    p_pulse: float = Field(0.1, gt=0, le=1, description="probability of a pulse, per step and bit")

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_time, key_sign = jax.random.split(key)
        shape = (self.n_steps, self.n_bits)
        pulse = jax.random.bernoulli(key_time, self.p_pulse, shape).at[0].set(True)
        # A sign for every step, used or not: signs stay the same when p_pulse changes.
        sign = jax.random.rademacher(key_sign, shape, dtype)
        steps = jnp.arange(self.n_steps)[:, None]
        # The running maximum of pulse times is the time of the latest pulse.
        latest = lax.cummax(jnp.where(pulse, steps, 0), axis=0)
        targets = jnp.take_along_axis(sign, latest, axis=0)
        return Trial(jnp.where(pulse, sign, 0), targets, jnp.ones(self.n_steps, dtype))

    def success(self, trial: Trial, output: Array) -> Array:
        """True if every output is nearer to its bit, +1 or -1, than to the other value, at every step."""
        # +1 and -1 are 2 apart: less than 1 from one of them is nearer to it.
        return every_near(trial, output, 1.0)


class NBitFlipFlop(Bits):
    """Remember k bits with noise on the inputs: the flip-flop of CtDBenchmark (`NBitFlipFlop`).

    A pulse of +1 sets a bit to 1, a pulse of -1 to 0. Each comes with probability `p_pulse` per step from the fourth
    step on; bits begin as 0. Inputs carry noise N(0, noise^2). The loss leaves out the first five steps, and for each
    output the `blind` steps after a change of its bit.

    >>> trial = NBitFlipFlop(n_steps=20, p_pulse=0.2).trial(jax.random.key(0), "float32")
    >>> trial.mask.shape, float(trial.mask[:5].sum())
    ((20, 3), 0.0)
    """

    name = "nbff"

    n_steps: int = Field(500, gt=5, description="steps of a trial")
    p_pulse: float = Field(
        0.01, gt=0, le=0.5, description="probability of a pulse of one sign, per step and bit"
    )
    noise: float = Field(0.15, ge=0, description="standard deviation of the noise on the inputs")
    blind: int = Field(4, ge=0, description="steps after a change that do not count")

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_pulse, key_noise = jax.random.split(key)
        shape = (self.n_steps, self.n_bits)
        # One number decides on both pulses, so that they exclude each other.
        uniforms = jax.random.uniform(key_pulse, shape, dtype)
        steps = jnp.arange(self.n_steps)[:, None]
        sign = jnp.where(uniforms < self.p_pulse, -1, jnp.where(uniforms > 1 - self.p_pulse, 1, 0))
        pulse = jnp.where(steps < 3, 0, sign)
        latest = lax.cummax(jnp.where(pulse != 0, steps, 0), axis=0)
        # Before the first pulse `latest` is step 0, which has none: bits begin as 0.
        targets = (jnp.take_along_axis(pulse, latest, axis=0) > 0).astype(dtype)
        changed = jnp.diff(targets, axis=0, prepend=0) != 0
        counts = steps >= 5
        # The step of the change itself counts: the mask begins one step later.
        for later in range(1, self.blind + 1):
            counts &= ~jnp.pad(changed, ((later, 0), (0, 0)))[: self.n_steps]
        inputs = pulse + self.noise * jax.random.normal(key_noise, shape, dtype)
        return Trial(inputs, targets, counts.astype(dtype))

    def success(self, trial: Trial, output: Array) -> Array:
        """True if every output is nearer to its bit, 0 or 1, than to the other value, at every step that counts."""
        # 0 and 1 are 1 apart.
        return every_near(trial, output, 0.5)
