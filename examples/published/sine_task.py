"""Task: generate a sine wave whose frequency a constant input names (Sussillo & Barak 2013)."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from pydantic import Field

from ctd.tasks import Task, Trial


class Sines(Task):
    """Frequency j of k, from `slowest` to `fastest`, for the constant input (j + 1) / k + .25; the target is sin(w t)."""

    n_steps: int = Field(100, gt=0, description="steps of a trial")
    k: int = Field(51, gt=1, description="frequencies")
    slowest: float = Field(0.1, gt=0, description="lowest frequency (rad a step)")
    fastest: float = Field(0.5, gt=0, description="highest frequency (rad a step)")

    n_in: ClassVar[int] = 1
    n_out: ClassVar[int] = 1

    def frequency(self, x: Any) -> Any:
        """The frequency (rad a step) that an input names."""
        share = ((x - 0.25) * self.k - 1) / (self.k - 1)
        return self.slowest + (self.fastest - self.slowest) * share

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        x = (jax.random.randint(key, (), 0, self.k) + 1) / self.k + 0.25
        steps = jnp.arange(1, self.n_steps + 1)
        targets = jnp.sin(self.frequency(x) * steps)[:, None].astype(dtype)
        inputs = jnp.full((self.n_steps, 1), x, dtype)
        return Trial(inputs, targets, jnp.ones(self.n_steps, dtype))
