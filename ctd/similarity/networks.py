"""The networks that are compared: their states in common trials, their fixed points, their labels and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ctd import tasks
from ctd.cells import Weights, as_weights, get_cell, run, sizes
from ctd.containers import opened_hdf5, text_attribute
from ctd.data import dataset_of, read_arrays, read_table
from ctd.kernel import View
from ctd.late import Array, Float, jax
from ctd.similarity.params import OF_DYNAMICS, OF_INPUTS, OF_POINTS, Comparison, Method
from ctd.weights import keras_file, read_weights
from ctd.words import number

MOST = 10_000
"""Most networks: the matrix of more would take more than a gigabyte, and its eigenvectors hours."""

NOT_PARAMETERS = {"store", "item", "kernel", "weights", "candidates", "address"}
"""Attributes of a file that state its origin, not a swept parameter."""


class Table(NamedTuple):
    """The arrays that are read of a network's fixed points."""

    kernel: str
    needed: tuple[str, ...]
    further: tuple[str, ...] = ()
    """Columns that a user's own table may lack."""


TABLES = {
    "points": Table("fixed_points", ("n_unstable", "n_marginal", "q"), ("error", "constant_input")),
    "connections": Table("fixed_points.connections", ("leads",)),
}
"""Field of files -> the arrays that are read of them."""


def tables_of(method: Method) -> list[str]:
    """The fields of the tables that a method of fixed points compares."""
    return [*TABLES] if method == "connections" else ["points"]


type NetworkStates = tuple[ArrayLike, ArrayLike | None]
"""The states (trial, time, state) of a network; its inputs (trial, time, input) if these are fitted, too."""

type Label = float | str
"""The value of a parameter of a network: a number or a text."""


class Annotations(NamedTuple):
    """Labels and parameters of the networks."""

    labels: tuple[str, ...]
    """One for each network, all different."""
    parameters: dict[str, np.ndarray]
    """Parameter in which the networks differ -> (network,) numbers (float) or texts."""


def files_of(inputs: View[Comparison]) -> tuple[str, ...]:
    """The files that stand for the networks, one for each.

    Raises ValueError if a method lacks its files, or there are fewer than two networks, or too many for their matrix.
    """
    sources = {
        name: getattr(inputs, name) for name in ("weights", "states", "points", "connections")
    }
    if inputs.method in OF_POINTS:
        for field in tables_of(inputs.method):
            if not sources[field]:
                raise ValueError(
                    f"{field}: missing, but method {inputs.method} compares tables of them; give {{stage: ..., part: table}} of a "
                    f"{TABLES[field].kernel} stage"
                )
    elif bool(inputs.weights) == bool(inputs.states):
        raise ValueError(
            f"weights, states: method {inputs.method} needs either files of weights or files of states; give one for each "
            "network, as a list or as {stage: ...} of a pipeline"
        )
    n = {name: len(files) for name, files in sources.items() if files}
    if len(set(n.values())) > 1:
        listing = ", ".join(f"{count} of {name}" for name, count in n.items())
        raise ValueError(
            f"networks: {listing} given; give the same number of files of each, in the same order"
        )
    files = inputs.states or inputs.weights or inputs.points
    check_count(len(files))
    return files


def check_count(n: int) -> None:
    """Raise ValueError if there are fewer than two networks, or too many for their matrix."""
    if n < 2:
        raise ValueError(f"networks: {n} given; give at least two")
    if n > MOST:
        raise ValueError(
            f"networks: {n:,} given; give at most {MOST:,}, since the matrix of all {n * (n - 1) // 2:,} pairs takes "
            f"{8e-9 * n * n:.1f} GB; select some by `where` and `limit`"
        )


# --- data that methods compare --------------------------------------------------------------------


def read_networks(inputs: View[Comparison]) -> Iterable[Any]:
    """Iterate over the data of each network that the method compares: `NetworkStates`, or its table of points (see `topology.counts`).

    All states may not fit the memory at once. Raises ValueError, naming the file.
    """
    files, driven = files_of(inputs), is_driven(inputs)
    if inputs.method in OF_POINTS:
        return _tables(inputs)
    if inputs.weights:
        # All weights are read before the first network runs, so that a file that does not fit is refused at once.
        return _simulated([_network(path, inputs) for path in files], inputs, driven)
    return (_stored(path, inputs, driven) for path in files)


def is_driven(inputs: View[Comparison]) -> bool:
    """Tell if the effect of inputs is fitted apart from the dynamics. Raises ValueError if delays are not consecutive."""
    driven = inputs.method in OF_DYNAMICS and (inputs.driven or inputs.method in OF_INPUTS)
    if driven and inputs.delay_interval != 1:
        raise ValueError(
            f"delay_interval: {inputs.delay_interval} given, but where inputs are fitted every step counts; leave it at 1"
        )
    return driven


def _stored(path: str, inputs: View[Comparison], driven: bool) -> NetworkStates:
    arrays, source = read_arrays(path, inputs.dataset), f"states: {path}"
    hint = "; train_rnn stores states if n_saved is above 0"
    states = dataset_of(source, arrays, inputs.dataset, hint)
    if not driven:
        return states, None
    hint = "; put the inputs of its trials there, (trial, time, input)"
    return states, dataset_of(source, arrays, "inputs", hint)


def _network(path: str, inputs: View[Comparison]) -> tuple[str, Weights]:
    """Read a network: (cell, weights). Raises ValueError if it cannot run the task."""
    loaded = read_weights(path, inputs.cell)
    inputs.task.check_inputs(sizes(*loaded[:2]).n_in, path, ", which all networks can run")
    return loaded.cell, as_weights(loaded.params, inputs.dtype)


def _simulated(
    networks: Sequence[tuple[str, Weights]], inputs: View[Comparison], driven: bool
) -> Iterator[NetworkStates]:
    """Run the same trials in all networks: differences between trials would count as differences between networks."""
    key = jax.random.key(inputs.trial_seed)
    x = tasks.batch(inputs.task, key, inputs.n_trials, inputs.dtype).inputs
    for cell, weights in networks:
        yield np.asarray(_runner(cell)(weights, x)), np.asarray(x) if driven else None


@cache
def _runner(
    cell: str,
) -> Callable[[Weights, Float[Array, "trial time n_in"]], Float[Array, "trial time state"]]:
    """The function (weights, inputs) -> states, compiled once for each cell."""
    # Networks of other sizes are traced again; a jit made for each network would compile for each.
    network_cell = get_cell(cell)
    return jax.jit(lambda weights, x: jax.vmap(lambda x: run(network_cell, weights, x)[0])(x))


def _tables(inputs: View[Comparison]) -> list[dict[str, np.ndarray]]:
    tables = [read_table("points", path, *TABLES["points"]) for path in inputs.points]
    if inputs.method != "connections":
        return tables
    graphs = [
        read_table("connections", path, *TABLES["connections"]) for path in inputs.connections
    ]
    for k, (table, graph) in enumerate(zip(tables, graphs, strict=True)):
        n = len(table["q"])
        if graph["leads"].shape != (n, n):
            raise ValueError(
                f"connections: {inputs.connections[k]}: connections of {len(graph['leads'])} points, but "
                f"{inputs.points[k]} has {n}; give connections and points of the same networks, in the same order"
            )
    return [{**table, **graph} for table, graph in zip(tables, graphs, strict=True)]


# --- labels and parameters ------------------------------------------------------------------------


def read_annotations(inputs: View[Comparison]) -> Annotations:
    """Read labels and parameters of the networks; the file of a store's item has the parameters as attributes."""
    names, attributes = zip(*map(_about, files_of(inputs)), strict=True)
    # The groups of one store have their numbers, too.
    stores = [name.partition(".zarr/")[0] for name in names]
    return annotate(stores if len(set(stores)) == len(stores) else names, attributes)


def _about(path: str) -> tuple[str, dict[str, Label]]:
    """(name, parameters) of a network; files of frameworks have no parameters."""
    name, attributes = Path(path).stem, dict[str, Any]()
    if h5py.is_hdf5(path):
        with opened_hdf5(path) as file:
            # A copy, whose own name tells nothing, comes from STORE::ITEM, or STORE/gathered/GROUP for a table.
            if address := text_attribute(file, "address"):
                name = "/".join(address.split("/")[-1 if "::" in address else -3 :])
            if not keras_file.is_keras(file):
                attributes = dict(file.attrs)
    parameters = {
        k: v for k, v in attributes.items() if k not in NOT_PARAMETERS and np.ndim(v) == 0
    }
    # h5py returns NumPy's scalars; labels and tables take Python's.
    return name, {k: v.item() if hasattr(v, "item") else v for k, v in parameters.items()}


def annotate(names: Sequence[str], attributes: Sequence[Mapping[str, Label]]) -> Annotations:
    """Make the labels of networks, and the parameters in which they differ.

    names: of the networks, the labels of those without parameters. attributes: of each network.

    >>> annotate(["a", "b"], [{"n": 50, "g": 1.5}, {"n": 100, "g": 1.5}]).labels
    ('n=50', 'n=100')
    """
    # Only attributes that all networks have can be compared.
    fields = [field for field in attributes[0] if all(field in network for network in attributes)]
    columns = {
        field: _column(field, [network[field] for network in attributes]) for field in fields
    }
    parameters = {field: values for field, values in columns.items() if len(np.unique(values)) > 1}
    text = lambda value: value if isinstance(value, str) else number(value, 3)
    labels = [
        " ".join(f"{field}={text(values[k])}" for field, values in parameters.items()) or name
        for k, name in enumerate(names)
    ]
    # Replicates have equal parameters: number them.
    if len(set(labels)) < len(labels):
        labels = [f"{k}: {label}" for k, label in enumerate(labels)]
    return Annotations(tuple(labels), parameters)


def _column(field: str, values: Sequence[Label]) -> np.ndarray:
    column = np.asarray(values)
    # Truth values and seeds become texts, groups without an order.
    ordered = column.dtype.kind in "iuf" and not field.endswith("seed")
    return column.astype(float if ordered else str)
