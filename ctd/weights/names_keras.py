"""Find a cell by the names of Keras: SimpleRNN, GRU with the reset gate before or after the product, LSTM."""

from __future__ import annotations

import numpy as np

from ctd.cells import UNITS
from ctd.weights.gates import KINDS, FileCell, Gates, Kind, check_axis, check_shape, units_and_gates
from ctd.weights.tensors import Array, Settings, Tensors

RECURRENT = ".recurrent_kernel"
CLASSES = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}
EXPECTED = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False}
"""Settings of Keras' layers that ctd's cells match."""
GUESS = "the file does not tell the activations: tanh and sigmoid are taken; model.save('net.keras') writes a file that tells them"


def places(tensors: Tensors) -> set[str]:
    """The names of the layers with recurrent weights."""
    return {name.removesuffix(RECURRENT) for name in tensors.arrays if name.endswith(RECURRENT)}


def read(tensors: Tensors, place: str) -> FileCell:
    """Read the cell of a layer. Raises ValueError, naming the tensor or the setting that does not fit."""
    source, arrays = tensors.source, tensors.arrays
    names = {variable: f"{place}.{variable}" for variable in ("kernel", "recurrent_kernel", "bias")}
    tensors.need([names["kernel"]])
    recurrent, into = arrays[names["recurrent_kernel"]], arrays[names["kernel"]]
    n, blocks = units_and_gates(source, names["recurrent_kernel"], recurrent, columns=True)
    check_axis(source, names["kernel"], into, 1, blocks * n, f"{n} units")
    settings = _settings(tensors, place, CLASSES[KINDS[blocks]])
    kind, b_ih, b_hh = _biases(tensors, names["bias"], blocks, n, settings)
    # Keras multiplies x @ kernel, with gates side by side; transposed, they lie below each other. Keras and PyTorch both
    # weigh the old state by z, and unit_forget_bias is part of the stored bias: no number changes.
    gates = Gates(kind, _ordered(into.T, n, kind), _ordered(recurrent.T, n, kind), b_ih, b_hh)
    after = {"gru": " with reset_after", "gru_before": " without reset_after"}.get(kind, "")
    origin = f"Keras {CLASSES[KINDS[blocks]]}{after}, {place}"
    guess = GUESS if kind != "rnn" and not settings else ""
    used = frozenset(set(names.values()) & arrays.keys())
    units = settings.get("activation", "tanh") if settings else None
    return FileCell(origin, gates, used, units, guess)


def _settings(tensors: Tensors, place: str, layer: str) -> Settings:
    """The settings of the recurrent layer, {} in a file of weights alone. Raises ValueError if ctd's cell cannot match them."""
    at_place = [
        settings for settings in tensors.layers if f"{place}.".startswith(f"{settings['place']}.")
    ]
    # The settings of a class of the user's own may not tell the place: then every layer of this kind has to fit.
    near = at_place or tensors.layers
    if any(settings["class_name"] == "Bidirectional" for settings in near):
        raise ValueError(
            f"{tensors.source}: has a Bidirectional layer, but a network of ctd has one cell"
        )
    layers = [settings for settings in near if settings["class_name"].removesuffix("Cell") == layer]
    for name, expected in EXPECTED.items():
        for settings in layers:
            fits = list(UNITS) if name == "activation" and layer == "SimpleRNN" else [expected]
            if settings.get(name, expected) not in fits:
                raise ValueError(
                    f"{tensors.source}: {settings.get('name', layer)} has {name}={settings[name]!r}, but ctd's cell has "
                    f"{expected!r}"
                )
    return dict(layers[0]) if layers else {}


def _biases(
    tensors: Tensors, name: str, blocks: int, n: int, settings: Settings
) -> tuple[Kind, Array, Array]:
    """Read the biases: (kind, bias_ih, bias_hh). A GRU has two rows of them if its reset gate acts after the product."""
    kind, bias = KINDS[blocks], tensors.arrays.get(name)
    after = settings.get("reset_after")
    if bias is None:
        if kind == "gru" and after is None:
            raise ValueError(
                f"{tensors.source}: has a GRU without bias, and does not tell reset_after; save the whole model with "
                "model.save('net.keras')"
            )
        dtype = tensors.arrays[name.replace(".bias", RECURRENT)].dtype
        bias = np.zeros((2, 3 * n) if after else (blocks * n,), dtype)
    # One row of biases means reset_after=False: the reset gate acts before the product.
    two = kind == "gru" and bias.ndim == 2
    check_shape(tensors.source, name, bias, (2, 3 * n) if two else (blocks * n,), f"{n} units")
    rows = [_ordered(row, n, kind) for row in (bias if two else [bias, np.zeros_like(bias)])]
    return "gru_before" if kind == "gru" and not two else kind, rows[0], rows[1]


def _ordered(rows: Array, n: int, kind: Kind) -> Array:
    """Put Keras' gates z, r, h of a GRU in the order r, z, n; other cells have PyTorch's order already."""
    if kind not in ("gru", "gru_before"):
        return np.ascontiguousarray(rows)
    return np.concatenate([rows[n : 2 * n], rows[:n], rows[2 * n :]])
