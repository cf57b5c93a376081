"""Analyse a user's function in this process, without a job: its points, branches, cycles, exponents and modes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
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
from ctd.words import count, suggests


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
        # Ids of items stand for the swept fields of a job, which a notebook does not have.
        is_id = lambda name: self.kernel.tables.dims[name].units == "item"
        return {name: self.table[name] for name in self.kernel.display.summary if not is_id(name)}


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
    if kernel.tables.reduce is not None:
        with precision(inputs):  # as `gather` reduces a job
            table = kernel.tables.reduce(inputs, network, columns, results, options or NoOptions())
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
        if (table["origin"] == self.kernel.tables.dims["origin"].usual).all():
            del table["origin"]
        return table


@suggests
def find(
    step: Callable[..., Array], candidates: ArrayLike, *, x: ArrayLike | None = None, method: str = "lm", seed: int = 0,
    time: str = "steps", dt: float | None = None, dtype: str = "float64", noise: float = 0.0, mix: float = 0.0,
    anywhere: float = 0.0, region: str = "none", reach: float = 1.5, q_tol: float = 1e-20, max_iterations: int = 10_000,
    max_step: float = 0.25, stray: float = 3.0, learning_rate: float = 0.2, decay: float = 0.9999, adam_eps: float = 1e-5,
    unique_tol: float = 1e-3, outlier_tol: float = 2.0, max_points: int = 500, settle: int = 200, between: int = 500,
) -> FixedPoints:  # fmt: skip
    """Find h with step(h) = h, or the local minima of q(h) = |step(h) - h|^2 / 2, from many starts (Sussillo & Barak 2013).

    >>> find(lambda h: jnp.tanh(2 * h), [[-1.0], [-0.5], [0.5], [1.0]]).unique["point"].round(4).ravel()
    array([-0.9575,  0.9575,  0.    ])

    Args:
        step: the next state, or dh/dt where time is "continuous": h (n,) -> (n,), written in JAX; step(h, x) where x is given.
        candidates: (m, n) states to start from.
        x: constant input, (n_in,) for all candidates or (m, n_in).
        method: "lm" (L-BFGS, then Levenberg-Marquardt) or "adam".
        seed: seed of the noise and the mixing of the starts.
        time: "steps" or "continuous".
        dt: length of a step (s); with it, the table also has time constants in s and frequencies in Hz.
        dtype: "float64" or "float32".
        noise: sd of Gaussian noise on the starts.
        mix: probability that a search starts between two candidates.
        anywhere: probability that a search starts in the region instead of at a candidate.
        region: "none", "box" or "sphere".
        reach: size of the region, in units of the candidates' largest |h_i| (box) or of their spread (sphere).
        q_tol: a fixed point has q below this.
        max_iterations: most gradients and Hessian products of a search.
        max_step: lm: longest step, in units of the candidates' spread.
        stray: a search has diverged once an |h_i| exceeds this many times the candidates' largest |h_i|, at least 1.
        learning_rate: adam: first step size.
        decay: adam: factor of the step size at each iteration.
        adam_eps: adam: epsilon.
        unique_tol: ends closer than this, in units of h, are one point.
        outlier_tol: an outlier is farther than this from every candidate, in units of the candidates' spread.
        max_points: most points analysed for each input, those with the largest basins.
        settle: steps of the map from the candidates, which find stable points that no search ended at; 0: off.
        between: most Newton searches that start halfway between two points, which find saddles; 0: off.

    Returns:
        `unique`: a row for each point; `results`: for each start; `figure()`.

    Raises:
        ValueError: candidates, input and settings do not fit each other, or there is no such setting.
    """
    return _find(step, candidates, x, seed, {
        "method": method, "time": time, "dt": dt, "dtype": dtype, "noise": noise, "mix": mix, "anywhere": anywhere, "region": region,
        "reach": reach, "q_tol": q_tol, "max_iterations": max_iterations, "max_step": max_step, "stray": stray,
        "learning_rate": learning_rate, "decay": decay, "adam_eps": adam_eps,
    }, {"unique_tol": unique_tol, "outlier_tol": outlier_tol, "max_points": max_points, "settle": settle, "between": between})  # fmt: skip


def _find(
    step: Callable[..., Array],
    candidates: ArrayLike,
    x: ArrayLike | None,
    seed: int,
    settings: Mapping[str, object],
    option_values: Mapping[str, object],
) -> FixedPoints:
    params, options = checked(FixedPoint, settings), checked(Options, option_values)
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
    starts = ("candidates", states, "candidate")
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


@suggests
def follow(
    step: Callable[[Array, Array], Array],
    points: ArrayLike,
    *,
    low: float,
    high: float,
    start: float = 0.0,
    time: str = "steps",
    n_steps: int = 400,
    max_step: float = 0.05,
    n_bifurcations: int = 16,
    stray: float = 10.0,
) -> Followed:
    """Follow fixed points, step(h, p) = h, over a parameter p by pseudo-arclength (Keller 1977); float64.

    >>> follow(lambda x, u: -x + 2 * jnp.tanh(x) + u, [-1.915], low=-1, high=1, time="continuous")
    1 start on 1 branch
    kind  bifurcation_parameter  frequency  branch  count
    fold                -0.5328          0       0      1
    fold                 0.5328          0       0      1

    Args:
        step: (h (n,), p ()) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        points: (k, n) or (n,) points at p = start; Newton corrects them.
        low: the lower end of the range of p.
        high: its upper end.
        start: p of the points, within the range.
        time: "steps" or "continuous".
        n_steps: most steps to each side of the start.
        max_step: longest step, in units of the range of p, and for h of sqrt(n) / 2 times the points' largest |h_i|.
        n_bifurcations: most bifurcations that are stored for a branch.
        stray: a branch ends once an |h_i| exceeds this many times the points' largest |h_i|, at least 1.

    Returns:
        `branches`: each branch and bifurcation once; `results`: for each start; `figure()`.

    Raises:
        ValueError: points and settings do not fit each other, or there is no such setting.
    """
    params = checked(Continuation, {
        "low": low, "high": high, "start": start, "time": time, "n_steps": n_steps, "max_step": max_step, "n_bifurcations": n_bifurcations, "stray": stray,
    })  # fmt: skip
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


@suggests
def cycles(
    step: Callable[[Array], Array], states: ArrayLike, *, time: str = "steps", seed: int = 0, unique_tol: float = 1e-3,
    n_points: int = 64, dt: float = 0.01, transient: int = 5000, n_steps: int = 100_000,
    near: float = 1e-2, period_guess: float = 0.0, noise: float = 0.0,
) -> Cycles:  # fmt: skip
    """Find the limit cycles, F^p(h) = h or Phi_T(h) = h, at which trajectories from some states end; float64.

    A map's period is a whole number of steps, at most `n_points`; a flow's is in units of time. Floquet multipliers are
    the eigenvalues of the derivative of the state after one period.

    >>> cycles(lambda h: 3.2 * h * (1 - h), [0.3]).unique["cycle_period"].tolist()
    [2.0]

    Args:
        step: h (n,) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        states: (k, n) or (n,) states to start from.
        time: "steps" or "continuous".
        seed: seed of the noise.
        unique_tol: cycles nearer to each other, in units of their size, are one.
        n_points: states stored of a cycle; for a map also the longest period that is found.
        dt: longest step of a flow, by Runge and Kutta's method, in units of time.
        transient: steps before the search for a return.
        n_steps: most steps until a flow returns.
        near: a state this near has returned, in units of the trajectory's size.
        period_guess: the rough period. Newton then begins right after the transient; with `transient=0`, at the states. Only
            this finds unstable cycles. 0: not known.
        noise: sd of Gaussian noise on the states.

    Returns:
        `unique`: a row for each cycle; `results`: for each start; `figure()`.

    Raises:
        ValueError: states and settings do not fit each other, or there is no such setting.
    """
    params = checked(LimitCycle, {
        "time": time, "n_points": n_points, "dt": dt, "transient": transient, "n_steps": n_steps, "near": near, "period_guess": period_guess, "noise": noise,
    })  # fmt: skip
    starts, options = ("states", states, "start"), checked(SameCycle, {"unique_tol": unique_tol})
    f = lambda weights, h, x: step(h)
    return _run_kernel(Cycles, "cycles", limit_cycles.kernel, params, f, starts, seed, options)


class Exponents(KernelResult):
    """The result of `lyapunov`; its `figure` draws the exponents by number, a line for each start."""

    def _summary_table(self) -> dict[str, np.ndarray]:
        return {name: self.results[name] for name in ("exponent", *self.kernel.display.summary)}


@suggests
def lyapunov(
    step: Callable[[Array], Array], states: ArrayLike, *, time: str = "steps", seed: int = 0, dtype: str = "float64",
    n_exponents: int = 10, n_steps: int = 20_000, transient: int = 1000, dt: float = 0.01, every: int = 10, noise: float = 0.0,
) -> Exponents:  # fmt: skip
    """Compute the Lyapunov exponents lim log(s_i(t)) / t of a map or flow, s_i(t) the singular values of dh(t)/dh(0).

    They come from QR decompositions along the trajectory (Benettin et al. 1980).

    >>> found = lyapunov(lambda h: 4 * h * (1 - h), [0.3], n_exponents=1, n_steps=2000)
    >>> found.results["exponent"].round(2)  # ln 2
    array([[0.69]])

    Args:
        step: h (n,) -> (n,), written in JAX: the next state, or dh/dt where time is "continuous".
        states: (k, n) or (n,) states to start from.
        time: "steps" or "continuous".
        seed: seed of the frames and the noise.
        dtype: "float64" or "float32".
        n_exponents: number of exponents, the largest first; at most n.
        n_steps: steps that count.
        transient: steps before them.
        dt: length of a step of a flow, in units of time.
        every: steps between two QR decompositions.
        noise: sd of Gaussian noise on the states.

    Returns:
        With `results`: exponent and exponent_error (k, number), largest, sum, dimension (Kaplan-Yorke) and outcome (k,), end (k, n).

    Raises:
        ValueError: states and settings do not fit each other, or there is no such setting.
    """
    params = checked(Trajectory, {
        "time": time, "dtype": dtype, "n_exponents": n_exponents, "n_steps": n_steps, "transient": transient, "dt": dt, "every": every, "noise": noise,
    })  # fmt: skip
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
    """Linearise a map, h -> F(h, x), at any states, such as those of a trial: dF/dh = R diag(eigenvalue) L^H and dF/dx; float64.

    >>> linearise(lambda h: jnp.array([0.9 * h[0] + h[1], 0.5 * h[1]]), [[1.0, 2.0]])["eigenvalue"]
    array([[0.9+0.j, 0.5+0.j]])

    Args:
        step: the one-step map of one state, (n,) -> (n,), written in JAX; step(h, x) where inputs are given.
        states: (k, n) states, each before its step.
        inputs: (k, n_in) input of each step.
        readout: h (n,) -> z (n_out,), in JAX; without it, the state itself.
        n_modes: modes that are kept, those of largest |eigenvalue| first; None: all.

    Returns:
        eigenvalue (k, mode) and transfer (k, mode, n_out, n_in), complex; input_jacobian (k, n, n_in). A mode's transfer is
        C r_m l_m^H B (ctd.fixed_points.linear): what it carries from the input to the readout.

    Raises:
        ValueError: states and inputs do not fit each other.
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
