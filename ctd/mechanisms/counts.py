"""Spike counts: drawn for a mechanism's states, read from a user's file, and reduced to factors."""

from __future__ import annotations

import warnings

import numpy as np

from ctd.data import CONDITION, SPLITS, dataset_of, read_arrays, unsplit
from ctd.late import Array, Float, Int, jax, jnp, lax

SPREAD = 0.5
"""sd of the logarithm of the neurons' mean rates."""

MOST_MEAN = 10.0
"""Largest mean count of a bin: with it, one mean in seventy is above 50, where `poisson` cuts."""


def spikes(
    states: Float[Array, "trial time 3"],
    stretch: Array,
    key: Array,
    n: int,
    mean_and_gain: tuple[Array, Array],
) -> Int[Array, "trial time unit"]:
    """Poisson counts of n neurons with log rates that are random linear readouts of the states.

    mean_and_gain: mean count of a bin, about, and the sd of a neuron's log rate. `stretch` scales the second dimension.
    """
    mean, gain = mean_and_gain
    key_w, key_b, key_s = jax.random.split(key, 3)
    unscaled = jnp.ones_like(stretch)
    z = (states - states.mean((0, 1))) * jnp.stack([unscaled, stretch, unscaled])
    # With E|z|^2 = 1 and weights N(0, 1), a log rate has the deviation `gain`.
    z = z / jnp.sqrt(jnp.mean(jnp.sum(z**2, -1)))
    drive = gain * z @ jax.random.normal(key_w, (3, n), states.dtype)
    level = SPREAD * jax.random.normal(key_b, (n,), states.dtype)
    # exp of a Gaussian of variance v has the mean exp(v / 2): taken off. Over states v varies, which adds some to `mean`.
    log_rate = jnp.log(mean) + level - SPREAD**2 / 2 + drive - gain**2 / 2
    return poisson(key_s, jnp.exp(log_rate))


def poisson(key: Array, mean: Float[Array, "..."]) -> Int[Array, "..."]:
    """Poisson counts by inversion: the number of cumulative probabilities below a uniform number. Means above 50 count as 50.

    jax.random.poisson, made for any mean, takes seconds more to compile.
    """
    mean = jnp.minimum(mean, 50)
    u = jax.random.uniform(key, mean.shape, mean.dtype)

    def more(carry: tuple[Array, Array, Array, Array]) -> Array:
        # Rounding may leave the sum of all probabilities below u: no mean of 50 reaches 150.
        return (carry[0] < 150) & jnp.any(u > carry[3])

    def add_term(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        k, counts, p, total = carry
        p_next = p * mean / (k + 1)
        return k + 1, counts + (u > total), p_next, total + p_next

    first = jnp.exp(-mean)
    start = (jnp.zeros((), jnp.int32), jnp.zeros(mean.shape, jnp.int32), first, first)
    return lax.while_loop(more, add_term, start)[1]


def factors_of(
    counts: Array, smoothing: Array, n: int, dtype: str
) -> tuple[Float[Array, "trial time factor"], Float[Array, "component"]]:
    """(the first n principal components, the variances of all) of the square roots of smoothed counts (trial, time, unit).

    The square root makes the variance of Poisson counts nearly equal. Components have a common scale: their mean square distance
    from 0 is 1.
    """
    t = jnp.arange(counts.shape[1], dtype=dtype)
    kernel = jnp.exp(-0.5 * ((t[:, None] - t[None]) / smoothing) ** 2)
    # Normalised row by row, also at the ends of a trial.
    kernel = kernel / kernel.sum(1, keepdims=True)
    smooth = jnp.einsum("ts,ksu->ktu", kernel, counts.astype(dtype))
    x = jnp.sqrt(smooth)
    x = x - x.mean((0, 1))
    # Trial by trial: XLA divides one product over all bins among the cores of a CPU, and it would round by their number.
    add = lambda total, trial: (total + trial.T @ trial, None)
    total, _ = lax.scan(add, jnp.zeros((x.shape[2], x.shape[2]), dtype), x)
    variances, axes = jnp.linalg.eigh(total / (x.shape[0] * x.shape[1]))
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    axes = axes[:, ::-1][:, :n]
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), 0)[None], 0)
    factors = x @ (axes * jnp.sign(largest))
    scale = jnp.sqrt(jnp.mean(jnp.sum(factors**2, -1)))
    return factors / scale, jnp.maximum(variances[::-1], 0)  # rounding may go below 0


def read_counts(path: str, dataset: str, n_bins: int) -> np.ndarray:
    """The counts (trial, time, unit) int32 of a file, cut to `n_bins`. Raises ValueError, naming file and dataset."""
    arrays = read_arrays(path, dataset)
    if path.endswith(".npz") and not arrays.keys() & {dataset, *SPLITS}:
        trials = unsplit(path, {name: array for name, array in arrays.items() if name != CONDITION})
        shortest = min(map(len, trials), default=0)
        arrays = {dataset: np.stack([trial[:shortest] for trial in trials])}
    raw_counts = dataset_of(f"data: {path}", arrays, dataset, "; give its name as `dataset`")
    parts = [_checked(f"data: {path}: {dataset}", raw_counts, n_bins)]
    if dataset == "train" and "eval" in arrays:
        parts.append(_checked(f"data: {path}: eval", arrays["eval"], n_bins))
        if parts[0].shape[2] != parts[1].shape[2]:
            raise ValueError(
                f"data: {path}: train has {parts[0].shape[2]} units, but eval has {parts[1].shape[2]}"
            )
    if raw_counts.shape[1] > n_bins:
        warnings.warn(
            f"data: {path}: trials have {raw_counts.shape[1]} bins, of which the first n_bins = {n_bins} are used",
            stacklevel=2,
        )
    counts = np.concatenate(parts)
    silent = np.flatnonzero(counts.sum((0, 1)) == 0)
    if silent.size:
        raise ValueError(f"data: {path}: unit {silent[0]} never spikes; leave it out")
    return counts


def _checked(source: str, counts: np.ndarray, n_bins: int) -> np.ndarray:
    if counts.ndim != 3 or 0 in counts.shape:
        raise ValueError(f"{source} has the shape {counts.shape}; (trial, time, unit) expected")
    if counts.dtype.kind not in "biuf":
        raise ValueError(f"{source} has the type {counts.dtype}; spike counts expected")
    with np.errstate(invalid="ignore"):
        bad = ~((counts >= 0) & (counts < 2**16) & (counts == np.floor(counts)))  # NaN fails each
    if bad.any():
        first = tuple(int(k) for k in np.argwhere(bad)[0])
        raise ValueError(
            f"{source} holds {counts[first]} at {first}; spike counts 0, 1, 2, ... expected, not rates"
        )
    if counts.shape[1] < n_bins:
        raise ValueError(
            f"{source} has {counts.shape[1]} bins a trial, but n_bins is {n_bins}; give longer trials or narrower bins, or "
            f"run both files with n_bins: {counts.shape[1]}"
        )
    return counts[:, :n_bins].astype(np.int32)
