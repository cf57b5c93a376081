"""A recurrent cell in PyTorch's arrangement, whatever wrote it, and its weights as those of a cell of ctd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from ctd.cells import UPDATE_BIAS
from ctd.weights.tensors import Array

type Kind = Literal["rnn", "gru", "gru_before", "lstm"]

BLOCKS: Mapping[Kind, int] = {"rnn": 1, "gru": 3, "gru_before": 3, "lstm": 4}
"""Blocks of rows of a kind's weights."""


class Gates(NamedTuple):
    """A cell of n units: blocks of n rows each, in the order r, z, n of a GRU and i, f, g, o of an LSTM."""

    kind: Kind
    """gru: the reset gate acts on the recurrent product; gru_before: on h, before the product."""
    weight_ih: Array
    """(blocks n, n_in)."""
    weight_hh: Array
    """(blocks n, n)."""
    bias_ih: Array
    """(blocks n,)."""
    bias_hh: Array
    """(blocks n,)."""


class Found(NamedTuple):
    """The cell among a file's tensors."""

    told: str
    """Whose it is and where, "PyTorch nn.GRU, rnn."."""
    gates: Gates
    used: frozenset[str]
    """The names of its tensors."""


def check_shape(where: str, name: str, value: Array, shape: tuple[int, ...], what: str) -> None:
    """Raise ValueError where an array has another shape; of a transposed matrix it says so."""
    if value.shape == shape:
        return
    hint = "; it is transposed" if value.ndim == 2 and value.shape[::-1] == shape else ""
    raise ValueError(
        f"{where}: {name} has the shape {value.shape}, {shape} expected of {what}{hint}"
    )


def to_cell(gates: Gates) -> tuple[str, dict[str, Array]]:
    """(name of a cell of ctd, its weights), which compute what the gates do.

    Sums of biases are made in float64 and rounded once.
    """
    kind, w_ih, w_hh, b_ih, b_hh = gates
    if kind == "rnn":
        return "vanilla", {"wI": w_ih, "wR": w_hh, "bR": _sum(b_ih, b_hh)}
    if kind == "gru_before":
        n = w_hh.shape[1]
        bias = _sum(b_ih, b_hh)
        both = np.concatenate([w_hh, w_ih], axis=1)
        shift = np.repeat([0.0, UPDATE_BIAS], n)
        return "gru", {
            "wRUHX": both[: 2 * n],
            "bRU": _sum(bias[: 2 * n], -shift).astype(bias.dtype),
            "wCHX": both[2 * n :],
            "bC": bias[2 * n :],
        }
    cell = "gru_torch" if kind == "gru" else "lstm"
    return cell, {"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh}


def _sum(a: Array, b: Array) -> Array:
    return (a.astype(np.float64) + b.astype(np.float64)).astype(a.dtype)


TORCH_LAYERS = {"vanilla": "nn.RNN", "gru_torch": "nn.GRU", "lstm": "nn.LSTM"}
"""Cells that PyTorch has, and its layers of them."""


def to_torch(cell: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of a cell in `TORCH_LAYERS`, named as those of modules `rnn` and `readout`; h0 keeps its name."""
    named = dict(params)
    if cell == "vanilla":
        named |= {"weight_ih": named.pop("wI"), "weight_hh": named.pop("wR")}
        named |= {"bias_ih": named["bR"], "bias_hh": np.zeros_like(named.pop("bR"))}
    order = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    out = {f"rnn.{name}_l0": named.pop(name) for name in order}
    if "wO" in named:
        out |= {"readout.weight": named.pop("wO"), "readout.bias": named.pop("bO")}
    return out | named
