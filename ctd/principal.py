"""Principal components of points."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ctd.words import number


def principal_axes(points: np.ndarray, k: int) -> np.ndarray:
    """The first k principal axes of points (m, n): (n, min(k, n)) orthonormal columns, largest variance first.

    >>> abs(principal_axes(np.array([[0.0, 1.0], [0.0, 3.0]]), 1)).tolist()  # the points vary along y
    [[0.0], [1.0]]
    """
    return _spectrum(points)[1][:, :k]


def principal(points: ArrayLike, k: int) -> tuple[Callable[[ArrayLike], np.ndarray], np.ndarray]:
    """The first k principal components of points (m, n): (project, share).

    project maps arrays (..., n) to (..., min(k, n)); share (min(k, n),) is the part of the variance of each component.

    >>> project, share = principal([[0.0, 1.0], [0.0, 3.0]], 1)
    >>> share, abs(project([0.0, 4.0]))
    (array([1.]), array([2.]))
    """
    points = np.asarray(points, float)
    mean = points.mean(axis=0)
    variance, axes = _spectrum(points)
    # Points that are all equal have no variance; their share is 0 instead of NaN.
    share = variance[:k] / (variance.sum() or 1.0)
    return lambda values: (np.asarray(values, float) - mean) @ axes[:, :k], share


def component(share: np.ndarray, k: int, owner: str = "") -> str:
    """The label in pictures of an axis over component k, counted from 0; `owner` follows the number.

    >>> component(np.array([0.912, 0.05]), 0)
    'principal component 1 (91.2 % of the variance)'
    """
    return (
        f"principal component {k + 1}{owner} ({number(100 * float(share[k]), 3)} % of the variance)"
    )


def _spectrum(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(variances times the number of points, directions in columns), largest variance first."""
    # eigh of (n, n), not an SVD of (m, n): there are many points of few dimensions.
    centred = points - points.mean(axis=0)
    variance, vectors = np.linalg.eigh(centred.T @ centred)
    return variance[::-1], vectors[:, ::-1]  # eigh sorts in ascending order
