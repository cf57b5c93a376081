"""Write regions_recording.h5: rates of three regions that talk to each other, and the currents between them, for `curbd`.

    python make_regions_recording.py

As in the simulation of Perich et al. 2020, A is chaotic, a sequence of activity drives B, and C is held at one of two fixed
patterns, which changes halfway. Each region has 20 units; every tenth connection between regions exists. Bins are 10 ms apart,
tau is 0.1 s. Datasets: `data` (time, unit), and `weights` (unit, unit_from), which make the true currents, weights[:, source] data[source].
"""

from pathlib import Path

import numpy as np

from ctd.data import write_hdf5

N, BINS, DT, TAU = 20, 600, 0.01, 0.1
GAINS = {"A": 1.8, "B": 1.5, "C": 1.5}
BETWEEN = 0.6  # weight of a connection between regions


def weights(rng: np.random.Generator) -> np.ndarray:
    """(unit, unit) within regions N(0, g^2 / N), between them sparse."""
    total = N * len(GAINS)
    exists = rng.random((total, total)) < 0.1
    found = BETWEEN * exists * rng.choice([-1, 1], (total, total))
    for k, g in enumerate(GAINS.values()):
        own = slice(N * k, N * (k + 1))
        found[own, own] = g / np.sqrt(N) * rng.standard_normal((N, N))
    return found


def drive(rng: np.random.Generator) -> np.ndarray:
    """(time, unit) a bump that moves along the units of B; one of two patterns into C; nothing into A."""
    where = np.linspace(0, N, BINS)[:, None]
    bump = 2 * np.exp(-(((np.arange(N) - where) / 3) ** 2) / 2)
    first, second = rng.standard_normal((2, N))
    pattern = np.where(np.arange(BINS)[:, None] < BINS // 2, first, second)
    return np.concatenate([np.zeros((BINS, N)), bump, pattern], axis=1)


rng = np.random.default_rng(2)
J, inputs = weights(rng), drive(rng)
h, rates = rng.standard_normal(3 * N), np.empty((BINS, 3 * N))
for t in range(BINS):
    rates[t] = np.tanh(h)
    h = h + DT / TAU * (J @ rates[t] + inputs[t] - h)
arrays = {"data": rates.astype(np.float32), "weights": J.astype(np.float32)}
write_hdf5(Path(__file__).parent / "regions_recording.h5", arrays)
