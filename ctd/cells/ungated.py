"""Networks without gates: `vanilla` in discrete time, `leaky`, `leaky_per_unit` and `leaky_rates` in continuous time.

Their units are tanh unless the cell's name ends in another nonlinearity after a colon: `leaky:relu` (see `units`).
"""

from __future__ import annotations

from functools import partial

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights, normal
from ctd.cells.units import UNITS, Units, get_units
from ctd.late import Array, Float, jax, jnp


def _vanilla_step(
    f: Units, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    new: Array = f(w["wR"] @ h + w["wI"] @ x + w["bR"])
    return new


def _vanilla_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {"wI": (n, n_in), "wR": (n, n), "bR": (n,)}


def _vanilla_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    key_in, key_rec = jax.random.split(key)
    return {
        "wI": normal(key_in, (n, n_in), scales.input, dtype),
        "wR": normal(key_rec, (n, n), scales.recurrent, dtype),
        "bR": jnp.zeros(n, dtype),
    }


def _infer(w: Weights) -> tuple[int, int]:
    n, n_in = w["wI"].shape
    return n, n_in


VANILLA_AXES = {"wI": ("unit", "input"), "wR": ("unit", "unit_from"), "bR": ("unit",)}

vanilla = Cell(
    "vanilla",
    partial(_vanilla_step, UNITS["tanh"]),
    _vanilla_shapes,
    VANILLA_AXES | READOUT_AXES,
    _infer,
    _vanilla_draw,
)
"""The tanh network, F(h, x) = f(wR h + wI x + bR) with f = tanh."""

LEAK = 0.1
"""alpha = dt / tau of the leaky cells by default."""


def _leaky_step(
    f: Units, alpha: str, w: Weights, h: Float[Array, "n"], x: Float[Array, "n_in"]
) -> Float[Array, "n"]:
    # An Euler step of tau dh/dt = -h + ..., with alpha = dt / tau: at alpha 1 the old currents are forgotten.
    return h + w[alpha] * (-h + w["wR"] @ f(h) + w["wI"] @ x + w["bR"])


def _leaky_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return _vanilla_shapes(n, n_in) | {"alpha": ()}


def _leaky_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    weights = _vanilla_draw(key, n, n_in, scales, dtype)
    return weights | {"alpha": jnp.asarray(LEAK, dtype)}


leaky = Cell(
    "leaky",
    partial(_leaky_step, UNITS["tanh"], "alpha"),
    _leaky_shapes,
    VANILLA_AXES | {"alpha": ()} | READOUT_AXES,
    _infer,
    _leaky_draw,
    hidden=UNITS["tanh"],
    constants=("alpha",),
)
"""The continuous-time network tau dh/dt = -h + wR f(h) + wI x + bR, f = tanh, by Euler steps of dt.

The state h holds the currents; the readout sees the rates f(h). The weight alpha = dt / tau is a number in (0, 1] that
training does not change. With inputs of 0 this is the network of Sompolinsky, Crisanti & Sommers 1988.
"""


def _per_unit_shapes(n: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return _vanilla_shapes(n, n_in) | {"alphas": (n,)}


def _per_unit_draw(
    key: jax.Array, n: int, n_in: int, scales: Scales, dtype: jax.typing.DTypeLike
) -> dict[str, Array]:
    weights = _vanilla_draw(key, n, n_in, scales, dtype)
    return weights | {"alphas": jnp.full(n, LEAK, dtype)}


leaky_per_unit = leaky._replace(
    name="leaky_per_unit",
    # alphas (n,) broadcasts over the units where alpha is one number.
    step=partial(_leaky_step, UNITS["tanh"], "alphas"),
    shapes=_per_unit_shapes,
    axes=VANILLA_AXES | {"alphas": ("unit",)} | READOUT_AXES,
    draw=_per_unit_draw,
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
