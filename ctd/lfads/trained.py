"""Read weights of trained models from items of a store: to infer with them, or as a core that training does not change."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ctd.cells import Cell, gru, node
from ctd.data import read_hdf5
from ctd.kernel import Kind, View, field_kinds
from ctd.lfads.data import Dataset
from ctd.lfads.params import Model
from ctd.lfads.weights import Tree

OF_SESSIONS = ("readin", "readout", "sessions", "output", "decoder", "decoders")
"""Parts that belong to the units or the behaviour of sessions; all other parts are the core."""


def read_generator(path: Any, dtype: str) -> dict[str, np.ndarray]:
    """Read the generator: a network of the cell gru or node, whose readout gives the factors."""
    return {name: value.astype(dtype) for name, value in read_hdf5(path).items()}


def read_trained(weights: Any, model: Any, dtype: str) -> Tree:
    """Read a trained model: part -> name -> array, in `dtype`. Raises ValueError, naming the file that lacks parts.

    weights, model: files of the generator and of all other parts.
    """
    parts: Tree = {"generator": read_generator(weights, dtype)}
    for name, value in read_hdf5(model).items():
        # Names are PART.NAME, as `ctd.lfads.results.name_weights` wrote them, without `model.`.
        part, _, entry = name.partition(".")
        parts.setdefault(part, {})[entry] = value.astype(dtype)
    lacks = {"encoder_forward", "encoder_backward", "ic"} - parts.keys()
    if not {"output", "readout"} & parts.keys():
        lacks.add("output")
    if lacks:
        raise ValueError(
            f"model: {model}: lacks {', '.join(sorted(lacks))}; give STORE::ITEM::model of a store of lfads"
        )
    return parts


def check_sizes(inputs: View[Model], weights: Tree, source: Any) -> None:
    """Raise ValueError, naming the field, where the parts of a model have other sizes than the job gives."""
    generator = weights["generator"]
    cell = _cell_of(generator)
    sizes: dict[str, Any] = {
        "generator_cell": cell.name,
        "generator": cell.infer(generator)[0],
        "n_factors": len(generator["wO"]),
    }
    if cell is node:
        sizes["field_units"] = len(generator["wFHX"])
    if "encoder_forward" in weights:
        # Rows of wCHX are units; a part that is not there has none.
        rows = lambda part: len(weights[part]["wCHX"]) if part in weights else 0
        sizes = {"controller": rows("controller"), **sizes, "encoder": rows("encoder_forward")}
    if "inputs" in weights:
        sizes["n_inputs"] = len(weights["inputs"]["w"]) // 2
    for name, size in sizes.items():
        if getattr(inputs, name) != size:
            raise ValueError(
                f"{name}: {getattr(inputs, name)} given, but the model of {source} has {size}; "
                f"write {name}: {size}"
            )


def n_external(inputs: View[Model], generator: Tree) -> int:
    """The number of external inputs that a generator was trained with: its inputs less the inferred ones."""
    # Columns of the generator are inferred inputs, then external ones.
    n_inferred = inputs.n_inputs if inputs.controller else 0
    return _cell_of(generator).infer(generator)[1] - n_inferred


def _cell_of(generator: Tree) -> Cell:
    return node if "wV" in generator else gru


def read_core(inputs: View[Model], dataset: Dataset) -> Dataset:
    """Add to the dataset the core that `core` and `core_model` name. Raises ValueError where it does not fit the job or the data."""
    if inputs.core_model is None:
        weights: Tree = {"generator": read_generator(inputs.core, inputs.dtype)}
        cell_weights = _cell_of(weights["generator"]).shapes(1, 1)
        if missing := {*cell_weights, "wO"} - weights["generator"].keys():
            raise ValueError(
                f"core: {inputs.core}: lacks {', '.join(sorted(missing))}; give STORE::ITEM of a store of lfads"
            )
    else:
        weights = read_trained(inputs.core, inputs.core_model, inputs.dtype)
        if "readin" not in weights:
            raise ValueError(
                f"core_model: {inputs.core_model}: was trained on one file and has no read-in, so its encoder fits the units "
                "of that file alone; give core without core_model, or a model that was trained on a list of files"
            )
    if (prior := weights.get("input_prior")) is not None:
        of_core = "ar1" if "log_tau" in prior else "gaussian"
        if inputs.input_prior != of_core:
            raise ValueError(
                f"input_prior: {inputs.input_prior} given, but the model of {inputs.core_model} has {of_core}; write "
                f"input_prior: {of_core}"
            )
    # Before arrays meet, so that the error names the field instead of a shape.
    check_sizes(inputs, weights, inputs.core)
    has, fits = dataset.train.n_external, n_external(inputs, weights["generator"])
    if has != fits:
        raise ValueError(
            f"data: has {has} external inputs, but the core {inputs.core} was trained with {fits}"
        )
    core = {part: dict(entries) for part, entries in weights.items() if part not in OF_SESSIONS}
    # A network of ctd.cells has them; the model's h0 is the mean of ic_prior, its bO is 0.
    for name in ("h0", "bO"):
        core["generator"].pop(name, None)
    return dataset._replace(core=core)


def posterior_params(
    trained: Mapping[str, Any], store: str, item: int, seed: int
) -> dict[str, Any]:
    """The parameters of `lfads.posterior` for a trained model: those of its training that inference reads, and its place in the store.

    trained: the item's parameters that both kernels have. seed: of the job that trained it, so that the same draws are made.
    """
    kinds = field_kinds(Model)
    of_training = {"n_saved", "save", "core", "core_model", "n_batches"}
    # Inference reads these two traced fields alone; `kl_ramp` and others must fit n_batches.
    of_training |= {k for k in kinds if kinds[k] is Kind.TRACED} - {"variance_floor", "seed"}
    params = {name: value for name, value in trained.items() if name not in of_training}
    params |= {"weights": f"{store}::{item}", "model": f"{store}::{item}::model"}
    return params | {"of_seed": seed, "of_item": item}


def by_session(
    params: Mapping[str, Any], data: str | None, place: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The parameters of a posterior for each session of a model: one for each file that it was trained on.

    Args:
        data: another file of trials instead, of one session: of the one that was trained on it, or else by its units.
        place: where a file of training is.
    """
    files = params["data"]
    if isinstance(files, str):
        return [{**params, "data": data or files}]
    units = params.get("held_out_units") or [()] * len(files)
    # Of a single file, no list is around its units.
    held_out = [units] if isinstance(units[0], int) else units

    def of_session(k: int, file: str) -> dict[str, Any]:
        return {**params, "data": file, "session": k, "held_out_units": held_out[k]}

    if data is None:
        return [of_session(k, file) for k, file in enumerate(files)]
    trained_on = [os.path.realpath(place(file)) for file in files]
    if os.path.realpath(data) in trained_on:
        return [of_session(trained_on.index(os.path.realpath(data)), data)]
    return [{**params, "data": data}]


def held_out_of_session(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a posterior of one file, with the held-out units of its session where training had a list for each.

    Raises ValueError if the lists differ and no `session` says which of them is meant.

    >>> held_out_of_session({"held_out_units": ((3, 8), ()), "session": 0})
    {'held_out_units': (3, 8), 'session': 0}
    """
    lists: Any = params.get("held_out_units") or ()
    session: Any = params.get("session")
    if all(isinstance(unit, int) for unit in lists):
        return dict(params)
    if session is None and all(units == lists[0] for units in lists):
        session = 0
    if session not in range(len(lists)):
        raise ValueError(
            f"session: {session} given, but held_out_units has a list for each of {len(lists)} sessions; say which of them "
            f"{params['data']} is of, such as --set params.session=0"
        )
    return {**params, "held_out_units": lists[session]}
