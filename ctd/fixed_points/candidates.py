"""The network whose fixed points are sought, and the states of its trials, which are the candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ctd import tasks
from ctd.cells import CELL_NAMES, CELLS, FORMS, Cell, Weights, get_cell, readout, run
from ctd.data import read_arrays, read_hdf5
from ctd.dotted import load as load_dotted
from ctd.kernel import View
from ctd.late import Array, Float, jax, jnp, lax, on_host
from ctd.weights import read_tensors, read_weights
from ctd.words import count

type Map = Callable[[Weights, Float[Array, "state"], Float[Array, "input"]], Float[Array, "state"]]
"""F(weights, state, input) -> the next state."""


class Network(NamedTuple):
    """A network and the states from which its searches start: what all its candidates share."""

    weights: Weights
    states: Float[Array, "trial time state"]
    """Candidate states; candidate k is states.reshape(-1, state)[k]."""
    spread: Float[Array, ""]
    """Root mean square distance of the states from their mean; 1 if all states are equal."""
    largest: Float[Array, ""]
    """The largest |h_i| among the states, at least 1."""
    inverse: Float[Array, "state state"]
    """The inverse of the mean of J'J over some of the states, J = dF/dh - 1 (see `with_inverse`);
    (0, 0): unknown."""
    inputs: Float[Array, "point input"]
    """The constant input of each state, where the states are points of a table; (0, 0): unknown."""
    cell: dict[str, None]
    """{name of the cell: None}: a name among arrays, which JAX compiles in with the keys. Empty: a function that
    has no name."""


Time = Literal["steps", "continuous"]


class TimeField(Protocol):
    """The field that tells a map from a flow."""

    @property
    def time(self) -> Time: ...


class NetworkFields(Protocol):
    """The fields of a kernel's parameters that name a network."""

    @property
    def dtype(self) -> str: ...
    @property
    def cell(self) -> str | None: ...
    @property
    def weights(self) -> str | None: ...


class TrialFields(NetworkFields, Protocol):
    """The fields that name a network and trials of a task."""

    @property
    def task(self) -> tasks.Task: ...
    @property
    def n_trials(self) -> int: ...
    @property
    def trial_seed(self) -> int: ...


class SearchFields(TrialFields, TimeField, Protocol):
    """The fields that say how searches start."""

    @property
    def method(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def candidates(self) -> str | None: ...
    @property
    def dataset(self) -> str: ...


CELL_TEXT = f"{CELL_NAMES}; by default the cell that the weights belong to; or the dotted path of a Cell or of a function F(weights, h, x)"
WEIGHTS_TEXT = (
    "file of the network's weights: PyTorch's, Flax', Equinox', Keras', safetensors, .npz, HDF5"
)
TIME_TEXT = "steps: the next state is F(h); continuous: dh/dt is F(h), or the field of cell node"
"""Descriptions of the fields `cell`, `weights` and `time` of the kernels."""

N_SAMPLED = 16
"""States at which J is computed: their mean changes little with more."""

REGULAR = 0.1
"""Added to the diagonal of the mean of J'J, in units of that diagonal's mean: other states do not tell flatter directions
well enough to stretch them further."""


def find_cell(name: str) -> Cell | Map:
    """The cell of this name, or the Cell or function F(weights, h, x) at this dotted path.

    Raises ValueError where there is none.
    """
    if ":" in name or "." not in name:  # leaky:mylab.units.f is a cell of ctd with units
        return get_cell(name)
    module, _, attribute = name.rpartition(".")
    found = load_dotted(name, f"cell: {name}")
    if not (isinstance(found, Cell) or callable(found)):
        raise ValueError(
            f"cell: {name}: {module} has no {attribute} that is a ctd.cells.Cell or a function "
            "F(weights, h, x)"
        )
    return found  # the next state or dh/dt, as `time` says


def known_cell(name: str) -> str:
    """The name, if there is such a cell; the check of a field. Raises ValueError."""
    find_cell(name)
    return name


def cell_of(network: Network) -> Cell | Map | None:
    """The network's cell, or the user's F; None for a function without a name."""
    return find_cell(*network.cell) if network.cell else None


def outputs_of(network: Network, states: Float[Array, "k state"]) -> Float[Array, "k output"]:
    """The readout at some states; of a function wO h + bO where its weights have wO (output, state) and bO, else (k, 0)."""
    cell, w = cell_of(network), network.weights
    if isinstance(cell, Cell):
        return jax.vmap(lambda h: readout(cell, w, h))(states)
    fits = {"wO", "bO"} <= w.keys() and w["wO"].shape == (*w["bO"].shape, states.shape[-1])
    return states @ w["wO"].T + w["bO"] if fits else states[:, :0]


def map_of(network: Network, time: Time = "steps") -> Map:
    """F of the cell, or the user's F: the next state; in continuous time dh/dt."""
    return named_map(network.cell, time)


def named_map(cell: Mapping[str, None], time: Time = "steps") -> Map:
    """F as `map_of` returns it, of the cell or user's F whose name is the key."""
    found = find_cell(*cell)
    if not isinstance(found, Cell):
        return found
    if time == "steps":
        return found.step
    assert found.flow is not None, "stored_cell refuses it"
    return found.flow


@lru_cache(8)  # JAX knows what it has compiled by the function
def euler(f: Map, time: Time) -> Map:
    """The map with the same fixed points: F itself; in continuous time h + F(h), so that q is |dh/dt|^2 / 2."""
    return f if time == "steps" else lambda weights, h, x: h + f(weights, h, x)


def n_in_of(network: Network) -> int | None:
    """The number of inputs of the network; None for a user's F, which may take any number."""
    found = cell_of(network)
    return found.infer(network.weights)[1] if isinstance(found, Cell) else None


def make_network(
    weights: Mapping[str, ArrayLike], states: ArrayLike, dtype: str, cell: str | None = None
) -> Network:
    """Check the states, (..., state), and measure their spread. Raises ValueError if there are none or not finite."""
    states = np.asarray(states, dtype)
    if states.ndim == 0 or states.size == 0:
        raise ValueError(f"shape {states.shape}: at least one state expected, (candidate, state)")
    if not np.isfinite(states).all():
        bad = int((~np.isfinite(states)).sum())
        raise ValueError(f"{bad} of {states.size} entries are NaN or infinite")
    if states.ndim != 3:
        states = states.reshape(-1, 1, states.shape[-1])  # trials of one step each
    flat = states.reshape(-1, states.shape[-1])
    spread = np.sqrt(np.mean(np.sum((flat - flat.mean(0)) ** 2, axis=1)))
    # Searches that go beyond a multiple of this have diverged: states near 0 must not make that bound 0.
    largest = max(1.0, float(np.abs(flat).max()))
    scales = on_host(spread if spread > 0 else 1, dtype), on_host(largest, dtype)
    name = {} if cell is None else {cell: None}
    unknown = on_host(np.zeros((0, 0)), dtype)  # programs see by the shape that it is not known
    return Network(as_dtype(weights, dtype), on_host(states), *scales, unknown, unknown, name)


def as_dtype(weights: Mapping[str, ArrayLike], dtype: str) -> dict[str, Array]:
    """The weights as arrays of this dtype on the host."""
    return {name: on_host(value, dtype) for name, value in weights.items()}


def with_inverse(network: Network, f: Map, x: ArrayLike) -> Network:
    """The network, with the inverse of the mean of J'J at the input x, by which `lm` preconditions.

    Any positive matrix leads to the same minima of q; this one in fewer steps. It stays unknown where F has
    no finite derivatives.
    """
    states = np.asarray(network.states).reshape(-1, network.states.shape[-1])
    # States are stored trial by trial, so that equal distances reach all trials and times.
    some = states[np.linspace(0, len(states) - 1, N_SAMPLED).astype(int)]
    squares = np.asarray(_squares(f)(network.weights, some, np.asarray(x, states.dtype)), float)
    squares = squares[np.isfinite(squares).all(axis=(1, 2))]  # F may lack a derivative somewhere
    mean = squares.sum(axis=0) / max(1, len(squares))
    added = REGULAR * np.trace(mean) / len(mean)
    # `not >`, since NaN must return here, too.
    if not added > 0:
        return network
    inverse = np.linalg.inv(mean + added * np.eye(len(mean)))  # in float64, then rounded
    return network._replace(inverse=on_host(inverse, states.dtype))


@cache
def _squares(f: Map) -> Callable[[Weights, np.ndarray, np.ndarray], Float[Array, "k state state"]]:
    """(weights, states (k, state), x) -> J'J, compiled once for the networks of a cell.

    One state after the other: J takes a copy of F's workspace for each unit.
    """

    def squares(
        weights: Weights, states: Float[Array, "k state"], x: Float[Array, "input"]
    ) -> Float[Array, "k state state"]:
        def square(h: Float[Array, "state"]) -> Float[Array, "state state"]:
            j = jax.jacfwd(lambda h: f(weights, h, x) - h)(h)
            return j.T @ j  # the Hessian of q but for F's second derivatives

        return lax.map(square, states)

    return jax.jit(squares)


PRECONDITIONED = frozenset({"lm"})
"""Methods of search that use the inverse of J^T J at one state, which is made once for all candidates."""


def load(inputs: View[SearchFields]) -> Network:
    """The network of `read_network`, with the inverse that some methods use. Raises ValueError."""
    network = read_network(inputs)
    found = cell_of(network)
    pieces = found.pieces if isinstance(found, Cell) else None
    for field, value in (("method", "exact"), ("region", "linear")):
        if pieces is None and getattr(inputs, field) == value:
            fits = [name for name in (*CELLS, *FORMS) if get_cell(name).pieces is not None]
            raise ValueError(
                f"{field}: {value} given, but cell {next(iter(network.cell))} is not linear by pieces, as "
                f"{', '.join(fits)} are; give another {field}"
            )
    if inputs.method not in PRECONDITIONED or not isinstance(found, Cell):
        return network
    f = euler(map_of(network, inputs.time), inputs.time)
    return with_inverse(network, f, np.zeros(found.infer(network.weights)[1]))  # any x would do


def read_network(inputs: View[SearchFields]) -> Network:
    """Read the weights, and read the candidate states or run trials of the task for them. Raises ValueError."""
    name, weights = stored_cell(inputs)
    found = find_cell(name)
    if inputs.candidates is None:
        if not isinstance(found, Cell):
            raise ValueError(
                f"candidates: {name} is a function without an initial state to run trials "
                "from; give a file of candidate states"
            )
        return make_network(weights, simulate(found, weights, inputs), inputs.dtype, name)
    states = stored_states(inputs.candidates, inputs.dataset, found, weights)
    try:
        return make_network(weights, states, inputs.dtype, name)
    except ValueError as error:
        raise ValueError(f"{inputs.candidates}: {inputs.dataset}: {error}") from None


def stored_states(path: str, dataset: str, found: Cell | Map, weights: Weights) -> np.ndarray:
    """(..., state) a dataset of a file, which holds states of this network. Raises ValueError."""
    where = f"{path}: {dataset}"
    stored = read_arrays(path, dataset)
    size = found.state_size(found.infer(weights)[0]) if isinstance(found, Cell) else None
    if dataset not in stored:
        fits = [name for name, values in stored.items() if size in (None, *values.shape[-1:])]
        hint = f"give dataset: {fits[0]}" if len(fits) == 1 else "give one as dataset"
        raise ValueError(f"{where}: no such dataset; found {', '.join(sorted(stored))}; {hint}")
    states = stored[dataset]
    if size is not None and (states.ndim == 0 or states.shape[-1] != size):
        raise ValueError(
            f"{where}: has the shape {states.shape}, but the state of this network has "
            f"{size} entries, which the last axis must have"
        )
    return states


def read_points(path: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The table of a store of fixed_points. Raises ValueError, naming the file, where it lacks one of these columns."""
    table = read_hdf5(path)
    if missing := set(names) - table.keys():
        raise ValueError(
            f"points: {path}: lacks {', '.join(sorted(missing))}; STORE/gathered/GROUP of a store of fixed_points expected"
        )
    return table


def stored_cell(inputs: View[NetworkFields]) -> tuple[str, Weights]:
    """(the cell's name, the weights). For a cell of ctd the file says both; a user's cell gets the arrays by their names.

    Raises ValueError, naming file and field, also where time is continuous and the cell is a map.
    """
    name, weights = _stored_cell(inputs)
    found = find_cell(name)
    flows = getattr(inputs, "time", "steps") == "continuous"
    if flows and isinstance(found, Cell) and found.flow is None:
        known = ", ".join(cell.name for cell in CELLS.values() if cell.flow is not None)
        raise ValueError(
            f"time: continuous, but cell {name} is a map; write time: steps, or cell: {known}, or the path of a function dh/dt"
        )
    return name, weights


def _stored_cell(inputs: View[NetworkFields]) -> tuple[str, Weights]:
    found = None if inputs.cell is None else find_cell(inputs.cell)
    if inputs.weights is None:
        if found is None or isinstance(found, Cell):
            raise ValueError(f"weights: {inputs.cell or 'a network'} needs a file of weights")
        assert inputs.cell is not None, "it was found by its name"
        return inputs.cell, {}  # a user's F may have no weights
    own = "." in (inputs.cell or "").partition(":")[0]  # a user's own cell has a dotted path
    if found is None or (isinstance(found, Cell) and not own):
        loaded = read_weights(inputs.weights, inputs.cell)
        return loaded.cell, {name: on_host(value) for name, value in loaded.params.items()}
    assert inputs.cell is not None, "it was found by its name"
    arrays = read_tensors(inputs.weights).arrays
    return inputs.cell, {name: on_host(value) for name, value in arrays.items()}


def simulate(
    cell: Cell, weights: Weights, inputs: View[TrialFields]
) -> Float[np.ndarray, "trial time state"]:
    """The states in `n_trials` trials of the task, without the initial ones."""
    n_in = cell.infer(weights)[1]
    if inputs.task.n_in != n_in:
        raise ValueError(
            f"task: {inputs.task.name or type(inputs.task).__name__} has {count(inputs.task.n_in, 'input')},"
            f" but the network in {inputs.weights} takes {n_in}; give a task with as many, or candidates: a file of states"
        )
    trials = tasks.batch(
        inputs.task, jax.random.key(inputs.trial_seed), inputs.n_trials, inputs.dtype
    )
    network = {name: jnp.asarray(value, inputs.dtype) for name, value in weights.items()}
    return np.asarray(jax.jit(jax.vmap(lambda x: run(cell, network, x)[0]))(trials.inputs))
