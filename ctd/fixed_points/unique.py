"""Which ends of the searches are the same point. Host side, NumPy and SciPy."""

import numpy as np
from scipy.spatial import cKDTree

from ctd.principal import principal_axes

N_COMPONENTS = 3
"""Dimensions of the search tree: beyond a few, a k-d tree visits everything."""

BLOCK = 2048
"""Rows whose differences are taken at a time."""


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


class Basins:
    """The distinct points among rows that come in blocks, with the best member and the size of each.

    A row joins the first leader met within `tol / 4`, or leads from then on; at the end the best members
    of the leaders are covered with `tol`, best first. Points are so more than `tol` apart, each is
    the best of its members, and a member lies within 1.5 `tol` of its point. Memory is that of the
    leaders: rows are seen once and forgotten.
    """

    def __init__(self, tol: float, n: int) -> None:
        self._tol, self._near = tol, tol / 4
        self._axes = np.zeros((n, 0))
        self._leaders = self._best = np.zeros((0, n))
        self._rank, self._q = np.zeros(0, int), np.zeros(0)
        self._count = np.zeros(0, int)

    def add(self, points: np.ndarray, rank: np.ndarray, q: np.ndarray) -> None:
        """Take rows in; a lower rank, and then a lower q, is better."""
        if not len(points):
            return
        order = np.lexsort((q, rank))
        points, rank, q = points[order], rank[order], q[order]
        if not len(self._leaders):
            # Any orthonormal axes would do: a projection lengthens no distance. These tell most apart.
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
        """A leader within reach of each point, -1 where there is none."""
        found = np.full(len(points), -1)
        if not len(self._leaders):
            return found
        projected, leaders = points @ self._axes, self._leaders @ self._axes
        reach = self._near * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
        tree = cKDTree(leaders)
        _, nearest = tree.query(projected, distance_upper_bound=reach)
        near = np.flatnonzero(nearest < len(leaders))
        hit = self._within(points, near, nearest[near])
        found[near[hit]] = nearest[near[hit]]
        # The nearest in the projection is too far in truth: look at the others there.
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

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(points, ranks, qs, numbers of members): by rank, then larger basins, then lower q."""
        order = np.lexsort((self._q, self._rank))
        first, which = np.unique(cover(self._best[order], self._tol), return_inverse=True)
        count = np.bincount(which, self._count[order], len(first)).astype(int)
        best = order[first]
        rank, q = self._rank[best], self._q[best]
        by = np.lexsort((q, -count, rank))
        return self._best[best[by]], rank[by], q[by], count[by]


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
