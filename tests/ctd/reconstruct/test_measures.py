"""The measures of reconstruct against NumPy and SciPy from their formulas."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from ctd.reconstruct import measures

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(500, 2)) * [1, 3], RNG.normal(size=(400, 2)) * [1.2, 2] + 0.3

of_bins = jax.jit(partial(measures.divergence_of_bins, bins=7), static_argnames="scheme")
of_mixtures = jax.jit(measures.divergence_of_mixtures)
peak = jax.jit(measures.peak)
hellinger = jax.jit(partial(measures.hellinger, smoothing=20.0))


@pytest.mark.parametrize("scheme", ["range", "legacy"])
def test_divergence_of_bins_numpy(scheme):
    bins, sd = 7, X.std(axis=0, ddof=1)
    if scheme == "range":
        low, high = X.min(axis=0) - 0.1 * sd, X.max(axis=0) + 0.1 * sd
    else:
        low, high = -2 * sd, 2 * sd
    shares = []
    for values in (X, Y):
        grid = [np.linspace(a, b, bins + 1) for a, b in zip(low, high, strict=True)]
        counts = np.histogramdd(values, grid)[0] + 1e-5
        shares.append(counts / counts.sum())
    p, q = shares
    np.testing.assert_allclose(of_bins(X, Y, scheme=scheme), np.sum(p * np.log(p / q)), rtol=1e-9)


def test_divergence_of_bins_5d():
    """11^5 bins, in float32, beside NumPy's dense histograms; rounding of the empty bins' share is 1e-7."""
    x, y = RNG.normal(size=(2, 3000, 5)).astype("float32")
    sd = x.std(axis=0, ddof=1)
    edges = [
        np.linspace(v.min() - 0.1 * s, v.max() + 0.1 * s, 12) for v, s in zip(x.T, sd, strict=True)
    ]
    p, q = (np.histogramdd(v, edges)[0] + 1e-5 for v in (x, y + np.float32(0.2)))
    expected = np.sum(p / p.sum() * np.log(p / p.sum() / (q / q.sum())))
    found = measures.divergence_of_bins(x, y + np.float32(0.2), 11)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("scheme", ["range", "legacy"])
@pytest.mark.parametrize("value", [0.1, 0.0, -1e9])
def test_divergence_of_bins_where_a_channel_never_changes(value, scheme):
    x, other, far = (X.astype("float32") for _ in range(3))
    x[:, 1] = value
    other[:, 1] = x[:, 1] * np.float32(1.001)
    far[:, 1] = x[:, 1] + np.float32(3e9)
    assert of_bins(x, x, scheme=scheme) == 0
    assert 0 <= of_bins(x, other, scheme=scheme) < 1
    assert np.isposinf(of_bins(x, far, scheme=scheme))


def test_divergence_of_bins_is_infinite_where_no_bin_is_visited():
    assert np.isposinf(of_bins(X, np.full_like(Y, 1e6), scheme="range"))


def test_divergence_of_mixtures():
    """The mean of log p - log q over samples of p, by NumPy; and of two far clouds, near half of their squared distance."""
    key = jax.random.key(0)
    found = of_mixtures(X, Y, key, 0.5)
    which, noise = jax.random.split(key)
    some = X[np.asarray(jax.random.randint(which, (1000,), 0, 500))]
    some = some + 0.5**0.5 * np.asarray(jax.random.normal(noise, some.shape, jnp.float64))
    density = lambda at: np.exp(-((some[:, None] - at) ** 2).sum(2)).mean(axis=1)
    np.testing.assert_allclose(found, np.mean(np.log(density(X) / density(Y))), rtol=1e-9)
    one, far = np.zeros_like(X), np.zeros_like(Y)
    far[:, 0] = 60
    # Here NumPy's exponentials would be 0.
    assert of_mixtures(one, far, key, 1.0) == pytest.approx(1800, rel=0.02)


def test_hellinger_scipy():
    t = np.arange(600)
    x = np.stack([np.sin(0.3 * t), RNG.normal(size=600)], axis=1)
    y = np.stack([np.sin(0.5 * t) + 2, RNG.normal(size=600).cumsum()], axis=1)
    distances = []
    for k in range(2):
        p, q = (
            gaussian_filter1d(np.abs(np.fft.rfft((v - v.mean()) / v.std())) ** 2, 20.0)
            for v in (x[:, k], y[:, k])
        )
        p, q = p / p.sum(), q / q.sum()
        distances.append(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / np.sqrt(2))
    np.testing.assert_allclose(hellinger(x, y), np.mean(distances), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.7])
def test_hellinger_of_a_run_that_rests(value):
    """Its mean rounds, and what is left of the run is a constant."""
    x = np.sin(np.arange(1000) / 50)[:, None].astype("float32")
    assert hellinger(x, np.full_like(x, value)) == 1


def test_prediction_error_numpy():
    """Of x' = 2 x + s, three steps ahead."""
    x, s = RNG.normal(size=(20, 1)), RNG.normal(size=(20, 1))
    expected = []
    for t in range(17):
        ahead = x[t]
        for k in range(1, 4):
            ahead = 2 * ahead + s[t + k]
        expected.append((ahead - x[t + 3]) ** 2)

    def steps(start, inputs):
        return jax.lax.scan(lambda h, s: (2 * h + s, None), start, inputs)[0]

    found = jax.jit(lambda x, s: measures.prediction_error(steps, x, s, 3))(x, s)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-12)


@pytest.mark.parametrize(("radius", "growth", "spread"), [(1.0, 0, 1), (0.99, np.log(0.99), 0)])
def test_a_run_of_short_trials_is_run_on(radius, growth, spread):
    """Of a turn by .3 in other axes, whose vectors grow and shrink in a trial; and of one that decays."""
    turn = radius * np.array([[np.cos(0.3), -9 * np.sin(0.3)], [np.sin(0.3) / 9, np.cos(0.3)]])
    cell = SimpleNamespace(step=lambda p, h, s: turn @ h)
    at = [np.array([[1.0, 0.0], [0.0, 1.0]])]  # (recording, unit)
    for _ in range(20):  # a period is 20.9
        at.append(at[-1] @ (turn / radius).T)
    x = np.stack(at, axis=1)
    run_on = jax.jit(lambda x: measures._run_on(cell, {}, x, (x, x[..., :0]), jax.random.key(1)))
    found = run_on(x)
    assert found["exponent"] == pytest.approx(growth, abs=1e-3)
    assert found["end_spread"] == pytest.approx(spread, abs=0.02)


def test_the_peak_of_a_spectrum():
    """Of sines of any frequency, in two recordings, in both libraries; a series at rest has none."""
    at = np.arange(400)[:, None]
    for cycles in (5.3, 40.0, 77.8):
        turn = 2 * np.pi * cycles / 400
        x = np.stack([np.sin(turn * at + [0, 1]), 3 + np.cos(turn * at + [2, 5])])
        found, share = measures.peak(x, np)
        # Of a tenth of a frequency, since the parabola is not the window's shape.
        np.testing.assert_allclose(found * 400, cycles, atol=0.1)
        assert share > 0.9
        np.testing.assert_allclose(peak(x)[0], found, rtol=1e-9)
    # One sine, in any phase, is alone in the lowest bin.
    for cycles, phase in ((1, 0), (1, 1), (2, 0), (2, 1), (5, 0)):
        x = np.sin(2 * np.pi * cycles * at / 400 + phase)[None]
        found, share = measures.peak(x, np)
        np.testing.assert_allclose(found * 400, cycles, atol=0.1)
        assert 0.9 < share <= 1
        np.testing.assert_allclose(peak(x)[0], found, rtol=1e-9)
    assert np.isnan(peak(np.ones((1, 400, 2)))[0])
