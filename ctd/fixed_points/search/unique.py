"""Merge the ends of the searches that are the same point; on the host, with NumPy and SciPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.late import scipy
from ctd.principal import principal_axes
from ctd.rows import Columns, combinations

N_COMPONENTS = 3
"""Dimensions of the k-d tree: with more than a few, a query visits almost every node."""

N_CROWDS = 512
"""Rows that lead before those without a neighbour are looked for: they take whole crowds out of the way."""


def cover(points: np.ndarray, tol: float) -> np.ndarray:
    """The leader of every point, (n,) row numbers; each point lies within `tol` of its leader.

    Rows come best first. A row that has no leader yet leads all leaderless rows within the Euclidean distance
    `tol`. So leaders are more than `tol` apart, and a line of points does not merge into one, as it would by
    single linkage. A k-d tree on the first principal components, where no distance is larger than in the
    full space, gives the rows whose distance is computed. Memory is O(n): no list of pairs is made.
    """
    n = len(points)
    leader = np.full(n, -1)
    if n == 0:
        return leader
    projected = points @ principal_axes(points, N_COMPONENTS)
    tree = scipy.spatial.cKDTree(projected)
    # A margin, so that rounding of the projection loses no neighbour.
    reach = tol * (1 + 1e-9) + 1e-12 * np.abs(projected).max()

    def lead(row: int) -> None:
        some = np.asarray(tree.query_ball_point(projected[row], reach))
        some = some[leader[some] < 0]
        leader[some[np.linalg.norm(points[some] - points[row], axis=1) <= tol]] = row

    for row in range(min(n, N_CROWDS)):
        if leader[row] < 0:
            lead(row)
    # One call for all rows costs as much as a hundred calls for one: it finds the rows that have no neighbour.
    leaderless = np.flatnonzero(leader < 0)
    apart = tree.query(projected[leaderless], k=[2], distance_upper_bound=reach)[0][:, 0]
    leader[leaderless[np.isinf(apart)]] = leaderless[np.isinf(apart)]
    for row in leaderless.tolist():
        if leader[row] < 0:
            lead(row)
    return leader


class Basins:
    """The distinct points among ends that come in blocks, each with its best member and its size.

    An end joins a leader within `tol / 4`, or becomes a leader. At the end, `cover` with `tol` merges the
    best members of the leaders, best first. So points are more than `tol` apart, each is the best of its
    members, and a member lies within 1.5 `tol` of its point. Only the leaders are kept in memory: each end
    is seen once.
    """

    def __init__(self, tol: float, n: int) -> None:
        self._tol, self._near = tol, tol / 4
        self._axes = np.zeros((n, 0))
        self._leaders = np.zeros((0, n))
        empty = np.zeros(0, int)
        # Of each leader: its best member, how many it has, and their lowest origin.
        self._best = {"point": self._leaders, "outcome": empty, "q": np.zeros(0), "count": empty, "origin": empty}  # fmt: skip

    def add(
        self,
        points: np.ndarray,
        outcome: np.ndarray,
        q: np.ndarray,
        origin: np.ndarray | None = None,
    ) -> None:
        """Add ends, (k, n); a lower outcome is better, and at equal outcomes a lower q. origin: (k,), without it 0."""
        if not len(points):
            return
        order = np.lexsort((q, outcome))
        points, outcome, q = points[order], outcome[order], q[order]
        origin = np.zeros(len(points), int) if origin is None else np.asarray(origin, int)[order]
        if not len(self._leaders):
            # Any orthonormal axes would do, since a projection lengthens no distance; these separate best.
            self._axes = principal_axes(points, N_COMPONENTS)
        leader = self._find(points)
        fresh = np.flatnonzero(leader < 0)
        first, group = np.unique(cover(points[fresh], self._near), return_inverse=True)
        leader[fresh] = len(self._leaders) + group
        led = fresh[first]
        self._leaders = np.concatenate([self._leaders, points[led]])
        ends = {"point": points, "outcome": outcome, "q": q, "count": np.zeros_like(leader), "origin": origin}  # fmt: skip
        best = self._best = {
            name: np.concatenate([values, ends[name][led]]) for name, values in self._best.items()
        }
        best["count"] += np.bincount(leader, minlength=len(self._leaders))
        np.minimum.at(best["origin"], leader, origin)
        joined, row = np.unique(leader, return_index=True)  # ends are in order: the first is best
        same = outcome[row] == best["outcome"][joined]
        better = (outcome[row] < best["outcome"][joined]) | (same & (q[row] < best["q"][joined]))
        for name in ("point", "outcome", "q"):
            best[name][joined[better]] = ends[name][row[better]]

    def _find(self, points: np.ndarray) -> np.ndarray:
        """The number of a leader within tol / 4 of each point; -1 where there is none."""
        numbers = np.full(len(points), -1)
        if not len(self._leaders):
            return numbers
        projected, leaders = points @ self._axes, self._leaders @ self._axes
        # The margin is that of `cover`.
        reach = self._near * (1 + 1e-9) + 1e-12 * np.abs(projected).max()
        tree = scipy.spatial.cKDTree(leaders)
        _, nearest = tree.query(projected, distance_upper_bound=reach)
        near = np.flatnonzero(nearest < len(leaders))
        apart = points[near] - self._leaders[nearest[near]]
        hit = np.linalg.norm(apart, axis=1) <= self._near
        numbers[near[hit]] = nearest[near[hit]]
        # The leader nearest in the projection is too far in the full space: try the others in reach.
        for row in near[~hit]:
            others = np.asarray(tree.query_ball_point(projected[row], reach))
            distance = np.linalg.norm(self._leaders[others] - points[row], axis=1)
            if distance.min() <= self._near:
                numbers[row] = others[np.argmin(distance)]
        return numbers

    def points(self) -> dict[str, np.ndarray]:
        """The distinct points of the ends so far, by outcome, then by decreasing count, then by q: point, outcome, q, count, origin."""
        order = np.lexsort((self._best["q"], self._best["outcome"]))
        ends = {name: values[order] for name, values in self._best.items()}
        first, group = np.unique(cover(ends["point"], self._tol), return_inverse=True)
        merged = {name: values[first] for name, values in ends.items()}
        merged["count"] = np.bincount(group, ends["count"], len(first)).astype(int)
        np.minimum.at(merged["origin"], group.ravel(), ends["origin"])
        by = np.lexsort((merged["q"], -merged["count"], merged["outcome"]))
        return {name: values[by] for name, values in merged.items()}


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
        # FIXED is less than SLOW, so that a fixed end stands for its basin.
        self.basins.add(np.asarray(block["point"][rows], float), block["outcome"][rows], q, origin)

    def table(self, max_points: int, origins: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The distinct points; if there are more than `max_points`, those with the largest basins. origins: their names."""
        points = self.basins.points()
        # The largest basins, back in the order of outcome, size and q.
        largest = np.sort(np.argsort(-points["count"], kind="stable")[:max_points])
        table = {name: values[largest] for name, values in points.items()}
        return table | {
            "origin": np.asarray(origins)[table["origin"]],
            "search_share": table["count"] / self.n,
            "constant_input": np.tile(self.x, (len(largest), 1)),
            "n_unique": np.asarray(len(points["count"])),
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
