"""What training moves, and the weights that these parameters stand for.

Weights keep their signs, zeros and bounds at every step because no value of a parameter stands for others:

    Dale's law         wR_ij = sign_j |p_ij|, with derivative 1 at p = 0, so that no weight is stuck there
    a mask             w = p where it is true, else 0
    rank r             wR = m n' / N, the parameters are m and n (N, r)
    time constants     alpha_i = alpha_min^(1 - s_i) alpha_max^s_i, s_i = sigmoid(p_i)
    readout identity   wO has ones on its diagonal, zeros elsewhere; no parameter

Results hold the weights, under the names that every reader of weights knows.
"""

from __future__ import annotations

from typing import Any

from ctd.cells import Cell, FirstUnits, LowRank, Scales, spectral_radius
from ctd.late import jax, jnp
from ctd.train_rnn.connections import Connections

type Parameters = dict[str, jax.Array]

RECURRENT, TIME = 102, 103
"""Folded into the key of an item's weights; `split` of the same key gives what small numbers would."""

UNPENALISED = ("alphas",)
"""Parameters without penalty or decay: their zero is in the middle of a range."""


def constants(static: Any, cell: Cell) -> set[str]:
    """Names of the parameters that training does not change."""
    kept = set(cell.constants)
    if static.train_alphas:
        kept -= {"alphas"}
    if static.initial_state != "trained":
        kept |= {"h0"}
    return kept if static.readout == "trained" else kept | {"wO", "bO"}


def initial(
    static: Any, cell: Cell, sizes: tuple[int, int], links: Connections, traced: Any, key: jax.Array
) -> Parameters:
    """Random parameters. sizes: (n_in, n_out); key: of the item's weights."""
    scales = Scales(traced.recurrent_scale, traced.input_scale)
    drawn = cell.init(key, static.n, *sizes, scales, static.dtype)
    if "alpha" in drawn:
        drawn["alpha"] = traced.alpha
    if "alphas" in drawn:
        # s uniform between 0 and 1: time constants are log-uniform between their bounds.
        s = jax.random.uniform(jax.random.fold_in(key, TIME), (static.n,), static.dtype, 0.01, 0.99)
        drawn["alphas"] = jnp.log(s / (1 - s))
    if static.initial_state == "zero":
        drawn["h0"] = jnp.zeros_like(drawn["h0"])
    if static.readout == "identity":
        del drawn["wO"]
    for name, mask in links.masks.items():
        drawn[name] = _spread(drawn[name], mask)
    key = jax.random.fold_in(key, RECURRENT)
    if static.rank is not None:
        del drawn["wR"]
        drawn |= _low_rank(static, traced, key)
    elif static.dale:
        drawn["wR"] = _balanced(drawn["wR"], links.signs, traced.recurrent_scale)
    elif static.recurrent_init != "normal":
        drawn["wR"] = _recurrent(static, drawn["wR"], traced.recurrent_scale, key)
    return drawn


def weights_of(static: Any, links: Connections, traced: Any, p: Parameters) -> dict[str, Any]:
    """The weights that parameters stand for; wR may be a `LowRank`, wO the `FirstUnits`."""
    w: dict[str, Any] = dict(p)
    if static.rank is not None:
        w["wR"] = LowRank(w.pop("m"), w.pop("n"))
    if static.readout == "identity":
        w["wO"] = FirstUnits(w["bO"].shape[0], static.n)
    if links.signs is not None:
        # Not jnp.abs, whose derivative at 0 is 0.
        w["wR"] = links.signs * jnp.where(w["wR"] >= 0, w["wR"], -w["wR"])
    for name, mask in links.masks.items():
        w[name] = jnp.where(mask, w[name], 0)
    if "alphas" in w:
        s = jax.nn.sigmoid(w["alphas"])
        between = traced.alpha_min ** (1 - s) * traced.alpha_max**s
        w["alphas"] = jnp.clip(between, traced.alpha_min, traced.alpha_max)  # rounding
    return w


def stored(weights: dict[str, Any]) -> dict[str, jax.Array]:
    """Name -> array, as readers of weights know them."""
    found = dict(weights)
    if isinstance(weights.get("wR"), LowRank):
        found["wR"] = weights["wR"].dense()
    if isinstance(weights["wO"], FirstUnits):
        found["wO"] = weights["wO"].dense(weights["bO"].dtype)
    return found


def _spread(w: jax.Array, mask: Any) -> jax.Array:
    """Weights N(0, g^2 / fan-in) with the fan-in that the mask leaves each unit."""
    fan_in = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1).astype(w.dtype)
    return jnp.where(mask, w * jnp.sqrt(w.shape[1] / fan_in), 0)


def _low_rank(static: Any, traced: Any, key: jax.Array) -> Parameters:
    """m ~ N(0, 1), n = overlap m + recurrent_scale N(0, 1), entry by entry."""
    m, other = jax.random.normal(key, (2, static.n, static.rank), static.dtype)
    return {"m": m, "n": traced.overlap * m + traced.recurrent_scale * other}


def _balanced(w: jax.Array, signs: jax.Array, radius: jax.Array) -> jax.Array:
    """(n, n) magnitudes of w; excitation and inhibition of each unit add to 0, and the spectral radius is `radius`.

    Without the balance, the mean of the weights is an eigenvalue of its own, larger than all others by about
    the root of n, and such a network saturates before it is trained (Rajan & Abbott 2006).
    """
    size = jnp.abs(w)
    excites = jnp.sum(jnp.where(signs > 0, size, 0), axis=1, keepdims=True)
    inhibits = jnp.sum(jnp.where(signs < 0, size, 0), axis=1, keepdims=True)
    both = (excites > 0) & (inhibits > 0)
    ratio = jnp.where(both, excites / jnp.where(both, inhibits, 1), 1)
    size = jnp.where(signs < 0, ratio * size, size)
    return _with_radius(size, spectral_radius(signs * size), radius)


def _recurrent(static: Any, w: jax.Array, scale: jax.Array, key: jax.Array) -> jax.Array:
    if static.recurrent_init == "spectral_radius":
        return _with_radius(w, spectral_radius(w), scale)
    if static.recurrent_init == "identity":
        return scale * jnp.eye(static.n, dtype=w.dtype)
    rotation: jax.Array = jax.random.orthogonal(key, static.n, dtype=w.dtype)
    return scale * rotation


def _with_radius(w: jax.Array, has: jax.Array, radius: jax.Array) -> jax.Array:
    """Scaled to the spectral radius; a nilpotent matrix, which has none, is left as it is."""
    return w * jnp.where(has > 0, radius / jnp.where(has > 0, has, 1), 1)
