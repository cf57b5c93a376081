"""Densities and divergences against SciPy, quadrature, dense covariances and Monte Carlo."""

import math

import numpy as np
import pytest
from closed_forms import dense_kl
from scipy import integrate, stats
from scipy.special import gammaln

from ctd.lfads.distributions import (
    ar1_kl,
    gaussian_kl,
    gaussian_log_likelihood,
    poisson_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")


def test_likelihoods_scipy():
    x = np.arange(6)
    log_rates = np.linspace(-3, 2, 6)
    np.testing.assert_allclose(
        poisson_log_likelihood(x, log_rates, gammaln(x + 1)),
        stats.poisson.logpmf(x, np.exp(log_rates)),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        gaussian_log_likelihood(x, 0.5, np.array(0.3)),
        stats.norm.logpdf(x, 0.5, math.sqrt(0.3)),
        rtol=1e-12,
    )


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
    assert float(ar1_kl(m, v, m0, v0, tau).sum()) == pytest.approx(expected, rel=1e-12)


def test_ar1_kl_monte_carlo():
    """4 standard errors of the mean over 200,000 draws."""
    m, v, m0, v0, tau = ar1_case()
    u = m + np.sqrt(v) * np.random.default_rng(2).standard_normal((200_000, len(m)))
    log_q = stats.norm.logpdf(u, m, np.sqrt(v)).sum(1)
    prior = stats.multivariate_normal(np.full(len(m), m0), ar1_covariance(len(m), v0, tau))
    draws = log_q - prior.logpdf(u)
    error = draws.std() / math.sqrt(len(draws))
    assert float(ar1_kl(m, v, m0, v0, tau).sum()) == pytest.approx(draws.mean(), abs=4 * error)


def test_ar1_prior_is_stationary():
    """A posterior with the process's own mean costs the same at every mean: m0 is where it stays."""
    _, v, _, v0, tau = ar1_case()
    at = [float(ar1_kl(np.full(12, m), v, m, v0, tau).sum()) for m in (0.0, 5.0)]
    assert at[0] == pytest.approx(at[1], rel=1e-12)
    # Without memory the process is independent steps.
    mean = np.linspace(-1, 1, 12)
    np.testing.assert_allclose(
        ar1_kl(mean, v, 0.1, v0, 1e-3), gaussian_kl(mean, v, 0.1, v0), rtol=1e-12
    )
