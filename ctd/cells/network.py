"""Networks of any cell: their states and outputs in a trial, and whether their weights fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ctd.cells.cell import READOUT_AXES, Cell, Weights
from ctd.cells.names import CELLS, get_cell
from ctd.late import jax, jnp, lax


class Sizes(NamedTuple):
    """The numbers of a network's units, inputs and outputs."""

    n: int
    n_in: int
    n_out: int
    """0 where it has no readout."""


def readout(cell: Cell, params: Weights, h: jax.Array) -> jax.Array:
    """z = wO hidden(h) + bO of one state (state,), (n_out,); length 0 for a network without readout."""
    if "wO" not in params:
        return jnp.zeros(0, h.dtype)
    return params["wO"] @ cell.hidden(h) + params["bO"]


def initial_state(cell: Cell, params: Weights, dtype: Any) -> jax.Array:
    """(state,) the network's h0, or zeros of `dtype` where it has none."""
    if "h0" in params:
        return jnp.asarray(params["h0"])
    n, _ = cell.infer(params)
    return jnp.zeros(cell.state_size(n), dtype)


def run(
    cell: Cell, params: Weights, inputs: jax.Array, h0: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """One trial: h_t = F(h_{t-1}, x_t), z_t = readout(h_t).

    Args:
        inputs: (time, n_in).
        h0: (state,) the state before the first step; None: the network's h0.

    Returns:
        states (time, state) and outputs (time, n_out).

    >>> cell = get_cell("gru")
    >>> weights = cell.init(jax.random.key(0), n=8, n_in=3, n_out=2)
    >>> states, outputs = run(cell, weights, jnp.zeros((20, 3)))
    >>> states.shape, outputs.shape
    ((20, 8), (20, 2))
    """
    if h0 is None:
        h0 = initial_state(cell, params, inputs.dtype)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = cell.step(params, h, x)
        return h, h

    _, states = lax.scan(step, h0, inputs)
    return states, jax.vmap(lambda h: readout(cell, params, h))(states)


def sizes(cell_name: str, params: Mapping[str, Any]) -> Sizes:
    """The sizes of a network with these weights."""
    n, n_in = get_cell(cell_name).infer(params)
    return Sizes(n, n_in, params["wO"].shape[0] if "wO" in params else 0)


def check_params(cell_name: str, params: Mapping[str, Any], where: str) -> None:
    """Check that `params` are finite real weights of this cell, with shapes that fit each other.

    Raises ValueError, naming `where` and the weight.
    """
    cell = get_cell(cell_name)
    own = set(cell.axes) - set(READOUT_AXES)
    missing = own - set(params)
    if "wO" in params or "bO" in params:
        missing |= {"wO", "bO"} - set(params)
    extra = set(params) - set(cell.axes)
    if missing or extra:
        found = f"{', '.join(sorted(params)) or 'nothing'}"
        fits = [
            c.name for c in CELLS.values() if set(params) - set(READOUT_AXES) == set(c.shapes(1, 1))
        ]
        hint = f"; these are the weights of cell {' or '.join(fits)}" if fits else ""
        wrong = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"does not know {', '.join(sorted(extra))}"] if extra else []
        raise ValueError(f"{where}: cell {cell_name} {' and '.join(wrong)}; found {found}{hint}")
    for name, axes in cell.axes.items():
        if name in params and np.ndim(params[name]) != len(axes):
            raise ValueError(
                f"{where}: {name} has the shape {np.shape(params[name])}, but cell {cell_name} "
                f"needs {len(axes)} axes ({', '.join(axes) or 'a number'})"
            )
    shapes = _expected(cell, params)
    for name, value in params.items():
        if np.shape(value) != shapes[name]:
            _tell_transposed(cell, params, where)
            n, n_in, _ = sizes(cell_name, params)
            raise ValueError(
                f"{where}: {name} has the shape {np.shape(value)}, but cell {cell_name} with "
                f"n = {n} units and {n_in} inputs needs {shapes[name]}"
            )
        check_real(value, f"{where}: {name}")


def _expected(cell: Cell, params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Weight -> the shape that the sizes of the network call for."""
    n, _, n_out = sizes(cell.name, params)
    readout = {"wO": (n_out, n), "bO": (n_out,), "h0": (cell.state_size(n),)}
    return cell.shapes_of(params) | readout


def _tell_transposed(cell: Cell, params: Mapping[str, Any], where: str) -> None:
    """Raise ValueError where all shapes fit once one matrix, or every one, is transposed."""
    matrices = [name for name in cell.axes if np.ndim(params.get(name, 0)) == 2]
    for turned in (*([name] for name in matrices), matrices):
        others = {**params, **{name: np.transpose(params[name]) for name in turned}}
        expected = _expected(cell, others)
        if all(np.shape(value) == expected[name] for name, value in others.items()):
            told = [
                f"{name} {np.shape(params[name])}, {expected[name]} expected" for name in turned
            ]
            raise ValueError(f"{where}: cell {cell.name}: transposed: {'; '.join(told)}")


def check_real(value: Any, what: str) -> None:
    """Raise ValueError, which begins with `what`, where an array holds other than finite real numbers."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.floating):
        raise ValueError(f"{what} has the type {value.dtype}, not a real one")
    bad = ~np.isfinite(value)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{what} has {int(bad.sum())} NaN or infinite entries, the first at {first}"
        )
