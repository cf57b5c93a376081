"""Analyse a user's function in this process, without a job: its points, branches, cycles, exponents and modes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel

from ctd.batch import checked, precision, run_items
from ctd.contract import located
from ctd.fixed_points import continuation, exponents, limit_cycles
from ctd.fixed_points.continuation import Continuation
from ctd.fixed_points.exponents import Trajectory
from ctd.fixed_points.limit_cycles import LimitCycle
from ctd.fixed_points.limit_cycles.table import Options as SameCycle
from ctd.fixed_points.linear import carried
from ctd.fixed_points.network import Map, Network, make_network
from ctd.fixed_points.search import kernel as search
from ctd.fixed_points.search.params import FixedPoint, Options
from ctd.kernel import Kernel, NoOptions, Params, View, inputs_of
from ctd.late import Array, jax, jnp, lax
from ctd.plots.png import Canvas, draw
from ctd.rows import lines_of
from ctd.words import count


@dataclass(frozen=True)
class KernelResult:
    """The result of a kernel for a function."""

    results: dict[str, np.ndarray]
    """One row for each start: outcome (see `outcomes`), ..."""
    table: dict[str, np.ndarray]
    """The table that `reduce` makes of them."""
    kernel: Kernel
    network: Network
    inputs: View[Params]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the codes in results["outcome"]."""
        return tuple(outcome.name for outcome in self.kernel.outcomes)

    def figure(self) -> Canvas:
        """matplotlib Figure: the picture that a job has beside its store."""
        assert self.kernel.display.plots is not None
        # Pictures of a job are drawn in the items' precision, too.
        with precision(self.inputs):
            plots = self.kernel.display.plots(
                self.inputs, self.network, {}, self.results, self.table
            )
            return draw(plots[: self.kernel.display.png_plots])

    def __repr__(self) -> str:
        """State how the items ended, and list the table that a terminal shows of a job."""
        return "\n".join([self._head(), *lines_of(self._summary_table())])

    def _head(self) -> str:
        codes = self.results["outcome"].tolist()
        ended = {name: codes.count(k) for k, name in enumerate(self.outcomes)}
        return ", ".join(f"{n:,} {name}" for name, n in ended.items() if n)

    def _summary_table(self) -> dict[str, np.ndarray]:
        return {name: self.table[name] for name in self.kernel.display.summary}


def _run_kernel[C: KernelResult](
    make: Callable[..., C],
    name: str,
    kernel: Kernel,
    params: Params,
    f: Map,
    starts: tuple[str, ArrayLike, str],
    seed: int = 0,
    options: BaseModel | None = None,
    n_in: int = 0,
    **columns: np.ndarray,
) -> C:
    """Run a kernel for F. Raises ValueError.

    name: of the kernel in messages; starts: (word for the states in messages; the states, (k, n) or of a single one (n,); the
    field that numbers them); n_in: numbers in x; columns: further ones.
    """
    label, start_states, number = starts
    states = np.atleast_2d(np.asarray(start_states, float))
    if states.ndim > 2:
        raise ValueError(f"{label}: shape {states.shape}, (k, state) expected")
    columns[number] = np.arange(len(states))
    network = make_network(f, {}, states, params.dtype, label)
    inputs = inputs_of(params)
    with precision(inputs):
        _check_step(f, network, n_in)
    # Programs are cached by kernel. A copy has its own, which the cache drops: that of the kernel itself would keep every f.
    kernel = replace(kernel, name=name)
    results = run_items(kernel, params, columns, seed=seed, shared=network)
    table: dict[str, np.ndarray] = {}
    if kernel.reduce is not None:
        with precision(inputs):  # as `gather` reduces a job
            table = kernel.reduce(inputs, network, columns, results, options or NoOptions())
    return make(results, table, kernel, network, inputs)


def _check_step(f: Map, network: Network, n_in: int) -> None:
    """Raise ValueError if a user's function fails at a state, or returns no state; nothing is computed."""
    like = lambda n: jax.ShapeDtypeStruct((n,), network.states.dtype)
    state = like(network.states.shape[-1])
    at = f"step, at a state of shape {state.shape}"
    try:
        after = jax.eval_shape(f, {}, state, like(n_in))
    except Exception as error:
        text, *_ = located(error).splitlines()
        hint = "; write it with jax.numpy" * isinstance(
            error, jax.errors.TracerArrayConversionError
        )
        raise ValueError(f"{at}: {text}{hint}") from error
    if getattr(after, "shape", None) != state.shape:
        text = (
            f"an array of shape {after.shape}"
            if hasattr(after, "shape")
            else f"a {type(after).__name__}"
        )
        raise ValueError(f"{at}: returns {text}; an array of shape {state.shape} expected")


def _takes(step: Callable[..., Array], n: int) -> bool:
    """Whether a function can be called with n arguments; of one without a signature, this is not known: yes."""
    try:
        inspect.signature(step).bind(*range(n))
    except TypeError:
        return False
    except ValueError:  # no signature
        pass
    return True


def _constant_inputs(x: ArrayLike, m: int) -> np.ndarray:
    """The constant input of each of m candidates, (m, n_in)."""
    x = np.asarray(x, float)
    if x.ndim not in (1, 2) or (x.ndim == 2 and len(x) != m):
        raise ValueError(f"x: shape {x.shape}, (n_in,) or ({m}, n_in) expected")
    return np.broadcast_to(x, (m, x.shape[-1]))


class FixedPoints(KernelResult):
    """The result of `find`. `figure` draws points in the candidates' principal components, or for two state variables the phase
    portrait, and eigenvalues."""

    @property
    def unique(self) -> dict[str, np.ndarray]:
        """One row for each fixed or slow point: kind, point, eigenvalue, right, left, stable, ..."""
        return self.table

    def _head(self) -> str:
        return f"{count(len(self.results['outcome']), 'candidate')}: {super()._head()}"

    def _summary_table(self) -> dict[str, np.ndarray]:
        table = super()._summary_table()
        if (table["constant_input"] == table["constant_input"][:1]).all():
            del table["constant_input"]
        if (table["origin"] == self.kernel.reduced["origin"].usual).all():
            del table["origin"]
        return table


def find(
    step: Callable[..., Array],
    candidates: ArrayLike,
    *,
    x: ArrayLike | None = None,
    method: str = "lm",
    seed: int = 0,
    **settings: object,
) -> FixedPoints:
    """Find h with step(h) = h, or the local minima of q(h) = |step(h) - h|^2 / 2, from many starts.

    Args:
        step: the one-step map of one state, (n,) -> (n,), written in JAX; step(h, x) where x is given. With
            time="continuous" it is dh/dt, and eigenvalues, time constants and stability are those of a flow.
        candidates: (m, n) states to start from.
        x: constant input, (n_in,) for all candidates or (m, n_in).
        method: "lm" or "adam".
        seed: seed of the noise and the mixing of the starts.
        **settings: fields of `FixedPoint` (time, noise, q_tol, max_iterations, dtype, dt, ...) and of
            `Options` (unique_tol, outlier_tol, max_points, settle, between).

    >>> step = lambda h: jnp.tanh(2 * h)
    >>> find(step, [[-1.0], [-0.5], [0.5], [1.0]], q_tol=1e-20, dtype="float64").unique["point"].round(4)
    array([[-0.9575],
           [ 0.9575],
           [ 0.    ]])

    Raises ValueError if candidates, input and settings do not fit each other.
    """
    option_values = {name: settings.pop(name) for name in Options.model_fields if name in settings}
    # Refuses names that neither knows.
    params = checked(FixedPoint, {"method": method, **settings}, Options)
    if params.region == "linear" or params.method == "exact":
        raise ValueError("region: linear and method: exact are for a cell that is linear by pieces")
    states = np.asarray(candidates)
    if states.ndim != 2:
        raise ValueError(f"candidates: shape {states.shape}, (candidate, state) expected")
    if x is None and not _takes(step, 1) and _takes(step, 2):
        raise ValueError(
            "step takes an input besides the state, and none is given: give `x`, or a function of h alone, such as lambda h: step(h, 0.5)"
        )
    columns = {} if x is None else {"x": _constant_inputs(x, len(states))}
    f = lambda weights, h, now: step(h) if x is None else step(h, now)
    options, starts = checked(Options, option_values), ("candidates", states, "candidate")
    n_in = columns["x"].shape[-1] if columns else 0
    return _run_kernel(
        FixedPoints, "find", search.kernel, params, f, starts, seed, options, n_in, **columns
    )


class Followed(KernelResult):
    """The result of `follow`; its `figure` is the bifurcation diagram."""

    @property
    def branches(self) -> dict[str, np.ndarray]:
        """Branches and bifurcations, each once: kind, bifurcation_parameter, branch_of_start, ..."""
        return self.table

    def _head(self) -> str:
        n, codes = len(self.branches["branch_starts"]), self.results["outcome"].tolist()
        ended = enumerate(self.kernel.outcomes)
        # The first outcome is the regular one, which needs no line.
        others = [
            f"{codes.count(k)} {outcome.name}: {outcome.reason}"
            for k, outcome in ended
            if k and k in codes
        ]
        head = f"{count(len(codes), 'start')} on {n} branch{'es' if n != 1 else ''}"
        return "\n".join([head, *others])


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

    >>> follow(lambda x, u: -x + 2 * jnp.tanh(x) + u, [-1.915], low=-1, high=1, time="continuous")
    1 start on 1 branch
    kind  bifurcation_parameter  frequency  branch  count
    fold                -0.5328          0       0      1
    fold                 0.5328          0       0      1

    Raises ValueError if points and settings do not fit each other.
    """
    params = checked(
        Continuation, {"low": low, "high": high, "start": start, "time": time, **settings}
    )
    # The kernel moves the input x + p along. Without inputs of its own, F has one, which begins at 0: it is p.
    f = lambda weights, h, x: step(h, x[0])
    starts = ("points", points, "start_point")
    return _run_kernel(Followed, "follow", continuation.kernel, params, f, starts, n_in=1)


class Cycles(KernelResult):
    """The result of `cycles`. `figure` draws the cycles in two principal components, and their multipliers."""

    @property
    def unique(self) -> dict[str, np.ndarray]:
        """One row for each cycle: cycle_period, cycle_stability, cycle_multiplier, cycle_points, ..."""
        return self.table

    def _head(self) -> str:
        n = len(self.results["outcome"])
        return f"{n} trajector{'ies' if n != 1 else 'y'}: {super()._head()}"


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
    params = checked(LimitCycle, {"time": time, **settings})
    starts, options = ("states", states, "start"), checked(SameCycle, {"unique_tol": unique_tol})
    f = lambda weights, h, x: step(h)
    return _run_kernel(Cycles, "cycles", limit_cycles.kernel, params, f, starts, seed, options)


class Exponents(KernelResult):
    """The result of `lyapunov`; its `figure` draws the exponents by number, a line for each start."""

    def _summary_table(self) -> dict[str, np.ndarray]:
        return {name: self.results[name] for name in ("exponent", *self.kernel.display.summary)}


def lyapunov(
    step: Callable[[Array], Array],
    states: ArrayLike,
    *,
    time: str = "steps",
    seed: int = 0,
    **settings: object,
) -> Exponents:
    """Compute the Lyapunov exponents of a map or flow, from each of some states; float64.

    Args:
        step: h (n,) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        states: (k, n) or (n,) states to start from.
        time: "steps" or "continuous".
        seed: of the frames.
        **settings: fields of `Trajectory` (n_exponents, n_steps, transient, dt, every, noise).

    >>> found = lyapunov(lambda h: 4 * h * (1 - h), [0.3], n_exponents=1, n_steps=2000)
    >>> found.results["exponent"].round(2)  # ln 2
    array([[0.69]])

    Returns:
        With `results`: exponent and exponent_error (k, number), largest, sum, dimension (Kaplan-Yorke) and outcome (k,), end (k, n).

    Raises ValueError if states and settings do not fit each other.
    """
    params = checked(Trajectory, {"time": time, **settings})
    f, starts = lambda weights, h, x: step(h), ("states", states, "start")
    return _run_kernel(Exponents, "lyapunov", exponents.kernel, params, f, starts, seed)


def linearise(
    step: Callable[..., Array],
    states: ArrayLike,
    inputs: ArrayLike | None = None,
    *,
    readout: Callable[[Array], Array] | None = None,
    n_modes: int | None = None,
) -> dict[str, np.ndarray]:
    """Linearise a map at any states, such as those of a trial; float64.

    Args:
        step: the one-step map of one state, (n,) -> (n,), written in JAX; step(h, x) where inputs are given.
        states: (k, n) states, each before its step.
        inputs: (k, n_in) input of each step.
        readout: h (n,) -> z (n_out,), in JAX; without it, the state itself.
        n_modes: modes that are kept, those of largest |eigenvalue| first; None: all.

    Returns:
        eigenvalue (k, mode) and transfer (k, mode, n_out, n_in), complex; input_jacobian (k, n, n_in). A mode's transfer is
        C r_m l_m^H B (ctd.fixed_points.linear): what it carries from the input to the readout.

    >>> linearise(lambda h: jnp.array([0.9 * h[0] + h[1], 0.5 * h[1]]), [[1.0, 2.0]])["eigenvalue"]
    array([[0.9+0.j, 0.5+0.j]])

    Raises ValueError if states and inputs do not fit each other.
    """
    states = np.asarray(states, float)
    if states.ndim != 2 or not len(states):
        raise ValueError(
            f"states: shape {states.shape}, (k, state) with at least one state expected"
        )
    # An input of length 0 gives dF/dx no columns.
    x = np.zeros((len(states), 0)) if inputs is None else np.asarray(inputs, float)
    if x.ndim != 2 or len(x) != len(states):
        raise ValueError(f"inputs: shape {x.shape}, ({len(states)}, n_in) expected")
    step_with_input = (lambda h, x: step(h)) if inputs is None else step
    k = min(n_modes or states.shape[1], states.shape[1])
    at = lambda pair: carried(step_with_input, readout or (lambda h: h), pair[0], pair[1], k)
    with jax.enable_x64(True):
        # One state after the other: J takes a copy of F's workspace for each unit.
        linearised = jax.jit(lambda pairs: lax.map(at, pairs))(
            (jnp.asarray(states), jnp.asarray(x))
        )
    return {name: np.asarray(value) for name, value in linearised._asdict().items()}
