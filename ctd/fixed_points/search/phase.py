"""The phase portrait of a network with a state of two numbers: nullclines, flow, trials and points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctd.fixed_points.search.portrait import N_TRIALS, sorts
from ctd.late import Array, jax, jnp
from ctd.plots import Axis, Layer, Lines, Plot
from ctd.rows import Columns

GRID, ARROWS = 121, 17
"""Places along each axis at which F is computed for the nullclines, and at which the flow is drawn."""


def zero_line(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x (segment, 2), y (segment, 2)) of z = 0, for z[row, column] at x (column,), y (row,).

    A cell of the grid is two triangles, over each of which z is linear: its zeros are a segment, or none.
    """
    at = np.stack([*np.meshgrid(x, y), z], axis=-1)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
    corners = np.concatenate(
        [np.stack(three, axis=-2).reshape(-1, 3, 3) for three in ((a, b, c), (b, c, d))]
    )
    corners = corners[np.isfinite(corners).all(axis=(1, 2))]  # F may be undefined at some places
    above = corners[:, :, 2] > 0
    corners = corners[above.any(axis=1) & ~above.all(axis=1)]
    first, second = corners, np.roll(corners, -1, axis=1)
    crosses = (first[..., 2] > 0) != (second[..., 2] > 0)  # two sides of each triangle
    start, end = first[crosses], second[crosses]
    share = start[:, 2] / (start[:, 2] - end[:, 2])
    segments = (start + share[:, None] * (end - start))[:, :2].reshape(-1, 2, 2)
    return segments[..., 0], segments[..., 1]


def phase(
    f: Callable[[Array, Array], Array], states: np.ndarray, reduced: Columns, rows: np.ndarray
) -> Plot:
    """The phase portrait of the map f(h, x), h (2,), around states (trial, time, 2) and the points in some rows of a table.

    x is the constant input of the first of them.
    """
    x_there = np.asarray(reduced["constant_input"], float)[rows[0]]
    input_text = f"the input {x_there.tolist()} of point {rows[0]}" if len(x_there) else "no input"
    points = np.asarray(reduced["point"], float)
    in_view = np.concatenate([states.reshape(-1, 2), points[rows]])
    low, high = in_view.min(axis=0), in_view.max(axis=0)
    margin = 0.15 * np.where(high > low, high - low, 1)
    x, y = (np.linspace(low[k] - margin[k], high[k] + margin[k], GRID) for k in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    moved = jax.jit(jax.vmap(jax.vmap(lambda h: f(h, jnp.asarray(x_there, states.dtype)))))(
        jnp.asarray(grid, states.dtype)
    )
    change = np.asarray(moved, float) - grid
    layers: list[Layer] = [_flow(x, y, change)]
    for k in (0, 1):
        ends = zero_line(x, y, change[..., k])
        layers.append(Lines(*_joined(*ends), f"h{k + 1} stays", hue=k))
    if states.shape[1] > 1:
        few = states[:N_TRIALS]
        layers.append(Lines(few[..., 0], few[..., 1], "trials", faint=True))
    for sort in sorts(reduced, rows):
        text = [f"point {row}: {sort.label}" for row in sort.rows]
        layers.append(sort.marks(points, text, hue=2))
    return Plot(
        "Phase portrait",
        layers,
        Axis("h1"),
        Axis("h2"),
        note=f"Nullclines and flow at {input_text}.",
    )


def _joined(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments as one line, which NaN interrupts."""
    between = lambda values, gap: np.append(values, np.full((len(values), 1), gap), axis=1).ravel()
    return between(x, 0.0), between(y, np.nan)


HEAD = 0.3 * np.array([[-(0.75**0.5), -0.5], [0.5, -(0.75**0.5)]])
"""Turns a stroke by 150 degrees and shortens it: one side of its head; the transposed matrix makes the other."""


def _flow(x: np.ndarray, y: np.ndarray, change: np.ndarray) -> Lines:
    """Arrows from places of a coarse grid towards the next state; the longest is as long as the places lie apart."""
    some = np.linspace(0, len(x) - 1, ARROWS).round().astype(int)
    unit = np.array([x[some[1]] - x[0], y[some[1]] - y[0]])
    step = change[np.ix_(some, some)] / unit
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    # By the root, arrows are seen where the network is slow, too.
    longest = np.nanmax(np.where(np.isfinite(length), length, 0), initial=0)
    step = 0.9 * step / np.maximum(np.sqrt(length * longest), 1e-300)
    start = np.stack(np.meshgrid(x[some], y[some]), axis=-1)
    tip = start + step * unit
    sides = [tip + step @ turn * unit for turn in (HEAD, HEAD.T)]
    ends = np.stack([start, tip, sides[0], tip, sides[1]], axis=-2).reshape(-1, 5, 2)
    return Lines(*_joined(ends[..., 0], ends[..., 1]), "flow", faint=True)
