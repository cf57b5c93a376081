"""Log densities and Kullback-Leibler divergences of LFADS, in nats, for each entry; the caller sums them.

A Gaussian is given by (mean, variance). The same floored variance is used in the density, in its normaliser
and in the samples.
"""

from __future__ import annotations

from typing import Any

from ctd.late import jax, jnp

LOG_2PI = 1.8378770664093453


def poisson_log_likelihood(counts: Any, log_rates: Any, log_factorial: Any) -> jax.Array:
    """log p(x | r) = x log r - r - log x!, with r the expected count of the bin."""
    return counts * log_rates - jnp.exp(log_rates) - log_factorial


def gaussian_log_likelihood(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """log N(x; m, v) = -(log 2 pi v + (x - m)^2 / v) / 2."""
    return -0.5 * (LOG_2PI + jnp.log(variance) + (x - mean) ** 2 / variance)


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
