"""Metrics over all evaluation trials, some at hand, the others minibatch by minibatch, against scikit-learn and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from messages import refused
from scipy import stats

from ctd.kernel import inputs_of, static_of, traced_of
from ctd.late import Late
from ctd.lfads import Model
from ctd.lfads.data import make_dataset
from ctd.lfads.inference import posterior_mean
from ctd.lfads.metrics import r2
from ctd.lfads.model import Fitted
from ctd.lfads.scores import (
    SCORED,
    cycle_consistency,
    fitted_directions,
    psth_r2,
    regression,
    scores,
    seen_share,
    uncorrelated,
)
from ctd.lfads.weights import factor_weights, init_weights

linear_model, metrics = Late("sklearn.linear_model"), Late("sklearn.metrics")

pytestmark = pytest.mark.usefixtures("float64")

N_TRIALS, N_STEPS, N_UNITS = 11, 8, 6
SIZES = {
    "dtype": "float64", "encoder": 4, "controller": 4, "generator": 5, "n_factors": 3, "batch_size": 4,
    "n_samples": 2, "held_out_units": (1, 4), "held_out_bins": 2,
}  # fmt: skip
CONDITION = np.array([7, 2, 2, 7, 7, 2, 9, 2, 7, 7, 2])


def arrays():
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.5, 3, (20 + N_TRIALS, N_STEPS, N_UNITS))
    counts = rng.poisson(rates)
    counts[20:, :, 4] = 0  # a held-out unit that does not fire
    return {
        "train": counts[:20],
        "eval": counts[20:],
        "eval_condition": CONDITION,
        "eval_rates": rates[20:],
        "eval_states": rng.standard_normal((9, N_STEPS, 2)),  # of the first trials alone
    }


@pytest.fixture(scope="module")
def found():
    """(posterior means of all trials, scores where six of them are at hand, readouts of factors, of states)."""
    with jax.enable_x64(True):
        params = Model(**SIZES)
        static, data = static_of(params), make_dataset(arrays(), inputs_of(params))
        traced = jax.tree.map(jnp.asarray, traced_of(params))
        key = jax.random.key(1)

        @jax.jit
        def run(key, data):
            weights = init_weights(static, traced, key, 4, 0, jnp.asarray(data.bias))
            model = Fitted(static, 1e-4, data, weights)
            means = posterior_mean(model, data.evaluation, N_TRIALS, key, SCORED)
            some = {name: value[:6] for name, value in means.items()}
            readout = weights["output"]["w"]
            of_states = readout @ factor_weights(weights["generator"])
            return means, scores(model, key, some), readout, of_states

        return jax.tree.map(np.asarray, run(key, data))


def test_all_scores_are_compared(found):
    """Below, with the same numbers of the means of all trials."""
    assert set(found[1]) == {
        "rate_r2_weighted", "rate_r2_units", "state_r2_from_true", "state_r2_from_true_mean", "state_r2_of_true",
        "co_bps", "co_bps_units", "fp_bps", "psth_r2",
        "co_bps_true", "co_bps_units_true", "fp_bps_true", "psth_r2_true",
        "cycle_consistency", "cycle_consistency_states", "cycle_consistency_refitted",
    }  # fmt: skip


def test_rates_scikit_learn(found):
    means, scored, *_ = found
    true = arrays()["eval_rates"].reshape(-1, N_UNITS)
    rates = means["rates"].reshape(-1, N_UNITS)
    weighted = metrics.r2_score(true, rates, multioutput="variance_weighted")
    assert scored["rate_r2_weighted"] == pytest.approx(weighted, rel=1e-12)
    assert scored["rate_r2_units"] == pytest.approx(metrics.r2_score(true, rates), rel=1e-12)


def test_states_scikit_learn(found):
    means, scored, *_ = found
    true, inferred = arrays()["eval_states"].reshape(-1, 2), means["states"][:9].reshape(-1, 5)
    for name, x, y, over in (
        ("from_true", true, inferred, "variance_weighted"),  # CtDBenchmark
        ("from_true_mean", true, inferred, "uniform_average"),  # Sedler 2023
        ("of_true", inferred, true, "variance_weighted"),
    ):
        predicted = linear_model.LinearRegression().fit(x, y).predict(x)
        expected = metrics.r2_score(y, predicted, multioutput=over)
        # By the squared condition number of the states, about 1e4.
        assert scored[f"state_r2_{name}"] == pytest.approx(expected, rel=1e-8), name


def test_small_directions_of_true_states_count_in_float32():
    """Against NumPy's lstsq in float64; the last state is the first one again, and adds nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 50, 6)) * [1, 1e-1, 1e-2, 1e-3, 2e-4, 1e-4] + 3
    x = np.concatenate([x, x[..., :1]], axis=-1).astype(np.float32)
    own = (x[..., :6] - x[..., :6].mean((0, 1))) / x[..., :6].std((0, 1))
    y = own @ rng.standard_normal((6, 4)) + rng.standard_normal((8, 50, 4))

    def explained(x, y):
        found, _ = uncorrelated(x)
        columns = jnp.concatenate([found, y.astype(x.dtype)], axis=-1).reshape(400, -1)
        return regression(jnp.cov(columns.T, ddof=0), found.shape[-1])[0]

    flat, centred = x.reshape(400, 7).astype(float), (y - y.mean((0, 1))).reshape(400, 4)
    flat = flat - flat.mean(0)
    fitted = flat @ np.linalg.lstsq(flat, centred)[0]
    np.testing.assert_allclose(jax.jit(explained)(x, y), fitted.var(0), rtol=1e-3)


def of_means(data, means, **sizes):
    """(scores of these posterior means of all trials, in float32; the readout of factors)."""
    params = Model(**SIZES | {"dtype": "float32"} | sizes)
    static, traced = static_of(params), jax.tree.map(jnp.asarray, traced_of(params))
    data = make_dataset(data, inputs_of(params))
    weights = init_weights(static, traced, jax.random.key(0), 4, 0, jnp.asarray(data.bias))
    means = {name: jnp.asarray(value, jnp.float32) for name, value in means.items()}
    scored = jax.jit(
        lambda means: scores(Fitted(static, 1e-4, data, weights), jax.random.key(1), means)
    )
    return scored(means), np.asarray(weights["output"]["w"], float)


def test_states_that_hardly_move_count_in_float32():
    """Near 0.9, as those of a collapsed posterior: against NumPy in float64."""
    rng = np.random.default_rng(1)
    true = rng.standard_normal((N_TRIALS, N_STEPS, 2)).astype(np.float32)
    moved = true @ rng.standard_normal((2, 5)) + rng.standard_normal((N_TRIALS, N_STEPS, 5))
    states = (0.9 + 1e-4 * moved).astype(np.float32)
    means = {"states": states, "factors": states[..., :3], "rates": arrays()["eval_rates"]}
    scored, readout = of_means(arrays() | {"eval_states": true}, means)
    x, y = (a.reshape(-1, a.shape[-1]).astype(float) for a in (true, states))
    predicted = linear_model.LinearRegression().fit(x, y).predict(x)
    expected = metrics.r2_score(y, predicted, multioutput="variance_weighted")
    assert scored["state_r2_from_true"] == pytest.approx(expected, rel=1e-4)
    cycle = cycle_consistency(np.cov(y[:, :3].T, ddof=0), readout)
    assert scored["cycle_consistency"] == pytest.approx(float(cycle), rel=1e-4)


def test_bits_per_spike_scipy(found):
    """Of the model's rates and of the true ones."""
    means, scored, *_ = found
    counts = arrays()["eval"]

    def bits(rates, units, bins):
        x, r = counts[:, bins][..., units], rates[:, bins][..., units]
        null = np.broadcast_to(x.mean((0, 1)), x.shape)
        gain = stats.poisson.logpmf(x, r) - stats.poisson.logpmf(x, null)
        return gain.sum() / x.sum() / np.log(2)

    seen, later = slice(0, 6), slice(6, None)
    for rates, suffix in ((means["rates"], ""), (arrays()["eval_rates"], "_true")):
        # Unit 4 never fires: it counts with the others, and has no bits of its own.
        for name, *which in (
            ("co_bps", [1, 4], seen),
            ("co_bps_units", [1], seen),
            ("fp_bps", list(range(6)), later),
        ):
            assert scored[name + suffix] == pytest.approx(bits(rates, *which), rel=1e-12), name


def test_psth_scikit_learn(found):
    means, scored, *_ = found
    psth = lambda x: np.concatenate([x[name == CONDITION].mean(0) for name in (2, 7, 9)])
    data = psth(arrays()["eval"].astype(float))
    for rates, name in ((means["rates"], "psth_r2"), (arrays()["eval_rates"], "psth_r2_true")):
        expected = metrics.r2_score(data, psth(rates), multioutput="variance_weighted")
        assert scored[name] == pytest.approx(expected, rel=1e-12), name
    # Two conditions with one average are no reason to divide by a third, empty one.
    n, sums = np.array([2.0, 0.0]), np.arange(12.0).reshape(2, 3, 2) * [[[1]], [[0]]]
    assert jax.jit(psth_r2)(n, sums, sums) == 1


def test_psth_of_a_channel_that_never_changes():
    """It has no R2; in float32 its averages over the trials of conditions of other sizes are rounded otherwise."""
    data = np.random.default_rng(1).standard_normal((20 + N_TRIALS, N_STEPS, N_UNITS))
    data[..., 2] = 1.3
    given = {"train": data[:20], "eval": data[20:], "eval_condition": CONDITION}
    rates = 0.9 * given["eval"] + 0.05
    means = {"rates": rates, "states": np.ones((N_TRIALS, N_STEPS, 5)), "factors": rates[..., :3]}
    scored, _ = of_means(given, means, likelihood="gaussian")
    psth = lambda x: np.concatenate([x[name == CONDITION].mean(0) for name in (2, 7, 9)])
    true, model = (np.delete(psth(x), 2, axis=1) for x in (given["eval"], rates))
    expected = metrics.r2_score(true, model, multioutput="variance_weighted")
    assert scored["psth_r2"] == pytest.approx(expected, rel=1e-5)


def test_cycle_numpy(found):
    """Against factors sent through the readout, its components, and back."""
    means, scored, readout, of_states = found
    factors = means["factors"].reshape(-1, 3)
    centred = (factors - factors.mean(0)) @ readout.T
    _, s, rows = np.linalg.svd(centred, full_matrices=False)
    kept = rows[s**2 >= 0.01 * (s**2).sum()]
    back = centred @ kept.T @ kept @ np.linalg.pinv(readout).T + factors.mean(0)
    expected = metrics.r2_score(factors, back, multioutput="variance_weighted")
    assert scored["cycle_consistency"] == pytest.approx(expected, rel=1e-8)
    states = means["states"].reshape(-1, 5)
    centred = states - states.mean(0)
    left, s, rows = np.linalg.svd(of_states, full_matrices=False)
    k = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99)) + 1
    inverse = rows[:k].T @ np.diag(1 / s[:k]) @ left[:, :k].T
    back = centred @ of_states.T @ inverse.T + states.mean(0)
    expected = metrics.r2_score(states, back, multioutput="variance_weighted")
    assert scored["cycle_consistency_states"] == pytest.approx(expected, rel=1e-8)
    # Of 160 rows scikit-learn would leave out what is below 2e-5 of the largest.
    assert scored["cycle_consistency_refitted"] == pytest.approx(expected, rel=1e-8)


def test_cycle_by_a_readout_that_scikit_learn_refits():
    """Exact in float64; of float32 states without the directions below 1e5 eps = .0119 of the largest deviation.

    Here they are what the readout sees best, so that the two definitions are far apart, as on CtDBenchmark's autoencoder.
    That cut was `LinearRegression()` in scikit-learn 1.6.1, 1.7.2 and 1.8.0, which gave the singular values below; 1.5.2 had
    none, and from 1.9 on it has to be asked for.
    """
    rng, n = np.random.default_rng(0), 100_000
    turned = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    states = rng.standard_normal((n, 6)) * [1, 0.8, 0.5, 0.05, 0.005, 0.001] @ turned
    states -= states.mean(0)
    readout = rng.standard_normal((9, 6)) * [0.01, 0.1, 1, 3, 9, 9] @ turned
    covariance = np.cov(states.T, ddof=0)

    def by_scikit_learn(dtype):
        x = states.astype(dtype)
        regression = linear_model.LinearRegression(tol=n * np.finfo(dtype).eps)
        fitted = regression.fit(x, (states @ readout.T).astype(dtype))
        left, s, rows = np.linalg.svd(fitted.coef_.astype(float), full_matrices=False)
        k = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99)) + 1
        log_rates = fitted.predict(x).astype(float) - fitted.intercept_
        back = log_rates @ left[:, :k] / s[:k] @ rows[:k]
        return metrics.r2_score(x, back, multioutput="variance_weighted"), s

    exact, values = by_scikit_learn("float64")
    np.testing.assert_allclose(values, np.linalg.svd(readout)[1], rtol=1e-9)
    refitted, values = by_scikit_learn("float32")
    np.testing.assert_allclose(values, [6.1839, 1.951, 0.3166, 0.0224, 0, 0], atol=5e-5)
    share = jax.jit(seen_share)
    assert share(covariance, readout) == pytest.approx(exact, abs=1e-10)
    kept = np.asarray(jax.jit(fitted_directions)(covariance, n))
    # By the rounding of float32, a few times 1e-6 in each entry of the refitted readout.
    assert share(covariance, readout @ kept) == pytest.approx(refitted, abs=1e-4)
    assert refitted > exact + 0.1


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([1.0, 1.0, 1.0], 1.0),  # one to one
        ([1.0, 1.0, 0.0], 1 - 0.5 / 2.5),  # one factor of variance 0.5 is not seen
        ([1.0, 1.0, 0.1], 1 - 0.5 / 2.5),  # or with 0.25 % of the variance
    ],
)
def test_cycle_of_factors_that_are_not_seen(gains, expected):
    """By four units, of which the last is silent."""
    readout = np.eye(4)[:, :3] * gains
    for cycle in (cycle_consistency, seen_share):
        found = float(jax.jit(cycle)(np.diag([1.0, 1.0, 0.5]), readout))
        assert found == pytest.approx(expected, rel=1e-12)


def test_constant_columns_are_left_out():
    """A unit of constant rate has no R2; a state that never moves explains nothing."""
    assert jax.jit(r2)(np.array([1.0, 5.0]), np.array([4.0, 0.0])) == (0.75, 0.75)
    y, x = np.array([[0.0, 1], [2, 1], [4, 1]]), np.array([[1.0, 3], [2, 3], [4, 1]])
    whole, _ = jax.jit(r2)(((x - y) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0))
    expected = metrics.r2_score(y, x, multioutput="variance_weighted")
    assert whole == pytest.approx(expected)
    covariance = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    explained, variance = jax.jit(regression, static_argnums=1)(covariance, 2)
    assert (explained, variance) == (0.5, 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"eval_condition": CONDITION[:5]},
        {"eval_condition": CONDITION[:, None]},
        {"eval_states": np.zeros((11, 7, 2))},
    ],
)
def test_what_does_not_fit_is_told(change):
    given = {k: v for k, v in (arrays() | change).items() if v is not None}
    with refused(ValueError) as error:
        make_dataset(given, inputs_of(Model(**SIZES)), "spikes.h5")
    assert str(error.value).startswith("spikes.h5: ")
    assert len(str(error.value).splitlines()) == 1
