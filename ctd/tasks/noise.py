"""Noise on a network's inputs, on its state before the first step and, at every step, on its state.

    h_t = F(h_{t-1}, x_t + input_sd xi_t) + state_sd xi'_t     h_0 = h0 + initial_sd xi''
    xi, xi', xi'' independent, nearly N(0, 1)

`seeded` adds the noise to the inputs before the network runs, and appends two input channels with whole numbers drawn
for each trial and step. The cell that `noisy` returns makes the noise of its state from these numbers. State noise thus
takes no memory, and `ctd.cells.run` needs to know nothing of it.

A counter-based generator of 64 random bits per step would cost as much as the step itself. Here an integer hash (with the
multipliers of C. Wellons' `lowbias32`) mixes the number of a unit with both channels; the four bytes of the hash are
added, and an odd polynomial turns their sum into a normal deviate.
"""

from __future__ import annotations

from ctd.cells import Cell, Weights
from ctd.late import Array, Number, jax, jnp
from ctd.tasks.task import Trial

CHANNELS = 2
"""Input channels that hold the seeds of a step's noise."""

BITS = 24
"""Bits of a seed: whole numbers below 2^24 are exact in float32."""

MEAN, SD = 510.0, 147.800541
"""Mean and standard deviation of the sum of four independent bytes: 4 * 127.5, and sqrt(4 (256^2 - 1) / 12)."""

NORMAL = (0.9677518961867809, 0.00400187225539391, 0.0019047023894977748)
"""Coefficients of y, y^3, y^5, y the standardised sum: least squares to the quantiles of N(0, 1).

The distribution functions differ by 7e-4 at most, variance and kurtosis are 0.99997 and 2.997.
"""


def deviates(a: Number, b: Number, entry: Array, dtype: jax.typing.DTypeLike) -> Array:
    """Make nearly independent N(0, 1) numbers from seeds a and b (whole numbers below 2^24), one for each `entry` (uint32).

    They have 1,021 levels, 1/150 apart near 0; the outermost, at +-4.4, are as rare as N(0, 1) is beyond 6.

    >>> x = deviates(5, 9, jnp.arange(4000, dtype=jnp.uint32), "float32")
    >>> bool(abs(x.mean()) < 0.1), bool(abs(x.std() - 1) < 0.1)
    (True, True)
    """
    a, b = jnp.asarray(a).astype(jnp.uint32), jnp.asarray(b).astype(jnp.uint32)
    # Multiples of 2^32 / golden ratio spread the entries; b enters between the rounds, so that it does not cancel a.
    word = entry * jnp.uint32(0x9E3779B9) + (a << 8)
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) + (b << 8)
    word = (word ^ (word >> 13)) * jnp.uint32(0x846CA68B)
    word ^= word >> 16
    bytes_sum = (word & 255) + ((word >> 8) & 255) + ((word >> 16) & 255) + (word >> 24)
    y = (bytes_sum.astype(dtype) - MEAN) / SD
    # Horner's rule in y^2.
    square, value = y * y, jnp.zeros((), dtype)
    for coefficient in reversed(NORMAL):
        value = value * square + coefficient
    return y * value


def noisy(cell: Cell, state_sd: Number) -> Cell:
    """Wrap a cell so that its step adds noise of standard deviation `state_sd` to the state.

    Its inputs are those of `seeded` trials: the cell's own, then two seeds.
    """

    def step(w: Weights, h: Array, seeded_input: Array) -> Array:
        x, seeds = seeded_input[:-CHANNELS], seeded_input[-CHANNELS:]
        xi = deviates(seeds[0], seeds[1], jnp.arange(h.shape[0], dtype=jnp.uint32), h.dtype)
        return cell.step(w, h, x) + state_sd * xi

    return cell._replace(step=step)


def first_state(h0: Array, seeded_inputs: Array, initial_sd: Number) -> Array:
    """The state before the first step of one of the `seeded` trials, whose inputs are `seeded_inputs` (time, input + CHANNELS)."""
    seeds, n = seeded_inputs[0, -CHANNELS:], h0.shape[0]
    # Counted on from the entries of the states of the steps.
    entry = n + jnp.arange(n, dtype=jnp.uint32)
    return h0 + initial_sd * deviates(seeds[0], seeds[1], entry, h0.dtype)


def seeded(trials: Trial, key: Array, input_sd: Number) -> Trial:
    """Add noise of standard deviation `input_sd` to the inputs of trials (trial, time, ...), and append two channels of seeds."""
    x = trials.inputs
    seeds = jax.random.bits(key, (*x.shape[:2], CHANNELS), jnp.uint32) >> (32 - BITS)
    # Inputs count down from 2^32 - 1, units up from 0: one hash serves both without repeating a number.
    entry = ~jnp.arange(x.shape[-1], dtype=jnp.uint32)
    xi = deviates(seeds[..., :1], seeds[..., 1:], entry, x.dtype)
    return trials._replace(
        inputs=jnp.concatenate([x + input_sd * xi, seeds.astype(x.dtype)], axis=-1)
    )
