"""Networks of any cell: states and outputs of a trial, and checks that weights fit their cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.cells.cell import READOUT_AXES, Cell, Weights
from ctd.cells.names import CELLS, get_cell
from ctd.containers import check_numbers
from ctd.late import Array, Float, jax, jnp, lax, on_host
from ctd.words import count


class Sizes(NamedTuple):
    """The numbers of a network's units, inputs and outputs."""

    n: int
    n_in: int
    n_out: int
    """0 for a network without readout."""


def readout(cell: Cell, params: Weights, h: Float[Array, "state"]) -> Float[Array, "n_out"]:
    """z = wO hidden(h) + bO, the output of one state.

    >>> cell = get_cell("vanilla")
    >>> weights = cell.init(jax.random.key(0), n=8, n_in=3, n_out=2)
    >>> readout(cell, weights, jnp.zeros(8))  # biases start at 0
    Array([0., 0.], dtype=float32)

    Args:
        cell: the cell, which knows the part `hidden` of its state.
        params: weights of the network.
        h: one state, (state,).

    Returns:
        z (n_out,), of length 0 for a network without readout.
    """
    if "wO" not in params:
        return jnp.zeros(0, h.dtype)
    return params["wO"] @ cell.hidden(h) + params["bO"]


def as_weights(
    arrays: Mapping[str, ArrayLike], dtype: jax.typing.DTypeLike | None = None
) -> dict[str, Array]:
    """Make NumPy arrays of weights.

    >>> as_weights({"bR": [0, 1]}, "float32")["bR"]
    array([0., 1.], dtype=float32)

    Args:
        arrays: name -> array of NumPy or JAX, or nested lists.
        dtype: type of the results; None keeps that of each array.

    Returns:
        Name -> array in the memory of the host.
    """
    return {name: on_host(value, dtype) for name, value in arrays.items()}


def initial_state(
    cell: Cell, params: Weights, dtype: jax.typing.DTypeLike
) -> Float[Array, "state"]:
    """h0, the state before the first step; zeros for a network without one.

    >>> weights = get_cell("lstm").init(jax.random.key(0), n=2, n_in=1, n_out=1)
    >>> initial_state(get_cell("lstm"), {k: w for k, w in weights.items() if k != "h0"}, "float32")
    Array([0., 0., 0., 0.], dtype=float32)

    Args:
        cell: the cell, which knows the length of the state.
        params: weights of the network.
        dtype: floating type of the zeros.

    Returns:
        (state,) array.
    """
    if "h0" in params:
        return jnp.asarray(params["h0"])
    n, _ = cell.infer(params)
    return jnp.zeros(cell.state_size(n), dtype)


def run(
    cell: Cell,
    params: Weights,
    inputs: Float[Array, "time n_in"],
    h0: Float[Array, "state"] | None = None,
) -> tuple[Float[Array, "time state"], Float[Array, "time n_out"]]:
    """Run one trial: h_t = F(h_{t-1}, x_t), z_t = readout(h_t). vmap over `inputs` runs a batch of trials.

    >>> cell = get_cell("gru")
    >>> weights = cell.init(jax.random.key(0), n=8, n_in=3, n_out=2)
    >>> states, outputs = run(cell, weights, jnp.zeros((20, 3)))
    >>> states.shape, outputs.shape
    ((20, 8), (20, 2))

    Args:
        cell: the cell, whose `step` is F.
        params: weights of the network.
        inputs: (time, n_in), of the dtype of the weights.
        h0: (state,) the state before the first step; None takes that of the network.

    Returns:
        States (time, state) and outputs (time, n_out), both after each step.
    """
    if h0 is None:
        h0 = initial_state(cell, params, inputs.dtype)

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = cell.step(params, h, x)
        return h, h

    # The readout is applied after the scan, to all steps at once: one large product.
    _, states = lax.scan(step, h0, inputs)
    return states, jax.vmap(lambda h: readout(cell, params, h))(states)


def sizes(cell_name: str, params: Mapping[str, Any]) -> Sizes:
    """Read the numbers of units, inputs and outputs off the shapes of a network's weights.

    >>> sizes("gru", get_cell("gru").init(jax.random.key(0), n=8, n_in=3, n_out=2))
    Sizes(n=8, n_in=3, n_out=2)

    Args:
        cell_name: name of the cell.
        params: weights that fit the cell (see `check_params`).

    Returns:
        Sizes(n, n_in, n_out), with n_out = 0 for a network without readout.

    Raises:
        ValueError: there is no such cell.
    """
    n, n_in = get_cell(cell_name).infer(params)
    return Sizes(n, n_in, params["wO"].shape[0] if "wO" in params else 0)


def cells_with(weights: Mapping[str, Any]) -> list[str]:
    """Find the cells that have weights of exactly these names, and as many gates.

    >>> cells_with(get_cell("lstm").init(jax.random.key(0), n=8, n_in=3, n_out=2))
    ['lstm']

    Args:
        weights: name -> array; wO, bO and h0 do not count.

    Returns:
        Names of the cells; several have the same names.
    """
    names, shape = weights.keys() - READOUT_AXES.keys(), np.shape(weights.get("weight_hh", ()))
    # gru_torch and lstm share all their names: weight_hh (3 n, n) or (4 n, n) tells them apart.
    fits = lambda cell: len(shape) != 2 or shape[0] == cell.n_gates * shape[1]
    return [c.name for c in CELLS.values() if names == c.cell_axes.keys() and fits(c)]


def check_params(cell_name: str, params: Mapping[str, Any], source: str) -> None:
    """Check that arrays are finite real weights of a cell, with shapes that fit each other.

    >>> check_params("vanilla", {"wR": np.eye(2), "wI": np.ones((2, 1))}, "net.h5")
    Traceback (most recent call last):
    ValueError: net.h5: cell vanilla lacks bR; found wI, wR

    Args:
        cell_name: name of the cell.
        params: name -> array.
        source: beginning of the error, such as the name of a file.

    Raises:
        ValueError: a weight is missing, unknown to the cell, transposed, of another shape, not real, not finite, or a constant out
            of its range. The text names the weight.
    """
    cell = get_cell(cell_name)
    # h0 may be missing, and a readout too, but not half a readout.
    missing = cell.cell_axes.keys() - params.keys()
    if "wO" in params or "bO" in params:
        missing |= {"wO", "bO"} - params.keys()
    extra = params.keys() - cell.axes.keys()
    if missing or extra:
        wrong = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"does not know {', '.join(sorted(extra))}"] if extra else []
        weight_names = ", ".join(sorted(params)) or "nothing"
        fits = " or ".join(cells_with(params))
        hint = f"; these are the weights of cell {fits}" if fits else ""
        raise ValueError(
            f"{source}: cell {cell_name} {' and '.join(wrong)}; found {weight_names}{hint}"
        )
    for name, axes in cell.axes.items():
        if name in params and np.ndim(params[name]) != len(axes):
            raise ValueError(
                f"{source}: {name} has the shape {np.shape(params[name])}, but cell {cell_name} "
                f"needs {len(axes)} axes ({', '.join(axes) or 'a number'})"
            )
    # Numbers of axes are right from here on, so that sizes can be read off the shapes.
    shapes = _expected(cell, params)
    for name, value in params.items():
        if np.shape(value) != shapes[name]:
            _raise_if_transposed(cell, params, source)
            n, n_in, _ = sizes(cell_name, params)
            raise ValueError(
                f"{source}: {name} has the shape {np.shape(value)}, but cell {cell_name} with "
                f"n = {n} units and {count(n_in, 'input')} needs {shapes[name]}"
            )
        check_real(value, f"{source}: {name}")
        _check_range(name, np.asarray(value), source)


def _check_range(name: str, value: np.ndarray, source: str) -> None:
    """Raise ValueError if a constant of a cell is none: dt / tau beyond (0, 1], or `rectified` other than 0 and 1."""
    if name in ("alpha", "alphas") and not ((value > 0) & (value <= 1)).all():
        raise ValueError(f"{source}: {name} has values outside of (0, 1]; it is dt / tau")
    if name == "rectified" and not np.isin(value, (0, 1)).all():
        raise ValueError(f"{source}: rectified has other values than 0 and 1")


def _expected(cell: Cell, params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Weight -> the shape that fits the others."""
    n, _, n_out = sizes(cell.name, params)
    readout = {"wO": (n_out, n), "bO": (n_out,), "h0": (cell.state_size(n),)}
    return cell.shapes_of(params) | readout


def _raise_if_transposed(cell: Cell, params: Mapping[str, Any], source: str) -> None:
    """Raise ValueError if all shapes fit once one matrix, or every one, is transposed.

    Files of other libraries often hold x @ W where a cell has W @ x; the bare shapes would not tell the user that.
    """
    matrices = [name for name in cell.axes if np.ndim(params.get(name, 0)) == 2]
    # A square matrix fits either way, so it is found only when all are turned together.
    for turned in (*([name] for name in matrices), matrices):
        others = {**params, **{name: np.transpose(params[name]) for name in turned}}
        expected = _expected(cell, others)
        if all(np.shape(value) == expected[name] for name, value in others.items()):
            mismatches = [f"{k} {np.shape(params[k])}, {expected[k]} expected" for k in turned]
            raise ValueError(f"{source}: cell {cell.name}: transposed: {'; '.join(mismatches)}")


def check_real(value: ArrayLike, label: str) -> None:
    """Check that all entries of an array are finite floating-point numbers.

    >>> check_real([1.0, np.nan], "bO")
    Traceback (most recent call last):
    ValueError: bO has 1 NaN or infinite entries, the first at (1,)

    Args:
        value: the array.
        label: beginning of the error.

    Raises:
        ValueError: the array has another type, or NaN or infinite entries.
    """
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.floating):
        raise ValueError(f"{label} has the type {value.dtype}; floats expected")
    check_numbers(label, value)
