"""Find a cell by the names of PyTorch (nn.RNN, nn.GRU, nn.LSTM and their cells) or Equinox, which has fewer biases."""

from __future__ import annotations

import re

import numpy as np

from ctd.weights.gates import KINDS, FileCell, Gates, check_axis, check_shape, units_and_gates
from ctd.weights.tensors import Array, Tensors

NAME = re.compile(
    r"(?P<at>(?:.*\.)?)(?P<what>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?P<layer>(?:_l\d+)?(?:_reverse)?)"
)
CLASSES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}


def places(tensors: Tensors) -> set[str]:
    """The prefix and suffix of each cell's names, joined by a star: `rnn.*_l0`."""
    matches = filter(None, map(NAME.fullmatch, tensors.arrays))
    return {f"{match['at']}*{match['layer']}" for match in matches}


def read(tensors: Tensors, place: str) -> FileCell:
    """Read the cell at a place of `places`. Raises ValueError, naming the tensor that is missing or does not fit."""
    at, _, layer = place.partition("*")
    source, arrays = tensors.source, tensors.arrays
    full = lambda weight: f"{at}{weight}{layer}"
    if full("weight_hr") in arrays:
        raise ValueError(
            f"{source}: has {full('weight_hr')}, of an LSTM with projections, which ctd does not have"
        )
    tensors.need(map(full, ("weight_ih", "weight_hh")))
    into, recurrent = arrays[full("weight_ih")], arrays[full("weight_hh")]
    n, blocks = units_and_gates(source, full("weight_hh"), recurrent)
    check_axis(source, full("weight_ih"), into, 0, blocks * n, f"{n} units")
    b_ih, b_hh, used = _biases(tensors, at, layer, blocks, n)
    equinox = f"{at}bias" in used
    kind = KINDS[blocks]
    layer_class = (
        f"{'Equinox' if equinox else 'PyTorch'} nn.{CLASSES[kind]}{'' if layer else 'Cell'}"
    )
    names = {full("weight_ih"), full("weight_hh"), *used}
    return FileCell(
        f"{layer_class}, {at or 'at the top'}",
        Gates(kind, into, recurrent, b_ih, b_hh),
        frozenset(names),
    )


def _biases(
    tensors: Tensors, at: str, layer: str, blocks: int, n: int
) -> tuple[Array, Array, set[str]]:
    """Read the biases: (bias_ih, bias_hh, the names of their tensors); zeros if the cell has none."""
    arrays, source = tensors.arrays, tensors.source
    zeros = np.zeros(blocks * n, arrays[f"{at}weight_hh{layer}"].dtype)
    pair = [f"{at}bias_ih{layer}", f"{at}bias_hh{layer}"]
    # Equinox's cells have `bias`, and a GRU `bias_n`, in place of PyTorch's pair.
    if not layer and f"{at}bias" in arrays and not arrays.keys() & set(pair):
        pair = [f"{at}bias", f"{at}bias_n"] if blocks == 3 else [f"{at}bias"]
    present = [name for name in pair if name in arrays]
    if present and len(present) < len(pair):
        (missing,) = set(pair) - set(present)
        raise ValueError(f"{source}: lacks {missing}, which goes with {present[0]}")
    for name in present:
        length = n if name.endswith("bias_n") else blocks * n
        check_shape(source, name, arrays[name], (length,), f"{n} units")
    biases = [arrays[name] for name in present]
    if f"{at}bias_n" in present:
        # Equinox's GRU has one recurrent bias, that of the candidate: r (W_hn h + b_n).
        biases[1] = np.concatenate([zeros[n:], biases[1]])
    b_ih, b_hh, *_ = *biases, zeros, zeros
    return b_ih, b_hh, set(present)
