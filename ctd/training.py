"""Training by gradient descent, as several kernels do it: learning rates, optimisers, steps, blocks of steps.

A block is the `report_every` steps of one advance; the last one ends at `n_batches`. lfads clips its gradient and lets its learning
rate fall in `ctd.lfads.train`: both round otherwise than optax's, and its rate depends on evaluations, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel

from ctd.kernel import Coordinate
from ctd.late import Array, Bool, Float, jax, jnp, lax, optax


def item_keys(key: Array, traced: Any) -> Array:
    """The keys of an item: that of the initial weights, that of the minibatches."""
    # Two streams: whatever is drawn for a cell or a constraint, the minibatches stay the same.
    return jax.random.split(jax.random.fold_in(key, traced.seed))


# --- learning rates -------------------------------------------------------------------------------

type Rate = Callable[[Array], Array]
"""A schedule: steps taken -> learning rate."""

ScheduleName = Literal["exponential", "constant", "cosine", "linear"]
SCHEDULES: Mapping[ScheduleName, Callable[[Array, int, Array], Rate]] = {
    "exponential": lambda peak, n, decay: lambda steps: peak * decay**steps,
    "constant": lambda peak, n, decay: optax.constant_schedule(peak),
    "cosine": lambda peak, n, decay: optax.cosine_decay_schedule(peak, n),
    "linear": lambda peak, n, decay: optax.linear_schedule(peak, jnp.zeros_like(peak), n),
}
"""Name -> function (largest rate, number of steps, factor of a step) -> schedule."""


def learning_rate(name: ScheduleName, peak: Array, n: int, decay: Array, rising: Array) -> Rate:
    """The schedule of that name over n steps. Over the first `rising` ones the rate grows linearly from 0."""
    schedule = SCHEDULES[name](peak, n, decay)

    def rate(count: Array) -> Array:
        # Whole numbers divide in float32, also in a job of float64.
        steps = count.astype(peak.dtype)
        return schedule(steps) * warm_up(steps, rising)

    return rate


def warm_up(steps: Array, n: Array) -> Array:
    """The factor of the learning rate after `steps` steps: it grows linearly, and is 1 from the n-th step on.

    >>> warm_up(jnp.arange(4.0), jnp.int32(2)).tolist()
    [0.5, 1.0, 1.0, 1.0]
    """
    # steps + 1: the first step must not have a rate of 0.
    return jnp.minimum((steps + 1) / jnp.maximum(n, 1).astype(steps.dtype), 1)


def falling(first: Array, last: Array, n: int) -> Rate:
    """The learning rate that falls exponentially from the first step to the n-th.

    >>> falling(jnp.float32(1.0), jnp.float32(0.25), 2)(jnp.arange(3)).tolist()
    [1.0, 0.5, 0.25]
    """
    fall = last / first
    return lambda steps: first * fall ** (steps / n).astype(fall.dtype)


# --- optimisers -----------------------------------------------------------------------------------

OptimizerName = Literal[
    "adam", "adamw", "nadam", "radam", "amsgrad", "lion", "rmsprop", "adagrad", "sgd"
]
SCALED: Mapping[OptimizerName, Callable[[Array, Array], optax.GradientTransformation]] = {
    # Weight decay is a rule of its own, beside any of these: adam with it is adamw.
    "adam": lambda eps, momentum: optax.scale_by_adam(eps=eps),
    "adamw": lambda eps, momentum: optax.scale_by_adam(eps=eps),
    "nadam": lambda eps, momentum: optax.scale_by_adam(eps=eps, nesterov=True),
    "radam": lambda eps, momentum: optax.scale_by_radam(eps=eps),
    "amsgrad": lambda eps, momentum: optax.scale_by_amsgrad(eps=eps),
    # Lion steps by the sign of a momentum: no epsilon divides anything.
    "lion": lambda eps, momentum: optax.scale_by_lion(),
    "rmsprop": lambda eps, momentum: optax.scale_by_rms(eps=eps),
    "adagrad": lambda eps, momentum: optax.scale_by_rss(eps=eps),
    "sgd": lambda eps, momentum: optax.trace(momentum),
}
"""Name -> function (epsilon, momentum) -> how the optimiser scales a gradient; other settings are optax's defaults."""


def optimizer(
    rate: Rate | Array, *rules: optax.GradientTransformation, clip_norm: Array | None = None
) -> optax.GradientTransformation:
    """Apply rules in their order to the gradient, clipped to a norm, and multiply by minus the learning rate."""
    # Clipping comes first: it bounds what the moments remember of an exploding gradient.
    clip = () if clip_norm is None else (optax.clip_by_global_norm(clip_norm),)
    return optax.chain(*clip, *rules, optax.scale_by_learning_rate(rate))


# --- steps ----------------------------------------------------------------------------------------


class Counted(Protocol):
    """Arrays that a training step changes, with the number of steps taken."""

    @property
    def step(self) -> Array:
        """Steps taken."""


def is_finite(loss: Array, gradient: Mapping[str, Array]) -> Bool[Array, ""]:
    """True if a loss and its gradient are finite."""
    # The squared norm overflows exactly where clipping divided by infinity.
    return jnp.isfinite(loss + sum(jnp.sum(g**2) for g in gradient.values()))


def take_steps[P: Counted, T](
    take_step: Callable[[P], tuple[P, T, Array]], start: P, diverged: Array, n: int, n_batches: int
) -> tuple[tuple[P, Array], T]:
    """Take n training steps, or those that are left: ((the position after them, whether training diverged), terms (step, ...)).

    A step that is not finite is not taken, and ends the training: weights stay those before it. Terms of steps that were not
    taken are NaN.

    Args:
        take_step: position -> (position after a step, terms to report, whether loss and gradient are finite).
        start: the position before these steps.
        diverged: whether training has diverged before.
        n: the number of steps, which is fixed in the program.
        n_batches: the steps of the training.
    """

    def body(carry: tuple[P, Array], _: None) -> tuple[tuple[P, Array], T]:
        at, diverged = carry
        new, terms, finite = take_step(at)
        active = (at.step < n_batches) & ~diverged
        moved = active & finite
        at = jax.tree.map(lambda new, old: jnp.where(moved, new, old), new, at)
        terms = jax.tree.map(lambda value: jnp.where(moved, value, jnp.nan), terms)
        return (at, diverged | (active & ~finite)), terms

    return lax.scan(body, (start, diverged), length=n)


# --- blocks ---------------------------------------------------------------------------------------


def block_ends(settings: Any) -> np.ndarray:
    """The training steps (block,) at which the blocks of `settings.report_every` steps end; the last is `settings.n_batches`.

    >>> from types import SimpleNamespace
    >>> block_ends(SimpleNamespace(n_batches=250, report_every=100))
    array([100, 200, 250])
    """
    n, every = settings.n_batches, settings.report_every
    return np.minimum(np.arange(every, n + every, every), n)


def n_blocks(settings: Any) -> int:
    """The number of blocks, which is that of advances."""
    return len(block_ends(settings))


def empty_curve(static: Any) -> Float[Array, "batch"]:
    """A value for each block, NaN where not reached."""
    return jnp.full(n_blocks(static), jnp.nan, static.dtype)


def batch_axis(settings: Any) -> dict[str, Coordinate]:
    """The coordinate of curves."""
    return {"batch": Coordinate(block_ends(settings), "1", "training steps taken")}


def check_multiple(params: BaseModel, name: str, unit: str) -> None:
    """Raise ValueError if one field is no multiple of another one."""
    steps, part = getattr(params, name), getattr(params, unit)
    if steps % part:
        raise ValueError(f"{name}: {steps} given; a multiple of {unit} = {part} expected")
