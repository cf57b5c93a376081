"""Small networks and reservoirs, how they are run, and one step of them in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import origin

from ctd import cells, esn
from ctd.batch import Layout, Run, precision, program, run_items
from ctd.cells import get_cell
from ctd.esn import EchoState, kernel
from ctd.esn.reservoir import draw
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of, static_of, traced_of, traced_type
from ctd.weights import read_weights

# --- networks of cells, and those that files hold -----------------------------------------------

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
"""Of states in (-1, 1), or not far from it, after 50 steps of rounding in another order."""


@partial(jax.jit, static_argnums=0)
def _states(cell, params, inputs, h0):
    # Weights as arguments: networks of a cell and of equal sizes are one program.
    return cells.run(get_cell(cell), params, inputs, h0)


def run_file(path, inputs, h0=None, cell=None):
    """(the network of a file, its states (time, state), its outputs) in the precision of `inputs`."""
    found = read_weights(path, cell)
    with precision(FixedPoint(dtype=str(inputs.dtype))):
        params = {name: np.asarray(value, inputs.dtype) for name, value in found.params.items()}
        states, outputs = _states(found.cell, params, inputs, h0)
    return found, np.asarray(states), np.asarray(outputs)


def assert_states(found, expected):
    """To the tolerance of the expected numbers' precision; and they are such, and no constants."""
    assert found.dtype == expected.dtype
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[str(expected.dtype)], rtol=0)


def line_network():
    """A tanh network that nearly integrates its input: one direction of gain 0.97, the others contract."""
    rng = np.random.default_rng(2)
    params = origin.random_vrnn_params(rng, 1, 6, 1, g=0.3)
    along = params["wI"][:, 0] / np.linalg.norm(params["wI"])
    params["wR"] = params["wR"] - np.outer(params["wR"] @ along - 0.97 * along, along)
    return params | {"bR": 0.05 * rng.standard_normal(6), "bO": np.array([0.1])}


# --- reservoirs of `ctd.esn`, and one step of them in NumPy -------------------------------------

RESERVOIR = {"n": 40, "m": 2, "target": "sines", "train": 90, "passes": 3, "record": ("readout",)}
ONE_BY_ONE = Layout(16, 1)
ALONE = Layout(1, 1)
"""That of `begin`, with which a run of the same static fields shares its program."""


def run_reservoir(columns=None, layout=ONE_BY_ONE, **params):
    return run_items(kernel, EchoState(**params), columns, layout=layout)


def begin(params):
    """A run of one item before its first advance, the group's data, and the item's initial state."""
    static, kind = static_of(params), traced_type(EchoState)
    with precision(static):
        shared = esn.load(inputs_of(params))
    traced = kind(*(np.asarray([v], static.dtype) for v in traced_of(params)))
    run = Run(program(kernel, static, ALONE), shared, 0, np.arange(1), traced)
    return run, shared, jax.tree.map(lambda leaf: np.asarray(leaf)[0], run._slots.state)


def finish(run):
    """The item's results."""
    while not run.finished:
        run.advance()
    return {name: values[0] for name, values in run.results.items()}


def network(**given):
    """Weights of a network, drawn outside a run."""
    params = EchoState(**given)
    static = static_of(params)
    shared = esn.load(inputs_of(params))
    traced = traced_type(EchoState)(*(jnp.float32(v) for v in traced_of(params)))
    return jax.jit(lambda key: draw(static, shared, traced, key)[0])(jax.random.key(0))


def numpy_step(static, w, a, h, x, z):
    drive, bias = np.asarray(w.drive, float), np.asarray(w.bias, float)
    rate = float(w.rate)
    into = np.concatenate([h, x, z]) if static.feedback else np.concatenate([h, x])
    s = drive @ into + bias
    if static.dynamics == "discrete":
        h = (1 - rate) * h + rate * np.tanh(s)
        return h, h
    a = a + rate * (s - a)
    return a, np.tanh(a)


def see(static, h):
    return np.append(h, 1.0) if static.intercept else h


def whole(P):
    A, B, C = map(np.asarray, P)
    return np.block([[A, B.T], [B, C]])


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


# --- fixed points: starts of a search, outcomes, and a map of known modes -----------------------


FIXED, SLOW, LIMIT, DIVERGED = range(4)


def starts(n_candidates, n, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal((n_candidates, n))


def drawn(cell, seed, *sizes):
    """The weights of a network; by one program, not by one for each of their draws."""
    return jax.jit(lambda key: get_cell(cell).init(key, *sizes))(jax.random.key(seed))


def spiral(radius, angle):
    """A rotation by an angle, which shrinks by the radius."""
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def cube(weights, h, x):
    """h - 0.4 (h^3 - h) in each of three axes: points at -1, 0, 1; 0 is unstable, as in a 3-bit flip-flop."""
    del weights, x
    return h - 0.4 * (h**3 - h)
