"""Features of a map: how it rests, turns, spreads and predicts where trials go; and features of a recording without any model.

`read` takes the same numbers off a fitted network and off the true system, at states x (trial, time, dimension). Lengths are in units
of the data's root mean square distance from their mean, times in lengths of a trial, so that neither scale nor sampling enters. Every
number is bounded, and exists for every map. `plain` is what a classifier knows that fits nothing: the lower bound of what models gain.
"""

from __future__ import annotations

from collections.abc import Callable

from ctd.cells import spectral_radius
from ctd.late import Array, Float, jax, jnp, lax

type Step = Callable[[Array], Array]
"""(dimension,) -> (dimension,), one bin."""

FEATURES = {
    "free_r2": "variance of trials that runs from their first states explain; driven systems and chaos have little",
    "late_r2": "the same over the last quarter of the trials",
    "short_gain": "log10 squared error of predictions a tenth of a trial ahead, over that of no change",
    "long_gain": "the same a third of a trial ahead",
    "spread": "distance of states from each other one trial later, without data",
    "spread_late": "the same six trials later: 0 for one attractor",
    "ends": "how many places runs end at: 0 one, 1 each at its own (log of the number, over its largest)",
    "end_dimension": "participation ratio of states one trial later: dimension of the slow manifold",
    "end_dimension_late": "the same six trials later",
    "end_kurtosis": "of the first component of these states: 1 two places, 1.8 a line, 3 a Gaussian",
    "hollow": "least of their distances from the middle (tenth percentile over mean): near 1 a ring, .47 a disc",
    "motion": "log10 distance that a state moves in a trial, six trials later: fixed points rest, cycles move",
    "slow_motion": "log10 distance that a state would move in a trial, one trial later",
    "exponent_1": "largest Lyapunov exponent, per trial, as asinh",
    "exponent_2": "the second",
    "exponent_3": "the third",
    "stable_points": "log (1 + number of stable fixed points where the data are)",
    "unstable_points": "the same of unstable ones",
    "found_points": "share of searches that end at a fixed point",
    "point_memory": "log10 time constant of the slowest mode, median over points, in trials",
    "point_rotation": "how much the Jacobian at the points turns: |J - J'| / |J - 1|",
    "rotation": "how much the flow at the data turns: the same of its best linear fit (jPCA of the map)",
}  # fmt: skip
"""Name -> description."""

TRIALS, STARTS, TANGENTS, LATE = 64, 32, 16, 6
"""Most trials that are read, searches for points, trials along which exponents are computed; length of the long run, in trials."""

NEAR, INSIDE, NEWTON = 0.15, 2.5, 30
"""Places nearer than this count as one; fixed points farther from the middle are left out; steps of Newton's method."""


def read(step: Step, x: Float[Array, "trial time dimension"]) -> Float[Array, "feature"]:
    """All `FEATURES` of a map around trials x, in their order."""
    x = x[:TRIALS]
    middle = x.mean((0, 1))
    scale = jnp.sqrt(jnp.mean(jnp.sum((x - middle) ** 2, -1)))
    # In units of the data, so that thresholds mean the same for every recording.
    x = (x - middle) / scale
    bound = 1e3
    # A run that diverges stays at the bound, so that its numbers exist and are large.
    scaled = lambda h: jnp.clip((step(middle + scale * h) - middle) / scale, -bound, bound)
    # Two runs serve all features: a program is compiled as often as it contains the map.
    n, flat = x.shape[1], x.reshape(-1, x.shape[-1])
    ahead = _run(scaled, flat, max(1, n // 3))
    both = _run(scaled, jnp.concatenate([x[:, 0], x[:, -1]]), LATE * n)
    # From first states for the rest of the trial, beside the data; from last states for LATE trials, without data.
    free, path = both[: n - 1, : len(x)], both[:, len(x) :]
    features = _free(x, jnp.swapaxes(free, 0, 1)) | _gains(x, ahead) | _ends(path, n)
    features |= _points(scaled, flat, n) | {"rotation": _rotation(flat, ahead[0])}
    exponents = _exponents(scaled, path[n - 1, :TANGENTS], n)
    features |= {f"exponent_{k + 1}": value for k, value in enumerate(exponents)}
    values = jnp.stack([features[name] for name in FEATURES])
    return jnp.nan_to_num(values, nan=0.0, posinf=10.0, neginf=-10.0)


def velocities(
    step: Step, x: Float[Array, "trial time dimension"]
) -> Float[Array, "sample dimension"]:
    """F(x) - x at the states of trials; two fits of one recording agree if these do."""
    flat = x[:TRIALS].reshape(-1, x.shape[-1])
    return jax.vmap(step)(flat) - flat


def _linearised(step: Step, h: Array) -> tuple[Array, Array]:
    """(F(h), dF/dh), in one pass."""
    eye = jnp.eye(len(h), dtype=h.dtype)
    along = lambda v: jax.jvp(step, (h,), (v,))
    return jax.vmap(along, out_axes=(None, 1))(eye)


def _run(step: Step, h: Array, n: int) -> Array:
    """(n, sample, dimension) states after 1 ... n steps from h (sample, dimension)."""

    def advance(h: Array, _: None) -> tuple[Array, Array]:
        h = jax.vmap(step)(h)
        return h, h

    return lax.scan(advance, h, length=n)[1]


def _free(x: Array, free: Array) -> dict[str, Array]:
    """free: (trial, time - 1, dimension) the run from the first state of each trial."""
    error = jnp.sum((x[:, 1:] - free) ** 2, -1)
    variance = jnp.sum((x[:, 1:] - x[:, 1:].mean((0, 1))) ** 2, -1)
    late = -(x.shape[1] // 4)
    r2 = lambda part: jnp.clip(1 - error[:, part].mean() / variance[:, part].mean(), -1, 1)
    return {"free_r2": r2(slice(None)), "late_r2": r2(slice(late, None))}


def _gains(x: Array, ahead: Array) -> dict[str, Array]:
    """ahead: (steps, trial time, dimension) states after 1, 2, ... steps from every state of the trials."""
    n = x.shape[1]

    def gain(k: int) -> Array:
        predicted = ahead[k - 1].reshape(x.shape)[:, :-k]
        ratio = jnp.sum((predicted - x[:, k:]) ** 2) / jnp.sum((x[:, :-k] - x[:, k:]) ** 2)
        return jnp.clip(jnp.log10(ratio + 1e-6), -2, 1)

    return {"short_gain": gain(max(1, n // 10)), "long_gain": gain(max(1, n // 3))}


def _spectrum(points: Array) -> tuple[Array, Array, Array]:
    """(variances along principal axes in falling order, axes in columns, centred points)."""
    centred = points - points.mean(0)
    values, axes = jnp.linalg.eigh(centred.T @ centred / len(points))
    return jnp.maximum(values[::-1], 0), axes[:, ::-1], centred


def _ratio(values: Array) -> Array:
    """Participation ratio of variances, 1 to their number."""
    # Rest that is smaller than a hundredth of the data has no dimension.
    return (values.sum() + 1e-4) ** 2 / (jnp.sum(values**2) + 1e-8)


def _places(points: Array, valid: Array, near: float) -> Array:
    """The number of places: of valid points that no earlier valid one is near to."""
    apart = jnp.sqrt(jnp.sum((points[:, None] - points[None]) ** 2, -1))
    earlier = jnp.tril(jnp.ones(apart.shape, bool), -1) & valid[None]
    return jnp.sum(valid & ~jnp.any(earlier & (apart < near), axis=1))


def _ends(path: Array, n: int) -> dict[str, Array]:
    """path: (`LATE` n, trial, dimension) the runs from the last states of the trials, which have n bins."""
    soon, end = path[n - 1], path[-1]
    moved = lambda h, to: jnp.log10(n * jnp.mean(jnp.linalg.norm(to - h, axis=-1)) + 1e-2)
    variances, axes, centred = _spectrum(soon)
    first = centred @ axes[:, 0]
    radius = jnp.linalg.norm(centred @ axes[:, :2], axis=1)
    late_variances, _, _ = _spectrum(end)
    kurtosis = jnp.mean(first**4) / (jnp.mean(first**2) ** 2 + 1e-8)
    places = _places(end, jnp.ones(len(end), bool), NEAR)
    turns, far = jnp.quantile(radius, 0.1), radius.mean() + 1e-3
    return {
        "spread": jnp.minimum(jnp.sqrt(variances.sum()), 3),
        "spread_late": jnp.minimum(jnp.sqrt(late_variances.sum()), 3),
        "ends": jnp.log(places) / jnp.log(len(end)),
        "end_dimension": _ratio(variances),
        "end_dimension_late": _ratio(late_variances),
        "end_kurtosis": jnp.minimum(kurtosis, 6),
        "hollow": turns / far,
        "motion": moved(path[-n:-1], path[1 - n :]),
        "slow_motion": moved(soon, path[n]),
    }


def _exponents(step: Step, h: Array, n: int) -> Float[Array, "dimension"]:
    """asinh of the Lyapunov exponents per trial of n bins, the largest first, along runs of three trials from h (sample, dimension), of which the first
    turns the frame and does not count (Benettin et al. 1980)."""
    d = h.shape[1]

    def advance(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        h, frame = carry
        after, jacobian = _linearised(step, h)
        q, r = jnp.linalg.qr(jacobian @ frame)
        # 1e-6 keeps the logarithm finite where a direction vanishes.
        return (after, q), jnp.log(jnp.abs(jnp.diagonal(r)) + 1e-6)

    along = lambda h: lax.scan(advance, (h, jnp.eye(d, dtype=h.dtype)), length=3 * n)[1][n:].mean(0)
    # A frame that begins in the eigenvectors stays there, in whatever order they have.
    return jnp.sort(jnp.arcsinh(n * jax.vmap(along)(h).mean(0)))[::-1]


def _newton(step: Step, h: Array) -> tuple[Array, Array, Array]:
    """(the point that Newton's method for F(h) = h reaches from h, in steps no longer than .5; |F(h) - h| and dF/dh at that point)."""
    eye = jnp.eye(len(h), dtype=h.dtype)

    def newton_step(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        h, _, _ = carry
        after, jacobian = _linearised(step, h)
        # On a line of points F - 1 is singular; the ridge keeps the step across the line and none along it.
        slope, residual = jacobian - eye, after - h
        move = -jnp.linalg.solve(slope.T @ slope + 1e-6 * eye, slope.T @ residual)
        move = move * jnp.minimum(1, 0.5 / (jnp.linalg.norm(move) + 1e-9))
        # The last turn measures, and stays.
        return h + jnp.where(k < NEWTON, move, 0), jnp.linalg.norm(residual), jacobian

    return lax.fori_loop(0, NEWTON + 1, newton_step, (h, jnp.zeros((), h.dtype), eye))


def _points(step: Step, flat: Array, n: int) -> dict[str, Array]:
    """flat: (sample, dimension) states of trials of n bins."""
    starts = flat[jnp.linspace(0, len(flat) - 1, STARTS).astype(int)]
    points, residual, jacobians = jax.vmap(lambda h: _newton(step, h))(starts)
    valid = (residual < 1e-4) & (jnp.linalg.norm(points, axis=1) < INSIDE)
    radius = jax.vmap(spectral_radius)(jacobians)
    memory = jnp.log10(jnp.clip(1 / jnp.abs(jnp.log(radius + 1e-6)), 1e-2, 1e4) / n)
    of_valid = lambda v: jnp.where(valid.any(), jnp.nanmedian(jnp.where(valid, v, jnp.nan)), 0)
    stable = radius < 1
    return {
        "stable_points": jnp.log1p(_places(points, valid & stable, NEAR)),
        "unstable_points": jnp.log1p(_places(points, valid & ~stable, NEAR)),
        "found_points": valid.mean(),
        "point_memory": of_valid(memory),
        "point_rotation": of_valid(_turning(jacobians - jnp.eye(flat.shape[1], dtype=flat.dtype))),
    }


def _turning(j: Float[Array, "*any dimension dimension"]) -> Array:
    """|J - J'| / |J|, 0 for a symmetric matrix and 2 for a skew-symmetric one."""
    size = lambda m: jnp.linalg.norm(m, axis=(-2, -1))
    return size(j - j.swapaxes(-1, -2)) / (size(j) + 1e-3)


def _rotation(flat: Array, after: Array) -> Array:
    """The rotation of the best linear fit of F(x) - x at the states (sample, dimension)."""
    centred = flat - flat.mean(0)
    ridge = 1e-3 * len(flat) * jnp.eye(flat.shape[1], dtype=flat.dtype)
    return _turning(jnp.linalg.solve(centred.T @ centred + ridge, centred.T @ (after - flat)).T)


# --- without a model ------------------------------------------------------------------------------

PLAIN = {
    "share_1": "share of variance of the first principal component",
    "share_2": "of the second",
    "share_3": "of the third",
    "dimension": "participation ratio of all components",
    "correlation_short": "autocorrelation of the first three components a tenth of a trial apart",
    "correlation_long": "a third of a trial apart",
    "correlation_time": "lag at which it falls below 1/e, as a share of a trial",
    "linear_r2": "variance of the components' change in a bin that a linear map explains",
    "jpca_ratio": "the same of a skew-symmetric map (jPCA, Churchland et al. 2012), over it",
}  # fmt: skip
"""Name -> description."""


def plain(
    factors: Float[Array, "trial time factor"], variances: Float[Array, "component"]
) -> Float[Array, "plain_feature"]:
    """All `PLAIN` features. variances: of all principal components, in falling order."""
    share = variances / variances.sum()
    n = factors.shape[1]
    x = factors - factors.mean((0, 1))
    total = jnp.mean(jnp.sum(x**2, -1))
    lag = lambda k: jnp.mean(jnp.sum(x[:, : n - k] * x[:, k:], -1)) / total
    lags = jnp.stack([lag(k) for k in range(1, 1 + n // 2)])
    below = lags < jnp.exp(-1.0)
    # argmax finds the first lag below 1/e; without one the longest lag stands for all longer times.
    time = jnp.where(below.any(), 1 + jnp.argmax(below), n // 2) / n
    dimension = 1 / jnp.sum(share**2)
    short, long = lag(max(1, n // 10)), lag(max(1, n // 3))
    linear, skew = _changes(x)
    ratio = skew / jnp.maximum(linear, 1e-3)
    return jnp.stack([share[0], share[1], share[2], dimension, short, long, time, linear, ratio])


def _changes(x: Float[Array, "trial time factor"]) -> tuple[Array, Array]:
    """R2 of x_(t+1) - x_t = M x_t with any M, and with the best skew-symmetric M."""
    d = x.shape[-1]
    before, change = x[:, :-1].reshape(-1, d), (x[:, 1:] - x[:, :-1]).reshape(-1, d)
    gram, cross = before.T @ before, change.T @ before
    # The ridge keeps the system regular where factors are dependent.
    m = jnp.linalg.solve(gram + 1e-6 * jnp.trace(gram) * jnp.eye(d), cross.T).T
    # Skew-symmetric least squares: S G + G S = C - C' has S_ij = (V'(C - C')V)_ij / (g_i + g_j) in the eigenvectors V of G.
    g, v = jnp.linalg.eigh(gram)
    turned = v.T @ (cross - cross.T) @ v / (g[:, None] + g[None] + 1e-6 * g.sum())
    s = v @ turned @ v.T
    total = jnp.sum(change**2)
    r2 = lambda m: 1 - jnp.sum((change - before @ m.T) ** 2) / total
    return r2(m), r2(s)
