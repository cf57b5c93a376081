"""Metrics of the field over all evaluation trials, in memory that does not grow with their number.

Each metric is a function of sums over trials: first over those whose posterior means are there anyway, then over the
others, minibatch by minibatch. R2, and what weighted by variance means: `ctd.lfads.metrics.r2`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from numpy.typing import ArrayLike

from ctd.late import Array, Float, Int, PyTree, jax, jnp, lax
from ctd.lfads.distributions import COUNTS
from ctd.lfads.inference import Inferred, posterior
from ctd.lfads.loss import gather
from ctd.lfads.metrics import gain, per_spike, r2, squares
from ctd.lfads.model import Fitted
from ctd.lfads.weights import factor_weights

SCORED: tuple[Inferred, ...] = ("rates", "factors", "states")
"""The quantities that metrics need."""
LEAST = 1e-6
"""Regressions leave out directions with less than this share of the largest variance, which float32 cannot tell from 0."""
LEAST_TRUE = 1e-5
"""The same of true states, as a share of their largest singular value: theirs are made from the values, not from the squares."""
CUT = 0.01
"""Cycle consistency leaves out principal components of log rates with less than this share of their variance."""
POWER_SHARE = 0.99
"""Share of the sum of squared singular values of a readout whose directions count as seen (CtDBenchmark)."""

Sums = dict[str, PyTree]
"""Name -> sums over trials from which a metric is computed: an array, moments, or a tuple of arrays."""


class Moments(NamedTuple):
    """First and second moments of columns, as sums over trials and bins."""

    n: Float[Array, ""]
    total: Float[Array, "column"]
    products: Float[Array, "column column"]

    @property
    def covariance(self) -> Float[Array, "column column"]:
        """The covariance of the columns, with sums divided by n."""
        mean = self.total / self.n
        return self.products / self.n - mean[:, None] * mean


def moments(x: Float[Array, "trial time column"], counted: Float[Array, "trial"]) -> Moments:
    """The moments of the trials with `counted` 1; it is 0 for padding.

    >>> moments(jnp.array([[[1.0], [3.0]], [[9.0], [9.0]]]), jnp.array([1.0, 0.0])).covariance
    Array([[1.]], dtype=float32)
    """
    # Weights of 0 or 1: x enters twice, weighted once.
    weighted = x * counted[:, None, None]
    flat, total = x.reshape(-1, x.shape[-1]), weighted.reshape(-1, x.shape[-1])
    return Moments(counted.sum() * x.shape[1], total.sum(0), total.T @ flat)


def _sums(
    model: Fitted,
    null: dict[str, Array],
    rows: Int[Array, "trial"],
    counted: Float[Array, "trial"],
    means: Mapping[str, Array],
) -> Sums:
    """The sums from which metrics are computed, over the trials `rows` with `counted` 1.

    means: of their posterior; factors and states are counted from any point.
    """
    trials = model.dataset.evaluation
    data = jnp.asarray(trials.data)[rows].astype(means["rates"].dtype)
    totals: Sums = {
        "factors": moments(means["factors"], counted),
        "generator": moments(means["states"], counted),
    }

    def true_values(truth: ArrayLike) -> tuple[Array, Array]:
        """(true values, 1 for trials that have them): files may know the truth of the first trials alone."""
        values = jnp.asarray(truth)
        inside = counted * (rows < len(values))
        return values[jnp.minimum(rows, len(values) - 1)], inside

    def beside_data(rates: Array) -> Sums:
        """The sums that compare rates, the model's or the true ones, with the data."""
        bins = _regions(model)
        sums: Sums = {}
        for name, mean in null.items():
            gained = gain(data[:, bins[name]], rates[:, bins[name]], mean)
            sums[f"gain_{name}"] = (gained * counted[:, None, None]).sum((0, 1))
        if trials.condition is not None:
            in_condition = jnp.asarray(trials.condition)[rows] * counted[:, None]
            # Sums over the trials k of each condition c, from a unit's first entry on, so that one that never changes has 0.
            average = lambda x: jnp.einsum("kc,ktn->ctn", in_condition, x - trials.data[0, 0])
            sums["psth"] = in_condition.sum(0), average(data), average(rates)
        return sums

    totals["rates"] = beside_data(means["rates"])
    if trials.rates is not None:
        if len(trials.rates) == len(trials.data):
            totals["true_rates"] = beside_data(jnp.asarray(trials.rates)[rows])
        true, inside = true_values(trials.rates)
        totals["residual"] = ((means["rates"] - true) ** 2 * inside[:, None, None]).sum((0, 1))
    if trials.states is not None:
        true, inside = true_values(trials.states)
        # Centred before squares are summed: E x^2 - (E x)^2 of states far from 0 would cancel in float32.
        true = true - jnp.asarray(trials.states).mean((0, 1))
        totals["states"] = moments(jnp.concatenate([true, means["states"]], axis=-1), inside)
    return totals


def scores(
    model: Fitted, key: jax.Array, means: Mapping[str, Array]
) -> dict[str, Float[Array, ""]]:
    """All metrics that the data allow, by the names of `ctd.lfads.names.SCORES`.

    key: of the evaluation trials, from `split_key`. means: posterior means of the first evaluation trials, all of SCORED.
    """
    static, trials = model.static, model.dataset.evaluation
    n, size, first = len(trials.data), static.batch_size, len(means["rates"])
    null, true_size = _null(model), jnp.zeros(0)
    if trials.states is not None:
        states, true_size = uncorrelated(jnp.asarray(trials.states))
        trials = trials._replace(states=states)  # type: ignore[arg-type]
        model = model._replace(dataset=model.dataset._replace(evaluation=trials))
    everyone = jnp.ones(first, means["rates"].dtype)
    # Covariances of states that hardly move, all near 1, would cancel in float32: these are counted from near their mean.
    centre = {name: means[name].mean((0, 1)) for name in ("factors", "states")}
    centred = lambda means: {**means, **{name: means[name] - c for name, c in centre.items()}}
    sums = _sums(model, null, jnp.arange(first), everyone, centred(means))

    def add(so_far: Sums, number: jax.Array) -> tuple[Sums, None]:
        rows = number * size + jnp.arange(size)
        counted = ((rows >= first) & (rows < n)).astype(everyone.dtype)
        rows = jnp.minimum(rows, n - 1)
        batch = gather(static, model.dataset, trials, rows)
        batch_means = posterior(model, batch, jax.random.fold_in(key, number), SCORED)
        new = _sums(model, null, rows, counted, centred(batch_means))
        return jax.tree.map(jnp.add, so_far, new), None

    # The minibatch that `means` ends in is computed again; its first trials are not counted.
    if first < n:
        sums, _ = lax.scan(add, sums, jnp.arange(first // size, -(-n // size)))
    # The first moment alone: rows of further moments come after those of all units.
    readout = model.weights["output"]["w"][: trials.data.shape[2]]
    results = {"cycle_consistency": cycle_consistency(sums["factors"].covariance, readout)}
    readout = readout @ factor_weights(model.weights["generator"])
    of_states = sums["generator"].covariance
    results["cycle_consistency_states"] = seen_share(of_states, readout)
    refitted = readout @ fitted_directions(of_states, math.prod(model.dataset.train.data.shape[:2]))
    results["cycle_consistency_refitted"] = seen_share(of_states, refitted)
    results |= _of_rates(model, null, sums["rates"])
    if "true_rates" in sums:
        of_truth = _of_rates(model, null, sums["true_rates"])
        results |= {f"{name}_true": value for name, value in of_truth.items()}
    if trials.rates is not None:
        of_rates = r2(sums["residual"], squares(jnp.asarray(trials.rates)))
        results |= dict(zip(("rate_r2_weighted", "rate_r2_units"), of_rates, strict=True))
    if trials.states is not None:
        results |= _of_states(sums["states"].covariance, true_size)
    return results


def _regions(model: Fitted) -> dict[str, slice]:
    """The bins that the encoder sees, and the later ones, if any are held out."""
    k = len(model.dataset.seen_bins)
    later = {"later": slice(k, None)} if k < model.dataset.evaluation.data.shape[1] else {}
    return {"seen": slice(0, k), **later}


def _null(model: Fitted) -> dict[str, Float[Array, "unit"]]:
    """Region of bins -> mean counts there, which rates are compared with; empty unless data are counts."""
    if model.static.likelihood not in COUNTS:
        return {}
    data = jnp.asarray(model.dataset.evaluation.data)
    dtype = model.static.dtype
    return {name: data[:, b].mean((0, 1), dtype=dtype) for name, b in _regions(model).items()}


def _of_rates(model: Fitted, null: dict[str, Array], sums: Sums) -> dict[str, Float[Array, ""]]:
    """Bits a spike: of held-out units in the bins that the encoder sees, of all units in held-out bins; and R2 of PSTHs."""
    shape, held_units = model.dataset.evaluation.data.shape, model.dataset.held_units
    results = {"psth_r2": psth_r2(*sums["psth"])} if "psth" in sums else {}
    for region, mean in null.items():
        gain = sums[f"gain_{region}"]
        # Counts = mean count x trials x bins of the region.
        spikes = mean * (shape[0] * len(range(shape[1])[_regions(model)[region]]))
        if region == "later":
            results["fp_bps"] = per_spike(gain.sum(), spikes.sum())
        elif len(held_units):
            results["co_bps"] = per_spike(gain[held_units].sum(), spikes[held_units].sum())
            results["co_bps_units"] = jnp.nanmean(per_spike(gain[held_units], spikes[held_units]))
    return results


def _of_states(
    covariance: Float[Array, "column column"], true_size: Float[Array, "direction"]
) -> dict[str, Float[Array, ""]]:
    """R2 of the generator's states from true ones, and of true ones from these.

    covariance: of `uncorrelated` true states, which have the deviations `true_size`, then of the generator's.
    """
    k = len(true_size)
    explained, spread = regression(covariance, k)
    # True states as large as they are, and the generator's first, to regress the other way.
    size = jnp.concatenate([true_size, jnp.ones(len(covariance) - k, covariance.dtype)])
    turned = jnp.roll(covariance * size[:, None] * size, (-k, -k), axis=(0, 1))
    explained_true, spread_true = regression(turned, len(covariance) - k)
    from_true, mean = r2(spread - explained, spread)
    of_true, _ = r2(spread_true - explained_true, spread_true)
    return {
        "state_r2_from_true": from_true,
        "state_r2_from_true_mean": mean,
        "state_r2_of_true": of_true,
    }


# --- from sums to metrics -------------------------------------------------------------------------


def uncorrelated(
    states: Float[Array, "trial time state"],
) -> tuple[Float[Array, "trial time direction"], Float[Array, "direction"]]:
    """(the states along their principal directions, each with mean 0 and variance 1; the deviations that they had).

    A linear regression on them explains the same, and float32 keeps small directions apart. Directions that it cannot tell
    from 0 are 0.

    >>> states, deviations = uncorrelated(jnp.array([[[0.0, 1.0], [4.0, 1.0]]]))
    >>> print(jnp.abs(states).round(2).tolist(), deviations.round(2).tolist())
    [[[1.0, 0.0], [1.0, 0.0]]] [2.0, 0.0]
    """
    flat = states.reshape(-1, states.shape[-1])
    q, r = jnp.linalg.qr(flat - flat.mean(0))
    left_vectors, values, _ = jnp.linalg.svd(r, full_matrices=False)
    values = jnp.where(values > LEAST_TRUE * values[0], values, 0)
    root = math.sqrt(len(flat))
    scaled = q @ jnp.where(values > 0, left_vectors, 0) * root
    return scaled.reshape(*states.shape[:2], -1), values / root


def regression(
    covariance: Float[Array, "column column"], k: int
) -> tuple[Float[Array, "other"], Float[Array, "other"]]:
    """Variance of the columns from k on that linear regression on the first k explains, and their variance.

    The regression is fitted to and tested on the same moments, so that k columns explain some k / n of n independent samples
    by chance. With eigenvectors e_i of the first k columns' part and
    their variances l_i, sum_i (e_i' C_xy)^2 / l_i is explained.

    >>> regression(jnp.array([[1.0, 0.5], [0.5, 1.0]]), 1)  # the squared correlation, of a variance of 1
    (Array([0.25], dtype=float32), Array([1.], dtype=float32))
    """
    inner, cross, outer = covariance[:k, :k], covariance[:k, k:], covariance[k:, k:]
    variance, directions = jnp.linalg.eigh(inner)
    # eigh sorts in ascending order: the last variance is the largest.
    is_large = variance > LEAST * variance[-1]
    share = jnp.where(is_large, 1 / jnp.where(is_large, variance, 1), 0)
    return share @ (directions.T @ cross) ** 2, jnp.diag(outer)


def psth_r2(
    n: Float[Array, "condition"],
    data: Float[Array, "condition time unit"],
    rates: Float[Array, "condition time unit"],
) -> Float[Array, ""]:
    """R2 of PSTHs, averages over the trials of a condition, rates for data, weighted by the variance of units.

    n: trials of each condition; those without trials are left out. data, rates: sums over the trials.

    >>> data = jnp.array([[[2.0], [4.0]]])
    >>> psth_r2(jnp.array([2.0]), data, data)
    Array(1., dtype=float32)
    """
    # Conditions without trials would divide by 0; their weight is 0.
    has_trials = n > 0
    average = lambda x: x / jnp.where(has_trials, n, 1)[:, None, None]
    true, model, weight = (
        average(data),
        average(rates),
        has_trials[:, None, None] / has_trials.sum(),
    )
    mean = (true * weight).sum(0).mean(0)
    residual, spread = (true - model) ** 2 * weight, (true - mean) ** 2 * weight
    return r2(residual.sum((0, 1)), spread.sum((0, 1)))[0]


def cycle_consistency(
    covariance: Float[Array, "factor factor"], readout: Float[Array, "unit factor"]
) -> Float[Array, ""]:
    """R2 of factors that are recovered from their own log rates, weighted by variance (Versteeg et al. 2023).

    f -> V f -> the principal components of log rates with at least CUT of their variance -> pseudo-inverse of V.
    readout: V; for likelihoods other than Poisson, that of the first moment. Rates that show all factors give 1.

    >>> print(f"{cycle_consistency(jnp.eye(2), jnp.eye(3, 2)):.3f}")
    1.000
    """
    variance, directions = jnp.linalg.eigh(readout @ covariance @ readout.T)
    # A projection onto the kept components: V V^T with the other columns set to 0.
    components = directions * (variance >= CUT * variance.sum())
    recovered = jnp.linalg.pinv(readout) @ (components @ (components.T @ readout))
    residual = jnp.eye(len(covariance), dtype=covariance.dtype) - recovered
    return 1 - jnp.trace(residual @ covariance @ residual.T) / jnp.trace(covariance)


def fitted_directions(
    covariance: Float[Array, "state state"], n_rows: int
) -> Float[Array, "state state"]:
    """Projection on the directions that `LinearRegression` of scikit-learn 1.6 to 1.8 keeps, for this many rows of float32 states.

    CtDBenchmark refits the readout by it. It leaves out singular values below n_rows eps of the largest one: of 800 x 500
    rows, directions with a standard deviation below .048 of the largest.

    >>> fitted_directions(jnp.diag(jnp.array([1.0, 0.001])), 400_000)  # sd .032 of the largest
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    variance, directions = jnp.linalg.eigh(covariance)
    is_fitted = variance > (n_rows * jnp.finfo(jnp.float32).eps) ** 2 * variance[-1]
    return (directions * is_fitted) @ directions.T


def seen_share(
    covariance: Float[Array, "state state"], readout: Float[Array, "unit state"]
) -> Float[Array, ""]:
    """R2 of states recovered from their own log rates, weighted by variance (CtDBenchmark, Versteeg et al. 2025).

    g -> R g -> the pseudo-inverse of R from its largest singular values, as many as make POWER_SHARE of their sum of squares.
    This is the share of the variance of g along the right singular vectors of these. readout: R.

    >>> print(f"{seen_share(jnp.eye(2), jnp.array([[1.0, 0.0]])):.3f}")  # one of two directions shows
    0.500
    """
    _, values, rows = jnp.linalg.svd(readout, full_matrices=False)
    # svd sorts in descending order.
    power = values**2
    is_leading = jnp.cumsum(power) - power < POWER_SHARE * power.sum()
    along = jnp.einsum("ki,ij,kj->k", rows, covariance, rows)
    return jnp.where(is_leading, along, 0).sum() / jnp.trace(covariance)
