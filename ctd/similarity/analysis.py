"""Analysis of a distance matrix: embedding, clusters, and the share that a parameter of the networks explains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.late import scipy

MOST_CLUSTERS = 10
"""Most clusters that are tried if no number is given."""

BEST_ORDER = 200
"""Most networks for which leaves of the dendrogram are ordered so that neighbours are similar: it takes n^3 steps."""


def inner_products(distances: np.ndarray) -> np.ndarray:
    """The inner products (n, n) of centred points with distances D (n, n): -J D^2 J / 2, J = 1 - 11'/n (Gower 1966).

    >>> inner_products(np.array([[0.0, 2.0], [2.0, 0.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    squares = -(distances**2) / 2
    mean = squares.mean(axis=0)
    return squares - mean[:, None] - mean[None] + squares.mean()


def classical_mds(distances: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed n points by their distances (n, n) in the k components of largest variance (Torgerson 1952).

    Returns ((n, k) points, (k,) each component's share of the sum of all |eigenvalues|). Shares add up to less than 1 if distances
    are not Euclidean.

    >>> classical_mds(np.array([[0.0, 3.0], [3.0, 0.0]]), 1)[0].round(3).tolist()
    [[1.5], [-1.5]]
    """
    values, vectors = np.linalg.eigh(inner_products(distances))
    # All eigenvalues, negative ones too, which distances that are not Euclidean have.
    total = np.abs(values).sum()
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    points = vectors * np.sign(largest) * np.sqrt(np.maximum(values, 0))
    share = np.maximum(values, 0) / (total or 1)
    # Fewer networks than components: fill with zeros, so that tables have one width.
    missing = k - len(share)
    return np.pad(points, ((0, 0), (0, missing))), np.pad(share, (0, missing))


class Clusters(NamedTuple):
    """Hierarchical clusters."""

    merges: np.ndarray
    """(n - 1, 4) SciPy's linkage matrix: the two that are joined, their distance, the number of networks in both."""
    order: np.ndarray
    """(n,) networks in the order of the dendrogram's leaves."""
    cluster: np.ndarray
    """(n,) number of each network's cluster, 0, 1, ... along that order."""


def clusters(distances: np.ndarray, method: str, n_clusters: int | None) -> Clusters:
    """Cluster networks hierarchically by their distances (n, n).

    method: single, complete or average linkage. n_clusters: by default the number with the largest mean silhouette.

    >>> apart = np.array([[0.0, 0.1, 5.0], [0.1, 0.0, 5.0], [5.0, 5.0, 0.0]])
    >>> clusters(apart, "average", 2).cluster.tolist() in ([0, 0, 1], [1, 1, 0])
    True
    """
    hierarchy = scipy.cluster.hierarchy
    n = len(distances)
    condensed = distances[np.triu_indices(n, 1)]
    merges = hierarchy.linkage(condensed, method, optimal_ordering=n <= BEST_ORDER)
    order = hierarchy.leaves_list(merges)
    # Not `fcluster`, which gives fewer clusters where merges tie.
    cut = lambda k: hierarchy.cut_tree(merges, k).ravel()
    # The silhouette is not defined for one cluster, nor for n clusters of one network.
    some = range(2, min(MOST_CLUSTERS, n - 1) + 1)
    if n_clusters is None:
        n_clusters = max(some, key=lambda k: silhouette(distances, cut(k)), default=1)
    # SciPy numbers clusters in no order that a reader sees: renumber them along the leaves.
    names = cut(min(n_clusters, n))
    _, first = np.unique(names[order], return_index=True)
    place = {names[order][k]: rank for rank, k in enumerate(np.sort(first))}
    return Clusters(merges, order, np.asarray([place[name] for name in names]))


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """The mean of (b - a) / max(a, b): mean distance a to its own cluster, b to the nearest other (Rousseeuw 1987).

    A network that is a cluster of its own counts 0.
    """
    _, cluster = np.unique(labels, return_inverse=True)
    member = np.eye(cluster.max() + 1)[cluster]
    size = member.sum(axis=0)
    if len(size) < 2:
        return 0.0
    sums = distances @ member
    at = np.arange(len(cluster)), cluster
    within = sums[at] / np.maximum(size[cluster] - 1, 1)
    means = sums / size
    means[at] = np.inf  # the own cluster is no other
    other = means.min(axis=1)
    larger = np.maximum(within, other)
    value = np.divide(other - within, larger, out=np.zeros_like(within), where=larger > 0)
    return float(np.where(size[cluster] > 1, value, 0).mean())


class Explained(NamedTuple):
    """The share of the distances that a parameter explains. p: share of permutations, the given order included, with as large a value."""

    r2: float
    """Distance-based R2 (McArdle & Anderson 2001): tr(H G) / tr(G), G the inner products of the distances, H the
    projection on the parameter (numbers: a line; texts: a mean for each)."""
    r2_p: float
    mantel: float
    """Mantel correlation (1967) of the distances with the differences |a - b| of the parameter (texts: 0 or 1)."""
    mantel_p: float


def explained(
    distances: np.ndarray, values: np.ndarray, n_permutations: int, seed: int
) -> Explained:
    """Test how much a parameter explains of distances (n, n). values: (n,) numbers or texts.

    All four numbers are NaN if the distances or the values are constant.

    >>> x = np.array([0.0, 1.0, 2.0, 5.0])
    >>> test = explained(abs(x[:, None] - x), x, n_permutations=99, seed=0)
    >>> f"{test.r2:.3f} {test.mantel:.3f}"
    '1.000 1.000'
    """
    apart = differences(values)
    # Mantel: the correlation over pairs of different networks; the zeros of the diagonal do not count.
    off = ~np.eye(len(values), dtype=bool)
    if not (np.ptp(distances[off]) and np.ptp(apart[off])):
        return Explained(*[float("nan")] * 4)
    same = np.tile(np.arange(len(values)), (n_permutations, 1))
    orders = np.random.default_rng(seed).permuted(same, axis=1)
    products = inner_products(distances)
    r2, r2_p = _permuted(projection(values), products, orders)
    a = np.where(off, apart - apart[off].mean(), 0)
    b = np.where(off, distances - distances[off].mean(), 0)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    product, mantel_p = _permuted(a, b, orders)
    return Explained(r2 / np.trace(products), r2_p, product / size, mantel_p)


def projection(values: np.ndarray) -> np.ndarray:
    """The projection H (n, n) on the centred numbers, or on the centred indicators of the texts. values: (n,)."""
    numbers = values.dtype.kind == "f"
    design = values[:, None] if numbers else (values[:, None] == np.unique(values)).astype(float)
    u, s, _ = np.linalg.svd(design - design.mean(axis=0), full_matrices=False)
    # Centred indicators are linearly dependent: drop the direction that only rounding leaves. 1e-300 serves s = 0.
    u = u[:, s > 1e-10 * max(s.max(initial=0), 1e-300)]
    return u @ u.T


def differences(values: np.ndarray) -> np.ndarray:
    """The differences (n, n) of values (n,): |a - b| of numbers; 1 where texts differ, else 0."""
    if values.dtype.kind == "f":
        return np.abs(values[:, None] - values[None])
    return (values[:, None] != values[None]).astype(float)


def _permuted(weights: np.ndarray, matrix: np.ndarray, orders: np.ndarray) -> tuple[float, float]:
    """(sum of weights * matrix, its p over permutations of the matrix's networks, which keep its mean and norm)."""
    value = float(np.sum(weights * matrix))
    permuted_sums = np.asarray([np.sum(weights * matrix[np.ix_(p, p)]) for p in orders])
    # Equal sums differ by rounding, which must not make p smaller.
    slack = 1e-10 * np.linalg.norm(weights) * np.linalg.norm(matrix)
    return value, float((1 + np.sum(permuted_sums >= value - slack)) / (1 + len(orders)))
