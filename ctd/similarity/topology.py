"""The fixed points of a network as counts: by stability, and by the graph of connections between them.

Slow points do not count. Where networks have points of several constant inputs, a point is like points at its own input alone.

A point with one growing mode leads to the two ends of a curve, its unstable manifold. A point with more leads to a region;
its departures sample that region, depending on the directions of the modes, and are not compared.

Round 0 labels each point by its stability and its input. A round of Weisfeiler & Lehman (1968) gives each point a new label, made of its
old label, the labels of the points that it leads to, and the labels of the points that lead to it. The distance of two
networks is the Bray-Curtis dissimilarity of the numbers n_l and m_l of their points with label l, over all rounds:

    sum_l |n_l - m_l| / sum_l (n_l + m_l)  =  1 - 2 sum_l min(n_l, m_l) / sum_l (n_l + m_l),

the share of points without a partner if as many points as possible are matched with one of equal label (Kriege et al.
2016). Graphs that differ only in the order of their points are at distance 0. So are some different graphs in which all
points have the same neighbourhoods, such as one ring of six and two rings of three.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike


def counts(
    tables: Sequence[Mapping[str, ArrayLike]], max_q: float | None, rounds: int
) -> list[np.ndarray]:
    """Count the points of each network by label, (label,): those of round 0, then of `rounds` more.

    Args:
        tables: for each network n_unstable, n_marginal and q (point,); with rounds, leads (point, point), above 0
            where the first point leads to the second. If there are error, NaN for slow points, and
            constant_input (point, input), slow points are left out and inputs told apart.
        max_q: points with a larger q are left out.
        rounds: rounds of relabelling.

    Raises ValueError if there are several constant inputs of unequal sizes.

    >>> saddle = {"n_unstable": [0, 1, 0], "n_marginal": [0, 0, 0], "q": [0, 0, 0]}
    >>> attractor = {"n_unstable": [0], "n_marginal": [0], "q": [0]}
    >>> [count.tolist() for count in counts([saddle, attractor], None, rounds=0)]
    [[2.0, 1.0], [1.0, 0.0]]
    """
    pairs = [(table, _counting(table, max_q)) for table in tables]
    stability = [_stability(table)[rows].tolist() for table, rows in pairs]
    at = _inputs([_constant(table)[rows] for table, rows in pairs])
    leads = [_leads(table, rows) for table, rows in pairs if rounds]
    labels = _numbered([list(zip(*both, strict=True)) for both in zip(stability, at, strict=True)])
    point_counts = [_counted(labels)]
    for _ in range(rounds):
        labels = _numbered(
            [_neighbourhoods(*network) for network in zip(labels, leads, strict=True)]
        )
        point_counts.append(_counted(labels))
    return [np.concatenate(of_rounds) for of_rounds in zip(*point_counts, strict=True)]


def _counting(table: Mapping[str, ArrayLike], max_q: float | None) -> np.ndarray:
    """The rows of the fixed points with q <= max_q."""
    q = np.asarray(table["q"])
    slow = np.isnan(np.asarray(table.get("error", np.zeros(len(q)))))  # they have no zero to be off
    return np.flatnonzero(~slow & (q <= (np.inf if max_q is None else max_q)))


def _constant(table: Mapping[str, ArrayLike]) -> np.ndarray:
    """(point, input) the constant input of each point, float32 so that the type of a table makes no difference."""
    inputs = table.get("constant_input", np.zeros((len(np.asarray(table["q"])), 0)))
    return np.asarray(inputs, np.float32)


def _inputs(at: Sequence[np.ndarray]) -> list[list[tuple[float, ...]]]:
    """For each network the input of each point, as part of its label. at: of each (point, input)."""
    # Networks with one input each may differ in it, as in its size.
    if all(len(np.unique(x, axis=0)) < 2 for x in at):
        return [[()] * len(x) for x in at]
    if len(sizes := sorted({x.shape[1] for x in at if len(x)})) > 1:
        raise ValueError(
            f"points: of several constant inputs, of {' and '.join(map(str, sizes))} numbers, so that no network says which "
            "of its inputs is which of another's; give tables of one constant input each"
        )
    return [[tuple(row) for row in x.tolist()] for x in at]


def _stability(table: Mapping[str, ArrayLike]) -> np.ndarray:
    """The stability (point,): -1 for marginal points, else the number of growing modes."""
    unstable = np.asarray(table["n_unstable"], int)
    # Without a growing mode, a marginal one leaves the stability open: higher orders decide it.
    return np.where((unstable == 0) & (np.asarray(table["n_marginal"]) > 0), -1, unstable)


def _leads(table: Mapping[str, ArrayLike], rows: np.ndarray) -> np.ndarray:
    """(point, point) bool: True if the first of these points leads to the second."""
    # Departures of a point with several growing modes depend on their sampled directions.
    one_mode = np.asarray(table["n_unstable"])[rows] == 1
    return (np.asarray(table["leads"])[np.ix_(rows, rows)] > 0) & one_mode[:, None]


def _neighbourhoods(labels: np.ndarray, leads: np.ndarray) -> list[Hashable]:
    """List for each point its label, the sorted labels of the points that it leads to, and of those that lead to it."""
    sorted_labels = lambda points: tuple(np.sort(labels[points]).tolist())
    return [
        (int(label), sorted_labels(to), sorted_labels(by))
        for label, to, by in zip(labels, leads, leads.T, strict=True)
    ]


def _numbered(neighbourhoods: Sequence[Sequence[Hashable]]) -> list[np.ndarray]:
    """Number neighbourhoods 0, 1, ...: equal ones have one number, in all networks. (point,) int of each network."""
    number: dict[Hashable, int] = {}
    return [
        np.array([number.setdefault(neighbourhood, len(number)) for neighbourhood in network], int)
        for network in neighbourhoods
    ]


def _counted(labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The number of points by label, (label,), of each network."""
    n = 1 + max(network_labels.max(initial=0) for network_labels in labels)
    return [np.bincount(network_labels, minlength=n).astype(float) for network_labels in labels]
