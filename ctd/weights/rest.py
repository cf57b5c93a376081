"""The tensors of a file beside its cell: one linear readout, an initial state, or an error for all others."""

from __future__ import annotations

import numpy as np

from ctd.weights.gates import Found, check_axis, check_shape
from ctd.weights.tensors import Array, Tensors
from ctd.words import count


def read_rest(tensors: Tensors, found: Found) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Read the readout and the initial state: (wO, bO and h0 if the file has them; how they were found, for people).

    A readout is the only linear layer beside the cell, and takes n numbers. Raises ValueError, naming tensors,
    if others are left, or if the layer could also come before the cell.
    """
    left = {name: value for name, value in tensors.arrays.items() if name not in found.used}
    n = found.gates.weight_hh.shape[1]
    # An LSTM's state is h and c.
    state = 2 * n if found.gates.kind == "lstm" else n
    params: dict[str, Array] = {}
    told: list[str] = []
    for name in [name for name in left if name.rpartition(".")[2] == "h0"]:
        value = left.pop(name)
        if "h0" in params:
            raise ValueError(f"{tensors.where}: {name} is a second h0; a network of ctd has one")
        # Models keep h0 as (n,), or as (1, n) or (1, 1, n) with axes of layers and trials; an LSTM h and c as (2, n).
        apart = [(state,), (2, n)] if found.gates.kind == "lstm" else [(state,)]
        if _longer(value.shape) not in map(_longer, apart):
            check_shape(tensors.where, name, value, (state,), f"the state of {n} units")
        params["h0"] = value.reshape(state)
        told.append(f"h0: {name}")
    matrices = [name for name, value in left.items() if value.ndim == 2]
    layers = [name for name in matrices if name.rpartition(".")[2] in ("weight", "kernel")]
    extra = [name for name in left if name not in {*layers, *map(_bias, layers)}]
    if extra or len(layers) > 1:
        raise ValueError(_too_much(tensors, found, list(left) if len(layers) > 1 else extra))
    for layer in layers:
        params |= _readout(tensors, found, layer, left.get(_bias(layer)))
        told.append(f"readout: {_at(layer) or layer}{_activation(tensors)}")
    return params, tuple(told)


def _at(weight: str) -> str:
    return weight.rpartition(".")[0]


def _bias(weight: str) -> str:
    return f"{_at(weight)}.bias".lstrip(".")


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are longer than 1."""
    return tuple(size for size in shape if size > 1)


def _readout(tensors: Tensors, found: Found, name: str, bias: Array | None) -> dict[str, Array]:
    where, weight = tensors.where, tensors.arrays[name]
    n, n_in = found.gates.weight_hh.shape[1], found.gates.weight_ih.shape[1]
    # Flax and Keras store (n, n_out).
    flipped = name.endswith("kernel")
    check_axis(where, name, weight, 0 if flipped else 1, n, f"a readout of {n} units")
    matrix = weight.T if flipped else weight
    n_out = len(matrix)
    # A square matrix of as many inputs as units could also be an input layer: its shape does not tell.
    if n_out == n_in == n:
        raise ValueError(
            f"{where}: {name} {weight.shape} may come before or after the cell, since that has {count(n, 'input')} and "
            f"{count(n, 'unit')}; write a file without it: {_without(tensors, found)}"
        )
    bias = np.zeros(n_out, weight.dtype) if bias is None else bias
    check_shape(where, _bias(name), bias, (n_out,), f"{name} {weight.shape}")
    return {"wO": np.ascontiguousarray(matrix), "bO": bias}


def _activation(tensors: Tensors) -> str:
    """Keras: tell that the dense layer's own nonlinearity is left out, since a readout of ctd is linear."""
    dense = [found for found in tensors.layers if found["class_name"] == "Dense"]
    used = {str(found.get("activation", "linear")) for found in dense} - {"linear"}
    return f", without its {', '.join(sorted(used))}" if used else ""


def _too_much(tensors: Tensors, found: Found, names: list[str]) -> str:
    told = ", ".join(f"{name} {tensors.arrays[name].shape}" for name in names)
    return (
        f"{tensors.where}: beside its cell ({found.told}) it holds {told}, but a network of ctd is one cell and at most "
        f"one linear readout; select them with ctd weights {tensors.where} --only PREFIX --to net.h5"
    )


def _without(tensors: Tensors, found: Found) -> str:
    """The command that writes the cell and its initial state alone."""
    states = {name for name in tensors.arrays if name.rpartition(".")[2] == "h0"}
    # With the dot: `rnn` is also the beginning of rnn_out.
    kept = sorted({name[: name.rfind(".") + 1] or name for name in found.used} | states)
    return f"ctd weights {tensors.where} {' '.join(f'--only {name}' for name in kept)} --to net.h5"
