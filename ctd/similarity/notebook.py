"""`compare`: compute distances between networks from arrays, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ctd.batch import checked, precision, run_items
from ctd.kernel import View, inputs_of
from ctd.plots.png import Canvas, draw
from ctd.rows import lines_of
from ctd.similarity.features import features_of
from ctd.similarity.kernel import kernel
from ctd.similarity.networks import (
    TABLES,
    Annotations,
    Label,
    annotate,
    check_count,
    is_driven,
    tables_of,
)
from ctd.similarity.params import OF_DYNAMICS, OF_POINTS, Comparison, Method
from ctd.similarity.plots import pictures
from ctd.similarity.summary import SUMMARY, Options, joined, tables
from ctd.words import count

type Compares = ArrayLike | Mapping[str, ArrayLike]
"""The states of a network, or its table of points."""


@dataclass(frozen=True)
class Compared:
    """The distances between networks, and the tables made from them: the result of `compare`.

    >>> states = np.random.default_rng(0).standard_normal((50, 3))
    >>> comparison = compare({"a": states, "b": -states, "c": states**3})
    >>> comparison.labels, comparison.distances.shape, comparison.tables["cluster"].tolist() in ([0, 0, 1], [1, 1, 0])
    (('a', 'b', 'c'), (3, 3), True)
    """

    distances: np.ndarray
    """(network, network), symmetric, 0 on the diagonal."""
    labels: tuple[str, ...]
    """One for each network."""
    tables: dict[str, np.ndarray]
    """The tables of a job's reduction: embedding, cluster, parameter, r2, ... (see `ctd kernels similarity`)."""
    annotations: Annotations
    method: str

    def __repr__(self) -> str:
        """State the range of distances, the number of clusters, and the share that each parameter explains."""
        tables = self.tables
        pairs = tables["pair_distance"]
        head = (
            f"{len(self.labels)} networks, {count(len(pairs), 'pair')}, distance ({self.method}) {pairs.min():.4g} to "
            f"{pairs.max():.4g}, {count(len(np.unique(tables['cluster'])), 'cluster')}"
        )
        table = {name: tables[name] for name in SUMMARY}  # a row for each parameter
        return "\n".join([head, *(lines_of(table) if len(tables["parameter"]) else [])])

    def figure(self) -> Canvas:
        """Draw the matrix, the dendrogram and the embedding as a matplotlib Figure."""
        return draw(pictures(self.tables, self.annotations, self.method))


def compare(
    networks: Mapping[str, Compares] | Sequence[Compares],
    method: Method = "procrustes",
    *,
    inputs: Sequence[ArrayLike] | None = None,
    parameters: Mapping[str, Sequence[Label]] | None = None,
    **settings: object,
) -> Compared:
    """Compute the distances between networks, embed and cluster them, and test what parameters explain of them.

    Args:
        networks: for each network its states (trial, time, unit) in the same trials, or (sample, unit); widths may
            differ. For method topology, the `unique` of each network's `ctd.fixed_points.find`; for method connections,
            with `leads` (point, point), above 0 where the first point leads to the second. A mapping names them.
            For the methods dsa, dsa:... their trials may differ, and NaN fills those that end earlier.
        method: procrustes, cka, rbf_cka, svcca, cca, dsa, dsa:eigenvalues, dsa:joint, dsa:input, topology or connections.
        inputs: methods dsa, dsa:...: the inputs (trial, time, input) of each network, which are then fitted apart from its
            dynamics.
        parameters: name -> one number or text for each network, such as its cell.
        **settings: fields of `Comparison` (n_samples, variance, rank, dtype, ...) and of `Options` (n_clusters,
            n_permutations, ...).

    >>> states = np.random.default_rng(0).standard_normal((50, 3))
    >>> turned = states @ np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    >>> compare([states, turned, states**3]).distances.round(1)
    array([[0. , 0. , 0.6],
           [0. , 0. , 0.6],
           [0.6, 0.6, 0. ]])

    Raises ValueError if the networks cannot be compared.
    """
    by_name = networks if isinstance(networks, Mapping) else dict(enumerate(networks))
    names, network_list = [str(name) for name in by_name], list(by_name.values())
    check_count(len(names))
    option_values = {name: settings.pop(name) for name in Options.model_fields if name in settings}
    driven = {"method": method, "driven": inputs is not None}
    params = checked(Comparison, driven | settings, Options)
    options = checked(Options, option_values)  # Comparison refuses names that neither knows
    # Before the features, which may take long: a list of the wrong length is refused at once.
    annotations = _annotations_of(names, parameters or {})
    view = inputs_of(params)
    features = features_of(view, names, _network_data(view, names, network_list, inputs))
    rows = np.arange(len(names))  # an item for each row of the matrix
    # `shared` stands for the files that a job would read.
    results = run_items(kernel, params, {"matrix_row": rows}, shared=features)
    with precision(view):  # as `gather` reduces a job
        matrix = joined(rows, results, len(names))
        reduced = tables(matrix, annotations, np.asarray(features.size), options)
    return Compared(reduced["distances"], annotations.labels, reduced, annotations, method)


def _network_data(
    view: View[Comparison],
    names: Sequence[str],
    networks: Sequence[Any],
    inputs: Sequence[ArrayLike] | None,
) -> Iterable[Any]:
    """The data of the networks, in the form in which `read_networks` reads them from the files of a job."""
    if inputs is not None and view.method not in OF_DYNAMICS:
        raise ValueError(
            f"inputs: given, but method {view.method} does not fit dynamics; give method {', '.join(OF_DYNAMICS)}"
        )
    if view.method in OF_POINTS:
        needed = {name for field in tables_of(view.method) for name in TABLES[field].needed}
        for name, table in zip(names, networks, strict=True):
            if lacking := needed - (table.keys() if isinstance(table, Mapping) else set()):
                raise ValueError(
                    f"{name}: method {view.method} compares tables of points, and this one lacks {', '.join(sorted(lacking))}"
                )
        return networks
    if is_driven(view) and inputs is None:
        raise ValueError(
            "inputs: missing; give those of each network, (trial, time, input), as `inputs=`"
        )
    if inputs is not None and len(inputs) != len(names):
        raise ValueError(
            f"inputs: {len(inputs)} given for {len(names)} networks; give those of each network"
        )
    return zip(networks, inputs if inputs is not None else [None] * len(names), strict=True)


def _annotations_of(names: Sequence[str], parameters: Mapping[str, Sequence[Label]]) -> Annotations:
    n = len(names)
    for name, values in parameters.items():
        if len(values) != n:
            raise ValueError(
                f"parameters: {name}: {len(values)} values given for {n} networks; give one for each network"
            )
    return annotate(names, [{name: v[k] for name, v in parameters.items()} for k in range(n)])
