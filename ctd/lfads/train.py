"""One training step: Adam (Kingma & Ba 2015) on the gradient of one minibatch, clipped to a norm.

Every step reads its settings from `traced`, since a search may change them between two advances.
"""

from __future__ import annotations

from typing import NamedTuple

from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, Int, PyTree, jax, jnp, optax
from ctd.lfads.data import Dataset
from ctd.lfads.loss import Batch, gather, training_loss
from ctd.lfads.params import Model
from ctd.lfads.weights import Tree, flatten, unflatten
from ctd.training import warm_up

STEP_TERMS = ("loss", "nll", "kl_ic", "kl_input", "l2", "gradient_norm", "learning_rate")
"""The values that a step reports: KL terms before their scales and ramp, the L2 term before its ramp."""


class Position(NamedTuple):
    """Weights, optimiser and counts between two training steps."""

    weights: Float[Array, "entry"]
    """Made by `flatten`."""
    optimizer: PyTree
    """Adam's moments."""
    step: Int[Array, ""]
    """Steps taken."""
    plateaus: Int[Array, ""]
    """Plateaus of the evaluations so far."""


def optimizer(traced: Values[Model]) -> optax.GradientTransformation:
    """Adam without a learning rate, which `train_step` applies: it may depend on the evaluations."""
    return optax.scale_by_adam(b1=0.9, b2=0.999, eps=traced.adam_eps)


def learning_rate(
    static: View[Model], traced: Values[Model], step: Int[Array, ""], plateaus: Int[Array, ""]
) -> Float[Array, ""]:
    """The learning rate of a step: `learning_rate` x linear warm-up x decay^step x schedule.

    Schedules: cosine falls from 1 at the end of the warm-up to 0 at n_batches; plateau is
    plateau_factor^plateaus, with the plateaus so far (Sussillo et al. 2016); exponential is 1.

    >>> from ctd.kernel import static_of, traced_of
    >>> model = Model(learning_rate=0.01, warm_up=100, n_batches=2100)
    >>> static, traced = static_of(model), jax.tree.map(jnp.asarray, traced_of(model))
    >>> rates = [learning_rate(static, traced, jnp.int32(k), jnp.int32(0)) for k in (0, 100, 1100)]
    >>> [f"{rate:.4f}" for rate in rates]  # the first step, the largest rate, half-way down the cosine
    ['0.0001', '0.0100', '0.0050']
    """
    at = step.astype(static.dtype)
    rate = traced.learning_rate * traced.decay**at
    if static.schedule == "plateau":
        rate *= traced.plateau_factor ** plateaus.astype(static.dtype)
    rate *= warm_up(at, traced.warm_up)
    if static.schedule == "cosine":
        rising = traced.warm_up.astype(static.dtype)
        share = (at - rising) / jnp.maximum(static.n_batches - rising, 1)
        rate *= 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))
    return rate


def minibatch(
    static: View[Model], dataset: Dataset, key: jax.Array, step: Int[Array, ""]
) -> tuple[Batch, jax.Array]:
    """Draw the trials of one step, with replacement, and the key of its noise. key: the item's training key."""
    # The step is folded into the key: a restart from a checkpoint draws the same minibatches.
    key_trials, key_noise = jax.random.split(jax.random.fold_in(key, step))
    n = len(dataset.train.data)
    # With replacement: the trials of a step then depend on its number alone, and no permutation goes into checkpoints.
    index = jax.random.randint(key_trials, (static.batch_size,), 0, n)
    return gather(static, dataset, dataset.train, index), key_noise


def train_step(
    static: View[Model],
    traced: Values[Model],
    dataset: Dataset,
    key: jax.Array,
    at: Position,
    template: Tree,
) -> tuple[Position, dict[str, Float[Array, ""]], Bool[Array, ""]]:
    """Take one training step: (the position after it, its STEP_TERMS, whether loss and gradient are finite).

    key: the item's training key. template: shapes and dtypes of the weights, by name.
    """
    batch = minibatch(static, dataset, key, at.step)
    loss = lambda w: training_loss(static, traced, dataset, w, batch, at.step)
    (value, terms), slopes = jax.value_and_grad(loss, has_aux=True)(unflatten(at.weights, template))
    gradient = flatten(slopes)
    norm = jnp.linalg.norm(gradient)
    # A factor of min(1, clip / norm) whose denominator is never 0.
    gradient *= jnp.minimum(1, traced.clip_norm / jnp.maximum(norm, traced.clip_norm))
    direction, new_state = optimizer(traced).update(gradient, at.optimizer)
    # The rate multiplies Adam's direction last, so that a search can change it without touching Adam's moments.
    rate = learning_rate(static, traced, at.step, at.plateaus)
    after = Position(at.weights - rate * direction, new_state, at.step + 1, at.plateaus)
    terms |= {"loss": value, "gradient_norm": norm, "learning_rate": rate}
    return after, terms, jnp.isfinite(value) & jnp.isfinite(norm)
