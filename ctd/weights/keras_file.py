"""Read Keras' files: `.keras` archives, and whole models or weights as HDF5."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py

from ctd.containers import opened_hdf5, opened_zip, read_dataset
from ctd.late import PyTree
from ctd.weights.tensors import Array, Settings, Tensors, of_tree

KERAS = {"layers", "model_weights", "layer_names", "keras_version"}
"""Groups and attributes at the top of Keras' HDF5 files."""

VARIABLES = re.compile(r"(?:^|/)vars/\d+$")

CELL_NAMES, LAYER_NAMES = ("kernel", "recurrent_kernel", "bias"), ("kernel", "bias")
"""The meaning of `vars/0`, `vars/1`, ... in a recurrent cell and in a dense layer."""

SETTINGS = {
    "SimpleRNN",
    "GRU",
    "LSTM",
    "SimpleRNNCell",
    "GRUCell",
    "LSTMCell",
    "Dense",
    "Bidirectional",
}
"""The layers whose settings matter to the reading of weights."""

ASIDE = re.compile(
    r"(^|/)(optimizer|optimizer_weights|seed_generator|metrics|compile_metrics)(/|$)"
)
"""Parts of a file that do not belong to the network."""


def is_keras(file: h5py.File) -> bool:
    """Tell if Keras wrote an HDF5 file: by its marks at the top, or by numbered variables."""
    if KERAS & (set(file) | set(file.attrs)):
        return True
    # Weights alone, of Keras 3, have none of these marks, but numbered variables.
    found: list[str] = []
    file.visit(lambda name: found.append(name) if VARIABLES.search(name) else None)
    return bool(found)


def read(path: Path) -> Tensors:
    """Read the weights of a `.keras` archive. Raises ValueError, naming the file."""
    # A .keras file is a zip archive: the layers' settings as JSON, and all variables in one HDF5 file.
    with opened_zip(path, "a file of Keras 3") as archive:
        config = archive.read("config.json").decode()
        data = archive.read("model.weights.h5")
    with opened_hdf5(path, io.BytesIO(data)) as file:
        return of_hdf5(str(path), file, config)


def of_hdf5(where: str, file: h5py.File, config: str | None) -> Tensors:
    """Read the weights of an open file, named LAYER.kernel, .recurrent_kernel, .bias, and the layers' settings.

    config: the model's JSON, or None in a file of weights alone. Raises ValueError, naming `where`.
    """
    found: dict[str, Array] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and not ASIDE.search(name):
            found[name] = read_dataset(where, file, name)

    file.visititems(visit)
    arrays: dict[str, Array] = {}
    for name, value in found.items():
        # Two layers with one short name would overwrite each other without a word.
        if (short := _named(name, found)) in arrays:
            raise ValueError(
                f"{where}: {name} is a second {short}, but a network of ctd has one cell"
            )
        arrays[short] = value
    tensors = of_tree(where, arrays)
    try:
        layers = list(_layers(json.loads(config))) if config else []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: the model's settings are not JSON: {error}") from None
    return Tensors(where, tensors.arrays, None, layers)


def _named(name: str, found: Mapping[str, Array]) -> str:
    """Shorten a dataset's path: layers/gru/cell/vars/0 and model_weights/gru/.../gru_cell/kernel become gru.kernel."""
    parent, _, last = name.rpartition("/")
    if not VARIABLES.search(name):
        parts = parent.removeprefix("model_weights/").split("/")
        # Keras 2 kept TensorFlow's names of variables, which end in ":0", an output of the graph.
        return f"{parts[0]}.{last.removesuffix(':0')}"
    parent = parent.removesuffix("vars").strip("/")
    # vars/1 is a matrix, the recurrent kernel, in a cell, and a bias in a dense layer.
    is_cell = f"{parent}/vars/1" in found and found[f"{parent}/vars/1"].ndim == 2
    names = CELL_NAMES if is_cell else LAYER_NAMES
    layer = parent.removeprefix("layers/").removesuffix("/cell") or "layer"
    return f"{layer}.{names[int(last)] if int(last) < len(names) else last}"


def _layers(tree: PyTree) -> Iterator[Settings]:
    """Iterate over the settings {class_name, name, ...} of all layers in SETTINGS, at any depth."""
    if isinstance(tree, dict):
        if tree.get("class_name") in SETTINGS and isinstance(tree.get("config"), dict):
            yield {**tree["config"], "class_name": tree["class_name"]}
        for child in tree.values():
            yield from _layers(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _layers(child)
