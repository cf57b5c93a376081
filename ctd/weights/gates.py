"""A recurrent cell in PyTorch's arrangement, whichever framework wrote it, converted to a cell of ctd and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from ctd.cells import UPDATE_BIAS
from ctd.weights.tensors import Array

type Kind = Literal["rnn", "gru", "gru_before", "lstm"]

KINDS: Mapping[int, Kind] = {1: "rnn", 3: "gru", 4: "lstm"}
"""Number of gates, each a block of n rows in the weights -> the kind of cell."""


class Gates(NamedTuple):
    """A cell of n units: a block of n rows for each gate, in the order r, z, n of a GRU and i, f, g, o of an LSTM."""

    kind: Kind
    """gru: the reset gate multiplies the recurrent product; gru_before: it multiplies h, before the product."""
    weight_ih: Array
    """(blocks n, n_in)."""
    weight_hh: Array
    """(blocks n, n)."""
    bias_ih: Array
    """(blocks n,)."""
    bias_hh: Array
    """(blocks n,)."""


class FileCell(NamedTuple):
    """The cell among a file's tensors."""

    origin: str
    """The framework, layer and place, such as "PyTorch nn.GRU, rnn."."""
    gates: Gates
    used: frozenset[str]
    """The names of its tensors."""
    units: str | None = None
    """The nonlinearity of a cell without gates, by the name of `ctd.cells.UNITS`; None if the file does not state it."""
    guess: str = ""
    """A sentence on the nonlinearities that are assumed because the file does not state them; for cells with gates."""


def check_shape(source: str, name: str, value: Array, shape: tuple[int, ...], purpose: str) -> None:
    """Raise ValueError if an array has another shape than `shape`; the error says if it is transposed."""
    if value.shape == shape:
        return
    hint = "; it is transposed" if value.ndim == 2 and value.shape[::-1] == shape else ""
    raise ValueError(
        f"{source}: {name} has the shape {value.shape}, expected {shape} for {purpose}{hint}"
    )


def check_axis(source: str, name: str, value: Array, axis: int, length: int, purpose: str) -> None:
    """Raise ValueError as `check_shape` unless an array is a matrix with this length along an axis; the other is free."""
    free = value.shape[1 - axis] if value.ndim == 2 else 0
    # Of a transposed matrix the other axis is the free one.
    if free == length:
        free = value.shape[axis]
    check_shape(source, name, value, (length, free) if axis == 0 else (free, length), purpose)


def units_and_gates(
    source: str, name: str, recurrent: Array, columns: bool = False
) -> tuple[int, int]:
    """The (units, gates) of recurrent weights, whose gates lie below each other, or side by side in `columns`.

    Raises ValueError if they are none, telling if they are transposed.
    """
    if recurrent.ndim == 2 and 0 not in recurrent.shape:
        rows, n = recurrent.shape[::-1] if columns else recurrent.shape
        if rows % n == 0 and rows // n in KINDS:
            return n, rows // n
        if n % rows == 0 and n // rows in KINDS:
            turned = recurrent.shape[::-1]
            raise ValueError(
                f"{source}: {name} has the shape {recurrent.shape}; it is transposed: {turned} expected"
            )
    gru, lstm = ("(n, 3 n)", "(n, 4 n)") if columns else ("(3 n, n)", "(4 n, n)")
    raise ValueError(
        f"{source}: {name} has the shape {recurrent.shape}, but n units need (n, n), in a GRU {gru}, in an LSTM {lstm}"
    )


def to_cell(gates: Gates) -> tuple[str, dict[str, Array]]:
    """Convert gates to a cell of ctd that computes the same: (its name, its weights).

    Biases are added in float64 and rounded once.

    >>> n, k = 4, 2
    >>> zero = Gates("lstm", np.zeros((4 * n, k)), np.zeros((4 * n, n)), np.zeros(4 * n), np.zeros(4 * n))
    >>> cell, weights = to_cell(zero)
    >>> cell, weights["weight_hh"].shape
    ('lstm', (16, 4))
    """
    kind, w_ih, w_hh, b_ih, b_hh = gates
    # h' = tanh(W_ih x + b_ih + W_hh h + b_hh): only the sum of both biases matters.
    if kind == "rnn":
        return "vanilla", {"wI": w_ih, "wR": w_hh, "bR": _sum(b_ih, b_hh)}
    if kind == "gru_before":
        n = w_hh.shape[1]
        bias = _sum(b_ih, b_hh)
        # ctd's gru, that of LFADS, multiplies [h, x] by one matrix, and adds UPDATE_BIAS to the update gate itself.
        both = np.concatenate([w_hh, w_ih], axis=1)
        shift = np.repeat([0.0, UPDATE_BIAS], n)
        return "gru", {
            "wRUHX": both[: 2 * n],
            "bRU": _sum(bias[: 2 * n], -shift).astype(bias.dtype),
            "wCHX": both[2 * n :],
            "bC": bias[2 * n :],
        }
    # ctd has PyTorch's GRU and LSTM under its names and in its order.
    cell = "gru_torch" if kind == "gru" else "lstm"
    return cell, {"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh}


def _sum(a: Array, b: Array) -> Array:
    return (a.astype(np.float64) + b.astype(np.float64)).astype(a.dtype)


TORCH_LAYERS = {"vanilla": "nn.RNN", "gru_torch": "nn.GRU", "lstm": "nn.LSTM"}
"""Cells that PyTorch has -> its layers."""


def to_torch(cell: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """Name the weights of a cell in `TORCH_LAYERS` as those of PyTorch modules `rnn` and `readout`; h0 keeps its name.

    An h0 of zeros is left out: PyTorch starts there, and load_state_dict refuses entries that the module does not have.
    """
    renamed = {name: value for name, value in params.items() if name != "h0" or value.any()}
    # PyTorch has two biases where ctd has their sum.
    if cell == "vanilla":
        renamed |= {"weight_ih": renamed.pop("wI"), "weight_hh": renamed.pop("wR")}
        renamed |= {"bias_ih": renamed["bR"], "bias_hh": np.zeros_like(renamed.pop("bR"))}
    order = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    # nn.RNN, nn.GRU and nn.LSTM number their layers: _l0 is the first, the only one here.
    out = {f"rnn.{name}_l0": renamed.pop(name) for name in order}
    if "wO" in renamed:
        out |= {"readout.weight": renamed.pop("wO"), "readout.bias": renamed.pop("bO")}
    return out | renamed
