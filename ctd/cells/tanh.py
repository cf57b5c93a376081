"""Networks of tanh units: `vanilla` in discrete time, `leaky` in continuous time."""

from __future__ import annotations

from typing import Any

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights, normal
from ctd.late import jax, jnp


def _vanilla_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(w["wR"] @ h + w["wI"] @ x + w["bR"])


def _vanilla_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {"wI": (n, n_in), "wR": (n, n), "bR": (n,)}


def _vanilla_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any
) -> dict[str, jax.Array]:
    key_in, key_rec = jax.random.split(key)
    return {
        "wI": normal(key_in, (n, n_in), scales.input, dtype),
        "wR": normal(key_rec, (n, n), scales.recurrent, dtype),
        "bR": jnp.zeros(n, dtype),
    }


def _vanilla_infer(w: Weights) -> tuple[int, int]:
    n, n_in = w["wI"].shape
    return n, n_in


VANILLA_AXES = {"wI": ("unit", "input"), "wR": ("unit", "unit_from"), "bR": ("unit",)}

vanilla = Cell(
    "vanilla",
    _vanilla_step,
    _vanilla_shapes,
    VANILLA_AXES | READOUT_AXES,
    _vanilla_infer,
    _vanilla_draw,
)
"""The tanh network, F(h, x) = tanh(wR h + wI x + bR)."""

LEAK = 0.1
"""The leaky cell's alpha = dt / tau unless it is set."""


def _leaky_step(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    return h + w["alpha"] * (-h + w["wR"] @ jnp.tanh(h) + w["wI"] @ x + w["bR"])


def _leaky_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return _vanilla_shapes(n, n_in) | {"alpha": ()}


def _leaky_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any
) -> dict[str, jax.Array]:
    weights = _vanilla_draw(key, n, n_in, scales, dtype)
    return weights | {"alpha": jnp.asarray(LEAK, dtype)}


leaky = Cell(
    "leaky",
    _leaky_step,
    _leaky_shapes,
    VANILLA_AXES | {"alpha": ()} | READOUT_AXES,
    _vanilla_infer,
    _leaky_draw,
    hidden=lambda h: jnp.tanh(h),
    constants=("alpha",),
)
"""The continuous-time network tau dh/dt = -h + wR tanh(h) + wI x + bR, by Euler steps of dt.

The weight alpha = dt / tau is a number in (0, 1] that training does not change. The readout sees
the rates tanh(h). This is the network of Sompolinsky, Crisanti & Sommers 1988 with inputs.
"""
