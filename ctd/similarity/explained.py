"""How much a parameter of the networks explains of their distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.similarity.embedding import inner_products


class Explained(NamedTuple):
    """What one parameter explains."""

    r2: float
    """Distance-based R2 (McArdle & Anderson 2001): tr(H G) / tr(G), G the inner products of the distances, H the
    projection on the parameter (numbers: a line; texts: a mean for each)."""
    r2_p: float
    mantel: float
    """Mantel correlation (1967) of the distances with the differences |a - b| of the parameter (texts: 0 or 1)"""
    mantel_p: float
    """Both p: share of permutations of the networks, this one included, with as large a value"""


def explained(
    distances: np.ndarray, values: np.ndarray, n_permutations: int, seed: int
) -> Explained:
    """What one parameter explains of (n, n) distances. values: (n,) numbers or texts; NaN for constant distances."""
    orders = permutations(len(values), n_permutations, seed)
    products = inner_products(distances)
    r2, r2_p = _permuted(projection(values), products, orders)
    scale = np.trace(products)
    apart = differences(values)
    off = ~np.eye(len(values), dtype=bool)
    a = np.where(off, apart - apart[off].mean(), 0)
    b = np.where(off, distances - distances[off].mean(), 0)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    product, mantel_p = _permuted(a, b, orders)
    if scale <= 0 or size <= 0:
        return Explained(*[float("nan")] * 4)
    return Explained(r2 / scale, r2_p, product / size, mantel_p)


def permutations(n: int, count: int, seed: int) -> np.ndarray:
    """(count, n) orders, equally likely."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def projection(values: np.ndarray) -> np.ndarray:
    """(n, n) H: the projection on the centred numbers, or on the centred indicators of the texts."""
    numbers = values.dtype.kind == "f"
    design = values[:, None] if numbers else (values[:, None] == np.unique(values)).astype(float)
    u, s, _ = np.linalg.svd(design - design.mean(axis=0), full_matrices=False)
    u = u[:, s > 1e-10 * max(s.max(initial=0), 1e-300)]
    return u @ u.T


def differences(values: np.ndarray) -> np.ndarray:
    """(n, n) |a - b|, or of texts whether they differ."""
    if values.dtype.kind == "f":
        return np.abs(values[:, None] - values[None])
    return (values[:, None] != values[None]).astype(float)


def _permuted(weights: np.ndarray, matrix: np.ndarray, orders: np.ndarray) -> tuple[float, float]:
    """(sum of weights * matrix, its p): networks of the matrix change places, which keeps means and norms."""
    value = float(np.sum(weights * matrix))
    found = np.asarray([np.sum(weights * matrix[np.ix_(p, p)]) for p in orders])
    # Equal sums differ by rounding, which must not make p smaller.
    slack = 1e-10 * np.linalg.norm(weights) * np.linalg.norm(matrix)
    return value, float((1 + np.sum(found >= value - slack)) / (1 + len(orders)))
