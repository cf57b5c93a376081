"""A neural ODE of three dimensions beside GRUs, on the Lorenz system: a section of lfads_field.py.

Sedler, Versteeg & Pandarinath 2023 (arXiv 2212.03771): trials of 70 bins of the Lorenz system, 100 bins a period,
10 readouts with weights U(-0.5, 0.5), each standardised; their exp is the mean count of a bin. Rate R2: no affine fit, mean over units. State R2: true
states by linear regression on the generator's, mean over the three. Theirs are 1,280 trials for training (2,000 in all, 320 for validation),
batches of 650, 3,000 epochs, which is 6,000 steps (`--trials 1600 --steps 6000 --batch 650 --seeds 5`); no KL term, so ours is small; L2 over all weights,
ours over the generator's; and the ODE's first 150 epochs see 5 bins, each further 150 epochs 5 more, which ours has not. Their trials follow each other
on one trajectory, ours start anywhere on the attractor.
"""

import argparse
import tempfile
import time

import numpy as np

BIN, BINS, UNITS = 0.0150081, 70, 10
"""Length of a bin in units of the Lorenz system's time: a hundredth of its period. Bins of a trial, neurons."""
PUBLISHED = {
    "node-3": (0.855, 0.906), "gru-10": (0.817, 0.424), "gru-100": (0.988, 0.630),
}  # fmt: skip
"""Rate R2, state R2: means of five seeds."""
OURS = {
    "gru": {"learning_rate": 0.004, "l2_generator": 1e-5},
    "node": {"learning_rate": 0.005, "l2_generator": 1e-5, "generator_cell": "node"},
}


def lorenz_states(n: int, seed: int) -> np.ndarray:
    """(trial, time, 3) states of the Lorenz system, from anywhere on its attractor."""
    from ctd.cells import runge_kutta

    def field(h: np.ndarray) -> np.ndarray:
        x, y, z = h.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)

    def step(h: np.ndarray) -> np.ndarray:
        for _ in range(2):
            h = runge_kutta(field, h, BIN / 2)
        return h

    h = np.random.default_rng(seed).normal(size=(n, 3)) * 8 + [0, 0, 25]
    for _ in range(2000):
        h = step(h)
    states = []
    for _ in range(BINS):
        states.append(h := step(h))
    return np.stack(states, axis=1)


def write_lorenz(file: str, n: int, seed: int) -> np.ndarray:
    """Write spikes of n trials, every fifth for evaluation; returns the true states of these."""
    from ctd.data import write_hdf5

    rng = np.random.default_rng(seed)
    states = lorenz_states(n, seed)
    activity = states @ rng.uniform(-0.5, 0.5, (3, UNITS))
    rates = np.exp((activity - activity.mean((0, 1))) / activity.std((0, 1)))
    spikes, evaluation = rng.poisson(rates), np.arange(n) % 5 == 4
    arrays = {"train": spikes[~evaluation], "eval": spikes[evaluation]}
    write_hdf5(file, arrays | {"eval_rates": rates[evaluation]})
    return states[evaluation]


def state_r2(true: np.ndarray, inferred: np.ndarray) -> float:
    """R2 of true states by linear regression on inferred ones, fitted to these trials, mean over dimensions."""
    y = true.reshape(-1, true.shape[-1])
    x = inferred.reshape(len(y), -1)
    x = np.concatenate([x, np.ones((len(y), 1))], axis=1)
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(np.mean(1 - (left**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)))


def lorenz(options: argparse.Namespace) -> None:
    from ctd.batch import run_items
    from ctd.lfads import Model, kernel

    print(f"lorenz: {options.trials} trials, batches of {options.batch}, {options.steps} steps")
    for name in options.models:
        cell, n = name.split("-")
        found = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                file, start = f"{folder}/lorenz.h5", time.process_time()
                true = write_lorenz(file, options.trials, seed)
                params = Model(
                    data=file, encoder=64, controller=0, generator=int(n), n_factors=int(n),
                    batch_size=options.batch, n_batches=options.steps, report_every=max(options.steps // 8, 1),
                    kl_ic=1e-4, kl_start=1.0, kl_ramp=0, warm_up=min(20, options.steps // 4), n_samples=8,
                    save="eval", **OURS[cell],
                )  # fmt: skip
                made = run_items(kernel, params, seed=seed)
            r2 = float(made["rate_r2_units"][0]), state_r2(true, made["states"][0])
            seconds = time.process_time() - start
            found.append(r2)
            print(
                f"  {name} seed {seed}: rate R2 {r2[0]:.3f}, state R2 {r2[1]:.3f} ({seconds:.0f} CPU s)",
                flush=True,
            )
        medians, published = np.median(found, axis=0), PUBLISHED.get(name, (np.nan, np.nan))
        print(
            f"  {name} median: rate R2 {medians[0]:.3f} (published {published[0]:.3f}), state R2 {medians[1]:.3f} "
            f"(published {published[1]:.3f})"
        )
