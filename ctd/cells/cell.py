"""What a cell is: one step of a network's state, its weights, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ctd.late import Array, Float, Number, jax, jnp

type Weights = Mapping[str, Array]
"""Name -> array, the weights of one network."""

READOUT_AXES = {"wO": ("output", "unit"), "bO": ("output",), "h0": ("state",)}
"""The weights that a network of any cell may have besides its own, and their axes."""
H0_SCALE = 0.1
"""Standard deviation of the entries of a random initial state: small, so that tanh units start in their linear range."""


class Scales(NamedTuple):
    """g of random weights N(0, g^2 / fan-in), for recurrent and for input weights.

    With g = 1 a product keeps the variance of its input. Recurrent g above 1 makes a random tanh network chaotic
    (Sompolinsky, Crisanti & Sommers 1988). Both may be traced numbers.
    """

    recurrent: Number = 1.0
    input: Number = 1.0


UNIT = Scales()


class Pieces(NamedTuple):
    """The linear regions of a piecewise linear cell, F(h) = J h + b in each, by what its kinks do there."""

    base: int
    """A kink has this many linear pieces, numbered by digits from 0."""
    count: Callable[[Weights], int]
    """Weights -> the number of kinks."""
    affine: Callable[[Weights, Array, Array], tuple[Array, Array]]
    """(weights, digits (kink,) int, input (n_in,)) -> (J (state, state), b (state,))."""


class Cell(NamedTuple):
    """A recurrent cell: the map h -> F(h, x) of one network's state, and what its weights look like.

    >>> from ctd.cells import get_cell
    >>> cell = get_cell("lstm")
    >>> cell.shapes(8, 3)["weight_hh"]  # 8 units, 3 inputs; four gates
    (32, 8)
    >>> cell.state_size(8)  # the hidden vector, then the memory cells
    16
    """

    name: str
    step: Callable[[Weights, Array, Array], Array]
    """(weights, state (state,), input (n_in,)) -> F, the next state (state,) of one example."""
    shapes: Callable[..., dict[str, tuple[int, ...]]]
    """(n, n_in) -> the shape of each of the cell's own weights; readout and h0 are left out."""
    axes: Mapping[str, tuple[str, ...]]
    """Weight -> the names of its axes; readout and h0 are included."""
    infer: Callable[[Weights], tuple[int, int]]
    """Weights -> (n, n_in)."""
    draw: Callable[..., dict[str, Array]]
    """(key, n, n_in, scales, dtype) -> random weights of the cell, without readout and h0."""
    n_vectors: int = 1
    """The state consists of this many vectors of length n."""
    hidden: Callable[[Array], Array] = lambda h: h
    """State (state,) -> what the readout sees, (n,)."""
    constants: tuple[str, ...] = ()
    """Weights that training does not change."""
    flow: Callable[[Weights, Array, Array], Array] | None = None
    """For a cell in continuous time, (weights, state, input) -> dh/dt, of which `step` integrates one unit of time; None
    for a map."""
    further: Callable[[Weights], tuple[int, ...]] = lambda w: ()
    """Weights -> the sizes that `shapes` takes after n and n_in."""
    pieces: Pieces | None = None
    """The linear regions of a piecewise linear cell, whose fixed points are known exactly; None for others."""

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
        dtype: jax.typing.DTypeLike = "float32",
    ) -> dict[str, Array]:
        """Draw weights N(0, g^2 / fan-in) of n units with n_in inputs and n_out outputs.

        g is that of `scales`, and 1 for the readout. Biases are 0, except that the bias of the LSTM's forget gate is
        1. The entries of h0 are N(0, 0.1^2).

        >>> from ctd.cells import get_cell
        >>> weights = get_cell("vanilla").init(jax.random.key(0), n=8, n_in=3, n_out=2)
        >>> {name: w.shape for name, w in weights.items()}
        {'wI': (8, 3), 'wR': (8, 8), 'bR': (8,), 'wO': (2, 8), 'bO': (2,), 'h0': (8,)}
        """
        # Keys are split in a fixed order: the readout's size does not change the other weights.
        key_cell, key_out, key_state = jax.random.split(key, 3)
        weights = self.draw(key_cell, n, n_in, scales, dtype)
        return weights | {
            "wO": normal(key_out, (n_out, n), 1.0, dtype),
            "bO": jnp.zeros(n_out, dtype),
            "h0": H0_SCALE * jax.random.normal(key_state, (self.state_size(n),), dtype),
        }


def normal(
    key: jax.Array, shape: tuple[int, int], scale: Number, dtype: jax.typing.DTypeLike
) -> Float[Array, "row fan_in"]:
    """Draw a matrix of the shape (rows, fan-in) with entries N(0, scale^2 / fan-in).

    >>> w = normal(jax.random.key(0), (100, 400), 2.0, "float32")
    >>> print(f"{w.std():.2f}")  # 2 / sqrt(400)
    0.10
    """
    # A network without inputs has a matrix without columns.
    factor: jax.Array = jnp.asarray(scale, dtype) * max(shape[1], 1) ** -0.5
    return factor * jax.random.normal(key, shape, dtype)
