"""Log densities and Kullback-Leibler divergences of LFADS, in nats for each entry; the caller sums over entries.

A Gaussian has a mean and a variance, which includes a floor wherever it appears: in the density, in its normaliser
and in the samples. The first output of every other likelihood is the logarithm of a mean, so that models of different
likelihoods start alike and their rates are read alike.

Arguments broadcast against each other; data `x`, counts too, are floats. `first_outputs` has the biases of a model
before training, by the method of moments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ctd.late import Array, Float, Number, jax, jnp

LOG_2PI = 1.8378770664093453

N_OUTPUTS = {
    "poisson": 1,
    "negative_binomial": 2,
    "gaussian": 2,
    "gamma": 2,
    "zero_inflated_gamma": 3,
}
"""Likelihood -> how many numbers a model outputs for each entry of the data; `data_log_likelihood` has their order."""
COUNTS = ("poisson", "negative_binomial")
"""Likelihoods of counts."""
LOG_LARGE, LOG_LARGEST = 4.605170185988092, 13.815510557964274
"""Bounds of log shapes and sizes. Above log 100, differences of log G cancel in float32, and Stirling's series takes their
place. Above log 1e6 a shape counts as 1e6: the distribution no longer changes in float32."""
SMALLEST, LARGEST = 0.05, 100.0
"""Bounds of the shapes and sizes of `first_outputs`: moments of few spikes give 0 or infinity."""


def poisson_log_likelihood(
    counts: Number, log_rates: Number, log_factorial: Number
) -> Float[Array, "..."]:
    """log p(x | r) = x log r - r - log x!, with r the expected count of the bin.

    >>> print(f"{poisson_log_likelihood(2.0, jnp.log(3.0), jnp.log(2.0)):.3f}")  # 2 log 3 - 3 - log 2
    -1.496

    Args:
        counts: x, whole numbers as floats.
        log_rates: log r.
        log_factorial: log x!, from a table, since log G of every entry would take as long as all the rest.

    Returns:
        Log probabilities (nats), of the broadcast shape.
    """
    return counts * log_rates - jnp.exp(log_rates) - log_factorial


def gaussian_log_likelihood(x: Number, mean: Number, variance: Number) -> Float[Array, "..."]:
    """log N(x; m, v) = -(log 2 pi v + (x - m)^2 / v) / 2.

    >>> print(f"{gaussian_log_likelihood(1.0, 1.0, 1.0):.3f}")  # -log(2 pi) / 2
    -0.919

    Args:
        x: data.
        mean: m.
        variance: v, above 0.

    Returns:
        Log densities (nats), of the broadcast shape.
    """
    return -0.5 * (LOG_2PI + jnp.log(variance) + (x - mean) ** 2 / variance)


def negative_binomial_log_likelihood(
    counts: Number, log_mean: Number, log_size: Number, log_factorial: Number
) -> Float[Array, "..."]:
    """log p(x | m, r) = log G(x + r) - log G(r) - log x! + r log r / (r + m) + x log m / (r + m).

    The mean is m, the variance m + m^2 / r; as the size r grows, the distribution becomes Poisson's.

    >>> print(f"{negative_binomial_log_likelihood(0.0, jnp.log(2.0), jnp.log(2.0), 0.0):.3f}")  # 2 log(1 / 2)
    -1.386

    Args:
        counts: x, whole numbers as floats.
        log_mean: log m.
        log_size: log r; above log 1e6 it counts as log 1e6.
        log_factorial: log x!.

    Returns:
        Log probabilities (nats), of the broadcast shape.
    """
    is_large = log_size > LOG_LARGE
    small, large = _either(log_size, is_large)
    size = jnp.exp(small)
    gammaln = jax.scipy.special.gammaln
    log_total = jnp.logaddexp(small, log_mean)
    log_binomial = gammaln(counts + size) - gammaln(size) - log_factorial
    exact = log_binomial + size * (small - log_total) + counts * (log_mean - log_total)
    # log G(x + r) - log G(r) by Stirling's series, with the terms that cancel already taken out.
    size = jnp.exp(large)
    total = counts + size
    by_count, by_mean = jnp.log1p(counts / size), jax.nn.softplus(log_mean - large)
    log_binomial = (total - 0.5) * by_count - counts + _stirling(total) - _stirling(size)
    series = log_binomial - total * by_mean + counts * log_mean - log_factorial
    return jnp.where(is_large, series, exact)


def _either(log_shape: Number, is_large: Array | bool) -> tuple[Array, Array]:
    """(log shape for log G, log shape for Stirling's series), each replaced by log 100 where the other is used.

    jnp.where differentiates both branches: an overflow in the one that it drops would make the gradient NaN.
    """
    large = jnp.minimum(jnp.where(is_large, log_shape, LOG_LARGE), LOG_LARGEST)
    return jnp.where(is_large, LOG_LARGE, log_shape), large


def _stirling(x: Array) -> Array:
    """log G(x) - (x - 1/2) log x + x - log(2 pi) / 2 for x > 100, to 1e-13 (Abramowitz & Stegun, 6.1.41)."""
    return (1 / 12 - 1 / (360 * x**2)) / x


def gamma_log_likelihood(x: Number, log_mean: Number, log_shape: Number) -> Float[Array, "..."]:
    """log p(x | m, a) = a log(a / m) + (a - 1) log x - a x / m - log G(a), for x > 0.

    The mean is m, the variance m^2 / a. At x <= 0, outside the support, the value is that at x = 1, so that masked
    entries keep finite gradients.

    >>> print(f"{gamma_log_likelihood(1.0, jnp.log(2.0), 0.0):.3f}")  # shape 1: exponential, -log 2 - 1 / 2
    -1.193

    Args:
        x: data.
        log_mean: log m.
        log_shape: log a; above log 1e6 it counts as log 1e6.

    Returns:
        Log densities (nats), of the broadcast shape.
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
    # With y = log(x / m): a (y - expm1(y)) is 0 at the mean, where the terms of the exact form cancel.
    shape, log_ratio = jnp.exp(large), jnp.log(x) - log_mean
    width = 0.5 * (large - LOG_2PI) - _stirling(shape)
    series = shape * (log_ratio - jnp.expm1(log_ratio)) - jnp.log(x) + width
    return jnp.where(is_large, series, exact)


def zero_inflated_gamma_log_likelihood(
    x: Number, log_mean: Number, log_shape: Number, logit: Number
) -> Float[Array, "..."]:
    """log(1 - q) at x = 0, else log q + log p(x | m, a) of the gamma distribution; q = 1 / (1 + exp(-logit)).

    For deconvolved calcium events (Wei et al. 2020, PLoS Comput Biol 16:e1008198). The mean is q m.

    >>> print(f"{zero_inflated_gamma_log_likelihood(0.0, 0.0, 0.0, 0.0):.3f}")  # log(1 / 2)
    -0.693

    Args:
        x: data, such as events; those of 0 or below count as 0.
        log_mean: log m.
        log_shape: log a; above log 1e6 it counts as log 1e6.
        logit: log q / (1 - q).

    Returns:
        Log densities (nats), of the broadcast shape.
    """
    log_q, log_rest = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return jnp.where(x > 0, log_q + gamma_log_likelihood(x, log_mean, log_shape), log_rest)


def data_log_likelihood(
    likelihood: str,
    x: Float[Array, "*trials unit"],
    output: Float[Array, "*trials output"],
    log_factorial: Any,
    floor: Number,
) -> Float[Array, "*trials unit"]:
    """log p(x | output) under a likelihood of `N_OUTPUTS`.

    >>> data_log_likelihood("gaussian", jnp.zeros((1, 2)), jnp.zeros((1, 4)), None, 0.0).round(3)
    Array([[-0.919, -0.919]], dtype=float32)

    Args:
        likelihood: name of the likelihood.
        x: data (..., unit).
        output: (..., N_OUTPUTS x unit): the first number of all units, then the second of all units, ...
        log_factorial: log x!, for counts alone.
        floor: added to the variance of a Gaussian.

    Returns:
        Log densities (nats), (..., unit).
    """
    if likelihood == "poisson":
        return poisson_log_likelihood(x, output, log_factorial)
    first, *others = jnp.split(output, N_OUTPUTS[likelihood], axis=-1)
    if likelihood == "gaussian":
        return gaussian_log_likelihood(x, first, jnp.exp(others[0]) + floor)
    if likelihood == "gamma":
        return gamma_log_likelihood(x, first, others[0])
    if likelihood == "zero_inflated_gamma":
        return zero_inflated_gamma_log_likelihood(x, first, others[0], others[1])
    return negative_binomial_log_likelihood(x, first, others[0], log_factorial)


def data_mean(
    likelihood: str, output: Float[Array, "*trials output"]
) -> Float[Array, "*trials unit"]:
    """The mean of the data given the output: the rates of a model.

    >>> data_mean("negative_binomial", jnp.array([0.0, 5.0]))  # log mean 0; log size 5
    Array([1.], dtype=float32)

    Args:
        likelihood: name of the likelihood.
        output: (..., N_OUTPUTS x unit), in the order of `data_log_likelihood`.

    Returns:
        (..., unit) array.
    """
    if likelihood == "poisson":
        return jnp.exp(output)
    n = output.shape[-1] // N_OUTPUTS[likelihood]
    if likelihood == "gaussian":
        return output[..., :n]
    mean = jnp.exp(output[..., :n])
    if likelihood == "zero_inflated_gamma":
        mean *= jax.nn.sigmoid(output[..., 2 * n :])
    return mean


def first_outputs(likelihood: str, data: np.ndarray) -> np.ndarray:
    """The outputs of a model before training, by the method of moments: each unit's mean and spread, the same at all times.

    >>> first_outputs("poisson", np.array([[[1, 0], [3, 0]]])).round(3)  # log 2; a silent unit: log(0.5 / 2 bins)
    array([ 0.693, -1.386])

    Args:
        likelihood: name of the likelihood.
        data: (trial, time, unit), which the likelihood must allow.

    Returns:
        (N_OUTPUTS x unit,) float64, in the order of `data_log_likelihood`.
    """
    n = data.shape[0] * data.shape[1]
    mean = data.mean((0, 1), dtype=float)
    # A silent unit counts as half a spike in all of the data, so that its logarithm is finite.
    log_mean = np.log(np.maximum(mean, 0.5 / n))
    if likelihood == "poisson":
        return log_mean
    variance = data.var((0, 1), dtype=float)
    bounded = lambda x: np.log(np.clip(x, SMALLEST, LARGEST))
    if likelihood == "gaussian":
        return np.concatenate([mean, np.log(np.maximum(variance, 1e-6))])
    if likelihood == "negative_binomial":
        # The variance is m + m^2 / r, hence r = m^2 / (variance - m); a variance of m or less means Poisson, the largest r.
        beyond = np.maximum(variance - mean, mean**2 / LARGEST + 1e-12)
        return np.concatenate([log_mean, bounded(mean**2 / beyond)])
    if likelihood == "gamma":
        log_mean = np.log(mean)
        return np.concatenate([log_mean, bounded(mean**2 / np.maximum(variance, 1e-12))])
    # zero_inflated_gamma: q is the share of entries above 0, mean and shape are those of these entries.
    is_positive = data > 0
    k = is_positive.sum((0, 1))
    share = np.clip(k / n, 0.5 / n, 1 - 0.5 / n)
    mean = np.where(k > 0, mean * n / np.maximum(k, 1), 1.0)
    square = np.where(is_positive, (data - mean) ** 2, 0).sum((0, 1), dtype=float)
    shape = mean**2 / np.maximum(square / np.maximum(k, 1), 1e-12)
    logit = np.log(share) - np.log1p(-share)
    return np.concatenate([np.log(mean), bounded(shape), logit])


def gaussian_kl(
    mean: Number, variance: Number, prior_mean: Number, prior_variance: Number
) -> Float[Array, "..."]:
    """KL(N(m, v) || N(m0, v0)) = (log v0 / v + (v + (m - m0)^2) / v0 - 1) / 2.

    >>> gaussian_kl(jnp.array([0.0, 1.0]), 1.0, 0.0, 1.0)
    Array([0. , 0.5], dtype=float32)

    Args:
        mean: m.
        variance: v, above 0.
        prior_mean: m0.
        prior_variance: v0, above 0.

    Returns:
        Divergences (nats), of the broadcast shape.
    """
    ratio = variance / prior_variance
    distance = (mean - prior_mean) ** 2 / prior_variance
    return 0.5 * (ratio + distance - 1 - jnp.log(ratio))


def ar1_kl(
    mean: Float[Array, "time *rest"],
    variance: Float[Array, "time *rest"],
    prior_mean: Number,
    prior_variance: Number,
    tau: Number,
) -> Float[Array, "time *rest"]:
    """KL of q(u) = prod_t N(m_t, v_t) from the stationary AR(1) process p, one term a time step; their sum is the KL.

    p: u_1 ~ N(m0, v0) and u_t ~ N(m0 + phi (u_{t-1} - m0), (1 - phi^2) v0), with phi = exp(-1 / tau), so
    that every u_t has the mean m0 and the variance v0 (Pandarinath et al. 2018, with m0 inside the
    bracket). In the expectation of log p under q the square of step t is

        E (d_t - phi d_{t-1})^2 = v_t + phi^2 v_{t-1} + (m_t - m0 - phi (m_{t-1} - m0))^2,  d = u - m0,

    which is exact for a q with independent steps. The means that a controller gives depend, through the
    factors, on inputs drawn earlier; like all implementations of LFADS we take them as given.

    >>> kl = ar1_kl(jnp.zeros((3, 1)), jnp.ones((3, 1)), 0.0, 1.0, 1e-3)  # tau near 0: independent steps, p = q
    >>> print(f"{abs(kl).max():.3f}")
    0.000

    Args:
        mean: m_t, (time, ...).
        variance: v_t, (time, ...).
        prior_mean: m0.
        prior_variance: v0.
        tau: the autocorrelation time, in steps.

    Returns:
        (time, ...) terms (nats).
    """
    phi = jnp.exp(-1 / tau)
    innovation = -jnp.expm1(-2 / tau) * prior_variance  # (1 - phi^2) v0
    d = mean - prior_mean
    first = gaussian_kl(mean[:1], variance[:1], prior_mean, prior_variance)
    moved = d[1:] - phi * d[:-1]
    second_moment = variance[1:] + phi**2 * variance[:-1] + moved**2
    later = 0.5 * (jnp.log(innovation / variance[1:]) + second_moment / innovation - 1)
    return jnp.concatenate([first, later])
