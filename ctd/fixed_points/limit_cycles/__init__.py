"""Kernel: limit cycles of a network, a map or a flow: period, points, Floquet multipliers, stability.

An item is one trajectory, from a state of a file or the network's own. It settles for `transient` steps; then its first
return is made exact by Newton's method (ctd.fixed_points.limit_cycles.cycle). `reduce` lists each cycle once.

    kernel: fixed_points.limit_cycles
    params: {cell: gru, weights: net.h5, states: states.h5}
    sweep: {grid: {start: {range: 100}}}

The period of a map is a whole number of steps, at most `n_points`. A closed curve on which a map turns without ever coming
back to the same state, as behind a Neimark-Sacker bifurcation, has none: such items end as `none`, or as
`lost` where the map comes within `near` of that state.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctd.fixed_points.limit_cycles import cycle
from ctd.fixed_points.limit_cycles.table import REDUCED, SUMMARY, Options, plots, reduce
from ctd.fixed_points.network import (
    FromState,
    Network,
    constant_input,
    load_start,
    map_of,
    outputs_of,
    state_of,
)
from ctd.kernel import Batching, Display, Kernel, Outcome, Static, Tables, Traced, Values, Var, View
from ctd.late import Array, jax, jnp


class LimitCycle(FromState):
    """One trajectory, and the cycle at which it ends."""

    dtype: Static[Literal["float64"]] = "float64"  # float32 does not reach cycle.TOLERANCE
    n_points: Static[int] = Field(64, gt=0)
    """states stored of a cycle. Flow: at equal time intervals; map: also the longest period that is found"""
    dt: Traced[float] = Field(0.01, gt=0)
    """longest step of a flow, by Runge and Kutta's method"""
    transient: Traced[int] = Field(5000, ge=0, lt=2**31)
    """steps before the search for a return, which do not count"""
    n_steps: Traced[int] = Field(100_000, gt=0, lt=2**31)
    """most steps until a flow returns; for a map, n_points is the limit"""
    near: Traced[float] = Field(1e-2, gt=0, lt=1)
    """a state this near has returned, in units of the trajectory's size"""
    period_guess: Traced[float] = Field(0.0, ge=0)
    """the rough period, if you know it: Newton then starts right after the transient; only this finds unstable cycles"""


# In the order of cycle.CYCLE to cycle.DIVERGED, whose numbers are these codes.
OUTCOMES = (
    Outcome("cycle", "a cycle was found"),
    Outcome("point", "the trajectory came to rest, or Newton ended at a fixed point"),
    Outcome("none", "no return: a longer period, a curve on which a map never comes back, chaos, or a slow way to a point"),
    Outcome("lost", "the trajectory seemed to return, but Newton found no cycle there, or another one: also such a curve, or chaos"),
    Outcome("diverged", "the trajectory left all bounds", failed=True),
)  # fmt: skip

OF_A_CYCLE = {
    "period": Var((), "step", "period; of a flow, in units of time; NaN without a cycle"),
    "cycle_state": Var(("phase", "state"), "1", "states of the cycle, in order; NaN beyond a map's period"),
    "cycle_output": Var(("phase", "output"), "1", "readout along the cycle"),
    "multiplier": Var(
        ("mode", "part"),
        "1",
        "Floquet multipliers, real and imaginary parts, in no order; those below 1e-15 of the largest are rounding",
    ),
    "size": Var((), "1", "largest distance of a state of the cycle from its first one"),
    "residual": Var((), "1", "distance of the state after a period from the first one"),
}  # fmt: skip
DIMS = {name: var._replace(may_be_nan=True) for name, var in OF_A_CYCLE.items()} | {
    "constant_input": Var(("input",), "1", "the constant input x"),
    "outcome": Var((), "1", "how the trajectory ended"),
}


def init(
    static: View[LimitCycle], shared: Network, traced: Values[LimitCycle], key: Array
) -> cycle.Hunt:
    """The hunt at its start."""
    del static
    h = state_of(shared, traced.start)
    h = h + traced.noise * jax.random.normal(key, h.shape, h.dtype)
    return cycle.begin(h, traced.period_guess)


def advance(
    static: View[LimitCycle], shared: Network, traced: Values[LimitCycle], key: Array, s: cycle.Hunt
) -> cycle.Hunt:
    """A block of steps, or an iteration of Newton."""
    del key
    return cycle.advance(_system(static, shared, traced), s)


def result(
    static: View[LimitCycle], shared: Network, traced: Values[LimitCycle], key: Array, s: cycle.Hunt
) -> dict[str, Array]:
    """The cycle as far as it is known."""
    del key
    is_cycle = s.outcome == cycle.CYCLE
    # A hunt that failed still holds its last guess, which is no result.
    or_nan = lambda values: jnp.where(is_cycle, values, jnp.nan)
    states = or_nan(cycle.orbit(_system(static, shared, traced), s, static.n_points))
    return {
        "period": or_nan(s.period),
        "cycle_state": states,
        "cycle_output": outputs_of(shared, states),  # NaN where the states are
        "multiplier": or_nan(s.multiplier),
        "size": or_nan(s.size),
        "residual": or_nan(s.residual),
        "constant_input": constant_input(shared, traced),
        "outcome": s.outcome,
    }


def _system(static: View[LimitCycle], shared: Network, traced: Values[LimitCycle]) -> cycle.System:
    x, f = constant_input(shared, traced), map_of(shared, static.time)
    field = lambda h: f(shared.weights, h, x)  # a map's next state, or dh/dt
    flow = static.time == "continuous"
    # A map's cycle is stored whole, so that its period cannot exceed the room for states.
    longest = traced.n_steps if flow else jnp.asarray(static.n_points)
    return cycle.System(field, flow, traced.dt, traced.transient, longest, traced.near)


kernel = Kernel(
    name="fixed_points.limit_cycles",
    Params=LimitCycle,
    dims=DIMS,
    load=load_start,
    init=init,
    advance=advance,
    finished=lambda s: s.outcome != cycle.RUNNING,
    result=result,
    outcomes=OUTCOMES,
    tables=Tables(reduce=reduce, of_failed=True, dims=REDUCED, Options=Options),
    display=Display(summary=SUMMARY, plots=plots),
    batching=Batching(
        # An item that corrects its cycle would have its neighbours do the same, in vain.
        microbatches=(16,),
        cpu_microbatches=(1,),
    ),
)
