"""Metrics of posterior means: against the data, against true values where known, against behaviour.

Metrics of more trials than memory holds at once: `ctd.lfads.scores`.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.late import Array, Float, Real, jax, jnp, lax

MAX_LAG = 3
"""Inferred inputs are compared with true ones up to this many bins earlier and later."""
SMOOTHING = 0.3
"""Share of the past in a smoothed value, as in lfads-torch."""


def smoothed(curve: Float[Array, "n"]) -> Float[Array, ""]:
    """The last value of s_k = 0.3 s_{k-1} + 0.7 x_k, s_1 = x_1, over a curve; NaN entries are skipped, all NaN gives NaN.

    >>> print(f"{smoothed(jnp.array([1.0, 2.0, jnp.nan])):.3f}")
    1.700

    Args:
        curve: (n,) values, such as the validation losses of all epochs.

    Returns:
        () number.
    """

    def step(last: Array, x: Array) -> tuple[Array, None]:
        # Before the first value last is NaN: s_1 = x_1.
        first = jnp.where(jnp.isnan(last), x, last)
        new = SMOOTHING * first + (1 - SMOOTHING) * x
        return jnp.where(jnp.isnan(x), last, new), None

    return lax.scan(step, jnp.full((), jnp.nan, curve.dtype), curve)[0]


def bits_per_spike(
    counts: Real[Array, "trial time unit"], rates: Float[Array, "trial time unit"]
) -> Float[Array, ""]:
    """(log p(counts | rates) - log p(counts | each unit's mean count)) / (spikes log 2), in bits.

    Pei et al. 2021 (the Neural Latents Benchmark, arXiv 2109.04463), eq. 3; log x! cancels.

    >>> counts = jnp.array([[[0.0], [2.0]]])
    >>> float(bits_per_spike(counts, jnp.ones((1, 2, 1))))  # no better than the mean
    0.0
    >>> print(f"{bits_per_spike(counts, jnp.array([[[0.001], [1.999]]])):.3f}")
    0.999

    Args:
        counts: spike counts (trial, time, unit).
        rates: expected counts of a bin, of the same shape.

    Returns:
        () number; NaN for data without any spike.
    """
    counts = counts.astype(rates.dtype)
    # The null model of the benchmark: each unit at its mean count.
    gained = gain(counts, rates, counts.mean((0, 1), keepdims=True))
    return per_spike(gained.sum(), counts.sum())


def per_spike(gained: Float[Array, "*any"], spikes: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """gained / (spikes log 2): gains in nats as bits a spike.

    >>> per_spike(jnp.array([-0.1]), jnp.array([0.0]))
    Array([nan], dtype=float32)

    Args:
        gained: gains in log likelihood (nats), of any shape.
        spikes: number of spikes of each, of the same shape.

    Returns:
        Bits a spike, of this shape; NaN where there is no spike.
    """
    fires = spikes > 0
    bits = gained / jnp.log(2).astype(gained.dtype)
    return jnp.where(fires, bits / jnp.where(fires, spikes, 1), jnp.nan)


def gain(
    counts: Float[Array, "trial time unit"], rates: Float[Array, "trial time unit"], null: Array
) -> Float[Array, "trial time unit"]:
    """log p(counts | rates) - log p(counts | null) of every bin, in nats; log x! cancels.

    >>> counts = jnp.array([[[2.0]]])
    >>> gain(counts, counts, jnp.array(1.0)).round(3)  # 2 log 2 - 2 + 1
    Array([[[0.386]]], dtype=float32)

    Args:
        counts: spike counts (trial, time, unit).
        rates: expected counts of a bin, of the same shape.
        null: expected counts to compare with; they broadcast against `rates`.

    Returns:
        (trial, time, unit) array.
    """
    # xlogy: a silent unit's mean is 0, and 0 log 0 = 0.
    xlogy = jax.scipy.special.xlogy
    return xlogy(counts, rates) - rates - xlogy(counts, null) + null


def squared_correlation(
    a: Float[Array, "trial time *#rest"], b: Float[Array, "trial time *#rest"]
) -> Float[Array, "trial ..."]:
    """(sum a b)^2 / (sum a^2 sum b^2) over the time of each trial and channel, a and b less their means.

    >>> a = jnp.array([[1.0, 2.0, 3.0]])
    >>> squared_correlation(a, -a).round(3), squared_correlation(a, jnp.ones((1, 3)))
    (Array([1.], dtype=float32), Array([nan], dtype=float32))

    Args:
        a: (trial, time, ...).
        b: the same, or a shape that broadcasts against it.

    Returns:
        (trial, ...) array; NaN where a or b is constant.
    """
    # Compare entries: the mean of a constant is rounded, which leaves the constant a variance.
    vary = (a != a[:, :1]).any(1) & (b != b[:, :1]).any(1)
    # Correlation is blind to offset and scale, hence the mean over time of each trial is removed.
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    product = jnp.where(vary, (a**2).sum(1) * (b**2).sum(1), 0)
    return jnp.where(product > 0, (a * b).sum(1) ** 2 / jnp.where(product > 0, product, 1), jnp.nan)


def lags(n_steps: int) -> range:
    """List the lags, in bins, at which inputs are compared: up to MAX_LAG, and at most a quarter of a trial.

    >>> list(lags(9))
    [-2, -1, 0, 1, 2]

    Args:
        n_steps: bins of a trial.

    Returns:
        The lags in increasing order, from -l to l.
    """
    # At longer lags little of the trial would be left to compare.
    most = min(MAX_LAG, (n_steps - 1) // 4)
    return range(-most, most + 1)


def input_r2(
    inferred: Float[Array, "trial time inferred"], truth: Float[Array, "trial time input"]
) -> Float[Array, "lag"]:
    """The squared correlation of the inferred input at t with the true one at t + lag, for each of `lags`.

    Each true input counts with the inferred input that follows it best at that lag; mean over trials and the true
    inputs that vary within trials. A model that infers its input one bin early peaks at lag 1; its loss does not show that.

    >>> truth = jax.random.normal(jax.random.key(0), (1, 9, 1))
    >>> input_r2(jnp.roll(truth, -1, axis=1), truth).argmax()  # lags -2 ... 2
    Array(3, dtype=int32)

    Args:
        inferred: inputs that a model infers, (trial, time, inferred).
        truth: true inputs, (trial, time, input).

    Returns:
        (lag,) array.
    """
    n_steps = inferred.shape[1]

    def at(lag: int) -> Array:
        # Axes (trial, time, inferred, true): every inferred input against every true one.
        a = inferred[:, max(0, -lag) : n_steps - max(0, lag), :, None]
        b = truth[:, max(0, lag) : n_steps - max(0, -lag), None, :]
        # The best inferred input for each true one, since their order is arbitrary.
        each = jnp.nanmean(squared_correlation(a, b), axis=0)
        return jnp.nanmean(jnp.nanmax(each, axis=0))

    return jnp.stack([at(lag) for lag in lags(n_steps)])


class Readout(NamedTuple):
    """A linear readout, (features - of_features) @ weights + of_targets."""

    weights: Float[Array, "feature target"]
    of_features: Float[Array, "feature"]
    """Means of the features that it was fitted to."""
    of_targets: Float[Array, "target"]
    """Means of the targets that it was fitted to."""

    def residual(
        self,
        features: Float[Array, "trial time feature"],
        targets: Float[Array, "trial time target"],
    ) -> Float[Array, "trial time target"]:
        """Targets minus what is read out of the features.

        Args:
            features: (trial, time, feature).
            targets: (trial, time, target).

        Returns:
            (trial, time, target) array.
        """
        return targets - self.of_targets - (features - self.of_features) @ self.weights


def ridge(
    features: Float[Array, "trial time feature"], targets: Float[Array, "trial time target"]
) -> Readout:
    """Fit the readout of targets at each bin by ridge regression.

    The ridge is 1e-4 times the mean over features of their sums of squares about the mean: it has no unit, so scaling
    all features changes nothing, and it keeps factors that are always 0 from making the system singular.

    >>> x = jnp.arange(4.0).reshape(1, 4, 1)
    >>> ridge(x, 3 * x + 1).weights.round(2)
    Array([[3.]], dtype=float32)

    Args:
        features: (trial, time, feature), such as factors.
        targets: (trial, time, target), such as log rates.

    Returns:
        The readout, with the means of features and targets.
    """
    x, y = (a.reshape(-1, a.shape[-1]) for a in (features, targets))
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    n = gram.shape[0]
    gram += 1e-4 * jnp.trace(gram) / n * jnp.eye(n, dtype=gram.dtype)
    # Normal equations: there are far more bins than features.
    return Readout(jnp.linalg.solve(gram, x.T @ y), mean_x, mean_y)


def initial_state_r2(
    inferred: Float[Array, "trial inferred"], truth: Float[Array, "trial state"]
) -> Float[Array, ""]:
    """R2 of true initial states by ridge regression on inferred ones, fitted on every other trial, tested on the rest.

    It is 1 - residual / total sum of squares, each summed over the entries of the state, so that directions count
    by their variance. Fewer than 4 trials, or trials that all start alike, give NaN.

    >>> states = jax.random.normal(jax.random.key(0), (8, 2))
    >>> print(f"{initial_state_r2(states, states @ jnp.array([[1.0, 2.0], [0.0, 1.0]])):.3f}")
    1.000

    Args:
        inferred: initial conditions that a model infers, (trial, inferred).
        truth: true initial states, (trial, state).

    Returns:
        () number.
    """
    if len(truth) < 4:
        return jnp.asarray(jnp.nan, truth.dtype)
    # Every other trial: conditions in blocks are then in both halves.
    fit, test = slice(0, None, 2), slice(1, None, 2)
    # A time axis of length 1, which ridge expects.
    x, y = inferred[:, None], truth[:, None]
    residual = ridge(x[fit], y[fit]).residual(x[test], y[test])
    total = squares(y[test]).sum()
    return jnp.where(total > 0, 1 - (residual**2).sum((0, 1)).sum() / total, jnp.nan)


# --- R2 from sums of squares ----------------------------------------------------------------------


def squares(x: Float[Array, "trial time column"]) -> Float[Array, "column"]:
    """The sum of squares of each column about its mean; exactly 0 for a constant, whose mean is rounded.

    >>> squares(jnp.array([[[1.0, 5.0], [3.0, 5.0]]]))
    Array([2., 0.], dtype=float32)

    Args:
        x: (trial, time, column).

    Returns:
        (column,) array.
    """
    return jnp.where((x != x[:1, :1]).any((0, 1)), jnp.sum((x - x.mean((0, 1))) ** 2, (0, 1)), 0)


def r2(
    residual: Float[Array, "column"], spread: Float[Array, "column"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """R2 = 1 - residual / total sum of squares.

    >>> [round(float(value), 4) for value in r2(jnp.array([1.0, 1.0, 5.0]), jnp.array([2.0, 8.0, 0.0]))]
    [0.8, 0.6875]

    Args:
        residual: (column,) sums of squared residuals.
        spread: (column,) total sums of squares; constant columns, with 0, are left out.

    Returns:
        (R2 of both summed over columns, mean R2 over columns). The first weights columns by their variance (`variance_weighted` of
        scikit-learn).
    """
    vary = spread > 0
    each = jnp.where(vary, 1 - residual / jnp.where(vary, spread, 1), jnp.nan)
    return 1 - jnp.where(vary, residual, 0).sum() / spread.sum(), jnp.nanmean(each)
