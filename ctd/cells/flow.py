"""A neural ODE as a cell: a flow whose field is a multi-layer perceptron, and how a flow takes a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights, normal
from ctd.late import jax, jnp

FIELD_UNITS = 128
"""Hidden units of a random field, as many as Sedler et al. 2023 have."""

RATE = 0.1
"""Factor of the field, so that an untrained network keeps its state for some steps, as by `ctd.cells.UPDATE_BIAS`."""


def runge_kutta(f: Callable[[jax.Array], jax.Array], h: jax.Array, dt: Any) -> jax.Array:
    """One step of the classical Runge-Kutta method for dh/dt = f(h); its error is of order dt^5."""
    a = f(h)
    b = f(h + dt / 2 * a)
    c = f(h + dt / 2 * b)
    d = f(h + dt * c)
    return h + dt / 6 * (a + 2 * b + 2 * c + d)


def _field(w: Weights, h: jax.Array, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(w["wFHX"] @ jnp.concatenate([h, x]) + w["bF"])
    return RATE * (w["wV"] @ hidden + w["bV"])


def _shapes(n: int, n_in: int, n_field: int = FIELD_UNITS) -> dict[str, tuple[int, ...]]:
    return {"wFHX": (n_field, n + n_in), "bF": (n_field,), "wV": (n, n_field), "bV": (n,)}


def _draw(key: jax.Array, n: int, n_in: int, scales: Scales, dtype: Any) -> dict[str, jax.Array]:
    key_h, key_x, key_v = jax.random.split(key, 3)
    over_h = normal(key_h, (FIELD_UNITS, n), scales.recurrent, dtype)
    over_x = normal(key_x, (FIELD_UNITS, n_in), scales.input, dtype)
    return {
        "wFHX": jnp.concatenate([over_h, over_x], axis=1),
        "bF": jnp.zeros(FIELD_UNITS, dtype),
        "wV": normal(key_v, (n, FIELD_UNITS), 1.0, dtype),
        "bV": jnp.zeros(n, dtype),
    }


def _infer(w: Weights) -> tuple[int, int]:
    n = w["wV"].shape[0]
    return n, w["wFHX"].shape[1] - n


node = Cell(
    "node",
    lambda w, h, x: runge_kutta(lambda now: _field(w, now, x), h, 1.0),
    _shapes,
    {
        "wFHX": ("field_unit", "unit_and_input"),
        "bF": ("field_unit",),
        "wV": ("unit", "field_unit"),
        "bV": ("unit",),
    }
    | READOUT_AXES,
    _infer,
    _draw,
    flow=_field,
    further=lambda w: (w["wFHX"].shape[0],),
)
"""The neural ODE (Chen et al. 2018) whose field has one hidden layer, as in Sedler, Versteeg & Pandarinath 2023
(arXiv 2212.03771), with time in steps and an input that is constant within one::

    dh/dt = 0.1 (wV tanh(wFHX [h; x] + bF) + bV)
    F     = h(1) from h(0) = h, by one step of the classical Runge-Kutta method

The step is fixed: the state is needed after every step anyway, and there a mode with eigenvalue l of the field is off by
l^5 / 120 of itself: 3e-5 where a rhythm takes 20 steps. An adaptive solver (theirs: Tsitouras 5(4), asked for 1e-3) would gain nothing,
and under vmap every network would wait for the stiffest.
"""
