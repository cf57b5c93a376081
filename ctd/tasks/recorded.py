"""Trials that exist already: of an HDF5 file."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from ctd.late import jax
from ctd.tasks.scores import every_near, same_category, same_sign
from ctd.tasks.task import Task, Trial

AXES = {"inputs": 3, "targets": 3, "mask": 2, "conditions": 1}
"""The datasets of a file of trials to train on, and how many axes each has; the last two may be missing."""
EVAL_EVERY = 5
"""Every fifth trial is kept for evaluation."""


class Recorded(Task):
    """Trials of the HDF5 file that `trials` of the job names.

    Datasets: `inputs` (trial, time, input), `targets` (trial, time, output), and if there are any `mask` (trial,
    time) or (trial, time, output), the weights of the steps in the loss, and `conditions` (trial,), a number for
    each trial. Minibatches are drawn of four in five trials; every fifth one is kept for evaluation.
    """

    name = "file"

    score: Literal["none", "sign", "near", "category"] = Field(
        "none",
        description="when an answer is right. sign: the mean of the first output over the steps that count has the "
        "sign of its target; near: every output is less than `within` from its target at every such step; "
        "category: the largest output at the last such step is that of the largest target",
    )
    within: float = Field(0.5, gt=0, description="distance that `near` allows")

    @property
    def n_in(self) -> int:
        raise ValueError(_ELSEWHERE)

    @property
    def n_out(self) -> int:
        raise ValueError(_ELSEWHERE)

    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        raise ValueError(_ELSEWHERE)

    @property
    def scored(self) -> bool:
        return self.score != "none"

    def success(self, trial: Trial, output: jax.Array) -> jax.Array:
        """Whether the answer is right, by `score`."""
        if self.score == "near":
            return every_near(trial, output, self.within)
        return same_sign(trial, output) if self.score == "sign" else same_category(trial, output)

    def read(self, path: str | None, dtype: str) -> tuple[Trial, np.ndarray]:
        """(trials, the numbers of their conditions in increasing order). Raises ValueError, naming file and dataset."""
        from ctd.data import read_hdf5  # and with it h5py, which nobody needs who names a task

        if path is None:
            raise ValueError(
                "trials: task file needs an HDF5 file of inputs and targets; give its path as `trials`"
            )
        found = read_hdf5(path)
        _check(path, found)
        numbers = found.get("conditions", np.zeros(len(found["inputs"])))
        values, condition = np.unique(numbers, return_inverse=True)
        mask: Any = found.get("mask", np.ones(found["inputs"].shape[:2])).astype(dtype)
        inputs: Any = found["inputs"].astype(dtype)
        targets: Any = found["targets"].astype(dtype)
        return Trial(inputs, targets, mask, condition.astype(np.int32)), values


_ELSEWHERE = "task: the trials of task file lie in a file that only train_rnn reads; give a task that draws its trials"


def _check(path: str, found: dict[str, np.ndarray]) -> None:
    """Raise ValueError, naming file and dataset, where these are no trials."""
    for name in ("inputs", "targets"):
        if name not in found:
            raise ValueError(
                f"{path}: {name} is missing; a file of trials has inputs and targets, and may have mask and "
                f"conditions; found {', '.join(sorted(found))}"
            )
    trials, steps = found["inputs"].shape[:2] if found["inputs"].ndim > 1 else (0, 0)
    for name, axes in AXES.items():
        if name not in found:
            continue
        array = found[name]
        if array.ndim != axes and not (name == "mask" and array.ndim == 3):
            raise ValueError(
                f"{path}: {name} has the shape {array.shape}; {axes} axes are expected"
            )
        if array.shape[: min(axes, 2)] != (trials, steps)[: min(axes, 2)]:
            raise ValueError(
                f"{path}: {name} has the shape {array.shape}, but inputs {found['inputs'].shape}: their trials and "
                "steps must be the same"
            )
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{path}: {name} has {bad} NaN or infinite entries")
    if trials < EVAL_EVERY:
        raise ValueError(f"{path}: holds {trials} trials; at least {EVAL_EVERY} are needed")
    mask = found.get("mask", np.ones(1))
    if mask.ndim == 3 and mask.shape != found["targets"].shape:
        raise ValueError(
            f"{path}: mask has the shape {mask.shape}, but targets {found['targets'].shape}"
        )
    if (mask < 0).any() or not mask.any():
        raise ValueError(f"{path}: mask: weights of 0 or more expected, and one above 0 at least")


def divide(trials: Trial, n_eval: int) -> tuple[Trial, Trial]:
    """(evaluation, training): every fifth trial, up to n_eval, and all that are not one of each fifth."""
    fifth = np.arange(len(trials.inputs)) % EVAL_EVERY == EVAL_EVERY - 1
    take = lambda which: jax.tree.map(lambda leaf: leaf[which], trials)
    return take(np.flatnonzero(fifth)[:n_eval]), take(~fifth)
