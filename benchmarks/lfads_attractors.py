"""A neural ODE of three dimensions beside GRUs, on chaotic attractors: a section of lfads_field.py.

Sedler, Versteeg & Pandarinath 2023 (arXiv 2212.03771): trials of 70 bins of the Lorenz or Arneodo system, 100 or 35 bins a
period, 10 readouts with weights U(-0.5, 0.5), each standardised; their exp is the mean count of a bin. Rate R2
(`rate_r2_units`): no affine fit, mean over units. State R2 (`state_r2_from_true_mean`): the generator's states by linear
regression on true ones, mean over the generator's. Theirs are 1,280 trials for training (2,000 in all, 320 for validation),
batches of 650, 3,000 epochs, which is 6,000 steps (`--trials 1600 --steps 6000 --batch 650 --seeds 5`); no KL term, so ours is small; L2 over all weights,
ours over the generator's; and the ODE's first 150 epochs see 5 bins, each further 150 epochs 5 more, which ours has not.

`--spikes FOLDER` fits their very spikes: the folder `datasets` of github.com/snel-repo/expressive-latent-dynamics-paper; a
seed is a model's then. Else each seed has spikes of its own, whose trials start anywhere on the attractor; theirs follow
each other on one trajectory.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BINS, UNITS = 70, 10
"""Bins of a trial, neurons."""
OURS = {
    "gru": {"learning_rate": 0.004, "l2_generator": 1e-5},
    "node": {"learning_rate": 0.005, "l2_generator": 1e-5, "generator_cell": "node"},
}


class System(NamedTuple):
    field: Callable[..., tuple[np.ndarray, ...]]
    """dx/dt, dy/dt, dz/dt of x, y, z."""
    bin: float
    """Length of a bin in units of the system's time."""
    start: tuple[float, float, float]
    """In the attractor's basin."""
    spread: float
    """sd of the states that trials come from, around the start."""
    published: dict[str, tuple[float, float]]
    """Rate R2, state R2 of each model: means of five seeds."""
    theirs: str
    """The file of their spikes."""


SYSTEMS = {
    "lorenz": System(
        lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z),
        0.0150081,
        (0, 0, 25),
        8,
        {"node-3": (0.855, 0.906), "gru-10": (0.817, 0.424), "gru-100": (0.988, 0.630)},
        "Lorenz10_2000S_70T_100P_0seed_poisson.h5",
    ),
    "arneodo": System(
        lambda x, y, z: (y, z, 5.5 * x - 4.5 * y - z - x**3),
        3.1641 / 35,
        (-2.75, 0.19, 3.47),
        0.1,
        {"node-3": (0.909, 0.940), "gru-10": (0.925, 0.674), "gru-100": (0.984, 0.663)},
        "Arneodo10_2000S_70T_35P_0seed_poisson.h5",
    ),
}
"""Equations, parameters and periods: Gilpin 2021 (arXiv 2110.05266), of which Sedler's data are made."""
MODELS = [*SYSTEMS["lorenz"].published]


def states_of(system: System, n: int, seed: int) -> np.ndarray:
    """(trial, time, 3) states of a system, from anywhere on its attractor."""
    from ctd.cells import runge_kutta

    def field(h: np.ndarray) -> np.ndarray:
        return np.stack(system.field(*h.T), axis=1)

    def step(h: np.ndarray) -> np.ndarray:
        for _ in range(2):
            h = runge_kutta(field, h, system.bin / 2)
        return h

    h = np.random.default_rng(seed).normal(size=(n, 3)) * system.spread + system.start
    for _ in range(2000):
        h = step(h)
    states = []
    for _ in range(BINS):
        states.append(h := step(h))
    return np.stack(states, axis=1)


def generated(system: System, n: int, seed: int) -> dict[str, np.ndarray]:
    """Spikes of n trials, every fifth for evaluation, with the true rates and states of these."""
    rng = np.random.default_rng(seed)
    states = states_of(system, n, seed)
    activity = states @ rng.uniform(-0.5, 0.5, (3, UNITS))
    rates = np.exp((activity - activity.mean((0, 1))) / activity.std((0, 1)))
    spikes, evaluation = rng.poisson(rates), np.arange(n) % 5 == 4
    truth = {"eval_rates": rates[evaluation], "eval_states": states[evaluation]}
    return {"train": spikes[~evaluation], "eval": spikes[evaluation], **truth}


def published(system: System, folder: str) -> dict[str, np.ndarray]:
    """The same of their spikes: trials for training and for validation."""
    from ctd.data import read_hdf5

    found = read_hdf5(Path(folder) / system.theirs)
    names = {"eval": "valid_data", "eval_rates": "valid_activity", "eval_states": "valid_latents"}
    return {"train": found["train_data"], **{ours: found[name] for ours, name in names.items()}}


def attractors(options: argparse.Namespace) -> None:
    for name in options.systems:
        of = options.spikes or f"{options.trials} trials"
        print(f"{name}: {of}, batches of {options.batch}, {options.steps} steps")
        for model in options.models:
            found = [fit(SYSTEMS[name], model, options, seed) for seed in range(options.seeds)]
            medians, theirs = np.median(found, axis=0), SYSTEMS[name].published[model]
            print(
                f"  {model} median: rate R2 {medians[0]:.3f} (published {theirs[0]:.3f}), state R2 {medians[1]:.3f} "
                f"(published {theirs[1]:.3f})"
            )


def fit(system: System, model: str, options: argparse.Namespace, seed: int) -> list[float]:
    """Rate R2, state R2, and R2 of true states, of a model of spikes of the system; prints them."""
    from ctd.batch import run_items
    from ctd.data import write_hdf5
    from ctd.lfads import Model, kernel

    cell, n = model.split("-")
    with tempfile.TemporaryDirectory() as folder:
        file, start = f"{folder}/spikes.h5", time.process_time()
        theirs = options.spikes and published(system, options.spikes)
        write_hdf5(file, theirs or generated(system, options.trials, seed))
        params = Model(
            data=file, encoder=64, controller=0, generator=int(n), n_factors=int(n),
            batch_size=options.batch, n_batches=options.steps, report_every=max(options.steps // 8, 1),
            kl_ic=1e-4, kl_start=1.0, kl_ramp=0, warm_up=min(20, options.steps // 4), n_samples=8,
            n_saved=0, **OURS[cell],
        )  # fmt: skip
        made: dict[str, Any] = run_items(kernel, params, seed=seed)
    names = ("rate_r2_units", "state_r2_from_true_mean", "state_r2_of_true")
    r2 = [float(made[name][0]) for name in names]
    print(
        f"  {model} seed {seed}: rate R2 {r2[0]:.3f}, state R2 {r2[1]:.3f} (of true states {r2[2]:.3f}; "
        f"{time.process_time() - start:.0f} CPU s)",
        flush=True,
    )
    return r2
