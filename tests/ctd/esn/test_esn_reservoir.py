"""Random networks: spectra, gains, sparsity and noise against what was asked for."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import network

from ctd.batch import run_items
from ctd.cells import get_cell
from ctd.esn import EchoState, closed, linearised
from ctd.esn.reservoir import Now, begin, disturbances, free_step, step
from ctd.fixed_points import exponents
from ctd.kernel import static_of
from ctd.weights import write_named


@pytest.mark.parametrize(
    ("given", "radius"),
    [
        ({"topology": "orthogonal"}, 0.9),
        ({"topology": "ring"}, 0.9),
        ({"scale": "spectral_radius"}, 0.9),
        ({"scale": "spectral_radius", "sparsity": 0.1}, 0.9),
        ({"scale": "spectral_radius", "topology": "ring"}, 0.9),
    ],
)
def test_draw_spectral_radius(given, radius):
    w = network(n=60, g=0.9, **given)
    eigenvalues = np.linalg.eigvals(np.asarray(w.drive[:, :60], float))
    assert np.abs(eigenvalues).max() == pytest.approx(radius, rel=1e-3)


def test_draw_gain_and_sparsity():
    w = network(n=400, g=1.5, sparsity=0.2, feedback_scale=2.0, bias=0.5)
    recurrent, feedback = np.asarray(w.drive[:, :400]), np.asarray(w.drive[:, 400:])
    # Standard errors: 0.1 % of 160,000 kept or not, 0.4 % of 32,000 weights, 1 % of 8,000, 4 % of 400.
    assert np.mean(recurrent != 0) == pytest.approx(0.2, rel=0.02)
    assert recurrent[recurrent != 0].std() == pytest.approx(1.5 / np.sqrt(400 * 0.2), rel=0.02)
    assert feedback.shape == (400, 20)
    assert feedback.std() == pytest.approx(2.0, rel=0.05)
    assert np.asarray(w.bias).std() == pytest.approx(0.5, rel=0.15)


def test_noise_scale_and_absence():
    static, key = static_of(EchoState(n=100)), jax.random.key(0)
    noise = jax.jit(lambda scale, i: disturbances(static, SimpleNamespace(noise=scale), key, i, 50))
    drawn = noise(jnp.float32(0.3), 0)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.05)
    assert not (drawn == noise(jnp.float32(0.3), 1)).any()
    assert not noise(jnp.float32(0), 0).any()


def test_discrete_map_is_the_closed_network():
    """One step of its cell is one sample of the network on its own, its outputs fed back."""
    given = {
        "n": 8,
        "m": 2,
        "target": "sines",
        "dynamics": "discrete",
        "leak": 0.3,
        "intercept": True,
    }
    static, w = static_of(EchoState(**given)), network(**given)
    readout = np.random.default_rng(1).standard_normal((2, 9), np.float32)

    @jax.jit
    def both(w, readout, x):
        now = begin(static, w, readout)
        moved, _ = free_step(static, w, readout, now, x)
        return moved.a, get_cell("leaky_rates").step(closed(static, w, readout), now.a, x)

    moved, found = both(w, readout, np.zeros(0, np.float32))
    np.testing.assert_allclose(found, moved, atol=1e-6)  # float32


@pytest.mark.parametrize(
    "dynamics", [pytest.param("continuous", marks=pytest.mark.endurance), "discrete"]
)
def test_exponents_of_a_stored_network(dynamics, tmp_path):
    """As a stage after `esn` computes them: a file with the fields of `esn` as attributes, among them `layers`."""
    given = {"n": 8, "m": 2, "target": "sines", "dynamics": dynamics, "leak": 0.3, "tau": 0.3}
    static, w = static_of(EchoState(**given)), network(**given)
    readout = np.random.default_rng(1).normal(size=(2, 8)) / 8
    weights = {k: np.asarray(v, float) for k, v in closed(static, w, readout).items()}
    path = str(tmp_path / "net.h5")
    write_named(path, weights, {**given, "layers": 1})
    steps = {"transient": 500, "n_steps": 2000}
    params = exponents.Trajectory(weights=path, n_exponents=8, **steps)
    found = run_items(exponents.kernel, params)["exponent"][0]

    alpha, wR, h = weights["alpha"], weights["wR"], weights["h0"]
    frame, grown = np.eye(8), []
    for _ in range(2500):
        # continuous: h + alpha (wR tanh(h) - h); discrete: h + alpha (tanh(wR h) - h).
        r = np.tanh(h if dynamics == "continuous" else wR @ h)
        slope = 1 - r**2
        full = wR * slope if dynamics == "continuous" else slope[:, None] * wR
        h = h + alpha * ((wR @ r if dynamics == "continuous" else r) - h)
        frame, upper = np.linalg.qr((np.eye(8) + alpha * (full - np.eye(8))) @ frame)
        grown.append(np.log(np.abs(np.diagonal(upper))))
    expected = np.mean(grown[500:], axis=0)
    # The sum needs no frame; the largest forgets the frame that it began with.
    assert found.sum() == pytest.approx(expected.sum(), abs=1e-6)
    assert found[0] == pytest.approx(expected.max(), abs=1e-3)


def test_layers_drive_one_another():
    """Each has the spectral radius g, sees the new rates of the one before, and only the first sees what comes from outside."""
    given = {"n": 12, "m": 2, "layers": 3, "target": "sines", "dynamics": "discrete", "leak": 0.4}
    given |= {"g": 0.9, "scale": "spectral_radius", "layer_scale": 2.0}
    static, w = static_of(EchoState(**given)), network(**given)
    drive, size = np.asarray(w.drive, float), 4
    h, z = np.random.default_rng(0).uniform(-1, 1, 12), np.array([0.3, -0.2])
    stepped = jax.jit(lambda w, h, z: step(static, w, Now(h, h, z), jnp.zeros(0)).h)
    found = stepped(w, np.float32(h), np.float32(z))
    below = z
    for k in range(3):
        rows = slice(k * size, (k + 1) * size)
        own = drive[rows, rows]
        assert np.abs(np.linalg.eigvals(own)).max() == pytest.approx(0.9, rel=1e-3)
        from_below = drive[rows, 12:] if k == 0 else drive[rows, rows.start - size : rows.start]
        assert np.count_nonzero(drive[rows]) == own.size + from_below.size
        below = 0.6 * h[rows] + 0.4 * np.tanh(own @ h[rows] + from_below @ below)
        np.testing.assert_allclose(found[rows], below, atol=1e-6)  # float32

    # At rest, where tanh' = 1, by the derivative of the step.
    @jax.jit
    def both(w):
        rest = w._replace(bias=0 * w.bias)
        slope = jax.jacfwd(lambda h: step(static, rest, Now(h, h, 0 * z), jnp.zeros(0)).h)
        product = linearised(static, {"wR": w.drive[:, :12], "alpha": w.rate})
        return product, slope(jnp.zeros(12))

    np.testing.assert_allclose(*both(w), atol=1e-6)
