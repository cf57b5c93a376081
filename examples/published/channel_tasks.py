"""Task: one to many independent channels of memory, of sine waves or of path integration; what Huang et al. 2025 vary as complexity."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from ctd.tasks import FlipFlop, Task, Trial


class Channels(Task):
    """A task of k channels, each with an input and an output of its own.

    flipflop: the sign of the last pulse. sines: sin(w t), where a constant input names w, .1 to .3 rad a step. paths: the position
    along a dimension, the sum of velocities, which change slowly.
    """

    kind: Literal["flipflop", "sines", "paths"] = "flipflop"
    channels: int = Field(3, gt=0, description="channels k")
    gain: float = Field(
        1.0,
        gt=0,
        description="factor of the targets: a larger one takes weights further from where they start",
    )
    n_steps: int = Field(40, gt=1, description="steps of a trial")

    name: ClassVar[str] = ""

    @property
    def n_in(self) -> int:
        return self.channels

    @property
    def n_out(self) -> int:
        return self.channels

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        shape, steps = (self.n_steps, self.channels), jnp.arange(1, self.n_steps + 1)[:, None]
        if self.kind == "flipflop":
            inputs, targets, *_ = FlipFlop(n_bits=self.channels, n_steps=self.n_steps).trial(
                key, dtype
            )
        elif self.kind == "sines":
            x = jax.random.uniform(key, (self.channels,), dtype)
            inputs, targets = jnp.broadcast_to(0.25 + x, shape), jnp.sin((0.1 + 0.2 * x) * steps)
        else:
            # Velocities of standard deviation 1 that are forgotten over 5 steps.
            xi = jax.random.normal(key, shape, dtype)
            slower = lambda v, e: (0.8 * v + 0.6 * e,) * 2
            _, inputs = jax.lax.scan(slower, xi[0], xi)
            targets = 0.1 * jnp.cumsum(inputs, axis=0)
        return Trial(inputs, self.gain * targets.astype(dtype), jnp.ones(self.n_steps, dtype))
