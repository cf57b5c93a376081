"""Small models of LFADS: single batches, one that is trained, one of two recordings."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ctd.batch import Layout
from ctd.data import write_hdf5
from ctd.kernel import static_of, traced_of
from ctd.lfads import Model
from ctd.lfads.data import make_dataset
from ctd.lfads.loss import bound, draw_dropout, draw_noise, gather, training_loss
from ctd.lfads.model import Fitted
from ctd.lfads.weights import init_weights


def dense_kl(m, s, m0, s0):
    """KL(N(m, S) || N(m0, S0)) = (tr S0^-1 S + d' S0^-1 d - n + log |S0| / |S|) / 2."""
    d, inverse = m0 - m, np.linalg.inv(s0)
    logdet = np.linalg.slogdet(s0)[1] - np.linalg.slogdet(s)[1]
    return 0.5 * (np.trace(inverse @ s) + d @ inverse @ d - len(m) + logdet)


CASE_SIZES = {
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
CASE_STEPS, CASE_UNITS = 7, 8


def case_arrays(n_train=20, n_eval=6, n_external=0, seed=0):
    """Counts of units with different rates, and external inputs if asked for."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.2, 3, CASE_UNITS)
    found = {
        name: rng.poisson(rates, (n, CASE_STEPS, CASE_UNITS))
        for name, n in (("train", n_train), ("eval", n_eval))
    }
    if n_external:
        found |= {
            f"{name}_external": rng.standard_normal((len(found[name]), CASE_STEPS, n_external))
            for name in ("train", "eval")
        }
    return found


class Case:
    """A small model with its data, weights and noise; what is drawn or gathered is so when it is asked for."""

    def __init__(self, n_external=0, batch_size=4, **changes):
        self.model = Model(**CASE_SIZES | {"batch_size": batch_size} | changes)
        self.static = static_of(self.model)
        real = lambda v: np.asarray(v, float if isinstance(v, float) else np.int32)
        self.traced = jax.tree.map(real, traced_of(self.model))
        self.dataset = make_dataset(case_arrays(n_external=n_external), self.model)
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


# --- one LFADS with its trials, whose compiled programs several files of tests share ------------

SIZES = {
    "encoder": 6,
    "controller": 5,
    "generator": 7,
    "n_factors": 3,
    "batch_size": 8,
    "n_batches": 150,
    "report_every": 15,
    "schedule": "plateau",
    "plateau_factor": 0.5,
    "plateau_patience": 2,
    "warm_up": 2,
    "kl_ramp": 50,
    "n_samples": 3,
    "n_metric": 9,
    "save": "all",
    "held_out_units": (1,),
    "held_out_bins": 2,
}
LAYOUT = Layout(1, 1)
N_TRAIN, N_EVAL, N_STEPS, N_UNITS = 60, 20, 8, 6
"""Trials are no multiples of a minibatch, 8."""


def arrays():
    """Counts of one pattern over time, the same in all trials."""
    rng = np.random.default_rng(1)
    pattern = np.exp(np.outer(np.sin(np.arange(N_STEPS)), rng.uniform(-1.5, 1.5, N_UNITS)))
    rates = np.broadcast_to(pattern, (N_TRAIN + N_EVAL, N_STEPS, N_UNITS))
    counts = rng.poisson(rates)
    return {
        "train": counts[:N_TRAIN],
        "eval": counts[N_TRAIN:],
        "eval_rates": rates[N_TRAIN:],
        "eval_inputs": rng.standard_normal((N_EVAL, N_STEPS, 1)),
        "eval_initial_states": rng.standard_normal((N_EVAL, 3)),
        "train_behavior": rates[:N_TRAIN, :, :2],
        "eval_behavior": rates[N_TRAIN:, :, :2],
    }


def model(**changes):
    return Model(**SIZES | changes)


# --- one LFADS of two chopped recordings, whose compiled programs several files of tests share --

STITCHED_SIZES = {
    "encoder": 4, "controller": 3, "generator": 5, "n_factors": 2, "batch_size": 4, "n_batches": 4,
    "report_every": 2, "warm_up": 2, "kl_ramp": 2, "n_samples": 2, "n_metric": 4,
    "coordinated_dropout": 0.2,
}  # fmt: skip
CHOP = {"window": 6, "overlap": 2}
STITCHED = STITCHED_SIZES | {"chop": CHOP, "save": "all", "criterion": "last", "learning_rate": 0.3}
"""At this rate the second of two evaluations is worse than the first."""
N_BINS, UNITS = 23, (7, 5)
"""Of each recording."""
STARTS = [0, 4, 8, 12, 16, 17]
"""First bins of the windows of a recording."""


def write_sessions(folder):
    """Write the recordings of both sessions, with two channels of behaviour and with one; returns the files' names."""
    rng = np.random.default_rng(0)
    for name, units in zip("ab", UNITS, strict=True):
        rates = np.exp(0.5 * rng.standard_normal((2 * N_BINS, units)))
        counts = rng.poisson(rates)
        given = {"train": counts[:N_BINS], "eval": counts[N_BINS:], "eval_rates": rates[N_BINS:]}
        moved = rates[:, : 2 if name == "a" else 1]
        given |= {"train_behavior": moved[:N_BINS], "eval_behavior": moved[N_BINS:]}
        write_hdf5(folder / f"{name}.h5", given)
    return tuple(str(folder / f"{name}.h5") for name in "ab")
