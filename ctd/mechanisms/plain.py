"""Features of a recording without any model: principal components, autocorrelation, and the rotation of jPCA.

They are what a classifier knows that fits nothing: the lower bound of what models gain.
"""

from __future__ import annotations

from ctd.late import Array, Float, jnp

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
"""Name -> what it tells."""


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
