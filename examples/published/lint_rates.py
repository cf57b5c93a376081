"""Kernel: rates of a trained network in trials of its task, with and without noise on its states; what a second network is fitted to in LINT.

Valente, Pillow & Ostojic 2022 (NeurIPS 35). `inputs` and `targets` are what the task `file` of `train_rnn` reads.
"""

from typing import Any

from ctd import tasks
from ctd.cells import get_cell, run
from ctd.kernel import File, Params, Static, Var, one_shot
from ctd.late import jax, jnp
from ctd.tasks.noise import noisy, seeded
from ctd.weights import read_weights


class Rates(Params):
    """The parameters of one set of trials."""

    weights: File[str | None] = None
    task: Static[tasks.AnyTask] = tasks.Decision()
    n_trials: Static[int] = 1000
    noise: Static[float] = 0.05


def load(inputs: Any) -> dict[str, Any]:
    """The weights of the network, whose cell is leaky."""
    return dict(read_weights(inputs.weights, "leaky")[1])


def make(static: Any, shared: Any, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Draw trials, and run the network with its noise and without."""
    key_trials, key_noise = jax.random.split(key)
    trials = tasks.batch(static.task, key_trials, static.n_trials)
    weights = {name: jnp.asarray(value, static.dtype) for name, value in shared.items()}
    cell = noisy(get_cell("leaky"), static.noise)
    with_noise = seeded(trials, key_noise, 0.0).inputs
    states, outputs = jax.vmap(lambda x: run(cell, weights, x))(with_noise)
    quiet, _ = jax.vmap(lambda x: run(get_cell("leaky"), weights, x))(trials.inputs)
    return {
        "inputs": trials.inputs,
        "targets": jnp.tanh(states),
        "quiet": jnp.tanh(quiet),
        "accuracy": jnp.mean(jax.vmap(static.task.success)(trials, outputs)),
    }


DIMS = {
    "inputs": Var(("trial", "time", "input"), "1", "inputs of the trials"),
    "targets": Var(("trial", "time", "unit"), "1", "rates, with noise on the states"),
    "quiet": Var(("trial", "time", "unit"), "1", "rates without noise in the same trials"),
    "accuracy": Var((), "1", "share of right trials, with noise", True),
}
kernel = one_shot("lint_rates", Rates, DIMS, make, load=load)
