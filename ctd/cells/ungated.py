"""Networks without gates: `vanilla` in discrete time, `leaky`, `leaky_per_unit` and `leaky_rates` in continuous time.

Their units are tanh unless the cell's name ends in another nonlinearity after a colon: `leaky:relu` (see `units`).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ctd.cells.cell import Cell, Weights
from ctd.cells.units import UNITS, Units, get_units
from ctd.late import Array, Float


def _vanilla_step(
    f: Units, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    return f(w["wR"] @ h + w["wI"] @ x + w["bR"])


VANILLA_AXES = {"wI": ("unit", "input"), "wR": ("unit", "unit_from"), "bR": ("unit",)}

vanilla = Cell("vanilla", partial(_vanilla_step, UNITS["tanh"]), VANILLA_AXES)
"""The tanh network, F(h, x) = f(wR h + wI x + bR) with f = tanh."""

LEAK = 0.1
"""alpha = dt / tau of the leaky cells by default."""


def _leaky_step(
    f: Units, alpha: str, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    # An Euler step of tau dh/dt = -h + ..., with alpha = dt / tau: at alpha 1 the old currents are forgotten.
    return h + w[alpha] * (-h + w["wR"] @ f(h) + w["wI"] @ x + w["bR"])


leaky = Cell(
    "leaky",
    partial(_leaky_step, UNITS["tanh"], "alpha"),
    VANILLA_AXES | {"alpha": ()},
    starts=lambda n: {"alpha": LEAK},
    hidden=UNITS["tanh"],
    constants=("alpha",),
)
"""The continuous-time network tau dh/dt = -h + wR f(h) + wI x + bR, f = tanh, by Euler steps of dt.

The state h holds the currents; the readout sees the rates f(h). The weight alpha = dt / tau is a number in (0, 1] that
training does not change. With inputs of 0 this is the network of Sompolinsky, Crisanti & Sommers 1988.
"""


leaky_per_unit = leaky._replace(
    name="leaky_per_unit",
    # alphas (n,) broadcasts over the units where alpha is one number.
    step=partial(_leaky_step, UNITS["tanh"], "alphas"),
    own=VANILLA_AXES | {"alphas": ("unit",)},
    starts=lambda n: {"alphas": np.full(n, LEAK)},
    constants=("alphas",),
)
"""The leaky cell whose unit i has its own alphas[i] = dt / tau_i in (0, 1]."""


def _leaky_rates_step(
    f: Units, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    return h + w["alpha"] * (-h + f(w["wR"] @ h + w["wI"] @ x + w["bR"]))


leaky_rates = leaky._replace(
    name="leaky_rates",
    step=partial(_leaky_rates_step, UNITS["tanh"]),
    hidden=lambda h: h,
)
"""The same network in rates, tau dh/dt = -h + f(wR h + wI x + bR): the state h holds the rates, which the readout sees.

Yang et al. 2019 and Langdon & Engel 2025 write their networks so. Under a constant input, currents wR h + wI x + bR of these rates
follow the equation of `leaky` (Miller & Fumarola 2012); under others, inputs reach a leaky unit's current through its leak, here at once.
"""


def with_units(cell: Cell, units: str) -> Cell:
    """The same cell without gates with other units, named `CELL:UNITS`. Raises ValueError where `get_units` does.

    >>> with_units(leaky, "relu").hidden(jnp.array([-1.0, 2.0]))  # the rates that the readout sees
    Array([0., 2.], dtype=float32)
    """
    f = get_units(units)
    if cell is vanilla:
        return cell._replace(name=f"vanilla:{units}", step=partial(_vanilla_step, f))
    if cell is leaky_rates:
        return cell._replace(name=f"leaky_rates:{units}", step=partial(_leaky_rates_step, f))
    step = partial(_leaky_step, f, cell.constants[0])  # "alpha" or "alphas"
    return cell._replace(name=f"{cell.name}:{units}", step=step, hidden=f)


UNGATED: tuple[Cell, ...] = (vanilla, leaky, leaky_per_unit, leaky_rates)
"""The cells whose recurrent weights are one matrix wR (n, n), which training can constrain by sign, rank or mask."""
