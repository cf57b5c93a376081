"""Networks of the tests, and those that files hold, run by ctd."""

from functools import partial

import jax
import numpy as np
import origin

from ctd.batch import precision
from ctd.cells import get_cell, run
from ctd.fixed_points.search.params import FixedPoint
from ctd.weights import read_weights

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
"""Of states in (-1, 1), or not far from it, after 50 steps of rounding in another order."""


@partial(jax.jit, static_argnums=0)
def _run(cell, params, inputs, h0):
    # Weights as arguments: networks of a cell and of equal sizes are one program.
    return run(get_cell(cell), params, inputs, h0)


def run_file(path, inputs, h0=None, cell=None):
    """(the network of a file, its states (time, state), its outputs) in the precision of `inputs`."""
    found = read_weights(path, cell)
    with precision(FixedPoint(dtype=str(inputs.dtype))):
        params = {name: np.asarray(value, inputs.dtype) for name, value in found.params.items()}
        states, outputs = _run(found.cell, params, inputs, h0)
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
