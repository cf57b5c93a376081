"""The kernel of `ctd.fixed_points`: its parameters, and the searches behind the kernel contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from ctd import tasks
from ctd.cells import Cell
from ctd.fixed_points.candidates import (
    CELL_TEXT,
    TIME_TEXT,
    WEIGHTS_TEXT,
    Map,
    Network,
    Time,
    cell_of,
    euler,
    known_cell,
)
from ctd.fixed_points.search import approach, exact, methods
from ctd.fixed_points.search.plots import figure, plots
from ctd.fixed_points.search.summary import REDUCED, SUMMARY, Options, reduce
from ctd.fixed_points.starts import constant_input, draw_start
from ctd.kernel import Data, File, Kernel, Outcome, Params, Static, Traced, Values, Var, View
from ctd.late import Array, Float, PyTree, jax, jnp
from ctd.words import count


class FixedPoint(Params):
    """One candidate: a search for a point with q(h) = |F(h, x) - h|^2 / 2 = 0; of a flow q = |dh/dt|^2 / 2."""

    dtype: Static[Literal["float32", "float64"]] = "float64"
    cell: Static[Annotated[str, AfterValidator(known_cell)] | None] = Field(
        None, description=CELL_TEXT
    )
    time: Static[Time] = Field("steps", description=TIME_TEXT)
    method: Static[Literal["lm", "adam", "exact"]] = Field(
        "lm",
        description="lm: L-BFGS, then Levenberg-Marquardt; adam: gradient descent by Adam, which uses no curvature, "
        "so that slow points end as `limit`, at max_iterations; exact: of a piecewise linear cell, by solving linear regions",
    )
    region: Static[Literal["none", "box", "sphere", "linear"]] = Field(
        "none",
        description="where else searches start, for points that no trial comes near. box: each |h_i| up to reach times the "
        "candidates' largest (at least 1); sphere: around their mean, its radius reach times their spread; linear: where the linear region "
        "number `candidate` of a piecewise linear cell has its fixed point, so that a sweep over all numbers misses none",
    )
    weights: File[str | None] = Field(None, description=WEIGHTS_TEXT)
    candidates: File[str | None] = Field(
        None,
        description="file of states to start from, HDF5, .npz or .npy; without it, searches start at states of trials of `task`",
    )
    dataset: Data[str] = Field("hiddens", description="name of the states in it, (..., state)")
    task: Data[tasks.AnyTask] = Field(
        tasks.Decision(), description="task whose trials give the states to start from"
    )
    n_trials: Data[int] = Field(400, gt=0, description="trials that are run")
    trial_seed: Data[int] = Field(0, ge=0, lt=2**32, description="chooses the trials")
    dt: Data[float | None] = Field(
        None, gt=0, description="length of a step (s): frequencies and time constants in seconds"
    )
    candidate: Traced[int] = Field(
        0,
        ge=0,
        lt=2**31,
        description="number of the state to start from, modulo their number: searches beyond it repeat, and count again",
    )
    x: Traced[tuple[float, ...]] = Field(
        (), description="constant input; without it, zeros", json_schema_extra={"units": "1"}
    )
    noise: Traced[float] = Field(0.0, ge=0, description="sd of Gaussian noise on the start")
    mix: Traced[float] = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a search starts between two states instead of at one",
    )
    anywhere: Traced[float] = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a search starts in the region instead of at a state",
    )
    reach: Traced[float] = Field(1.5, gt=0, description="size of the region")
    q_tol: Traced[float] = Field(  # |F(h) - h| below 1.4e-10
        1e-20, gt=0, description="a fixed point has q below this; the tutorials' loss is 2 q / n"
    )
    max_iterations: Traced[int] = Field(
        10_000,
        gt=0,
        lt=2**31,
        description="most gradients and Hessian products, or with exact regions, that a search may compute",
    )
    max_step: Traced[float] = Field(
        0.25, gt=0, description="lm: longest step, in units of the states' spread"
    )
    stray: Traced[float] = Field(
        3.0,
        gt=0,
        description="lm, adam: a search has diverged if an |h_i| exceeds this many times the candidates' largest, or this if that is below 1",
    )
    learning_rate: Traced[float] = Field(0.2, gt=0, description="adam: first step size")
    decay: Traced[float] = Field(
        0.9999, gt=0, le=1, description="adam: factor of the step size at each iteration"
    )
    adam_eps: Traced[float] = Field(1e-5, gt=0, description="adam: epsilon")

    @model_validator(mode="after")
    def _region_is_there(self) -> FixedPoint:
        if self.anywhere > 0 and self.region == "none":
            raise ValueError("anywhere: there is no region to start in; give region: box or sphere")
        if self.anywhere == 0 and self.region != "none":
            raise ValueError(
                f"region: no search starts in the {self.region}; give anywhere: 0.2 for a fifth of them"
            )
        return self


# In the order of methods.FIXED to methods.DIVERGED, whose numbers are these codes.
OUTCOMES = (
    Outcome("fixed", "q fell below q_tol, or below rounding"),
    Outcome("slow", "a local minimum of q: the Newton step is negligible, the curvature positive"),
    Outcome("limit", "max_iterations reached, or no step lowered q any more; whether there is a point is open"),
    Outcome("diverged", "q not finite, or a unit beyond stray times the candidates; it says nothing of points", failed=True),
)  # fmt: skip

DIMS = {
    "point": Var(("state",), "1", "where the search ended"),
    "q": Var((), "1", "q = |F(h) - h|^2 / 2 there; of a flow |dh/dt|^2 / 2"),
    "residual": Var((), "1", "|F(h) - h| there; of a flow |dh/dt|"),
    "gradient_norm": Var((), "1", "norm of the gradient of q there"),
    "distance": Var((), "1", "distance of the end from the start"),
    "iterations": Var((), "1", "gradients and Hessian products computed"),
    "outcome": Var((), "1", "how the search ended"),
    "anywhere_start": Var((), "1", "where there is a region: 1 if the search began in it, else 0"),
    "constant_input": Var(("input",), "1", "the constant input x"),
}


type Search = approach.Search | methods.Adam | exact.Solved
"""The state of a search, by its method."""

MOST_INPUTS = 32
"""Inputs with which a user's F is tried that cannot be evaluated without any."""


@dataclass(frozen=True)
class Searches:
    """The searches for points of the map or flow `map_of(network, time)`: the functions of the kernel contract."""

    map_of: Callable[..., Map]
    """(network, time) -> F."""
    n_in_of: Callable[[Network], int | None]
    """Network -> number of inputs; None: any number."""

    def init(
        self, static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], key: Array
    ) -> Search:
        """The search of a candidate at its start."""
        start = draw_start(static, shared, traced, key).h
        problems = Problems(self, static, shared, traced)
        return METHODS[static.method].init(problems, start)

    def advance(
        self,
        static: View[FixedPoint],
        shared: Network,
        traced: Values[FixedPoint],
        key: Array,
        state: Search,
    ) -> Search:
        """A block of ticks."""
        del key
        problems = Problems(self, static, shared, traced)
        return METHODS[static.method].advance(problems, state)

    def result(
        self,
        static: View[FixedPoint],
        shared: Network,
        traced: Values[FixedPoint],
        key: Array,
        state: Search,
    ) -> dict[str, Array]:
        """The state of the search: the point, its q and residual, and how it ended."""
        at = _minimiser(state)
        found = {
            "point": at.h,
            "q": at.q,
            "residual": jnp.sqrt(2 * at.q),
            "gradient_norm": jnp.linalg.norm(at.g),
            "distance": jnp.linalg.norm(at.h - at.start),
            "iterations": at.iterations,
            "outcome": at.outcome,
            "constant_input": constant_input(shared, traced, self.n_in_of(shared)),
        }
        if static.region != "none":  # other stores do not have this result
            start = draw_start(static, shared, traced, key)  # drawn again from the same key
            found["anywhere_start"] = start.anywhere.astype(jnp.int32)
        return found

    def problem(
        self, static: View[FixedPoint], shared: Network, traced: Values[FixedPoint], dtype: str
    ) -> approach.Problem:
        """The map h -> F(h) of one candidate, and what ends its search."""
        n_in = self.n_in_of(shared)
        x = constant_input(shared, traced, n_in)
        f = euler(self.map_of(shared, static.time), static.time)
        if n_in is None and not len(x):  # a user's F, and no input is given
            _check_without_input(f, shared)
        weights = shared.weights
        if shared.states.dtype != dtype:  # the approach's float32
            x, weights = jax.tree.map(lambda w: jnp.asarray(w, dtype), (x, weights))
        spread, inverse = (jnp.asarray(v, dtype) for v in (shared.spread, shared.inverse))
        limits = methods.Settings(
            jnp.asarray(traced.q_tol, dtype),
            traced.max_iterations,
            spread,
            jnp.asarray(traced.stray * shared.largest, dtype),
        )
        longest = jnp.asarray(traced.max_step, dtype) * spread
        return approach.Problem(lambda h: f(weights, h, x), inverse, longest, limits)


class Problems(NamedTuple):
    """The problem of one candidate, in each precision that a method asks for."""

    searches: Searches
    static: View[FixedPoint]
    shared: Network
    traced: Values[FixedPoint]

    def fine(self) -> approach.Problem:
        """The problem in the precision of the job."""
        return self.searches.problem(self.static, self.shared, self.traced, self.static.dtype)

    def coarse(self) -> approach.Problem:
        """The problem in the precision of the approach; a user's F may bring arrays of its own, and keeps its own."""
        cell = isinstance(cell_of(self.shared), Cell)
        dtype = "float32" if cell else self.static.dtype
        return self.searches.problem(self.static, self.shared, self.traced, dtype)

    def adam(self) -> methods.AdamSettings:
        """The settings of Adam."""
        traced = self.traced
        return methods.AdamSettings(traced.learning_rate, traced.decay, traced.adam_eps)


class Method(NamedTuple):
    """The two functions of a search: its state at a start (state,), and the state after a block of ticks."""

    init: Callable[[Problems, Float[Array, "state"]], PyTree]
    advance: Callable[[Problems, PyTree], PyTree]


def _adam_init(of: Problems, start: Float[Array, "state"]) -> methods.Adam:
    problem = of.fine()
    return methods.adam_init(problem.step, start, of.adam(), problem.limits)


def _adam_advance(of: Problems, state: methods.Adam) -> methods.Adam:
    problem = of.fine()
    tick = partial(methods.adam_tick, problem.step, of.adam(), problem.limits)
    going = lambda state: state.outcome == methods.RUNNING
    return methods.run_block(tick, methods.ADAM_BLOCK, going, state)


def _exact_init(of: Problems, start: Float[Array, "state"]) -> exact.Solved:
    problem = of.fine()
    return exact.begin(problem.step, start, problem.limits)


def _exact_advance(of: Problems, state: exact.Solved) -> exact.Solved:
    problem = of.fine()
    tick = partial(exact.tick, problem.step, problem.limits)
    going = lambda state: state.outcome == methods.RUNNING
    return methods.run_block(tick, exact.BLOCK, going, state)


METHODS = {
    "lm": Method(
        lambda of, start: approach.start(of.coarse(), start),
        lambda of, state: approach.advance(of.coarse(), of.fine(), state),
    ),
    "adam": Method(_adam_init, _adam_advance),
    "exact": Method(_exact_init, _exact_advance),
}
"""`method` of a job. One that wants `Network.inverse` is listed in `ctd.fixed_points.candidates.PRECONDITIONED`."""


def _minimiser(state: Search) -> methods.Descent | methods.Adam | exact.Solved:
    """The part of a search's state that says where it stands."""
    return state.descent if isinstance(state, approach.Search) else state


def _check_without_input(f: Map, shared: Network) -> None:
    """Raise ValueError where a user's F can be evaluated with an input, and not without one."""

    def fault(n_in: int) -> str | None:
        like = lambda *shape: jax.ShapeDtypeStruct(shape, shared.states.dtype)
        try:
            # eval_shape traces F without running or compiling it.
            jax.eval_shape(f, shared.weights, like(shared.states.shape[-1]), like(n_in))
        except (TypeError, ValueError, IndexError) as error:
            return (str(error).strip().splitlines() or [""])[0]
        return None

    text = fault(0)
    if text is None:  # F takes no input, or ignores it
        return
    for n_in in range(1, MOST_INPUTS + 1):
        if fault(n_in) is None:
            raise ValueError(
                f"x: the map needs an input, of {count(n_in, 'number')} ({text}); give `x`"
            )


def make_kernel(
    name: str, searches: Searches, load: Callable[[View[FixedPoint]], Network]
) -> Kernel:
    """The kernel of these searches, on the network that `load` returns."""
    return Kernel(
        name=name,
        Params=FixedPoint,
        dims=DIMS,
        load=load,
        init=searches.init,
        advance=searches.advance,
        finished=lambda state: _minimiser(state).outcome != methods.RUNNING,
        result=searches.result,
        outcomes=OUTCOMES,
        reduce=lambda *args: reduce(searches.map_of, *args),  # the table takes derivatives of F
        reduced=REDUCED,
        Options=Options,
        summary=SUMMARY,
        figure=figure,
        plots=plots,
        width=1024,
        # Candidates share weights, so one product serves a microbatch; a wider one leaves the cache.
        microbatches=(64,),
    )
