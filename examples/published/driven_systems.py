"""Kernel: observed states of driven systems, as Huang & Ostrow 2026 (figure 2) compare them.

    x_(t+1) = A x_t + .1 P tanh(A x_t) + B u_t,    y_t = the observed entries of x_t + .01 noise,

where P keeps the entries that are not observed. Of a draw, two matrices A (normal entries, spectral radius .92 and .82) and
two B (normal with a random covariance, times .5; with the same covariance turned, times 2) make four systems.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ctd.kernel import Params, Static, Traced, Var, one_shot

RADIUS, GAIN = (0.92, 0.82), (0.5, 2.0)


class Systems(Params):
    """The parameters of one recording."""

    dtype: Static[str] = "float64"
    n: Static[int] = 1000
    units: Static[int] = 20
    observed: Static[int] = 2
    draw: Traced[int] = 0
    dynamics: Traced[int] = 0
    entry: Traced[int] = 0
    drive: Traced[int] = 0


def run(static, shared, traced, key):
    n, k = static.units, static.observed
    drawn = jax.random.split(jax.random.key(traced.draw), 7)
    normal = lambda key, *shape: jax.random.normal(key, shape, static.dtype)
    a = jnp.stack([normal(drawn[0], n, n), normal(drawn[1], n, n)])
    # The spectral radius by Gelfand's formula: eigenvalues of matrices without symmetry are for CPUs alone.
    a *= (jnp.array(RADIUS) / jax.vmap(spectral_radius)(a))[:, None, None]
    spread = normal(drawn[2], n, n)
    turn = jnp.linalg.qr(normal(drawn[3], n, n))[0]
    b = jnp.stack([spread @ normal(drawn[4], n), turn @ spread @ normal(drawn[6], n)])
    b = b * jnp.array(GAIN)[:, None]
    seen = jnp.zeros(n, bool).at[jax.random.permutation(drawn[5], n)[:k]].set(True)
    a, b = a[traced.dynamics], b[traced.entry]
    drive, noise = jax.random.split(jax.random.fold_in(key, traced.drive))
    u = normal(drive, static.n)

    def step(x, u):
        moved = a @ x
        return moved + 0.1 * jnp.where(seen, 0, jnp.tanh(moved)) + b * u, x

    states = jax.lax.scan(step, jnp.zeros(n, static.dtype), u)[1]
    shown = states[:, jnp.flatnonzero(seen, size=k)]
    return {"states": shown + 0.01 * normal(noise, static.n, k), "inputs": u[:, None]}


def spectral_radius(a):
    """|A^1024|^(1/1024), which is within .3 % for 20 units."""
    size = jnp.zeros((), a.dtype)
    for k in range(10):
        norm = jnp.linalg.norm(a)
        size += jnp.log(norm) / 2**k
        a = (a / norm) @ (a / norm)
    return jnp.exp(size + jnp.log(jnp.linalg.norm(a)) / 2**10)


kernel = one_shot(
    "driven_systems",
    Systems,
    {
        "states": Var(("time", "unit"), "1", "observed states"),
        "inputs": Var(("time", "input"), "1", "what drives the system"),
    },
    run,
)
