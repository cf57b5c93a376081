"""Rules of success that tasks share, on one trial: outputs (time, n_out)."""

from __future__ import annotations

from ctd.late import jax, jnp
from ctd.tasks.task import Trial


def _weights(trial: Trial) -> jax.Array:
    """(time, n_out) the mask, or (time, 1)."""
    return trial.mask if trial.mask.ndim == 2 else trial.mask[:, None]


def last_step(trial: Trial) -> jax.Array:
    """The last step that counts: a trial may end before its arrays do."""
    counts = jnp.any(_weights(trial) > 0, axis=1)
    return counts.shape[0] - 1 - jnp.argmax(counts[::-1])


def same_sign(trial: Trial, output: jax.Array) -> jax.Array:
    """Whether the mean of the first output over the steps that count has the sign of that of its target."""
    counts = _weights(trial)[:, 0] > 0
    mean = lambda values: jnp.sum(jnp.where(counts, values[:, 0], 0))
    found: jax.Array = jnp.sign(mean(output)) == jnp.sign(mean(trial.targets))
    return found


def every_near(trial: Trial, output: jax.Array, within: float) -> jax.Array:
    """Whether every output lies less than `within` from its target at every step that counts."""
    near = jnp.abs(output - trial.targets) < within
    return jnp.all(near | (_weights(trial) == 0))


def same_category(trial: Trial, output: jax.Array) -> jax.Array:
    """Whether the largest output at the last step that counts is that of the largest target."""
    last = last_step(trial)
    found: jax.Array = jnp.argmax(output[last]) == jnp.argmax(trial.targets[last])
    return found
