"""Spike counts and rates: Poisson spikes from rates, rates from a network's states."""

from __future__ import annotations

from ctd.late import Array, Number, jax, jnp


def spikes_from_rates(key: Array, rates: Array, dt: Number) -> Array:
    """Draw spike counts n ~ Poisson(rate dt).

    >>> counts = spikes_from_rates(jax.random.key(0), jnp.full((1000, 2), 50.0), dt=0.01)
    >>> counts.shape, bool(abs(counts.mean() - 0.5) < 0.05)
    ((1000, 2), True)

    Args:
        key: random key.
        rates: rates (spikes/s), of any shape.
        dt: width of a bin (s).

    Returns:
        Counts, int32, of the shape of the rates.
    """
    # Draw flat: on a CPU the sampler takes 8 times as long for an array with a short last axis.
    mean = jnp.ravel(rates * dt)
    return jax.random.poisson(key, mean, dtype=jnp.int32).reshape(rates.shape)


def overdispersed(key: Array, rates: Array, dt: Number, dispersion: float) -> Array:
    """Draw rates m' / dt with m' ~ Gamma(m / (d - 1)) (d - 1), m = rate dt, whose Poisson counts have variance / mean = d > 1.

    The counts are negative binomial, of mean m.

    >>> rates = overdispersed(jax.random.key(0), jnp.full(2000, 100.0), dt=0.01, dispersion=2.0)
    >>> bool(abs(rates.mean() - 100) < 10)
    True

    Args:
        key: random key.
        rates: mean rates (spikes/s), of any shape.
        dt: width of a bin (s).
        dispersion: d, above 1.

    Returns:
        Rates (spikes/s), of the shape of `rates`.
    """
    shape = jnp.ravel(rates * dt) / (dispersion - 1)
    # A rate of 0 would need a Gamma of shape 0, which is none; the smallest positive shape draws 0.
    gammas = jax.random.gamma(key, jnp.maximum(shape, jnp.finfo(shape.dtype).tiny))
    return (gammas * (dispersion - 1) / dt).reshape(rates.shape)


def rates_from_states(states: Array, max_rate: Number = 80.0) -> Array:
    """max_rate (h + 1) / 2, the rates of neurons that follow a network's states h; states outside of [-1, 1] are clipped.

    >>> rates_from_states(jnp.array([-1.0, 0.0, 2.0]))
    Array([ 0., 40., 80.], dtype=float32)

    Args:
        states: h, of any shape.
        max_rate: rate at h = 1 (spikes/s).

    Returns:
        Rates (spikes/s), of the shape of the states.
    """
    return max_rate * (jnp.clip(states, -1, 1) + 1) / 2
