"""The random network: its weights and its step."""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd.cells import spectral_radius
from ctd.late import jax, jnp, lax


class Weights(NamedTuple):
    """The fixed part of a network of n units, k inputs, m outputs, in `state_dtype`."""

    drive: jax.Array
    """(n, n + k + m) recurrent, input and feedback weights side by side, for one product a step; without
    feedback the last m columns are missing"""
    bias: jax.Array
    """(n,)"""
    start: jax.Array
    """(n,) initial activation"""
    rate: jax.Array
    """() dt / tau, or the leak"""


class Units(NamedTuple):
    """Activations a and rates h of the units, each (n,); h = tanh(a), or a itself if discrete."""

    a: jax.Array
    h: jax.Array


def draw(static: Any, shared: Any, traced: Any, key: jax.Array) -> tuple[Weights, jax.Array]:
    """(the item's network, whether it could be scaled); a matrix of spectral radius 0 cannot be scaled.

    Input, feedback and bias weights are normal. So are the recurrent weights of topology gaussian, each of
    which is kept with probability `sparsity`.
    """
    dtype, n = static.state_dtype, static.n
    k = shared.inputs.shape[1]
    at = lambda value: value.astype(dtype)
    key_normal, key_kept = jax.random.split(key)
    # One draw for all: every further draw costs a second of compilation.
    drawn = jax.random.normal(key_normal, (n, n + k + static.m + 2), dtype)
    w, inputs, feedback, bias, start = jnp.split(
        drawn, [n, n + k, n + k + static.m, n + k + static.m + 1], axis=1
    )
    if static.topology == "orthogonal":
        q, r = jnp.linalg.qr(w)
        # With the signs of r's diagonal taken out, q is uniform over orthogonal matrices (Mezzadri 2007).
        w = q * jnp.sign(jnp.diagonal(r))
    elif static.topology == "ring":
        w = jnp.roll(jnp.eye(n, dtype=dtype), 1, axis=0)
    else:
        kept = jax.random.bernoulli(key_kept, at(traced.sparsity), (n, n))
        w = jnp.where(kept, w, 0) / jnp.sqrt(n * at(traced.sparsity))
    scalable = jnp.ones((), bool)
    if static.layers > 1:
        w, between, scalable = _layered(static, at(traced.layer_scale), w)
        first = (jnp.arange(n) < n // static.layers)[:, None]
        inputs, feedback = inputs * first, feedback * first
    elif static.scale == "spectral_radius" and static.topology == "gaussian":
        radius = spectral_radius(w)
        scalable = radius > 0
        w = w / jnp.where(scalable, radius, 1)
    whole = at(traced.g) * w
    if static.layers > 1:
        whole = whole + between
    parts = [whole, at(traced.input_scale) / max(k, 1) ** 0.5 * inputs]
    if static.feedback:
        parts.append(at(traced.feedback_scale) * feedback)
    weights = Weights(
        drive=jnp.concatenate(parts, axis=1),
        bias=at(traced.bias) * bias[:, 0],
        start=0.25 * start[:, 0],
        rate=at(shared.dt / traced.tau if static.dynamics == "continuous" else traced.leak),
    )
    return weights, scalable


def _layered(
    static: Any, layer_scale: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(weights within layers, from each to the next, whether they could be scaled), of w with entries of variance 1 / n."""
    size = static.n // static.layers
    layer = jnp.arange(static.n) // size
    down = layer[:, None] - layer[None, :]
    w = w * static.layers**0.5  # variance 1 / size
    own, scalable = jnp.where(down == 0, w, 0), jnp.ones((), bool)
    if static.scale == "spectral_radius":
        blocks = w.reshape(static.layers, size, static.layers, size)
        radius = jax.vmap(lambda k: spectral_radius(blocks[k, :, k]))(jnp.arange(static.layers))
        scalable = (radius > 0).all()
        own = own / jnp.where(radius > 0, radius, 1)[layer][:, None]
    return own, layer_scale * jnp.where(down == 1, w, 0), scalable


def units(static: Any, a: jax.Array) -> Units:
    """The units with activations a."""
    return Units(a, jnp.tanh(a) if static.dynamics == "continuous" else a)


def step(
    static: Any, w: Weights, now: Units, x: jax.Array, z: jax.Array, noise: jax.Array | float = 0.0
) -> Units:
    """The next sample: `continuous` da/dt = (-a + drive) / tau by Euler, `discrete` h' = (1-l) h + l tanh drive.

    drive = W_R h + W_I x + W_F z + b + noise (Jaeger 2001, GMD report 148; Sussillo & Abbott 2009).
    A layer sees the new rates of the one before (Gallicchio, Micheli & Pedrelli 2017, Neurocomputing 268:87).
    x: (k,) inputs. z: (m,) outputs of the sample before, ignored without feedback. noise: (n,) or 0.
    """
    outside = (x, z) if static.feedback else (x,)
    size = static.n // static.layers
    noise = jnp.broadcast_to(noise, now.a.shape)
    for layer in range(static.layers):
        rows = slice(layer * size, (layer + 1) * size)
        drive = w.drive[rows] @ jnp.concatenate([now.h, *outside]) + w.bias[rows] + noise[rows]
        if static.dynamics == "discrete":
            drive = jnp.tanh(drive)
        a = now.a[rows] + w.rate * (drive - now.a[rows])
        now = units(static, a if static.layers == 1 else now.a.at[rows].set(a))
    return now


def discrete(weights: Any, h: jax.Array, x: jax.Array) -> jax.Array:
    """The map of a trained network of `dynamics: discrete`, of the weights that `closed` returns; h (n,), x (k,).

    For `cell: ctd.esn.reservoir.discrete` of the kernels that take a network.
    """
    drive = weights["wR"] @ h + weights["wI"] @ x + weights["bR"]
    return h + weights["alpha"] * (jnp.tanh(drive) - h)


def disturbances(static: Any, traced: Any, key: jax.Array, index: Any, length: int) -> jax.Array:
    """(length, n) noise for block number `index` of samples; zeros, and nothing drawn, if `noise` is 0."""
    dtype = static.state_dtype
    return lax.cond(
        traced.noise > 0,
        lambda: (
            traced.noise.astype(dtype)
            * jax.random.normal(jax.random.fold_in(key, index), (length, static.n), dtype)
        ),
        lambda: jnp.zeros((length, static.n), dtype),
    )
