"""Distances of dsa-metric 2.0.2, by its authors (Ostrow et al. 2023), of three small networks: dsa_metric.h5.

    uv run --script tests/data/make_dsa_metric.py

It needs PyTorch, which the tests do not install. Its optimiser is Adam over Cayley maps in float32, from one start, so
the smallest angle of several seeds is kept.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["dsa-metric==2.0.2", "h5py"]
# ///

from pathlib import Path

import h5py
import numpy as np
import torch
from DSA.dmd import DMD
from DSA.simdist import SimilarityTransformDist

N_DELAYS, INTERVAL, RANK, SEEDS = 3, 2, 5, 6


def walk(units: int, seed: int) -> np.ndarray:
    """(trial, time, unit) states of a nonlinear network that noise drives."""
    rng = np.random.default_rng(seed)
    mix, h = rng.normal(size=(units, units)) / np.sqrt(units), np.zeros((6, units))
    steps = []
    for _ in range(40):
        h = np.tanh(1.2 * h @ mix + 0.3 * rng.normal(size=h.shape))
        steps.append(h)
    return np.stack(steps, axis=1).astype(np.float32)


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest angle that is found."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        search = SimilarityTransformDist(iters=3000, lr=5e-3, score_method="angular")
        found.append(float(search.fit_score(a.clone(), b.clone())))
    return min(found)


def main() -> None:
    states = [walk(units, seed) for seed, units in enumerate((6, 6, 8))]
    dynamics = []
    for x in states:
        fit = DMD(x, n_delays=N_DELAYS, delay_interval=INTERVAL, rank=RANK)
        fit.fit()
        dynamics.append(fit.A_v)
    distances = np.zeros((3, 3))
    for i in range(3):
        for j in range(i):
            distances[i, j] = distances[j, i] = angle(dynamics[i], dynamics[j])
    with h5py.File(Path(__file__).parent / "dsa_metric.h5", "w") as file:
        file.attrs.update({"n_delays": N_DELAYS, "delay_interval": INTERVAL, "rank": RANK})
        file["distances"] = distances
        for k, x in enumerate(states):
            file.create_dataset(f"states{k}", data=x, compression="gzip", track_times=False)
    print(distances)


if __name__ == "__main__":
    main()
