"""jobs.report.effects against SciPy and closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway, rankdata, spearmanr

from jobs.report.effects import bins_of, effects, effects_of_stores, ranks_of, variance_share


def test_effects_agree_with_scipy():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.integers(0, 4, 300).astype(float)})
    frame["text"] = np.where(frame.b > 1, "high", "low")
    frame["y"] = np.exp(frame.b + 0.3 * frame.a)
    found = {e.parameter: e for e in effects(frame, ["a", "b", "text"], ["y"])}
    for name in ("a", "b"):
        expected = spearmanr(frame[name], frame.y).statistic
        assert found[name].rho == pytest.approx(expected, abs=1e-12)
    assert found["text"].rho is None
    ranks = frame.y.rank().to_numpy()
    for name in ("b", "text"):
        groups = [ranks[frame[name] == v] for v in frame[name].unique()]
        n, k, f = 300, len(groups), f_oneway(*groups).statistic
        eta2 = f * (k - 1) / (f * (k - 1) + n - k)
        expected = 1 - (1 - eta2) * (n - 1) / (n - k)
        assert found[name].share == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("values", [[], [3], [2, 2, 1], [0.5, np.inf, -np.inf, 0.5], [1.0, np.nan]])
def test_ranks_are_those_of_scipy(values):
    np.testing.assert_array_equal(ranks_of(np.array(values)), rankdata(values))


def test_effects_are_of_the_items_that_have_the_parameter():
    """On a page of two stores, a parameter of one of them explains what it explains on that store's own page."""
    rng = np.random.default_rng(0)
    own = pd.DataFrame({"rate": rng.uniform(size=40), "cell": rng.choice(["gru", "lstm"], 40)})
    own["loss"] = own.rate + (own.cell == "gru") + 0.1 * rng.normal(size=40)
    other = pd.DataFrame({"rate": np.nan, "cell": "", "loss": rng.normal(size=30)})
    alone = effects(own, ["rate", "cell"], ["loss"])
    assert effects(pd.concat([own, other]), ["rate", "cell"], ["loss"]) == alone
    assert [found.n for found in alone] == [40, 40]


def test_effects_of_a_small_random_sweep():
    """12 items are enough to see what decides. Ranks 1 ... n have the variance (n^2 - 1) / 12."""
    frame = pd.DataFrame({"a": np.geomspace(1, 100, 12), "y": np.arange(12.0)})
    (found,) = effects(frame, ["a"], ["y"])
    within, total = 3 * 4 * (4**2 - 1) / 12, 12 * (12**2 - 1) / 12
    assert found.share == pytest.approx(1 - within / total * 11 / 9, abs=1e-12)
    assert found.rho == pytest.approx(1)


def test_variance_share_of_noise_is_nil_on_average():
    """Without the adjustment 10 bins of 50 values would explain 9/49 = 18 %."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        bins = bins_of(rng.normal(size=50))
        values = rng.permutation(50.0 + np.arange(50))
        n, k = 50, bins.max() + 1
        means = np.bincount(bins, values) / np.bincount(bins)
        eta2 = np.sum(np.bincount(bins) * (means - values.mean()) ** 2) / np.var(values) / n
        shares.append(1 - (1 - eta2) * (n - 1) / (n - k))
        assert variance_share(bins, values) == pytest.approx(max(0, shares[-1]), abs=1e-12)
    # Standard error of the mean of 200 shares whose standard deviation is 0.08.
    assert abs(np.mean(shares)) < 4 * 0.08 / np.sqrt(200)


def test_bins_are_equally_filled_or_the_values():
    assert list(np.bincount(bins_of(np.arange(1000.0)))) == [100] * 10
    assert list(np.bincount(bins_of(np.arange(12.0)))) == [4] * 3
    assert list(bins_of(np.array(["b", "a", "b"], object))) == [1, 0, 1]
    assert list(bins_of(np.array([5, 5, 7]))) == [0, 0, 1]
    assert bins_of(np.zeros(50)).max() == 0


def test_a_parameter_is_measured_within_stores():
    """The second store is far worse at any rate, and has larger rates; a field that only one store varies is of that store."""
    rate = np.array([*np.arange(20.0), *np.arange(20.0) + 100])
    store = np.repeat(["a", "b"], 20)
    columns = {
        "store": store, "rate": rate, "cut": np.where(store == "a", rate % 2, 0.0),
        "loss": np.where(store == "a", -rate, 1e3 - rate),
    }  # fmt: skip
    found = {e.parameter: e for e in effects_of_stores(columns, ["store", "rate", "cut"], ["loss"])}
    assert found["store"].share > 0.7, "itself as it is"
    assert found["rate"].rho < -0.99 < 0 < effects(columns, ["rate"], ["loss"])[0].rho
    assert (found["cut"].n, found["cut"].share < 0.1) == (20, True)
