"""One step of training: the penalised loss of a minibatch, its gradient, and the optimiser's update.

Optimisers and schedules of the learning rate are those of optax; their settings may be traced numbers. The optimiser
clips the gradient's norm, scales it by its own rule, adds weight_decay times the parameters (decoupled, Loshchilov &
Hutter 2019), and multiplies by minus the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ctd import tasks
from ctd.cells import Weights, get_cell, run
from ctd.kernel import Values, View
from ctd.late import Array, Bool, Float, PyTree, jax, jnp, optax
from ctd.tasks.noise import first_state, noisy
from ctd.tasks.scores import weighted_loss
from ctd.train_rnn.connections import Connections
from ctd.train_rnn.parameters import UNPENALISED, Parameters, divided, weights_of
from ctd.train_rnn.params import Network, OptimizerName, ScheduleName

SCALED: Mapping[OptimizerName, Callable[[Values[Network]], optax.GradientTransformation]] = {
    # `optimizer` adds weight decay to every optimiser's step: adam with weight_decay is adamw.
    "adam": lambda traced: optax.scale_by_adam(eps=traced.adam_eps),
    "adamw": lambda traced: optax.scale_by_adam(eps=traced.adam_eps),
    "nadam": lambda traced: optax.scale_by_adam(eps=traced.adam_eps, nesterov=True),
    "radam": lambda traced: optax.scale_by_radam(eps=traced.adam_eps),
    "amsgrad": lambda traced: optax.scale_by_amsgrad(eps=traced.adam_eps),
    # Lion steps by the sign of a momentum: no epsilon divides anything.
    "lion": lambda traced: optax.scale_by_lion(),
    "rmsprop": lambda traced: optax.scale_by_rms(eps=traced.adam_eps),
    "adagrad": lambda traced: optax.scale_by_rss(eps=traced.adam_eps),
    "sgd": lambda traced: optax.trace(traced.momentum),
}


def optimizer(static: View[Network], traced: Values[Network]) -> optax.GradientTransformation:
    """The optimiser of one network. Settings for which `Network` has no field are optax's defaults."""

    def decayed(parameters: Mapping[str, Array]) -> dict[str, bool]:
        return {name: name not in UNPENALISED for name in parameters}

    # The order matters: clipping first bounds what the optimiser's moments remember of an exploding gradient, and decay
    # after the scaling is decoupled from it.
    return optax.chain(
        optax.clip_by_global_norm(traced.clip_norm),
        SCALED[static.optimizer](traced),
        optax.add_decayed_weights(traced.weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate(static, traced)),
    )


def learning_rate(static: View[Network], traced: Values[Network]) -> Callable[[Array], Array]:
    """The schedule: steps taken -> learning rate. Over the first `warmup` steps the rate grows linearly from 0."""
    peak, n = traced.learning_rate, static.n_batches
    schedules: dict[ScheduleName, Callable[[Array], Array]] = {
        "exponential": lambda count: peak * traced.decay**count,
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, n),
        "linear": optax.linear_schedule(peak, jnp.zeros_like(peak), n),
    }

    def rate(count: Array) -> Array:
        # Whole numbers divide in float32, also in a job of float64.
        steps = count.astype(peak.dtype)
        # steps + 1: the first step of a warmup must not have a rate of 0.
        share = jnp.minimum(1, (steps + 1) / jnp.maximum(traced.warmup, 1).astype(peak.dtype))
        return schedules[static.schedule](steps) * share

    return rate


def train_step(
    static: View[Network],
    links: Connections,
    traced: Values[Network],
    p: Parameters,
    state: PyTree,
    trials: tasks.Trial,
) -> tuple[Parameters, PyTree, Float[Array, ""], Bool[Array, ""]]:
    """Take one training step. p: all parameters; state: the optimiser's; trials: `seeded` if there is noise.

    Returns:
        (parameters, the optimiser's state, () the loss without penalties, NaN if no trial has a weight,
        () bool: loss and gradient are finite).
    """
    plain, optimize = get_cell(static.cell), optimizer(static, traced)
    cell = noisy(plain, traced.state_noise) if static.noise else plain
    trained, constant = divided(static, p)

    def start(weights: Weights, x: Array) -> Array:
        h0 = weights["h0"]
        return first_state(h0, x, traced.initial_noise) if static.noise else h0

    def loss(trained: Parameters) -> tuple[Array, tuple[Array, Array]]:
        weights = weights_of(static, links, traced, trained | constant)
        each = lambda x: run(cell, weights, x, start(weights, x))
        states, outputs = jax.vmap(each)(trials.inputs)
        total, weight = weighted_loss(static.loss, outputs, trials)
        # A minibatch of trials of a file that have no weight has no error.
        error = total / jnp.where(weight > 0, weight, 1)
        # `hidden` gives the rates of a state; the penalty sees them with their noise.
        rates = jax.vmap(jax.vmap(plain.hidden))(states)
        return error + _of_weights(traced, trained) + _of_rates(traced, rates), (error, weight)

    (_, (error, weight)), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
    updates, new_state = optimize.update(gradient, state, trained)
    new = optax.apply_updates(trained, updates) | constant
    # One test of loss and gradient. The squared norm overflows exactly where clipping divided by infinity.
    finite = jnp.isfinite(error + sum(jnp.sum(g**2) for g in gradient.values()))
    return new, new_state, jnp.where(weight > 0, error, jnp.nan), finite


def _of_weights(traced: Values[Network], trained: Parameters) -> Array:
    """The penalties l2 and l1 on the trained parameters, masked and signed weights included; of low rank, on m and n."""
    some = [p for name, p in trained.items() if name not in UNPENALISED]
    squares, sizes = sum(jnp.sum(p**2) for p in some), sum(jnp.sum(jnp.abs(p)) for p in some)
    return traced.l2 * squares + traced.l1 * sizes


def _of_rates(traced: Values[Network], rates: Float[Array, "trial time unit"]) -> Float[Array, ""]:
    """The penalties on rates."""
    return traced.rates_l1 * jnp.mean(jnp.abs(rates)) + traced.rates_l2 * jnp.mean(rates**2)
