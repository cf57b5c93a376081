"""Log densities and Kullback-Leibler divergences of LFADS, in nats, for each entry; the caller sums them.

A Gaussian is given by (mean, variance). The same floored variance is used in the density, in its normaliser
and in the samples. All other likelihoods have the logarithm of a mean first, so that a model starts and is read
alike under each.
"""

from __future__ import annotations

from typing import Any

from ctd.late import jax, jnp

LOG_2PI = 1.8378770664093453

N_OUTPUTS = {
    "poisson": 1,
    "negative_binomial": 2,
    "gaussian": 2,
    "gamma": 2,
    "zero_inflated_gamma": 3,
}
"""Likelihood -> the numbers that a model gives for each entry of the data, in `data_log_likelihood`'s order."""
COUNTS = ("poisson", "negative_binomial")
"""Likelihoods of counts."""
LOG_LARGE, LOG_LARGEST = 4.605170185988092, 13.815510557964274
"""log 100: from shapes and sizes above it on, float32 would lose what is left of log G, so that Stirling's series takes its
place. log 1e6: larger ones count as this one."""


def poisson_log_likelihood(counts: Any, log_rates: Any, log_factorial: Any) -> jax.Array:
    """log p(x | r) = x log r - r - log x!, with r the expected count of the bin."""
    return counts * log_rates - jnp.exp(log_rates) - log_factorial


def gaussian_log_likelihood(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """log N(x; m, v) = -(log 2 pi v + (x - m)^2 / v) / 2."""
    return -0.5 * (LOG_2PI + jnp.log(variance) + (x - mean) ** 2 / variance)


def negative_binomial_log_likelihood(
    counts: Any, log_mean: Any, log_size: Any, log_factorial: Any
) -> jax.Array:
    """log p(x | m, r) = log G(x + r) - log G(r) - log x! + r log r / (r + m) + x log m / (r + m).

    The mean is m and the variance m + m^2 / r: with r to infinity it is Poisson's.
    """
    is_large = log_size > LOG_LARGE
    small, large = _either(log_size, is_large)
    size = jnp.exp(small)
    gammaln = jax.scipy.special.gammaln
    log_total = jnp.logaddexp(small, log_mean)
    ways = gammaln(counts + size) - gammaln(size) - log_factorial
    exact = ways + size * (small - log_total) + counts * (log_mean - log_total)
    size = jnp.exp(large)
    total = counts + size
    by_count, by_mean = jnp.log1p(counts / size), jax.nn.softplus(log_mean - large)
    ways = (total - 0.5) * by_count - counts + _stirling(total) - _stirling(size)
    series = ways - total * by_mean + counts * log_mean - log_factorial
    return jnp.where(is_large, series, exact)


def _either(log_shape: jax.Array, is_large: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(for log G, for Stirling's series): each as given where it is used, elsewhere what has finite slopes."""
    large = jnp.minimum(jnp.where(is_large, log_shape, LOG_LARGE), LOG_LARGEST)
    return jnp.where(is_large, LOG_LARGE, log_shape), large


def _stirling(x: jax.Array) -> jax.Array:
    """log G(x) - (x - 1/2) log x + x - log(2 pi) / 2 for x > 100, to 1e-13 (Abramowitz & Stegun, 6.1.41)."""
    return (1 / 12 - 1 / (360 * x**2)) / x


def gamma_log_likelihood(x: Any, log_mean: Any, log_shape: Any) -> jax.Array:
    """log p(x | m, a) = a log(a / m) + (a - 1) log x - a x / m - log G(a), for x > 0; that of x = 1 elsewhere.

    The mean is m and the variance m^2 / a.
    """
    is_large = log_shape > LOG_LARGE
    small, large = _either(log_shape, is_large)
    shape = jnp.exp(small)
    x = jnp.where(x > 0, x, 1)
    scaled = shape * x * jnp.exp(-log_mean)
    exact = (
        shape * (small - log_mean)
        + (shape - 1) * jnp.log(x)
        - scaled
        - jax.scipy.special.gammaln(shape)
    )
    shape, log_ratio = jnp.exp(large), jnp.log(x) - log_mean
    width = 0.5 * (large - LOG_2PI) - _stirling(shape)
    series = shape * (log_ratio - jnp.expm1(log_ratio)) - jnp.log(x) + width
    return jnp.where(is_large, series, exact)


def zero_inflated_gamma_log_likelihood(
    x: Any, log_mean: Any, log_shape: Any, logit: Any
) -> jax.Array:
    """log(1 - q) at x = 0, log q + log p(x | m, a) of the gamma distribution above; q = 1 / (1 + exp(-logit)).

    For deconvolved calcium events (Wei et al. 2020, PLoS Comput Biol 16:e1008198). The mean is q m.
    """
    log_q, log_rest = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return jnp.where(x > 0, log_q + gamma_log_likelihood(x, log_mean, log_shape), log_rest)


def data_log_likelihood(
    likelihood: str, x: Any, output: jax.Array, log_factorial: Any, floor: Any
) -> jax.Array:
    """log p(x | output). output: (..., N_OUTPUTS x unit), one number of all units after the other."""
    if likelihood == "poisson":
        return poisson_log_likelihood(x, output, log_factorial)
    first, *rest = jnp.split(output, N_OUTPUTS[likelihood], axis=-1)
    if likelihood == "gaussian":
        return gaussian_log_likelihood(x, first, jnp.exp(rest[0]) + floor)
    if likelihood == "gamma":
        return gamma_log_likelihood(x, first, rest[0])
    if likelihood == "zero_inflated_gamma":
        return zero_inflated_gamma_log_likelihood(x, first, rest[0], rest[1])
    return negative_binomial_log_likelihood(x, first, rest[0], log_factorial)


def data_mean(likelihood: str, output: jax.Array) -> jax.Array:
    """(..., unit) the mean of the data given the output, as `data_log_likelihood` takes it."""
    if likelihood == "poisson":
        return jnp.exp(output)
    n = output.shape[-1] // N_OUTPUTS[likelihood]
    if likelihood == "gaussian":
        return output[..., :n]
    mean = jnp.exp(output[..., :n])
    if likelihood == "zero_inflated_gamma":
        mean *= jax.nn.sigmoid(output[..., 2 * n :])
    return mean


def gaussian_kl(mean: Any, variance: Any, prior_mean: Any, prior_variance: Any) -> jax.Array:
    """KL(N(m, v) || N(m0, v0)) = (log v0 / v + (v + (m - m0)^2) / v0 - 1) / 2."""
    ratio = variance / prior_variance
    distance = (mean - prior_mean) ** 2 / prior_variance
    return 0.5 * (ratio + distance - 1 - jnp.log(ratio))


def ar1_kl(
    mean: jax.Array, variance: jax.Array, prior_mean: Any, prior_variance: Any, tau: Any
) -> jax.Array:
    """KL of q(u) = prod_t N(m_t, v_t) from the stationary AR(1) process p, one term a time step.

    p: u_1 ~ N(m0, v0) and u_t ~ N(m0 + phi (u_{t-1} - m0), (1 - phi^2) v0), with phi = exp(-1 / tau), so
    that every u_t has the mean m0 and the variance v0 (Pandarinath et al. 2018, with m0 inside the
    bracket). In the expectation of log p under q the square of step t is

        E (d_t - phi d_{t-1})^2 = v_t + phi^2 v_{t-1} + (m_t - m0 - phi (m_{t-1} - m0))^2,  d = u - m0,

    which is exact for a q with independent steps. The means that a controller gives depend, through the
    factors, on inputs drawn earlier; like all implementations of LFADS we take them as given.

    Args:
        mean, variance: (time, ...).
        prior_mean, prior_variance, tau: the stationary moments and the autocorrelation time in steps.

    Returns:
        (time, ...); the sum over time is the divergence.
    """
    phi = jnp.exp(-1 / tau)
    innovation = -jnp.expm1(-2 / tau) * prior_variance  # (1 - phi^2) v0
    d = mean - prior_mean
    first = gaussian_kl(mean[:1], variance[:1], prior_mean, prior_variance)
    moved = d[1:] - phi * d[:-1]
    second_moment = variance[1:] + phi**2 * variance[:-1] + moved**2
    rest = 0.5 * (jnp.log(innovation / variance[1:]) + second_moment / innovation - 1)
    return jnp.concatenate([first, rest])
