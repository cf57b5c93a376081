"""Optimisers and schedules of the learning rate by name, as optax has them; their strengths may be traced numbers.

A step is: clip the gradient's norm, scale it as the optimiser does, add weight_decay times the parameters
(decoupled, Loshchilov & Hutter 2019), multiply by minus the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ctd.late import jax, jnp, optax
from ctd.train_rnn.parameters import UNPENALISED

OptimizerName = Literal[
    "adam", "adamw", "nadam", "radam", "amsgrad", "lion", "rmsprop", "adagrad", "sgd"
]
ScheduleName = Literal["exponential", "constant", "cosine", "linear"]

SCALED: Mapping[str, Callable[[Any], Any]] = {
    # Decay is added to every optimiser's step, so that adam with weight_decay is adamw.
    "adam": lambda traced: optax.scale_by_adam(eps=traced.adam_eps),
    "adamw": lambda traced: optax.scale_by_adam(eps=traced.adam_eps),
    "nadam": lambda traced: optax.scale_by_adam(eps=traced.adam_eps, nesterov=True),
    "radam": lambda traced: optax.scale_by_radam(eps=traced.adam_eps),
    "amsgrad": lambda traced: optax.scale_by_amsgrad(eps=traced.adam_eps),
    "lion": lambda traced: optax.scale_by_lion(),
    "rmsprop": lambda traced: optax.scale_by_rms(eps=traced.adam_eps),
    "adagrad": lambda traced: optax.scale_by_rss(eps=traced.adam_eps),
    "sgd": lambda traced: optax.trace(traced.momentum),
}


def optimizer(static: Any, traced: Any) -> optax.GradientTransformation:
    """The optimiser of one network, with optax's settings where it has no field."""

    def decayed(parameters: Mapping[str, Any]) -> dict[str, bool]:
        return {name: name not in UNPENALISED for name in parameters}

    return optax.chain(
        optax.clip_by_global_norm(traced.clip_norm),
        SCALED[static.optimizer](traced),
        optax.add_decayed_weights(traced.weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate(static, traced)),
    )


def learning_rate(static: Any, traced: Any) -> Callable[[jax.Array], jax.Array]:
    """Steps taken -> learning rate, which grows linearly over the first `warmup` steps."""
    peak, n = traced.learning_rate, static.n_batches
    schedules: dict[str, Callable[[Any], Any]] = {
        "exponential": lambda count: peak * traced.decay ** count.astype(traced.decay.dtype),
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, n),
        "linear": optax.linear_schedule(peak, jnp.zeros_like(peak), n),
    }

    def rate(count: jax.Array) -> jax.Array:
        share = jnp.minimum(1, (count + 1) / jnp.maximum(traced.warmup, 1))
        now: jax.Array = schedules[static.schedule](count) * share.astype(peak.dtype)
        return now

    return rate
