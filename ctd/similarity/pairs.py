"""The distance of two networks, from their features."""

from __future__ import annotations

from ctd.kernel import View
from ctd.late import Array, Float, jnp
from ctd.similarity.dynamics import alignment, eigenvalue_distance
from ctd.similarity.identification import input_distance, joint_distance
from ctd.similarity.params import OF_POINTS, Comparison

ANGLE = "angle, rad"

UNITS = {
    "procrustes": ANGLE,
    "cka": ANGLE,
    "rbf_cka": ANGLE,
    "svcca": "1 - mean correlation",
    "cca": "1 - mean correlation",
    "dsa": ANGLE,
    "dsa:eigenvalues": "2-Wasserstein distance",
    "dsa:joint": "distance of controllability matrices",
    "dsa:input": "distance of input matrices",
    "topology": "Bray-Curtis dissimilarity",
    "connections": "Bray-Curtis dissimilarity",
}
"""The unit of a distance, by method."""

DISTANCES = {"dsa:eigenvalues": eigenvalue_distance, "dsa:joint": joint_distance, "dsa:input": input_distance}  # fmt: skip
"""Methods that compute a distance of two features at once, without a similarity."""


def distance(
    static: View[Comparison],
    a: Float[Array, "row column"],
    b: Float[Array, "row column"],
    sizes: Float[Array, "2"],
    key: Array,
) -> Float[Array, ""]:
    """The distance of two networks. a, b: their features; sizes: their numbers of components; key: for dsa."""
    if static.method in OF_POINTS:
        total = jnp.sum(a + b)
        return jnp.where(total > 0, jnp.sum(jnp.abs(a - b)) / jnp.where(total > 0, total, 1), 0)
    if static.method in DISTANCES:
        return DISTANCES[static.method](a, b)
    # Rounding takes equal networks beyond 1: to no angle, or to a distance below 0, which SciPy's linkage refuses.
    alike = jnp.clip(similarity(static, a, b, sizes, key), -1, 1)
    return jnp.arccos(alike) if UNITS[static.method] == ANGLE else 1 - alike


def similarity(
    static: View[Comparison],
    a: Float[Array, "row column"],
    b: Float[Array, "row column"],
    sizes: Float[Array, "2"],
    key: Array,
) -> Float[Array, ""]:
    """The similarity of two networks, a cosine or the mean canonical correlation: 1 for equal networks.

    procrustes: |X'Y|_* of states of unit norm (Williams et al. 2021). cka, rbf_cka: the cosine of centred Gram
    matrices (Kornblith et al. 2019). svcca, cca: canonical correlations (Raghu et al. 2017). dsa: see `dynamics`.
    """
    if static.method == "dsa":
        return alignment(a, b, static.starts, static.max_iterations, key)
    if static.method == "rbf_cka":
        k, m = _centred_gram(a), _centred_gram(b)
        return jnp.sum(k * m) / (jnp.linalg.norm(k) * jnp.linalg.norm(m))
    product = a.T @ b
    if static.method == "cka":
        return jnp.sum(product**2)
    # The nuclear norm: Procrustes' best rotation, or the sum of canonical correlations of orthonormal bases.
    total = jnp.sum(jnp.linalg.svd(product, compute_uv=False))
    return total if static.method == "procrustes" else total / jnp.min(sizes)


def _centred_gram(x: Float[Array, "sample column"]) -> Float[Array, "sample sample"]:
    """The Gram matrix exp(-|x_i - x_j|^2 / 2), without the means of rows and columns."""
    squares = jnp.sum(x**2, axis=1)
    # |x|^2 + |y|^2 - 2 x y may fall below 0 by rounding.
    gram = jnp.exp(-jnp.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0) / 2)
    mean = gram.mean(axis=0)
    return gram - mean[:, None] - mean[None] + mean.mean()
