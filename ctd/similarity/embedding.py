"""Points whose distances are nearly those of a matrix, and clusters of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.late import scipy

MOST_CLUSTERS = 10
"""Where no number of clusters is given, as many are tried."""

BEST_ORDER = 200
"""Up to so many networks, leaves of the dendrogram are turned so that neighbours are alike: it takes n^3."""


class Embedding(NamedTuple):
    """Classical multidimensional scaling."""

    points: np.ndarray
    """(network, component)"""
    share: np.ndarray
    """(component,) of the sum of all |eigenvalues|; they do not reach 1 where distances are not Euclidean"""


def inner_products(distances: np.ndarray) -> np.ndarray:
    """(n, n) -J D^2 J / 2, J = 1 - 11'/n: the inner products of centred points with distances D (Gower 1966)."""
    squares = -(distances**2) / 2
    mean = squares.mean(axis=0)
    return squares - mean[:, None] - mean[None] + squares.mean()


def classical_mds(distances: np.ndarray, k: int) -> Embedding:
    """The k components of largest variance (Torgerson 1952). A point's largest component is positive."""
    products = inner_products(distances)
    values, vectors = np.linalg.eigh(products)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    points = vectors * np.sign(largest) * np.sqrt(np.maximum(values, 0))
    total = np.abs(np.linalg.eigvalsh(products)).sum()
    share = np.maximum(values, 0) / (total or 1)
    missing = k - len(share)
    return Embedding(np.pad(points, ((0, 0), (0, missing))), np.pad(share, (0, missing)))


class Clusters(NamedTuple):
    """Hierarchical clusters."""

    merges: np.ndarray
    """(n - 1, 4) SciPy's linkage matrix: the two that are joined, at which distance, how many networks they have"""
    order: np.ndarray
    """(n,) networks in the order of the dendrogram's leaves"""
    cluster: np.ndarray
    """(n,) number of each network's cluster, 0, 1, ... along that order"""


def clusters(distances: np.ndarray, method: str, n_clusters: int | None) -> Clusters:
    """Clusters of networks; their number, unless given, has the largest mean silhouette.

    method: single, complete, average.
    """
    hierarchy = scipy.cluster.hierarchy
    n = len(distances)
    condensed = distances[np.triu_indices(n, 1)]
    merges = hierarchy.linkage(condensed, method, optimal_ordering=n <= BEST_ORDER)
    order = hierarchy.leaves_list(merges)
    cut = lambda k: hierarchy.fcluster(merges, k, "maxclust")
    some = range(2, min(MOST_CLUSTERS, n - 1) + 1)
    if n_clusters is None:
        n_clusters = max(some, key=lambda k: silhouette(distances, cut(k)), default=1)
    names = cut(min(n_clusters, n))
    _, first = np.unique(names[order], return_index=True)
    place = {names[order][k]: rank for rank, k in enumerate(np.sort(first))}
    return Clusters(merges, order, np.asarray([place[name] for name in names]))


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """The mean of (b - a) / max(a, b): mean distance a to its own cluster, b to the nearest other (Rousseeuw 1987).

    A network that is a cluster of its own counts 0.
    """
    _, which = np.unique(labels, return_inverse=True)
    member = np.eye(which.max() + 1)[which]
    size = member.sum(axis=0)
    if len(size) < 2:
        return 0.0
    sums = distances @ member
    at = np.arange(len(which)), which
    own = sums[at] / np.maximum(size[which] - 1, 1)
    means = sums / size
    means[at] = np.inf
    other = means.min(axis=1)
    larger = np.maximum(own, other)
    value = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return float(np.where(size[which] > 1, value, 0).mean())
