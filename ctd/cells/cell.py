"""A cell: one step of a network's state, its weights, and random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

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
    """The linear regions of a piecewise linear cell: in each, every kink is on one of its pieces, and F(h) = J h + b."""

    base: int
    """A kink has this many pieces; a region has a digit for each kink, the number of its piece."""
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
    cell_axes: Mapping[str, tuple[str, ...]]
    """Each weight of the cell's own -> the names of its axes; `shapes` knows their lengths."""
    starts: Callable[[int], Mapping[str, ArrayLike]] = lambda n: {}
    """n -> the biases and time constants of random weights that do not start at 0."""
    draw_custom: Callable[..., dict[str, Array]] | None = None
    """(key, n, n_in, scales, dtype) -> random weights of a cell whose matrices are not all normal."""
    n_gates: int = 1
    """Blocks of n rows along the axis gate_unit."""
    n_hidden: int = 0
    """Length of the axes hidden and field_unit of random weights."""
    n_vectors: int = 1
    """The state consists of this many vectors of length n."""
    hidden: Callable[[Array], Array] = lambda h: h
    """State (state,) -> what the readout sees, (n,)."""
    constants: tuple[str, ...] = ()
    """Weights that training does not change."""
    flow: Callable[[Weights, Array, Array], Array] | None = None
    """For a cell in continuous time, (weights, state, input) -> dh/dt, of which `step` integrates one unit of time; None
    for a map."""
    most: float = np.inf
    """No step leads from |h_i| up to this to a larger one, and fixed points lie within."""
    pieces: Pieces | None = None
    """The linear regions of a piecewise linear cell, whose fixed points are known exactly; None for others."""

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Every weight that a network of this cell may have -> the names of its axes."""
        return {**self.cell_axes, **READOUT_AXES}

    def state_size(self, n: int) -> int:
        """Compute the length of the state: n for most cells, 2 n for one with memory cells.

        Args:
            n: number of units.

        Returns:
            `n_vectors` times n.
        """
        return self.n_vectors * n

    def shapes(self, n: int, n_in: int, n_hidden: int | None = None) -> dict[str, tuple[int, ...]]:
        """Compute the shape of each weight of the cell itself, without readout and h0.

        Args:
            n: number of units.
            n_in: number of inputs.
            n_hidden: number of hidden units, for cells that have them; None takes the cell's default.

        Returns:
            Name -> shape.
        """
        n_hidden = self.n_hidden if n_hidden is None else n_hidden
        lengths = {
            "unit": n,
            "unit_from": n,
            "input": n_in,
            "unit_and_input": n + n_in,
            "reset_update": 2 * n,
            "gate_unit": self.n_gates * n,
            "hidden": n_hidden,
            "field_unit": n_hidden,
        }
        return {
            name: tuple(lengths[axis] for axis in axes) for name, axes in self.cell_axes.items()
        }

    def infer(self, weights: Weights) -> tuple[int, int]:
        """Read the numbers of units and inputs off the shapes of the weights.

        Args:
            weights: name -> array, with all weights of the cell.

        Returns:
            (n, n_in).
        """
        lengths = self._lengths(weights)
        n = lengths["unit"]
        return n, lengths["input"] if "input" in lengths else lengths["unit_and_input"] - n

    def shapes_of(self, weights: Weights) -> dict[str, tuple[int, ...]]:
        """Compute the shapes with which the weights of the cell fit the first ones.

        Args:
            weights: name -> array, with all weights of the cell.

        Returns:
            Name -> the shape that this weight needs.
        """
        lengths = self._lengths(weights)
        return self.shapes(*self.infer(weights), lengths.get("hidden", lengths.get("field_unit")))

    def _lengths(self, weights: Weights) -> dict[str, int]:
        """Axis -> its length in the first weight that has it."""
        lengths: dict[str, int] = {}
        for name, axes in self.cell_axes.items():
            for axis, length in zip(axes, np.shape(weights[name]), strict=True):
                lengths.setdefault(axis, length)
        return lengths

    def draw(
        self, key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
    ) -> dict[str, Array]:
        """Draw weights N(0, g^2 / fan-in) as `init` does, without readout and h0.

        Args:
            key: random key.
            n: number of units.
            n_in: number of inputs.
            scales: g of recurrent and of input weights.
            dtype: floating type of the weights.

        Returns:
            Name -> array, of the shapes of `shapes(n, n_in)`.
        """
        if self.draw_custom is not None:
            return self.draw_custom(key, n, n_in, scales, dtype)
        weights = {name: jnp.zeros(w, dtype) for name, w in self.shapes(n, n_in).items()}
        # A matrix that takes state and input side by side has a block of columns for each, with its own fan-in and g.
        state, inputs = (n, scales.recurrent), (n_in, scales.input)
        joined = {
            "unit": [state],
            "unit_from": [state],
            "input": [inputs],
            "unit_and_input": [state, inputs],
        }
        blocks = {
            name: joined.get(axes[1], [(weights[name].shape[1], 1.0)])
            for name, axes in self.cell_axes.items()
            if len(axes) == 2
        }
        keys = iter(jax.random.split(key, sum(map(len, blocks.values()))))
        for name, parts in blocks.items():
            rows = len(weights[name])
            columns = [normal(next(keys), (rows, fan_in), g, dtype) for fan_in, g in parts]
            weights[name] = jnp.concatenate(columns, axis=1)
        return weights | {name: jnp.asarray(w, dtype) for name, w in self.starts(n).items()}

    def init(
        self,
        key: jax.Array,
        n: int,
        n_in: int,
        n_out: int,
        scales: Scales = UNIT,
        dtype: jax.typing.DTypeLike = "float32",
    ) -> dict[str, Array]:
        """Draw weights N(0, g^2 / fan-in) of a network, with g = 1 for the readout.

        Biases are 0, except that the bias of the LSTM's forget gate is 1. The entries of h0 are N(0, 0.1^2). Piecewise linear cells have
        matrices of their own papers.

        >>> from ctd.cells import get_cell
        >>> weights = get_cell("vanilla").init(jax.random.key(0), n=8, n_in=3, n_out=2)
        >>> {name: w.shape for name, w in weights.items()}
        {'wI': (8, 3), 'wR': (8, 8), 'bR': (8,), 'wO': (2, 8), 'bO': (2,), 'h0': (8,)}

        Args:
            key: random key.
            n: number of units.
            n_in: number of inputs.
            n_out: number of outputs. It does not change the other weights.
            scales: g of recurrent and of input weights.
            dtype: floating type of the weights.

        Returns:
            Name -> array: the weights of the cell, wO (n_out, n), bO (n_out,) and h0 (state,).
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
