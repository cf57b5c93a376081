"""One LFADS with its trials, which several files of tests train: they share its compiled programs."""

import numpy as np

from ctd.batch import Layout
from ctd.lfads import Model

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
