"""What the fixed points of a network are: their numbers by stability, and the graph of which leads to which.

What a point with one growing mode leads to are the two ends of a curve, its unstable manifold. With more it is a region, of
which departures are a sample that depends on the directions of the modes; that is not compared.

Round 0 labels each point by its stability. A round of Weisfeiler & Lehman (1968) gives it a new label: its old one, with
those of the points that it leads to, and those of the points that lead to it. The distance of two networks is the
Bray-Curtis dissimilarity of the numbers n_l and m_l of their points with label l, over all rounds:

    sum_l |n_l - m_l| / sum_l (n_l + m_l)  =  1 - 2 sum_l min(n_l, m_l) / sum_l (n_l + m_l),

the share of points that are left alone where each is matched with one of equal label, as many as can be (Kriege et al.
2016). Graphs that are equal but for the order of their points are at distance 0; so are some others in which all points see
the same, as one ring of six and two rings of three.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

type Neighbours = list[tuple[np.ndarray, np.ndarray]]
"""Of each point, the numbers of those that it leads to, and of those that lead to it."""


def counts(
    tables: Sequence[Mapping[str, Any]], max_q: float | None, rounds: int
) -> list[np.ndarray]:
    """(label,) of each network, the numbers of its points with q <= max_q by label: of round 0, then of `rounds` more.

    tables: n_unstable, n_marginal, q, (point,) each; where there are rounds, leads (point, point), above 0 where the
    first point leads to the second.
    """
    here = [_counting(table, max_q) for table in tables]
    pairs = list(zip(tables, here, strict=True))
    labels = _numbered([_stability(table)[rows].tolist() for table, rows in pairs])
    found = [_counted(labels)]
    graphs = [_neighbours(table, rows) for table, rows in pairs if rounds]
    for _ in range(rounds):
        seen = [_seen(own, graph) for own, graph in zip(labels, graphs, strict=True)]
        labels = _numbered(seen)
        found.append(_counted(labels))
    return [np.concatenate(of_rounds) for of_rounds in zip(*found, strict=True)]


def _counting(table: Mapping[str, Any], max_q: float | None) -> np.ndarray:
    """Rows of the points that count."""
    q = np.asarray(table["q"])
    return np.flatnonzero(q <= (np.inf if max_q is None else max_q))


def _stability(table: Mapping[str, Any]) -> np.ndarray:
    """(point,) -1: marginal; otherwise the number of growing modes."""
    unstable = np.asarray(table["n_unstable"], int)
    return np.where((unstable == 0) & (np.asarray(table["n_marginal"]) > 0), -1, unstable)


def _neighbours(table: Mapping[str, Any], rows: np.ndarray) -> Neighbours:
    one_mode = np.asarray(table["n_unstable"])[rows] == 1
    among = (np.asarray(table["leads"])[np.ix_(rows, rows)] > 0) & one_mode[:, None]
    return [(np.flatnonzero(to), np.flatnonzero(by)) for to, by in zip(among, among.T, strict=True)]


def _seen(labels: Sequence[int], graph: Neighbours) -> list[Hashable]:
    """Of each point its label, and those of both kinds of neighbours, in no order."""
    of = lambda points: tuple(sorted(labels[k] for k in points))
    return [(own, of(to), of(by)) for own, (to, by) in zip(labels, graph, strict=True)]


def _numbered(seen: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """0, 1, ... for what is seen; the same for equal sights, in all networks."""
    number: dict[Hashable, int] = {}
    return [[number.setdefault(one, len(number)) for one in graph] for graph in seen]


def _counted(labels: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """(label,) of each network."""
    n = 1 + max((label for graph in labels for label in graph), default=0)
    return [np.bincount(np.asarray(graph, int), minlength=n).astype(float) for graph in labels]
