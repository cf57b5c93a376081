"""Recorded trials: the task `file`, whose trials come from an HDF5 or .npz file."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ctd.late import Array, Real, jax, on_host
from ctd.tasks.scores import every_near, same_category, same_sign
from ctd.tasks.task import Task, Trial
from ctd.words import count

AXES = {
    "inputs": ("trial", "time", "input"),
    "targets": ("trial", "time", "output"),
    "mask": ("trial", "time"),
    "conditions": ("trial",),
}
"""Datasets of a file of trials, and their axes; mask, which may have outputs too, and conditions may be missing."""
EVAL_EVERY = 5
"""Every fifth trial is kept for evaluation."""


class Recorded(Task):
    """Trials from the HDF5 or .npz file that the job's field `trials` names.

    Datasets: `inputs` (trial, time, input) and `targets` (trial, time, output); optionally `mask` (trial, time) or
    (trial, time, output), the weights of the steps in the loss, and `conditions` (trial,), a number for each trial.
    Every fifth trial is kept for evaluation, minibatches are drawn from the others.

    >>> Recorded(score="near", within=0.2).scored
    True
    """

    name = "file"

    score: Literal["none", "sign", "near", "category"] = Field(
        "none",
        description="rule of success. sign: the mean of the first output over the steps that count has the "
        "sign of its target; near: every output is less than `within` from its target at every such step; "
        "category: the largest output and the largest target at the last such step are the same one",
    )
    within: float = Field(0.5, gt=0, description="score near: largest distance from the target")

    @property
    def n_in(self) -> int:
        raise ValueError(_ELSEWHERE)

    @property
    def n_out(self) -> int:
        raise ValueError(_ELSEWHERE)

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        raise ValueError(_ELSEWHERE)

    @property
    def scored(self) -> bool:
        return self.score != "none"

    def success(self, trial: Trial, output: Array) -> Array:
        """Tell if the output of one trial is right, by the rule `score`.

        Args:
            trial: the trial that the network ran.
            output: (time, n_out).

        Returns:
            () bool.
        """
        if self.score == "near":
            return every_near(trial, output, self.within)
        return same_sign(trial, output) if self.score == "sign" else same_category(trial, output)

    def read(self, path: str | None, dtype: str) -> tuple[Trial, Real[Array, "condition"]]:
        """Read the trials of a file.

        Args:
            path: HDF5 or .npz file of inputs and targets.
            dtype: floating type of the arrays.

        Returns:
            The trials, with a leading axis (trial,), and the different condition numbers in increasing order, (condition,).

        Raises:
            ValueError: there is no file, or its arrays are no trials; the text names file and dataset.
        """
        # Imported late: a caller that only names a task does not need h5py.
        from ctd.data import read_arrays

        if path is None:
            raise ValueError(
                "trials: missing, but task file needs an HDF5 or .npz file of inputs and targets; give its path as `trials`"
            )
        arrays = read_arrays(path, "inputs")
        _check(path, arrays)
        # Without conditions all trials are of one kind.
        numbers = arrays.get("conditions", np.zeros(len(arrays["inputs"])))
        values, condition = np.unique(numbers, return_inverse=True)
        mask = arrays.get("mask", np.ones(arrays["inputs"].shape[:2]))
        inputs, targets, weights = (
            on_host(array, dtype) for array in (arrays["inputs"], arrays["targets"], mask)
        )
        trials = Trial(inputs, targets, weights, on_host(condition, np.int32))
        return trials, on_host(values)


_ELSEWHERE = (
    "task: file given, but only train_rnn reads trials from a file; give a task that draws its trials, or a file of states "
    "(fixed_points: candidates, similarity: states)"
)


def _check(path: str, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError, naming file and dataset, if the arrays are not trials."""
    from ctd.data import check_axes

    if lacks := [name for name in ("inputs", "targets") if name not in arrays]:
        raise ValueError(
            f"{path}: lacks {', '.join(lacks)}; a file of trials has inputs and targets, optionally mask and conditions; "
            f"this one has {', '.join(sorted(arrays))}"
        )
    mask = arrays.get("mask", np.ones(1))
    by_output = {"mask": AXES["targets"]} if mask.ndim == 3 else {}
    known_arrays = {name: arrays[name] for name in AXES if name in arrays}
    check_axes(path, known_arrays, AXES | by_output, "; give numbers, and a mask of 0 there")
    trials = len(arrays["inputs"])
    if trials < EVAL_EVERY:
        raise ValueError(
            f"{path}: holds {count(trials, 'trial')}; at least {EVAL_EVERY} are needed, one of which is for evaluation"
        )
    if (mask < 0).any() or not mask.any():
        raise ValueError(
            f"{path}: mask has weights below 0, or none above 0; expected weights of 0 or more, at least one above 0"
        )


def check_parts(path: str | None, values: Array, trials: Trial, parts: tuple[Trial, Trial]) -> None:
    """Raise ValueError if a part of `divide` has no weight, or if conditions go in step with every fifth trial.

    values: the condition numbers that `Recorded.read` gives.
    """
    for purpose, part in zip(("evaluation", "training"), parts, strict=True):
        if not np.asarray(part.mask).any():
            raise ValueError(
                f"{path}: mask is 0 in all {len(part.mask)} {purpose} trials (every fifth trial is for evaluation, at most "
                "n_eval of them); give some of them a weight"
            )
    evaluated, trained = (np.unique(np.asarray(part.condition)) for part in parts)
    # A condition with a single trial cannot be in both parts.
    several = np.bincount(np.asarray(trials.condition))[evaluated] > 1
    if several.all() and not np.isin(evaluated, trained).any():
        examples = ", ".join(f"{value:g}" for value in np.asarray(values)[evaluated][:5])
        raise ValueError(
            f"{path}: conditions: every fifth trial is kept for evaluation, and no other has its conditions ({examples}); "
            "shuffle the trials"
        )


def divide[T](trials: T, n_eval: int | None = None) -> tuple[T, T]:
    """Split arrays (trial, ...): trials 4, 9, 14, ... are for evaluation, all others for training.

    >>> column = np.arange(10.0)[:, None, None]
    >>> held, rest = divide(Trial(column, column, column[..., 0], np.arange(10)), n_eval=8)
    >>> held.condition.tolist(), rest.condition.tolist()
    ([4, 9], [0, 1, 2, 3, 5, 6, 7, 8])

    Args:
        trials: a `Trial` or another tree of arrays (trial, ...).
        n_eval: most trials for evaluation; the rest of every fifth trial is left out. None: no limit.

    Returns:
        (evaluation, training), trees like `trials`.
    """
    # Every fifth beyond n_eval is not trained on either, so that training does not depend on n_eval.
    fifth = np.arange(len(jax.tree.leaves(trials)[0])) % EVAL_EVERY == EVAL_EVERY - 1
    take = lambda rows: jax.tree.map(lambda leaf: leaf[rows], trials)
    return take(np.flatnonzero(fifth)[:n_eval]), take(~fifth)
