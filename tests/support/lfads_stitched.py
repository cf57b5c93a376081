"""One LFADS of two chopped recordings, which several files of tests train: they share its compiled programs."""

import numpy as np

from ctd.batch import Layout
from ctd.data import write_hdf5

SIZES = {
    "encoder": 4, "controller": 3, "generator": 5, "n_factors": 2, "batch_size": 4, "n_batches": 4,
    "report_every": 2, "warm_up": 2, "kl_ramp": 2, "n_samples": 2, "n_metric": 4,
    "coordinated_dropout": 0.2,
}  # fmt: skip
CHOP = {"window": 6, "overlap": 2}
PARAMS = SIZES | {"chop": CHOP, "save": "all", "criterion": "last", "learning_rate": 0.3}
"""At this rate the second of two evaluations is worse than the first."""
LAYOUT = Layout(1, 1)
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
