"""Networks that record all that there is: how results are described, memory and Lyapunov exponents by closed forms."""

import numpy as np
import pytest
from echo_states import ALONE, SMALL, run

from ctd import esn
from ctd.batch import program
from ctd.esn import EchoState, kernel
from ctd.kernel import inputs_of, static_of, traced_of

ALL = SMALL | {"dynamics": "discrete", "topology": "orthogonal", "feedback": False, "n": 20}
ALL |= {"validation": 30, "test": 400, "dt": 0.5, "dtype": "float64", "memory_delays": 40}
ALL |= {"record": ("readout", "weights", "traces", "lyapunov")}


@pytest.fixture(scope="module")
def rotations():
    """Results of two nearly linear orthogonal networks, of gains .95 and .8."""
    return run({"g": [0.95, 0.8]}, **ALL, input_scale=1e-3, ridge=1e-12)


def test_results_described_and_shaped(rotations):
    assert (rotations["outcome"] == esn.DONE).all()
    assert rotations.keys() == kernel.dims.keys()
    axes = {"pass": 3, "output": 2, "feature": 20, "time": 400, "delay": 40}
    axes |= {"unit": 20, "unit_from": 20, "state": 20, "input": 0}
    for name, values in rotations.items():
        assert values.shape == (2, *(axes[axis] for axis in kernel.dims[name].axes)), name
    coords = kernel.coordinates(inputs_of(EchoState(**ALL)), None)
    assert {axis: len(one.values) for axis, one in coords.items()}.items() <= axes.items()
    least = EchoState(**SMALL | {"record": ()})
    made = program(kernel, static_of(least), ALONE)
    _, shapes = made.abstract(kernel.load(inputs_of(least)), traced_of(least))
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
