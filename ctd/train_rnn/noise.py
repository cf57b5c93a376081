"""Noise of a network while it runs: on its inputs, and on its state at every step.

    h_t = F(h_{t-1}, x_t + input_sd xi_t) + state_sd xi'_t,   xi, xi' independent, nearly N(0, 1)

Inputs have their noise before the network runs. Two more input channels hold whole numbers drawn for each trial and
step, of which the wrapped network makes the noise of its state. So that noise takes no memory, and whoever runs the
network needs to know nothing of it.

A counter-based generator of 64 random bits a step would cost as much as the step itself. Here the number of an
entry and the two channels go through an integer hash (the multipliers of C. Wellons' `lowbias32`), whose four
bytes are added, and an odd polynomial turns their sum into a normal deviate.
"""

from __future__ import annotations

from typing import Any

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


def deviates(a: Any, b: Any, entry: Any, dtype: Any) -> jax.Array:
    """Nearly independent N(0, 1), one for each whole number `entry` (uint32), of two whole numbers below 2^24.

    There are 1,021 levels, 1/150 apart near 0; the outermost, at +-4.4, are as rare as N(0, 1) is beyond 6.
    """
    a, b = jnp.asarray(a).astype(jnp.uint32), jnp.asarray(b).astype(jnp.uint32)
    # The golden ratio's multiples spread the entries; the second key comes in between the two rounds.
    word = entry * jnp.uint32(0x9E3779B9) + (a << 8)
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


def noisy(cell: Cell, state_sd: Any, n_in: int) -> Cell:
    """The cell with this noise on its state, whose inputs are those of `seeded` trials."""

    def step(w: Any, h: jax.Array, given: jax.Array) -> jax.Array:
        x, seeds = given[:n_in], given[n_in:]
        xi = deviates(seeds[0], seeds[1], jnp.arange(h.shape[0], dtype=jnp.uint32), h.dtype)
        return cell.step(w, h, x) + state_sd * xi

    return cell._replace(step=step)


def seeded(trials: tasks.Trial, key: jax.Array, input_sd: Any) -> tasks.Trial:
    """Trials, (trial, time, ...), with this noise on their inputs, and the seeds of the state's noise as the last ones."""
    x = trials.inputs
    seeds = jax.random.bits(key, (*x.shape[:2], CHANNELS), jnp.uint32) >> (32 - BITS)
    # Counted from the other end than the entries of a state.
    entry = ~jnp.arange(x.shape[-1], dtype=jnp.uint32)
    xi = deviates(seeds[..., :1], seeds[..., 1:], entry, x.dtype)
    return trials._replace(
        inputs=jnp.concatenate([x + input_sd * xi, seeds.astype(x.dtype)], axis=-1)
    )
