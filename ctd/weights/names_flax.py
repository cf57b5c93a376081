"""Find a cell by the names of Flax: SimpleCell, GRUCell, LSTMCell and OptimizedLSTMCell, of linen and of nnx."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.weights.gates import FileCell, Gates, Kind, check_axis, check_shape, units_and_gates
from ctd.weights.tensors import Array, Tensors


class Form(NamedTuple):
    """A cell of Flax: the names of its dense layers, in PyTorch's order of gates."""

    label: str
    kind: Kind
    inputs: tuple[str, ...]
    recurrent: tuple[str, ...]
    blocks: int = 1
    """Gates in one dense layer."""


JOINT = ("dense_h",)
"""The recurrent layer of cells with all gates in one."""

FORMS = (
    Form("linen GRUCell", "gru", ("ir", "iz", "in"), ("hr", "hz", "hn")),
    Form("LSTMCell", "lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Form("nnx LSTMCell", "lstm", ("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Form("linen SimpleCell with tanh", "rnn", ("i",), ("h",)),
    Form("nnx SimpleCell with tanh", "rnn", ("dense_i",), JOINT),
    Form("nnx GRUCell", "gru", ("dense_i",), JOINT, 3),
    Form("nnx OptimizedLSTMCell", "lstm", ("dense_i",), JOINT, 4),
)
MGU = {"if", "in", "hf", "hn"}
"""The dense layers of Flax's minimal gated unit."""


def places(tensors: Tensors) -> set[str]:
    """The names of the modules that have dense layers of a cell."""
    layer_names = {name for form in FORMS for name in form.recurrent}
    return {_parent(name) for name in tensors.arrays if _layer(name) in layer_names}


def read(tensors: Tensors, place: str) -> FileCell:
    """Read the cell of a module. Raises ValueError, naming the tensor that is missing or does not fit."""
    source, arrays = tensors.source, tensors.arrays
    used = frozenset(name for name in arrays if _parent(name) == place and _layer(name))
    layers = {_layer(name) for name in used}
    # Its layers would pass for an incomplete GRU.
    if layers == MGU:
        raise ValueError(
            f"{source}: {place or 'the top'} is an MGUCell, which ctd does not have; it has GRU, LSTM and simple cells"
        )
    form = max(FORMS, key=lambda form: len(layers & {*form.inputs, *form.recurrent}))
    full = lambda layer, variable: f"{place}.{layer}.{variable}".lstrip(".")
    need = [full(layer, "kernel") for layer in (*form.inputs, *form.recurrent)]
    tensors.need(need)
    recurrent, into = full(form.recurrent[0], "kernel"), full(form.inputs[0], "kernel")
    n, blocks = units_and_gates(source, recurrent, arrays[recurrent], columns=True)
    if form.recurrent == JOINT:
        # These have the same layers: the number of gates tells them apart.
        form = next(
            candidate
            for candidate in FORMS
            if candidate.recurrent == JOINT and candidate.blocks == blocks
        )
    width, purpose = form.blocks * n, f"{n} units"
    check_axis(source, into, arrays[into], 1, width, purpose)

    def stacked(names: tuple[str, ...], fan_in: int) -> tuple[Array, Array]:
        """Stack dense layers: (gates n, fan-in) weights and (gates n,) biases, zeros for layers without."""
        kernels, biases = [], []
        for layer in names:
            kernel = arrays[full(layer, "kernel")]
            check_shape(source, full(layer, "kernel"), kernel, (fan_in, width), purpose)
            # Flax gives one bias to each sum: a GRU has it on the inputs (linen's candidate also on h), an LSTM on h.
            bias = arrays.get(full(layer, "bias"), np.zeros(width, kernel.dtype))
            check_shape(source, full(layer, "bias"), bias, (width,), purpose)
            # Flax multiplies x @ kernel, PyTorch weight @ x.
            kernels.append(kernel.T)
            biases.append(bias)
        return np.concatenate(kernels), np.concatenate(biases)

    (w_ih, b_ih), (w_hh, b_hh) = stacked(form.inputs, len(arrays[into])), stacked(form.recurrent, n)
    origin = f"Flax {form.label}, {place or 'at the top'}"
    cell_names = {*need, *(f"{name.removesuffix('kernel')}bias" for name in need)}
    return FileCell(origin, Gates(form.kind, w_ih, w_hh, b_ih, b_hh), used & cell_names)


def _parent(name: str) -> str:
    return ".".join(name.split(".")[:-2])


def _layer(name: str) -> str:
    """The dense layer of a kernel or a bias; empty for other names."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in ("kernel", "bias") else ""
