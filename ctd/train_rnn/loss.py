"""The loss, and the trials that it is taken over."""

from __future__ import annotations

from typing import Any, NamedTuple

from ctd import tasks
from ctd.cells import Cell, run
from ctd.late import jax, jnp, lax

EVAL_SEED = 20_000
"""Seed of the evaluation trials: all networks that train on a task are evaluated on the same trials."""


class Shared(NamedTuple):
    """What all networks of a group share."""

    evaluation: tasks.Trial
    """(trial, ...) the evaluation trials."""
    masks: Any = ()
    """Weight -> where it may be, of a file."""


def weighted_loss(outputs: jax.Array, trials: tasks.Trial) -> tuple[jax.Array, jax.Array]:
    """(sum of mask * squared error over trials, steps and outputs; sum of the mask over the same)."""
    errors = trials.mask[:, :, None] * (outputs - trials.targets) ** 2
    return jnp.sum(errors), jnp.sum(trials.mask) * trials.targets.shape[-1]


def squared_error(cell: Cell, weights: Any, trials: tasks.Trial) -> tuple[jax.Array, jax.Array]:
    """The same of the network's outputs."""
    _, outputs = jax.vmap(lambda x: run(cell, weights, x))(trials.inputs)
    return weighted_loss(outputs, trials)


def mean_squared_error(cell: Cell, weights: Any, trials: tasks.Trial) -> jax.Array:
    """The mean squared error over trials, steps (weighted by the mask) and outputs; no L2 penalty."""
    total, weight = squared_error(cell, weights, trials)
    return total / weight


def eval_trials(task: tasks.Task, n: int, dtype: Any = "float32") -> tasks.Trial:
    """The n trials on which every network of this task is evaluated."""
    return tasks.batch(task, jax.random.key(EVAL_SEED), n, dtype)


def minibatch(static: Any, key: jax.Array, step: jax.Array) -> tasks.Trial:
    """The trials of one training step of the network with this key."""
    key = jax.random.fold_in(key, step)
    return tasks.batch(static.task, key, static.batch_size, static.dtype)


def eval_loss(static: Any, cell: Cell, weights: Any, trials: tasks.Trial) -> jax.Array:
    """The mean squared error on all trials, a minibatch at a time, so that it takes no more memory than training."""
    size = min(static.batch_size, static.n_eval)
    whole = static.n_eval // size * size
    parts = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), trials)
    totals, counts = lax.map(lambda part: squared_error(cell, weights, part), parts)
    total, count = jnp.sum(totals), jnp.sum(counts)
    if whole < static.n_eval:
        rest = squared_error(cell, weights, jax.tree.map(lambda leaf: leaf[whole:], trials))
        total, count = total + rest[0], count + rest[1]
    return total / count
