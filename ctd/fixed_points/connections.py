"""Kernel: where a network goes when it leaves an unstable point: which point leads to which.

An item is one departure: a small step from an unstable fixed point along one of its growing modes, to one side, and
then the network itself, h <- F(h, x), until it comes to rest at a point of the table or `n_steps` are over. From a
saddle with one growing mode the two departures follow its unstable manifold. It ends in the two states whose basins
the saddle separates. `reduce` lists each connection once.

    kernel: fixed_points.connections
    params:
      cell: gru
      weights: {stage: points, part: params}
      points: {stage: points, part: table}       of a store of fixed_points
    sweep: {grid: {departure: {range: 100}}}     more than there are begin anew
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from ctd.cells import Weights, as_weights
from ctd.data import read_table
from ctd.fixed_points import network
from ctd.fixed_points.network import CellName, OfNetwork, map_of, number_of, stored_cell
from ctd.fixed_points.pictures import Part, Sort, parts
from ctd.kernel import (
    Batching,
    Display,
    File,
    Kernel,
    NoOptions,
    Outcome,
    Tables,
    Traced,
    Values,
    Var,
    View,
)
from ctd.late import Array, Float, Int, jax, jnp, lax, on_host
from ctd.plots import Axis, Group, Image, Layer, Lines, Plot, Scale, of_group
from ctd.principal import principal
from ctd.rows import Columns
from ctd.words import count

BLOCK = 100
"""Most steps of one advance."""

MOVES = 1e-3
"""A table is taken for another network's if a step moves a point by more than this times max(1, |h|), and by more than ten times its
residual in the table. Rounding to float32 moves points by about 1e-6 |h|."""


class Departure(OfNetwork):
    """One departure from an unstable point."""

    points: File[str | None] = None
    """table of its points: STORE/gathered/GROUP of fixed_points"""
    departure: Traced[int] = number_of("departure")
    distance: Traced[float] = Field(1e-3, gt=0)
    """length of the first step, along the growing mode"""
    near: Traced[float] = Field(1e-2, gt=0)
    """the network has arrived at a point, other than the first, once it is within this distance"""
    n_steps: Traced[int] = Field(100_000, gt=0, lt=2**31)
    """most steps"""


OUTCOMES = (
    Outcome("arrived", "it is near another point, and its step is at most near / 100"),
    Outcome("limit", "n_steps were not enough: a cycle, chaos, or a slow way"),
    Outcome("diverged", "the state left all bounds", failed=True),
    Outcome("none", "the table has no unstable fixed point"),
)
RUNNING = -1
ARRIVED, LIMIT, DIVERGED, NONE = range(4)

DIMS = {
    "from_point": Var((), "1", "number of the point that is left, by its row in the table; -1: none"),
    "mode": Var((), "1", "number of the growing mode, by decreasing |eigenvalue|"),
    "side": Var((), "1", "1 or -1: along the mode or against it"),
    "to_point": Var((), "1", "number of the nearest point at the end; -1 unless it arrived"),
    "steps": Var((), "step", "steps until the departure ended"),
    "end": Var(("state",), "1", "the state at the end"),
    "outcome": Var((), "1", "how the departure ended"),
}  # fmt: skip
_C = ("connection",)
REDUCED = {
    "connection_from": Var(_C, "1", "number of the unstable point"),
    "connection_to": Var(_C, "1", "number of the point that it leads to"),
    "departures": Var(_C, "1", "how many departures lead there: modes and sides"),
    "fewest_steps": Var(_C, "step", "steps of the fastest of these departures"),
    "leads": Var(("from_point", "to_point"), "1", "departures from each point to each"),
}


class Table(NamedTuple):
    """A network, its points, and the departures from them."""

    cell: CellName
    weights: Weights
    points: Float[Array, "point state"]
    inputs: Float[Array, "point input"]
    departures: Int[Array, "departure 3"]
    """Point that is left, mode, side; point -1 alone where none is unstable."""
    direction: Float[Array, "departure state"]
    """Unit vector."""
    growing: Int[Array, "point"]
    """Modes of the point that grow; -1: it is a slow point, which no item leaves."""
    marginal: Int[Array, "point"]
    """Its modes that neither grow nor decay."""
    in_plane: Float[Array, "point component"]
    """The points in the plane of the pictures of fixed_points; (0, 0): unknown."""


def load(inputs: View[Departure]) -> Table:
    """The network and the departures from its points. Raises ValueError, also where these are not at rest."""
    name, _, weights = stored_cell(inputs)
    columns = ("point", "constant_input", "eigenvalue", "right", "n_unstable")
    further = ("error", "n_marginal", "plane_mean", "plane_axes", "residual")
    table = read_table("points", inputs.points, "fixed_points", columns, further)
    real = lambda values: on_host(values, inputs.dtype)
    points = real(table["point"])
    # Modes come by decreasing magnitude.
    slow = np.isnan(table.get("error", np.zeros(len(points))))  # they have no zero to be off
    growing = np.where(slow, -1, table["n_unstable"])
    grows = np.arange(table["eigenvalue"].shape[1]) < growing[:, None]
    leaves, modes = np.nonzero(grows)
    vectors = table["right"][leaves, :, modes]
    # A pair of complex modes spans a plane: the real parts of its two vectors, and their imaginary parts, do.
    second = table["eigenvalue"][leaves, modes].imag < 0
    directions = np.where(second[:, None], vectors.imag, vectors.real)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    # Each mode twice, once to each side.
    directions = np.repeat(directions / np.where(lengths > 0, lengths, 1), 2, axis=0)
    departures = np.column_stack(
        [np.repeat(leaves, 2), np.repeat(modes, 2), np.tile([1, -1], len(leaves))]
    )
    # Programs take a departure modulo their number: one from nowhere, which ends as `none`, keeps this defined.
    if not len(departures):
        departures, directions = (
            np.array([[-1, 0, 1]]),
            np.zeros((1, points.shape[1]), inputs.dtype),
        )
    in_plane = np.zeros((0, 0))
    if "plane_axes" in table:
        in_plane = ((table["point"] - table["plane_mean"]) @ table["plane_axes"])[:, :2]
    as_int = lambda values: on_host(values, np.int32)
    # A table of the user's own may do without marginal modes.
    shared = Table(
        {name: None}, as_weights(weights, inputs.dtype), points, real(table["constant_input"]),
        departures=as_int(departures), direction=real(directions),
        growing=as_int(growing), marginal=as_int(table.get("n_marginal", np.zeros(len(points)))), in_plane=real(in_plane),
    )  # fmt: skip
    if "residual" in table:
        _check_rest(inputs, shared, table["residual"])
    return shared


def _check_rest(inputs: View[Departure], shared: Table, residual: np.ndarray) -> None:
    """Raise ValueError if points move, as those of another network do. residual: their |F(h) - h| by the table."""
    with jax.enable_x64(inputs.dtype == "float64"):
        step = jax.jit(jax.vmap(map_of(shared), in_axes=(None, 0, 0)))
        after = np.asarray(step(shared.weights, shared.points, shared.inputs), float)
    moved, size = (np.linalg.norm(h, axis=1) for h in (after - shared.points, shared.points))
    rests = moved <= np.maximum(10 * residual, MOVES * np.maximum(1, size))
    if not rests.all():
        k, n = int(np.argmin(rests)), int((~rests).sum())
        raise ValueError(
            f"points: {inputs.points}: {n} of {count(len(rests), 'point')} do not rest in these weights: of point {k}, |F(h) - h| is "
            f"{moved[k]:.2g}, and {residual[k]:.2g} in the table; are they another network's?"
        )


class Flight(NamedTuple):
    """A departure between two advances."""

    h: Float[Array, "state"]
    steps: Int[Array, ""]
    nearest: Int[Array, ""]
    """Number of the nearest point but the first."""
    outcome: Int[Array, ""]


def _departure(shared: Table, traced: Values[Departure]) -> Int[Array, ""]:
    return traced.departure % len(shared.departures)


def init(static: View[Departure], shared: Table, traced: Values[Departure], key: Array) -> Flight:
    """Place the state `distance` away from the point, along the mode or against it."""
    del static, key
    k = _departure(shared, traced)
    leaves, _, side = shared.departures[k]
    h = shared.points[leaves] + traced.distance * side * shared.direction[k]
    outcome = jnp.where(leaves < 0, NONE, RUNNING).astype(jnp.int32)
    return Flight(h, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32), outcome)


def advance(
    static: View[Departure], shared: Table, traced: Values[Departure], key: Array, s: Flight
) -> Flight:
    """At most BLOCK steps of the network, none after the departure has ended."""
    del static, key
    leaves = shared.departures[_departure(shared, traced), 0]
    x, f = shared.inputs[leaves], map_of(shared)
    # Points at another input are not points of this network.
    same = (shared.inputs == x).all(axis=1)
    # The point that is left does not count: at first it is the nearest.
    other = same & (jnp.arange(len(shared.points)) != leaves)

    def step(now: Flight) -> Flight:
        h = f(shared.weights, now.h, x)
        apart = jnp.linalg.norm(shared.points - h, axis=1)
        distance: Array = jnp.where(other, apart, jnp.inf)
        nearest: Array = jnp.argmin(distance).astype(jnp.int32)
        steps: Array = now.steps + 1
        # The last rule that applies decides: diverged before arrived before limit.
        outcome = jnp.where(steps >= traced.n_steps, LIMIT, RUNNING)
        # A trajectory that passes a point on its way is near it, but goes on: it must hardly move as well.
        rests = jnp.linalg.norm(h - now.h) <= traced.near / 100
        outcome = jnp.where((distance[nearest] <= traced.near) & rests, ARRIVED, outcome)
        outcome = jnp.where(jnp.isfinite(h).all(), outcome, DIVERGED).astype(jnp.int32)
        return Flight(h, steps, nearest, outcome)

    going = lambda now: (now.outcome == RUNNING) & (now.steps - s.steps < BLOCK)
    return lax.while_loop(going, step, s)


def result(
    static: View[Departure], shared: Table, traced: Values[Departure], key: Array, s: Flight
) -> dict[str, Array]:
    """The point or the end that the departure led to."""
    del static, key
    leaves, mode, side = shared.departures[_departure(shared, traced)]
    return {
        "from_point": leaves,
        "mode": mode,
        "side": side,
        "to_point": jnp.where(s.outcome == ARRIVED, s.nearest, -1),
        "steps": s.steps,
        "end": s.h,
        "outcome": s.outcome,
    }


def reduce(
    inputs: View[Departure],
    shared: Table,
    columns: Columns,
    results: Columns,
    options: NoOptions | None,
) -> dict[str, np.ndarray]:
    """The connections, each once, by both points; a departure that items repeat counts once."""
    del inputs, columns, options
    names = ("from_point", "mode", "side", "to_point", "steps")
    departures = np.stack([np.asarray(results[name][:], int) for name in names], axis=1)
    # Point, mode and side name a departure; items beyond their number repeat them.
    departures = departures[np.unique(departures[:, :3], axis=0, return_index=True)[1]]
    network.warn_of_untried("departure", len(departures), len(shared.departures))
    departures = departures[departures[:, 3] >= 0]  # departures that arrived
    n = len(shared.points)
    pairs = departures[:, 0], departures[:, 3]
    leads, fewest = np.zeros((n, n), int), np.full((n, n), np.iinfo(int).max)
    np.add.at(leads, pairs, 1)
    np.minimum.at(fewest, pairs, departures[:, 4])
    source, target = np.nonzero(leads)
    return {
        "connection_from": source,
        "connection_to": target,
        "departures": leads[source, target],
        "fewest_steps": fewest[source, target],
        "leads": leads,
    }


@of_group
def plots(group: Group) -> list[Plot]:
    """The graph of points that lead to each other, at each constant input; and the matrix of departures if one leads anywhere."""
    if "leads" not in group.reduced:
        return []
    leads = np.asarray(group.reduced["leads"])
    some = parts(np.asarray(group.shared.inputs), "points")
    figures = [graph(group.shared, leads, part) for part in some]
    if leads.any():
        names = [str(k) for k in range(len(leads))] if len(leads) <= 30 else ()
        to, source = Axis("to point", ticks=names), Axis("from point", ticks=names)
        title, scale = "Departures from point to point", Scale("departures")
        figures.append(Plot(title, [Image(leads)], to, source, scale))
    return figures


def graph(table: Table, leads: np.ndarray, part: Part) -> Plot:
    """A part of the points in two dimensions, by their stability; a line for each connection.

    Without the table's `in_plane`, points are drawn in their own principal components. leads: (point, point), as in the table.
    """
    points, in_plane = np.asarray(table.points), np.asarray(table.in_plane)
    growing, marginal = np.asarray(table.growing), np.asarray(table.marginal)
    places = in_plane if len(in_plane) else principal(points, 2)[0](points)
    at = np.zeros((len(points), 2))
    at[:, : places.shape[1]] = places  # one unit has one component, and height 0
    source, target = np.nonzero(leads)
    # Only points at one input are connected.
    inside = np.isin(source, part.rows)
    source, target = source[inside], target[inside]
    layers: list[Layer] = []
    if len(source):
        ends = np.stack([at[source], at[target]], axis=1)
        text = [f"point {a} leads to {b}" for a, b in zip(source, target, strict=True)]
        layers.append(Lines(ends[..., 0], ends[..., 1], "leads to", text=text, faint=True))
    for sort in _sorts(growing, marginal, part.rows):
        layers.append(sort.marks(at, [f"point {row}" for row in sort.rows], numbered=True))
    basis = "states" if len(in_plane) else "points"
    axis = lambda k: Axis(f"principal component {k + 1} of the {basis}")
    note = "Lines lead away from hollow points."
    if not len(source):
        note = "No departure came to rest at another point."
    if not (growing[part.rows] > 0).any():
        note = "No point has a growing mode, along which to leave it."
    title, note = f"Which point leads to which{part.at}", note + part.together
    return Plot(title, layers, axis(0), axis(1), equal=True, note=note)


def _sorts(growing: np.ndarray, marginal: np.ndarray, rows: np.ndarray) -> list[Sort]:
    """Each sort of point that there is among these rows."""
    n, rests = growing[rows], marginal[rows] == 0
    sorts = [
        Sort("stable", rows[(n == 0) & rests], False, False),
        Sort("marginal", rows[(n == 0) & ~rests], False, False),
        Sort("slow", rows[n < 0], True, False),
        *(
            Sort(count(int(k), "growing mode"), rows[n == k], False, True)
            for k in np.unique(n[n > 0])
        ),
    ]
    return [sort for sort in sorts if len(sort.rows)]


kernel = Kernel(
    name="fixed_points.connections",
    Params=Departure,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=lambda s: s.outcome != RUNNING,
    result=result,
    outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED),
    display=Display(
        summary=("connection_from", "connection_to", "departures", "fewest_steps"), plots=plots
    ),
    batching=Batching(
        # Departures share the weights, as candidates do.
        microbatches=(64,)
    ),
)
