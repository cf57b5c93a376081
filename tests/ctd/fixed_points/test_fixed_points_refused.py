"""What jobs of fixed points, and `find`, refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from networks import starts

from ctd.batch import run_items
from ctd.data import write_hdf5
from ctd.fixed_points import cycles, find, follow, kernel, lyapunov
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of
from ctd.similarity import compare


def doubling(weights, h, x):
    """A user's map, which does without an input."""
    return 2 * h


def driven(weights, h, x):
    """A user's map that cannot do without its two inputs."""
    return jnp.tanh(h + jnp.ones((len(h), 2)) @ x)


def faulty(weights, h, x):
    """A user's map that fails at any input."""
    return h.no_such_attribute


def test_map_is_no_flow(network):
    with refused(ValueError):
        kernel.load(inputs_of(FixedPoint(weights=network, time="continuous")))


BAD = [
    {"weights": None},
    {"task": "flipflop"},
    {"candidates": "STATES", "dataset": "nope"},
    {"candidates": "STATES", "dataset": "nan"},
    {"candidates": "STATES", "dataset": "small"},
    {"cell": "lstm"},
    {"x": (1.0, 2.0)},
    {"cell": f"{__name__}.driven", "candidates": "ONE"},
    {"cell": f"{__name__}.doubling"},
    {"cell": f"{__name__}.driven", "candidates": "STATES", "dataset": "states"},
    {"cell": f"{__name__}.faulty", "candidates": "STATES", "dataset": "states"},
]


@pytest.mark.parametrize("fields", BAD)
def test_bad_input_is_refused(network, tmp_path, fields):
    states = {"states": starts(2, 12), "small": starts(2, 3), "nan": starts(2, 12)}
    states["nan"][1, 2] = np.nan
    write_hdf5(tmp_path / "STATES.h5", states)
    write_hdf5(tmp_path / "ONE.h5", {"zero": np.zeros((1, 12))})
    if fields.get("candidates"):
        fields = {**fields, "candidates": str(tmp_path / f"{fields['candidates']}.h5")}
    with refused(ValueError):
        run_items(kernel, FixedPoint(**{"weights": network, "n_trials": 8, **fields}))


BAD_FIELDS = [
    {"q_tol": 0},
    {"q_tol": -1e-3},
    {"cell": "gruu"},
    {"cell": "no_such_module.f"},
    {"cell": "numpy.no_such_function"},
    {"method": "newton"},
    {"mix": 1.5},
    {"tolerance": 1},
    {"anywhere": 0.5},
    {"region": "box"},
]


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_bad_fields_are_refused(fields):
    with refused(ValueError):
        FixedPoint(**fields)


BAD_FIND = [
    (np.zeros((3, 2)), {"region": "linear", "anywhere": 1}),
    (np.zeros(3), {}),
    (np.zeros((0, 3)), {}),
    (np.full((2, 3), np.nan), {}),
    (np.zeros((2, 3)), {"x": np.zeros((3, 1))}),
]


@pytest.mark.parametrize(("candidates", "more"), BAD_FIND)
def test_find_refuses(candidates, more):
    with refused(ValueError):
        find(lambda h, x=None: h, candidates, **more)


BAD_STEPS = {
    "an input": lambda h, x: h + x,
    "two inputs": lambda h, x, y: h,
    "NumPy": lambda h: np.tanh(np.asarray(h)),
    "a list": lambda h: [h[0], h[1]],
    "a part": lambda h: h[:1],
    "a branch": lambda h: h if h[0] > 0 else -h,
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_bad_steps(name):
    """In one line, which blames no input that a function does not take."""
    with refused(ValueError) as raised:
        find(BAD_STEPS[name], np.zeros((2, 2)))
    assert "\n" not in str(raised.value)


BAD_CALLS = {
    "cycles: p": lambda: cycles(lambda h, p: p * h, [0.3]),
    "cycles": lambda: cycles(jnp.tanh, [0.3], period=3),
    "follow": lambda: follow(lambda h, p: h, [0.3], low=1, high=-1),
    "lyapunov": lambda: lyapunov(jnp.tanh, [0.3], dt=-1),
    "find": lambda: find(jnp.tanh, [[0.3]], unique_toll=1),
    "compare": lambda: compare([[0.3], [0.2]], starst=1),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name):
    with refused(ValueError) as raised:
        BAD_CALLS[name]()
    assert "\n" not in str(raised.value)
