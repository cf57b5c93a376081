"""What a task is, and one trial of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from ctd.late import jax


class Trial(NamedTuple):
    """One trial, or a batch of them with a leading trial axis."""

    inputs: jax.Array
    """(time, n_in)"""
    targets: jax.Array
    """(time, n_out)"""
    mask: jax.Array
    """(time,), or (time, n_out): weight of each step in the loss; 0 where the output does not matter, and after
    the end of a trial that is shorter than the others."""
    condition: Any = 0
    """int: which of the task's `conditions` the trial belongs to."""


class Conditions(NamedTuple):
    """What tells the trials of a task apart, for accuracies, tables and pictures."""

    name: str
    values: tuple[float, ...] | tuple[str, ...]
    """One for each condition: numbers of an axis in increasing order, or texts."""
    choice: bool = False
    """True: the values are numbers and their sign is the right one of two answers, so that there is a psychometric
    curve."""


class Task(BaseModel, ABC):
    """A task and its parameters. Your own task is a subclass that defines `n_in`, `n_out` and `trial`, and
    `success` where it can say whether a trial was answered correctly."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = ""

    n_steps: int = Field(25, gt=0, description="steps of a trial")

    @property
    @abstractmethod
    def n_in(self) -> int:
        """Number of input channels."""

    @property
    @abstractmethod
    def n_out(self) -> int:
        """Number of output channels."""

    @abstractmethod
    def trial(self, key: jax.Array, dtype: Any) -> Trial:
        """One trial, drawn with `key`, in the floating type `dtype`."""

    @property
    def length(self) -> int:
        """Steps of the arrays of a trial."""
        return self.n_steps

    @property
    def time_step(self) -> tuple[float, str]:
        """Length of a step and its unit, as the CF conventions have it; (1, "1") where steps are only counted."""
        return 1, "1"

    @property
    def conditions(self) -> Conditions | None:
        """The conditions that `Trial.condition` counts; None where all trials are of one kind."""
        return None

    def success(self, trial: Trial, output: jax.Array) -> jax.Array:
        """Whether `output`, (time, n_out), answers this one trial correctly: a boolean.

        The output is what the loss compares with the targets: after training by cross-entropy, probabilities.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rule of success")

    @property
    def scored(self) -> bool:
        """Whether the task has a rule of success."""
        return type(self).success is not Task.success

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        cls = type(self)
        return {"name": cls.name or f"{cls.__module__}.{cls.__qualname__}", **fields(self)}


def batch(task: Task, key: jax.Array, n: int, dtype: Any = "float32") -> Trial:
    """n trials: (trial, time, ...) arrays."""
    return jax.vmap(lambda k: task.trial(k, dtype))(jax.random.split(key, n))
