"""Networks without gates: `vanilla` in discrete time, `leaky`, `leaky_per_unit` and `leaky_rates` in continuous time.

Their units are tanh unless the cell's name ends in another nonlinearity after a colon: `leaky:relu`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ctd.cells.cell import Cell, Weights
from ctd.dotted import load
from ctd.late import Array, Float, jax, jnp
from ctd.words import did_you_mean

type Units = Callable[[Array], Array]
"""Currents h -> rates f(h), of any shape."""

UNITS: dict[str, Units] = {
    "tanh": lambda h: jnp.tanh(h),
    "relu": lambda h: jax.nn.relu(h),
    "softplus": lambda h: jax.nn.softplus(h),
    "retanh": lambda h: jnp.tanh(jax.nn.relu(h)),
}
"""Name -> tanh h; max(h, 0); log(1 + exp h); tanh max(h, 0)."""

NAMES = f"{', '.join(UNITS)}, or the dotted path of a function of your own"


def get_units(name: str) -> Units:
    """The nonlinearity called `name`, or the function f(h) at this dotted path.

    Raises ValueError, naming the nearest, where there is none.

    >>> get_units("retanh")(jnp.array([-1.0, 0.0]))
    Array([0., 0.], dtype=float32)
    """
    if name in UNITS:
        return UNITS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(
            f"units {name!r} are unknown{did_you_mean(name, UNITS) or ';'} there are {NAMES}"
        )
    function = load(name, f"units {name}")
    if not callable(function):
        raise ValueError(f"units {name}: {module} has no function {attribute} of the currents h")
    return function


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
    cell_axes=VANILLA_AXES | {"alphas": ("unit",)},
    starts=lambda n: {"alphas": np.full(n, LEAK)},
    constants=("alphas",),
)
"""The leaky cell whose unit i has its own alphas[i] = dt / tau_i in (0, 1]."""


def _leaky_rates_step(
    f: Units, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    return h + w["alpha"] * (-h + f(w["wR"] @ h + w["wI"] @ x + w["bR"]))


leaky_rates = leaky._replace(
    name="leaky_rates", step=partial(_leaky_rates_step, UNITS["tanh"]), hidden=lambda h: h
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
