"""Rules of success that tasks share, for one trial with outputs (time, n_out), and the loss of a batch."""

from __future__ import annotations

from ctd.late import Array, jax, jnp
from ctd.tasks.task import Trial


def last_step(trial: Trial) -> Array:
    """The number of the last step that counts, () int; a trial may end before its arrays.

    >>> last_step(Trial(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.array([0, 1, 1, 0])))
    Array(2, dtype=int32)
    """
    counts = jnp.any(trial.weights > 0, axis=1)
    return counts.shape[0] - 1 - jnp.argmax(counts[::-1])


def same_sign(trial: Trial, output: Array) -> Array:
    """True if the mean of the first output over the steps that count has the sign of the mean of its target."""
    # Steps count alike, whatever their weight in the loss.
    counts = trial.weights[:, 0] > 0
    mean = lambda values: jnp.sum(jnp.where(counts, values[:, 0], 0))
    return jnp.sign(mean(output)) == jnp.sign(mean(trial.targets))


def every_near(trial: Trial, output: Array, within: float) -> Array:
    """True if every output lies less than `within` from its target at every step that counts."""
    near = jnp.abs(output - trial.targets) < within
    return jnp.all(near | (trial.weights == 0))


def same_category(trial: Trial, output: Array) -> Array:
    """True if the largest output and the largest target at the last step that counts are the same one."""
    last = last_step(trial)
    return jnp.argmax(output[last]) == jnp.argmax(trial.targets[last])


def weighted_loss(kind: str, outputs: Array, trials: Trial) -> tuple[Array, Array]:
    """Sum the weighted errors of a batch, and the weights.

    The error of an output z with target y is (z - y)^2; with `cross_entropy` it is -y log softmax(z), summed
    over outputs.

    Args:
        kind: squared_error or cross_entropy.
        outputs: (trial, time, n_out).
        trials: their targets, and a mask (trial, time) or (trial, time, n_out).

    Returns:
        (() sum of mask * error over trials, steps and outputs, () sum of the mask over the same).
    """
    # A mask without an axis of outputs holds for all of them.
    weight = jnp.sum(trials.mask)
    if trials.mask.ndim < outputs.ndim:
        weight = weight * outputs.shape[-1]
    if kind == "cross_entropy":
        # One error for each step, not for each output.
        errors = -trials.weights * trials.targets * jax.nn.log_softmax(outputs)
        return jnp.sum(errors), weight / outputs.shape[-1]
    errors = trials.weights * (outputs - trials.targets) ** 2
    return jnp.sum(errors), weight
