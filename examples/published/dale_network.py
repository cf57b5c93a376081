"""Kernel: train a Dale network on a context-dependent decision, and return its trials; what latent circuits are fitted to.

    r_(t+1) = r_t + alpha (-r_t + relu(W r_t + W_in u_t + sqrt(2 alpha) .15 xi)),   z = W_out r

As the tutorial of engellab/latentcircuit sets it up (Langdon & Engel 2025): a cue says which of two stimuli decides which of two outputs
rises. Input and output weights are positive, excitatory units alone are read, and the columns of both are pulled apart.
`inputs`, `targets` and `rates` are what the kernel `latent_circuit` reads.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctd.cells import spectral_radius
from ctd.kernel import Params, Static, Traced, Var, one_shot

STEPS, N_IN, N_OUT, ALPHA, NOISE = 75, 6, 2, 0.2, 0.15
CUE, STIMULUS, DECISION = (8, 25), (29, 75), (55, 75)
"""Steps from which to which the cue and the stimuli are shown and one output is high; errors count one step later."""
COHERENCES = jnp.linspace(-0.2, 0.2, 6)


class Network(Params):
    """The parameters of one network and its trials."""

    n: Static[int] = 50
    excitatory: Static[int] = 40
    per_condition: Static[int] = 25
    batch_size: Static[int] = 128
    n_batches: Static[int] = 2250
    seed: Traced[int] = 0


def trials(key: jax.Array, per_condition: int) -> tuple[jax.Array, jax.Array]:
    """Draw trials of both contexts and all pairs of coherences: inputs (trial, time, 6) and targets (trial, time, 2)."""
    order, noise = jax.random.split(key)
    grid = jnp.meshgrid(jnp.arange(2), COHERENCES, COHERENCES, jnp.arange(per_condition))
    context, motion, colour = (a.ravel() for a in grid[:3])
    context = context.astype(int)
    during = lambda span: ((jnp.arange(STEPS) >= span[0]) & (jnp.arange(STEPS) < span[1])) * 1.0
    sides = jnp.stack([1 + motion, 1 - motion, 1 + colour, 1 - colour], -1) / 2
    cue = 1.2 * jax.nn.one_hot(context, 2)[:, None] * during(CUE)[:, None]
    shown = jnp.concatenate([cue, sides[:, None] * during(STIMULUS)[:, None]], -1)
    xi = (2 / ALPHA) ** 0.5 * 0.01 * jax.random.normal(noise, shown.shape)
    right = jnp.where(context == 0, motion, colour) > 0
    high = jax.nn.one_hot(jnp.where(right, 0, 1), N_OUT)[:, None] * during(DECISION)[:, None]
    shuffled = jax.random.permutation(order, len(context))
    return jax.nn.relu(0.2 + shown + xi)[shuffled], (0.2 + high)[shuffled]


def initial(static: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Balanced weights: means 1 / sqrt(n) of excitatory and -4 / sqrt(n) of inhibitory units, spectral radius 1.5."""
    n, keys = static.n, jax.random.split(key, 3)
    normal = lambda key, mean, *shape: mean / n**0.5 + jax.random.normal(key, shape) / n
    excites = jnp.arange(n) < static.excitatory
    w = jnp.where(excites, normal(keys[0], 1, n, n), -normal(keys[0], 4, n, n)) * (1 - jnp.eye(n))
    out = jnp.where(excites, normal(keys[2], 1, N_OUT, n), 0)
    return {
        "W": 1.5 * w / spectral_radius(w),
        "W_in": 1.5 * normal(keys[1], 1, n, N_IN),
        "W_out": out,
    }


def constrained(static: Any, w: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Dale's law without connections of a unit to itself; other weights of at least 0, outputs of excitatory units alone."""
    n, excites = static.n, jnp.arange(static.n) < static.excitatory
    sign = jnp.where(excites, 1, -1) * (1 - jnp.eye(n))
    out = jnp.where(excites, jax.nn.relu(w["W_out"]), 0)
    return {"W": jax.nn.relu(w["W"] * sign) * sign, "W_in": jax.nn.relu(w["W_in"]), "W_out": out}


def rates(w: dict[str, jax.Array], u: jax.Array, key: jax.Array) -> jax.Array:
    """Rates (trial, time, unit), the first of which are 0: the last input moves nothing."""
    xi = jax.random.normal(key, (*u.shape[:2], len(w["W"])))
    drive = jnp.swapaxes(u @ w["W_in"].T + (2 * ALPHA) ** 0.5 * NOISE * xi, 0, 1)[:-1]
    step = lambda r, given: (r + ALPHA * (-r + jax.nn.relu(r @ w["W"].T + given)),) * 2
    first = jnp.zeros((len(u), len(w["W"])))
    _, later = jax.lax.scan(step, first, drive)
    return jnp.swapaxes(jnp.concatenate([first[None], later]), 0, 1)


def loss(w: dict[str, jax.Array], u: jax.Array, z: jax.Array, key: jax.Array) -> jax.Array:
    """Mean squared error of the decision, .05 mean r^2, and the norm of the cosines between columns of W_in and W_out'."""
    r = rates(w, u, key)
    counts = (jnp.arange(STEPS) > DECISION[0])[:, None]
    columns = jnp.concatenate([w["W_in"], w["W_out"].T], axis=1)
    columns /= jnp.linalg.norm(columns, axis=0)
    cosines = columns.T @ columns * (1 - jnp.eye(N_IN + N_OUT))
    apart = jnp.sqrt(jnp.sum(cosines**2) + 1e-12)
    return jnp.mean(counts * (r @ w["W_out"].T - z) ** 2) + apart + 0.05 * jnp.mean(r**2)


def run(static: Any, shared: Any, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Train the network, and let it do other trials."""
    key_weights, key_trials, key_steps, key_new, key_noise = jax.random.split(
        jax.random.fold_in(key, traced.seed), 5
    )
    u, z = trials(key_trials, static.per_condition)
    adam = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.01))
    w = initial(static, key_weights)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        w, moments = carry
        which, noise = jax.random.split(key)
        some = jax.random.randint(which, (static.batch_size,), 0, len(u))
        change, moments = adam.update(jax.grad(loss)(w, u[some], z[some], noise), moments, w)
        return (constrained(static, optax.apply_updates(w, change)), moments), None

    (w, _), _ = jax.lax.scan(step, (w, adam.init(w)), jax.random.split(key_steps, static.n_batches))
    u, z = trials(key_new, static.per_condition)
    r = rates(w, u, key_noise)
    outputs = r @ w["W_out"].T
    right = jnp.argmax(outputs[:, -1], -1) == jnp.argmax(z[:, -1], -1)
    # An input moves the rates of the next step; the kernel's trials have those of the same step.
    moved = jnp.concatenate([jnp.zeros_like(u[:, :1]), u[:, :-1]], axis=1)
    return {
        "inputs": moved,
        "targets": outputs,
        "rates": r,
        "W": w["W"],
        "accuracy": jnp.mean(right),
    }


DIMS = {
    "inputs": Var(("trial", "time", "input"), "1", "inputs that led to the rates of this step"),
    "targets": Var(("trial", "time", "output"), "1", "outputs of the network"),
    "rates": Var(("trial", "time", "unit"), "1", "rates of the network, with its noise"),
    "W": Var(("unit", "unit_from"), "1", "recurrent weights of the network"),
    "accuracy": Var((), "1", "share of trials whose right output is higher in the end", True),
}
kernel = one_shot("dale_network", Network, DIMS, run)
