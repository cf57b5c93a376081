"""Kernel full_force: numbers of the authors' code, a NumPy loop from the paper's equations, a task that is learnt, refusals."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from messages import refused
from places import EXAMPLES

from ctd.batch import evaluated, run_items
from ctd.cells import check_params, get_cell, run
from ctd.data import write_hdf5
from ctd.full_force import FullForce, kernel
from ctd.full_force.model import (
    Fixed,
    Trained,
    begin,
    driven,
    free_trial,
    settle,
    training_trial,
)
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.plots.png import draw
from ctd.rls import scaled_identity

N, T = 6, 40
ALPHA, RATE = 2.0, 0.2

# What FF_Demo.py of briandepasquale/full-FORCE-demos returned when it was executed once in NumPy, with npr and scipy.sparse
# returning the arrays below: dt 2 ms, tau 10 ms, ff_alpha .5, one trial to settle, three training trials, then its test with one
# trial to settle and two that count. Nothing of its text is here.
THEIR_J = [
    [0.32951167604962617, 1.2214544718127958, -0.8498425221316255, -0.0416071567026899, -0.5653349055479466, 0.8753234067581354],
    [0.20892408264695497, -0.06274253876021334, 0.09736039527601623, -0.02245036214044947, -0.48240113273429097, 0.8832272496642987],
    [-0.5362592243706247, -1.3520324928517, 0.9202958894765059, 0.06503829090750116, 0.86242450112356, -1.5564614850605007],
    [0.20467587523317904, 1.0880383220359788, -0.8238831487833935, -0.01365252650277095, -0.1042647050621993, 0.2069896837645997],
    [0.3621636701942937, 0.5633801891565693, -0.29798073601918057, -0.07521761523210783, -0.7309303016177439, 1.3904762299742577],
    [-0.4348820652709953, -1.4589775168515464, 0.9960342684812197, 0.08857642659814824, 0.49721864408383676, -1.1353511069447277],
]  # fmt: skip
THEIR_W = [
    0.49146104538365065,
    1.471687333681776,
    -0.9964141419014544,
    -0.07614230931512256,
    -0.7769258978364559,
    1.4110329951036498,
]
THEIR_ERROR = 0.7208764284253916


def trial(k):
    """(inputs, targets, hints), (time, 1) each"""
    t = np.arange(T)[:, None]
    u = (np.cos(0.3 * t + k) > 0.8) * 1.0
    return u, np.sin(0.35 * t + k), np.sin(0.1 * t * (k + 1))


def drawn():
    """(Fixed, x, x_D): input weights of the two networks differ, as in the authors' code."""
    task = np.sin(1 + 2.3 * np.arange(N))[:, None]
    other = np.sin(2 + 1.9 * np.arange(3 * N)).reshape(3, N)
    J = 1.2 / np.sqrt(N) * 0.6 * np.sin(3 + 3.7 * np.arange(N * N)).reshape(N, N).T
    u, f, h = (row[:, None] for row in other)
    return Fixed(np.asarray(RATE), J, task, u, f, h), np.sin(4 + np.arange(N)), np.zeros(N)


UPDATES = np.sin(5 + 2.7 * np.arange(3 * T)).reshape(3, T) > 0


@cache
def ours():
    """([J; W] after three trials, normalised test error)"""
    w, first, x_d = drawn()

    @jax.jit
    def begun(x, x_d, rows):
        JW, P = jnp.zeros((N + 1, N)), scaled_identity(jnp.asarray(ALPHA), N, "float64")
        now = settle(w, JW, begin(w, JW, x, x_d), rows)
        return Trained(now, JW, jnp.zeros(()), jnp.asarray(True)), P

    train = jax.jit(lambda net, P, rows, updates: training_trial(w, net, P, rows, updates))
    alone = jax.jit(lambda JW, x, u: free_trial(w, JW, x, u))
    net, P = begun(first, x_d, trial(0))
    for k in (1, 2, 3):
        net, P = train(net, P, trial(k), UPDATES[k - 1])
    x, off, size = first, 0.0, 0.0
    for k in (4, 5, 6):
        x, z = alone(net.JW, x, trial(k)[0])
        if k > 4:
            off, size = off + ((z - trial(k)[1]) ** 2).sum(), size + (trial(k)[1] ** 2).sum()
    return np.asarray(net.JW), off / size


@pytest.mark.usefixtures("float64")
def test_the_authors_numbers():
    JW, error = ours()
    np.testing.assert_allclose(JW, [*THEIR_J, THEIR_W], rtol=0, atol=1e-11)
    np.testing.assert_allclose(error, THEIR_ERROR, rtol=0, atol=1e-11)


def numpy_full_force():
    """DePasquale et al. 2018, eqs. 3-9: both networks by Euler's method, and RLS with one P for all rows."""
    w, x, x_d = drawn()
    J, W, P = np.zeros((N, N)), np.zeros((1, N)), ALPHA * np.eye(N)
    for k in range(4):
        for t, (u, f, h) in enumerate(zip(*trial(k), strict=True)):
            x = x + RATE * (-x + J @ np.tanh(x) + w.w @ u)
            driven = w.w_f @ f + w.w_h @ h
            x_d = x_d + RATE * (-x_d + w.J @ np.tanh(x_d) + driven + w.w_d @ u)
            if k > 0 and UPDATES[k - 1, t]:
                r = np.tanh(x)
                gain = P @ r / (1 + r @ P @ r)
                P = P - np.outer(gain, P @ r)
                J = J - np.outer(J @ r - w.J @ np.tanh(x_d) - driven, gain)
                W = W - np.outer(W @ r - f, gain)
    return np.concatenate([J, W])


@pytest.mark.usefixtures("float64")
def test_trials_numpy():
    np.testing.assert_allclose(ours()[0], numpy_full_force(), rtol=0, atol=1e-11)


@pytest.mark.usefixtures("float64")
def test_driven_trial_numpy():
    """The network has the currents of the target-generating one in place of its own, a step later, as its own would come."""
    (w, x, x_d), JW = drawn(), np.sin(6 + np.arange((N + 1) * N)).reshape(N + 1, N)
    end = jax.jit(lambda x, x_d: driven(w, JW, begin(w, JW, x, x_d), trial(1)))(x, x_d)
    current = JW[:N] @ np.tanh(x)
    for u, f, h in zip(*trial(1), strict=True):
        x = x + RATE * (-x + current + w.w @ u)
        x_d = x_d + RATE * (-x_d + w.J @ np.tanh(x_d) + w.w_f @ f + w.w_h @ h + w.w_d @ u)
        current = w.J @ np.tanh(x_d) + w.w_f @ f + w.w_h @ h
    np.testing.assert_allclose(end.x, x, rtol=0, atol=1e-12)
    # Let go, it goes on by its own currents.
    np.testing.assert_allclose(end.v, JW @ np.tanh(x), rtol=0, atol=1e-12)


def sine(tmp_path, **more):
    """A file of one trial: a pulse, then a sine of three periods."""
    t = np.arange(300)
    arrays = {"targets": np.sin(t * 2 * np.pi / 100)[None, :, None]}
    arrays |= {"inputs": (t < 10)[None, :, None] * 1.0} | more
    write_hdf5(tmp_path / "t.h5", {k: v for k, v in arrays.items() if v is not None})
    return str(tmp_path / "t.h5")


# Two trials in each file, with a hint, and two items in each run: one program. Files without hints: the kernel's contract.
SMALL = {"n": 60, "n_train": 25, "n_test": 3, "dt": 0.002}


def twice(tmp_path, **more):
    """The same trial two times."""
    t = np.arange(300)[:, None]
    both = {"targets": np.sin(t * 2 * np.pi / 100), "inputs": (t < 10) * 1.0, "hints": 0.0 * t}
    both |= more
    return sine(tmp_path, **{k: None if v is None else np.stack([v, v]) for k, v in both.items()})


def test_networks_learn_a_sine(tmp_path):
    """Several g and seeds; the stored weights, run as a leaky network from h0, give the stored output."""
    params = FullForce(trials=twice(tmp_path), **SMALL)
    found = run_items(kernel, params, {"g": [1.0, 1.5] * 4, "seed": [*range(8)]})
    assert (found["outcome"] == 0).all()
    assert (found["curve"][:, -1] < 0.05).all()
    # A network may leave its cycle after it was driven there; from a random state it may not find it, with an error of 1 or so.
    assert (found["test_error"] < 0.01).sum() >= 6
    assert np.median(found["random_start_error"]) < 1
    assert np.abs(found["weights.wI"][0] - found["weights.wI"][1]).max() > 0.1
    weights = {k.removeprefix("weights."): v[0] for k, v in found.items() if k[:8] == "weights."}
    check_params("leaky", weights, "here")
    pulse = (np.arange(300) < 10)[:, None] * np.float32(1)
    _, outputs = jax.jit(lambda w: run(get_cell("leaky"), w, pulse))(weights)
    np.testing.assert_allclose(outputs, found["output"][0], atol=1e-2)
    np.testing.assert_allclose(
        found["target"][0, :, 0], np.sin(np.arange(300) * 2 * np.pi / 100), atol=1e-5
    )
    inputs, columns = inputs_of(params), {"item": np.arange(8)}
    plots = kernel.display.plots(inputs, None, columns, found, {})
    assert plots[0].title == "A test trial"
    assert draw(plots).axes


LATE = (np.arange(300) // 10 == 20)[:, None] * 1.0
SILENT = {
    "no inputs": {"inputs": None},
    "inputs of 0": {"inputs": 0 * LATE},
    "a late pulse": {"inputs": LATE, "targets": np.sin(np.arange(300) / 15)[:, None] * (np.cumsum(LATE, 0) > 0)},
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    # A network of no inputs is another program, whose shapes are in the next test.
    [pytest.param("no inputs", marks=pytest.mark.endurance), "inputs of 0", "a late pulse"],
)
def test_a_task_that_is_silent_for_long_is_learnt(tmp_path, name):
    """A network that has learnt nothing is at 0 by then, where no step of RLS teaches it."""
    params = FullForce(trials=twice(tmp_path, **SILENT[name]), **SMALL)
    found = run_items(kernel, params, {"seed": [0, 1]})
    assert found["outcome"].tolist() == [0, 0]
    assert (found["curve"][:, -1] < 0.5).all()


def test_a_task_without_inputs_has_no_input_weights(tmp_path):
    """Shapes alone: nothing is compiled."""
    params = FullForce(trials=twice(tmp_path, inputs=None), **SMALL)
    traced = jax.tree.map(np.asarray, traced_of(params))
    shared = kernel.load(inputs_of(params))
    found = evaluated(kernel, static_of(params), shared, traced).results
    assert found["weights.wI"].shape == (60, 0)


def test_errors_of_a_trial_whose_target_is_0_throughout(tmp_path):
    """They are relative to the trials of the file."""
    t = np.arange(300)
    two = np.stack([np.sin(t / 5), 0 * t])[:, :, None]
    path = sine(tmp_path, inputs=1 + two, targets=two, hints=0 * two)
    found = run_items(kernel, FullForce(trials=path, **SMALL), {"seed": [0, 1]})
    assert found["outcome"].tolist() == [0] * 2
    assert np.isfinite(found["curve"]).all()
    assert np.isfinite(found["test_error"]).all()
    # One of the two was tested on that trial.
    assert not found["target"].any((1, 2)).all()


def test_a_network_is_tested_on_the_trials_of_a_file(tmp_path):
    """With the sign of the targets turned, what the network has learnt is wrong by twice its size."""
    other = tmp_path / "other"
    other.mkdir()
    turned = twice(other, targets=-np.sin(np.arange(300) * 2 * np.pi / 100)[:, None])
    params = FullForce(trials=twice(tmp_path), test=turned, **SMALL)
    found = run_items(kernel, params, {"seed": [0, 1]})
    assert found["curve"][0, -1] < 0.05
    assert found["test_error"][0] == pytest.approx(4, abs=1.2)
    np.testing.assert_allclose(found["target"][0, 25, 0], -1)


def test_a_test_file_that_does_not_fit_is_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    params = FullForce(trials=sine(tmp_path), test=sine(other, inputs=np.ones((1, 300, 2))))
    with refused(ValueError):
        kernel.load(inputs_of(params))


def test_hints_drive_the_target_generating_network_alone(tmp_path):
    """They change what is learnt, and the test needs none."""
    hint = np.linspace(-1, 1, 300)[:, None]
    columns, runs = {"hint_scale": [0.0, 1.0]}, []
    for hints in (0 * hint, hint):
        params = FullForce(trials=twice(tmp_path, hints=hints), **SMALL)
        runs.append(run_items(kernel, params, columns))
    without, found = runs
    np.testing.assert_allclose(found["weights.wR"][0], without["weights.wR"][0], atol=1e-4)
    assert np.abs(found["weights.wR"][1] - without["weights.wR"][1]).max() > 1e-3
    assert found["weights.wI"].shape == (2, 60, 1)


def test_a_network_that_diverges_is_an_outcome(tmp_path):
    """A step 100 times the time constant, beside a network that learns."""
    params = FullForce(trials=twice(tmp_path), **SMALL)
    found = run_items(kernel, params, {"tau": [1e-40, 0.01]})
    assert found["outcome"].tolist() == [1, 0]
    assert found["curve"][1, -1] < 0.05
    assert found["trials_done"].tolist() == [1, 25]


def test_the_best_networks_and_their_median():
    results = {"test_error": np.array([0.5, np.nan, 0.1, 0.01]), "outcome": np.array([0, 0, 0, 1])}
    table = kernel.tables.reduce(
        None, None, {"item": np.arange(10, 14)}, results, kernel.tables.Options(n_best=3)
    )
    assert table["item"].tolist() == [12, 10]
    # Two of four failed: one of the middle two is infinite.
    assert (table["test_error_median"], table["failed"]) == (np.inf, 2)
    results["outcome"][3] = 0
    assert kernel.tables.reduce(
        None, None, {"item": np.arange(4)}, results, kernel.tables.Options()
    )["test_error_median"] == pytest.approx(0.3)


BAD = {
    "no file": ({}, {"trials": None}),
    "no targets": ({"targets": None}, {}),
    "NaN": ({"targets": np.full((1, 300, 1), np.nan)}, {}),
    "short": ({"targets": np.ones((1, 1, 1)), "inputs": None}, {}),
    "silent": ({"targets": np.zeros((1, 300, 1))}, {}),
    "lengths": ({"hints": np.ones((1, 299, 1))}, {}),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "given"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(tmp_path, arrays, given):
    params = FullForce(**{"trials": sine(tmp_path, **arrays)} | given)
    with refused(ValueError) as caught:
        kernel.load(inputs_of(params))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"tau": 0}, {"n": 0}, {"update_every": 0.5}, {"alpha": 0}])
def test_fields_out_of_range_are_refused(given):
    with refused(ValueError):
        FullForce(**given)


@pytest.mark.endurance  # what learns a sine stays; its file is read in tests/cluster/api/test_job.py
def test_the_example_runs():
    """With a tenth of its trials and fewer units: while it learns, its output is nearer than silence would be."""
    job = yaml.safe_load((EXAMPLES / "full_force_oscillation.yaml").read_text())
    given = job["params"] | {
        "trials": str(EXAMPLES / "oscillation_trials.h5"),
        "n_train": 3,
        "n_test": 1,
        "n": 100,
    }
    found = run_items(kernel, FullForce(**given), {"g": job["sweep"]["grid"]["g"]})
    assert (found["outcome"] == 0).all()
    assert (found["curve"] < 0.9).all()
    assert found["output"].shape[1:] == (2001, 1)
