"""Ridge readouts of teacher-forced networks, and the memory capacity that they measure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.esn.force import Now, begin, features
from ctd.esn.reservoir import Units, Weights, disturbances, step, units
from ctd.late import jax, jnp, lax


class Fit(NamedTuple):
    """A readout and how well it fits."""

    now: Now
    """The network after the training range; it is fed the last target next."""
    readout: jax.Array
    """(m, p)"""
    squared_error: jax.Array
    """() sum over the training range and outputs of (z - f)^2."""
    definite: jax.Array
    """() False if Gram matrix plus ridge was not positive definite although the states were finite."""


def teacher_forced(
    static: Any, w: Weights, now: Now, x: jax.Array, y: jax.Array, noise: jax.Array
) -> tuple[Now, jax.Array]:
    """Drive the network by inputs x (t, k), and feed back targets y (t, m) in place of its outputs.

    Returns the network at the end and its rates (t, n). Sample 0 is fed `now.z`, sample i is fed y[i-1].
    noise: (t, n).
    """

    def sample(c: Now, row: Any) -> tuple[Now, jax.Array]:
        x, y, noise = row
        moved = step(static, w, c.units, x, c.z, noise)
        return Now(moved, y), moved.h

    return lax.scan(sample, now, (x, y, noise))


def solve(static: Any, h: jax.Array, f: jax.Array, ridge: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(R (m, p) with R (H^T H + D) = F^T H for features H (t, p) and targets F (t, m), is it finite).

    D = ridge I, but 0 for the constant of an intercept, so that a shift of all targets shifts the constant
    alone, as in scikit-learn and reservoirpy. One step of refinement brings the residual of the normal
    equations down to rounding. If H^T H + D is not positive definite, R is 0 and the second value False.
    """
    penalty = jnp.full((h.shape[1], 1), ridge, h.dtype)
    if static.intercept:
        penalty = penalty.at[-1].set(0)
    gram = h.T @ h + jnp.diag(penalty[:, 0])
    moment = h.T @ f
    factor = jax.scipy.linalg.cho_factor(gram, lower=True)
    readout = jax.scipy.linalg.cho_solve(factor, moment)
    residual = h.T @ (f - h @ readout) - penalty * readout
    readout = readout + jax.scipy.linalg.cho_solve(factor, residual)
    definite = jnp.isfinite(readout).all()
    return jnp.where(definite, readout, 0).T, definite


def ridge_fit(static: Any, shared: Any, traced: Any, key: jax.Array, w: Weights) -> Fit:
    """Teacher forcing over washout and training range, then ridge regression on the latter.

    Jaeger 2001 (GMD report 148), Lukosevicius 2012, eq. 9.
    """
    start, stop = static.washout, static.washout + static.train
    x = shared.inputs[:stop].astype(static.state_dtype)
    y = shared.targets[:stop].astype(static.state_dtype)
    now = begin(static, w, jnp.zeros((static.m, static.n + static.intercept), static.dtype))
    noise = disturbances(static, traced, key, 0, stop)
    now, rates = teacher_forced(static, w, now, x, y, noise)
    h, f = features(static, rates[start:]), shared.targets[start:stop].astype(static.dtype)
    readout, definite = solve(static, h, f, traced.ridge)
    # Where states are not finite, the Gram matrix is not to blame.
    definite |= ~jnp.isfinite(now.units.a).all()
    return Fit(now, readout, jnp.sum((h @ readout.T - f) ** 2), definite)


def memory_capacity(static: Any, traced: Any, key: jax.Array, w: Weights) -> jax.Array:
    """(delay,) squared correlation of u(t-d) with its linear readout, d = 1..`memory_delays`.

    Jaeger 2002 (GMD report 152): u ~ U[-1, 1] drives the network through weights of standard deviation
    `input_scale`, without feedback. The sum of the result over all delays is the memory capacity, at most
    n. Readouts are fitted on the first half of the samples after a washout and scored on the second.
    """
    delays, n = static.memory_delays, static.n
    skip, half = delays + 100, 10 * n + 1000
    keys = jax.random.split(key, 2)
    total = skip + 2 * half
    u = jax.random.uniform(keys[0], (total,), static.state_dtype, -1, 1)
    scale = traced.input_scale.astype(static.state_dtype)
    alone = static._replace(feedback=False)
    first = (jnp.arange(n) < n // static.layers)[:, None]
    into = scale * first * jax.random.normal(keys[1], (n, 1), static.state_dtype)
    driven = w._replace(drive=jnp.concatenate([w.drive[:, :n], into], axis=1))

    def sample(c: Units, u: jax.Array) -> tuple[Units, jax.Array]:
        c = step(alone, driven, c, u[None], u[None])
        return c, c.h

    _, rates = lax.scan(sample, units(static, w.start), u)
    past = jnp.arange(skip, total)[:, None] - jnp.arange(1, delays + 1)
    h, f = features(static, rates[skip:]), u[past].astype(static.dtype)
    readout, _ = solve(static, h[:half], f[:half], traced.ridge)
    z, f = h[half:] @ readout.T, f[half:]
    z, f = z - z.mean(0), f - f.mean(0)
    explained = jnp.sum(z * f, 0) ** 2 / (jnp.sum(z * z, 0) * jnp.sum(f * f, 0))
    return jnp.where(jnp.isfinite(explained), explained, 0)
