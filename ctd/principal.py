"""Principal components of points."""

from collections.abc import Callable
from typing import Any

import numpy as np


def principal_axes(points: np.ndarray, k: int) -> np.ndarray:
    """(n, min(k, n)) orthonormal columns: the directions of largest variance of (m, n) points."""
    return _spectrum(points)[1][:, :k]


def principal(points: Any, k: int) -> tuple[Callable[[Any], np.ndarray], np.ndarray]:
    """(a function (..., n) -> (..., min(k, n)) onto the first principal components of the (m, n) points;
    the shares of their variance)."""
    points = np.asarray(points, float)
    mean = points.mean(axis=0)
    variance, axes = _spectrum(points)
    share = variance[:k] / (variance.sum() or 1.0)
    return lambda values: (np.asarray(values, float) - mean) @ axes[:, :k], share


def _spectrum(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances, times the number of points, and directions; the largest first."""
    centred = points - points.mean(axis=0)
    variance, vectors = np.linalg.eigh(centred.T @ centred)
    return variance[::-1], vectors[:, ::-1]
