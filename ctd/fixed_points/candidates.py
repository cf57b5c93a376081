"""The network whose fixed points are sought, and the states from which the searches start."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ctd import tasks
from ctd.cells import CELLS, Cell, get_cell, run
from ctd.data import read_hdf5, read_weights
from ctd.late import jax, jnp, lax

type Map = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""F(weights, state, input) -> the next state."""


class Network(NamedTuple):
    """A network and the states from which its searches start: what all its candidates share."""

    weights: dict[str, Any]
    states: Any
    """(trial, time, state) candidate states; candidate k is states.reshape(-1, state)[k]."""
    spread: Any
    """Root mean square distance of the states from their mean; 1 if all states are equal."""
    largest: Any
    """The largest |h_i| among the states, at least 1."""
    inverse: Any
    """(state, state) inverse of the mean of J'J over some of the states, J = dF/dh - 1 (see `with_inverse`);
    (0, 0): unknown."""


N_SAMPLED = 16
"""States at which J is computed: their mean changes little with more."""

REGULAR = 0.1
"""Added to the diagonal of the mean of J'J, in units of its own mean: what is flatter there is not known well
enough from other states to be stretched further."""


def find_cell(name: str) -> Cell | Map:
    """The cell of this name, or the Cell or function F(weights, h, x) at this dotted path.

    Raises ValueError where there is none.
    """
    module, _, attribute = name.rpartition(".")
    if name in CELLS or not module:
        return get_cell(name)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        # A missing import inside the user's module is passed on unchanged.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ValueError(f"cell: {name}: there is no module {error.name}") from None
    if not (isinstance(found, Cell) or callable(found)):
        raise ValueError(
            f"cell: {name}: {module} has no {attribute} that is a ctd.cells.Cell or a function "
            "F(weights, h, x)"
        )
    return found


def known_cell(name: str) -> str:
    """The name, if there is such a cell; the check of a field. Raises ValueError."""
    find_cell(name)
    return name


def map_of(static: Any) -> Map:
    """F of the cell, or the user's F."""
    found = find_cell(static.cell)
    return found.step if isinstance(found, Cell) else found


def n_in_of(static: Any, network: Network) -> int | None:
    """The number of inputs of the network; None for a user's F, which may take any number."""
    found = find_cell(static.cell)
    return found.infer(network.weights)[1] if isinstance(found, Cell) else None


def make_network(weights: dict[str, Any], states: Any, dtype: str) -> Network:
    """Check the states, (..., state), and measure their spread. Raises ValueError if there are none or not finite."""
    states = np.asarray(states, dtype)
    if states.ndim == 0 or states.size == 0:
        raise ValueError(f"shape {states.shape}: at least one state expected, (candidate, state)")
    if not np.isfinite(states).all():
        bad = int((~np.isfinite(states)).sum())
        raise ValueError(f"{bad} of {states.size} entries are NaN or infinite")
    if states.ndim != 3:
        states = states.reshape(-1, 1, states.shape[-1])
    flat = states.reshape(-1, states.shape[-1])
    spread = np.sqrt(np.mean(np.sum((flat - flat.mean(0)) ** 2, axis=1)))
    largest = max(1.0, float(np.abs(flat).max()))
    weights = {name: np.asarray(value, dtype) for name, value in weights.items()}
    scales = np.asarray(spread if spread > 0 else 1, dtype), np.asarray(largest, dtype)
    return Network(weights, states, *scales, np.zeros((0, 0), dtype))


def with_inverse(network: Network, f: Map, x: Any) -> Network:
    """The network, with the inverse of the mean of J'J at the input x, by which `lm` preconditions.

    Any positive matrix leads to the same minima of q; this one in fewer steps. It stays unknown where F has
    no finite derivatives.
    """
    states = network.states.reshape(-1, network.states.shape[-1])
    some = states[np.linspace(0, len(states) - 1, N_SAMPLED).astype(int)]
    squares = np.asarray(_squares(f)(network.weights, some, np.asarray(x, states.dtype)), float)
    squares = squares[np.isfinite(squares).all(axis=(1, 2))]
    mean = squares.sum(axis=0) / max(1, len(squares))
    added = REGULAR * np.trace(mean) / len(mean)
    if not added > 0:
        return network
    inverse = np.linalg.inv(mean + added * np.eye(len(mean)))
    return network._replace(inverse=inverse.astype(states.dtype))


@cache
def _squares(f: Map) -> Any:
    """(weights, states (k, state), x) -> (k, state, state) J'J, compiled once for the networks of a cell.

    One state after the other: J takes a copy of F's workspace for each unit.
    """

    def squares(weights: Any, states: jax.Array, x: jax.Array) -> jax.Array:
        def square(h: jax.Array) -> jax.Array:
            j = jax.jacfwd(lambda h: f(weights, h, x) - h)(h)
            return j.T @ j

        return lax.map(square, states)

    return jax.jit(squares)


def load(inputs: Any) -> Network:
    """The network of `read_network`, with what `lm` knows about it beforehand. Raises ValueError."""
    network, found = read_network(inputs), find_cell(inputs.cell)
    if inputs.method == "adam" or not isinstance(found, Cell):
        return network
    return with_inverse(network, found.step, np.zeros(found.infer(network.weights)[1]))


def read_network(inputs: Any) -> Network:
    """Read the weights, and read the candidate states or run trials of the task for them. Raises ValueError."""
    found = find_cell(inputs.cell)
    weights = stored_weights(inputs, found)
    if inputs.candidates is None:
        if not isinstance(found, Cell):
            raise ValueError(
                f"candidates: {inputs.cell} is a function without an initial state to run trials "
                "from; give a file of candidate states"
            )
        return make_network(weights, simulate(found, weights, inputs), inputs.dtype)
    states = stored_states(inputs.candidates, inputs.dataset, found, weights)
    try:
        return make_network(weights, states, inputs.dtype)
    except ValueError as error:
        raise ValueError(f"{inputs.candidates}: {inputs.dataset}: {error}") from None


def stored_weights(inputs: Any, found: Cell | Map) -> dict[str, Any]:
    """The weights of `inputs.weights`; none for a user's function that needs none. Raises ValueError."""
    if inputs.weights is not None:
        known = isinstance(found, Cell) and found is CELLS.get(found.name)
        return read_weights(inputs.weights, inputs.cell if known else None)
    if isinstance(found, Cell):
        raise ValueError(f"weights: cell {inputs.cell} needs a file of weights")
    return {}


def stored_states(
    path: str, dataset: str, found: Cell | Map, weights: dict[str, Any]
) -> np.ndarray:
    """(..., state) a dataset of a file, which holds states of this network. Raises ValueError."""
    where = f"{path}: {dataset}"
    stored = read_hdf5(path)
    if dataset not in stored:
        raise ValueError(f"{where}: no such dataset; found {', '.join(sorted(stored))}")
    states = stored[dataset]
    if isinstance(found, Cell):
        size = found.state_size(found.infer(weights)[0])
        if states.ndim == 0 or states.shape[-1] != size:
            raise ValueError(
                f"{where}: has the shape {states.shape}, but the state of this network has "
                f"{size} entries, which the last axis must have"
            )
    return states


def simulate(cell: Cell, weights: dict[str, Any], inputs: Any) -> np.ndarray:
    """(trial, time, state) the states in `n_trials` trials of the task, without the initial ones."""
    n_in = cell.infer(weights)[1]
    if inputs.task.n_in != n_in:
        raise ValueError(
            f"task: {inputs.task.name or type(inputs.task).__name__} has {inputs.task.n_in} inputs,"
            f" but the network in {inputs.weights} takes {n_in}"
        )
    trials = tasks.batch(
        inputs.task, jax.random.key(inputs.trial_seed), inputs.n_trials, inputs.dtype
    )
    network = {name: jnp.asarray(value, inputs.dtype) for name, value in weights.items()}
    states = jax.jit(jax.vmap(lambda x: run(cell, network, x)[0]))(trials.inputs)
    return np.asarray(states)


def draw_start(network: Network, traced: Any, key: jax.Array) -> jax.Array:
    """(state,) the start of a search: candidate `traced.candidate` (modulo their number), mixed, plus noise.

    With probability `mix` the start lies on the segment to another state drawn at random: halfway in half
    of the cases, else at a uniformly drawn place.
    """
    states = network.states.reshape(-1, network.states.shape[-1])
    key_choice, key_noise = jax.random.split(key)
    chosen, halfway, share, other = jax.random.uniform(key_choice, (4,), states.dtype)
    h = states[traced.candidate % len(states)]
    to = states[jnp.minimum((other * len(states)).astype(jnp.int32), len(states) - 1)] - h
    share = jnp.where(chosen < traced.mix, jnp.where(halfway < 0.5, 0.5, share), 0)
    noise: jax.Array = traced.noise * jax.random.normal(key_noise, h.shape, states.dtype)
    return h + share.astype(states.dtype) * to + noise
