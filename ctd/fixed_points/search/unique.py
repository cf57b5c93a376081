"""Tell which ends of the searches are the same point; on the host, with NumPy and SciPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.late import scipy
from ctd.principal import principal_axes
from ctd.rows import Columns, combinations

N_COMPONENTS = 3
"""Dimensions of the k-d tree: with more than a few, a query visits almost every node."""

N_CROWDS = 64
"""Rows whose neighbours are looked up before those of all others are listed."""

N_LISTED = 8
"""A row with so many rows in reach or more, itself included, has its neighbours looked up when its turn comes."""

BLOCK = 2048
"""Rows whose differences are taken at a time."""


def cover(points: np.ndarray, tol: float) -> np.ndarray:
    """The leader of every point, (n,) row numbers; each point lies within `tol` of its leader.

    Rows come best first. A row that has no leader yet leads all leaderless rows within the Euclidean distance
    `tol`. So leaders are more than `tol` apart, and a line of points does not merge into one, as it would by
    single linkage. A k-d tree on the first principal components, where no distance is larger than in the
    full space, gives the rows whose distance is computed. Memory is O(n): no list of pairs is made.
    """
    n = len(points)
    if n == 0:
        return np.full(0, -1)
    projected = points @ principal_axes(points, N_COMPONENTS)
    tree = scipy.spatial.cKDTree(projected)
    # A margin, so that rounding of the projection loses no neighbour.
    reach = tol * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
    leader = np.full(n, -1)

    def lead(row: int, some: np.ndarray) -> None:
        leader[some[leader[some] < 0]] = row
        leader[row] = row

    def look_up(row: int) -> np.ndarray:
        some = np.asarray(tree.query_ball_point(projected[row], reach))
        some = some[leader[some] < 0]
        return some[np.linalg.norm(points[some] - points[row], axis=1) <= tol]

    # The first rows lead whole crowds, whose members then need no list.
    for row in range(min(n, N_CROWDS)):
        if leader[row] < 0:
            lead(row, look_up(row))
    near, all_listed = _few_neighbours(points, tree, reach, tol, leader < 0)
    alone = all_listed & (near == n).all(axis=1)
    leader = np.where((leader < 0) & alone, np.arange(n), leader)
    for row in np.flatnonzero(leader < 0).tolist():
        if leader[row] < 0:
            lead(row, near[row][near[row] < n] if all_listed[row] else look_up(row))
    return leader


def _few_neighbours(
    points: np.ndarray, tree: scipy.spatial.cKDTree, reach: float, tol: float, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(rows within `tol` of each point, itself not counted, n where there are fewer; whether these are all).

    Only the rows where `asked` is true are answered.

    A query for one row costs as much as a hundred in one call: most points of a set of distinct ones have
    few neighbours in the projection, or none, and these are found here for all rows at once.
    """
    n = len(points)
    near = np.full((n, N_LISTED), n)
    listed = np.zeros(n, bool)
    # In the tree's order, which is one of places, a block's queries visit few nodes.
    order = tree.indices[asked[tree.indices]]
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        _, found = tree.query(tree.data[rows], k=N_LISTED, distance_upper_bound=reach)
        listed[rows] = found[:, -1] == n
        found[(found == rows[:, None]) | ~listed[rows, None]] = n
        which, k = np.nonzero(found < n)
        apart = points[found[which, k]] - points[rows[which]]
        far = np.linalg.norm(apart, axis=1) > tol
        found[which[far], k[far]] = n
        near[rows] = found
    return near, listed


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
    origin: np.ndarray
    """(k,) the lowest number of an origin among the members of each."""


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
        self._origin = np.zeros(0, int)

    def add(
        self, points: np.ndarray, rank: np.ndarray, q: np.ndarray, origin: np.ndarray | None = None
    ) -> None:
        """Add rows, (k, n); a lower rank is better, and at equal rank a lower q. origin: (k,), without it 0."""
        if not len(points):
            return
        order = np.lexsort((q, rank))
        points, rank, q = points[order], rank[order], q[order]
        origin = np.zeros(len(points), int) if origin is None else np.asarray(origin, int)[order]
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
        self._origin = np.concatenate([self._origin, origin[led]])
        np.minimum.at(self._origin, leader, origin)
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
        # The margin is that of `cover`.
        reach = self._near * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
        tree = scipy.spatial.cKDTree(leaders)
        _, nearest = tree.query(projected, distance_upper_bound=reach)
        near = np.flatnonzero(nearest < len(leaders))
        apart = points[near] - self._leaders[nearest[near]]
        hit = np.linalg.norm(apart, axis=1) <= self._near
        found[near[hit]] = nearest[near[hit]]
        # The leader nearest in the projection is too far in the full space: try the others in reach.
        for row in near[~hit]:
            others = np.asarray(tree.query_ball_point(projected[row], reach))
            distance = np.linalg.norm(self._leaders[others] - points[row], axis=1)
            if distance.min() <= self._near:
                found[row] = others[np.argmin(distance)]
        return found

    def points(self) -> Points:
        """The distinct points of the rows so far."""
        order = np.lexsort((self._q, self._rank))
        # `cover` takes its rows best first: by rank, then by q.
        first, which = np.unique(cover(self._best[order], self._tol), return_inverse=True)
        count = np.bincount(which, self._count[order], len(first)).astype(int)
        best = order[first]
        rank, q, origin = self._rank[best], self._q[best], self._origin[best]
        np.minimum.at(origin, which.ravel(), self._origin[order])
        by = np.lexsort((q, -count, rank))
        return Points(self._best[best[by]], rank[by], q[by], count[by], origin[by])


def by_input(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(x, its rows) for each distinct input, in order of first appearance."""
    if len(x) and (x == x[0]).all():  # one input needs no sort
        return [(x[0], np.arange(len(x)))]
    first, of_row = combinations([x], len(x))
    rows = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row)))
    return list(zip(x[first], rows, strict=False))  # np.split adds an empty part


@dataclass
class Ends:
    """The ends of all searches with one input x."""

    x: np.ndarray
    basins: Basins
    n: int = 0

    def add(self, block: Columns, members: np.ndarray) -> None:
        """Add the rows `members` of a block."""
        self.n += len(members)
        # Searches that ended at no point count in `n` alone, the base of the basins' shares.
        rows = members[np.isin(block["outcome"][members], (FIXED, SLOW))]
        q = np.asarray(block["q"][rows], float)
        origin = block["anywhere_start"][rows] if "anywhere_start" in block else None
        # The outcome is the rank: FIXED is less than SLOW, so that a fixed end stands for its basin.
        self.basins.add(np.asarray(block["point"][rows], float), block["outcome"][rows], q, origin)

    def table(self, max_points: int, origins: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The distinct points; if there are more than `max_points`, those with the largest basins. origins: their names."""
        found = self.basins.points()
        # The largest basins, back in the order of rank, size and q.
        kept = np.sort(np.argsort(-found.n_members, kind="stable")[:max_points])
        return {
            "point": found.points[kept],
            "outcome": found.rank[kept],
            "q": found.q[kept],
            "origin": np.asarray(origins)[found.origin[kept]],
            "count": found.n_members[kept],
            "search_share": found.n_members[kept] / self.n,
            "constant_input": np.tile(self.x, (len(kept), 1)),
            "n_unique": np.asarray(len(found.n_members)),
        }


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
