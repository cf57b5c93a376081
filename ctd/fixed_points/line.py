"""Line and ring attractors: slow points that form a chain, what moves along it, and what reads and drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ctd.fixed_points.network import Time
from ctd.late import Array, jax, jnp, scipy
from ctd.rows import lines_of
from ctd.words import count

CLOSES = 1.5
"""A chain is a ring if its ends are no farther apart than this times its widest gap ..."""

ROUND = 0.5
"""... and than this times its length, which is their distance on a straight line."""

SAMPLES = 100
"""Places along the chain at which the speed is computed."""


@dataclass(frozen=True)
class Line:
    """A chain of k points in order; the result of `line`."""

    rows: np.ndarray
    """(k,) their rows in the table."""
    aside: np.ndarray
    """Rows that are no outliers and not on the chain: branches of it, or other points."""
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
    tangent: np.ndarray
    """(k, state) of unit length."""
    columns: dict[str, np.ndarray]
    """(k,) each: position; residual |F(h) - h|; slowest, the eigenvalue nearest to 1, of a flow to 0; mode, |cos| of the tangent with its right
    eigenvector; readout and input, see `line`."""
    drift: np.ndarray
    """(SAMPLES, 2) where a step was given: positions, and the component of F(h) - h, of a flow of dh/dt, along the chain there."""

    def __repr__(self) -> str:
        """Return what it is, and a table of its points."""
        kind = "ring" if self.closed else "line"
        head = f"{kind} of {len(self.rows)} points, length {self.length:.4g}, dimension {self.dimension:.3g}"
        if len(self.aside):
            head += f"; {count(len(self.aside), 'point')} aside"
        return "\n".join([head, *lines_of(self.columns)])


def line(
    table: Mapping[str, ArrayLike],
    *,
    readout: ArrayLike | None = None,
    step: Callable[[Array], Array] | None = None,
    slow: float = 0.05,
    time: Time = "steps",
) -> Line:
    """The chain of the points of a network, ordered along the longest path of their minimum spanning tree.

    Args:
        table: point, residual, eigenvalue, right, left, input_jacobian, and outlier if there is one: `find(...).unique`,
            or the table of a store of `fixed_points`, at one input.
        readout: (output, state) weights; then column `readout` is |cos| of the tangent with the first output's.
        step: h (n,) -> F(h) (n,), of a flow dh/dt, in JAX; then `drift` is computed.
        slow: a mode counts for `dimension` if its eigenvalue is this near to 1, of a flow to 0.
        time: that of `find`; a flow's table does not tell that it is one.

    Column `input`: |cos| of the first input's dF/dx with the left eigenvector of the slowest mode, which selects what of an
    input remains (Mante et al. 2013); NaN where the network has no input.

    >>> table = {"point": np.linspace(0, 1, 5)[:, None] * [3.0, 4.0], "residual": np.zeros(5)}
    >>> table |= {"eigenvalue": np.tile([1.0, 0.5], (5, 1)), "input_jacobian": np.zeros((5, 2, 0))}
    >>> table |= {name: np.tile(np.eye(2), (5, 1, 1)) for name in ("right", "left")}
    >>> chain = line(table)
    >>> chain.closed, round(chain.length, 6), chain.dimension
    (False, 5.0, 1.0)

    Raises ValueError for fewer than three points, several inputs, or a readout that does not fit.
    """
    points, rows = _points(table)
    order = _longest_path(points)
    points, chosen = points[order], rows[order]
    position, closed, length, widest = _measured(points)
    tangent = _tangents(points, closed)
    values = np.asarray(table["eigenvalue"])[chosen]
    dimension = float(np.median((np.abs(values - _rest(time)) <= slow).sum(axis=1)))
    columns = {"position": position, "residual": np.asarray(table["residual"])[chosen]}
    columns |= _modes(table, chosen, tangent, time)
    if readout is not None:
        columns["readout"] = _cosine(tangent, _first_output(readout, points.shape[1]))
    chain = points, position
    if closed:
        chain = np.vstack([points, points[:1]]), np.append(position, length)
    drift = _drift(step, *chain, time) if step is not None else np.zeros((0, 2))
    aside, extent = np.setdiff1d(rows, chosen), (closed, length, widest, dimension)
    return Line(chosen, aside, position, *extent, tangent, columns, drift)


def _rest(time: Time) -> int:
    """The eigenvalue of a mode at rest."""
    return 0 if time == "continuous" else 1


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
    """(distance of each point from the first one along the chain, whether it is a ring, its length, its widest gap)."""
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
    """slowest, mode and input of the columns."""
    values = np.asarray(table["eigenvalue"])[rows]
    slowest = np.argmin(np.abs(values - _rest(time)), axis=1)
    row = np.arange(len(rows))
    # (k, state): the vector of each point's slowest mode.
    of = lambda name: np.asarray(table[name])[rows][row, :, slowest]
    driven = np.asarray(table["input_jacobian"])[rows]
    size = driven.shape[2]
    return {
        "slowest": np.real(values[row, slowest]),
        "mode": _cosine(tangent, of("right")),
        "input": _cosine(of("left"), driven[:, :, 0]) if size else np.full(len(rows), np.nan),
    }


def _drift(
    step: Callable[[Array], Array], points: np.ndarray, position: np.ndarray, time: Time
) -> np.ndarray:
    """(SAMPLES, 2) positions on the straight lines between neighbours, and the component of the motion along these."""
    at = np.linspace(0, position[-1], SAMPLES)
    # The segment on which each place lies; the end of the chain belongs to the last one.
    k = np.clip(np.searchsorted(position, at, side="right") - 1, 0, len(points) - 2)
    ahead = (points[k + 1] - points[k]) / (position[k + 1] - position[k])[:, None]
    h = points[k] + (at - position[k])[:, None] * ahead
    # In float64: the drift along a line is a small difference of nearly equal states.
    with jax.enable_x64(True):
        moved = np.asarray(jax.jit(jax.vmap(step))(jnp.asarray(h, jnp.float64)))
    moved = moved - _rest(time) * h
    return np.column_stack([at, (moved * ahead).sum(axis=1)])  # `ahead` has unit length
