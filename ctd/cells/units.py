"""Nonlinearities of units by name: currents h -> rates f(h), entry by entry."""

from __future__ import annotations

from collections.abc import Callable

from ctd.dotted import load
from ctd.late import Array, jax, jnp
from ctd.words import meant

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
        raise ValueError(f"units {name!r} are unknown{meant(name, UNITS) or ';'} there are {NAMES}")
    found = load(name, f"units {name}")
    if not callable(found):
        raise ValueError(f"units {name}: {module} has no function {attribute} of the currents h")
    return found
