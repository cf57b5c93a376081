"""Find a cell by the names of Flax: SimpleCell, GRUCell, LSTMCell and OptimizedLSTMCell, of linen and of nnx."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.weights.gates import Found, Gates, Kind, check_shape
from ctd.weights.tensors import Array, Tensors


class Form(NamedTuple):
    """A cell of Flax: the names of its dense layers, in PyTorch's order of gates."""

    told: str
    kind: Kind
    inputs: tuple[str, ...]
    recurrent: tuple[str, ...]
    blocks: int = 1
    """Gates in one dense layer."""


FORMS = (
    Form("linen GRUCell", "gru", ("ir", "iz", "in"), ("hr", "hz", "hn")),
    Form("LSTMCell", "lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Form("nnx LSTMCell", "lstm", ("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Form("linen SimpleCell with tanh", "rnn", ("i",), ("h",)),
    Form("nnx SimpleCell with tanh", "rnn", ("dense_i",), ("dense_h",)),
    Form("nnx GRUCell", "gru", ("dense_i",), ("dense_h",), 3),
    Form("nnx OptimizedLSTMCell", "lstm", ("dense_i",), ("dense_h",), 4),
)
MGU = {"if", "in", "hf", "hn"}
"""The dense layers of Flax's minimal gated unit."""


def places(tensors: Tensors) -> set[str]:
    """The names of the modules that have dense layers of a cell."""
    known = {name for form in FORMS for name in form.recurrent}
    return {_parent(name) for name in tensors.arrays if _layer(name) in known}


def read(tensors: Tensors, place: str) -> Found:
    """Read the cell of a module. Raises ValueError, naming the tensor that is missing or does not fit."""
    where, arrays = tensors.where, tensors.arrays
    used = frozenset(name for name in arrays if _parent(name) == place and _layer(name))
    layers = {_layer(name) for name in used}
    # Its layers would pass for an incomplete GRU.
    if layers == MGU:
        raise ValueError(
            f"{where}: {place or 'the top'} is an MGUCell, which ctd does not have; it has GRU, LSTM and simple cells"
        )
    form = _form(tensors, place, layers)
    full = lambda layer, what: f"{place}.{layer}.{what}".lstrip(".")
    need = [full(layer, "kernel") for layer in (*form.inputs, *form.recurrent)]
    if missing := [name for name in need if name not in arrays]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}; it holds {tensors.names()}")
    known = {
        full(layer, what)
        for layer in (*form.inputs, *form.recurrent)
        for what in ("kernel", "bias")
    }
    n = arrays[full(form.recurrent[0], "kernel")].shape[0]

    def stacked(names: tuple[str, ...]) -> tuple[Array, Array]:
        """Stack dense layers: (blocks n, fan-in) weights and (blocks n,) biases, zeros for layers without."""
        kernels, biases = [], []
        width = form.blocks * n
        for layer in names:
            kernel = arrays[full(layer, "kernel")]
            fan_in = (
                n if names is form.recurrent else _fan_in(arrays[full(names[0], "kernel")], width)
            )
            check_shape(where, full(layer, "kernel"), kernel, (fan_in, width), f"{n} units")
            # Flax gives one bias to each sum: a GRU has it on the inputs (linen's candidate also on h), an LSTM on h.
            bias = arrays.get(full(layer, "bias"), np.zeros(width, kernel.dtype))
            check_shape(where, full(layer, "bias"), bias, (width,), f"{n} units")
            # Flax multiplies x @ kernel, PyTorch weight @ x.
            kernels.append(kernel.T)
            biases.append(bias)
        return np.concatenate(kernels), np.concatenate(biases)

    (w_ih, b_ih), (w_hh, b_hh) = stacked(form.inputs), stacked(form.recurrent)
    told = f"Flax {form.told}, {place or 'at the top'}"
    return Found(told, Gates(form.kind, w_ih, w_hh, b_ih, b_hh), used & known)


def _form(tensors: Tensors, place: str, layers: set[str]) -> Form:
    """The form that has most of these layers; cells with all gates in one layer are told apart by its shape."""
    if "dense_h" in layers:
        name = f"{place}.dense_h.kernel".lstrip(".")
        kernel = tensors.arrays.get(name, np.zeros(0))
        blocks = kernel.shape[1] // max(1, kernel.shape[0]) if kernel.ndim == 2 else 0
        for form in FORMS:
            if form.recurrent == ("dense_h",) and form.blocks == blocks:
                return form
        raise ValueError(
            f"{tensors.where}: {name} has the shape {kernel.shape}, but n units need (n, n) in a SimpleCell, "
            "(n, 3 n) in a GRUCell, (n, 4 n) in an OptimizedLSTMCell"
        )
    return max(FORMS, key=lambda form: len(layers & {*form.inputs, *form.recurrent}))


def _fan_in(kernel: Array, width: int) -> int:
    """The number of inputs of a kernel, transposed or not; `check_shape` refuses a transposed one afterwards."""
    if kernel.ndim != 2:
        return 0
    return kernel.shape[1] if kernel.shape[0] == width != kernel.shape[1] else kernel.shape[0]


def _parent(name: str) -> str:
    return ".".join(name.split(".")[:-2])


def _layer(name: str) -> str:
    """The dense layer of a kernel or a bias; empty for other names."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in ("kernel", "bias") else ""
