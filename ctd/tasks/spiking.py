"""Spike counts and rates: Poisson spikes from rates, rates from a network's states, spikes of the Lorenz system."""

from __future__ import annotations

from ctd.cells import runge_kutta
from ctd.late import Array, Number, jax, jnp, lax


def spikes_from_rates(key: Array, rates: Array, dt: Number) -> Array:
    """Draw Poisson spike counts, int32, for rates (spikes/s) of any shape over bins of dt (s).

    >>> counts = spikes_from_rates(jax.random.key(0), jnp.full((1000, 2), 50.0), dt=0.01)
    >>> counts.shape, bool(abs(counts.mean() - 0.5) < 0.05)
    ((1000, 2), True)
    """
    # Draw flat: on a CPU the sampler takes 8 times as long for an array with a short last axis.
    mean = jnp.ravel(rates * dt)
    return jax.random.poisson(key, mean, dtype=jnp.int32).reshape(rates.shape)


def overdispersed(key: Array, rates: Array, dt: Number, dispersion: float) -> Array:
    """Draw random rates around `rates` (spikes/s, any shape), whose Poisson counts have variance / mean = dispersion > 1.

    A mean of m spikes per bin of dt (s) becomes Gamma(m / (dispersion - 1)) (dispersion - 1), so that counts are
    negative binomial.

    >>> rates = overdispersed(jax.random.key(0), jnp.full(2000, 100.0), dt=0.01, dispersion=2.0)
    >>> bool(abs(rates.mean() - 100) < 10)
    True
    """
    shape = jnp.ravel(rates * dt) / (dispersion - 1)
    # A rate of 0 would need a Gamma of shape 0, which is none; the smallest positive shape draws 0.
    drawn = jax.random.gamma(key, jnp.maximum(shape, jnp.finfo(shape.dtype).tiny))
    return (drawn * (dispersion - 1) / dt).reshape(rates.shape)


def rates_from_states(states: Array, max_rate: Number = 80.0) -> Array:
    """Rates (spikes/s) of neurons that follow a network's states h, of any shape: max_rate (h + 1) / 2.

    States outside of [-1, 1] are clipped. max_rate: rate at h = 1 (spikes/s).

    >>> rates_from_states(jnp.array([-1.0, 0.0, 2.0]))
    Array([ 0., 40., 80.], dtype=float32)
    """
    return max_rate * (jnp.clip(states, -1, 1) + 1) / 2


def lorenz(start: Array, n_steps: int, dt: float) -> Array:
    """Integrate the Lorenz system from `start` (3,) over n_steps Runge-Kutta steps of dt: (n_steps, 3).

    dx/dt = 10 (y - x), dy/dt = x (28 - z) - y, dz/dt = x y - 8/3 z (Lorenz 1963).

    >>> lorenz(jnp.zeros(3), n_steps=4, dt=0.01)[-1]  # the origin is a fixed point
    Array([0., 0., 0.], dtype=float32)
    """

    def flow(s: Array) -> Array:
        x, y, z = s
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    def step(s: Array, _: None) -> tuple[Array, Array]:
        s = runge_kutta(flow, s, dt)
        return s, s

    return lax.scan(step, start, length=n_steps)[1]


def lorenz_spikes(
    key: Array,
    *,
    n_conditions: int = 65,
    n_trials: int = 20,
    n_neurons: int = 30,
    bin_s: float = 0.01,
    base_rate: float = 5.0,
) -> dict[str, Array]:
    """Draw spike counts of Poisson neurons driven by the Lorenz system, as in the tests of LFADS (Pandarinath 2018).

    A condition is an initial state on the attractor, repeated n_trials times. Neuron i fires at
    base_rate exp(w_i . s). w_i lies on the unit sphere; each of the three coordinates of the state s is
    scaled to mean 0 and variance 1, so that log rates vary by about 1. A trial has 100 bins of 0.01 time units of
    the system.

    Args:
        bin_s: length of a bin (s).
        base_rate: rate at the mean state (spikes/s).

    Returns:
        spikes (condition, trial, time, neuron) int32; rates (condition, time, neuron) in spikes/s;
        states (condition, time, 3), normalised.

    >>> made = lorenz_spikes(jax.random.key(0), n_conditions=2, n_trials=3, n_neurons=5)
    >>> made["spikes"].shape, made["rates"].shape
    ((2, 3, 100, 5), (2, 100, 5))
    """
    n_steps, dt = 100, 0.01
    key_start, key_weights, key_spikes = jax.random.split(key, 3)
    # Near the height z = 27 of the two unstable fixed points, between the wings around them.
    start = jnp.array([0.0, 0.0, 25.0]) + jax.random.normal(key_start, (n_conditions, 3))
    # The transient to the attractor lasts a few time units; 10 are discarded.
    settle = int(10 / dt)
    raw = jax.vmap(lambda s: lorenz(s, settle + n_steps, dt)[settle:])(start)
    states = (raw - raw.mean((0, 1))) / raw.std((0, 1))
    # Uniform on the sphere: no coordinate of the system is seen better than another.
    weights = jax.random.normal(key_weights, (3, n_neurons))
    weights /= jnp.linalg.norm(weights, axis=0)
    rates = base_rate * jnp.exp(states @ weights)
    repeated = jnp.broadcast_to(rates[:, None], (n_conditions, n_trials, n_steps, n_neurons))
    return {
        "spikes": spikes_from_rates(key_spikes, repeated, bin_s),
        "rates": rates,
        "states": states,
    }
