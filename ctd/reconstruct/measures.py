"""Measures of how alike the attractors of data and network are, by the field's published definitions, and of predictions.

Series are (time, channel), arrays of JAX; every measure works under jit and vmap. Sources: Koppe et al. 2019 (D_stsp), Mikhaeil, Monfared
& Durstewitz 2022 (D_H), Hess et al. 2023, appendix, and the code of that paper for the constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ctd.cells import Cell, run
from ctd.kernel import View
from ctd.late import Array, Float, jax, jnp, lax
from ctd.reconstruct.model import Parameters, observed, states_of
from ctd.reconstruct.params import Reconstruction
from ctd.tangent import tangent_growth

LAPLACE = 1e-5
"""Added to each bin's count, so that a bin that only one of both visits has a logarithm."""

MOST_BINNED = 5
"""Most channels whose D_stsp is one of histograms: Hess et al. 2023 take mixtures of Gaussians from six channels on."""

SAMPLES = 1000
"""Samples of a mixture."""

MOST_CENTRES = 10_000
"""Samples of a series that a mixture is made of, the first ones."""

TRUNCATE = 4
"""Half width of the kernel that smooths spectra, in standard deviations: that of scipy.ndimage.gaussian_filter1d."""

REST_RANGE = 1e-3
"""A run that moves by less than this share of the range of the data is at rest: rounding moves it by some 1e-7."""

LONG = 10_000
"""Least steps of the run of which the exponent is measured: over the few of a trial, that of a cycle may be far from 0."""

RUNS = 8
"""Recordings from whose runs it is measured, the first ones, where these are run on."""

MIXTURE, TANGENT = 1, 2
"""Numbers that are folded into the key of an item's minibatches; training steps are folded in from 16 on."""


def edges(
    x: Float[Array, "time channel"], scheme: Literal["range", "legacy"]
) -> tuple[Float[Array, "channel"], Float[Array, "channel"]]:
    """(lowest, highest) edge of the bins of each channel.

    range: that of the data, wider by a tenth of their standard deviation on either side (Hess et al. 2023); legacy: plus and minus
    two standard deviations around 0 (Brenner et al. 2022). Those of a channel that never changes lie half of its size, or .5,
    around its value.
    """
    sd = jnp.std(x, axis=0, ddof=1)  # n - 1, as Julia's std in the code of Hess et al.
    lowest, highest = x.min(axis=0), x.max(axis=0)
    low, high = lowest - 0.1 * sd, highest + 0.1 * sd
    if scheme == "legacy":
        low, high = -2 * sd, 2 * sd
    # Not sd > 0, which rounding of the mean may give.
    half, changes = jnp.maximum(jnp.abs(lowest), 1) / 2, highest > lowest
    return jnp.where(changes, low, lowest - half), jnp.where(changes, high, lowest + half)


def divergence_of_bins(
    x: Float[Array, "time channel"],
    y: Float[Array, "time channel"],
    bins: int,
    scheme: Literal["range", "legacy"] = "range",
) -> Float[Array, ""]:
    """D_stsp: Kullback-Leibler divergence of the histograms of data x and generated y over `bins` bins a channel.

    Counts c become (c + 1e-5) / (sum c + 1e-5 bins^channel). Infinite if no sample of y lies in the bins. Only bins with samples are
    stored, so that the number of channels costs no memory.

    >>> x = jnp.linspace(0, 1, 100)[:, None]
    >>> float(divergence_of_bins(x, x, 10))
    0.0
    """
    low, high = edges(x, scheme)
    # The last bin is open above, as all are: half-open intervals.
    place = jnp.floor((jnp.concatenate([x, y]) - low) / (high - low) * bins)
    inside = jnp.all((place >= 0) & (place < bins), axis=1)
    of_x = jnp.arange(len(place)) < len(x)
    # A sample outside is put in some bin, and adds 0 to it.
    channels = jnp.clip(place, 0, bins - 1).astype(jnp.int32).T
    counted = ((inside & members).astype(x.dtype) for members in (of_x, ~of_x))
    *ordered, in_x, in_y = lax.sort((*channels, *counted), num_keys=len(channels))
    # Sorted, samples of a bin follow each other.
    is_next = jnp.any(jnp.diff(jnp.stack(ordered), axis=1) != 0, axis=0)
    of_sample = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(is_next, dtype=jnp.int32)])
    total = float(bins) ** x.shape[1]

    def shares(samples: Array) -> tuple[Array, Array, Array]:
        counts = jax.ops.segment_sum(samples, of_sample, len(place))
        total_count = counts.sum() + LAPLACE * total
        return (counts + LAPLACE) / total_count, LAPLACE / total_count, counts.sum()

    (p, p_empty, _), (q, q_empty, visits) = shares(in_x), shares(in_y)
    # As many terms as samples, of which those beyond the bins with samples are of empty ones; `total` less these are missing.
    divergence = jnp.sum(p * jnp.log(p / q)) + (total - len(p)) * p_empty * jnp.log(
        p_empty / q_empty
    )
    return jnp.where(visits > 0, divergence, jnp.inf)


def divergence_of_mixtures(
    x: Float[Array, "time channel"],
    y: Float[Array, "time channel"],
    key: Array,
    variance: float = 1.0,
) -> Float[Array, ""]:
    """D_stsp: Kullback-Leibler divergence of two mixtures of Gaussians, of this variance, around the samples of x and y.

    It is the mean of log p - log q over 1,000 samples of p (Hershey & Olsen 2007). Logarithms are taken of sums in a way that does
    not underflow, where the code of Hess et al. drops such samples.
    """
    x, y = x[:MOST_CENTRES], y[:MOST_CENTRES]
    key_which, key_noise = jax.random.split(key)
    some = x[jax.random.randint(key_which, (SAMPLES,), 0, len(x))]
    some = some + variance**0.5 * jax.random.normal(key_noise, some.shape, x.dtype)

    def log_density(centres: Array) -> Array:
        # Both mixtures have the factor (2 pi variance)^(-channels / 2), which cancels in the difference.
        def sample_density(sample: Array) -> Array:
            square = jnp.sum((centres - sample) ** 2, axis=1)
            return jax.nn.logsumexp(-square / (2 * variance)) - jnp.log(len(centres))

        # One sample after the other: all differences together would fill (SAMPLES, MOST_CENTRES, channel).
        return lax.map(sample_density, some)

    return jnp.mean(log_density(x) - log_density(y))


def spectra(x: Float[Array, "time channel"], smoothing: float) -> Float[Array, "frequency channel"]:
    """Power spectra of z-scored channels, smoothed by a Gaussian, each with the sum 1; 0 for a channel that does not change."""
    # Not sd > 0 alone: rounding of the mean leaves a constant, whose power lies all at frequency 0.
    centred = jnp.where(jnp.ptp(x, axis=0) > 0, x - x.mean(axis=0), 0)
    sd = centred.std(axis=0)
    power = jnp.abs(jnp.fft.rfft(centred / jnp.where(sd > 0, sd, 1), axis=0)) ** 2
    radius = int(TRUNCATE * smoothing + 0.5)
    at = jnp.arange(-radius, radius + 1)
    kernel = jnp.exp(-0.5 * (at / smoothing) ** 2).astype(x.dtype)
    # Reflected at the ends, which are repeated: gaussian_filter1d's default.
    wide = jnp.pad(power, ((radius, radius), (0, 0)), mode="symmetric")
    smooth = jax.vmap(lambda p: jnp.convolve(p, kernel / kernel.sum(), "valid"), 1, 1)(wide)
    smooth = jnp.maximum(smooth, 0)  # as in the code of Hess et al.
    total = smooth.sum(axis=0)
    return smooth / jnp.where(total > 0, total, 1)


def hellinger(
    x: Float[Array, "time channel"], y: Float[Array, "time channel"], smoothing: float
) -> Float[Array, ""]:
    """D_H: mean over channels of the Hellinger distance of the spectra of two series of equal length; 0 to 1.

    sqrt(1 - sum sqrt(p q)), which is |sqrt(p) - sqrt(q)| / sqrt(2). A constant series has no spectrum: its distance is 1.

    >>> t = jnp.arange(1000.0)[:, None]
    >>> print(f"{hellinger(jnp.sin(t), jnp.sin(t), 2.0):.3f} {hellinger(jnp.sin(t), 0 * t, 2.0):.3f}")
    0.000 1.000
    """
    p, q = spectra(x, smoothing), spectra(y, smoothing)
    overlap = jnp.sum(jnp.sqrt(p * q), axis=0)
    return jnp.mean(jnp.sqrt(jnp.maximum(1 - overlap, 0)))  # rounding may exceed 1


def peak(x: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """(frequency of the spectral peak of recordings (recording, time, channel), in cycles per sample; share of the power there).

    The power is summed over channels, behind Hann's window. A parabola through its logarithms around the highest bin has the peak; at an
    end of the spectrum, the frequency of that bin. NaN for a series at rest. xp: numpy or jax.numpy.

    >>> frequency, share = peak(np.sin(0.1 * np.arange(500.0))[None, :, None], np)
    >>> print(f"{2 * np.pi * frequency:.3f} {share:.2f}")
    0.100 1.00
    """
    centred = (x - x.mean(axis=1, keepdims=True)) * np.hanning(x.shape[1])[:, None].astype(x.dtype)
    power = xp.sum(xp.abs(xp.fft.rfft(centred, axis=1)) ** 2, axis=(0, 2))
    if len(power) < 4:  # shorter series have no peak
        return xp.nan, 0.0
    # The window moves power to frequency 0, which is no neighbour; neither is what lies beyond the last bin.
    power = xp.pad(power[1:], 1)
    k = xp.argmax(power)
    parts = power[k + np.arange(-1, 2)]
    # No power at all: 0 / 0 without NumPy's warning.
    low, middle, high = xp.log(xp.where(parts > 0, parts, xp.nan))
    apart = (low - high) / (2 * (low - 2 * middle + high))
    total = power.sum()
    at = k + xp.where(xp.isnan(apart), 0 * middle, apart)
    return at / x.shape[1], parts.sum() / xp.where(total > 0, total, 1)


def prediction_error(
    steps: Callable[[Array, Array], Array],
    x: Float[Array, "time channel"],
    s: Float[Array, "time n_in"],
    n: int,
) -> Float[Array, ""]:
    """PE(n): mean squared error, over all times t and channels, of the prediction of x_{t+n} from x_t.

    steps: (x_t (channel,), the inputs (n, n_in) of the steps t + 1 ... t + n) -> the prediction (channel,).
    """
    starts = jnp.arange(len(x) - n)
    # s_t drives the step from t - 1 to t.
    window = lambda t: lax.dynamic_slice_in_dim(s, t + 1, n)
    predictions = jax.vmap(lambda t: steps(x[t], window(t)))(starts)
    return jnp.mean((predictions - x[n:]) ** 2)


# --- of a fit -------------------------------------------------------------------------------------


def free_runs(
    static: View[Reconstruction], cell: Cell, p: Parameters, x: Array, s: Array
) -> tuple[Array, Array]:
    """(states (recording, time, unit) of free runs from the first samples, without the transient; the inputs of their steps)."""
    steps = x.shape[1]
    # Inputs are known for the recording alone, so that a driven run has no transient before it.
    before = 0 if s.shape[2] else int(static.transient * steps)
    # The first sample is given; inputs, where there are any, are those of the samples.
    inputs = s if s.shape[2] else jnp.zeros((x.shape[0], steps + before, 0), x.dtype)
    free_run = lambda x, s: jnp.concatenate(
        [states_of(p, x[:1]), run(cell, p, s[1:], states_of(p, x[0]))[0]]
    )
    return jax.vmap(free_run)(x, inputs)[:, before:], inputs[:, before:]


def error_of_mean(x: Float[Array, "recording time channel"], n: int) -> Float[Array, ""]:
    """PE(n) of the mean of each channel over all recordings."""
    return jnp.mean((x[:, n:] - x.mean(axis=(0, 1))) ** 2)


def rests(
    y: Float[Array, "recording step channel"], x: Float[Array, "recording time channel"]
) -> Array:
    """True if free runs y do not move in any channel, relative to the range of the data x.

    >>> x = jnp.sin(jnp.arange(100.0))[None, :, None]
    >>> bool(rests(0 * x + 0.3, x)), bool(rests(0.1 * x, x))
    (True, False)
    """
    moved = jnp.ptp(y, axis=1).max(axis=0)
    return jnp.all(moved < REST_RANGE * jnp.ptp(x, axis=(0, 1)))


def measured(
    static: View[Reconstruction],
    cell: Cell,
    p: Parameters,
    data: tuple[Array, Array],
    runs: tuple[Array, Array],
    key: Array,
) -> dict[str, Array]:
    """The measures of free runs (states, inputs) beside data (x, inputs)."""
    (x, s), channels = data, data[0].shape[2]
    y = observed(p, runs[0], channels)
    # A run to infinity has no bin, and no spectrum.
    fine = jnp.isfinite(y).all()
    y = jnp.where(fine, y, 0)
    measures = _distances(static, x, y, jax.random.fold_in(key, MIXTURE), static.smoothing)
    ahead = lambda x, s: observed(p, run(cell, p, s, states_of(p, x))[0][-1], channels)
    # One recording after the other: each is predicted from all of its samples at once.
    errors = lax.map(
        lambda recording: prediction_error(ahead, recording[0], recording[1], static.ahead), (x, s)
    )
    measures["peak_frequency"] = peak(y)[0]
    measures["prediction_error"] = jnp.mean(errors)
    measures |= _run_on(cell, p, x, runs, jax.random.fold_in(key, TANGENT))
    return {name: jnp.where(fine, value, jnp.nan) for name, value in measures.items()}


def _run_on(
    cell: Cell, p: Parameters, x: Array, runs: tuple[Array, Array], key: Array
) -> dict[str, Array]:
    """The exponent of free runs (states, inputs), and their spread in the end; runs without inputs are continued for both."""
    states, inputs = runs
    # The step from h_t takes the input s_(t+1).
    s, driven = inputs[:, 1:], inputs.shape[2] > 0
    if not driven:
        states = states[:RUNS]
        s = jnp.zeros((len(states), max(LONG, s.shape[1]), 0), x.dtype)
    step = lambda h, s: cell.step(p, h, s)
    tangent = jax.random.normal(key, states.shape[2:], states.dtype)
    grown, ends = jax.vmap(lambda h, s: tangent_growth(step, h, tangent, s))(states[:, 0], s)
    # The first tenth turns the tangent to the fastest direction, and does not count.
    measures = {"exponent": jnp.mean(grown[:, s.shape[1] // 10 :])}
    if not driven:
        # As many steps as a recording has.
        no_input = jnp.zeros((x.shape[1], 0), x.dtype)
        last = jax.vmap(lambda h: run(cell, p, no_input, h)[0])(ends)
        spread = lambda y: jnp.sqrt(jnp.mean(jnp.var(y, axis=1)))  # within runs, over all channels
        share = spread(observed(p, last, x.shape[2])) / spread(x)
        measures["end_spread"] = jnp.where(jnp.isfinite(last).all(), share, jnp.inf)
    return measures


def _distances(
    static: View[Reconstruction], x: Array, y: Array, key: Array, smoothing: float
) -> dict[str, Array]:
    """D_stsp and D_H of data x and others y, both (recording, time, channel)."""
    d_h = jnp.mean(jax.vmap(lambda x, y: hellinger(x, y, smoothing))(x, y))
    return _divergences(static, x, y, key) | {"d_h": d_h}


def _divergences(static: View[Reconstruction], x: Array, y: Array, key: Array) -> dict[str, Array]:
    """D_stsp as published for so many channels, and by the other definitions; all recordings in one histogram."""
    first, second = (v.reshape(-1, x.shape[2]) for v in (x, y))
    mixture = divergence_of_mixtures(first, second, key)
    divergences = {"d_stsp": mixture, "d_stsp_mixture": mixture}
    if x.shape[2] <= MOST_BINNED:
        of_bins = lambda scheme: divergence_of_bins(first, second, static.bins, scheme)
        divergences |= {"d_stsp": of_bins("range"), "d_stsp_legacy": of_bins("legacy")}
    return divergences


def divergence_at_rest(
    static: View[Reconstruction], x: Float[Array, "recording time channel"]
) -> float:
    """D_stsp of a run that stays at the mean of the data."""
    resting_run = jnp.broadcast_to(jnp.mean(x, axis=(0, 1)), x.shape)
    divergence = jax.jit(lambda x, y: _divergences(static, x, y, jax.random.key(0))["d_stsp"])
    return float(divergence(jnp.asarray(x), resting_run))


def compare_halves(
    static: View[Reconstruction], x: Float[Array, "recording time channel"]
) -> dict[str, float]:
    """D_stsp and D_H of the first half of the data against the second: of recordings, or of the time of a single one."""
    of_time = len(x) == 1
    x = jnp.asarray(x[0] if of_time else x)
    n = len(x) // 2
    first, second = (v[None] if of_time else v for v in (x[:n], x[n : 2 * n]))
    # Half of the time has half as many frequencies: smoothed over as wide a band as the whole.
    smoothing = static.smoothing / (2 if of_time else 1)
    distances_of = jax.jit(lambda a, b: _distances(static, a, b, jax.random.key(0), smoothing))
    distances = distances_of(first, second)
    return {name: float(distances[name]) for name in ("d_stsp", "d_h")}
