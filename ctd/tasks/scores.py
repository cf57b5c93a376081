"""Rules of success that tasks share, on one trial: outputs (time, n_out); and the loss."""

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


def weighted_loss(kind: str, outputs: jax.Array, trials: Trial) -> tuple[jax.Array, jax.Array]:
    """(sum of mask * error over trials, steps and outputs; sum of the mask over the same).

    The error of an output z with target y is (z - y)^2, or for `cross_entropy` -y log softmax(z), which is
    summed over outputs.
    """
    whole = trials.mask.ndim == outputs.ndim
    mask = trials.mask if whole else trials.mask[:, :, None]
    weight = jnp.sum(trials.mask) if whole else jnp.sum(trials.mask) * outputs.shape[-1]
    if kind == "cross_entropy":
        errors = -mask * trials.targets * jax.nn.log_softmax(outputs)
        return jnp.sum(errors), weight / outputs.shape[-1]
    errors = mask * (outputs - trials.targets) ** 2
    return jnp.sum(errors), weight
