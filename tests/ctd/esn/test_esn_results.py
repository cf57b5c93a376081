"""Networks that record all that there is: how results are described, memory and Lyapunov exponents by closed forms."""

import jax
import numpy as np
import pytest
from networks import RESERVOIR, run_reservoir

from ctd import esn
from ctd.batch import evaluated, precision
from ctd.esn import EchoState, kernel
from ctd.esn.replay import largest_exponent
from ctd.esn.reservoir import Now, Weights
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.tangent import mean_growth

ALL = RESERVOIR | {"dynamics": "discrete", "topology": "orthogonal", "feedback": False, "n": 20}
ALL |= {"validation": 30, "test": 40, "dt": 0.5, "dtype": "float64", "memory_delays": 40}
ALL |= {"record": ("readout", "weights", "traces", "lyapunov")}


@pytest.fixture(scope="module")
def rotations():
    """Results of three nearly linear orthogonal networks, of gains .95, .8 and .9, the last one leaky."""
    columns = {"g": [0.95, 0.8, 0.9], "leak": [1, 1, 0.5]}
    return run_reservoir(columns, **ALL, input_scale=1e-3, ridge=1e-12)


def test_results_described_and_shaped(rotations):
    assert (rotations["outcome"] == esn.DONE).all()
    assert rotations.keys() == kernel.dims.keys()
    axes = {"pass": 3, "output": 2, "feature": 20, "time": 40, "delay": 40}
    axes |= {"unit": 20, "unit_from": 20, "state": 20, "input": 0}
    for name, values in rotations.items():
        assert values.shape == (3, *(axes[axis] for axis in kernel.dims[name].axes)), name
    coords = kernel.coordinates(inputs_of(EchoState(**ALL)), None)
    assert {axis: len(one.values) for axis, one in coords.items()}.items() <= axes.items()
    least = EchoState(**RESERVOIR | {"record": ()})
    shared = kernel.load(inputs_of(least))
    shapes = evaluated(kernel, static_of(least), shared, traced_of(least)).results
    assert shapes.keys() < rotations.keys()


def test_memory_capacity_and_exponent_of_rotation(rotations):
    # A nearly linear orthogonal network of n units remembers close to n inputs, never more (Jaeger 2002).
    found = rotations
    # Chance correlations over 1,200 samples add 0.02.
    assert 18 < found["memory_capacity"][0] < 20.2
    assert found["memory"][0, 0] > 10 * found["memory"][0, -1]
    assert found["memory_capacity"][0] == pytest.approx(found["memory"][0].sum())
    # It decays to rest, where a step multiplies all distances by g: its exponent is ln g a step.
    assert found["lyapunov"][1] == pytest.approx(np.log(0.8) / 0.5, rel=1e-3)
    assert found["lyapunov_error"][1] < 1e-3


def test_exponent_of_a_closed_network_needs_no_long_test(rotations):
    # At rest, a step multiplies by (1 - leak) I + leak wR. A pair of eigenvalues leads the others by little: within the 40
    # samples of test, no direction wins. The vector turns, which moves the mean over 20,000 steps by less than 1e-3.
    step = 0.5 * np.eye(20) + 0.5 * rotations["weights.wR"][2].astype(float)
    slowest = np.abs(np.linalg.eigvals(step)).max()
    assert rotations["lyapunov"][2] * 0.5 == pytest.approx(np.log(slowest), abs=1e-3)


def test_exponent_of_a_driven_network_is_that_of_its_inputs():
    """Of one unit h' = tanh(w h + x) it is the mean of log |w (1 - h'^2)| along the inputs, without the first tenth."""
    given = RESERVOIR | {"dynamics": "discrete", "feedback": False, "n": 1, "dtype": "float64"}
    static = static_of(EchoState(**given, state_dtype="float64"))
    x = np.random.default_rng(0).normal(size=2500)
    with precision(static):
        w = Weights(np.array([[0.9, 1.0]]), np.zeros(1), np.zeros(1), np.ones(()))
        now = Now(np.zeros(1), np.zeros(1), np.zeros(2))
        exponent, error = jax.jit(largest_exponent, static_argnums=0)(static, w, np.zeros((2, 1)), now, x[:, None])  # fmt: skip
    h, growth = 0.0, []
    for value in x:
        h = np.tanh(0.9 * h + value)
        growth.append(np.log(0.9 * (1 - h**2)))
    # 250 samples do not count.
    assert exponent == pytest.approx(np.mean(growth[250:]), rel=1e-9)
    with precision(static):
        assert error == pytest.approx(float(mean_growth(np.array(growth[250:]))[1]), rel=1e-9)
