"""Principal components of points."""

from collections.abc import Callable
from typing import Any

import numpy as np


def principal_axes(points: np.ndarray, k: int) -> np.ndarray:
    """The first principal axes of (m, n) points: (n, min(k, n)) orthonormal columns, largest variance first."""
    return _spectrum(points)[1][:, :k]


def principal(points: Any, k: int) -> tuple[Callable[[Any], np.ndarray], np.ndarray]:
    """(project, share) by the first k principal components of (m, n) points.

    project maps (..., n) to (..., min(k, n)); share, (min(k, n),), is each component's part of the variance.
    """
    points = np.asarray(points, float)
    mean = points.mean(axis=0)
    variance, axes = _spectrum(points)
    share = variance[:k] / (variance.sum() or 1.0)
    return lambda values: (np.asarray(values, float) - mean) @ axes[:, :k], share


def _spectrum(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(variances times the number of points, directions in columns), largest variance first."""
    centred = points - points.mean(axis=0)
    variance, vectors = np.linalg.eigh(centred.T @ centred)
    return variance[::-1], vectors[:, ::-1]
