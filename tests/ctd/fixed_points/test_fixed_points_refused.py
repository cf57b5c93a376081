"""What jobs of fixed points, and `find`, refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from searches import starts

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
    with pytest.raises(
        ValueError,
        match="time: continuous, but cell gru is a map; write time: steps, or cell: node",
    ):
        kernel.load(inputs_of(FixedPoint(weights=network, time="continuous")))


BAD = [
    ({"weights": None}, "weights: a network needs a file"),
    ({"task": "flipflop"}, "task: flipflop has 3 inputs, but the network in .* takes 1"),
    (
        {"candidates": "STATES", "dataset": "nope"},
        "has no dataset nope; it has nan, small, states; give one as dataset",
    ),
    ({"candidates": "STATES", "dataset": "nan"}, "nan has 1 NaN"),
    ({"candidates": "STATES", "dataset": "small"}, r"\(2, 3\), but the state .* 12 entries"),
    ({"cell": "lstm"}, "lacks .*weight_hh"),
    ({"x": (1.0, 2.0)}, "x: 2 numbers given, but the network has 1 input"),
    (
        {"cell": f"{__name__}.driven", "candidates": "ONE"},
        "has no dataset hiddens; it has zero; give dataset: zero",
    ),
    ({"cell": f"{__name__}.doubling"}, "give a cell, or candidates: a file of states"),
    (
        {"cell": f"{__name__}.driven", "candidates": "STATES", "dataset": "states"},
        r"x: the map fails without an input \(.*\(2,\) .*\), but not with 2 numbers; give `x`",
    ),
    (
        {"cell": f"{__name__}.faulty", "candidates": "STATES", "dataset": "states"},
        r"AttributeError: .*no_such_attribute.*(\n.*)+in faulty: return h\.no",
    ),
]


@pytest.mark.parametrize(("fields", "said"), BAD)
def test_bad_input_is_refused(network, tmp_path, fields, said):
    states = {"states": starts(2, 12), "small": starts(2, 3), "nan": starts(2, 12)}
    states["nan"][1, 2] = np.nan
    write_hdf5(tmp_path / "STATES.h5", states)
    write_hdf5(tmp_path / "ONE.h5", {"zero": np.zeros((1, 12))})
    if fields.get("candidates"):
        fields = {**fields, "candidates": str(tmp_path / f"{fields['candidates']}.h5")}
    with pytest.raises(ValueError, match=said):
        run_items(kernel, FixedPoint(**{"weights": network, "n_trials": 8, **fields}))


BAD_FIELDS = [
    ({"q_tol": 0}, "q_tol"),
    ({"q_tol": -1e-3}, "q_tol"),
    ({"cell": "gruu"}, "did you mean 'gru'"),
    ({"cell": "no_such_module.f"}, "no module no_such_module"),
    ({"cell": "numpy.no_such_function"}, "has no no_such_function"),
    ({"method": "newton"}, "'lm', 'adam' or 'exact'"),
    ({"mix": 1.5}, "mix"),
    ({"tolerance": 1}, "tolerance"),
    ({"anywhere": 0.5}, "anywhere: there is no region to start in; give region: box or sphere"),
    ({"region": "box"}, "region: no search starts in the box; give anywhere: 0.2"),
]


@pytest.mark.parametrize(("fields", "said"), BAD_FIELDS)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        FixedPoint(**fields)


BAD_FIND = [
    (np.zeros((3, 2)), {"region": "linear", "anywhere": 1}, "linear by pieces"),
    (np.zeros(3), {}, r"candidates: shape \(3,\)"),
    (np.zeros((0, 3)), {}, "at least one state"),
    (np.full((2, 3), np.nan), {}, "candidates has 6 NaN"),
    (np.zeros((2, 3)), {"x": np.zeros((3, 1))}, r"x: shape \(3, 1\)"),
]


@pytest.mark.parametrize(("candidates", "more", "said"), BAD_FIND)
def test_find_refuses(candidates, more, said):
    with pytest.raises(ValueError, match=said):
        find(lambda h, x=None: h, candidates, **more)


BAD_STEPS = {
    "an input": (lambda h, x: h + x, "^step takes an input .* give `x`"),
    "two inputs": (lambda h, x, y: h, "^step, at a state .* missing 2 required"),
    "NumPy": (lambda h: np.tanh(np.asarray(h)), r"shape \(2,\): .* write it with jax.numpy$"),
    "a list": (lambda h: [h[0], h[1]], r"returns a list; an array of shape \(2,\) expected$"),
    "a part": (lambda h: h[:1], r"returns an array of shape \(1,\); an array of shape \(2,\)"),
    "a branch": (lambda h: h if h[0] > 0 else -h, "jnp.where or lax.cond decide by it"),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_bad_steps(name):
    """In one line, which blames no input that a function does not take."""
    step, expected = BAD_STEPS[name]
    with pytest.raises(ValueError, match=expected) as raised:
        find(step, np.zeros((2, 2)))
    assert "\n" not in str(raised.value)


BAD_CALLS = {
    "cycles: p": (lambda: cycles(lambda h, p: p * h, [0.3]), "^step, .* missing 1 required"),
    "cycles": (lambda: cycles(jnp.tanh, [0.3], period=3), "^unknown parameter period; did you"),
    "follow": (lambda: follow(lambda h, p: h, [0.3], low=1, high=-1), "^low: 1.0 is not below"),
    "lyapunov": (lambda: lyapunov(jnp.tanh, [0.3], dt=-1), r"^dt: must be .* \(given: -1\)$"),
    "find": (lambda: find(jnp.tanh, [[0.3]], unique_toll=1), "did you mean 'unique_tol'"),
    "compare": (lambda: compare([[0.3], [0.2]], starst=1), "^unknown parameter starst; did you"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name):
    call, expected = BAD_CALLS[name]
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)
