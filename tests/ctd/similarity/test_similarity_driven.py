"""Dynamics of driven networks: against the true systems, and against numbers of the authors' code."""

import jax
import numpy as np
import pytest
from messages import refused
from networks import drawn
from scipy.optimize import linear_sum_assignment

from ctd.batch import precision
from ctd.data import write_hdf5
from ctd.kernel import inputs_of
from ctd.similarity import compare, features
from ctd.similarity.dynamics import eigenvalue_distance
from ctd.similarity.features import load
from ctd.similarity.identification import driven_dynamics
from ctd.similarity.params import Comparison
from ctd.weights import write_named

SMALL = {"n_delays": 6, "rank": 3}


def system(k, noise=0.01, steps=200):
    """Outputs and inputs of a stable system of three states, two outputs and two inputs."""
    rng = np.random.default_rng(k)
    a = np.diag([0.9, 0.6, -0.4]) + 0.2 * np.triu(rng.standard_normal((3, 3)), 1)
    b, c = rng.standard_normal((3, 2)), rng.standard_normal((2, 3))
    u, x, y = rng.standard_normal((steps, 2)), np.zeros(3), []
    for t in range(steps):
        y.append(c @ x + noise * rng.standard_normal(2))
        x = a @ x + b @ u[t]
    return np.array(y), u


def trials(x, ends=(90, 160, 200)):
    return np.split(x, ends[:-1])


def ragged(x):
    """Three trials of 90, 70 and 40 steps as one array, NaN after the end of each."""
    found = np.full((3, 90, x.shape[1]), np.nan)
    for into, trial in zip(found, trials(x), strict=True):
        into[: len(trial)] = trial
    return found


def test_undisturbed_system_is_found():
    y, u = system(0, noise=0)
    a, _ = driven_dynamics([y], [u], 6, 3)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(a).real), [-0.4, 0.6, 0.9], atol=1e-6)


# Executed once: SubspaceDMDc (n4sid), ControllabilitySimilarityTransformDist and SimilarityTransformDist of
# mitchellostrow/DSA at 8cbddcf on these three trials.
EIGENVALUES = [
    [-0.397968768699, 0.599429617062, 0.899902164896],
    [-0.38537046106, 0.592573679576, 0.900545184997],
]
SIZE_OF_B = [0.5610700546242735, 0.26111369982290594]
INPUT, SQUARED_W2 = 0.4039916429102049, 6.871157529531047e-05
JOINT = 0.7383189095452518
"""|C K_1 - K_2|, from their matrices and their C; they print |K_1 - C K_2| = .793, which is larger than the minimum."""


@pytest.mark.parametrize("k", [0, 1])
def test_fit_is_that_of_the_authors_code(k):
    """To 1e-6: their regression has a ridge of 1e-8."""
    y, u = system(k)
    a, b = driven_dynamics(trials(y), trials(u), 6, 3)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(a).real), EIGENVALUES[k], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(b), SIZE_OF_B[k], rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("dsa:input", INPUT), ("dsa:joint", JOINT), ("dsa:eigenvalues", SQUARED_W2**0.5)],
)
def test_distance_is_that_of_the_authors_code(method, expected):
    # Three networks, as in the test below: they share its programs.
    y, u = zip(*map(system, (0, 1, 0)), strict=True)
    found = compare(list(map(ragged, y)), method, inputs=list(map(ragged, u)), **SMALL)
    np.testing.assert_allclose(found.distances[0, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["dsa", "dsa:eigenvalues", "dsa:joint", "dsa:input"])
def test_turned_outputs_are_at_distance_zero(method):
    """An orthogonal change of the outputs changes neither A nor B but by a rotation; trials may differ in number."""
    y, u = system(2, noise=0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    found = compare([y, y @ turn, ragged(y)], method, inputs=[u, u, ragged(u)], **SMALL)
    # arccos takes rounding of 1e-12 to 1e-6; the third has other samples, and no noise.
    assert found.distances[0, 1] < 2e-6
    assert found.distances[0, 2] < 0.3


def test_inputs_are_taken_out_of_the_dynamics():
    """One system under white and under slow inputs: without them, slow inputs look like slow dynamics."""
    rng = np.random.default_rng(5)
    a, outputs, inputs = np.diag([0.9, 0.6]), [], []
    for memory in (0, 0.98):
        u, x, y = np.zeros((600, 1)), np.zeros(2), []
        for t in range(600):
            u[t] = memory * u[t - 1] + rng.standard_normal(1)
            y.append(x + 0.01 * rng.standard_normal(2))
            x = a @ x + u[t]
        outputs.append(np.array(y))
        inputs.append(u)
    settings = {"n_delays": 5, "rank": 2}
    alone = compare(outputs, "dsa:eigenvalues", **settings).distances[0, 1]
    driven = compare(outputs, "dsa:eigenvalues", inputs=inputs, **settings).distances[0, 1]
    assert driven < 0.02 < 0.05 < alone


def test_eigenvalues_are_matched_as_scipy_does():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 7, 2))
    cost = ((a[:, None] - b) ** 2).sum(-1)
    row, column = linear_sum_assignment(cost)
    np.testing.assert_allclose(
        jax.jit(eigenvalue_distance)(a, b), np.sqrt(cost[row, column].mean()), rtol=1e-6
    )


def test_files_have_their_inputs_beside_the_states(tmp_path):
    files = []
    for k in (0, 1):
        y, u = system(k)
        files.append(str(tmp_path / f"{k}.h5"))
        write_hdf5(files[-1], {"states": ragged(y), "inputs": ragged(u)})
    found = load(inputs_of(Comparison(method="dsa:input", states=tuple(files), **SMALL)))
    assert found.values.shape == (2, 3, 5)
    np.testing.assert_allclose(np.linalg.norm(found.values[0, :, 3:]), SIZE_OF_B[0], rtol=1e-6)


def test_methods_share_the_fit_of_a_network(monkeypatch):
    """The same trials are identified once, other delays anew."""
    fits = []
    monkeypatch.setattr(
        features, "driven_dynamics", lambda *of: fits.append(of) or driven_dynamics(*of)
    )
    rng = np.random.default_rng(5)
    states, inputs = rng.normal(size=(2, 1, 400, 2)), rng.normal(size=(2, 1, 400, 1))
    for n_delays, method in ((3, "dsa:input"), (3, "dsa:joint"), (4, "dsa:joint")):
        compare(states, method, inputs=inputs, n_delays=n_delays, rank=2)
    assert len(fits) == 4


def test_networks_are_driven_by_their_task(tmp_path):
    """tanh is linear at small inputs: the fit has the eigenvalues of the weights."""
    path = tmp_path / "a.h5"
    weights = dict(drawn("vanilla", 0, 2, 1, 1))
    weights |= {"wR": np.array([[0.8, 0.1], [0.0, 0.5]]), "wI": np.full((2, 1), 1e-3)}
    write_named(path, weights, {"cell": "vanilla"})
    job = Comparison(
        method="dsa:input", weights=(str(path), str(path)), n_trials=32, n_delays=3, rank=2
    )
    inputs = inputs_of(job)
    with precision(inputs):
        found = np.asarray(load(inputs).values)
    fitted = np.linalg.eigvals(found[0, :, :2])
    np.testing.assert_allclose(np.sort(fitted.real), [0.5, 0.8], atol=1e-4)


BAD = [
    ("dsa:input", {}),
    ("procrustes", {"inputs": [0, 0]}),
    ("dsa", {"inputs": [system(0)[1]]}),
    ("dsa", {"inputs": [system(0)[1][:9]] * 2}),
    ("dsa", {"inputs": [np.full((200, 2), np.nan)] * 2}),
    ("dsa", {"inputs": [system(0)[1]] * 2, "n_delays": 60}),
    ("dsa", {"inputs": [system(0)[1]] * 2, "delay_interval": 2}),
    ("dsa", {"inputs": [system(0)[1]] * 2, "n_delays": 2, "rank": 30}),
    ("dsa", {"inputs": [system(0)[1], system(0)[1][:, :1]], "n_delays": 6, "rank": 3, "method": "dsa:input"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "settings"), BAD)
def test_bad_inputs_are_refused(method, settings):
    method = settings.pop("method", method)
    with refused(ValueError):
        compare([system(0)[0]] * 2, method, **settings)


def test_gap_inside_a_trial_is_refused():
    y = system(0)[0]
    y[50] = np.nan
    with refused(ValueError):
        compare([y, y], "dsa")


def test_file_without_inputs_is_refused(tmp_path):
    write_hdf5(tmp_path / "a.h5", {"states": ragged(system(0)[0])})
    files = (str(tmp_path / "a.h5"),) * 2
    with refused(ValueError):
        load(inputs_of(Comparison(method="dsa:joint", states=files)))


def test_array_alone_has_no_inputs(tmp_path):
    """The one array of a .npy file is the states, and no inputs as well."""
    np.save(tmp_path / "a.npy", ragged(system(0)[0]))
    files = (str(tmp_path / "a.npy"),) * 2
    with refused(ValueError):
        load(inputs_of(Comparison(method="dsa:joint", states=files)))
