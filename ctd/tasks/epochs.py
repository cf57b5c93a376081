"""Tasks made of epochs, whose durations are given in ms: fixation, stimulus, delay, response."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from ctd.late import jax, jnp
from ctd.tasks.task import Task


class Timed(Task):
    """A task whose trials consist of epochs. Trials shorter than the arrays end early: their mask is 0 from there."""

    n_steps: int = Field(
        0, ge=0, description="steps of the arrays of a trial; 0: those of the longest trial"
    )
    dt: float = Field(20.0, gt=0, description="length of a step (ms)")

    @property
    @abstractmethod
    def longest(self) -> int:
        """Steps of the longest trial."""

    @property
    def time_step(self) -> tuple[float, str]:
        """dt, in ms."""
        return self.dt, "ms"

    @property
    def length(self) -> int:
        return self.n_steps or self.longest

    def steps(self, ms: float) -> int:
        """Whole steps in a duration (ms)."""
        # 300 / 0.1 is 2999.999...: a duration that is a multiple of dt must not lose a step.
        return int(ms / self.dt + 1e-6)

    @model_validator(mode="after")
    def _fits(self) -> Timed:
        if self.longest == 0:
            raise ValueError(f"dt: {self.dt:g} ms is longer than every epoch; give a smaller one")
        if self.length < self.longest:
            raise ValueError(
                f"n_steps: {self.n_steps} steps cannot hold epochs of up to {self.longest} steps "
                f"({self.longest * self.dt:g} ms at dt = {self.dt:g}); leave n_steps out, or shorten the epochs"
            )
        return self


def among(u: jax.Array, values: Sequence[float], dtype: Any = None) -> jax.Array:
    """One of the values, by a uniform number u in [0, 1)."""
    at = jnp.minimum((u * len(values)).astype(int), len(values) - 1)
    return jnp.asarray(values, dtype)[at]
