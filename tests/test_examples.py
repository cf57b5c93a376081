"""The kernels of examples/, against what is known of them."""

import jax
import make_lorenz_spikes
import numpy as np
import pytest
import xarray as xr
from kuramoto import kernel as kuramoto
from lyapunov import kernel as lyapunov
from places import EXAMPLES
from scipy.integrate import solve_ivp

from ctd.batch import run_items
from jobs import open_store


def test_kuramoto_locks_with_coupling():
    """Kuramoto 1984: with unit Cauchy rates r = sqrt(1 - 2/K) above K = 2, near 0 below."""
    params = kuramoto.Params(n=400, n_steps=1500)
    found = run_items(kuramoto, params, {"coupling": [0.5, 8.0]})["order"]
    # Finite n: r fluctuates by about 1 / sqrt(n) = 0.05.
    assert found[0] < 0.2
    assert found[1] == pytest.approx(np.sqrt(1 - 2 / 8), abs=0.1)


def recurrent_weights(item, g, n):
    """Those that the item draws."""
    key = jax.random.fold_in(jax.random.key(0), item)
    return g / np.sqrt(n) * np.asarray(jax.random.normal(key, (n, n)), float)


def exponents(w, steps):
    """All Lyapunov exponents of x <- tanh(w x), by QR of a whole basis in float64 (Benettin et al. 1980)."""
    x, q = np.random.default_rng(0).normal(size=len(w)), np.eye(len(w))
    logs = np.zeros((steps, len(w)))
    for t in range(-500, steps):
        x = np.tanh(w @ x)
        q, r = np.linalg.qr((1 - x**2)[:, None] * w @ q)
        if t >= 0:
            logs[t] = np.log(np.abs(np.diag(r)))
    return logs.mean(axis=0)


def test_lyapunov_exponents():
    """At a small gain the logarithm of the spectral radius, as x goes to 0; at a large one, chaos."""
    gains, n = [0.3, 0.5, 2.5], 40
    found = run_items(lyapunov, lyapunov.Params(n=n), {"g": gains})
    weights = [recurrent_weights(item, g, n) for item, g in enumerate(gains)]
    for item in (0, 1):
        radius = np.abs(np.linalg.eigvals(weights[item])).max()
        # The mean growth over 1,000 steps still knows where in its turn the direction began.
        assert found["exponent"][item] == pytest.approx(np.log(radius), abs=5e-3)
    assert found["exponent"][2] > 0.05
    # Another trajectory, of 3,000 steps: two standard errors near 2e-3 each, and a factor 3.
    assert found["exponent"][2] == pytest.approx(exponents(weights[2], 3000)[0], abs=0.01)
    assert list(found["outcome"]) == [0, 0, 0]


def test_lorenz_follows_its_equations():
    start, dt, n = [1.0, 2.0, 25.0], 0.005, 200
    exact = solve_ivp(
        lambda _, s: [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]],
        (0, n * dt), start, t_eval=np.arange(1, n + 1) * dt, rtol=1e-11, atol=1e-11,
    )  # fmt: skip
    with jax.enable_x64(True):
        got = make_lorenz_spikes.lorenz(jax.numpy.asarray(start), n, dt)
    # Fourth order: the error over one time unit is about 1e-5 at this step, growing e-fold.
    np.testing.assert_allclose(got, exact.y.T, atol=1e-3)


def test_lorenz_spikes(monkeypatch):
    """Of a third of the conditions and neurons: a million Poisson numbers take long."""
    monkeypatch.setattr(make_lorenz_spikes, "N_CONDITIONS", 10)
    monkeypatch.setattr(make_lorenz_spikes, "N_NEURONS", 10)
    spikes, rates, states = map(np.asarray, jax.jit(make_lorenz_spikes.draw)(jax.random.key(0)))
    assert spikes.shape == (10, 20, 100, 10)
    np.testing.assert_allclose(states.reshape(-1, 3).mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(states.reshape(-1, 3).std(0), 1, rtol=1e-4)
    # Log rates are linear in the state, with weights on the unit sphere.
    w, residual, *_ = np.linalg.lstsq(states.reshape(-1, 3), np.log(rates / 15).reshape(-1, 10))
    np.testing.assert_allclose(np.linalg.norm(w, axis=0), 1, rtol=1e-3)
    assert residual.max() < 1e-4
    # Poisson: the sum over trials of (count - mean)^2 / mean is 1 a trial in the mean; its standard error is 1.5 %.
    mean = rates[:, None] * 0.01
    np.testing.assert_allclose(((spikes - mean) ** 2 / mean).mean(), 1, rtol=0.05)


def test_lyapunov_table_without_a_swept_gain(command_line, job_file, monkeypatch):
    """`columns` has every traced field, swept or not."""
    job = "kernel: lyapunov\nparams: {n: 10, max_advances: 5}\nsweep: {seeds: 3}\n"
    path = job_file(job)
    code, _, err = command_line("run", path, "--executor", "serial")
    assert code == 0, err
    found = xr.open_datatree(path.with_suffix(".zarr"), engine="zarr")["gathered/0"]
    assert found.gain.values == [1.5]
    assert 0 <= found.chaotic.values[0] <= 1


ALL = "[procrustes, svcca, dsa, topology, connections]"
ONE_SEED = (
    "train.sweep.seeds=1", "distances.sweep.grid.matrix_row.range=3", f"distances.sweep.grid.method={ALL}",
)  # fmt: skip


@pytest.mark.endurance
def test_universality_of_a_network_of_each_cell(command_line, job_file):
    """With one seed of each cell, and otherwise as it is: 27 points of the known kinds (Sussillo & Barak 2013). A saddle
    with one growing mode leads to the two memories that it parts, which differ in one bit, once to each side."""
    path = job_file((EXAMPLES / "published" / "universality.yaml").read_text())
    sets = [word for one in ONE_SEED for word in ("--set", f"stages.{one}")]
    code, _, err = command_line("run", path, "--executor", "serial", *sets)
    assert code == 0, err
    points, graphs, distances = (
        open_store(path.with_name(f"{path.stem}.{stage}.zarr"))
        for stage in ("points", "connections", "distances")
    )
    for group in ("0", "1", "2"):
        table = points[f"gathered/{group}"].to_dataset()
        leads = graphs[f"gathered/{group}"].leads.values
        fixed = table.q.values < 1e-12
        unstable, bits = table.n_unstable.values, table.output.values > 0
        assert np.bincount(unstable[fixed]).tolist() == [8, 12, 6, 1]
        for k in np.flatnonzero(fixed & (unstable == 1)):
            memories = np.flatnonzero(leads[k])
            assert leads[k, memories].tolist() == [1, 1]
            assert unstable[memories].tolist() == [0, 0]
            assert (bits[memories[0]] != bits[memories[1]]).sum() == 1
    for group in "01234":
        found = distances[f"gathered/{group}"].distances.values
        np.testing.assert_array_equal(found, found.T)
        assert (found >= 0).all()
