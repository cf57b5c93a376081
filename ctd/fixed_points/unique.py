"""Tell which ends of the searches are the same point; on the host, with NumPy and SciPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctd.late import scipy
from ctd.principal import principal_axes

N_COMPONENTS = 3
"""Dimensions of the k-d tree: with more than a few, a query visits almost every node."""

BLOCK = 2048
"""Rows whose differences are taken at a time."""


def cover(points: np.ndarray, tol: float) -> np.ndarray:
    """The leader of every point, (n,) row numbers; each point lies within `tol` of its leader.

    Rows come best first. A row that has no leader yet leads all leaderless rows within the Euclidean distance
    `tol`. So leaders are more than `tol` apart, and a line of points does not merge into one, as it would by
    single linkage. A k-d tree on the first principal components, where no distance is larger than in the
    full space, gives the rows whose distance is computed. Memory is O(n): no list of pairs is made.
    """
    leader = np.full(len(points), -1)
    if len(points) == 0:
        return leader
    projected = points @ principal_axes(points, N_COMPONENTS)
    tree = scipy.spatial.cKDTree(projected)
    # A margin, so that rounding of the projection loses no neighbour.
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


class Points(NamedTuple):
    """k distinct points: by rank, then by decreasing size, then by q."""

    points: np.ndarray
    """(k, n)"""
    rank: np.ndarray
    """(k,)"""
    q: np.ndarray
    """(k,)"""
    n_members: np.ndarray
    """(k,)"""


class Basins:
    """The distinct points among rows that come in blocks, each with its best member and its size.

    A row joins a leader within `tol / 4`, or becomes a leader. At the end, `cover` with `tol` merges the
    best members of the leaders, best first. So points are more than `tol` apart, each is the best of its
    members, and a member lies within 1.5 `tol` of its point. Only the leaders are kept in memory: each row
    is seen once.
    """

    def __init__(self, tol: float, n: int) -> None:
        self._tol, self._near = tol, tol / 4
        self._axes = np.zeros((n, 0))
        self._leaders = self._best = np.zeros((0, n))
        self._rank, self._q = np.zeros(0, int), np.zeros(0)
        self._count = np.zeros(0, int)

    def add(self, points: np.ndarray, rank: np.ndarray, q: np.ndarray) -> None:
        """Add rows, (k, n); a lower rank is better, and at equal rank a lower q."""
        if not len(points):
            return
        order = np.lexsort((q, rank))
        points, rank, q = points[order], rank[order], q[order]
        if not len(self._leaders):
            # Any orthonormal axes would do, since a projection lengthens no distance; these separate best.
            self._axes = principal_axes(points, N_COMPONENTS)
        leader = self._find(points)
        fresh = np.flatnonzero(leader < 0)
        first, which = np.unique(cover(points[fresh], self._near), return_inverse=True)
        leader[fresh] = len(self._leaders) + which
        led = fresh[first]
        self._leaders = np.concatenate([self._leaders, points[led]])
        self._best = np.concatenate([self._best, points[led]])
        self._rank = np.concatenate([self._rank, rank[led]])
        self._q = np.concatenate([self._q, q[led]])
        self._count = np.bincount(leader, minlength=len(self._leaders)) + np.pad(
            self._count, (0, len(led))
        )
        joined, best = np.unique(leader, return_index=True)  # rows are in order: the first is best
        rank, q = rank[best], q[best]
        better = (rank < self._rank[joined]) | (
            (rank == self._rank[joined]) & (q < self._q[joined])
        )
        joined, best = joined[better], best[better]
        self._best[joined] = points[best]
        self._rank[joined], self._q[joined] = rank[better], q[better]

    def _find(self, points: np.ndarray) -> np.ndarray:
        """The number of a leader within tol / 4 of each point; -1 where there is none."""
        found = np.full(len(points), -1)
        if not len(self._leaders):
            return found
        projected, leaders = points @ self._axes, self._leaders @ self._axes
        reach = self._near * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
        tree = scipy.spatial.cKDTree(leaders)
        _, nearest = tree.query(projected, distance_upper_bound=reach)
        near = np.flatnonzero(nearest < len(leaders))
        hit = self._within(points, near, nearest[near])
        found[near[hit]] = nearest[near[hit]]
        # The leader nearest in the projection is too far in the full space: try the others in reach.
        for row in near[~hit]:
            others = np.asarray(tree.query_ball_point(projected[row], reach))
            distance = np.linalg.norm(self._leaders[others] - points[row], axis=1)
            if distance.min() <= self._near:
                found[row] = others[np.argmin(distance)]
        return found

    def _within(self, points: np.ndarray, rows: np.ndarray, leaders: np.ndarray) -> np.ndarray:
        out = np.empty(len(rows), bool)
        for start in range(0, len(rows), BLOCK):  # differences that stay in the cache
            some = slice(start, start + BLOCK)
            apart = points[rows[some]] - self._leaders[leaders[some]]
            out[some] = np.einsum("ij,ij->i", apart, apart) <= self._near**2
        return out

    def points(self) -> Points:
        """The distinct points of the rows so far."""
        order = np.lexsort((self._q, self._rank))
        first, which = np.unique(cover(self._best[order], self._tol), return_inverse=True)
        count = np.bincount(which, self._count[order], len(first)).astype(int)
        best = order[first]
        rank, q = self._rank[best], self._q[best]
        by = np.lexsort((q, -count, rank))
        return Points(self._best[best[by]], rank[by], q[by], count[by])


def nearest_distance(points: np.ndarray, states: np.ndarray, block: int = 1 << 22) -> np.ndarray:
    """(k,) distance of each of (k, n) points to the nearest of (m, n) states, in blocks of bounded memory."""
    out = np.empty(len(points))
    squares = np.einsum("ij,ij->i", states, states)
    rows = max(1, block // len(states))
    for start in range(0, len(points), rows):
        some = points[start : start + rows]
        best = np.argmin(squares - 2 * some @ states.T, axis=1)
        # The expanded square loses digits where states are close, so the distance is computed directly.
        out[start : start + rows] = np.linalg.norm(some - states[best], axis=1)
    return out
