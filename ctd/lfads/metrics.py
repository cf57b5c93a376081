"""Metrics of posterior means: against the data, against true values where known, against behaviour."""

from __future__ import annotations

from typing import NamedTuple

from ctd.late import jax, jnp, lax

MAX_LAG = 3
"""Inferred inputs are compared with true ones up to this many bins earlier and later."""


SMOOTHING = 0.3
"""Share of the past in a smoothed value, as in lfads-torch."""


def smoothed(curve: jax.Array) -> jax.Array:
    """s_k = 0.3 s_{k-1} + 0.7 x_k, s_1 = x_1, over a curve (n,) up to its last entry that is no NaN; NaN if all are."""

    def step(last: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        first = jnp.where(jnp.isnan(last), x, last)
        new = SMOOTHING * first + (1 - SMOOTHING) * x
        return jnp.where(jnp.isnan(x), last, new), None

    return lax.scan(step, jnp.full((), jnp.nan, curve.dtype), curve)[0]


def bits_per_spike(counts: jax.Array, rates: jax.Array) -> jax.Array:
    """(log p(counts | rates) - log p(counts | each unit's mean)) / (spikes log 2), over (trial, time, unit).

    Pei et al. 2021 (the Neural Latents Benchmark, arXiv 2109.04463), eq. 3; log x! cancels. NaN without
    any spike.
    """
    counts = counts.astype(rates.dtype)
    mean = counts.mean((0, 1), keepdims=True)
    # xlogy: a silent unit's mean is 0, and 0 log 0 = 0.
    gain = (
        jax.scipy.special.xlogy(counts, rates)
        - rates
        - jax.scipy.special.xlogy(counts, mean)
        + mean
    )
    return gain.sum() / (counts.sum() * jnp.log(2).astype(rates.dtype))


def squared_correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared correlation over time, axis 1 of (trial, time, ...); NaN where a or b is constant."""
    # Rounding of their means leaves constants a variance.
    vary = (a != a[:, :1]).any(1) & (b != b[:, :1]).any(1)
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    product = jnp.where(vary, (a**2).sum(1) * (b**2).sum(1), 0)
    return jnp.where(product > 0, (a * b).sum(1) ** 2 / jnp.where(product > 0, product, 1), jnp.nan)


def rate_r2(rates: jax.Array, truth: jax.Array) -> jax.Array:
    """Squared correlation over time of rates with true rates, mean over trials and units."""
    return jnp.nanmean(squared_correlation(rates, truth))


def lags(n_steps: int) -> range:
    """The lags, in bins, at which inputs are compared: up to MAX_LAG, and at most a quarter of a trial."""
    most = min(MAX_LAG, (n_steps - 1) // 4)
    return range(-most, most + 1)


def input_r2(inferred: jax.Array, truth: jax.Array) -> jax.Array:
    """(lag,) squared correlation of the inferred input at t with the true one at t + lag.

    Mean over trials and true inputs, each true input with the inferred input that follows it best at that
    lag. A model that infers its input one bin early peaks at lag 1; its loss does not show that.
    """
    n_steps = inferred.shape[1]

    def at(lag: int) -> jax.Array:
        a = inferred[:, max(0, -lag) : n_steps - max(0, lag), :, None]
        b = truth[:, max(0, lag) : n_steps - max(0, -lag), None, :]
        return jnp.nanmean(squared_correlation(a, b), axis=0).max(0).mean()

    return jnp.stack([at(lag) for lag in lags(n_steps)])


class Readout(NamedTuple):
    """A linear readout, (features - of_features) @ weights + of_targets."""

    weights: jax.Array
    """(feature, target)"""
    of_features: jax.Array
    """(feature,) means."""
    of_targets: jax.Array
    """(target,) means."""

    def residual(self, features: jax.Array, targets: jax.Array) -> jax.Array:
        return targets - self.of_targets - (features - self.of_features) @ self.weights


def ridge(features: jax.Array, targets: jax.Array) -> Readout:
    """The readout of targets at each bin by ridge regression.

    The ridge is 1e-4 times the mean over features of their sum of squares about the mean. Arrays are (trial, time, ...).
    """
    x, y = (a.reshape(-1, a.shape[-1]) for a in (features, targets))
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    n = gram.shape[0]
    gram += 1e-4 * jnp.trace(gram) / n * jnp.eye(n, dtype=gram.dtype)
    return Readout(jnp.linalg.solve(gram, x.T @ y), mean_x, mean_y)


def readout_r2(readout: Readout, features: jax.Array, targets: jax.Array) -> jax.Array:
    """R2 of targets (trial, time, target) that are read out of features: 1 - residual / total sum of squares.

    Mean over the targets that vary.
    """
    residual, total = (readout.residual(features, targets) ** 2).sum((0, 1)), squares(targets)
    return jnp.nanmean(jnp.where(total > 0, 1 - residual / total, jnp.nan))


def initial_state_r2(inferred: jax.Array, truth: jax.Array) -> jax.Array:
    """R2 of true initial states (trial, state) by ridge regression on inferred ones (trial, ...).

    Fitted on every other trial and tested on the rest. It is 1 - residual / total sum of squares, each summed
    over the entries of the state, so that directions count by their variance. NaN with fewer than 4 trials,
    or where all start alike.
    """
    if len(truth) < 4:
        return jnp.asarray(jnp.nan, truth.dtype)
    fit, test = slice(0, None, 2), slice(1, None, 2)
    x, y = inferred[:, None], truth[:, None]
    residual = ridge(x[fit], y[fit]).residual(x[test], y[test])
    total = squares(y[test]).sum()
    return jnp.where(total > 0, 1 - (residual**2).sum((0, 1)).sum() / total, jnp.nan)


def squares(x: jax.Array) -> jax.Array:
    """(column,) sums of squares of x (trial, time, column) about the mean: of a constant 0, whatever its mean rounds to."""
    return jnp.where((x != x[:1, :1]).any((0, 1)), jnp.sum((x - x.mean((0, 1))) ** 2, (0, 1)), 0)
