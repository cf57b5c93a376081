"""Kernel: few-shot co-smoothing of models whose latents hold those of the truth and further ones (Dabholkar & Barak 2025).

Co-smoothing does not see dimensions that the truth lacks: a readout of many trials leaves them out. A readout that sees k trials alone fits their
noise, the more of them there are. Truth: a noisy rotation in two dimensions. A model of it: these and `extraneous` independent processes.
"""

from typing import Any, Literal

from ctd.kernel import Params, Static, Traced, Var, one_shot
from ctd.late import jax, jnp, lax

TRIALS, STEPS, UNITS, MOST = 200, 50, 5, 8
"""Half of the trials are for readouts, half for evaluation; held-out units; most extraneous dimensions."""


class Model(Params):
    """The parameters of one model of one truth."""

    dtype: Static[Literal["float64"]] = "float64"
    shots: Static[int] = 4
    draws: Static[int] = 20
    extraneous: Traced[int] = 0
    truth: Traced[int] = 0


def poisson_readout(z: jax.Array, y: jax.Array, ridge: float) -> tuple[jax.Array, jax.Array]:
    """w (dim,), b () that minimise sum(exp(z w + b) - y (z w + b)) + ridge |w|^2 / 2, by Newton's method.

    z: (sample, dim). y: (sample,) counts.
    """
    x = jnp.column_stack([z, jnp.ones(len(z), z.dtype)])
    penalty = ridge * jnp.ones(x.shape[1], z.dtype).at[-1].set(0)
    start = jnp.zeros(x.shape[1], z.dtype).at[-1].set(jnp.log(y.mean() + 1e-3))

    def step(w: jax.Array, _: None) -> tuple[jax.Array, None]:
        rate = jnp.exp(jnp.clip(x @ w, -20, 20))
        gradient = x.T @ (rate - y) + penalty * w
        move = jnp.linalg.solve((x.T * rate) @ x + jnp.diag(penalty), gradient)
        # From far away whole steps overshoot: exp is steep.
        return w - move * jnp.minimum(1, 2 / jnp.linalg.norm(move)), None

    w, _ = lax.scan(step, start, length=30)
    return w[:-1], w[-1]


def bits_per_spike(y: jax.Array, rate: jax.Array, null: jax.Array) -> jax.Array:
    """Bits a spike by which `rate` is more likely than the mean rate `null`, all units together (Pei et al. 2021, eq. 3)."""
    gain = jnp.sum(y * jnp.log(rate / null) - (rate - null))
    return gain / y.sum() / jnp.log(2)


def processes(key: jax.Array, step: jax.Array, dtype: Any) -> jax.Array:
    """(trial, time, dim) of z <- step z + noise, of variance about 1."""
    d = len(step)
    noise = jax.random.normal(key, (STEPS + 50, TRIALS, d), dtype) * jnp.sqrt(1 - 0.95**2)
    _, z = lax.scan(
        lambda z, e: (z @ step.T + e, z @ step.T + e), jnp.zeros((TRIALS, d), dtype), noise
    )
    return jnp.swapaxes(z[50:], 0, 1)


def compare_models(static: Any, shared: Any, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Co-smoothing by readouts of all trials and of a few."""
    del shared, key
    keys = jax.random.split(jax.random.key(traced.truth), 6)
    turn = jax.random.uniform(keys[0], (), static.dtype, 0.1, 0.5)
    rotation = jnp.array([[jnp.cos(turn), -jnp.sin(turn)], [jnp.sin(turn), jnp.cos(turn)]])
    z = processes(keys[1], 0.95 * rotation, static.dtype)
    weights = jax.random.normal(keys[2], (2, UNITS), static.dtype) / jnp.sqrt(2)
    y = jax.random.poisson(keys[3], jnp.exp(z @ weights - 1)).astype(static.dtype)
    further = processes(keys[4], 0.95 * jnp.eye(MOST), static.dtype)
    latents = jnp.concatenate([z, further * (jnp.arange(MOST) < traced.extraneous)], axis=-1)
    half, flat = TRIALS // 2, lambda a: a.reshape(-1, a.shape[-1])
    z_test, y_test = flat(latents[half:]), flat(y[half:])

    def score(trials: jax.Array) -> jax.Array:
        fit = jax.vmap(lambda counts: poisson_readout(flat(latents[trials]), counts, 1.0))
        w, b = fit(flat(y[trials]).T)
        return bits_per_spike(y_test, jnp.exp(z_test @ w.T + b), y_test.mean(0))

    drawn = jax.vmap(lambda k: jax.random.permutation(k, half)[: static.shots])
    few = lax.map(score, drawn(jax.random.split(keys[5], static.draws)))
    return {"co_bps": score(jnp.arange(half)), "few_shot_co_bps": few.mean()}


kernel = one_shot(
    "few_shot",
    Model,
    {
        "co_bps": Var((), "1", "bits a spike of held-out units, readout of 100 trials", True),
        "few_shot_co_bps": Var(
            (), "1", "the same of readouts of a few trials, mean over draws", True
        ),
    },
    compare_models,
)
