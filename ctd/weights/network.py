"""Files of weights as networks of ctd: find the cell, and give its weights ctd's names; and the way back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.cells import CELLS, UNGATED, cells_with, check_params, check_real, get_cell
from ctd.weights import names_flax, names_keras, names_torch
from ctd.weights.formats import read_tensors, write_tensors
from ctd.weights.gates import TORCH_LAYERS, FileCell, to_cell, to_torch
from ctd.weights.rest import read_rest
from ctd.weights.tensors import Array, Tensors

UNIQUE_NAMES = {
    cell.name: set(cell.cell_axes) - {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    for cell in CELLS.values()
}
"""Cell -> the names of its weights that no framework uses."""

TORCH_ENDINGS = (".pt", ".pth", ".safetensors")
"""Files that get PyTorch's names if PyTorch has the cell."""

OF_DYNAMICS = {"continuous": "leaky", "discrete": "leaky_rates"}
"""The field `dynamics` of an echo-state network -> its cell; their weights have the same names."""

NO_UNITS = "the file does not tell the units"
"""The beginning of a sentence on a file that does not state the units of its ungated cell."""


class Loaded(NamedTuple):
    """A network from a file.

    >>> tensors = {"wI": np.ones((4, 3)), "wR": np.ones((4, 4)), "bR": np.ones(4)}
    >>> network = understand(Tensors("net.h5", tensors))
    >>> network.cell, network.params["wR"].shape, network.notes
    ('vanilla', (4, 4), ("ctd's own names",))
    """

    cell: str
    """Name of a cell of `ctd.cells`."""
    params: dict[str, Array]
    """The cell's weights by name, with the shapes of `ctd.cells`; wO, bO and h0 if the file has them."""
    notes: tuple[str, ...]
    """Sentences for people on the reading of the file."""
    guess: str = ""
    """The sentence among them on units that are assumed because neither file nor user states them; "" if one does."""


def read_weights(path: str | Path, cell: str | None = None) -> Loaded:
    """Read the network of a file, in the format of the file's ending. No code of the file runs. A warning says if the units are guessed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shapes = CELLS["vanilla"].shapes(4, 3)  # 4 units, 3 inputs
    ...     np.savez(f"{folder}/net.npz", **{name: np.ones(shape) for name, shape in shapes.items()})
    ...     print(read_weights(f"{folder}/net.npz").cell)
    vanilla

    Args:
        path: file of weights: PyTorch's, Flax', Equinox', Keras', safetensors, .npz or HDF5; or a folder of Orbax.
        cell: the cell that the file must hold, such as gru or vanilla:relu; None takes the one that the names show.

    Returns:
        A `Loaded`: the cell's name, its weights with the shapes of `ctd.cells`, and notes on the reading.

    Raises:
        ValueError: the file cannot be read, holds no network of ctd, or another cell; the text names file and tensor.
    """
    network = understand(read_tensors(path), cell)
    if network.guess:
        warnings.warn(f"{path}: {network.guess}", stacklevel=2)
    return network


def understand(tensors: Tensors, cell: str | None = None) -> Loaded:
    """Find the network among tensors.

    >>> sizes = {"weight_ih": (12, 3), "weight_hh": (12, 4), "bias_ih": (12,), "bias_hh": (12,)}
    >>> tensors = {f"rnn.{name}_l0": np.zeros(shape) for name, shape in sizes.items()}
    >>> network = understand(Tensors("net.pt", tensors))
    >>> network.cell, network.notes
    ('gru_torch', ('PyTorch nn.GRU, rnn.',))

    Args:
        tensors: the arrays of a file, as `read_tensors` returns them.
        cell: the cell that they must be; None takes the one that the names show.

    Returns:
        A `Loaded`, as `read_weights`.

    Raises:
        ValueError: they are no network of ctd, or one of another cell; the text names the tensor.
    """
    # Raises if the user's cell is unknown, so that no error says that the file names it.
    cell = cell and get_cell(cell).name
    for name, value in tensors.arrays.items():
        if value.dtype.kind not in "biu":  # refused later, as tensors that are no weights
            check_real(value, f"{tensors.source}: {name}")
    fits = cells_with(tensors.arrays)
    # One name alone, such as W, may be that of any network.
    if fits or any(
        2 * len(names & set(tensors.arrays)) > len(names) for names in UNIQUE_NAMES.values()
    ):
        return _read_own_names(tensors, cell, fits)
    file_cell = find_cell(tensors)
    name, params = to_cell(file_cell.gates)
    # Before the cell is compared: tensors that nothing understands are the more basic fault.
    others, notes = read_rest(tensors, file_cell)
    guess = "" if cell else file_cell.guess
    if CELLS[name] in UNGATED and file_cell.units is not None:
        name = get_cell(f"{name}:{file_cell.units}").name
    elif CELLS[name] in UNGATED:
        if cell is not None and cell.partition(":")[0] == name:
            notes, name = (f"{NO_UNITS}: cell {cell}", *notes), cell
        else:
            guess = f"{NO_UNITS}: tanh is taken; if they are relu, give cell {name}:relu"
    if cell is not None and cell != name:
        raise ValueError(
            f"{tensors.source}: holds the weights of cell {name} ({file_cell.origin}), but cell {cell} is given; give "
            f"cell: {name}"
        )
    params = {**params, **others}
    check_params(name, params, tensors.source)
    return Loaded(name, params, (file_cell.origin, *([guess] if guess else []), *notes), guess)


def find_cell(tensors: Tensors) -> FileCell:
    """Find the one recurrent cell of a file, by the names of each framework. Raises ValueError if there is none or several."""
    # Each framework's names are its own, so that the order does not matter.
    for layout in (names_torch, names_keras, names_flax):
        places = layout.places(tensors)
        if places:
            return layout.read(tensors, _only(tensors, places))
    raise ValueError(
        f"{tensors.source}: has no recurrent cell by the names of PyTorch, Flax, Equinox, Keras or ctd; it holds "
        f"{tensors.names()}; write its step as F(weights, h, x), and give fixed_points cell: mymodule.F, or save it with "
        f"ctd's names (vanilla: {', '.join(CELLS['vanilla'].cell_axes)})"
    )


def _only(tensors: Tensors, places: Iterable[str]) -> str:
    """The only place of a cell. Raises ValueError, naming the cells, if there are several."""
    places = sorted(places)
    if len(places) == 1:
        return places[0]
    listing = ", ".join(place.replace("*", "weight_hh") or "the top" for place in places)
    reason = (
        "several layers; ctd's networks have one cell: write a step of all layers as F(weights, h, x) in stack.py, and give "
        "fixed_points cell: stack.F"
    )
    if any(re.search("reverse|backward|bwd", place) for place in places):
        reason = "a bidirectional network; ctd's networks have one cell"
    raise ValueError(f"{tensors.source}: holds {len(places)} recurrent cells, {listing}: {reason}")


def _read_own_names(tensors: Tensors, cell: str | None, fits: list[str]) -> Loaded:
    """Read a file with ctd's own names; fits: the cells with these names, of which file or `cell` may choose one."""
    source, params = tensors.source, dict(tensors.arrays)
    # If no cell has exactly these names, the error is about the one with the most of them.
    likely = max(CELLS, key=lambda name: len(CELLS[name].cell_axes.keys() & params.keys()))
    name = cell or tensors.cell or next(iter(fits), likely)
    # vanilla:relu is the cell vanilla with another nonlinearity.
    base, _, units = name.partition(":")
    if cell is None and "." in units:
        # Importing a name that a file tells would run code of the file's choice.
        raise ValueError(
            f"{source}: the nonlinearity of its cell {name} is not one of ctd's; if you trust it, give cell: {name}"
        )
    if base not in CELLS:
        raise ValueError(
            f"{source}: says that it holds the weights of cell {name}, which ctd does not have; give a cell of "
            f"{', '.join(CELLS)}"
        )
    check_params(name, params, source)
    if tensors.cell not in (None, name):
        raise ValueError(
            f"{source}: says that it holds the weights of cell {tensors.cell}, but cell {name} is given; give cell: "
            f"{tensors.cell}"
        )
    others = [other for other in fits if other != base] if tensors.cell is None else []
    notes = (f"cell {', '.join(others)} has the same names",) if others else ()
    return Loaded(name, params, ("ctd's own names", *notes))


def write_weights(path: str | Path, params: Mapping[str, Any], cell: str) -> str:
    """Check the weights of a network and write them in the format of the path's ending.

    .pt, .pth and .safetensors get PyTorch's names (rnn.weight_ih_l0, readout.weight) if PyTorch has the cell. Other files get ctd's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shapes = CELLS["gru_torch"].shapes(4, 3)  # 4 units, 3 inputs
    ...     message = write_weights(f"{folder}/net.pt", {k: np.ones(s) for k, s in shapes.items()}, "gru_torch")
    ...     print(read_weights(f"{folder}/net.pt").cell)
    gru_torch

    Args:
        path: file to write; an existing one is replaced.
        params: name -> array, with the names and shapes of `ctd.cells`.
        cell: name of the cell.

    Returns:
        "", or a sentence if the ending is PyTorch's and the names are ctd's.

    Raises:
        ValueError: weights or ending do not fit, or the file cannot be written; the text names file and weight.
    """
    check_params(cell, params, str(path))
    return write_named(path, params, {"cell": cell})


def write_named(
    path: str | Path, arrays: Mapping[str, ArrayLike], about: Mapping[str, object]
) -> str:
    """Write arrays and attributes; the weights of a network as `write_weights` does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     message = write_named(f"{folder}/states.h5", {"states": np.zeros((2, 5, 4))}, {"seed": 3})
    ...     read_tensors(f"{folder}/states.h5").names()
    'states (2, 5, 4)'

    Args:
        path: file to write; an existing one is replaced.
        arrays: name -> array.
        about: attributes; `cell`, or `dynamics` of an echo-state network, names the cell of a network.

    Returns:
        "", or a sentence if the ending is PyTorch's and the names are ctd's.

    Raises:
        ValueError: the file cannot be written; the text names it.
    """
    values = {name: np.asarray(value) for name, value in arrays.items()}
    attributes = {name: value for name, value in about.items() if name != "cell"}
    cell = str(about.get("cell", OF_DYNAMICS.get(str(about.get("dynamics")))))
    is_network, for_torch = (
        cell.partition(":")[0] in cells_with(values),
        Path(path).suffix in TORCH_ENDINGS,
    )
    if is_network and for_torch and cell in TORCH_LAYERS:
        # Leave out the name of ctd's cell: load_state_dict refuses entries that the module does not have.
        write_tensors(path, to_torch(cell, values), attributes)
        return ""
    write_tensors(path, values, attributes | {"cell": cell} if is_network else attributes)
    if not (is_network and for_torch):
        return ""
    cells = ", ".join(f"{name} ({layer})" for name, layer in TORCH_LAYERS.items())
    return f"the file, of cell {cell}, has ctd's names, which load_state_dict does not load; cells that get PyTorch's names: {cells}"
