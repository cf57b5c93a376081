"""Metrics of the field over all evaluation trials, in memory that does not grow with these.

Each is a function of sums over trials: of the trials whose posterior means are there anyway, then of the others,
minibatch by minibatch. R2 is 1 - residual / total sum of squares, the total about the mean of each column; with columns
weighted by their variance, both are summed over columns first (`r2_score` of scikit-learn, `variance_weighted`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ctd.late import jax, jnp, lax
from ctd.lfads.distributions import COUNTS
from ctd.lfads.draws import Asked, Fitted, Inferred, posterior
from ctd.lfads.loss import gather
from ctd.lfads.metrics import squares
from ctd.lfads.model import factor_weights

SCORED: tuple[Inferred, ...] = ("rates", "factors", "states")
"""What the metrics are of."""
LEAST = 1e-6
"""Directions with less than this share of the largest variance are left out of regressions."""
CUT = 0.01
"""Principal components of log rates with less than this share of their variance are left out of the cycle."""
SEEN = 0.99
"""Share of the squared singular values of a readout whose directions count as seen."""

Means = Mapping[str, Any]
"""Name -> (trial, time, ...) posterior mean."""


class Moments(NamedTuple):
    """First and second moments of columns, as sums over trials and bins."""

    n: jax.Array
    total: jax.Array
    """(column,)"""
    products: jax.Array
    """(column, column)"""

    @property
    def covariance(self) -> jax.Array:
        """(column, column)"""
        mean = self.total / self.n
        return self.products / self.n - mean[:, None] * mean


def moments(x: jax.Array, counted: jax.Array) -> Moments:
    """Those of x (trial, time, column), of the trials that are counted."""
    weighted = x * counted[:, None, None]
    flat, total = x.reshape(-1, x.shape[-1]), weighted.reshape(-1, x.shape[-1])
    return Moments(counted.sum() * x.shape[1], total.sum(0), total.T @ flat)


def gains(counts: jax.Array, rates: jax.Array, null: jax.Array, counted: jax.Array) -> jax.Array:
    """(unit,) log p(counts | rates) - log p(counts | null), over (trial, time, unit), in nats."""
    xlogy = jax.scipy.special.xlogy
    each = xlogy(counts, rates) - rates - xlogy(counts, null) + null
    return (each * counted[:, None, None]).sum((0, 1))


def _sums(
    model: Fitted, null: dict[str, jax.Array], rows: jax.Array, counted: jax.Array, means: Means
) -> dict[str, Any]:
    """Name -> what the trials `rows`, as far as they are counted, add."""
    trials = model.dataset.evaluation
    data = jnp.asarray(trials.data)[rows].astype(means["rates"].dtype)
    found: dict[str, Any] = {
        "factors": moments(means["factors"], counted),
        "generator": moments(means["states"], counted),
    }

    def known(truth: Any) -> tuple[jax.Array, jax.Array]:
        """(true values, which trials have them)."""
        values = jnp.asarray(truth)
        inside = counted * (rows < len(values))
        return values[jnp.minimum(rows, len(values) - 1)], inside

    for region, mean in null.items():
        bins = _regions(model)[region]
        found[f"gain_{region}"] = gains(data[:, bins], means["rates"][:, bins], mean, counted)
    if trials.rates is not None:
        true, inside = known(trials.rates)
        residual = (means["rates"] - true) ** 2 * inside[:, None, None]
        found["residual"] = residual.sum((0, 1))
    if trials.states is not None:
        true, inside = known(trials.states)
        true = true - jnp.asarray(trials.states).mean((0, 1))
        found["states"] = moments(jnp.concatenate([true, means["states"]], axis=-1), inside)
    if trials.condition is not None:
        which = jnp.asarray(trials.condition)[rows] * counted[:, None]
        average = lambda x: jnp.einsum("kc,ktn->ctn", which, x)
        found["psth"] = which.sum(0), average(data), average(means["rates"])
    return found


def scores(model: Fitted, key: jax.Array, means: Means) -> dict[str, jax.Array]:
    """The metrics that the data allow.

    key: of the evaluation trials, see `split_key`. means: of the first evaluation trials, all of SCORED.
    """
    static, trials = model.static, model.dataset.evaluation
    n, size, first = len(trials.data), static.batch_size, len(means["rates"])
    null = _null(model)
    everyone = jnp.ones(first, means["rates"].dtype)
    sums = _sums(model, null, jnp.arange(first), everyone, means)

    def add(so_far: Any, number: jax.Array) -> tuple[Any, None]:
        rows = number * size + jnp.arange(size)
        counted = ((rows >= first) & (rows < n)).astype(everyone.dtype)
        rows = jnp.minimum(rows, n - 1)
        batch = gather(static, model.dataset, trials, rows)
        made = posterior(model, batch, jax.random.fold_in(key, number), Asked(SCORED))
        return jax.tree.map(jnp.add, so_far, _sums(model, null, rows, counted, made)), None

    if first < n:
        sums, _ = lax.scan(add, sums, jnp.arange(first // size, -(-n // size)))
    readout = model.weights["output"]["w"][: trials.data.shape[2]]
    found = {"cycle_consistency": cycle_consistency(sums["factors"].covariance, readout)}
    readout = readout @ factor_weights(model.weights["generator"])
    found["cycle_consistency_states"] = seen_share(sums["generator"].covariance, readout)
    found |= _bits(model, null, sums)
    if trials.rates is not None:
        found |= rate_scores(sums["residual"], squares(jnp.asarray(trials.rates)))
    if trials.states is not None:
        covariance, k = sums["states"].covariance, trials.states.shape[-1]
        found["state_r2_from_true"] = regression_r2(covariance, k)
        turned = jnp.roll(jnp.roll(covariance, -k, axis=0), -k, axis=1)
        found["state_r2_of_true"] = regression_r2(turned, len(covariance) - k)
    if trials.condition is not None:
        found["psth_r2"] = psth_r2(*sums["psth"])
    return found


def _regions(model: Fitted) -> dict[str, slice]:
    """The bins that the encoder sees, and those after them, if there are any."""
    k = len(model.dataset.seen_bins)
    later = {"later": slice(k, None)} if k < model.dataset.evaluation.data.shape[1] else {}
    return {"seen": slice(0, k), **later}


def _null(model: Fitted) -> dict[str, jax.Array]:
    """Region of bins -> (unit,) mean counts there; none unless data are counts."""
    if model.static.likelihood not in COUNTS:
        return {}
    data = jnp.asarray(model.dataset.evaluation.data)
    dtype = model.static.dtype
    return {name: data[:, b].mean((0, 1), dtype=dtype) for name, b in _regions(model).items()}


def _bits(model: Fitted, null: dict[str, jax.Array], sums: dict[str, Any]) -> dict[str, jax.Array]:
    """Bits a spike in the regions of `null`."""
    shape, held = model.dataset.evaluation.data.shape, model.dataset.held_units
    found = {}
    for region, mean in null.items():
        gain = sums[f"gain_{region}"] / jnp.log(2).astype(mean.dtype)
        spikes = mean * (shape[0] * len(range(shape[1])[_regions(model)[region]]))
        if region == "later":
            found["fp_bps"] = gain.sum() / spikes.sum()
        elif len(held):
            found["co_bps"] = gain[held].sum() / spikes[held].sum()
            each = jnp.where(spikes > 0, gain / jnp.where(spikes > 0, spikes, 1), jnp.nan)
            found["co_bps_units"] = jnp.nanmean(each[held])
    return found


# --- from sums to metrics -------------------------------------------------------------------------


def rate_scores(residual: jax.Array, spread: jax.Array) -> dict[str, jax.Array]:
    """R2 of rates from (unit,) sums of squares: of residuals, and of true rates about their means."""
    each = jnp.where(spread > 0, 1 - residual / jnp.where(spread > 0, spread, 1), jnp.nan)
    return {
        "rate_r2_weighted": weighted_r2(residual, spread),
        "rate_r2_units": jnp.nanmean(each),
    }


def weighted_r2(residual: jax.Array, spread: jax.Array) -> jax.Array:
    """1 - residual / total sum of squares, (column,) each; constant columns have no weight, as in scikit-learn."""
    return 1 - jnp.where(spread > 0, residual, 0).sum() / spread.sum()


def regression_r2(covariance: jax.Array, k: int) -> jax.Array:
    """R2 of the columns from k on by linear regression on the first k, weighted by variance.

    covariance: (column, column), which the regression is fitted to and tested on. With E = eigenvectors of the first
    k columns' part and l their variances: sum_i |e_i' C_xy|^2 / l_i over trace C_yy.
    """
    inner, cross, outer = covariance[:k, :k], covariance[:k, k:], covariance[k:, k:]
    variance, directions = jnp.linalg.eigh(inner)
    kept = variance > LEAST * variance[-1]
    along = ((directions.T @ cross) ** 2).sum(1)
    explained = jnp.where(kept, along / jnp.where(kept, variance, 1), 0).sum()
    return explained / jnp.trace(outer)


def psth_r2(n: jax.Array, data: jax.Array, rates: jax.Array) -> jax.Array:
    """R2 of averages over the trials of a condition, over (condition, time), weighted by the variance of units.

    n: (condition,) trials. data, rates: (condition, time, unit) sums over them. Conditions without trials are left out.
    """
    there = n > 0
    average = lambda x: x / jnp.where(there, n, 1)[:, None, None]
    true, model, weight = average(data), average(rates), there[:, None, None] / there.sum()
    mean = (true * weight).sum(0).mean(0)
    residual, spread = (true - model) ** 2 * weight, (true - mean) ** 2 * weight
    return weighted_r2(residual.sum((0, 1)), spread.sum((0, 1)))


def cycle_consistency(covariance: jax.Array, readout: jax.Array) -> jax.Array:
    """R2 of factors that are recovered from their own log rates, weighted by variance (Versteeg et al. 2023).

    f -> V f -> the principal components of log rates with at least CUT of their variance -> pseudo-inverse of V.
    covariance: (factor, factor). readout: V (unit, factor); for other likelihoods than Poisson, of the first moment.
    """
    variance, directions = jnp.linalg.eigh(readout @ covariance @ readout.T)
    kept = directions * (variance >= CUT * variance.sum())
    recovered = jnp.linalg.pinv(readout) @ (kept @ (kept.T @ readout))
    lost = jnp.eye(len(covariance), dtype=covariance.dtype) - recovered
    return 1 - jnp.trace(lost @ covariance @ lost.T) / jnp.trace(covariance)


def seen_share(covariance: jax.Array, readout: jax.Array) -> jax.Array:
    """R2 of states recovered from their own log rates, weighted by variance (CtDBenchmark, Versteeg et al. 2025).

    g -> R g -> the pseudo-inverse of R from its largest singular values, as many as make SEEN of their sum of squares:
    the share of the variance of g along the right singular vectors of these. covariance: (state, state). readout: R
    (unit, state).
    """
    _, values, rows = jnp.linalg.svd(readout, full_matrices=False)
    power = values**2
    kept = jnp.cumsum(power) - power < SEEN * power.sum()
    along = jnp.einsum("ki,ij,kj->k", rows, covariance, rows)
    return jnp.where(kept, along, 0).sum() / jnp.trace(covariance)
