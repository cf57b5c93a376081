"""A readout that shows the rates of units as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctd.late import jax, jnp


@dataclass(frozen=True)
class FirstUnits:
    """wO (n_out, n) of ones on its diagonal, zeros elsewhere: the rates of the first n_out units; a product takes no step."""

    n_out: int
    n: int

    def __matmul__(self, rates: jax.Array) -> jax.Array:
        return rates[: self.n_out]

    def dense(self, dtype: Any) -> jax.Array:
        """(n_out, n) the same weights, entry by entry."""
        return jnp.eye(self.n_out, self.n, dtype=dtype)
