"""FORCE and ridge readouts against the notebook's formulas in NumPy, scikit-learn and reservoirpy."""

import warnings

import numpy as np
import origin
import pytest
from stores import item_of

from ctd.batch import Layout, run_items
from ctd.catalogue import load_kernel
from ctd.data import write_hdf5
from ctd.esn import series
from ctd.kernel import inputs_of
from ctd.late import Late

linear_model = Late("sklearn.linear_model")

ESN = {"n": 30, "m": 2, "dtype": "float64", "state_dtype": "float64", "record": ["readout", "weights"]}  # fmt: skip


def notebook_params(params):
    """The notebook's a0, wR, wF, wO of item 0 before any training, from the results of two networks by the job's program.

    Results have the closed network, wR + wF wO. Without feedback that is wR; without recurrence, and with
    a learning rate of 0, it is wF wO with the first wO.
    """
    kernel = load_kernel("esn")

    def results(**changes):
        found = run_items(kernel, kernel.Params(**params | changes), layout=Layout(4, 1))
        return {name: values[0] for name, values in found.items()}

    bare, fed = results(feedback_scale=0.0), results(g=0.0, alpha=1e-200)
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
    path = str(tmp_path / "series.h5")
    params = ESN | {"target": "file", "path": path, "dataset": "f", "input_dataset": "x"}
    params |= {"train": 80, "passes": 3, "block": 7, "g": 1.5, "tau": 1.0, "dt": 0.1, "alpha": 1.0}
    notebook = notebook_params(params)
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
def test_esn_chaotic_target(target, feedback):
    """What the kernel loads as its target is the notebook's series.

    Over 60 samples, six time constants: chaos multiplies rounding by some e^10 there.
    """
    fields = {"target": target, "target_seed": 3, "m": 20, "train": 60, "dtype": "float64"}
    kernel = load_kernel("esn")
    found = kernel.load(inputs_of(kernel.Params(**fields)))
    f_t = notebook_target(60, 20, seed=3, feedback=feedback)
    np.testing.assert_allclose(found.targets[:60], f_t, rtol=0, atol=1e-10)


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
