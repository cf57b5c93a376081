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
    """(time,) weight of each step in the loss; 0 where the output does not matter."""


class Task(BaseModel, ABC):
    """A task and its parameters. Your own task is a subclass that defines `n_in`, `n_out` and `trial`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        cls = type(self)
        return {"name": cls.name or f"{cls.__module__}.{cls.__qualname__}", **fields(self)}


def batch(task: Task, key: jax.Array, n: int, dtype: Any = "float32") -> Trial:
    """n trials: (trial, time, ...) arrays."""
    return jax.vmap(lambda k: task.trial(k, dtype))(jax.random.split(key, n))
