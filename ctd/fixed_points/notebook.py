"""`find` and `linearise`: fixed points of a user's function, and its modes at any states, computed in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ctd.batch import precision, run_items
from ctd.cells import Weights
from ctd.fixed_points.candidates import Network, euler, make_network
from ctd.fixed_points.linear import carried
from ctd.fixed_points.search.kernel import FixedPoint, Searches, make_kernel
from ctd.fixed_points.search.phase import phase
from ctd.fixed_points.search.plots import figure
from ctd.fixed_points.search.summary import REDUCED, SUMMARY, Options
from ctd.fixed_points.shown import lines_of
from ctd.kernel import View, inputs_of
from ctd.late import Array, Float, jax, jnp, lax
from ctd.plots.png import Canvas, draw
from ctd.words import count


@dataclass(frozen=True)
class Found:
    """The result of `find`."""

    results: dict[str, np.ndarray]
    """One row for each candidate: point, q, residual, outcome (see `outcomes`), ..."""
    unique: dict[str, np.ndarray]
    """One row for each fixed or slow point: kind, point, eigenvalue, right, left, stable, ..."""
    outcomes: tuple[str, ...]
    """Names of the codes in results["outcome"]."""
    network: Network
    inputs: View[FixedPoint]
    step: Callable[[Array, Array], Array]
    """F(h, x), whatever `find` was given; of a flow h + dh/dt."""

    def __repr__(self) -> str:
        """Return how the searches ended, and a table of the points: `unique`, as far as it is numbers and words."""
        codes = self.results["outcome"]
        ended = [f"{np.sum(codes == k):,} {name}" for k, name in enumerate(self.outcomes)]
        ended = [text for text in ended if not text.startswith("0 ")]
        x = self.unique["constant_input"]
        left_out = {"constant_input"} if (x == x[:1]).all() else set()
        left_out |= (
            {"origin"} if (self.unique["origin"] == REDUCED["origin"].usual).all() else set()
        )
        shown = {n: self.unique[n] for n in SUMMARY if n in self.unique and n not in left_out}
        return "\n".join(
            [f"{count(len(codes), 'candidate')}: {', '.join(ended)}", *lines_of(shown)]
        )

    def figure(self) -> Canvas:
        """matplotlib Figure: points in the candidates' first two principal components, and eigenvalues.

        Of two state variables, the phase portrait with its nullclines.
        """
        with precision(self.inputs):
            made = figure(self.inputs, self.network, {}, self.results, self.unique)
            # `figure` draws no portrait of a function without a name. Its last plot is that of the spectra, which stays.
            if self.network.states.shape[-1] == 2 and len(self.unique["point"]):
                portrait = phase(self.step, np.asarray(self.network.states), self.unique)
                made = replace(made, plots=[portrait, made.plots[-1]])
            return draw(made)


def find(
    step: Callable[..., Array],
    candidates: ArrayLike,
    *,
    x: ArrayLike | None = None,
    method: str = "lm",
    seed: int = 0,
    **settings: object,
) -> Found:
    """Find h with step(h) = h, or the local minima of q(h) = |step(h) - h|^2 / 2, from many starts.

    Args:
        step: the one-step map of one state, (n,) -> (n,), written in JAX; step(h, x) where x is given. With
            time="continuous" it is dh/dt, and eigenvalues, time constants and stability are those of a flow.
        candidates: (m, n) states to start from.
        x: constant input, (n_in,) for all candidates or (m, n_in).
        method: "lm" or "adam".
        seed: seed of the noise and the mixing of the starts.
        **settings: fields of `FixedPoint` (time, noise, q_tol, max_iterations, dtype, dt, ...) and of
            `Options` (unique_tol, outlier_tol, max_points).

    >>> step = lambda h: jnp.tanh(2 * h)
    >>> find(step, [[-1.0], [-0.5], [0.5], [1.0]], q_tol=1e-20, dtype="float64").unique["point"].round(4)
    array([[-0.9575],
           [ 0.9575],
           [ 0.    ]])

    Raises ValueError if candidates, input and settings do not fit each other.
    """
    params, options = _validated({"method": method, **settings})
    network, columns = _starts(candidates, x, params.dtype)

    def f(
        weights: Weights, h: Float[Array, "state"], x_now: Float[Array, "input"]
    ) -> Float[Array, "state"]:
        del weights
        return step(h) if x is None else step(h, x_now)

    kernel = make_kernel("find", Searches(lambda *_: f, lambda _: None), lambda inputs: network)
    results = run_items(kernel, params, columns, seed=seed, shared=network)
    inputs = inputs_of(params)
    assert kernel.reduce is not None
    with precision(inputs):  # as `gather` reduces a job
        unique = kernel.reduce(inputs, network, columns, results, options)
    outcomes = tuple(outcome.name for outcome in kernel.outcomes)
    shown = euler(f, params.time)  # a portrait draws F(h) - h: dh/dt of a flow
    return Found(results, unique, outcomes, network, inputs, lambda h, x: shown({}, h, x))


def _validated(settings: Mapping[str, object]) -> tuple[FixedPoint, Options]:
    """The settings of the search and those of its reduction; ValueError as `find`."""
    chosen = {name: value for name, value in settings.items() if name in Options.model_fields}
    # Unknown names are left here, and refused.
    params = FixedPoint.model_validate({k: v for k, v in settings.items() if k not in chosen})
    if params.region == "linear" or params.method == "exact":
        raise ValueError("region: linear and method: exact are for a cell that is linear by pieces")
    return params, Options.model_validate(chosen)


def _starts(
    candidates: ArrayLike, x: ArrayLike | None, dtype: str
) -> tuple[Network, dict[str, np.ndarray]]:
    """(the candidates as the states of a network, the columns of the items); ValueError as `find`."""
    candidates = np.asarray(candidates)
    if candidates.ndim != 2:
        raise ValueError(f"candidates: shape {candidates.shape}, (candidate, state) expected")
    try:
        network = make_network({}, candidates, dtype)
    except ValueError as error:
        raise ValueError(f"candidates: {error}") from None
    m = len(candidates)
    columns: dict[str, np.ndarray] = {"candidate": np.arange(m)}
    if x is not None:
        x = np.asarray(x, float)
        if x.ndim not in (1, 2) or (x.ndim == 2 and len(x) != m):
            raise ValueError(f"x: shape {x.shape}, (n_in,) or ({m}, n_in) expected")
        columns["x"] = np.broadcast_to(x, (m, x.shape[-1]))
    return network, columns


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
    of = (lambda h, x: step(h)) if inputs is None else step
    k = min(n_modes or states.shape[1], states.shape[1])
    at = lambda pair: carried(of, readout or (lambda h: h), pair[0], pair[1], k)
    with jax.enable_x64(True):
        # One state after the other: J takes a copy of F's workspace for each unit.
        found = jax.jit(lambda pairs: lax.map(at, pairs))((jnp.asarray(states), jnp.asarray(x)))
    return {name: np.asarray(value) for name, value in found._asdict().items()}
