"""The loss and the accuracy of a network, and the trials that both are taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ctd import tasks
from ctd.cells import Cell, Weights, run
from ctd.kernel import View
from ctd.late import Array, Float, Real, jax, jnp, lax, on_host
from ctd.tasks.recorded import check_parts
from ctd.tasks.scores import weighted_loss
from ctd.train_rnn.params import Network

EVAL_SEED = 20_000
"""Seed of the evaluation trials: all networks that train on a task are evaluated on the same trials."""


class Shared(NamedTuple):
    """The arrays that all networks of a group share."""

    evaluation: tasks.Trial
    """(trial, ...) the evaluation trials."""
    training: tasks.Trial | None = None
    """(trial, ...) trials of a file that minibatches are drawn from; None if the task draws its own."""
    values: Array | None = None
    """(condition,) the conditions of a file of trials; None of other tasks."""
    masks: Mapping[str, Array] = {}
    """Weight -> bool, the masks of a file."""


class Scores(NamedTuple):
    """Sums over trials, from which the scores follow."""

    loss: Float[Array, ""]
    """Sum of weight * error"""
    weight: Float[Array, ""]
    """Sum of the weights"""
    right: Float[Array, "condition"]
    """Trials answered correctly; of length 0 if the task has no rule of success"""
    n_trials: Real[Array, "condition"]
    """Trials; for those of a file, the trials with a weight"""

    def mean_loss(self) -> Array:
        """The loss, the weighted mean of the errors."""
        return self.loss / self.weight

    def accuracy(self) -> Array:
        """The share of trials that are answered correctly."""
        return jnp.sum(self.right) / jnp.sum(self.n_trials)

    def r2(self, trials: tasks.Trial) -> Array:
        """1 - squared error / squared distance of the targets from each output's mean, both weighted by the mask.

        Outputs count in proportion to their variance. NaN if the targets are constant. trials: the evaluated ones.
        """
        weight = jnp.broadcast_to(trials.weights, trials.targets.shape)
        # An output whose mask is 0 everywhere has no mean; its errors count nothing either.
        total = jnp.maximum(jnp.sum(weight, axis=(0, 1)), jnp.finfo(weight.dtype).tiny)
        mean = jnp.sum(weight * trials.targets, axis=(0, 1)) / total
        spread = jnp.sum(weight * (trials.targets - mean) ** 2)
        # The mean of equal numbers is rounded: their spread need not be 0.
        masked = lambda none: jnp.where(weight > 0, trials.targets, none)
        moves = jnp.any(masked(jnp.inf).min((0, 1)) < masked(-jnp.inf).max((0, 1))) & (spread > 0)
        return jnp.where(moves, 1 - self.loss / jnp.where(moves, spread, 1), jnp.nan)


def condition_values(task: tasks.Task, shared: Shared) -> Array:
    """The conditions (condition,) of a task's trials, numbers or texts; one empty text if all trials are of one kind."""
    if isinstance(task, tasks.Recorded):
        assert shared.values is not None, "load_trials reads them"
        return shared.values
    return on_host(task.conditions.values if task.conditions else [""])


def _score(
    static: View[Network], n: int, cell: Cell, weights: Weights, trials: tasks.Trial
) -> Scores:
    """Score some trials of a task with n conditions."""
    task = static.task
    _, outputs = jax.vmap(lambda x: run(cell, weights, x))(trials.inputs)
    total, weight = weighted_loss(static.loss, outputs, trials)
    if not task.scored:
        return Scores(total, weight, jnp.zeros(0), jnp.zeros(0))
    # Rules of success compare outputs with targets, which are probabilities here.
    if static.loss == "cross_entropy":
        outputs = jax.nn.softmax(outputs)
    right = jax.vmap(task.success)(trials, outputs)
    # One product then adds the right answers of each condition.
    by_condition = jax.nn.one_hot(trials.condition, n)
    if isinstance(task, tasks.Recorded):
        # Its rules look at the steps that count: any output would be right in a trial without one.
        by_condition *= jnp.any(trials.mask > 0, axis=tuple(range(1, trials.mask.ndim)))[:, None]
    return Scores(total, weight, right @ by_condition, jnp.sum(by_condition, axis=0))


def evaluate(static: View[Network], shared: Shared, cell: Cell, weights: Weights) -> Scores:
    """Score a network on all evaluation trials, one minibatch at a time, so that it takes no more memory than training."""
    trials, n = shared.evaluation, len(condition_values(static.task, shared))
    count = trials.inputs.shape[0]
    size = min(static.batch_size, count)
    n_parts = count // size
    n_in_parts = n_parts * size
    # Not reshape(-1, ...): trials may have no inputs, and no numbers tell no length.
    cut = lambda leaf: leaf[:n_in_parts].reshape(n_parts, size, *leaf.shape[1:])
    parts = jax.tree.map(cut, trials)
    scores = lax.map(lambda part: _score(static, n, cell, weights, part), parts)
    scores = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), scores)
    # lax.map needs parts of one size; the last trials are a second, smaller call.
    if n_in_parts < count:
        last_trials = jax.tree.map(lambda leaf: leaf[n_in_parts:], trials)
        more = _score(static, n, cell, weights, last_trials)
        scores = jax.tree.map(jnp.add, scores, more)
    return scores


def eval_trials(task: tasks.Task, n: int, dtype: jax.typing.DTypeLike = "float32") -> tasks.Trial:
    """The n trials on which every network of this task is evaluated.

    >>> a, b = (eval_trials(tasks.Decision(), 3) for _ in range(2))
    >>> bool((a.inputs == b.inputs).all())
    True
    """
    return tasks.batch(task, jax.random.key(EVAL_SEED), n, dtype)


def load_trials(inputs: View[Network]) -> Shared:
    """Draw the evaluation trials, or read all trials if they come from a file.

    Raises ValueError if the file cannot be read, has too few trials or a part without weight, or loss or readout do not fit
    the targets.
    """
    task = inputs.task
    if isinstance(task, tasks.Recorded):
        trials, values = task.read(inputs.trials, inputs.dtype)
        parts = tasks.divide(trials, inputs.n_eval)
        check_parts(inputs.trials, values, trials, parts)
        shared = Shared(*parts, values)
    else:
        shared = Shared(eval_trials(task, inputs.n_eval, inputs.dtype))
    if fault := next(_faults(inputs, shared.evaluation), None):
        raise ValueError(fault)
    return shared


def _faults(inputs: View[Network], trials: tasks.Trial) -> Iterator[str]:
    """Yield what of a network's fields does not fit the evaluation trials."""
    task, (count, _, n_out) = inputs.task, trials.targets.shape
    if inputs.n_saved > count:
        have = f"the file has {count} evaluation trials, every fifth of its trials"
        yield f"n_saved: {inputs.n_saved} given, but {have}; lower n_saved"
    if inputs.loss == "cross_entropy" and not _are_probabilities(trials):
        hint = "; give the task code: one_hot" if isinstance(task, tasks.Yang) else ""
        needs = "targets that are probabilities and add up to 1 over the outputs"
        yield f"loss: cross_entropy needs {needs}; the targets of task {task.title} do not{hint}"
    if inputs.readout == "identity" and n_out > inputs.n:
        rates = f"the rates of n = {inputs.n} units, but the targets have {n_out} outputs"
        yield f"readout: identity outputs {rates}; give n: {n_out} or more"


def _are_probabilities(trials: tasks.Trial) -> bool:
    targets = np.asarray(trials.targets)[np.asarray(trials.weights).any(axis=-1)]
    # 1e-3 allows for float32, and for a file of rounded probabilities.
    return bool((targets >= 0).all() and (np.abs(targets.sum(axis=-1) - 1) <= 1e-3).all())


def minibatch(
    static: View[Network], training: tasks.Trial | None, key: Array, step: Array
) -> tasks.Trial:
    """The trials of one training step. training: of `Shared`; key: of the network's minibatches; step: its number."""
    # The step alone chooses the trials, so that a resumed network sees the same ones.
    key = jax.random.fold_in(key, step)
    if isinstance(static.task, tasks.Recorded):
        assert training is not None, "load_trials reads them"
        # With replacement: a minibatch may be larger than the file.
        some = jax.random.randint(key, (static.batch_size,), 0, training.inputs.shape[0])
        return jax.tree.map(lambda leaf: leaf[some], training)
    return tasks.batch(static.task, key, static.batch_size, static.dtype)
