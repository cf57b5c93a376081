"""Noise of a network while it runs: on its state and on its inputs, at every step.

    h_t = F(h_{t-1}, x_t + input_sd xi_t) + state_sd xi'_t,   xi, xi' independent, nearly N(0, 1)

The network is wrapped: two more input channels hold whole numbers drawn for each trial and step, and the step
makes its noise of these. So noise takes no memory, and whoever runs the network needs to know nothing of it.

A counter-based generator of 64 random bits a step would cost as much as the step itself. Here the number of an
entry and the two channels go through an integer hash (the multipliers of C. Wellons' `lowbias32`), whose four
bytes are added, and an odd polynomial turns their sum into a normal deviate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd import tasks
from ctd.cells import Cell
from ctd.late import jax, jnp

CHANNELS = 2
"""Inputs that hold the seeds of a step's noise."""

BITS = 24
"""Whole numbers below 2^24 are exact in float32."""

MEAN, SD = 510.0, 147.800541
"""Of the sum of four independent bytes: 4 * 127.5, and the root of 4 (256^2 - 1) / 12."""

NORMAL = (0.9677518961867809, 0.00400187225539391, 0.0019047023894977748)
"""Coefficients of y, y^3, y^5, y the standardised sum: least squares to the quantiles of N(0, 1).

The distribution functions differ by 7e-4 at most, variance and kurtosis are 0.99997 and 2.997.
"""


class Noise(NamedTuple):
    """Standard deviations; may be traced numbers."""

    state: Any
    input: Any


def deviates(a: Any, b: Any, n: int, dtype: Any) -> jax.Array:
    """(n,) nearly independent N(0, 1), of two whole numbers below 2^24.

    There are 1,021 levels, 1/150 apart near 0; the outermost, at +-4.4, are as rare as N(0, 1) is beyond 6.
    """
    a, b = jnp.asarray(a).astype(jnp.uint32), jnp.asarray(b).astype(jnp.uint32)
    # The golden ratio's multiples spread the entries; the second key comes in between the two rounds.
    word = jnp.arange(n, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9) + (a << 8)
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) + (b << 8)
    word = (word ^ (word >> 13)) * jnp.uint32(0x846CA68B)
    word ^= word >> 16
    bytes_sum = (word & 255) + ((word >> 8) & 255) + ((word >> 16) & 255) + (word >> 24)
    y = (bytes_sum.astype(dtype) - MEAN) / SD
    square, value = y * y, jnp.zeros((), dtype)
    for coefficient in reversed(NORMAL):
        value = value * square + coefficient
    return y * value


def noisy(cell: Cell, noise: Noise, n_in: int) -> Cell:
    """The cell with this noise, whose inputs are those of `seeded` trials."""

    def step(w: Any, h: jax.Array, given: jax.Array) -> jax.Array:
        x, seeds = given[:n_in], given[n_in:]
        n = h.shape[0]

        xi = deviates(seeds[0], seeds[1], n + n_in, h.dtype)
        return cell.step(w, h, x + noise.input * xi[n:]) + noise.state * xi[:n]

    return cell._replace(step=step)


def seeded(trials: tasks.Trial, key: jax.Array) -> tasks.Trial:
    """Trials, (trial, time, ...), with the seeds of their noise as the last inputs."""
    shape = (*trials.inputs.shape[:2], CHANNELS)
    seeds = (jax.random.bits(key, shape, jnp.uint32) >> (32 - BITS)).astype(trials.inputs.dtype)
    return trials._replace(inputs=jnp.concatenate([trials.inputs, seeds], axis=-1))
