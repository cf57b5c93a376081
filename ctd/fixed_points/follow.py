"""`follow`, `cycles` and `lyapunov`: what a user's function does, computed in this process without a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ctd.batch import precision, run_items
from ctd.fixed_points.candidates import Network, make_network
from ctd.fixed_points.continuation import Continuation, Followers, make_kernel
from ctd.fixed_points.continuation.branches import SUMMARY, figure, reduce
from ctd.fixed_points.exponents import Trajectories, Trajectory
from ctd.fixed_points.exponents import make_kernel as trajectories
from ctd.fixed_points.limit_cycles import Hunts, LimitCycle
from ctd.fixed_points.limit_cycles import make_kernel as hunting
from ctd.fixed_points.limit_cycles.table import SUMMARY as CYCLES
from ctd.fixed_points.limit_cycles.table import Options
from ctd.fixed_points.shown import lines_of
from ctd.kernel import Kernel, NoOptions, View, inputs_of
from ctd.late import Array
from ctd.plots.png import Canvas, draw
from ctd.words import count


@dataclass(frozen=True)
class Followed:
    """The result of `follow`."""

    results: dict[str, np.ndarray]
    """One row for each start: parameter, branch_state, n_unstable, outcome (see `outcomes`), ..."""
    branches: dict[str, np.ndarray]
    """Branches and bifurcations, each once: kind, bifurcation_parameter, branch_of_start, ..."""
    outcomes: tuple[str, ...]
    """Names of the codes in results["outcome"]."""
    network: Network
    inputs: View[Continuation]

    def __repr__(self) -> str:
        """Return the number of branches, and a table of the bifurcations."""
        n, k = len(self.branches["branch_starts"]), len(self.results["outcome"])
        head = f"{count(k, 'start')} on {n} branch{'es' if n != 1 else ''}"
        return "\n".join([head, *lines_of({name: self.branches[name] for name in SUMMARY})])

    def figure(self) -> Canvas:
        """matplotlib Figure: the bifurcation diagram."""
        with precision(self.inputs):
            # The diagram reads no columns, hence {}.
            return draw(figure(self.inputs, self.network, {}, self.results, self.branches))


def follow(
    step: Callable[[Array, Array], Array],
    points: ArrayLike,
    *,
    low: float,
    high: float,
    start: float = 0.0,
    time: str = "steps",
    **settings: object,
) -> Followed:
    """Follow fixed points, step(h, p) = h, over a parameter p by pseudo-arclength; float64.

    Args:
        step: (h (n,), p ()) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        points: (k, n) or (n,) points at p = start; Newton corrects them.
        low: the lower end of the range of p.
        high: its upper end.
        start: p of the points, within the range.
        time: "steps" or "continuous".
        **settings: fields of `Continuation` (n_steps, max_step, n_bifurcations, stray).

    >>> follow(lambda x, u: -x + 2 * jnp.tanh(x) + u, [-2.0], low=-1, high=1, time="continuous")
    1 start on 1 branch
    kind  bifurcation_parameter  frequency  branch  count
    fold                -0.5328          0       0      1
    fold                 0.5328          0       0      1

    Raises ValueError if points and settings do not fit each other.
    """
    points = np.atleast_2d(np.asarray(points, float))  # one point is (1, n)
    if points.ndim != 2:
        raise ValueError(f"points: shape {points.shape}, (point, state) expected")
    params = Continuation.model_validate(
        {"low": low, "high": high, "start": start, "time": time, **settings}
    )
    try:
        network = make_network({}, points, params.dtype)
    except ValueError as error:
        raise ValueError(f"points: {error}") from None

    # The kernel moves the input x + p along. Without inputs of its own, F has one, which begins at 0: it is p.
    followers = Followers(lambda *_: lambda weights, h, x: step(h, x[0]), lambda _: None)
    # run_items gets the network as `shared`, so that it never calls this `load`.
    kernel = make_kernel("follow", followers, lambda inputs: network)
    columns = {"start_point": np.arange(len(points))}
    results = run_items(kernel, params, columns, shared=network)
    inputs = inputs_of(params)
    branches = reduce(inputs, network, columns, results, NoOptions())
    outcomes = tuple(outcome.name for outcome in kernel.outcomes)
    return Followed(results, branches, outcomes, network, inputs)


@dataclass(frozen=True)
class Cycles:
    """The result of `cycles`."""

    results: dict[str, np.ndarray]
    """One row for each trajectory: period, cycle_state, multiplier, outcome (see `outcomes`), ..."""
    unique: dict[str, np.ndarray]
    """One row for each cycle: cycle_period, cycle_stability, cycle_multiplier, cycle_points, ..."""
    kernel: Kernel
    network: Network
    inputs: View[LimitCycle]

    def __repr__(self) -> str:
        """Return how the trajectories ended, and a table of the cycles."""
        codes = self.results["outcome"].tolist()
        ended = {outcome.name: codes.count(k) for k, outcome in enumerate(self.kernel.outcomes)}
        text = ", ".join(f"{n} {name}" for name, n in ended.items() if n)
        head = f"{'1 trajectory' if len(codes) == 1 else f'{len(codes)} trajectories'}: {text}"
        return "\n".join([head, *lines_of({name: self.unique[name] for name in CYCLES})])

    def figure(self) -> Canvas:
        """matplotlib Figure: the cycles in two principal components, and their multipliers."""
        assert self.kernel.figure is not None
        # Pictures of a job are drawn in the items' precision, too.
        with precision(self.inputs):
            return draw(
                self.kernel.figure(self.inputs, self.network, {}, self.results, self.unique)
            )


def _starting(states: ArrayLike) -> np.ndarray:
    """(k, n) the states to start from."""
    found = np.atleast_2d(np.asarray(states, float))
    if found.ndim > 2:
        raise ValueError(f"states: shape {found.shape}, (k, state) expected")
    return found


def cycles(
    step: Callable[[Array], Array],
    states: ArrayLike,
    *,
    time: str = "steps",
    seed: int = 0,
    unique_tol: float = 1e-3,
    **settings: object,
) -> Cycles:
    """Find the limit cycles, F^p(h) = h or Phi_T(h) = h, at which trajectories from some states end; float64.

    A map's period is a whole number of steps, at most `n_points`; a flow's is in units of time. Floquet multipliers are
    the eigenvalues of the derivative of the state after one period.

    Args:
        step: h (n,) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        states: (k, n) or (n,) states to start from.
        time: "steps" or "continuous".
        seed: of the noise.
        unique_tol: cycles nearer to each other, in units of their size, are one.
        **settings: fields of `LimitCycle` (n_points, dt, transient, n_steps, near, period_guess, noise). With `period_guess`
            and `transient=0` Newton begins at the states, and finds unstable cycles, too.

    >>> found = cycles(lambda h: 3.2 * h * (1 - h), [0.3])
    >>> found.unique["cycle_period"].tolist()
    [2.0]

    Raises ValueError if states and settings do not fit each other.
    """
    states = _starting(states)
    params = LimitCycle.model_validate({"time": time, **settings})
    options = Options(unique_tol=unique_tol)
    try:
        network = make_network({}, states, params.dtype)
    except ValueError as error:
        raise ValueError(f"states: {error}") from None
    # `step` takes neither weights nor input: what the kernel passes for them is empty.
    of = Hunts(lambda *_: lambda weights, h, x: step(h), lambda _: None)
    kernel = hunting("cycles", of, lambda inputs: network)
    columns = {"start": np.arange(len(states))}
    results = run_items(kernel, params, columns, seed=seed, shared=network)
    inputs = inputs_of(params)
    assert kernel.reduce is not None
    unique = kernel.reduce(inputs, network, columns, results, options)
    return Cycles(results, unique, kernel, network, inputs)


def lyapunov(
    step: Callable[[Array], Array],
    states: ArrayLike,
    *,
    time: str = "steps",
    seed: int = 0,
    **settings: object,
) -> dict[str, np.ndarray]:
    """The Lyapunov exponents of a map or flow, from each of some states; float64.

    Args:
        step: h (n,) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        states: (k, n) or (n,) states to start from.
        time: "steps" or "continuous".
        seed: of the frames.
        **settings: fields of `Trajectory` (n_exponents, n_steps, transient, dt, every, noise).

    >>> found = lyapunov(lambda h: 4 * h * (1 - h), [0.3], n_exponents=1, n_steps=2000)
    >>> found["exponent"].round(2)  # ln 2
    array([[0.69]])

    Returns:
        exponent and exponent_error (k, number), largest, sum, dimension (Kaplan-Yorke) and outcome (k,), end (k, n).

    Raises ValueError if states and settings do not fit each other.
    """
    states = _starting(states)
    params = Trajectory.model_validate({"time": time, **settings})
    try:
        network = make_network({}, states, params.dtype)
    except ValueError as error:
        raise ValueError(f"states: {error}") from None
    # As in `cycles`, weights and input are empty.
    of = Trajectories(lambda *_: lambda weights, h, x: step(h), lambda _: None)
    kernel = trajectories("lyapunov", of, lambda inputs: network)
    return run_items(kernel, params, {"start": np.arange(len(states))}, seed=seed, shared=network)
