"""The tensors of a file beside its cell: one linear readout, an initial state, or an error for all others."""

from __future__ import annotations

import numpy as np

from ctd.weights.gates import FileCell, check_axis, check_shape
from ctd.weights.tensors import Array, Tensors
from ctd.words import count


def read_rest(tensors: Tensors, cell: FileCell) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Read the readout and the initial state: (wO, bO and h0 if the file has them; notes for people on their tensors).

    A readout is the only linear layer beside the cell, and takes n numbers. Raises ValueError, naming tensors,
    if others are left, or if the layer could also come before the cell.
    """
    others = {name: value for name, value in tensors.arrays.items() if name not in cell.used}
    n = cell.gates.weight_hh.shape[1]
    # An LSTM's state is h and c.
    state = 2 * n if cell.gates.kind == "lstm" else n
    params: dict[str, Array] = {}
    notes: list[str] = []
    for name in [name for name in others if name.rpartition(".")[2] == "h0"]:
        value = others.pop(name)
        if "h0" in params:
            raise ValueError(f"{tensors.source}: {name} is a second h0; a network of ctd has one")
        # Models keep h0 as (n,), or as (1, n) or (1, 1, n) with axes of layers and trials; an LSTM h and c as (2, n).
        apart = [(state,), (2, n)] if cell.gates.kind == "lstm" else [(state,)]
        if _longer(value.shape) not in map(_longer, apart):
            check_shape(tensors.source, name, value, (state,), f"the state of {n} units")
        params["h0"] = value.reshape(state)
        notes.append(f"h0: {name}")
    matrices = [name for name, value in others.items() if value.ndim == 2]
    layers = [name for name in matrices if name.rpartition(".")[2] in ("weight", "kernel")]
    extra = [name for name in others if name not in {*layers, *map(_bias, layers)}]
    if extra or len(layers) > 1:
        raise ValueError(_too_much(tensors, cell, list(others) if len(layers) > 1 else extra))
    for layer in layers:
        params |= _readout(tensors, cell, layer, others.get(_bias(layer)))
        notes.append(f"readout: {_at(layer) or layer}{_activation(tensors)}")
    return params, tuple(notes)


def _at(weight: str) -> str:
    return weight.rpartition(".")[0]


def _bias(weight: str) -> str:
    return f"{_at(weight)}.bias".lstrip(".")


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are longer than 1."""
    return tuple(size for size in shape if size > 1)


def _readout(tensors: Tensors, cell: FileCell, name: str, bias: Array | None) -> dict[str, Array]:
    source, weight = tensors.source, tensors.arrays[name]
    n, n_in = cell.gates.weight_hh.shape[1], cell.gates.weight_ih.shape[1]
    # Flax and Keras store (n, n_out).
    flipped = name.endswith("kernel")
    check_axis(source, name, weight, 0 if flipped else 1, n, f"a readout of {n} units")
    matrix = weight.T if flipped else weight
    n_out = len(matrix)
    # A square matrix of as many inputs as units could also be an input layer: its shape does not tell.
    if n_out == n_in == n:
        raise ValueError(
            f"{source}: {name} {weight.shape} may come before or after the cell, since that has {count(n, 'input')} and "
            f"{count(n, 'unit')}; write a file without it: {_without(tensors, cell)}"
        )
    bias = np.zeros(n_out, weight.dtype) if bias is None else bias
    check_shape(source, _bias(name), bias, (n_out,), f"{name} {weight.shape}")
    return {"wO": np.ascontiguousarray(matrix), "bO": bias}


def _activation(tensors: Tensors) -> str:
    """Name the nonlinearity of Keras' dense layer that is left out, since a readout of ctd is linear."""
    dense = [settings for settings in tensors.layers if settings["class_name"] == "Dense"]
    used = {str(settings.get("activation", "linear")) for settings in dense} - {"linear"}
    return f", without its {', '.join(sorted(used))}" if used else ""


def _too_much(tensors: Tensors, cell: FileCell, names: list[str]) -> str:
    listing = ", ".join(f"{name} {tensors.arrays[name].shape}" for name in names)
    return (
        f"{tensors.source}: beside its cell ({cell.origin}) it holds {listing}, but a network of ctd is one cell and at most "
        f"one linear readout; select them with ctd weights {tensors.source} --only PREFIX --to net.h5"
    )


def _without(tensors: Tensors, cell: FileCell) -> str:
    """The command that writes the cell and its initial state alone."""
    states = {name for name in tensors.arrays if name.rpartition(".")[2] == "h0"}
    # With the dot: `rnn` is also the beginning of rnn_out.
    prefixes = sorted({name[: name.rfind(".") + 1] or name for name in cell.used} | states)
    return f"ctd weights {tensors.source} {' '.join(f'--only {name}' for name in prefixes)} --to net.h5"
