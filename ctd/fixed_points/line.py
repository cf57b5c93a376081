"""Line and ring attractors: slow points that form a chain, what moves along it, and what reads and drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ctd.fixed_points.network import Time
from ctd.fixed_points.search.unique import nearest_distance
from ctd.late import Array, jax, jnp, scipy
from ctd.rows import lines_of
from ctd.words import count

CLOSES = 1.5
"""A chain is a ring if its ends are no farther apart than this times its widest gap ..."""

ROUND = 0.5
"""... and than this times its length, which is their distance on a straight line."""

HOLE = 0.2
"""A gap is a hole, at which a chain ends, if it is wider than this share of the chain. So a line has six points at least: fewer may be
memories and the saddles between them."""

HALF = 0.5
"""Share of the way between all points at rest, and of the readouts of all points, that a line or ring covers at least."""

SAMPLES = 100
"""Places along the chain at which the speed is computed."""


@dataclass(frozen=True)
class Line:
    """A chain of k points in order; the result of `line`."""

    objections: tuple[str, ...]
    """The reasons against a line or ring; () for one."""
    rows: np.ndarray
    """(k,) their rows in the table."""
    nearby: np.ndarray
    """Rows of points where the network is nearly at rest, too, no farther from the chain than its widest gap: its branches."""
    aside: np.ndarray
    """Rows that are no outliers and no part of it: beyond a hole, or where the network is not nearly at rest."""
    position: np.ndarray
    """(k,) distance from the first one along the chain."""
    closed: bool
    """True for a ring: the first point follows the last one."""
    length: float
    widest: float
    """The largest distance between neighbours."""
    dimension: float
    """Median number of modes with |eigenvalue - 1| <= slow (of a flow, |eigenvalue|): directions in which the network is nearly
    at rest. 1 for a line or a ring, 2 for a plane, which no chain describes."""
    points: np.ndarray
    """(k, state)."""
    tangent: np.ndarray
    """(k, state) of unit length."""
    columns: dict[str, np.ndarray]
    """(k,) each: position; residual |F(h) - h|; slowest, the eigenvalue nearest to 1, of a flow to 0; mode, |cos| of the tangent with its right
    eigenvector; readout, see `line`; input, |cos| of the first input's dF/dx with the left eigenvector of the slowest mode, which selects what
    of an input remains (Mante et al. 2013); NaN where the network has no input."""
    drift: np.ndarray
    """(SAMPLES, 2) where a step was given: positions, and the component of F(h) - h, of a flow of dh/dt, along the chain there."""

    def __repr__(self) -> str:
        """Return the summary, and a table of the chain's points."""
        return "\n".join([self.summary, *lines_of(self.columns)])

    @property
    def summary(self) -> str:
        """The kind of chain, and its measures, in a line."""
        kind = "ring" if self.closed else "line"
        if self.objections:
            kind = f"no line: {'; '.join(self.objections)}; chain"
        head = f"{kind} of {len(self.rows)} points, length {self.length:.4g}, dimension {self.dimension:.3g}"
        others = {"beside it": self.nearby, "aside": self.aside}
        return "; ".join(
            [
                head,
                *(f"{count(len(rows), 'point')} {at}" for at, rows in others.items() if len(rows)),
            ]
        )

    def places(self, points: np.ndarray) -> np.ndarray:
        """Compute positions along the chain: of the projections of points on the tangent at the nearest point of the chain.

        Args:
            points: (m, state) any states.

        Returns:
            (m,) distances from the first point along the chain.
        """
        apart = scipy.spatial.distance.cdist(points, self.points)
        nearest = apart.argmin(axis=1)
        offset = ((points - self.points[nearest]) * self.tangent[nearest]).sum(axis=1)
        return self.position[nearest] + offset


def line(
    table: Mapping[str, ArrayLike],
    *,
    readout: ArrayLike | None = None,
    step: Callable[[Array], Array] | None = None,
    slow: float = 0.05,
    time: Time = "steps",
) -> Line:
    """Order the points at which a network is nearly at rest as a line or ring: the longest path of their minimum spanning tree.

    At such a point no mode grows faster than `slow` allows, one neither grows nor decays faster, and |F(h) - h| is below `slow` times
    the extent of all points. A line or ring ends at a hole, and covers at least half of the way between all these points, and half of
    the readouts of all points. Otherwise the result has `objections`.

    >>> table = {"point": np.linspace(0, 1, 9)[:, None] * [3.0, 4.0], "residual": np.zeros(9)}
    >>> table |= {"eigenvalue": np.tile([1.0, 0.5], (9, 1)), "input_jacobian": np.zeros((9, 2, 0))}
    >>> table |= {name: np.tile(np.eye(2), (9, 1, 1)) for name in ("right", "left")}
    >>> line(table).summary
    'line of 9 points, length 5, dimension 1'

    Args:
        table: point, residual, eigenvalue, right, left, input_jacobian, perhaps outlier and output, at one input: `find(...).unique`, or a store's table.
        readout: (output, state) weights; then column `readout` is |cos| of the tangent with the first output's.
        step: h (n,) -> F(h) (n,), of a flow dh/dt, in JAX; then `drift` is computed.
        slow: a mode is nearly at rest, and counts for `dimension`, if its eigenvalue is this near to 1, of a flow to 0.
        time: that of `find`; a flow's table does not tell that it is one.

    Returns:
        A `Line`: the chain's points in their order, tangents, length, dimension, and `objections`, which are () for a line or ring.

    Raises:
        ValueError: there are fewer than three points, several inputs, or a readout that does not fit.
    """
    every, rows = _points(table)
    chain, resting, objections = _chain(table, rows, every, slow, time)
    points, chain_rows = every[chain], rows[chain]
    position, closed, length, widest = _measured(points)
    tangent = _tangents(points, closed)
    dimension = _dimension(np.asarray(table["eigenvalue"])[chain_rows], slow, time)
    if dimension > 1:
        objections.append(f"{dimension:.3g} modes nearly at rest")
    columns = {"position": position, **_modes(table, chain_rows, tangent, time)}
    if readout is not None:
        columns["readout"] = _cosine(tangent, _first_output(readout, points.shape[1]))
    end = length if closed else None
    drift = _drift(step, points, position, end, time) if step is not None else np.zeros((0, 2))
    nearby = np.setdiff1d(rows[resting & (nearest_distance(every, points) <= widest)], chain_rows)
    return Line(
        tuple(objections), chain_rows, nearby, np.setdiff1d(rows, [*chain_rows, *nearby]), position, closed, length, widest, dimension, points, tangent, columns, drift
    )  # fmt: skip


def _chain(
    table: Mapping[str, ArrayLike], rows: np.ndarray, points: np.ndarray, slow: float, time: Time
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(numbers of the points of the chain, in order; (k,) bool of points nearly at rest, all of them if these are no three; the
    reasons against a line)."""
    resting, objections = _resting(table, rows, points, slow, time), list[str]()
    if resting.sum() < 3:
        objections.append(f"{resting.sum()} of {len(rows)} points nearly at rest")
        resting[:] = True
    candidates = np.flatnonzero(resting)
    order, holes = _without_holes(points[candidates])
    if holes > 1 - HALF:
        objections.append(f"holes are {holes:.0%} of the way between them")
    chain = candidates[order]
    return chain, resting, objections + _narrow(table, rows[chain], rows)


def _resting_eigenvalue(time: Time) -> int:
    """The eigenvalue of a mode at rest."""
    return 0 if time == "continuous" else 1


def _dimension(values: np.ndarray, slow: float, time: Time) -> float:
    """Median number of modes nearly at rest; values: (k, state) eigenvalues."""
    return float(np.median((np.abs(values - _resting_eigenvalue(time)) <= slow).sum(axis=1)))


def _first_output(readout: ArrayLike, n: int) -> np.ndarray:
    """(1, state) the weights of the first output."""
    weights = np.atleast_2d(np.asarray(readout, float))
    if weights.shape[1] != n:
        raise ValueError(f"readout: shape {weights.shape}, (output, {n}) expected")
    return weights[:1]


def _points(table: Mapping[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """(the points that are no outliers, their rows)."""
    points = np.asarray(table["point"], float)
    x = np.asarray(table["constant_input"]) if "constant_input" in table else points[:, :0]
    if len(x) and (x != x[0]).any():
        raise ValueError(
            f"table: points at {len(np.unique(x, axis=0))} inputs; choose the rows of one constant_input"
        )
    outlier = np.asarray(table["outlier"]) if "outlier" in table else np.zeros(len(points), bool)
    rows = np.flatnonzero(~outlier)
    if len(rows) < 3:
        raise ValueError(f"table: {len(rows)} points that are no outliers; a chain has at least 3")
    return points[rows], rows


def _resting(
    table: Mapping[str, ArrayLike], rows: np.ndarray, points: np.ndarray, slow: float, time: Time
) -> np.ndarray:
    """(k,) bool: True at points where the network is nearly at rest."""
    values = np.asarray(table["eigenvalue"])[rows]
    growth = values.real if time == "continuous" else np.abs(values) - 1
    resting = (growth <= slow).all(axis=1) & (
        np.abs(values - _resting_eigenvalue(time)) <= slow
    ).any(axis=1)
    # It takes 1 / slow steps or more to cross the region of the points.
    extent = np.linalg.norm(np.ptp(points, axis=0))
    return resting & (np.asarray(table["residual"])[rows] <= slow * extent)


def _without_holes(points: np.ndarray) -> tuple[np.ndarray, float]:
    """(numbers of the points of the longest path, in order, on the piece between holes with most of them; the share of the path
    that is no part of this piece)."""
    path = _longest_path(points)
    gaps = np.linalg.norm(np.diff(points[path], axis=0), axis=1)
    hole = gaps > HOLE * gaps.sum()
    piece = max(np.split(np.arange(len(path)), np.flatnonzero(hole) + 1), key=len)
    if len(piece) < 3:  # no piece is a chain
        return path, float(gaps[hole].sum() / gaps.sum())
    return path[piece], float(1 - gaps[piece[:-1]].sum() / gaps.sum())


def _narrow(table: Mapping[str, ArrayLike], chain_rows: np.ndarray, rows: np.ndarray) -> list[str]:
    """The objection to a chain whose readouts differ little, compared with those of all points."""
    output = np.asarray(table["output"] if "output" in table else np.zeros((0, 0)), float)
    if not output.size:
        return []
    # Of several outputs, the one that differs most.
    column = int(np.argmax(np.ptp(output[rows], axis=0)))
    chain, all_points = output[chain_rows, column], output[rows, column]
    if np.ptp(chain) >= HALF * np.ptp(all_points):
        return []
    return [f"readouts of {_range(chain)} among {_range(all_points)}"]


def _range(values: np.ndarray) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _longest_path(points: np.ndarray) -> np.ndarray:
    """Numbers of the points on the longest path of their minimum spanning tree, in order."""
    graph = scipy.sparse.csgraph
    apart = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(points))
    # csgraph takes a distance of 0 for no edge; a table holds no point twice.
    tree = graph.minimum_spanning_tree(apart)
    far = lambda start: graph.dijkstra(
        tree, directed=False, indices=start, return_predecessors=True
    )
    # In a tree, the point farthest from any point is one end of a longest path.
    end = int(np.argmax(far(0)[0]))
    away, before = far(end)
    path = [int(np.argmax(away))]
    while path[-1] != end:
        path.append(int(before[path[-1]]))
    return np.asarray(path)


def _measured(points: np.ndarray) -> tuple[np.ndarray, bool, float, float]:
    """(distance of each point from the first one along the chain, True for a ring, its length, its widest gap)."""
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    between_ends = float(np.linalg.norm(points[-1] - points[0]))
    length, widest = float(gaps.sum()), float(gaps.max())
    # Three points that form a triangle would pass both tests; they count as a line.
    closed = len(points) > 3 and between_ends <= min(CLOSES * widest, ROUND * length)
    if closed:  # the length of a ring includes the gap that closes it
        length, widest = length + between_ends, max(widest, between_ends)
    return np.append(0, np.cumsum(gaps)), closed, length, widest


def _tangents(points: np.ndarray, closed: bool) -> np.ndarray:
    if closed:
        along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    else:
        # Central differences, one-sided at both ends.
        padded = np.concatenate([points[:1], points, points[-1:]])
        along = padded[2:] - padded[:-2]
    return along / np.linalg.norm(along, axis=1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(k,) |cos| of the angles between vectors (k, n), complex or real; NaN where one is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        product = np.abs((np.conj(a) * b).sum(axis=1))
        return product / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _modes(
    table: Mapping[str, ArrayLike], rows: np.ndarray, tangent: np.ndarray, time: Time
) -> dict[str, np.ndarray]:
    """residual, slowest, mode and input of the columns."""
    values = np.asarray(table["eigenvalue"])[rows]
    slowest = np.argmin(np.abs(values - _resting_eigenvalue(time)), axis=1)
    row = np.arange(len(rows))
    # (k, state): the vector of each point's slowest mode.
    slowest_vectors = lambda name: np.asarray(table[name])[rows][row, :, slowest]
    driven = np.asarray(table["input_jacobian"])[rows]
    size = driven.shape[2]
    return {
        "residual": np.asarray(table["residual"])[rows],
        "slowest": np.real(values[row, slowest]),
        "mode": _cosine(tangent, slowest_vectors("right")),
        "input": _cosine(slowest_vectors("left"), driven[:, :, 0])
        if size
        else np.full(len(rows), np.nan),
    }


def _drift(
    step: Callable[[Array], Array],
    points: np.ndarray,
    position: np.ndarray,
    end: float | None,
    time: Time,
) -> np.ndarray:
    """(SAMPLES, 2) positions on the straight lines between neighbours, and the component of the motion along these.

    end: of a ring, the position at which it comes back to its first point.
    """
    if end is not None:
        points, position = np.vstack([points, points[:1]]), np.append(position, end)
    at = np.linspace(0, position[-1], SAMPLES)
    # The segment on which each place lies; the end of the chain belongs to the last one.
    k = np.clip(np.searchsorted(position, at, side="right") - 1, 0, len(points) - 2)
    ahead = (points[k + 1] - points[k]) / (position[k + 1] - position[k])[:, None]
    h = points[k] + (at - position[k])[:, None] * ahead
    # In float64: the drift along a line is a small difference of nearly equal states.
    with jax.enable_x64(True):
        moved = np.asarray(jax.jit(jax.vmap(step))(jnp.asarray(h, jnp.float64)))
    moved = moved - _resting_eigenvalue(time) * h
    return np.column_stack([at, (moved * ahead).sum(axis=1)])  # `ahead` has unit length
