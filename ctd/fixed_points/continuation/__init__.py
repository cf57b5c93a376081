"""Kernel: how fixed points move with an input or a weight, where they meet, and where they lose stability.

An item starts at one point of a table (of `fixed_points`, or any file of states) and follows it to both sides over the
parameter p, from `low` to `high`, also through folds (ctd.fixed_points.continuation.branch). Bifurcations on the way are located and
classified. `reduce` tells which items followed one branch, and lists each bifurcation once.

    kernel: fixed_points.continuation
    params:
      cell: gru
      weights: net.h5
      points: POINTS.zarr/gathered/0         the table of a store of fixed_points
      over: input                            x + p along; or the name of a weight, which p multiplies
      along: [1]
      low: -1
      high: 1
    sweep: {grid: {start_point: {range: 27}}}
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from ctd.cells import READOUT_AXES, Cell
from ctd.fixed_points.continuation import branch
from ctd.fixed_points.continuation.bifurcation import KINDS
from ctd.fixed_points.continuation.curve import System
from ctd.fixed_points.continuation.table import REDUCED, SUMMARY, plots, reduce
from ctd.fixed_points.network import (
    Network,
    OfDynamics,
    map_of,
    n_in_of,
    number_of,
    outputs_of,
    state_of,
    stored_cell,
    stored_network,
)
from ctd.kernel import (
    Batching,
    Data,
    Display,
    File,
    Kernel,
    Outcome,
    Static,
    Tables,
    Traced,
    Values,
    Var,
    View,
)
from ctd.late import Array, Bool, Float, jnp, lax
from ctd.words import count

BLOCK = 16
"""Steps of one advance."""


class Continuation(OfDynamics):
    """One point, followed over a parameter p."""

    dtype: Static[Literal["float64"]] = "float64"  # float32 does not reach curve.TOLERANCE
    over: Static[str] = "input"
    """what p changes. input: the constant input is x + p along; the name of a weight: the weight is multiplied by p"""
    n_steps: Static[int] = Field(400, gt=0)
    """most steps to each side of the start"""
    n_bifurcations: Static[int] = Field(16, gt=0)
    """most bifurcations that are stored for a branch"""
    points: File[str | None] = None
    """points to start from: HDF5, or STORE/gathered/GROUP of fixed_points"""
    dataset: Data[str] = "point"
    """name of the states in that file, (..., state)"""
    start_point: Traced[int] = number_of("point")
    x: Traced[tuple[float, ...]] = Field((), json_schema_extra={"units": "1"})
    """constant input; without it, each point has its own from the table, or zeros"""
    along: Traced[tuple[float, ...]] = ()
    """direction of the input that p moves; without it, the first input"""
    low: Traced[float] = -1.0
    """lower end of p"""
    high: Traced[float] = 1.0
    """upper end of p"""
    start: Traced[float] = 0.0
    """p at which the points were found; with over: input, a table of fixed_points tells it for each point"""
    max_step: Traced[float] = Field(0.05, gt=0)
    """longest step; its unit is the range of p for p, and sqrt(n) / 2 times the points' largest |h_i| for h"""
    stray: Traced[float] = Field(10.0, gt=0)
    """a branch ends as `away` once an |h_i| exceeds this many times the points' largest |h_i|, which counts as 1 if it is smaller"""

    @model_validator(mode="after")
    def _can_be_followed(self) -> Continuation:
        # NaN fails either comparison.
        if self.along and not 0 < sum(abs(value) for value in self.along) < float("inf"):
            raise ValueError(f"along: {self.along} is no direction; give finite numbers, not all 0")
        if not self.low < self.high:
            raise ValueError(f"low: {self.low} is not below high: {self.high}")
        if not self.low <= self.start <= self.high:
            raise ValueError(
                f"start: {self.start} does not lie within low: {self.low} and high: {self.high}; for a weight, "
                "1 is its trained value"
            )
        return self


# In the order of branch.END to branch.ELSEWHERE, whose numbers are these codes.
OUTCOMES = (
    Outcome("complete", "both sides reached an end of the parameter's range"),
    Outcome("closed", "the branch came back to its start"),
    Outcome("away", "a unit went beyond stray times the points' largest |h_i|"),
    Outcome("limit", "n_steps were not enough for a side"),
    Outcome("lost", "no step, however short, could be corrected: F may not be defined there", failed=True),
    Outcome("nowhere", "no fixed point was found within max_step of the start, which was a slow point or too far from a fixed one"),
    Outcome(
        "elsewhere",
        "the table has the point at another constant input: neither x, nor x + p along with p between low and high",
        failed=True,
    ),
)  # fmt: skip

_STEP, _BIFURCATION = ("step",), ("met",)
DIMS = {
    "constant_input": Var(("input",), "1", "the constant input x; over the input, that at p = 0"),
    "parameter": Var(_STEP, "1", "p along the branch; NaN beyond its ends", may_be_nan=True),
    "branch_state": Var((*_STEP, "state"), "1", "h along the branch", may_be_nan=True),
    "branch_output": Var((*_STEP, "output"), "1", "readout along the branch", may_be_nan=True),
    "n_unstable": Var(_STEP, "1", "unstable modes along the branch; -1 beyond its ends"),
    "met_kind": Var(_BIFURCATION, "1", f"bifurcations met, in order: {', '.join(KINDS)}; -1: none"),
    "met_parameter": Var(_BIFURCATION, "1", "p there; NaN: none", may_be_nan=True),
    "met_state": Var((*_BIFURCATION, "state"), "1", "h there", may_be_nan=True),
    "met_mode": Var((*_BIFURCATION, "part"), "1", "real and imaginary part of the critical eigenvalue", may_be_nan=True),
    "n_met": Var((), "1", "bifurcations met"),
    "n_points": Var((), "1", "points of the branch"),
    "outcome": Var((), "1", "how the branch ended; if its two sides ended differently, the graver end"),
}  # fmt: skip


def load(inputs: View[Continuation]) -> Network:
    """The network, and the points to start from as its states. Raises ValueError."""
    _, cell, weights = stored_cell(inputs)
    # A readout or an initial state of a cell moves no point.
    readout_names = READOUT_AXES.keys() if isinstance(cell, Cell) else set()
    moving = sorted(set(weights) - readout_names)
    if inputs.over != "input" and inputs.over not in moving:
        raise ValueError(
            f"over: {inputs.over!r} is no weight of {inputs.weights} that moves points; input, or one of "
            f"{', '.join(moving)}"
        )
    if inputs.points is None:
        raise ValueError(
            "points: a file of points to start from expected, such as POINTS.zarr/gathered/0 of a store of "
            "fixed_points"
        )
    return stored_network(inputs, inputs.points, inputs.dataset)


class Place(NamedTuple):
    """The start of a branch."""

    x: Float[Array, "input"]
    """The constant input; over the input, where p is 0."""
    along: Float[Array, "input"]
    p: Float[Array, ""]
    has_point: Bool[Array, ""]
    """True if the file has the point there, or tells no place."""


def place_of(static: View[Continuation], shared: Network, traced: Values[Continuation]) -> Place:
    """The place of an item's point: that of its table, or, for other files, that of `x` and `start`.

    Raises ValueError if a length does not fit the network's inputs.
    """
    sizes = {name: len(getattr(traced, name)) for name in ("x", "along")}
    sizes["points: constant_input"] = shared.inputs.shape[1]
    n_in = n_in_of(shared)
    # A user's F has as many inputs as are given; p itself needs one.
    n_inputs = n_in if n_in is not None else max(*sizes.values(), 1)
    for name, size in sizes.items():
        if size not in (0, n_inputs):
            raise ValueError(
                f"{name}: {count(size, 'number')} given, but the network has {count(n_inputs, 'input')}"
            )
    zeros = jnp.zeros(n_inputs, shared.states.dtype)
    x = traced.x if sizes["x"] else zeros
    along = traced.along if sizes["along"] else zeros.at[:1].set(1)  # it may have no input
    if not shared.inputs.size:
        return Place(x, along, traced.start, jnp.ones((), bool))
    table_input = jnp.asarray(shared.inputs)[traced.start_point % len(shared.inputs)]
    if static.over != "input":
        x = x if sizes["x"] else table_input
        return Place(x, along, traced.start, _equal(x, table_input))
    p = (table_input - x) @ along / (along @ along)  # of the place on x + p along that is nearest
    x = x if sizes["x"] else table_input - p * along
    inside = (p >= traced.low) & (p <= traced.high)
    return Place(x, along, p, inside & _equal(x + p * along, table_input))


def _equal(x: Float[Array, "input"], table_input: Float[Array, "input"]) -> Bool[Array, ""]:
    # A table of float32 has its inputs rounded.
    return jnp.linalg.norm(x - table_input) <= 1e-6 * (1 + jnp.linalg.norm(table_input))


def init(
    static: View[Continuation], shared: Network, traced: Values[Continuation], key: Array
) -> branch.Branch:
    """The branch at its start."""
    del key
    system = _system(static, shared, traced)
    place = place_of(static, shared, traced)
    h = jnp.where(place.has_point, state_of(shared, traced.start_point), jnp.nan)
    b = branch.begin(system, h, place.p, static.n_steps, static.n_bifurcations)
    return b._replace(ends=jnp.where(place.has_point, b.ends, branch.ELSEWHERE))


def advance(
    static: View[Continuation],
    shared: Network,
    traced: Values[Continuation],
    key: Array,
    b: branch.Branch,
) -> branch.Branch:
    """A block of steps."""
    del key
    system = _system(static, shared, traced)
    going = lambda carry: (carry[0] < BLOCK) & ~branch.ended(carry[1])
    step = lambda carry: (carry[0] + 1, branch.step(system, carry[1]))
    return lax.while_loop(going, step, (jnp.zeros((), jnp.int32), b))[1]


def result(
    static: View[Continuation],
    shared: Network,
    traced: Values[Continuation],
    key: Array,
    b: branch.Branch,
) -> dict[str, Array]:
    """The branch as far as it is known."""
    del key
    return {
        "constant_input": place_of(static, shared, traced).x,
        "parameter": b.parameter,
        "branch_state": b.state,
        "branch_output": outputs_of(shared, b.state),  # NaN beyond the ends, as h
        "n_unstable": b.unstable,
        "met_kind": b.bifurcations.kind,
        "met_parameter": b.bifurcations.parameter,
        "met_state": b.bifurcations.state,
        "met_mode": b.bifurcations.mode,
        "n_met": b.bifurcations.n,
        "n_points": jnp.sum(b.unstable >= 0),  # -1 where there is none
        "outcome": branch.outcome(b),
    }


def _system(static: View[Continuation], shared: Network, traced: Values[Continuation]) -> System:
    f = map_of(shared, static.time)
    x, along, *_ = place_of(static, shared, traced)

    def g(h: Float[Array, "state"], p: Float[Array, ""]) -> Float[Array, "state"]:
        if static.over == "input":
            value = f(shared.weights, h, x + p * along)
        else:
            # The weight is as trained where p = 1.
            changed = {**shared.weights, static.over: p * shared.weights[static.over]}
            value = f(changed, h, x)
        return value if static.time == "continuous" else value - h  # zero at a point

    # The norm of a state whose entries are all half the largest one; of points at 0 alone, as if it were 1.
    largest = jnp.max(jnp.abs(shared.states))
    unit = jnp.where(largest > 1e-6, largest, 1) * shared.states.shape[-1] ** 0.5 / 2
    bound = traced.stray * shared.largest
    flow = static.time == "continuous"
    return System(g, flow, unit, traced.low, traced.high, traced.max_step, bound)


kernel = Kernel(
    name="fixed_points.continuation",
    Params=Continuation,
    dims=DIMS,
    load=load,
    init=init,
    advance=advance,
    finished=branch.ended,
    result=result,
    outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED),
    display=Display(summary=SUMMARY, plots=plots, png_plots=6),
    batching=Batching(
        # A branch that looks for a bifurcation solves hundreds of eigenvalue problems while its neighbours wait.
        microbatches=(16,),
        cpu_microbatches=(1,),
    ),
)
