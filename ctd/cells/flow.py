"""The neural ODE as a cell: a flow dh/dt = MLP(h, x), and the Runge-Kutta step that integrates it."""

from __future__ import annotations

from collections.abc import Callable

from ctd.cells.cell import Cell, Weights
from ctd.late import Array, Float, Number, jnp

FIELD_UNITS = 128
"""Hidden units of a random field, the number of Sedler et al. 2023."""

RATE = 0.1
"""Factor of the field. An untrained network then keeps its state for some 10 steps, so that gradients reach back that far;
`ctd.cells.UPDATE_BIAS` does the same for a GRU."""


def runge_kutta(
    f: Callable[[Array], Array], h: Float[Array, "*state"], dt: Number
) -> Float[Array, "*state"]:
    """h(t + dt) from h(t), for dh/dt = f(h), by one step of the classical Runge-Kutta method; its error is O(dt^5).

    >>> h = runge_kutta(lambda h: -h, jnp.array([1.0]), 0.5)
    >>> print(f"{h[0]:.4f}")  # exp(-0.5) = 0.6065
    0.6068

    Args:
        f: the field, h -> dh/dt, of the shape of h.
        h: the state at t, of any shape.
        dt: length of the step, in units of time.

    Returns:
        The state at t + dt, of the shape of h.
    """
    # The classical tableau: slopes at the start, twice in the middle, at the end, weighted 1 2 2 1.
    a = f(h)
    b = f(h + dt / 2 * a)
    c = f(h + dt / 2 * b)
    d = f(h + dt * c)
    return h + dt / 6 * (a + 2 * b + 2 * c + d)


def _field(w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]) -> Float[Array, "n"]:
    hidden = jnp.tanh(w["wFHX"] @ jnp.concatenate([h, x]) + w["bF"])
    return RATE * (w["wV"] @ hidden + w["bV"])


node = Cell(
    "node",
    # The input is constant within a step: the field is autonomous there, and dt is 1 by definition.
    lambda w, h, x: runge_kutta(lambda now: _field(w, now, x), h, 1.0),
    {
        "wFHX": ("field_unit", "unit_and_input"),
        "bF": ("field_unit",),
        "wV": ("unit", "field_unit"),
        "bV": ("unit",),
    },
    n_hidden=FIELD_UNITS,
    flow=_field,
)
"""The neural ODE (Chen et al. 2018) whose field has one hidden layer, as in Sedler, Versteeg & Pandarinath 2023
(arXiv 2212.03771), with time in steps and an input that is constant within one::

    dh/dt = 0.1 (wV tanh(wFHX [h; x] + bF) + bV)
    F     = h(1) from h(0) = h, by one step of the classical Runge-Kutta method

The step is fixed, since the state is needed after every step anyway. One step changes a mode with eigenvalue l of the field
by a relative error of l^5 / 120: 3e-5 for a rhythm of 20 steps. Sedler et al. use an adaptive solver (Tsitouras 5(4), tolerance
1e-3), which would gain nothing here, and under vmap every network would wait for the stiffest one.
"""
