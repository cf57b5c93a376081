"""Networks without a unit or a mode, against NumPy."""

import jax
import numpy as np
import pytest
from messages import refused
from networks import drawn

from ctd.batch import precision, run_items
from ctd.data import write_hdf5
from ctd.fixed_points.ablation import Ablation, kernel
from ctd.kernel import inputs_of
from ctd.plots import is_whole
from ctd.weights import write_weights

N = 6


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """(fields of a job, the weights, the modes at a random state)"""
    folder = tmp_path_factory.mktemp("net")
    weights = drawn("vanilla", 1, N, 1, 1)
    w = {name: np.asarray(value, float) for name, value in weights.items()}
    write_weights(folder / "net.h5", weights, "vanilla")
    values, right = np.linalg.eig(w["wR"])
    order = np.argsort(-np.abs(values), kind="stable")
    values, right = values[order], right[:, order]
    table = {"point": np.full((1, N), 0.1), "eigenvalue": values[None], "right": right[None]}
    table["left"] = np.linalg.inv(right).conj().T[None]
    write_hdf5(folder / "points.h5", table)
    given = {"weights": str(folder / "net.h5"), "task": "decision", "n_trials": 8}
    return given | {"dtype": "float64"}, w, table, str(folder / "points.h5")


def tried(w, trials, hold):
    """(loss, accuracy, mean state) of h = hold(tanh(...)), step by step."""
    errors, right, states = [], [], []
    for x, y, mask in zip(trials.inputs, trials.targets, np.asarray(trials.mask), strict=True):
        h, z = hold(w["h0"]), []
        for now in x:
            h = hold(np.tanh(w["wR"] @ h + w["wI"] @ now + w["bR"]))
            states.append(h)
            z.append(w["wO"] @ h + w["bO"])
        z, y, mask = np.array(z)[:, 0], np.asarray(y)[:, 0], mask.reshape(len(z))
        errors.append([np.sum(mask * (z - y) ** 2), mask.sum()])
        right.append(np.sign(z[mask > 0].sum()) == np.sign(y[mask > 0].sum()))
    total, weight = np.sum(errors, axis=0)
    return total / weight, np.mean(right), np.mean(states, axis=0)


def found_by(params, columns):
    with precision(params):
        shared = kernel.load(inputs_of(params))
    return shared.trials, run_items(kernel, params, columns, shared=shared)


def test_without_each_unit(network):
    given, w, _, _ = network
    trials, found = found_by(Ablation(**given, hold="mean"), {"unit": np.arange(N + 1)})
    intact = tried(w, trials, lambda h: h)
    for unit in range(N):
        hold = lambda h, unit=unit: np.where(np.arange(N) == unit, intact[2], h)
        loss, accuracy, _ = tried(w, trials, hold)
        assert found["ablated_loss"][unit] == pytest.approx(loss, rel=1e-9)
        assert found["ablated_accuracy"][unit] == pytest.approx(accuracy)
    assert found["ablated_loss"][N] == found["ablated_loss"][0]  # modulo the number of units
    np.testing.assert_allclose(found["intact_loss"], intact[0], rtol=1e-9)
    np.testing.assert_allclose(found["intact_accuracy"], intact[1])


def test_without_each_mode(network):
    """h - h* in the basis of the modes, without one of them or a pair."""
    given, w, table, path = network
    params = Ablation(**given, remove="mode", points=path)
    trials, found = found_by(params, {"mode": np.arange(N)})
    values, right, point = table["eigenvalue"][0], table["right"][0], table["point"][0]
    assert (values.imag != 0).any()
    assert (values.imag == 0).any()
    for mode, value in enumerate(values):
        kept = np.minimum(abs(values - value), abs(values - value.conj())) > 1e-12
        project = (right @ np.diag(kept) @ np.linalg.inv(right)).real
        loss, accuracy, _ = tried(w, trials, lambda h, p=project: point + p @ (h - point))
        assert found["ablated_loss"][mode] == pytest.approx(loss, rel=1e-9)
        assert found["ablated_accuracy"][mode] == pytest.approx(accuracy)
        np.testing.assert_allclose(found["removed_eigenvalue"][mode], [value.real, value.imag])
    columns = {"item": np.arange(N), "mode": np.arange(N) % 3, "point": np.arange(N) // 3}
    plot, _ = kernel.display.plots(inputs_of(params), None, columns, found, {})
    assert (plot.scale.label, is_whole(plot, "x")) == ("point", True)
    assert plot.layers[1].colour.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "more",
    [
        {"remove": "mode"},
        {"points": "x.h5"},
        {"task": "flipflop"},
        {"cell": "numpy.tanh"},
        {"remove": "mode", "points": "NET"},
    ],
)
def test_refuses(network, more):
    given = network[0] | more
    if more.get("points") == "NET":
        given["points"] = given["weights"]
    with refused(ValueError), jax.enable_x64(True):
        kernel.load(inputs_of(Ablation(**given)))
