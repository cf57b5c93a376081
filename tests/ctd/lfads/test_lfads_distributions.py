"""Densities and divergences against SciPy, quadrature, dense covariances and Monte Carlo."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lfads_cases import dense_kl
from scipy import integrate, stats
from scipy.special import gammaln

from ctd.lfads import Model
from ctd.lfads.distributions import (
    N_OUTPUTS,
    ar1_kl,
    data_log_likelihood,
    data_mean,
    first_outputs,
    gamma_log_likelihood,
    gaussian_kl,
    gaussian_log_likelihood,
    negative_binomial_log_likelihood,
    poisson_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("log_variance", [-20.0, -7.0, 0.0])
def test_gaussian_likelihood_integrates_to_one(log_variance):
    """With the floored variance in the exponent and in the normaliser alike."""
    variance = math.exp(log_variance) + Model().variance_floor
    x = np.linspace(-12, 12, 4001) * math.sqrt(variance)
    density = np.exp(jax.jit(gaussian_log_likelihood)(x, 0.0, variance))
    # The trapezium rule is exact to rounding for a density that ends at 12 deviations.
    assert integrate.trapezoid(density, x) == pytest.approx(1, abs=1e-9)


def test_likelihoods_scipy():
    x = np.arange(6)
    log_rates = np.linspace(-3, 2, 6)
    np.testing.assert_allclose(
        jax.jit(poisson_log_likelihood)(x, log_rates, gammaln(x + 1)),
        stats.poisson.logpmf(x, np.exp(log_rates)),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        jax.jit(gaussian_log_likelihood)(x, 0.5, 0.3),
        stats.norm.logpdf(x, 0.5, math.sqrt(0.3)),
        rtol=1e-12,
    )


def frozen(likelihood, output):
    """SciPy's distribution with the outputs of one entry; that of what is not 0, for a zero-inflated one."""
    mean = math.exp(output[0])
    if likelihood == "poisson":
        return stats.poisson(mean)
    if likelihood == "gaussian":
        return stats.norm(output[0], math.exp(output[1] / 2))
    shape = math.exp(output[1])
    if likelihood == "negative_binomial":
        return stats.nbinom(shape, shape / (shape + mean))
    return stats.gamma(shape, scale=mean / shape)


VALUES = {
    "poisson": [0, 1, 7, 300],
    "negative_binomial": [0, 1, 7, 300],
    "gaussian": [-2.0, 0.0, 0.3, 7.0],
    "gamma": [1e-6, 0.3, 1.0, 40.0],
    "zero_inflated_gamma": [0.0, 1e-6, 1.0, 40.0],
}
OUTPUTS = [(0.4, -1.2, 0.7), (-3.0, 2.5, -4.0), (2.0, 4.0, 0.0)]


@pytest.mark.parametrize("likelihood", VALUES)
def test_likelihoods_of_data_scipy(likelihood):
    """Density and mean of three units with outputs of their own, and slopes that are finite also at 0."""
    x = np.array(VALUES[likelihood], float)[:, None] * np.ones(3)
    parts = np.array(OUTPUTS).T[: N_OUTPUTS[likelihood]]
    output = np.tile(parts.ravel(), (len(x), 1))

    @jax.jit
    def found(output):
        density = lambda output: data_log_likelihood(likelihood, x, output, gammaln(x + 1), 0.0)
        slopes = jax.grad(lambda output: density(output).sum())(output)
        return density(output), data_mean(likelihood, output)[0], slopes

    density, mean, slopes = found(output)
    expected, means = np.empty(x.shape), np.empty(3)
    for unit, given in enumerate(OUTPUTS):
        law = frozen(likelihood, given)
        log = law.logpmf if likelihood in ("poisson", "negative_binomial") else law.logpdf
        q = 1 / (1 + math.exp(-given[2])) if likelihood == "zero_inflated_gamma" else 1.0
        with np.errstate(divide="ignore"):
            positive = math.log(q) + log(x[:, unit])
        is_zero = (x[:, unit] == 0) & (likelihood == "zero_inflated_gamma")
        expected[:, unit] = np.where(is_zero, np.log1p(-q) if q < 1 else 0, positive)
        means[unit] = q * law.mean()
    # Counts of 300 are differences of logarithms of G near 1e3: ten digits are left of 16.
    np.testing.assert_allclose(density, expected, rtol=1e-10)
    np.testing.assert_allclose(mean, means, rtol=1e-12)
    assert np.isfinite(slopes).all()


def test_large_shapes_in_float32():
    """SciPy's densities; a negative binomial one of infinite size is Poisson's. Shapes beyond 1e6 count as this."""
    log_shape = np.array([4.7, 8.0, 13.0, 90.0], np.float32)
    shapes, mean = np.exp(np.minimum(log_shape.astype(float), np.log(1e6)))[:, None], 2.0
    x = np.arange(12.0)
    near = (mean * np.exp(np.linspace(-3, 3, 7) / np.sqrt(shapes))).astype(np.float32)
    single = lambda a: np.asarray(a, np.float32)

    def densities(log_shape, near):
        counts = single(x), single(np.log(mean)), log_shape, single(gammaln(x + 1))
        real = gamma_log_likelihood(near, single(np.log(mean)), log_shape)
        return negative_binomial_log_likelihood(*counts), real

    along = lambda one, near: jax.jvp(lambda s: densities(s, near), (one,), (jnp.ones_like(one),))
    (counts, real), slopes = jax.jit(jax.vmap(along))(log_shape, near)
    # A hundred roundings of terms near 20.
    expected = stats.nbinom(shapes, shapes / (shapes + mean)).logpmf(x)
    np.testing.assert_allclose(counts, expected, atol=2e-4)
    np.testing.assert_allclose(counts[-1], stats.poisson(mean).logpmf(x), atol=2e-4)
    # Three deviations of 1e-3 are told to 1e-7, and 1e6 times their square to 1e-3.
    expected = stats.gamma(shapes, scale=mean / shapes).logpdf(near.astype(float))
    np.testing.assert_allclose(real, expected, atol=3e-3)
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("likelihood", VALUES)
def test_first_outputs_have_the_moments_of_the_data(likelihood):
    """Mean and variance of what SciPy draws, unit by unit, are those of the distribution with these outputs."""
    rng = np.random.default_rng(0)
    inflated = likelihood == "zero_inflated_gamma"
    laws = [frozen(likelihood, given) for given in OUTPUTS[:2]]
    data = np.stack([law.rvs((200, 40), random_state=rng) for law in laws], axis=-1)
    if inflated:
        data = data * (rng.random(data.shape) < 0.3)
    found = first_outputs(likelihood, data).reshape(N_OUTPUTS[likelihood], 2)
    np.testing.assert_allclose(data_mean(likelihood, found.ravel()), data.mean((0, 1)), rtol=1e-9)
    for unit, law in enumerate(laws):
        own = frozen(likelihood, found[:, unit])
        values = data[..., unit][data[..., unit] > 0] if inflated else data[..., unit]
        expected = values.mean() if likelihood == "poisson" else values.var()
        bounded = not 0.05 < math.exp(found[1, unit]) < 100 if len(found) > 1 else False
        if not bounded or likelihood == "gaussian":
            assert own.var() == pytest.approx(expected, rel=1e-9), law


def test_first_outputs_of_silent_units_are_finite():
    data = np.zeros((3, 4, 2), int)
    data[..., 1] = 2  # constant counts: less than Poisson's variance
    for likelihood in ("poisson", "negative_binomial", "zero_inflated_gamma"):
        assert np.isfinite(first_outputs(likelihood, data)).all(), likelihood


def test_gaussian_kl_quadrature():
    m, v, m0, v0 = 0.4, 0.2, -0.3, 0.7
    q, p = stats.norm(m, math.sqrt(v)), stats.norm(m0, math.sqrt(v0))
    expected = integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -8, 8)[0]
    assert float(gaussian_kl(m, v, m0, v0)) == pytest.approx(expected, rel=1e-8)


def ar1_case():
    rng = np.random.default_rng(1)
    return rng.normal(0.2, 0.5, 12), rng.uniform(0.05, 0.4, 12), 0.3, 0.25, 2.5


def ar1_covariance(n, variance, tau):
    t = np.arange(n)
    return variance * np.exp(-np.abs(t[:, None] - t) / tau)


def test_ar1_kl_dense():
    """Against the formula for two Gaussian vectors with the covariance of the stationary process."""
    m, v, m0, v0, tau = ar1_case()
    expected = dense_kl(m, np.diag(v), m0, ar1_covariance(len(m), v0, tau))
    assert jax.jit(ar1_kl)(m, v, m0, v0, tau).sum() == pytest.approx(expected, rel=1e-12)


def test_ar1_kl_monte_carlo():
    """4 standard errors of the mean over 200,000 draws."""
    m, v, m0, v0, tau = ar1_case()
    u = m + np.sqrt(v) * np.random.default_rng(2).standard_normal((200_000, len(m)))
    log_q = stats.norm.logpdf(u, m, np.sqrt(v)).sum(1)
    prior = stats.multivariate_normal(np.full(len(m), m0), ar1_covariance(len(m), v0, tau))
    draws = log_q - prior.logpdf(u)
    error = draws.std() / math.sqrt(len(draws))
    assert jax.jit(ar1_kl)(m, v, m0, v0, tau).sum() == pytest.approx(draws.mean(), abs=4 * error)


def test_ar1_prior_is_stationary():
    """A posterior with the process's own mean costs the same at every mean: m0 is where it stays."""
    _, v, _, v0, tau = ar1_case()
    kl = jax.jit(ar1_kl)
    at = [float(kl(np.full(12, m), v, m, v0, tau).sum()) for m in (0.0, 5.0)]
    assert at[0] == pytest.approx(at[1], rel=1e-12)
    # Without memory the process is independent steps.
    mean = np.linspace(-1, 1, 12)
    np.testing.assert_allclose(
        kl(mean, v, 0.1, v0, 1e-3), jax.jit(gaussian_kl)(mean, v, 0.1, v0), rtol=1e-12
    )
