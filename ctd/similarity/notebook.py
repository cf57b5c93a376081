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
from ctd.words import count, suggests

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


@suggests
def compare(
    networks: Mapping[str, Compares] | Sequence[Compares], method: Method = "procrustes", *, inputs: Sequence[ArrayLike] | None = None,
    parameters: Mapping[str, Sequence[Label]] | None = None, dtype: str = "float64",
    n_samples: int = 2000, variance: float = 0.99, bandwidth: float = 0.8, n_delays: int = 5, delay_interval: int = 1,
    rank: int = 10, starts: int = 4, max_iterations: int = 500, max_q: float | None = None, rounds: int = 2, n_components: int = 3,
    linkage: str = "average", n_clusters: int | None = None, n_permutations: int = 999, permutation_seed: int = 0,
) -> Compared:  # fmt: skip
    """Compute the distances between networks, embed and cluster them, and test what parameters explain of them.

    >>> states = np.random.default_rng(0).standard_normal((50, 3))
    >>> turned = states @ np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    >>> compare([states, turned, states**3]).distances[0].round(1)
    array([0. , 0. , 0.6])

    Args:
        networks: for each network its states (trial, time, unit) in the same trials, or (sample, unit); widths may differ. A
            mapping names them. For dsa, dsa:... trials may differ, and NaN fills those that end earlier. For topology, the
            `unique` of `ctd.fixed_points.find`; for connections also `leads` (point, point), above 0 where one leads to another.
        method: procrustes, cka, rbf_cka, svcca, cca, dsa, dsa:eigenvalues, dsa:joint, dsa:input, topology or connections.
        inputs: dsa, dsa:...: the inputs (trial, time, input) of each network, which are fitted apart from its dynamics.
        parameters: name -> one number or text for each network, such as its cell.
        dtype: "float64" or "float32".
        n_samples: most states compared, evenly spread over all trials and steps; dsa takes all.
        variance: svcca: share of the variance that the components explain.
        bandwidth: rbf_cka: sd of the kernel, in median distances between states.
        n_delays: dsa: states of a row of the delay embedding; with inputs, steps of past and of future.
        delay_interval: dsa: steps between two of these states; 1 with inputs.
        rank: dsa: dimension of the linear dynamics.
        starts: dsa: rotations from which the alignment is optimised; up to 8 times as many where they disagree.
        max_iterations: dsa: most steps from each start.
        max_q: topology, connections: points with a larger q = |F(h) - h|^2 / 2 are left out.
        rounds: connections: rounds of relabelling; a label reflects the graph up to so many connections away.
        n_components: dimensions of the embedding.
        linkage: "average", "complete" or "single".
        n_clusters: number of clusters; None takes the number from 2 to 10 of the best silhouette.
        n_permutations: permutations of the networks that test a parameter.
        permutation_seed: seed of these permutations.

    Returns:
        `distances` (network, network), symmetric; `tables`: embedding, cluster, r2, ...; `figure()`.

    Raises:
        ValueError: the networks cannot be compared, a setting is out of its range, or there is no such setting.
    """
    return _compare(networks, inputs, parameters or {}, {
        "method": method, "driven": inputs is not None, "dtype": dtype, "n_samples": n_samples, "variance": variance,
        "bandwidth": bandwidth, "n_delays": n_delays, "delay_interval": delay_interval, "rank": rank, "starts": starts,
        "max_iterations": max_iterations, "max_q": max_q, "rounds": rounds,
    }, {"n_components": n_components, "linkage": linkage, "n_clusters": n_clusters,
        "n_permutations": n_permutations, "permutation_seed": permutation_seed})  # fmt: skip


def _compare(
    networks: Mapping[str, Compares] | Sequence[Compares],
    inputs: Sequence[ArrayLike] | None,
    parameters: Mapping[str, Sequence[Label]],
    settings: Mapping[str, object],
    option_values: Mapping[str, object],
) -> Compared:
    params, options = checked(Comparison, settings), checked(Options, option_values)
    by_name = networks if isinstance(networks, Mapping) else dict(enumerate(networks))
    names, network_list = [str(name) for name in by_name], list(by_name.values())
    check_count(len(names))
    # Before the features, which may take long: a list of the wrong length is refused at once.
    annotations = _annotations_of(names, parameters)
    view = inputs_of(params)
    features = features_of(view, names, _network_data(view, names, network_list, inputs))
    rows = np.arange(len(names))  # an item for each row of the matrix
    # `shared` stands for the files that a job would read.
    results = run_items(kernel, params, {"matrix_row": rows}, shared=features)
    with precision(view):  # as `gather` reduces a job
        matrix = joined(rows, results, len(names))
        reduced = tables(matrix, annotations, np.asarray(features.size), options)
    return Compared(reduced["distances"], annotations.labels, reduced, annotations, view.method)


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
