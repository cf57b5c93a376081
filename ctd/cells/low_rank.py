"""Recurrent weights of low rank."""

from __future__ import annotations

from typing import NamedTuple

from ctd.late import jax


class LowRank(NamedTuple):
    """wR = m n' / N, the weights of N units of rank r (Mastrogiuseppe & Ostojic 2018): a product takes 2 N r steps."""

    m: jax.Array
    """(N, r) where the recurrent input points."""
    n: jax.Array
    """(N, r) what it is selected by."""

    def __matmul__(self, rates: jax.Array) -> jax.Array:
        return self.m @ (self.n.T @ rates / self.m.shape[0])

    def dense(self) -> jax.Array:
        """(N, N) the same weights, entry by entry."""
        return self.m @ self.n.T / self.m.shape[0]
