"""What posterior means are worth, against NumPy and SciPy."""

import jax
import numpy as np
import pytest
from scipy import stats

from ctd.lfads import metrics

pytestmark = pytest.mark.usefixtures("float64")


def test_bits_per_spike_numpy():
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.1, 2, (5, 6, 3))
    counts = rng.poisson(rates)
    counts[..., 2] = 0  # a silent unit
    null = np.maximum(counts.mean((0, 1)), 1e-300)
    gain = stats.poisson.logpmf(counts, rates) - stats.poisson.logpmf(counts, null)
    expected = gain.sum() / counts.sum() / np.log(2)
    assert float(jax.jit(metrics.bits_per_spike)(counts, rates)) == pytest.approx(expected)
    assert np.isnan(jax.jit(metrics.bits_per_spike)(0 * counts, rates)), "no spike at all"


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([4.0], 4.0),
        ([4.0, 2.0, 3.0], 0.3 * (0.3 * 4 + 0.7 * 2) + 0.7 * 3),
        ([4.0, 2.0, np.nan, np.nan], 0.3 * 4 + 0.7 * 2),
        ([np.nan, np.nan], np.nan),
    ],
)
def test_smoothed_up_to_the_last_evaluation(curve, expected):
    found = float(metrics.smoothed(np.array(curve)))
    assert found == pytest.approx(expected, rel=1e-14, nan_ok=True)


def test_squared_correlation_numpy():
    """Of each trial and unit; NaN for a unit that does not vary."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 10, 4))
    b[..., 3] = 1.0
    found = np.asarray(jax.jit(metrics.squared_correlation)(a, b))
    of = lambda i, j: np.corrcoef(a[i, :, j], b[i, :, j])[0, 1] ** 2
    expected = [[of(i, j) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-10)
    assert np.isnan(found[:, 3]).all()


def test_input_r2_by_lag():
    """An input inferred one bin early, in another channel and of another sign, peaks at lag 1."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal((6, 20, 1))
    inferred = np.stack([rng.standard_normal((6, 20)), -3 * np.roll(true[..., 0], -1, axis=1)], -1)
    r2 = np.asarray(jax.jit(metrics.input_r2)(inferred, true))
    lags = list(metrics.lags(20))
    assert r2[lags.index(1)] == pytest.approx(1, abs=1e-12)
    assert max(r2[k] for k, lag in enumerate(lags) if lag != 1) < 0.3


def test_inputs_that_never_move_are_left_out():
    """At lag 0, which is the only one of so few bins."""
    x = np.random.default_rng(0).standard_normal((3, 4, 1))
    still = np.concatenate([x, np.ones_like(x)], axis=-1)
    given = (x, x), (x, still), (still, x), (still, still)
    expected, *found = jax.jit(lambda given: [metrics.input_r2(*pair) for pair in given])(given)
    assert expected == pytest.approx(1)
    for r2 in found:
        np.testing.assert_array_equal(r2, expected)


def test_initial_state_r2_by_variance():
    """One direction of nine times the variance of another; half of the first is inferred, none of the other."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 4))
    truth = np.stack([3 * (z[:, 0] + z[:, 1]) / 2**0.5, z[:, 2]], axis=1)
    inferred = np.stack([-2 * z[:, 0] + 1, z[:, 3]], axis=1)
    found = float(jax.jit(metrics.initial_state_r2)(inferred, truth))
    # 0.5 x 9 / (9 + 1); estimated from 2,000 trials to about 0.016.
    assert found == pytest.approx(0.45, abs=0.05)
    assert np.isnan(float(metrics.initial_state_r2(inferred[:3], truth[:3])))


def test_ridge_recovers_a_linear_readout():
    rng = np.random.default_rng(0)
    x, readout = rng.standard_normal((2, 30, 5, 4)), rng.standard_normal((4, 2))
    noise = 0.5 * rng.standard_normal((2, 30, 5, 2))
    y = x @ readout + 3 + noise

    @jax.jit
    def r2(x, y):
        residual = metrics.ridge(x[0], y[0]).residual(x[1], y[1])
        return metrics.r2((residual**2).sum((0, 1)), metrics.squares(y[1]))[1]

    found = float(r2(x, y))
    # Least squares with a constant, in NumPy; the ridge of 1e-4 of a variance moves R2 by less than 1e-3.
    design = lambda a: np.c_[a.reshape(-1, 4), np.ones(150)]
    fit = np.linalg.lstsq(design(x[0]), y[0].reshape(-1, 2), rcond=None)[0]
    rest = y[1].reshape(-1, 2) - design(x[1]) @ fit
    expected = np.mean(1 - rest.var(0) / y[1].reshape(-1, 2).var(0))
    assert found == pytest.approx(expected, abs=2e-3)
    still = np.full((2, 30, 5, 1), 0.3)  # a channel that does not move
    both = np.concatenate([y, still], axis=-1)
    assert float(r2(x, both)) == pytest.approx(found)


def test_constants_have_no_variance():
    """In float32 the mean of 10,000 times 0.1 is not 0.1."""
    true = np.full((200, 50, 2), 0.1, np.float32)
    true[..., 1] = np.random.default_rng(0).random((200, 50))
    alike = np.tile(np.array([0.1, 0.7], np.float32), (40, 1))
    squares, rates, starts = jax.jit(
        lambda true, alike: (
            metrics.squares(true),
            metrics.squared_correlation(2 * true + 1, true),
            metrics.initial_state_r2(true[:40, :2, 1], alike),
        )
    )(true, alike)
    assert squares[0] == 0
    # Sums of 10,000 terms in float32.
    assert float(squares[1]) == pytest.approx(true[..., 1].astype(float).var() * 10_000, rel=1e-4)
    np.testing.assert_allclose(rates[:, 1], 1, rtol=1e-4)
    assert np.isnan(rates[:, 0]).all()
    assert np.isnan(starts)
