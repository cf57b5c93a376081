"""The network under study: its cell or function, its weights and its states, as a job's fields and files name them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, Field

from ctd import tasks
from ctd.cells import CELL_NAMES, CELLS, Cell, Weights, as_weights, get_cell, initial_state, readout
from ctd.containers import check_numbers, opened_hdf5, text_attribute
from ctd.data import dataset_of, read_arrays
from ctd.dotted import load as load_dotted
from ctd.kernel import Data, File, Params, Static, Traced, Values, View
from ctd.late import Array, Float, jax, jnp, on_host
from ctd.weights import Loaded, check_guess, read_tensors, read_weights
from ctd.words import count

type Map = Callable[[Weights, Float[Array, "state"], Float[Array, "input"]], Float[Array, "state"]]
"""F(weights, state, input) -> the next state; of a flow, dh/dt."""

type CellName = dict[str | Map, None]
"""{a cell's name, or a function F: None}: a name among arrays, which JAX compiles in with the keys."""

Time = Literal["steps", "continuous"]


class Network(NamedTuple):
    """A network and its states, from which items start: what all items of a group share."""

    weights: Weights
    states: Float[Array, "trial time state"]
    """Item k starts at states.reshape(-1, state)[k]."""
    spread: Float[Array, ""]
    """Root mean square distance of the states from their mean; 1 if all states are equal."""
    largest: Float[Array, ""]
    """The largest |h_i| among the states, at least 1."""
    inverse: Float[Array, "state state"]
    """The inverse of the mean of J'J over some of the states, J = dF/dh - 1 (`search.starts.with_inverse`);
    (0, 0): unknown."""
    inputs: Float[Array, "point input"]
    """The constant input of each state, where the states are points of a table; (0, 0): unknown."""
    cell: CellName


@runtime_checkable  # beartype asks it
class OfCell(Protocol):
    """An object with a cell, or with a function in place of one."""

    @property
    def cell(self) -> CellName: ...


# --- fields -----------------------------------------------------------------------------------------


def find_cell(name: str) -> Cell | Map:
    """The cell of this name, or the Cell or function F(weights, h, x) at this dotted path.

    Raises ValueError if there is none.
    """
    if ":" in name or "." not in name:  # leaky:mylab.units.f is a cell of ctd with units
        return get_cell(name)
    module, _, attribute = name.rpartition(".")
    candidate = load_dotted(name, f"cell: {name}")
    if not (isinstance(candidate, Cell) or callable(candidate)):
        raise ValueError(
            f"cell: {name}: {module} has no {attribute} that is a ctd.cells.Cell or a function "
            "F(weights, h, x)"
        )
    return candidate  # the next state or dh/dt, as `time` says


def known_cell(name: str) -> str:
    """The name, if there is such a cell; the check of a field. Raises ValueError."""
    find_cell(name)
    return name


class OfNetwork(Params):
    """The fields that name a network."""

    dtype: Static[Literal["float32", "float64"]] = "float64"
    cell: Static[Annotated[str, AfterValidator(known_cell)] | None] = Field(
        None,
        description=f"{CELL_NAMES}; by default the cell that the weights belong to; or the dotted path of a Cell or of a "
        "function F(weights, h, x)",
    )
    weights: File[str | None] = None
    """file of the network's weights: PyTorch's, Flax', Equinox', Keras', safetensors, .npz, HDF5"""


class OfDynamics(OfNetwork):
    """The fields that name a network, a map or a flow, at a constant input."""

    time: Static[Time] = "steps"
    """steps: the next state is F(h); continuous: dh/dt is F(h), or the field of cell node"""
    x: Traced[tuple[float, ...]] = Field((), json_schema_extra={"units": "1"})
    """constant input; without it, zeros"""


class OfTrials(OfNetwork):
    """The fields that name trials of a task for a network."""

    task: Data[tasks.AnyTask] = tasks.Decision()
    """task whose trials are run"""
    n_trials: Data[int] = Field(100, gt=0)
    """trials that are run"""
    trial_seed: Data[int] = Field(0, ge=0, lt=2**32)
    """chooses the trials"""


def number_of(noun: str) -> Any:
    """A field that numbers something; numbers beyond their count begin anew."""
    return Field(
        0,
        ge=0,
        lt=2**31,
        description=f"number of the {noun}; beyond the last one, numbers start again at 0",
    )


class FromState(OfDynamics):
    """The fields of a trajectory, which starts at a state."""

    states: File[str | None] = None
    """file of states to start from, HDF5, .npz or .npy; without it, the network's h0"""
    dataset: Data[str] = "hiddens"
    """name of the states in that file, (..., state)"""
    start: Traced[int] = number_of("state to start from")
    noise: Traced[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on the start"""


# --- the map or flow --------------------------------------------------------------------------------


def cell_of(network: OfCell) -> Cell | Map:
    """The network's cell, or the user's F."""
    (cell,) = network.cell
    return find_cell(cell) if isinstance(cell, str) else cell


def map_of(network: OfCell, time: Time = "steps") -> Map:
    """F of the cell, or the user's F: the next state; in continuous time dh/dt."""
    cell = cell_of(network)
    if not isinstance(cell, Cell):
        return cell
    if time == "steps":
        return cell.step
    assert cell.flow is not None, "stored_cell refuses it"
    return cell.flow


def step_of(network: OfCell, time: Time) -> Map:
    """The map with the same fixed points: F itself; in continuous time h + F(h), so that q is |dh/dt|^2 / 2."""
    f = map_of(network, time)
    return f if time == "steps" else _euler(f)


@lru_cache(8)  # JAX knows what it has compiled by the function
def _euler(f: Map) -> Map:
    return lambda weights, h, x: h + f(weights, h, x)


def compiled[R](function: Callable[..., R], n_static: int = 1) -> Callable[..., R]:
    """Compile a function once for each combination of its first n_static arguments, the map F and others that are no arrays."""

    # Not jax.jit's own static arguments, whose cache would keep every F of a notebook.
    @lru_cache(32)
    def program(*static: Any) -> Callable[..., R]:
        return jax.jit(partial(function, *static))

    return lambda *args: program(*args[:n_static])(*args[n_static:])


def n_in_of(network: Network) -> int | None:
    """The number of inputs of the network; None for a user's F, which may take any number."""
    cell = cell_of(network)
    return cell.infer(network.weights)[1] if isinstance(cell, Cell) else None


def constant_input(shared: Network, traced: Values[OfDynamics]) -> Float[Array, "input"]:
    """x, or zeros if none was given. Raises ValueError if its length does not fit the network."""
    n_in = n_in_of(shared)
    if traced.x.shape[0] == 0:
        return jnp.zeros(n_in or 0, shared.states.dtype)  # a user's F may take no input
    if n_in is not None and traced.x.shape[0] != n_in:
        raise ValueError(
            f"x: {count(traced.x.shape[0], 'number')} given, but the network has {count(n_in, 'input')}"
        )
    return traced.x


def state_of(network: Network, number: Array) -> Float[Array, "state"]:
    """The state of this number, modulo their number."""
    states = jnp.asarray(network.states).reshape(-1, network.states.shape[-1])
    return states[number % len(states)]


def warn_of_untried(field: str, tried: int, n: int) -> None:
    """Warn if items took fewer than the n states, points or departures that `field` numbers."""
    if tried < n:
        warnings.warn(
            f"{field}: items took {tried} of {n}; sweep {field}: {{range: {n}}} to take all",
            stacklevel=3,
        )


def outputs_of(network: Network, states: Float[Array, "k state"]) -> Float[Array, "k output"]:
    """The readout at some states; of a function wO h + bO where its weights have wO (output, state) and bO, else (k, 0)."""
    cell, w = cell_of(network), network.weights
    if isinstance(cell, Cell):
        return jax.vmap(lambda h: readout(cell, w, h))(states)
    fits = {"wO", "bO"} <= w.keys() and w["wO"].shape == (*w["bO"].shape, states.shape[-1])
    return states @ w["wO"].T + w["bO"] if fits else states[:, :0]


# --- files ------------------------------------------------------------------------------------------


def make_network(
    cell: str | Map,
    weights: Mapping[str, ArrayLike],
    states: ArrayLike,
    dtype: str,
    source: str = "states",
) -> Network:
    """Check the states, (..., state), and measure their spread.

    Raises ValueError, which begins with `source`, if there are none or they are not finite.
    """
    states = np.asarray(states, dtype)
    if states.ndim == 0 or states.size == 0:
        raise ValueError(
            f"{source}: shape {states.shape}: at least one state expected, (candidate, state)"
        )
    check_numbers(source, states)
    if states.ndim != 3:
        states = states.reshape(-1, 1, states.shape[-1])  # trials of one step each
    flat = states.reshape(-1, states.shape[-1])
    spread = np.sqrt(np.mean(np.sum((flat - flat.mean(0)) ** 2, axis=1)))
    # Searches that go beyond a multiple of this have diverged: states near 0 must not make that bound 0.
    largest = max(1.0, float(np.abs(flat).max()))
    scales = on_host(spread if spread > 0 else 1, dtype), on_host(largest, dtype)
    unknown = on_host(np.zeros((0, 0)), dtype)  # programs see by the shape that it is not known
    return Network(
        as_weights(weights, dtype), on_host(states), *scales, unknown, unknown, {cell: None}
    )


def stored_network(inputs: View[OfNetwork], path: str, dataset: str) -> Network:
    """The network, with the states in a dataset of a file, (..., state). Raises ValueError, naming file and field."""
    loaded = _loaded(inputs)
    name, cell, weights = loaded.cell, find_cell(loaded.cell), as_weights(loaded.params)
    source = f"{path}: {dataset}"
    stored = read_arrays(path, dataset)
    size = cell.state_size(cell.infer(weights)[0]) if isinstance(cell, Cell) else None
    fits = [name for name, values in stored.items() if size in (None, *values.shape[-1:])]
    hint = f"give dataset: {fits[0]}" if len(fits) == 1 else "give one as dataset"
    states = dataset_of(path, stored, dataset, f"; {hint}")
    if size is not None and (states.ndim == 0 or states.shape[-1] != size):
        raise ValueError(
            f"{source}: has the shape {states.shape}, but the state of this network has "
            f"{size} entries, which the last axis must have"
        )
    network = make_network(name, weights, states, inputs.dtype, source)
    if loaded.guess:
        check_guess(f"{inputs.weights}, {source}", loaded.guess, name, loaded.params, states)
    # A table of fixed_points says at which input each of its points is one.
    table_inputs = stored.get("constant_input", np.zeros(0))
    if table_inputs.ndim != 2 or len(table_inputs) != len(network.states):
        return network
    return network._replace(inputs=on_host(table_inputs, inputs.dtype))


def load_start(inputs: View[FromState]) -> Network:
    """The network, and the states that trajectories start from. Raises ValueError."""
    if inputs.states is not None:
        return stored_network(inputs, inputs.states, inputs.dataset)
    name, cell, weights = stored_cell(inputs)
    if not isinstance(cell, Cell):
        raise ValueError(f"states: {name} is a function; give a file of states to start from")
    h0 = initial_state(cell, weights, inputs.dtype)
    if _is_reservoir(inputs.weights):
        warnings.warn(
            "states: without it trajectories start at h0, the state of a reservoir before its washout, and may go elsewhere than its "
            "replays do; give the results of esn as states, and dataset: replay_state",
            stacklevel=3,
        )
    return make_network(name, weights, h0, inputs.dtype)


def _is_reservoir(path: str | None) -> bool:
    """True if a file states that the kernel `esn` made it."""
    if path is None or not h5py.is_hdf5(path):
        return False
    with opened_hdf5(path) as file:
        return text_attribute(file, "kernel") == "esn"


def stored_cell(inputs: View[OfNetwork]) -> tuple[str, Cell | Map, Weights]:
    """(the cell's name, the cell or function, the weights). Raises ValueError, naming file and field."""
    loaded = _loaded(inputs)
    return loaded.cell, find_cell(loaded.cell), as_weights(loaded.params)


def _loaded(inputs: View[OfNetwork]) -> Loaded:
    """The network of a job's fields; its cell may be the path of a function.

    For a cell of ctd the file says which it is; a user's cell gets the arrays by their names. Raises ValueError, naming file
    and field, also where time is continuous and the cell is a map.
    """
    name = inputs.cell
    cell = None if name is None else find_cell(name)
    is_user_cell = "." in (name or "").partition(":")[0]  # a user's own cell has a dotted path
    if inputs.weights is None:  # a user's F may have none
        if name is None or isinstance(cell, Cell):
            raise ValueError(f"weights: {name or 'a network'} needs a file of weights")
        loaded = Loaded(name, {}, ())
    elif name is None or (isinstance(cell, Cell) and not is_user_cell):
        loaded = read_weights(inputs.weights, name)
    else:
        loaded = Loaded(name, dict(read_tensors(inputs.weights).arrays), ())
    name, cell = loaded.cell, find_cell(loaded.cell)
    flows = getattr(inputs, "time", "steps") == "continuous"
    if flows and isinstance(cell, Cell) and cell.flow is None:
        flow_cells = ", ".join(other.name for other in CELLS.values() if other.flow is not None)
        raise ValueError(
            f"time: continuous, but cell {name} is a map; write time: steps, or cell: {flow_cells}, or the path of a function dh/dt"
        )
    return loaded


def load_trials(
    inputs: View[OfTrials], instead: str = ""
) -> tuple[str, Cell, Weights, tasks.Trial]:
    """`stored_cell`, and trials of the task. instead: the end of an error, on other remedies than another cell or task.

    Raises ValueError for a function, which has no trials, and where the network does not take the task's inputs.
    """
    name, cell, weights = stored_cell(inputs)
    if not isinstance(cell, Cell):
        raise ValueError(
            f"cell: {name} is a function, which has no initial state to run trials from; give a cell{instead}"
        )
    inputs.task.check_inputs(cell.infer(weights)[1], inputs.weights, instead)
    key = jax.random.key(inputs.trial_seed)
    return name, cell, weights, tasks.batch(inputs.task, key, inputs.n_trials, inputs.dtype)
