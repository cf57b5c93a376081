"""Small models of LFADS with their data, weights and noise."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ctd.kernel import static_of, traced_of
from ctd.lfads import Model
from ctd.lfads.data import make_dataset
from ctd.lfads.loss import bound, draw_dropout, draw_noise, gather, training_loss
from ctd.lfads.model import Fitted
from ctd.lfads.weights import init_weights

SIZES = {
    "dtype": "float64",
    "encoder": 5,
    "controller": 4,
    "generator": 6,
    "n_factors": 3,
    "n_inputs": 2,
    "n_batches": 30,
    "report_every": 10,
    "warm_up": 3,
    "kl_ramp": 10,
    "n_saved": 2,
}
N_STEPS, N_UNITS = 7, 8


def arrays(n_train=20, n_eval=6, n_external=0, seed=0):
    """Counts of units with different rates, and external inputs if asked for."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.2, 3, N_UNITS)
    found = {
        name: rng.poisson(rates, (n, N_STEPS, N_UNITS))
        for name, n in (("train", n_train), ("eval", n_eval))
    }
    if n_external:
        found |= {
            f"{name}_external": rng.standard_normal((len(found[name]), N_STEPS, n_external))
            for name in ("train", "eval")
        }
    return found


class Case:
    """A small model with its data, weights and noise; what is drawn or gathered is so when it is asked for."""

    def __init__(self, n_external=0, batch_size=4, **changes):
        self.model = Model(**SIZES | {"batch_size": batch_size} | changes)
        self.static = static_of(self.model)
        real = lambda v: np.asarray(v, float if isinstance(v, float) else np.int32)
        self.traced = jax.tree.map(real, traced_of(self.model))
        self.dataset = make_dataset(arrays(n_external=n_external), self.model)
        self.n_external, self.key, self.floor = (
            n_external,
            jax.random.key(3),
            self.traced.variance_floor,
        )

    @cached_property
    def weights(self):
        """Of the shapes that a model starts with, away from values at which a mistake would not show: zeros, equal moments."""
        n_seen, rng = len(self.dataset.seen_units), np.random.default_rng(4)
        init = lambda key: init_weights(
            self.static, self.traced, key, n_seen, self.n_external, self.dataset.bias
        )
        scale = lambda shape: shape[1] ** -0.5 if len(shape) == 2 else 0.3
        draw = lambda w: scale(w.shape) * rng.standard_normal(w.shape)
        return jax.tree.map(draw, jax.eval_shape(init, self.key))

    @cached_property
    def batch(self):
        rows = np.arange(self.static.batch_size) % len(self.dataset.train.data)
        # Keys and data as arguments: what is constant the compiler would compute itself, slowly.
        return jax.jit(lambda data: gather(self.static, data, data.train, rows))(self.dataset)

    @cached_property
    def drawn(self):
        """(noise of a training pass, weights of the seen entries)."""

        def draw(key, traced, batch):
            plain = draw_noise(self.static, key, batch)
            return draw_dropout(self.static, traced, key, batch, plain)

        return jax.jit(draw)(self.key, self.traced, self.batch)

    def terms(self):
        """The terms of the batch with its noise."""
        f = jax.jit(lambda weights, *args: bound(self.fitted(weights), *args))
        return f(self.weights, self.batch, self.drawn[0])

    def fitted(self, weights):
        return Fitted(self.static, self.floor, self.dataset, weights)

    def loss(self, f=lambda loss: loss):
        """weights, step -> f of the training loss of the batch, compiled."""

        def loss(weights, step, traced, dataset, batch, key):
            return training_loss(self.static, traced, dataset, weights, (batch, key), step)

        compiled = jax.jit(f(loss))
        rest = self.traced, self.dataset, self.batch, self.key
        return lambda weights, step: compiled(weights, jnp.int32(step), *rest)


CASES = {
    "gaussian": {"likelihood": "gaussian", "input_prior": "gaussian", "lag": 2},
    "no controller": {"controller": 0, "n_external": 2},
    "held out": {"held_out_units": (1, 5), "held_out_bins": 2, "lag": 1, "n_external": 2},
    "ode": {"generator_cell": "node", "field_units": 5, "n_external": 2},
    "ode, no controller": {
        "generator_cell": "node", "field_units": 5, "controller": 0, "readout": "states", "n_factors": 6,
    },
}  # fmt: skip
