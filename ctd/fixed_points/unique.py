"""Which ends of the searches are the same point. Host side, NumPy and SciPy."""

import numpy as np
from scipy.spatial import cKDTree

N_COMPONENTS = 3
"""Dimensions of the search tree: beyond a few, a k-d tree visits everything."""


def cover(points: np.ndarray, tol: float) -> np.ndarray:
    """The leader of every point, (n,) row numbers: each lies within `tol` of its leader.

    Rows come best first: a row without a leader yet leads all leaderless rows within `tol` of it, in
    Euclidean distance. Leaders are so more than `tol` apart, and along a line of points they do
    not merge into one, as they would by single linkage. Candidates for the exact check come from a
    k-d tree on the first principal components, where no distance is larger than in the full space.
    Memory is O(n): rows near each other are visited, never listed as pairs.
    """
    leader = np.full(len(points), -1)
    if len(points) == 0:
        return leader
    projected = points @ principal_axes(points, N_COMPONENTS)
    tree = cKDTree(projected)
    # Rounding of the projection must not lose a neighbour.
    reach = tol * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
    for row in range(len(points)):
        if leader[row] >= 0:
            continue
        near = np.asarray(tree.query_ball_point(projected[row], reach))
        near = near[leader[near] < 0]
        near = near[np.linalg.norm(points[near] - points[row], axis=1) <= tol]
        leader[near] = row
        leader[row] = row
    return leader


def principal_axes(points: np.ndarray, k: int) -> np.ndarray:
    """(n, min(k, n)) orthonormal columns: the directions of largest variance of (m, n) points."""
    centred = points - points.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, ::-1][:, :k]


def nearest_distance(points: np.ndarray, states: np.ndarray, block: int = 1 << 22) -> np.ndarray:
    """Distance of every point to the nearest of the states, in blocks of bounded memory."""
    out = np.empty(len(points))
    squares = np.einsum("ij,ij->i", states, states)
    rows = max(1, block // len(states))
    for start in range(0, len(points), rows):
        some = points[start : start + rows]
        best = np.argmin(squares - 2 * some @ states.T, axis=1)
        # The expanded square cancels where states are close: the distance itself is taken directly.
        out[start : start + rows] = np.linalg.norm(some - states[best], axis=1)
    return out
