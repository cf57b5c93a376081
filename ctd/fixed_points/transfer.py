"""The network linearised at any state: modes, and what each carries from the input to the readout.

With dF/dh = R L R^-1, an input dx now changes the readout s steps later by sum_m lambda_m^s T_m dx, where
T_m = C r_m l_m^H B, C = dz/dh, B = dF/dx, l_m^H the rows of R^-1. T_m does not depend on the length of an eigenvector, and
T_m summed over all modes is C B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ctd.late import jax, jnp


class Carried(NamedTuple):
    """The first k modes of a state, by decreasing |eigenvalue|."""

    eigenvalue: jax.Array
    """(k,) complex."""
    transfer: jax.Array
    """(k, output, input) complex, T_m."""
    input_jacobian: jax.Array
    """(state, input) dF/dx."""


def carried(
    step: Callable[[jax.Array, jax.Array], jax.Array],
    read: Callable[[jax.Array], jax.Array],
    h: jax.Array,
    x: jax.Array,
    k: int,
) -> Carried:
    """The modes of step(h, x) at h (state,), x (input,), and what they carry to the readout read(h) (output,)."""
    dh, dx = jax.jacfwd(step, (0, 1))(h, x)
    values, right = jnp.linalg.eig(dh)
    order = jnp.argsort(-jnp.abs(values))[:k]
    out = jax.jacfwd(read)(h) @ right
    into = jnp.linalg.solve(right, dx.astype(right.dtype))
    transfer = out.T[order][:, :, None] * into[order][:, None, :]
    return Carried(values[order], transfer, dx)
