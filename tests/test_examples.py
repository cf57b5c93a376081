"""The kernels of examples/, against what is known of them."""

import jax
import numpy as np
import pytest
import xarray as xr
from kuramoto import kernel as kuramoto
from lyapunov import kernel as lyapunov
from places import EXAMPLES

from ctd.batch import run_items
from ctd.kernel import load_kernel
from jobs import open_store
from jobs.pipeline.pipeline import read_stages
from jobs.plan.items import expand
from jobs.spec.job import parse_job


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


def test_lyapunov_table_without_a_swept_gain(command_line, job_file, monkeypatch):
    """`columns` has every traced field, swept or not."""
    job = "kernel: lyapunov\nparams: {n: 10, max_advances: 2}\nsweep: {seeds: 3}\n"
    path = job_file(job)
    code, _, err = command_line("run", path, "--executor", "serial")
    assert code == 0, err
    found = xr.open_datatree(path.with_suffix(".zarr"), engine="zarr")["gathered/0"]
    assert found.gain.values == [1.5]
    assert 0 <= found.chaotic.values[0] <= 1


TINY = {
    "train.params": {"n": 4, "batch_size": 2, "n_batches": 2, "report_every": 2, "n_eval": 4},
    "train.sweep": {"grid.cell": "[vanilla]", "seeds": 3},
    "points.params": {"weights.where": "eval_loss > 0", "n_trials": 2},
    "points.sweep": {"grid.candidate.range": 4},
    "connections.sweep": {"grid.departure.range": 2},
    "distances.params": {"n_trials": 4},
    "distances.sweep": {"grid.method": "[procrustes, topology, connections]"},
}  # fmt: skip


def test_universality_has_fields_that_there_are():
    for stage in read_stages(EXAMPLES / "universality.yaml"):
        given = stage.content["params"].items()
        plain = {k: v for k, v in given if not (isinstance(v, dict) and "stage" in v)}
        spec = parse_job({**stage.content, "params": plain}, stage.where)
        assert len(expand(spec, load_kernel(spec.kernel)).groups) > 0


@pytest.mark.endurance
def test_universality_in_small(command_line, job_file):
    """Trained networks, their points and connections, three distances of every two: the stages of the example fit each other."""
    path = job_file((EXAMPLES / "universality.yaml").read_text())
    fields = {f"stages.{at}.{k}": v for at, given in TINY.items() for k, v in given.items()}
    sets = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
    code, _, err = command_line("run", path, "--executor", "serial", *sets)
    assert code == 0, err
    found = open_store(path.with_name(f"{path.stem}.distances.zarr"))
    for group in ("0", "1", "2"):
        assert found[f"results/{group}"].n_pairs.sum() == 3
        distances = found[f"gathered/{group}"].distances.values
        np.testing.assert_array_equal(distances, distances.T)
        assert (distances >= 0).all()
