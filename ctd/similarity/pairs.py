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
    """The distance of two networks. a, b: their features; sizes: their numbers of components; key: for dsa.

    Most methods compute how alike they are, a cosine or a mean canonical correlation, 1 for equal networks. procrustes: |X'Y|_* of
    states of unit norm (Williams et al. 2021). cka, rbf_cka: the cosine of centred Gram matrices (Kornblith et al. 2019).
    svcca, cca: canonical correlations (Raghu et al. 2017). dsa: see `dynamics`.
    """
    if static.method in OF_POINTS:
        total = jnp.sum(a + b)
        return jnp.where(total > 0, jnp.sum(jnp.abs(a - b)) / jnp.where(total > 0, total, 1), 0)
    if static.method in DISTANCES:
        return DISTANCES[static.method](a, b)
    if static.method == "dsa":
        alike = alignment(a, b, static.starts, static.max_iterations, key)
    elif static.method == "rbf_cka":
        k, m = _centred_gram(a), _centred_gram(b)
        alike = jnp.sum(k * m) / (jnp.linalg.norm(k) * jnp.linalg.norm(m))
    elif static.method == "cka":
        alike = jnp.sum((a.T @ b) ** 2)
    else:
        # The nuclear norm: Procrustes' best rotation, or the sum of canonical correlations of orthonormal bases.
        alike = jnp.sum(jnp.linalg.svd(a.T @ b, compute_uv=False))
        if static.method != "procrustes":
            alike = alike / jnp.min(sizes)
    # Rounding takes equal networks beyond 1: to no angle, or to a distance below 0, which SciPy's linkage refuses.
    alike = jnp.clip(alike, -1, 1)
    return jnp.arccos(alike) if UNITS[static.method] == ANGLE else 1 - alike


def _centred_gram(x: Float[Array, "sample column"]) -> Float[Array, "sample sample"]:
    """The Gram matrix exp(-|x_i - x_j|^2 / 2), without the means of rows and columns."""
    squares = jnp.sum(x**2, axis=1)
    # |x|^2 + |y|^2 - 2 x y may fall below 0 by rounding.
    gram = jnp.exp(-jnp.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0) / 2)
    mean = gram.mean(axis=0)
    return gram - mean[:, None] - mean[None] + mean.mean()
