"""Kernel: the three regions that Perich et al. 2020 simulate, with the currents between them that a fit should find.

    tau dh/dt = -h + J_X tanh(h) + ampInterReg w tanh(h of the others) + drive,   J_X ~ N(0, g_X^2 / n)

A is chaotic (g 1.8), a bump that moves along the units drives half of B, and one of two bumps half of C (g 1.5). A twentieth of the
units of a region get a current from the unit with the same number in another. Parameters are those of the authors' simulation.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ctd.kernel import Params, Static, Traced, Var, one_shot

BINS, LEAD, DT, TAU = 1001, 200, 0.01, 0.1
"""Bins of the drive, and those before it; seconds."""
GAINS, WIDTH = (1.8, 1.5, 1.5), 0.2
BETWEEN, DRIVEN = 0.05, 0.5
"""Shares of units that another region, and that a drive, reaches."""
HALF, PATTERNS = BINS // 2 + 1, (10, 300)
"""C is held at the bump of the first of these bins, and from 100 bins after the half on at that of the second."""


class Regions(Params):
    """The parameters of one simulation."""

    n: Static[int] = 100
    between: Traced[float] = 0.02
    seed: Traced[int] = 0


def drives(n: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(time, unit) in [0, 1]: the moving bump, which stops 100 bins before the half, and the two that stand still."""
    t, width = jnp.arange(BINS) / (BINS - 1), WIDTH * n
    bump = jnp.exp(-((jnp.arange(n) - width - 2 * n * t[:, None]) ** 2) / (2 * width**2))
    moving = bump.at[HALF - 100 :].set(bump[HALF - 100])
    still = jnp.where(jnp.arange(BINS)[:, None] < HALF + 100, *(moving[k] for k in PATTERNS))
    found = []
    for one in (moving, still):
        h = jnp.log((one + 0.01) / (1 - one + 0.01))
        h = (h - h.min()) / (h.max() - h.min())
        found.append(jnp.concatenate([jnp.tile(h[1], (LEAD, 1)), h]).astype(dtype))
    return found[0], found[1]


def simulate(static: Any, shared: Any, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Rates, each region over its largest, and the currents that each unit gets from the other regions."""
    n, keys = static.n, iter(jax.random.split(jax.random.fold_in(key, traced.seed), 16))
    draw = lambda share: jax.random.permutation(next(keys), jnp.arange(n) < share * n)
    own = [g / n**0.5 * jax.random.normal(next(keys), (n, n), static.dtype) for g in GAINS]
    reached = jnp.stack([jnp.stack([draw(BETWEEN if a != b else 0) for b in range(3)]) for a in range(3)])  # fmt: skip
    moving, still = drives(n, static.dtype)
    drive = jnp.stack([0 * moving, draw(DRIVEN) * moving, -1 * draw(DRIVEN) * still], axis=1)

    def step(h: jax.Array, u: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        r = jnp.tanh(h)
        currents = traced.between * reached * r[None]
        total = jnp.stack([w @ one for w, one in zip(own, r, strict=True)]) + currents.sum(1) + u
        return h + DT / TAU * (total - h), (r, currents)

    first = jax.random.uniform(next(keys), (3, n), static.dtype, -1, 1)
    _, (rates, currents) = jax.lax.scan(step, first, drive)
    rates = rates / rates.max((0, 2), keepdims=True)
    # (time, target, source, unit) -> (source, time, unit of all regions), as `curbd` has them
    return {
        "data": rates.reshape(len(rates), -1),
        "currents": currents.transpose(2, 0, 1, 3).reshape(3, len(rates), -1),
    }


kernel = one_shot(
    "three_regions",
    Regions,
    {
        "data": Var(("time", "unit"), "1", "rates, each region over its largest"),
        "currents": Var(("source", "time", "unit"), "1", "current that a unit gets from a region"),
    },
    simulate,
)
