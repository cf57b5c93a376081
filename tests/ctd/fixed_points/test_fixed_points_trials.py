"""Networks linearised along trials: against linear systems and the derivative of tanh."""

import numpy as np
import pytest
from messages import refused
from networks import drawn

from ctd.batch import precision, run_items
from ctd.fixed_points import linearise
from ctd.fixed_points.trials import Trial, kernel
from ctd.kernel import inputs_of
from ctd.weights import write_weights


def test_modes_carry_what_the_system_does():
    """Of h' = A h + B x, z = C h: C A^s B = sum of lambda^s T over the modes, for s = 0 and 3."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape) for shape in ((6, 6), (6, 2), (3, 6)))
    states, inputs = rng.standard_normal((4, 6)), rng.standard_normal((4, 2))
    found = linearise(lambda h, x: a @ h + b @ x, states, inputs, readout=lambda h: c @ h)
    for s in (0, 3):
        total = (found["eigenvalue"][:, :, None, None] ** s * found["transfer"]).sum(axis=1)
        np.testing.assert_allclose(
            total, np.tile(c @ np.linalg.matrix_power(a, s) @ b, (4, 1, 1)), atol=1e-10
        )
    assert (np.diff(np.abs(found["eigenvalue"])) <= 1e-12).all()
    np.testing.assert_allclose(found["input_jacobian"], np.tile(b, (4, 1, 1)))


def test_modes_that_are_one_carry_nothing_that_is_known():
    """Of a chain of three units, whose Jacobian has a single eigenvector for them, beside a unit of its own."""
    chain = np.diag([0.5, 0.5, 0.5, 0.2]) + np.diag([0.3, 0.3, 0.0], 1)
    found = linearise(lambda h, x: chain @ h + x, np.zeros((1, 4)), np.zeros((1, 4)))
    transfer = found["transfer"][0]
    assert np.isnan(transfer[:3].real).all()
    np.testing.assert_allclose(transfer[3], np.diag([0, 0, 0, 1]), atol=1e-12)


@pytest.fixture
def network(tmp_path):
    weights = drawn("vanilla", 0, 5, 1, 2)
    write_weights(tmp_path / "net.h5", weights, "vanilla")
    return str(tmp_path / "net.h5"), {name: np.asarray(w, float) for name, w in weights.items()}


def test_trial_of_a_tanh_network(network):
    """dF/dh = diag(1 - h_t^2) W where h_t = tanh(W h_{t-1} + ...), at every third step of two trials."""
    path, w = network
    params = Trial(
        weights=path, task={"name": "decision", "n_steps": 8}, n_trials=2, every=3, n_modes=5
    )
    with precision(params):
        shared = kernel.load(inputs_of(params))
    found = run_items(kernel, params, {"trial": np.arange(3)}, shared=shared)
    np.testing.assert_array_equal(found["eigenvalue"][0], found["eigenvalue"][2])  # modulo 2
    assert found["step_number"][0].tolist() == [0, 3, 6]
    some = {name: value[1:] for name, value in found.items()}
    plots = kernel.display.plots(inputs_of(params), shared, {"trial": np.arange(1, 3)}, some, {})
    assert [plot.title for plot in plots] == ["Modes along trial 1", "Modes along trial 0"]
    for trial in range(2):
        h = w["h0"]
        for t, x in enumerate(shared.inputs[trial]):
            new = np.tanh(w["wR"] @ h + w["wI"] @ x + w["bR"])
            if t % 3 == 0:
                parts = found["eigenvalue"][trial, t // 3]
                slope = (1 - new**2)[:, None]
                expected = np.linalg.eigvals(slope * w["wR"])
                got = parts[:, 0] + 1j * parts[:, 1]
                assert np.abs(got[:, None] - expected).min(axis=0).max() < 1e-10
                total = found["transfer"][trial, t // 3, ..., 0].sum(axis=0)
                np.testing.assert_allclose(total, w["wO"] @ (slope * w["wI"]), atol=1e-10)
            h = new


@pytest.mark.parametrize(
    "call",
    [
        lambda path: kernel.load(inputs_of(Trial(weights=path, task="flipflop"))),
        lambda path: kernel.load(inputs_of(Trial(cell="numpy.tanh"))),
        lambda path: linearise(np.tanh, np.zeros(3)),
        lambda path: linearise(np.tanh, np.zeros((2, 3)), np.zeros((3, 1))),
    ],
)  # fmt: skip
def test_refuses(network, call):
    with refused(ValueError):
        call(network[0])
