"""The definition of a task: `Task`, one `Trial` of it, and `Timed`, the base of tasks whose epochs are given in ms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from ctd.late import Array, Float, Int, jax, jnp
from ctd.words import count


class Trial(NamedTuple):
    """One trial: inputs x (time, n_in), targets y (time, n_out) and the weight of each step in the loss.

    A batch of trials has a leading trial axis. The mask broadcasts over outputs if it is (time,).

    >>> trial = Trial(jnp.zeros((5, 2)), jnp.ones((5, 1)), mask=jnp.array([0.0, 0, 0, 1, 1]))
    >>> trial.mask.sum(), trial.condition
    (Array(2., dtype=float32), 0)
    """

    inputs: Float[Array, "time n_in"]
    targets: Float[Array, "time n_out"]
    mask: Float[Array, "time"]
    """The weight of each step in the loss, or of each output at each step, (time, n_out): 0 where the output does not
    matter, and after the end of a trial that is shorter than the arrays."""
    condition: Int[Array, ""] | int = 0
    """Index into the values of the task's `conditions`."""

    @property
    def weights(self) -> Array:
        """The mask with an axis of outputs, which is of length 1 if the mask is the same for all."""
        return self.mask if self.mask.ndim == self.targets.ndim else self.mask[..., None]


class Conditions(NamedTuple):
    """The kinds of trials of a task, by a name and one value each. Accuracies, tables and figures are split by them.

    >>> from ctd.tasks import RandomDots
    >>> RandomDots(coherences=(-8, 8)).conditions
    Conditions(name='coherence', values=(-8.0, 8.0), choice=True)
    """

    name: str
    values: tuple[float, ...] | tuple[str, ...]
    """One for each condition: numbers in increasing order, or texts."""
    choice: bool = False
    """True if the sign of the value is the right one of two answers: a psychometric curve is drawn."""


class Task(BaseModel, ABC):
    """The base of all tasks: a frozen model of a task's parameters that draws trials.

    Your own task is a subclass that defines `n_in`, `n_out` and `trial`, and `success` if it can tell whether
    a trial was answered correctly.

    >>> class Echo(Task):
    ...     n_in = property(lambda self: 1)
    ...     n_out = property(lambda self: 1)
    ...     def trial(self, key, dtype):
    ...         x = jax.random.normal(key, (self.n_steps, 1), dtype)
    ...         return Trial(x, x, jnp.ones(self.n_steps, dtype))
    >>> batch(Echo(n_steps=5), jax.random.key(0), 3).targets.shape
    (3, 5, 1)
    """

    # Frozen, so that a task is hashable: it is static, and programs are compiled for it.
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
    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        """Draw one trial: inputs, targets, mask and condition. A pure function, which JAX may trace.

        Args:
            key: random key of the trial.
            dtype: floating type of the arrays.

        Returns:
            A `Trial` with arrays of `length` steps.
        """

    @property
    def length(self) -> int:
        """Steps of the arrays of a trial."""
        return self.n_steps

    @property
    def time_step(self) -> tuple[float, str]:
        """Length of a step and its unit in CF notation; (1, "1") if steps are only counted."""
        return 1, "1"

    @property
    def conditions(self) -> Conditions | None:
        """The conditions that `Trial.condition` indexes; None if all trials are of one kind."""
        return None

    @property
    def constant_inputs(self) -> tuple[tuple[float, ...], ...]:
        """The inputs of each context without a stimulus, at which fixed points are sought; () of a task without contexts."""
        return ()

    def success(self, trial: Trial, output: Array) -> Array:
        """Tell if the output of one trial is right.

        Args:
            trial: the trial that the network ran.
            output: (time, n_out) as the loss compares it with the targets: probabilities if the loss is cross-entropy.

        Returns:
            () bool.

        Raises:
            NotImplementedError: the task has no rule of success.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no rule of success; define its method success(trial, output)"
        )

    @property
    def title(self) -> str:
        """The task's name in job files; of a class without one, the class's."""
        return self.name or type(self).__name__

    def check_inputs(self, n_in: int, path: str | None, instead: str = "") -> None:
        """Check that a network can run the task: its number of inputs is `n_in`.

        Args:
            n_in: number of the network's inputs.
            path: file of the network, for the error.
            instead: text that follows the advice to give another task.

        Raises:
            ValueError: the task has another number of inputs.
        """
        if self.n_in != n_in:
            raise ValueError(
                f"task: {self.title} has {count(self.n_in, 'input')}, but the network in {path} takes {n_in}; give a task with as "
                f"many{instead}"
            )

    @property
    def scored(self) -> bool:
        """True if the task has a rule of success."""
        return type(self).success is not Task.success

    # A stored job must say which class its parameters belong to.
    @model_serializer(mode="wrap")
    def _with_name(self, fields: Callable[[Task], dict[str, object]]) -> dict[str, object]:
        cls = type(self)
        return {"name": cls.name or f"{cls.__module__}.{cls.__qualname__}", **fields(self)}


def batch(task: Task, key: Array, n: int, dtype: jax.typing.DTypeLike = "float32") -> Trial:
    """Draw n trials of a task.

    >>> from ctd.tasks import Decision
    >>> trials = batch(Decision(n_steps=20), jax.random.key(1), 4)
    >>> trials.inputs.shape, trials.mask.shape
    ((4, 20, 1), (4, 20))

    Args:
        task: the task.
        key: random key; trial k has key k of `jax.random.split(key, n)`.
        n: number of trials.
        dtype: floating type of the arrays.

    Returns:
        A `Trial` whose arrays have a leading axis of trials: inputs (trial, time, n_in), targets (trial, time, n_out), mask
        (trial, time) or (trial, time, n_out), condition (trial,).
    """
    return _compiled_batch()(task, key, n, dtype)


@cache
def _compiled_batch() -> Callable[[Task, Array, int, jax.typing.DTypeLike], Trial]:
    """One program for a task and its number of trials: operation by operation, JAX would compile about twenty."""

    def batch(task: Task, key: Array, n: int, dtype: jax.typing.DTypeLike) -> Trial:
        return jax.vmap(lambda k: task.trial(k, dtype))(jax.random.split(key, n))

    # Inlined where a program draws its own minibatches.
    return jax.jit(batch, static_argnums=(0, 2, 3), inline=True)


type Epoch = str | tuple[float, ...]
"""The field that gives the durations of an epoch, or the durations (ms)."""


class Timed(Task):
    """The base of tasks whose trials consist of epochs (fixation, stimulus, delay, response) with durations in ms.

    A trial that is shorter than the arrays ends early: its mask is 0 from there on.
    """

    n_steps: int = Field(
        0, ge=0, description="steps of the arrays of a trial; 0: those of the longest trial"
    )
    dt: float = Field(20.0, gt=0, description="length of a step (ms)")

    @property
    @abstractmethod
    def epochs(self) -> Sequence[str]:
        """The fields that give the durations (ms) of a trial's epochs, in their order."""

    @property
    def longest(self) -> int:
        """Steps of the longest trial."""
        return self.most_steps(self.epochs)

    @property
    def time_step(self) -> tuple[float, str]:
        """(dt, "ms")."""
        return self.dt, "ms"

    @property
    def length(self) -> int:
        """Steps of the arrays of a trial."""
        return self.n_steps or self.longest

    def steps(self, ms: float) -> int:
        """Whole steps in a duration (ms)."""
        # 300 / 0.1 is 2999.999...: a duration that is a multiple of dt must not lose a step.
        return int(ms / self.dt + 1e-6)

    def durations(self, epoch: Epoch) -> tuple[float, ...]:
        """The durations (ms) that an epoch may have; of a random one, the shortest and the longest."""
        duration = getattr(self, epoch) if isinstance(epoch, str) else epoch
        return duration if isinstance(duration, tuple) else (duration,)

    def most_steps(self, epochs: Sequence[Epoch]) -> int:
        """Steps of successive epochs at their longest."""
        return sum(max(map(self.steps, self.durations(epoch))) for epoch in epochs)

    @model_validator(mode="after")
    def _fits(self) -> Timed:
        if self.longest == 0:
            raise ValueError(f"dt: {self.dt:g} ms is longer than every epoch; give a smaller one")
        if self.length < self.longest:
            raise ValueError(
                f"n_steps: {self.n_steps} steps cannot hold epochs of up to {self.longest} steps "
                f"({self.longest * self.dt:g} ms at dt = {self.dt:g}); leave n_steps out, or shorten the epochs"
            )
        for name, ms in ((each, ms) for each in self.epochs for ms in self.durations(each)):
            # Given in seconds, or scaled down by a task with time_scale, an epoch would be left out without a word.
            if ms > 0 and self.steps(ms) == 0:
                scaled = Timed.steps(self, ms) > 0
                raise ValueError(
                    f"{name}: {ms:g} ms{' times time_scale' * scaled} is shorter than a step (dt: {self.dt:g} ms); "
                    + ("raise time_scale, or lower dt" if scaled else "durations are in ms")
                )
        return self


def choose(u: Array, values: Sequence[float], dtype: jax.typing.DTypeLike | None = None) -> Array:
    """Choose one of the values by a uniform number u in [0, 1), of any shape.

    >>> choose(jnp.array([0.0, 0.6]), [5, 7])
    Array([5, 7], dtype=int32)
    """
    # In float32, u n may round up to n.
    at = jnp.minimum((u * len(values)).astype(int), len(values) - 1)
    return jnp.asarray(values, dtype)[at]
