"""A file of weights as a network of ctd: which cell it is, and its weights by ctd's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctd.cells import CELLS, READOUT_AXES, check_params, check_real
from ctd.weights.formats import read_tensors, write_tensors
from ctd.weights.gates import TORCH_LAYERS, to_cell, to_torch
from ctd.weights.layouts import find_cell
from ctd.weights.rest import read_rest
from ctd.weights.tensors import Array, Tensors, of_cell

OWN = {name for cell in CELLS.values() for name in cell.axes} - {
    "weight_ih", "weight_hh", "bias_ih", "bias_hh", "h0"
}  # fmt: skip
"""Names that no framework gives."""

TORCH_ENDINGS = (".pt", ".pth", ".safetensors")
"""Files that get PyTorch's names where PyTorch has the cell."""


class Loaded(NamedTuple):
    """A network from a file."""

    cell: str
    params: dict[str, Array]
    told: tuple[str, ...]
    """How the file was understood."""


def read_weights(path: str | Path, cell: str | None = None) -> Loaded:
    """The network of a file; `cell`: the one that is expected.

    Raises ValueError, naming file and tensor, where the file holds no network of ctd, or another cell's.
    """
    return understand(read_tensors(path), cell)


def understand(tensors: Tensors, cell: str | None = None) -> Loaded:
    """The network that tensors are. Raises as `read_weights`."""
    for name, value in tensors.arrays.items():
        if value.dtype.kind not in "biu":  # whole numbers are no weights; they are refused as such
            check_real(value, f"{tensors.where}: {name}")
    fits = of_cell(tensors.arrays)
    if fits or OWN & set(tensors.arrays):
        return _own(tensors, cell, fits)
    found = find_cell(tensors)
    name, params = to_cell(found.gates)
    rest, told = read_rest(tensors, found)
    if cell is not None and cell != name:
        raise ValueError(
            f"{tensors.where}: holds the weights of cell {name} ({found.told}), but cell {cell} is given; use "
            f"cell: {name}"
        )
    params = {**params, **rest}
    check_params(name, params, tensors.where)
    return Loaded(name, params, (found.told, *told))


def _own(tensors: Tensors, cell: str | None, fits: list[str]) -> Loaded:
    """A file with ctd's own names. Of cells with the same names it is the first, unless the file or `cell` says."""
    where, params = tensors.where, dict(tensors.arrays)
    likely = max(
        CELLS, key=lambda name: len(set(CELLS[name].axes) - set(READOUT_AXES) & set(params))
    )
    name = cell or tensors.cell or next(iter(fits), likely)
    base, _, units = name.partition(":")
    if cell is None and "." in units:
        # A file's words import nothing.
        raise ValueError(
            f"{where}: the units of its cell are a function outside of ctd, which only a job names; give cell: {name}"
        )
    if base not in CELLS:
        raise ValueError(
            f"{where}: says that it holds the weights of cell {name}, which ctd does not have"
        )
    check_params(name, params, where)
    if tensors.cell not in (None, name):
        raise ValueError(
            f"{where}: says that it holds the weights of cell {tensors.cell}, but cell {name} is given; use cell: "
            f"{tensors.cell}"
        )
    others = [other for other in fits if other != base] if tensors.cell is None else []
    told = (f"its names are also those of cell {', '.join(others)}",) if others else ()
    return Loaded(name, params, ("ctd's own names", *told))


def write_weights(path: str | Path, params: Mapping[str, Any], cell: str) -> None:
    """Check the weights of a network and write them, by the path's ending.

    .pt, .pth and .safetensors get PyTorch's names (rnn.weight_ih_l0, readout.weight) where PyTorch has the cell;
    other files get ctd's. Raises ValueError, naming file and weight.
    """
    check_params(cell, params, str(path))
    write_named(path, params, {"cell": cell})


def write_named(path: str | Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write any arrays with what is known of them; those of the cell that `about` names as `write_weights` does.

    Raises ValueError, naming the file, where it cannot be written.
    """
    values = {name: np.asarray(value) for name, value in arrays.items()}
    told = {name: value for name, value in about.items() if name != "cell"}
    given = about.get("cell")
    cell = given if str(given).partition(":")[0] in of_cell(values) else None
    if cell in TORCH_LAYERS and Path(path).suffix in TORCH_ENDINGS:
        # Without the name of ctd's cell beside them, so that load_state_dict takes all.
        values, cell = to_torch(cell, values), None
    write_tensors(path, values, cell, told)
