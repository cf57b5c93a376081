"""Jobs against the tutorials' formulas in NumPy (tests/origin.py): HDF5 file -> job -> store -> numbers.

The jobs run in float64, so that tolerances are those of rounding: some 1e-16 a sum, more where it says so.
"""

import importlib.util
import subprocess
import warnings
from functools import partial

import h5py
import jax
import numpy as np
import origin
import pytest
import yaml
from places import DATA
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm
from stores import AS_PLANNED

import ctd.tasks
from ctd import train_rnn
from ctd.batch import Layout, Run, precision, program, traced_columns
from ctd.catalogue import load_kernel
from ctd.data import write_hdf5
from ctd.esn import series
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.late import Late
from ctd.lfads.metrics import bits_per_spike
from ctd.train_rnn.loss import eval_trials, minibatch
from jobs import open_store

linear_model, metrics = Late("sklearn.linear_model"), Late("sklearn.metrics")


@pytest.fixture
def job(command_line, job_file):
    """Run a job of one item, or of `sweep`, in this process; returns its opened store."""

    def run(kernel, params, name="job", **more):
        text = yaml.safe_dump({"kernel": kernel, "params": params, "run": AS_PLANNED, **more})
        path = job_file(text, f"{name}.yaml")
        code, out, err = command_line("run", path, "--executor", "serial")
        assert code == 0, err + out
        return open_store(path.with_suffix(".zarr"))

    return run


def item_of(tree, item=0):
    """Name -> array of the results of one item."""
    return {name: np.asarray(value[item]) for name, value in tree["results/0"].data_vars.items()}


# --- fixed points ---------------------------------------------------------------------------------

N = 8


def random_network(cell):
    """Weights of a network with several fixed points, biases included."""
    rng = np.random.default_rng(1 if cell == "vanilla" else 5)
    if cell == "vanilla":
        params = origin.random_vrnn_params(rng, 1, N, 1, g=2.0)
        return params | {"bR": 0.3 * rng.standard_normal(N), "bO": np.array([0.2])}
    params = origin.gru_params(rng, 1, N, 1, h_factor=3.0)
    bRU, bC = 0.3 * rng.standard_normal(2 * N), 0.3 * rng.standard_normal(N)
    if cell == "gru":
        # One network in two conventions: here the constant is in the candidate's bias.
        bRU, bC = bRU - np.repeat([0.0, 0.5], N), bC + 0.5
    return params | {"bRU": bRU, "bC": bC, "bO": np.array([0.2])}


def transposed(params, h, x):
    """Not the origin's network: recurrent weights with rows and columns exchanged."""
    return origin.vrnn(params | {"wR": params["wR"].T}, h, x)


@pytest.mark.parametrize(
    ("cell", "step", "wrong"),
    [
        ("gru", origin.gru, origin.gru_before_2020),
        pytest.param(
            "gru_candidate_bias",
            origin.gru_before_2020,
            origin.gru,
            marks=pytest.mark.endurance,  # its steps: tests/ctd/cells/test_cells.py
        ),
        pytest.param(
            "vanilla",
            origin.vrnn,
            transposed,
            # its points by NumPy: tests/ctd/fixed_points/test_fixed_points_kernel.py
            marks=pytest.mark.endurance,
        ),
    ],
)
def test_fixed_points_cells(job, tmp_path, cell, step, wrong):
    """Points, q and linearisations of the cell's own formula; by another one its points are not fixed."""
    params = random_network(cell)
    # As the tutorials write it: nothing in the file says which cell it is.
    write_hdf5(tmp_path / "net.h5", params)
    states = np.random.default_rng(0).uniform(-1, 1, (6, 8, N))
    write_hdf5(tmp_path / "states.h5", {"hiddens": states})
    x = np.array([0.2])
    tree = job(
        "fixed_points",
        {"cell": cell, "weights": "net.h5", "candidates": "states.h5", "x": [0.2], "noise": 0.05},
        sweep={"grid": {"candidate": {"range": 48}}},
    )
    rnn_fun = partial(step, params, x=x)
    found = tree["results/0"].load()
    fixed = np.flatnonzero(found.outcome == 0)
    assert len(fixed) > 24
    for point, q, residual in zip(found.point, found.q, found.residual, strict=True):
        h = point.to_numpy()
        # |F - h| is rounded at 1e-16 a unit; q is about its square where the search has ended.
        assert np.linalg.norm(rnn_fun(h) - h) == pytest.approx(float(residual), abs=1e-14)
        # The origin's loss is the mean over units without the half.
        expected = N / 2 * origin.fp_loss(rnn_fun, h)
        assert expected == pytest.approx(float(q), rel=1e-9, abs=1e-24)
    for h in found.point[fixed].to_numpy():
        assert N / 2 * origin.fp_loss(rnn_fun, h) < 1e-20
        assert N / 2 * origin.fp_loss(partial(wrong, params, x=x), h) > 1e-4, "the test can fail"

    table = tree["gathered/0"].load()
    assert table.sizes["fixed_point"] > 1
    for row in range(table.sizes["fixed_point"]):
        at = table.isel(fixed_point=row)
        h = at.point.to_numpy()
        expected = origin.jacobian(rnn_fun, h)
        # Rounding of products of eight.
        np.testing.assert_allclose(at.jacobian, expected, rtol=0, atol=1e-13)
        by_input = origin.jacobian(lambda x, h=h: step(params, h, x), x)
        np.testing.assert_allclose(at.input_jacobian, by_input, rtol=0, atol=1e-13)
        values = np.linalg.eig(expected)[0]
        distance = abs(values[:, None] - at.eigenvalue.to_numpy())
        # Eigenvalues move by the rounding of the matrix times their condition numbers, below 30 here.
        assert distance[linear_sum_assignment(distance)].max() < 1e-8
        # Kind 0 is fixed; at a slow point one eigenvalue is near 1 and does not count.
        if at.kind == 0:
            assert bool(at.stable) == (abs(values).max() < 1)
        np.testing.assert_allclose(at.output, origin.affine(params, h), rtol=0, atol=1e-14)


# --- spikes ---------------------------------------------------------------------------------------


def line_network():
    """A tanh network that nearly integrates its input: one direction of gain 0.97, the others contract."""
    rng = np.random.default_rng(2)
    params = origin.random_vrnn_params(rng, 1, 6, 1, g=0.3)
    along = params["wI"][:, 0] / np.linalg.norm(params["wI"])
    params["wR"] = params["wR"] - np.outer(params["wR"] @ along - 0.97 * along, along)
    return params | {"bR": 0.05 * rng.standard_normal(6), "bO": np.array([0.1])}


@pytest.mark.slow
def test_spikes_rates(job, tmp_path):
    """Stored states and rates by the origin's run from what is stored of inputs and initial states.

    To 1e-12: rounding of some ten operations a step over 25 steps. The initial states, on the line, have
    the moments of the origin's, drawn with NumPy, within five standard errors. Those at h0:
    tests/ctd/test_spikes.py.
    """
    params, n_eval = line_network(), 600
    write_hdf5(tmp_path / "net.h5", params)
    tree = job(
        "spikes",
        {"cell": "vanilla", "weights": "net.h5", "task": "integrator", "initial": "line"}
        | {"n_train": 3, "n_eval": n_eval, "step_s": 0.04, "max_rate": 80.0, "dtype": "float64"},
    )
    found = item_of(tree)
    starts = found["eval_initial_states"]
    for k in range(20):
        inputs = found["eval_inputs"][k]
        hiddens, outputs = origin.run_with_h0(origin.vrnn, params, inputs, starts[k])
        np.testing.assert_allclose(found["eval_states"][k], hiddens, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["eval_behavior"][k], outputs, rtol=0, atol=1e-12)
        expected = origin.spike_means(hiddens, 0.04, 80.0)
        np.testing.assert_allclose(found["eval_rates"][k], expected, rtol=0, atol=1e-12)
    assert len(np.unique(starts, axis=0)) == n_eval
    reached = origin.h0s_on_a_line(np.random.default_rng(3), params, n_eval)
    # Along the readout, and in every unit.
    for a, b in ((starts @ params["wO"].T, reached @ params["wO"].T), (starts, reached)):
        # Of a difference of means; and of SDs, for nearly normal numbers.
        assert (abs(a.mean(0) - b.mean(0)) < 5 * b.std(0) * (2 / n_eval) ** 0.5).all()
        assert (abs(a.std(0) - b.std(0)) < 5 * b.std(0) * (1 / n_eval) ** 0.5).all()
    # The test can fail: the network's own h0 is far from the mean state, in these errors.
    far = abs(params["h0"] - reached.mean(0)) / (reached.std(0) * (2 / n_eval) ** 0.5)
    assert far.max() > 5
    # Counts, over all units and bins: a Poisson sum is known to the root of its mean.
    mean = found["eval_rates"].sum()
    assert abs(found["eval"].sum() - mean) < 5 * mean**0.5


# --- tasks ----------------------------------------------------------------------------------------

N_TRIALS = 40_000


def ours(name, seed):
    trials = ctd.tasks.batch(ctd.tasks.get_task(name), jax.random.key(seed), N_TRIALS)
    return np.asarray(trials.inputs, float), np.asarray(trials.targets, float)


def origins(function, seed):
    return function(np.random.default_rng(seed), N_TRIALS)


@pytest.mark.parametrize(
    ("task", "draw"),
    [
        ("integrator", partial(ours, "integrator")),
        ("decision", partial(ours, "decision")),
        ("integrator", partial(origins, origin.pure_integration)),
        ("decision", partial(origins, origin.binary_decision)),
    ],
    ids=["integrator", "decision", "integrator-origin", "decision-origin"],
)
def test_tasks_law(task, draw):
    """Inputs and targets against closed forms, within five standard errors over 40,000 trials."""
    bias, sd, T, ntime = origin.INPUT_PARAMS
    noise = sd / (T / ntime) ** 0.5  # 0.125 a step
    inputs, targets = draw(0)
    assert inputs.shape == targets.shape == (N_TRIALS, ntime, 1)
    x, total = inputs[..., 0], inputs[..., 0].sum(1)
    # Trial sums are normal: bias with mean -0.01 and SD 0.02 at all 25 steps, noise at each.
    mean, deviation = -bias * ntime, np.hypot(noise * ntime**0.5, 2 * bias * ntime)
    assert (mean, deviation) == (-0.25, pytest.approx(0.8004, abs=1e-4))
    assert abs(total.mean() - mean) < 5 * deviation / N_TRIALS**0.5
    assert abs(total.std() - deviation) < 5 * deviation / (2 * N_TRIALS) ** 0.5
    within = (x - x.mean(1, keepdims=True)).var() * ntime / (ntime - 1)
    # The variance of the noise alone, over 24 degrees of freedom a trial.
    assert abs(within - noise**2) < 5 * noise**2 * (2 / (N_TRIALS * (ntime - 1))) ** 0.5
    share = lambda p, event: abs(event.mean() - p) < 5 * (p * (1 - p) / N_TRIALS) ** 0.5
    if task == "integrator":
        # float32 sums of 25 numbers of order 0.1.
        np.testing.assert_allclose(targets[..., 0], np.cumsum(x, axis=1), rtol=0, atol=1e-5)
        final = targets[:, -1, 0]
        law = norm(mean, deviation)
        assert share(law.cdf(-1) + law.sf(1), abs(final) > 1)
        return
    assert (targets[:, :-1] == 0).all()
    clear = abs(total) > 1e-5  # else rounding decides
    np.testing.assert_array_equal(targets[clear, -1, 0], np.sign(total[clear]))
    assert set(np.unique(targets[:, -1])) == {-1.0, 1.0}
    assert share(norm.sf(0, mean, deviation), targets[:, -1, 0] > 0)


# --- training -------------------------------------------------------------------------------------


def as_numpy(trials):
    return np.asarray(trials.inputs), np.asarray(trials.targets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "step", "task", "mask", "clip_norm"),
    [
        # A gradient of these networks has a norm of 0.4 to 5: the second of these clips it.
        ("vanilla", origin.vrnn, "integrator", np.arange(6), 10.0),
        ("gru", origin.gru, "decision", np.array([5]), 0.05),
        # What differs is the cell, whose formula tests/ctd/cells/test_cells.py holds.
        pytest.param(
            "gru_candidate_bias",
            origin.gru_before_2020,
            "decision",
            np.array([5]),
            10.0,
            marks=pytest.mark.endurance,
        ),
    ],
    ids=["vanilla", "gru-clipped", "gru-candidate"],
)
def test_train_steps(job, cell, step, task, mask, clip_norm):
    """Four steps of the origin's loop from the same weights on the same trials, their losses, and the evaluation loss.

    Of this project there are only the trials and, by a job whose steps are too small to move anything,
    the first weights. Gradients are complex steps of the origin's loss.
    """
    task = {"name": task, "n_steps": 6, "sd": 0.1}
    params = {"cell": cell, "task": task, "n": 4, "batch_size": 8, "n_batches": 4}
    params |= {"report_every": 3, "n_eval": 20, "n_saved": 20, "dtype": "float64"}
    params |= {"learning_rate": 0.03, "decay": 0.9, "l2": 0.01, "adam_eps": 0.1}
    params |= {"clip_norm": clip_norm}
    first = item_of(job("train_rnn", params | {"learning_rate": 1e-300}, "first"))
    found = item_of(job("train_rnn", params))
    weights = lambda values: {
        name.removeprefix("weights."): value
        for name, value in values.items()
        if name.startswith("weights.")
    }
    network = train_rnn.Network(**params)
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(0), 0)
        _, key_data = train_rnn.item_keys(key, traced_of(network))
        batches = [as_numpy(minibatch(static_of(network), (), key_data, i)) for i in range(4)]
        inputs, targets = as_numpy(eval_trials(network.task, 20, np.float64))

    start = weights(first)
    expected, losses = origin.train(step, start, batches, mask, 0.01, clip_norm, 0.03, 0.9, 0.1)
    # A block is three steps, and what is left. The origin's loss has the penalty, this project's curve has not.
    curve = [np.mean(losses[:3]), losses[3]]
    np.testing.assert_allclose(found["curve"], curve, rtol=1e-12)
    for name, value in weights(found).items():
        # Rounding through six steps forth and back; a step moves weights by up to 0.03.
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-12, err_msg=name)
    moved = max(abs(expected[name] - start[name]).max() for name in start)
    assert moved > 1e-3, "the test can fail"
    expected = origin.loss(step, weights(found), inputs, targets, mask, 0.0)
    assert float(found["eval_loss"]) == pytest.approx(expected, rel=1e-12)
    for k in range(20):
        hiddens, outputs = origin.run(step, weights(found), inputs[k])
        np.testing.assert_allclose(found["states"][k], hiddens, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found["outputs"][k], outputs, rtol=0, atol=1e-13)


# --- echo-state networks --------------------------------------------------------------------------

ESN = {"n": 30, "m": 2, "dtype": "float64", "state_dtype": "float64", "record": ["readout", "weights"]}  # fmt: skip


def notebook_params(job, params):
    """The notebook's a0, wR, wF, wO of item 0 before any training, from what two jobs store.

    A store has the closed network, wR + wF wO. Without feedback that is wR; without recurrence, and with
    a learning rate of 0, it is wF wO with the first wO.
    """
    bare = item_of(job("esn", params | {"feedback_scale": 0.0}, "bare"))
    fed = item_of(job("esn", params | {"g": 0.0, "alpha": 1e-200}, "fed"))
    wO = fed["readout_weights"][:, : params["n"]]
    return {
        "a0": bare["weights.h0"],
        "wI": bare["weights.wI"],
        "wR": bare["weights.wR"],
        "wF": fed["weights.wR"] @ np.linalg.pinv(wO),
        "wO": wO,
        "dt_over_tau": float(bare["weights.alpha"]),
    }


@pytest.mark.slow
def test_force_file(job, tmp_path):
    """FORCE on a user's target, with an input: readout, errors of every pass, replay, closed network."""
    time = np.arange(80)[:, None] * 0.1
    f_t = np.sin(time * [1.0, 2.3]) * [1.0, 0.5]
    x_t = np.cos(0.7 * time)
    write_hdf5(tmp_path / "series.h5", {"f": f_t, "x": x_t})
    params = ESN | {"target": "file", "path": "series.h5", "dataset": "f", "input_dataset": "x"}
    params |= {"train": 80, "passes": 3, "block": 7, "g": 1.5, "tau": 1.0, "dt": 0.1, "alpha": 1.0}
    notebook = notebook_params(job, params)
    found = item_of(job("esn", params))
    assert notebook["dt_over_tau"] == pytest.approx(0.1, rel=1e-15)
    assert np.std(notebook["wF"]) == pytest.approx(1, rel=0.5)
    P, wO = np.eye(30), notebook["wO"]
    nrmse = lambda z_t: (np.mean((z_t - f_t) ** 2) / f_t.var(axis=0).mean()) ** 0.5
    # float64 rounding, grown by the feedback loop over three passes.
    for k in range(3):
        wO, P, _, z_t = origin.esn_run_and_train(notebook | {"wO": wO}, P, x_t, f_t)
        assert found["train_nrmse"][k] == pytest.approx(nrmse(z_t), rel=1e-8)
    np.testing.assert_allclose(found["readout_weights"], wO, rtol=1e-7, atol=1e-8)
    _, _, _, z_t = origin.esn_run_and_train(notebook | {"wO": wO}, None, x_t)
    assert float(found["replay_nrmse"]) == pytest.approx(nrmse(z_t), rel=1e-6)
    closed = notebook["wR"] + notebook["wF"] @ wO
    np.testing.assert_allclose(found["weights.wR"], closed, rtol=0, atol=1e-7)


def notebook_target(length, m, *, seed, feedback, n=500, g=1.8):
    """f_t of the FORCE notebook, cell 17, by its unrolled loop, from this project's draws."""
    rng = np.random.default_rng(seed)
    params = {"a0": 0.25 * rng.standard_normal(n), "dt_over_tau": 0.1}
    params["wR"] = rng.standard_normal((n, n)) * (g / np.sqrt(n))
    if feedback:
        params["wF"] = rng.standard_normal((n, m))
        params["wO"] = rng.standard_normal((m, n)) / np.sqrt(n)
    else:
        params["wF"], params["wO"] = np.zeros((n, m)), np.zeros((m, n))
    params["wI"] = np.zeros((n, 1))
    _, _, h_t, _ = origin.esn_run_and_train(params, None, np.zeros((length, 1)))
    return h_t[:, :m]


@pytest.mark.parametrize(("target", "feedback"), [("chaotic-feedback", True), ("chaotic", False)])
def test_esn_chaotic_target(job, target, feedback):
    """The error of an untrained network, which a store holds, is that against the notebook's series.

    Over 60 samples, six time constants: chaos multiplies rounding by some e^10 there.
    """
    params = ESN | {"m": 20, "target": target, "target_seed": 3, "train": 60, "passes": 1}
    params |= {"feedback_scale": 0.0, "alpha": 1e-200, "g": 0.9}
    found = item_of(job("esn", params))
    f_t = notebook_target(60, 20, seed=3, feedback=feedback)
    network = {"a0": found["weights.h0"], "wI": np.zeros((30, 1)), "wR": found["weights.wR"]}
    network |= {"wF": np.zeros((30, 20)), "wO": found["readout_weights"], "dt_over_tau": 0.1}
    _, _, _, z_t = origin.esn_run_and_train(network, None, np.zeros((60, 1)))
    expected = (np.mean((z_t - f_t) ** 2) / f_t.var(axis=0).mean()) ** 0.5
    assert found["train_nrmse"][0] == pytest.approx(expected, rel=1e-10)
    assert float(found["replay_nrmse"]) == pytest.approx(expected, rel=1e-10)


def test_esn_chaotic_saturates():
    """Rates beyond 0.9: most of them with feedback, few without it; ours and the notebook's loop alike."""
    for make in (series.chaotic_network, notebook_target):
        for feedback in (True, False):
            shares = [
                np.mean(abs(make(300, 20, seed=seed, feedback=feedback)) > 0.9)
                for seed in range(10, 14)
            ]
            assert min(shares) > 0.5 if feedback else max(shares) < 0.3


def test_ridge_intercept(job, tmp_path):
    """A ridge readout on states simulated from the stored weights: scikit-learn's and reservoirpy's."""
    rng = np.random.default_rng(4)
    u_t = rng.uniform(-1, 1, (260, 2))
    # Two samples of memory, and a product; far from 0, which is for the constant to make up.
    f_t = np.stack([np.roll(u_t[:, 0], 2), u_t[:, 0] * u_t[:, 1]], axis=1) + 3.0
    write_hdf5(tmp_path / "series.h5", {"targets": f_t, "u": u_t})
    variance = f_t.var(axis=0).mean()
    ridge = 0.05
    params = ESN | {"target": "file", "path": "series.h5", "input_dataset": "u", "bias": 0.2}
    params |= {"readout": "ridge", "ridge": ridge, "feedback": False, "intercept": True}
    params |= {"dynamics": "discrete", "leak": 0.7, "washout": 40, "train": 220, "g": 0.9}
    found = item_of(job("esn", params))
    h, h_t = found["weights.h0"], []
    leak = float(found["weights.alpha"])
    for u in u_t:
        drive = found["weights.wR"] @ h + found["weights.wI"] @ u + found["weights.bR"]
        h = (1 - leak) * h + leak * np.tanh(drive)
        h_t.append(h)
    h_t, f_t = np.array(h_t)[40:], f_t[40:]
    fitted = linear_model.Ridge(alpha=ridge, fit_intercept=True).fit(h_t, f_t)
    expected = np.column_stack([fitted.coef_, fitted.intercept_])
    # Normal equations of a condition number of about 3e3, weights of order 1.
    np.testing.assert_allclose(found["readout_weights"], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["weights.bO"], fitted.intercept_, rtol=0, atol=1e-10)
    error = np.mean((fitted.predict(h_t) - f_t) ** 2)
    # Relative to the variance of the whole series, washout included.
    assert found["train_nrmse"][0] == pytest.approx((error / variance) ** 0.5, rel=1e-10)
    # The test can fail: a penalised constant comes out smaller.
    both = np.column_stack([h_t, np.ones(220)])
    penalised = linear_model.Ridge(alpha=ridge, fit_intercept=False).fit(both, f_t).coef_
    assert abs(penalised - expected).max() > 1e-4
    W, b = reservoirpy_ridge(h_t, f_t, ridge)
    np.testing.assert_allclose(found["readout_weights"][:, :-1], W.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["readout_weights"][:, -1], b, rtol=0, atol=1e-10)


def reservoirpy_ridge(h_t, f_t, ridge):
    """(weights (unit, output), bias (output,)) of reservoirpy's node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own making, at import
        from reservoirpy.nodes import Ridge as Node

        node = Node(ridge=ridge, fit_bias=True).fit(h_t, f_t)
    return np.asarray(node.Wout), np.asarray(node.bias).ravel()


# --- LFADS ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lfads_metrics(tmp_path):
    """Metrics against the origin's cells and scikit-learn, from the posterior means that are stored beside them.

    They are those of a network before its training, which need no program that trains.
    """
    params = line_network()
    rng = np.random.default_rng(5)
    x_t, _ = origin.pure_integration(rng, 60)
    h0s = origin.h0s_on_a_line(rng, params, 60)
    hiddens = np.array(
        [origin.run_with_h0(origin.vrnn, params, x, h0)[0] for x, h0 in zip(x_t, h0s, strict=True)]
    )
    rates = origin.spike_means(hiddens, 0.04, 80.0)
    counts = rng.poisson(rates)
    counts[..., 4] = 0  # a silent unit
    n_eval = 25
    arrays = {"train": counts[:-n_eval], "eval": counts[-n_eval:]}
    arrays |= {"eval_rates": rates[-n_eval:], "eval_inputs": x_t[-n_eval:]}
    arrays |= {"eval_initial_states": h0s[-n_eval:]}
    write_hdf5(tmp_path / "spikes.h5", arrays)
    sizes = {"encoder": 5, "controller": 4, "generator": 6, "n_factors": 3, "batch_size": 10}
    given = {"data": str(tmp_path / "spikes.h5"), "dtype": "float64", "n_samples": 3}
    found = before_training("lfads", given | {"n_metric": n_eval, "n_saved": n_eval} | sizes)
    counts, inferred = arrays["eval"], found["inferred_inputs"]
    # Sums of 3,750 terms: 1e-16 times their root, and some for differences of large sums.
    bits = poisson_bits(counts, found["rates"])
    assert float(found["bits_per_spike"]) == pytest.approx(bits, rel=1e-11)
    expected = origin.rates_r2(found["rates"], arrays["eval_rates"])
    assert float(found["rate_r2"]) == pytest.approx(expected, rel=1e-9)
    expected = origin.inputs_r2(inferred[..., 0], arrays["eval_inputs"][..., 0])
    assert float(found["input_r2"]) == pytest.approx(expected, rel=1e-9)
    ic, truth = found["initial_conditions"], arrays["eval_initial_states"]
    # The documented penalty: 1e-4 of the mean variance of a feature, times the number of trials.
    penalty = 1e-4 * np.sum((ic[::2] - ic[::2].mean(0)) ** 2) / ic.shape[1]
    predicted = linear_model.Ridge(alpha=penalty).fit(ic[::2], truth[::2]).predict(ic[1::2])
    expected = metrics.r2_score(truth[1::2], predicted, multioutput="variance_weighted")
    # Normal equations, whose condition the penalty keeps at 1e4 times the number of features.
    assert float(found["initial_state_r2"]) == pytest.approx(expected, rel=1e-8)


def before_training(name, given):
    """Name -> array of the results of one item that has made no advance."""
    kernel = load_kernel(name)
    params = kernel.Params(**given)
    static, fields = static_of(params), traced_of(params)._asdict()
    with precision(static), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*1 units have no spike in training")
        shared = kernel.load(inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in fields.items()}
    traced = traced_columns(kernel.Params, columns, static.dtype)
    run = Run(program(kernel, static, Layout(1, 1)), shared, 0, np.arange(1), traced)
    _, values = run.peek(tuple(run.results))
    return {k: v[0] for k, v in values.items()}


def poisson_bits(counts, rates):
    """Pei et al. 2021, eq. 3, a unit at a time; a unit without spikes gains minus the sum of its rates."""
    gain = 0.0
    for k in range(counts.shape[-1]):
        x, r = counts[..., k].ravel(), rates[..., k].ravel()
        if x.sum():
            gain += np.sum(x * np.log(r / x.mean()) - (r - x.mean()))
        else:
            gain -= np.sum(r)
    return gain / counts.sum() / np.log(2)


@pytest.mark.parametrize("case", ["truth", "noise", "silent", "sparse"])
def test_nlb_bits(case):
    """nlb_tools.evaluation.bits_per_spike, by tests/data/make_nlb_bits.py.

    It takes 1e-9 for a silent unit's mean rate: less than 1e-9 of a bit here.
    """
    with h5py.File(DATA / "nlb_bits.h5") as file, jax.enable_x64(True):
        group = {name: value[()] for name, value in file[case].items()}
        found = float(bits_per_spike(group["counts"], group["rates"]))
    assert found == pytest.approx(float(group["bits"]), abs=1e-8)


# --- the vectors again ----------------------------------------------------------------------------

# These are slow too, so that -m "not slow" leaves them out.


def assert_same_file(found, stored, atol):
    with h5py.File(found) as a, h5py.File(stored) as b:
        assert set(a) == set(b)
        for group in b:
            assert set(a[group]) == set(b[group])
            for name in b[group]:
                np.testing.assert_allclose(
                    a[group][name], b[group][name], rtol=0, atol=atol, err_msg=f"{group}/{name}"
                )


@pytest.mark.frameworks
@pytest.mark.slow
def test_torch_vectors_again(tmp_path, monkeypatch):
    """To 1e-12: ten steps of another version's or another processor's sums."""
    pytest.importorskip("torch", reason="uv run --group frameworks pytest -m frameworks")
    spec = importlib.util.spec_from_file_location("make_torch_cells", DATA / "make_torch_cells.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # It writes beside itself.
    monkeypatch.setattr(module, "__file__", str(tmp_path / "make_torch_cells.py"))
    module.main()
    assert_same_file(tmp_path / "torch_cells.h5", DATA / "torch_cells.h5", 1e-12)


@pytest.mark.frameworks
@pytest.mark.slow
def test_nlb_vectors_again(tmp_path):
    """In an environment of its own, which uv makes: nlb_tools asks for a pandas of 2021."""
    script = DATA / "make_nlb_bits.py"
    command = ["uv", "run", "--script", str(script), str(tmp_path / "again.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_file(tmp_path / "again.h5", DATA / "nlb_bits.h5", 1e-12)
