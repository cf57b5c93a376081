"""What a cell is: one step of a network's state, its weights, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ctd.late import jax, jnp

type Weights = Mapping[str, jax.Array]

READOUT_AXES = {"wO": ("output", "unit"), "bO": ("output",), "h0": ("state",)}
H0_SCALE = 0.1
"""Standard deviation of the entries of a random initial state."""


class Scales(NamedTuple):
    """g of random weights N(0, g^2 / fan-in); may be traced numbers."""

    recurrent: Any = 1.0
    input: Any = 1.0


UNIT = Scales()


class Cell(NamedTuple):
    """A recurrent cell."""

    name: str
    step: Callable[[Weights, jax.Array, jax.Array], jax.Array]
    """F(weights, state, input): the next state of one example."""
    shapes: Callable[..., dict[str, tuple[int, ...]]]
    """(n, n_in) -> shape of every weight of the cell, without the readout and h0."""
    axes: Mapping[str, tuple[str, ...]]
    """Weight -> names of its axes, the readout and h0 included."""
    infer: Callable[[Weights], tuple[int, int]]
    """Weights -> (n, n_in)."""
    draw: Callable[..., dict[str, jax.Array]]
    """(key, n, n_in, scales, dtype) -> random weights of the cell."""
    n_vectors: int = 1
    """The state consists of this many vectors of length n."""
    hidden: Callable[[jax.Array], jax.Array] = lambda h: h
    """State -> what the readout sees."""
    constants: tuple[str, ...] = ()
    """Weights that training does not change."""
    flow: Callable[[Weights, jax.Array, jax.Array], jax.Array] | None = None
    """dh/dt(weights, state, input) of a cell in continuous time, of which `step` is one unit of time; None: a map."""
    further: Callable[[Weights], tuple[int, ...]] = lambda w: ()
    """Weights -> sizes beyond n and n_in, which `shapes` takes after these."""

    def state_size(self, n: int) -> int:
        """The length of the state of n units."""
        return self.n_vectors * n

    def shapes_of(self, weights: Weights) -> dict[str, tuple[int, ...]]:
        """Weight -> the shape that fits the sizes of these weights."""
        return self.shapes(*self.infer(weights), *self.further(weights))

    def init(
        self,
        key: jax.Array,
        n: int,
        n_in: int,
        n_out: int,
        scales: Scales = UNIT,
        dtype: Any = "float32",
    ) -> dict[str, jax.Array]:
        """Random weights N(0, g^2 / fan-in); g is that of `scales` or, for the readout, 1.

        Biases are 0, except that of the LSTM's forget gate, which is 1; entries of h0 are N(0, 0.1^2).
        """
        key_cell, key_out, key_state = jax.random.split(key, 3)
        weights = self.draw(key_cell, n, n_in, scales, dtype)
        return weights | {
            "wO": normal(key_out, (n_out, n), 1.0, dtype),
            "bO": jnp.zeros(n_out, dtype),
            "h0": H0_SCALE * jax.random.normal(key_state, (self.state_size(n),), dtype),
        }


def normal(key: jax.Array, shape: tuple[int, int], scale: Any, dtype: Any) -> jax.Array:
    """(rows, fan-in) entries of N(0, scale^2 / fan-in)."""
    factor: jax.Array = jnp.asarray(scale, dtype) * shape[1] ** -0.5
    return factor * jax.random.normal(key, shape, dtype)
