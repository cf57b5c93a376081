"""One step of training: the penalised loss of a minibatch, its gradient, and the optimiser's update.

The optimiser (`ctd.training`) clips the gradient's norm, scales it by its own rule, adds weight_decay times the parameters (decoupled,
Loshchilov & Hutter 2019), and multiplies by minus the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ctd import tasks, training
from ctd.cells import Weights, get_cell, run
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, Int, PyTree, jax, jnp, optax
from ctd.tasks.noise import first_state, noisy
from ctd.tasks.scores import weighted_loss
from ctd.train_rnn.connections import Connections
from ctd.train_rnn.parameters import UNPENALISED, Parameters, divided, weights_of
from ctd.train_rnn.params import Network


class State(NamedTuple):
    """A network in training."""

    parameters: Parameters
    """All parameters, trained or not, see `parameters`."""
    links: Connections
    """Masks and signs. Part of the state, so that a network that continues from a copy of another has the other's."""
    optimizer: PyTree
    """optax's state."""
    step: Int[Array, ""]
    """Minibatches seen."""
    first: Float[Array, ""]
    """Loss on the first minibatch; NaN before it."""
    curve: Float[Array, "batch"]
    """Mean loss of each block; NaN where not reached."""
    accuracy: Float[Array, "batch"]
    """Accuracy on the evaluation trials at the end of each block; of length 0 without `stop_at`."""
    diverged: Bool[Array, ""]
    done: Bool[Array, ""]


def optimizer(static: View[Network], traced: Values[Network]) -> optax.GradientTransformation:
    """The optimiser of one network. Settings for which `Network` has no field are optax's defaults."""

    def decayed(parameters: Mapping[str, Array]) -> dict[str, bool]:
        return {name: name not in UNPENALISED for name in parameters}

    peak, decay, n = traced.learning_rate, traced.decay, static.n_batches
    return training.optimizer(
        training.learning_rate(static.schedule, peak, n, decay, traced.warmup),
        training.SCALED[static.optimizer](traced.adam_eps, traced.momentum),
        # After the scaling, so that decay is decoupled from it.
        optax.add_decayed_weights(traced.weight_decay, decayed),
        clip_norm=traced.clip_norm,
    )


def train_step(
    static: View[Network], traced: Values[Network], at: State, trials: tasks.Trial
) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
    """Take one training step. trials: `seeded` if there is noise.

    Returns:
        (state, () the loss without penalties, NaN if no trial has a weight, () bool: loss and gradient are finite).
    """
    plain, optimize = get_cell(static.cell), optimizer(static, traced)
    cell = noisy(plain, traced.state_noise) if static.noise else plain
    trained, constant = divided(static, at.parameters)

    def start(weights: Weights, x: Array) -> Array:
        h0 = weights["h0"]
        return first_state(h0, x, traced.initial_noise) if static.noise else h0

    def loss(trained: Parameters) -> tuple[Array, tuple[Array, Array]]:
        weights = weights_of(static, at.links, traced, trained | constant)
        each = lambda x: run(cell, weights, x, start(weights, x))
        states, outputs = jax.vmap(each)(trials.inputs)
        total, weight = weighted_loss(static.loss, outputs, trials)
        # A minibatch of trials of a file that have no weight has no error.
        error = total / jnp.where(weight > 0, weight, 1)
        # `hidden` gives the rates of a state; the penalty sees them with their noise.
        rates = jax.vmap(jax.vmap(plain.hidden))(states)
        return error + _of_weights(traced, trained) + _of_rates(traced, rates), (error, weight)

    (_, (error, weight)), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
    updates, state = optimize.update(gradient, at.optimizer, trained)
    new = optax.apply_updates(trained, updates) | constant
    after = at._replace(parameters=new, optimizer=state, step=at.step + 1)
    finite = training.is_finite(error, gradient)
    return after, jnp.where(weight > 0, error, jnp.nan), finite


def _of_weights(traced: Values[Network], trained: Parameters) -> Array:
    """The penalties l2 and l1 on the trained parameters, masked and signed weights included; of low rank, on m and n."""
    some = [p for name, p in trained.items() if name not in UNPENALISED]
    squares, sizes = sum(jnp.sum(p**2) for p in some), sum(jnp.sum(jnp.abs(p)) for p in some)
    return traced.l2 * squares + traced.l1 * sizes


def _of_rates(traced: Values[Network], rates: Float[Array, "trial time unit"]) -> Float[Array, ""]:
    """The penalties on rates."""
    return traced.rates_l1 * jnp.mean(jnp.abs(rates)) + traced.rates_l2 * jnp.mean(rates**2)
