"""One step of training: the penalised loss of a minibatch, its gradient, the optimiser's update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctd import tasks
from ctd.cells import get_cell, run
from ctd.late import jax, jnp, optax
from ctd.train_rnn.connections import Connections
from ctd.train_rnn.loss import weighted_loss
from ctd.train_rnn.noise import noisy
from ctd.train_rnn.optimizer import optimizer
from ctd.train_rnn.parameters import UNPENALISED, Parameters, constants, weights_of


def divided(static: Any, p: Parameters) -> tuple[Parameters, Parameters]:
    """(the parameters that training moves, the others)."""
    kept = constants(static, get_cell(static.cell))
    return {k: v for k, v in p.items() if k not in kept}, {k: v for k, v in p.items() if k in kept}


def train_step(static: Any, links: Connections, traced: Any, n_in: int) -> Callable[..., Any]:
    """(parameters, optimiser's state, trials, with noise seeded ones) -> (the next two, loss without penalties, is it finite)."""
    plain = get_cell(static.cell)
    cell = noisy(plain, traced.state_noise, n_in) if static.noise else plain
    optimize = optimizer(static, traced)

    def loss(trained: Any, constant: Any, trials: tasks.Trial) -> tuple[jax.Array, jax.Array]:
        weights = weights_of(static, links, traced, trained | constant)
        states, outputs = jax.vmap(lambda x: run(cell, weights, x))(trials.inputs)
        total, weight = weighted_loss(static.loss, outputs, trials)
        error = total / weight
        rates = jax.vmap(jax.vmap(plain.hidden))(states)
        return error + _of_weights(traced, trained) + _of_rates(traced, rates), error

    def step(p: Parameters, state: Any, trials: tasks.Trial) -> Any:
        trained, constant = divided(static, p)
        (_, error), gradient = jax.value_and_grad(loss, has_aux=True)(trained, constant, trials)
        updates, new_state = optimize.update(gradient, state, trained)
        new = optax.apply_updates(trained, updates) | constant
        # The squared norm overflows where clipping would have divided by infinity.
        finite = jnp.isfinite(error + sum(jnp.sum(g**2) for g in gradient.values()))
        return new, new_state, error, finite

    return step


def _of_weights(traced: Any, trained: Parameters) -> jax.Array:
    """Of masked and signed weights the sizes are those of their parameters; of low rank, m and n are penalised."""
    some = [p for name, p in trained.items() if name not in UNPENALISED]
    return traced.l2 * sum(jnp.sum(p**2) for p in some) + traced.l1 * sum(
        jnp.sum(jnp.abs(p)) for p in some
    )


def _of_rates(traced: Any, rates: jax.Array) -> jax.Array:
    return traced.rates_l1 * jnp.mean(jnp.abs(rates)) + traced.rates_l2 * jnp.mean(rates**2)
