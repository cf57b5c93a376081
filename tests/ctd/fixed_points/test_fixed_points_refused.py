"""What jobs of fixed points, and `find`, refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from searches import starts

from ctd.batch import run_items
from ctd.data import write_hdf5
from ctd.fixed_points import find, kernel
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import inputs_of


def doubling(weights, h, x):
    """A user's map, which does without an input."""
    return 2 * h


def driven(weights, h, x):
    """A user's map that cannot do without its two inputs."""
    return jnp.tanh(h + jnp.ones((len(h), 2)) @ x)


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
        r"x: the map fails without an input \(.*\(2,\) .*\); give `x`",
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


def test_find_says_what_its_function_lacks():
    with pytest.raises(ValueError, match=r"x: the map fails .* missing 1 required .*; give `x`"):
        find(lambda h, x: h + x, np.zeros((2, 2)))
