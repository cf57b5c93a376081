"""Read Keras' files: `.keras` archives, and whole models or weights as HDF5."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py

from ctd.containers import opened_hdf5, opened_zip
from ctd.late import PyTree
from ctd.weights.tensors import Array, Settings, Tensors, collect_tensors, datasets

GROUPS, ATTRIBUTES = {"layers", "model_weights"}, {"layer_names", "keras_version"}
"""Groups and attributes at the top of Keras' HDF5 files."""

VARIABLES = re.compile(r"(?:^|/)vars/\d+$")

CELL_NAMES, LAYER_NAMES = ("kernel", "recurrent_kernel", "bias"), ("kernel", "bias")
"""The meaning of `vars/0`, `vars/1`, ... in a recurrent cell and in a dense layer."""

SETTINGS = re.compile(r"(SimpleRNN|GRU|LSTM)(Cell)?|Dense|Bidirectional")
"""The layers whose settings matter to the reading of weights."""

ASIDE = re.compile(
    r"(^|/)(optimizer|optimizer_weights|seed_generator|metrics|compile_metrics)(/|$)"
)
"""Parts of a file that do not belong to the network."""


def is_keras(file: h5py.File) -> bool:
    """True if Keras wrote an HDF5 file: it has Keras' marks at the top, or numbered variables."""
    # `layers` as an attribute is a parameter of `esn`, which a file of its weights has, too.
    if GROUPS & set(file) or ATTRIBUTES & set(file.attrs):
        return True
    # Weights alone, of Keras 3, have none of these marks, but numbered variables.
    return file.visit(VARIABLES.search) is not None


def read(path: Path) -> Tensors:
    """Read the weights of a `.keras` archive. Raises ValueError, naming the file."""
    # A .keras file is a zip archive: the layers' settings as JSON, and all variables in one HDF5 file.
    with opened_zip(path, "a file of Keras 3") as archive:
        config = archive.read("config.json").decode()
        data = archive.read("model.weights.h5")
    with opened_hdf5(path, io.BytesIO(data)) as file:
        return read_variables(str(path), file, config)


def read_variables(source: str, file: h5py.File, config: str | None) -> Tensors:
    """Read the weights of an open file, named LAYER.kernel, .recurrent_kernel, .bias, and the layers' settings.

    config: the model's JSON, or None in a file of weights alone. Raises ValueError, naming `source`.
    """
    variables = datasets(source, file, ASIDE)
    arrays: dict[str, Array] = {}
    for name, value in variables.items():
        # Two layers with one short name would overwrite each other without a word.
        if (short := _short_name(name, variables)) in arrays:
            raise ValueError(
                f"{source}: {name} is a second {short}, but a network of ctd has one cell"
            )
        arrays[short] = value
    tensors = collect_tensors(source, arrays)
    try:
        numbered = any(VARIABLES.search(name) for name in variables)
        layers = list(_layers(json.loads(config), numbered, {"place": ""})) if config else []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: the model's settings are not JSON: {error}") from None
    return Tensors(source, tensors.arrays, None, layers)


def _short_name(name: str, variables: Mapping[str, Array]) -> str:
    """Shorten a dataset's path: layers/gru/cell/vars/0 and model_weights/gru/.../gru_cell/kernel become gru.kernel."""
    parent, _, last = name.rpartition("/")
    if not VARIABLES.search(name):
        parts = parent.removeprefix("model_weights/").split("/")
        # Keras 2 kept TensorFlow's names of variables, which end in ":0", an output of the graph.
        return f"{parts[0]}.{last.removesuffix(':0')}"
    parent = parent.removesuffix("vars").strip("/")
    # vars/1 is a matrix, the recurrent kernel, in a cell, and a bias in a dense layer.
    is_cell = f"{parent}/vars/1" in variables and variables[f"{parent}/vars/1"].ndim == 2
    names = CELL_NAMES if is_cell else LAYER_NAMES
    layer = parent.removeprefix("layers/").removesuffix("/cell") or "layer"
    return f"{layer}.{names[int(last)] if int(last) < len(names) else last}"


def _layers(tree: PyTree, numbered: bool, outer: Settings) -> Iterator[Settings]:
    """Iterate over the settings {class_name, name, place, ...} of all layers of SETTINGS, at any depth.

    place: the beginning of the names of the layer's weights; "" if the settings do not tell. numbered: weights are named by
    the number of their layer in its class, not by the layer's name. outer: settings that a wrapper gives to its layer.
    """
    if isinstance(tree, list):
        for child in tree:
            yield from _layers(child, numbered, outer)
    if not isinstance(tree, dict):
        return
    config = tree.get("config")
    if isinstance(config, dict):
        # The wrapper RNN has the direction of its cell.
        outer = {**outer, **{k: config[k] for k in ("go_backwards",) if k in config}}
        if SETTINGS.fullmatch(str(tree.get("class_name"))):
            yield {**outer, **config, "class_name": tree["class_name"], "place": outer["place"]}
    for key, child in tree.items():
        # Keras before 2.2 wrote the layers of a Sequential as its config.
        if key in ("layers", "config") and isinstance(child, list):
            places = _places(child, numbered, outer["place"])
            for place, layer in zip(places, child, strict=True):
                yield from _layers(layer, numbered, {**outer, "place": place})
        else:
            yield from _layers(child, numbered, outer)


def _places(layers: Sequence[PyTree], numbered: bool, outer: str) -> Iterator[str]:
    """Iterate over the places of a model's layers; outer: that of the model, "" at the top."""
    counts: Counter[str] = Counter()
    for layer in layers:
        layer = layer if isinstance(layer, dict) else {}
        config = layer.get("config")
        if not numbered:
            # Older files put the weights of a model within a model under the name of the inner one.
            yield outer or str(config.get("name", "") if isinstance(config, dict) else "")
            continue
        # Keras 3 writes simple_rnn, simple_rnn_1, ... (keras/src/saving/saving_lib.py, `_get_unique_name`).
        words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", str(layer.get("class_name")))
        name = re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
        number, counts[name] = counts[name], counts[name] + 1
        name = f"{name}_{number}" if number else name
        yield f"{outer}.layers.{name}" if outer else name
