"""The ends of searches, by the input that they were made at: the distinct points among them, and how many led to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.fixed_points.search.unique import Basins


def by_input(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(x, its rows) for each distinct input, in order of first appearance."""
    if not len(x):
        return []
    if (x == x[0]).all():  # one input needs no sort
        return [(x[0], np.arange(len(x)))]
    values, first, inverse = np.unique(x, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(inverse.ravel())))  # np.split adds an empty part
    return [(values[k], rows[k]) for k in np.argsort(first)]


@dataclass
class Ends:
    """The ends of all searches with one input x."""

    x: np.ndarray
    basins: Basins
    n: int = 0

    def add(self, block: Mapping[str, np.ndarray], members: np.ndarray) -> None:
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
        found, origin = self.basins.points_and_origins()
        # The largest basins, back in the order of rank, size and q.
        kept = np.sort(np.argsort(-found.n_members, kind="stable")[:max_points])
        return {
            "point": found.points[kept],
            "outcome": found.rank[kept],
            "q": found.q[kept],
            "origin": np.asarray(origins)[origin[kept]],
            "count": found.n_members[kept],
            "search_share": found.n_members[kept] / self.n,
            "constant_input": np.tile(self.x, (len(kept), 1)),
            "n_unique": np.asarray(len(found.n_members)),
        }
