"""The reduction: join the rows to a matrix, embed and cluster it, and test what parameters explain of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from ctd.kernel import Var, View
from ctd.rows import Columns, blocks
from ctd.similarity.analysis import classical_mds, clusters, explained
from ctd.similarity.features import Features
from ctd.similarity.networks import Annotations, read_annotations
from ctd.similarity.params import Comparison


class Options(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings of the reduction."""

    n_components: int = Field(3, gt=1, le=20)
    """dimensions of the embedding"""
    linkage: Literal["average", "complete", "single"] = "average"
    """distance of two clusters: the average, largest or smallest distance of their networks"""
    n_clusters: int | None = Field(None, gt=0)
    """clusters; by default the number from 2 to 10 that has the best silhouette"""
    n_permutations: int = Field(999, gt=0, le=100_000)
    """permutations of the networks that test a parameter"""
    permutation_seed: int = Field(0, ge=0)
    """seed of these permutations"""


_N, _P, _M, _Q = ("network",), ("pair",), ("merge",), ("parameter",)
REDUCED = {
    "network": Var(_N, "1", "label of the network: the parameters in which the networks differ"),
    "cluster": Var(_N, "1", "number of the network's cluster; -1: a distance is missing"),
    "leaf": Var(_N, "1", "place of the network in the dendrogram"),
    "mean_distance": Var(_N, "1", "mean distance to the other networks"),
    "components": Var(_N, "1", "units or components compared; narrower networks are padded"),
    "embedding": Var((*_N, "component"), "1", "classical multidimensional scaling"),
    "embedding_share": Var(("component",), "1", "share of the sum of all |eigenvalues|"),
    "distances": Var((*_N, "other"), "1", "distance of every two networks"),
    "first": Var(_P, "1", "label of the first network of the pair"),
    "second": Var(_P, "1", "label of the second network of the pair"),
    "pair_distance": Var(_P, "1", "distance of the pair"),
    "merge_first": Var(_M, "1", "first of the two joined: a network, or n + k for the cluster of merge k"),
    "merge_second": Var(_M, "1", "second of the two joined"),
    "merge_distance": Var(_M, "1", "distance at which the two are joined"),
    "merge_size": Var(_M, "1", "networks in the joined cluster"),
    "parameter": Var(_Q, "1", "a parameter in which the networks differ"),
    "n_values": Var(_Q, "1", "number of different values of the parameter"),
    "r2": Var(_Q, "1", "share of the squared distances that the parameter explains (distance-based R2)"),
    "r2_p": Var(_Q, "1", "share of permutations with as large an R2"),
    "mantel": Var(_Q, "1", "Mantel correlation of distances and differences of the parameter"),
    "mantel_p": Var(_Q, "1", "share of permutations with as large a correlation"),
    "n_missing": Var((), "1", "pairs without a distance, because their rows were not swept or failed"),
}  # fmt: skip
SUMMARY = ("parameter", "n_values", "r2", "r2_p", "mantel", "mantel_p")
PAIRS = ("first", "second", "pair_distance")
"""The table that is shown of networks without a parameter that explains anything, such as two networks."""


def reduce(
    inputs: View[Comparison], shared: Features, columns: Columns, results: Columns, options: Options
) -> dict[str, np.ndarray]:
    """Join all rows to the matrix, and make the tables of REDUCED from it."""
    distances = joined(np.asarray(columns["matrix_row"]), results, len(shared.size))
    return tables(distances, read_annotations(inputs), np.asarray(shared.size), options)


def joined(rows: np.ndarray, results: Columns, n: int) -> np.ndarray:
    """Join rows to the symmetric matrix (network, network): 0 on the diagonal, NaN where no row has the pair.

    Args:
        rows: (item,) row numbers.
        results: distance (item, network), NaN where the pair belongs to the other network's row.
        n: number of networks.

    >>> row = np.array([[np.nan, 0.5, np.nan], [np.nan, np.nan, 0.2], [0.9, np.nan, np.nan]])
    >>> joined(np.arange(3), {"distance": row}, 3).tolist()
    [[0.0, 0.5, 0.9], [0.5, 0.0, 0.2], [0.9, 0.2, 0.0]]
    """
    # NaN until a row fills it: 0 would be a distance.
    matrix = np.full((n, n), np.nan)
    start = 0
    for block in blocks(results, ("distance",)):
        distances = np.asarray(block["distance"], float)
        for row, distance in zip(rows[start : start + len(distances)], distances, strict=True):
            # A sweep may have more rows than there are networks.
            if row < n:
                finite = np.flatnonzero(np.isfinite(distance))
                matrix[row, finite] = matrix[finite, row] = distance[finite]
        start += len(distances)
    np.fill_diagonal(matrix, 0)
    return matrix


def tables(
    distances: np.ndarray, annotations: Annotations, components: np.ndarray, options: Options
) -> dict[str, np.ndarray]:
    """Make the tables of `REDUCED`. If distances are missing, those that need all of them hold NaN.

    distances: (network, network). components: (network,) number of compared components.
    """
    n, labels = len(distances), np.asarray(annotations.labels)
    i, j = np.triu_indices(n, 1)
    pairs = distances[i, j]
    complete = bool(np.isfinite(pairs).all())
    mean = distances.sum(axis=1) / max(1, n - 1)  # the diagonal adds 0; NaN if one is missing
    return {
        "network": labels,
        "mean_distance": mean,
        "components": np.asarray(components, int),
        "distances": distances,
        "first": labels[i],
        "second": labels[j],
        "pair_distance": pairs,
        "n_missing": np.asarray(int((~np.isfinite(pairs)).sum())),
        **(_arranged(distances, options) if complete else _unknown(n, options)),
        **_parameters(distances if complete else None, annotations, options),
    }


def _arranged(distances: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    points, share = classical_mds(distances, options.n_components)
    clustering = clusters(distances, options.linkage, options.n_clusters)
    return {
        "embedding": points,
        "embedding_share": share,
        "cluster": clustering.cluster,
        # `order` gives the network at each place; its inverse is the place of each network.
        "leaf": np.argsort(clustering.order),
        "merge_first": clustering.merges[:, 0].astype(int),
        "merge_second": clustering.merges[:, 1].astype(int),
        "merge_distance": clustering.merges[:, 2],
        "merge_size": clustering.merges[:, 3].astype(int),
    }


def _unknown(n: int, options: Options) -> dict[str, np.ndarray]:
    k = options.n_components
    integer_names = ("merge_first", "merge_second", "merge_size")
    return {
        "embedding": np.full((n, k), np.nan),
        "embedding_share": np.full(k, np.nan),
        "cluster": np.full(n, -1),
        "leaf": np.arange(n),  # no dendrogram: as they were given
        "merge_distance": np.zeros(0),
        **{name: np.zeros(0, int) for name in integer_names},
    }


def _parameters(
    distances: np.ndarray | None, annotations: Annotations, options: Options
) -> dict[str, np.ndarray]:
    """The table of parameters, the smallest p of R2 first, then the largest R2; NaN without distances."""
    names = list(annotations.parameters)
    rows = np.full((len(names), 4), np.nan)
    if distances is not None:
        settings = options.n_permutations, options.permutation_seed
        for k, name in enumerate(names):
            # One seed: p values do not depend on the others.
            rows[k] = explained(distances, annotations.parameters[name], *settings)
    # By p: many groups explain much by chance alone. NaN sorts last: parameters without an R2 stand below the others.
    order = np.lexsort((-rows[:, 0], rows[:, 1]))
    counts = [len(np.unique(annotations.parameters[name])) for name in names]
    return {
        "parameter": np.asarray(names, str)[order],
        "n_values": np.asarray(counts, int)[order],
        **{name: rows[order, k] for k, name in enumerate(("r2", "r2_p", "mantel", "mantel_p"))},
    }
