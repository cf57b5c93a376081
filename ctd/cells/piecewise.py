"""Piecewise linear cells of dynamical systems reconstruction: `shplrnn`, `shplrnn:clipped`, `alrnn`.

In each linear region, a set of states on which no rectified number changes its sign, F is affine, F(z) = J z + b. So a
fixed point of a region solves (1 - J) z = b, and it is one of the network if it lies in its region.
"""

from __future__ import annotations

from ctd.cells.cell import Cell, Pieces, Scales, Weights, normal
from ctd.late import Array, Float, Int, jax, jnp

HIDDEN_UNITS = 100
"""Hidden units of a random shPLRNN, the number of Hess et al. 2023 for the Lorenz system."""

RECTIFIED_SHARE = 10
"""One unit in ten of a random AL-RNN is rectified: 2 of 20, the numbers of Brenner et al. 2024 for the Lorenz system."""


def _decay(key: jax.Array, n: int, dtype: jax.typing.DTypeLike) -> Array:
    """The diagonal (n,) of a random positive definite matrix whose largest eigenvalue is 1 (Talathi & Vartak 2016)."""
    r = jax.random.normal(key, (n, n), dtype)
    k = r.T @ r / n + jnp.eye(n, dtype=dtype)
    return jnp.diagonal(k) / jnp.linalg.eigvalsh(k)[-1]


def _uniform(
    key: jax.Array, shape: tuple[int, ...], scale: object, dtype: jax.typing.DTypeLike
) -> Array:
    """Entries U(-1, 1) scale / sqrt(fan-in), the length of the last axis."""
    factor: jax.Array = jnp.asarray(scale, dtype) * shape[-1] ** -0.5
    return factor * jax.random.uniform(key, shape, dtype, -1, 1)


# --- the shallow PLRNN ----------------------------------------------------------------------------


def _shallow_step(w: Weights, z: Float[Array, "n"], s: Float[Array, "n_in"]) -> Float[Array, "n"]:
    hidden = jax.nn.relu(w["W2"] @ z + w["h2"])
    return w["A"] * z + w["W1"] @ hidden + w["h1"] + w["C"] @ s


def _clipped_step(w: Weights, z: Float[Array, "n"], s: Float[Array, "n_in"]) -> Float[Array, "n"]:
    drive = w["W2"] @ z
    hidden = jax.nn.relu(drive + w["h2"]) - jax.nn.relu(drive)
    return w["A"] * z + w["W1"] @ hidden + w["h1"] + w["C"] @ s


def draw_shallow(
    key: jax.Array, sizes: tuple[int, int, int], scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    """Draw weights of a `shplrnn` as Hess et al. 2023 do: W1 and W2 uniform; input weights are N(0, g^2 / fan-in).

    >>> draw_shallow(jax.random.key(0), (3, 0, 50), Scales(), "float32")["W1"].shape
    (3, 50)

    Args:
        key: random key.
        sizes: (units, inputs, hidden units).
        scales: g of W1 and of the input weights C.
        dtype: floating type of the weights.

    Returns:
        A (n,), W1 (n, n_hidden), W2 (n_hidden, n), h1 (n,), h2 (n_hidden,) and C (n, n_in).
    """
    n, n_in, n_hidden = sizes
    key_a, key_1, key_2, key_h, key_c = jax.random.split(key, 5)
    return {
        "A": _decay(key_a, n, dtype),
        "W1": _uniform(key_1, (n, n_hidden), scales.recurrent, dtype),
        "W2": _uniform(key_2, (n_hidden, n), 1.0, dtype),
        "h1": jnp.zeros(n, dtype),
        # Without thresholds the clipped cell is linear, and its W1 has no gradient.
        "h2": _uniform(key_h, (n_hidden,), 1.0, dtype),
        "C": normal(key_c, (n, n_in), scales.input, dtype),
    }


def _affine(
    w: Weights, slope: Array, offset: Array, s: Float[Array, "n_in"]
) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
    """(J, b) where hidden unit k is slope_k (W2 z)_k + offset_k."""
    j = jnp.diag(w["A"]) + (w["W1"] * slope) @ w["W2"]
    return j, w["W1"] @ offset + w["h1"] + w["C"] @ s


def _shallow_piece(
    w: Weights, digits: Int[Array, "hidden"], s: Float[Array, "n_in"]
) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
    on = digits.astype(w["A"].dtype)
    return _affine(w, on, on * w["h2"], s)


def _clipped_piece(
    w: Weights, digits: Int[Array, "hidden"], s: Float[Array, "n_in"]
) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
    # Digit 0: both parts are 0; 2: both are on, their difference is h2; 1: one is on, the first where h2 > 0.
    h2 = w["h2"]
    slope = jnp.where(digits == 1, jnp.sign(h2), 0)
    offset = jnp.where(digits == 1, jnp.maximum(h2, 0), jnp.where(digits == 2, h2, 0))
    return _affine(w, slope, offset, s)


shplrnn = Cell(
    "shplrnn",
    _shallow_step,
    {
        "A": ("unit",),
        "W1": ("unit", "hidden"),
        "W2": ("hidden", "unit"),
        "h1": ("unit",),
        "h2": ("hidden",),
        "C": ("unit", "input"),
    },
    draw_custom=lambda key, n, n_in, scales, dtype: draw_shallow(
        key, (n, n_in, HIDDEN_UNITS), scales, dtype
    ),
    n_hidden=HIDDEN_UNITS,
    pieces=Pieces(2, lambda w: w["W2"].shape[0], _shallow_piece),
)
"""The shallow piecewise linear network of Hess, Monfared, Brenner & Durstewitz 2023 (arXiv 2306.04406), eq. 3::

    F(z, s) = A z + W1 relu(W2 z + h2) + h1 + C s,  A diagonal
"""

clipped = shplrnn._replace(
    name="shplrnn:clipped",
    step=_clipped_step,
    pieces=Pieces(3, lambda w: w["W2"].shape[0], _clipped_piece),
)
"""The clipped form of the same, eq. 4, whose orbits are bounded if |A| < 1, since each hidden unit is between 0 and h2::

    F(z, s) = A z + W1 (relu(W2 z + h2) - relu(W2 z)) + h1 + C s
"""


# --- the almost linear network --------------------------------------------------------------------


def _almost_step(w: Weights, z: Float[Array, "n"], s: Float[Array, "n_in"]) -> Float[Array, "n"]:
    # z - min(z, 0) is relu(z): `rectified`, 1 or 0, chooses between it and z.
    rates = z - w["rectified"] * jnp.minimum(z, 0)
    return w["A"] * z + w["W"] @ rates + w["h"] + w["C"] @ s


def draw_almost(
    key: jax.Array, sizes: tuple[int, int, int], scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    """Draw weights of an `alrnn`, whose last units are rectified.

    >>> draw_almost(jax.random.key(0), (5, 0, 2), Scales(), "float32")["rectified"]
    Array([0., 0., 0., 1., 1.], dtype=float32)

    Args:
        key: random key.
        sizes: (units, inputs, rectified units).
        scales: g of W and of the input weights C.
        dtype: floating type of the weights.

    Returns:
        A (n,), W (n, n), h (n,), rectified (n,), 1 for a rectified unit, and C (n, n_in).
    """
    n, n_in, last = sizes
    key_a, key_w, key_c = jax.random.split(key, 3)
    return {
        "A": _decay(key_a, n, dtype),
        "W": normal(key_w, (n, n), scales.recurrent, dtype),
        "h": jnp.zeros(n, dtype),
        "rectified": (jnp.arange(n) >= n - last).astype(dtype),
        "C": normal(key_c, (n, n_in), scales.input, dtype),
    }


def _almost_piece(
    w: Weights, digits: Int[Array, "n"], s: Float[Array, "n_in"]
) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
    slope = 1 - w["rectified"] * (digits == 0)
    return jnp.diag(w["A"]) + w["W"] * slope, w["h"] + w["C"] @ s


alrnn = Cell(
    "alrnn",
    _almost_step,
    {
        "A": ("unit",),
        "W": ("unit", "unit_from"),
        "h": ("unit",),
        "rectified": ("unit",),
        "C": ("unit", "input"),
    },
    draw_custom=lambda key, n, n_in, scales, dtype: draw_almost(
        key, (n, n_in, max(1, n // RECTIFIED_SHARE)), scales, dtype
    ),
    constants=("rectified",),
    pieces=Pieces(2, lambda w: w["A"].shape[0], _almost_piece),
)
"""The almost linear network of Brenner, Hemmer, Monfared & Durstewitz 2024 (arXiv 2410.14240), eq. 2::

    F(z, s) = A z + W phi(z) + h + C s,  A diagonal, phi_i(z) = max(z_i, 0) where rectified_i is 1, z_i where it is 0

With P rectified units it has at most 2^P linear regions. `rectified` is a weight that training does not change.
"""
