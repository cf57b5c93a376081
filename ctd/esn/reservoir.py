"""The random network: its weights, one time step, and runs with its outputs or its targets fed back."""

from __future__ import annotations

from typing import NamedTuple

from ctd.cells import spectral_radius
from ctd.esn.params import EchoState
from ctd.esn.series import Series
from ctd.kernel import Values, View
from ctd.late import Array, Float, Number, jax, jnp, lax


class Weights(NamedTuple):
    """The fixed part of a network of n units, k inputs, m outputs, in `state_dtype`."""

    drive: Array
    """(n, n + k + m) recurrent, input and feedback weights side by side, so that a step is one product;
    without feedback the last m columns are missing."""
    bias: Float[Array, "n"]
    start: Float[Array, "n"]
    """Initial activation."""
    rate: Float[Array, ""]
    """Dt / tau of continuous, leak of discrete dynamics."""


class Now(NamedTuple):
    """A network between two samples, in `state_dtype`."""

    a: Float[Array, "n"]
    """Activations."""
    h: Float[Array, "n"]
    """Rates: tanh(a) of continuous dynamics, a of discrete ones."""
    z: Float[Array, "m"]
    """Output that is fed back into the next sample."""


def draw(
    static: View[EchoState], shared: Series, traced: Values[EchoState], key: Array
) -> tuple[Weights, Array]:
    """Draw the fixed weights of one network: (weights, () bool: False if they had spectral radius 0 and could not be scaled).

    Input, feedback and bias weights are normal. So are the recurrent weights of topology gaussian, each of
    which is kept with probability `sparsity`.
    """
    dtype, n = static.state_dtype, static.n
    k = shared.inputs.shape[1]
    at = lambda value: value.astype(dtype)
    key_normal, key_kept = jax.random.split(key)
    # One draw serves all weights: every further draw costs a second of compilation.
    normals = jax.random.normal(key_normal, (n, n + k + static.m + 2), dtype)
    w, inputs, feedback, bias, start = jnp.split(
        normals, [n, n + k, n + k + static.m, n + k + static.m + 1], axis=1
    )
    w = _recurrent(static.topology, w, at(traced.sparsity), key_kept)
    scalable = jnp.ones((), bool)
    if static.layers > 1:
        w, between, scalable = _layered(static, at(traced.layer_scale), w)
        first = (jnp.arange(n) < n // static.layers)[:, None]
        inputs, feedback = inputs * first, feedback * first
    elif static.scale == "spectral_radius" and static.topology == "gaussian":
        # A small sparse matrix may be nilpotent: its radius is 0, and nothing scales it.
        radius = spectral_radius(w)
        scalable = radius > 0
        w = w / jnp.where(scalable, radius, 1)
    recurrent = at(traced.g) * w
    if static.layers > 1:
        # g scales the recurrence within layers alone; layer_scale has scaled the weights between them.
        recurrent = recurrent + between
    parts = [recurrent, at(traced.input_scale) / max(k, 1) ** 0.5 * inputs]
    if static.feedback:
        parts.append(at(traced.feedback_scale) * feedback)
    weights = Weights(
        drive=jnp.concatenate(parts, axis=1),
        bias=at(traced.bias) * bias[:, 0],
        # Small initial activations, in the linear range of tanh.
        start=0.25 * start[:, 0],
        rate=at(shared.dt / traced.tau if static.dynamics == "continuous" else traced.leak),
    )
    return weights, scalable


def _recurrent(topology: str, w: Array, sparsity: Array, key: Array) -> Array:
    """Return recurrent weights (n, n) of a topology from standard normal ones; of a gaussian one, each is kept by chance."""
    n = len(w)
    if topology == "orthogonal":
        q, r = jnp.linalg.qr(w)
        # With the signs of r's diagonal taken out, q is uniform over orthogonal matrices (Mezzadri 2007).
        return q * jnp.sign(jnp.diagonal(r))
    if topology == "ring":
        return jnp.roll(jnp.eye(n, dtype=w.dtype), 1, axis=0)
    # Dividing by sqrt(n sparsity) keeps the spectral radius near 1 whatever the sparsity (circular law).
    is_connected = jax.random.bernoulli(key, sparsity, (n, n))
    return jnp.where(is_connected, w, 0) / jnp.sqrt(n * sparsity)


def _layered(static: View[EchoState], layer_scale: Array, w: Array) -> tuple[Array, Array, Array]:
    """Cut weights w (n, n) of variance 1 / n into layers: (within layers, from each to the next, () bool: could all be scaled)."""
    size = static.n // static.layers
    layer = jnp.arange(static.n) // size
    down = layer[:, None] - layer[None, :]
    # A unit sees n / layers units: rescale the variance from 1 / n to 1 / size.
    w = w * static.layers**0.5
    within, scalable = jnp.where(down == 0, w, 0), jnp.ones((), bool)
    if static.scale == "spectral_radius":
        blocks = w.reshape(static.layers, size, static.layers, size)
        radius = jax.vmap(lambda k: spectral_radius(blocks[k, :, k]))(jnp.arange(static.layers))
        scalable = (radius > 0).all()
        within = within / jnp.where(radius > 0, radius, 1)[layer][:, None]
    return within, layer_scale * jnp.where(down == 1, w, 0), scalable


def rates(static: View[EchoState], a: Array) -> Array:
    """The rates (n,) of units with the activations a (n,)."""
    return jnp.tanh(a) if static.dynamics == "continuous" else a


def step(
    static: View[EchoState], w: Weights, now: Now, x: Array, noise: Array | float = 0.0
) -> Now:
    """Advance the units by one sample; `z` stays.

    `continuous`: an Euler step of da/dt = (-a + drive) / tau. `discrete`: h' = (1 - l) h + l tanh(drive), l the leak.
    drive = W_R h + W_I x + W_F z + b + noise (Jaeger 2001, GMD report 148; Sussillo & Abbott 2009).
    A layer sees the new rates of the layer before (Gallicchio, Micheli & Pedrelli 2017, Neurocomputing 268:87).

    Args:
        x: (k,) inputs.
        noise: (n,) or 0, added to the drive.
    """
    outside = (x, now.z) if static.feedback else (x,)
    size = static.n // static.layers
    noise = jnp.broadcast_to(noise, now.a.shape)
    for layer in range(static.layers):
        rows = slice(layer * size, (layer + 1) * size)
        drive = w.drive[rows] @ jnp.concatenate([now.h, *outside]) + w.bias[rows] + noise[rows]
        if static.dynamics == "discrete":
            drive = jnp.tanh(drive)
        a = now.a[rows] + w.rate * (drive - now.a[rows])
        a = a if static.layers == 1 else now.a.at[rows].set(a)
        now = now._replace(a=a, h=rates(static, a))
    return now


def features(static: View[EchoState], h: Array) -> Array:
    """The features (..., p) of the readout for rates h (..., n), in `dtype`: the rates, then 1 with an intercept."""
    h = h.astype(static.dtype)
    if static.intercept:
        h = jnp.concatenate([h, jnp.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)
    return h


def begin(static: View[EchoState], w: Weights, readout: Array) -> Now:
    """The network at its initial activation. readout: (m, p), whose output is fed back first."""
    h = rates(static, w.start)
    return Now(w.start, h, (readout @ features(static, h)).astype(static.state_dtype))


def free_step(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> tuple[Now, Array]:
    """Advance by one sample with the network's own output fed back: (network, (m,) output in `dtype`).

    x: (k,) inputs.
    """
    now = step(static, w, now, x)
    z = readout @ features(static, now.h)
    return now._replace(z=z.astype(static.state_dtype)), z


def free_run(
    static: View[EchoState], w: Weights, readout: Array, now: Now, x: Array
) -> tuple[Now, Array]:
    """Run the network on inputs x (t, k) with its own outputs fed back: (network, (t, m) outputs)."""
    end, outputs = lax.scan(lambda c, x: free_step(static, w, readout, c, x), now, x)
    return end, outputs


def teacher_forced(
    static: View[EchoState], w: Weights, now: Now, x: Array, y: Array, noise: Array | None = None
) -> tuple[Now, Array]:
    """Drive the network by inputs, and feed back targets in place of its outputs.

    Sample 0 feeds back `now.z`, sample i the target y[i-1].

    Args:
        x: (t, k) inputs.
        y: (t, m) targets.
        noise: (t, n), added to the drive.

    Returns:
        (the network after the last sample, its rates (t, n)).
    """

    def sample(c: Now, row: tuple[Array, Array, Array]) -> tuple[Now, Array]:
        x, y, noise = row
        c = step(static, w, c, x, noise)
        return c._replace(z=y), c.h

    return lax.scan(sample, now, (x, y, jnp.zeros(len(x), x.dtype) if noise is None else noise))


def disturbances(
    static: View[EchoState], traced: Values[EchoState], key: Array, index: Number, length: int
) -> Array:
    """Draw the noise (length, n) of block number `index`, in `state_dtype`; zeros if the parameter `noise` is 0."""
    dtype = static.state_dtype
    # A program that runs one item a time then draws nothing; under vmap cond becomes select, and draws.
    return lax.cond(
        traced.noise > 0,
        lambda: (
            traced.noise.astype(dtype)
            * jax.random.normal(jax.random.fold_in(key, index), (length, static.n), dtype)
        ),
        lambda: jnp.zeros((length, static.n), dtype),
    )
