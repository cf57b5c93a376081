"""LFADS on the field's own problems: our figures beside published ones or beside what they must beat.

    python benchmarks/lfads_field.py [--section stitched lorenz] [--sessions 4] [--conditions 40] [--spikings 10] [--steps 600] [--seeds 1]
        [--trials 500] [--batch 128] [--models node-3 gru-10 gru-100]

Sections, each a function:

    stitched    one model of several sessions against the mean of models of one session each
    lorenz      a neural ODE of three dimensions beside GRUs, on the Lorenz system

stitched: the chaotic network of the original generator (tensorflow/models, research/lfads, synth_data): a vanilla
network tau x' = -x + J tanh(x), J ~ N(0, g^2 / n), g 1.5, 50 neurons, tau 25 ms, dt 10 ms, 1 s, no inputs; a
condition is an initial state; rates from 0 to 30 Hz; each condition is spiked several times. A session records some of
the neurons, spiked anew. The original has 400 conditions x 10 (`--conditions 400 --steps 20000`, settings in
`MODEL`: hours on two cores). Rate R2 is the squared correlation over time, mean over trials and units of a session, of
evaluation trials; for the stitched model, mean over sessions.

lorenz: Sedler, Versteeg & Pandarinath 2023 (arXiv 2212.03771): trials of 70 bins of the Lorenz system, 100 bins a period,
10 readouts with weights U(-0.5, 0.5), each standardised; their exp is the mean count of a bin. Rate R2: no affine fit, mean over units. State R2: true
states by linear regression on the generator's, mean over the three. Theirs are 1,280 trials for training (2,000 in all, 320 for validation),
batches of 650, 3,000 epochs, which is 6,000 steps (`--trials 1600 --steps 6000 --batch 650 --seeds 5`); no KL term, so ours is small; L2 over all weights,
ours over the generator's; and the ODE's first 150 epochs see 5 bins, each further 150 epochs 5 more, which ours has not. Their trials follow each other
on one trajectory, ours start anywhere on the attractor.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from options import parse

N, G, TAU, DT, SECONDS, MOST_HZ = 50, 1.5, 0.025, 0.01, 1.0, 30.0
MODEL = {
    "encoder": 32, "controller": 0, "generator": 48, "n_factors": 10, "batch_size": 32,
    "learning_rate": 0.01, "n_samples": 16, "n_saved": 0, "dropout": 0.05,
}  # fmt: skip


def chaotic_rates(n_conditions: int, seed: int) -> np.ndarray:
    """(condition, time, neuron) spikes a bin of the chaotic network."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(N, N)) * G / np.sqrt(N)
    x = rng.normal(size=(n_conditions, N))
    rates = []
    for _ in range(round(SECONDS / DT)):
        x = x + DT / TAU * (-x + np.tanh(x) @ weights.T)
        rates.append((np.tanh(x) + 1) / 2 * MOST_HZ * DT)
    return np.stack(rates, axis=1)


def write_sessions(folder: Path, options: argparse.Namespace, seed: int) -> list[str]:
    """A file for each session: some neurons, all conditions, every fifth spiking for evaluation."""
    from ctd.data import write_hdf5

    rng = np.random.default_rng(seed)
    rates = chaotic_rates(options.conditions, seed)
    condition = np.tile(np.arange(options.conditions), options.spikings)
    evaluation = np.repeat(np.arange(options.spikings) % 5 == 4, options.conditions)
    files = []
    for k in range(options.sessions):
        units = np.sort(rng.choice(N, options.units, replace=False))
        mine = rates[condition][..., units]
        spikes = rng.poisson(mine)
        file = str(folder / f"session{k}.h5")
        arrays = {"train": spikes[~evaluation], "eval": spikes[evaluation], "bin_s": np.array(DT)}
        if not options.random_read_ins:
            arrays["train_condition"] = condition[~evaluation]
        write_hdf5(file, arrays | {"eval_rates": mine[evaluation]})
        files.append(file)
    return files


def rate_r2(data: Any, options: argparse.Namespace, seed: int) -> tuple[float, float]:
    """(rate R2, CPU seconds) of a model of one file, or of a list of them."""
    from ctd.batch import run_items
    from ctd.lfads import Model, kernel

    start = time.process_time()
    every = max(options.steps // 8, 1)
    params = Model(
        data=data,
        n_batches=options.steps,
        report_every=every,
        kl_ramp=options.steps // 4,
        warm_up=min(20, options.steps // 4),
        **MODEL,
    )
    made = run_items(kernel, params, seed=seed)
    return float(made["rate_r2"][0]), time.process_time() - start


def stitched(options: argparse.Namespace) -> None:
    print(
        f"stitched: {options.sessions} sessions of {options.units} of {N} neurons, {options.conditions} conditions x "
        f"{options.spikings}, {options.steps} steps"
    )
    together, alone = [], []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            files = write_sessions(Path(folder), options, seed)
            r2, seconds = rate_r2(files, options, seed)
            together.append(r2)
            print(f"  seed {seed}: stitched rate R2 {r2:.3f} ({seconds:.0f} CPU s)", flush=True)
            single = [rate_r2(file, options, seed) for file in files]
            alone += [r2 for r2, _ in single]
            told = ", ".join(f"{r2:.3f}" for r2, _ in single)
            print(
                f"           single sessions {told} ({sum(s for _, s in single):.0f} CPU s)",
                flush=True,
            )
    print(f"  median stitched {np.median(together):.3f}, mean single session {np.mean(alone):.3f}")


# --- Lorenz ---------------------------------------------------------------------------------------

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

    def field(h: np.ndarray) -> np.ndarray:
        x, y, z = h.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)

    def step(h: np.ndarray) -> np.ndarray:
        dt = BIN / 2
        for _ in range(2):
            a = field(h)
            b = field(h + dt / 2 * a)
            c = field(h + dt / 2 * b)
            h = h + dt / 6 * (a + 2 * b + 2 * c + field(h + dt * c))
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


SECTIONS = {"stitched": stitched, "lorenz": lorenz}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default, text in (
        ("sessions", 4, "sessions"),
        ("units", 15, "neurons that a session records"),
        ("conditions", 40, "initial states of the network"),
        ("spikings", 10, "trials of a condition in each session"),
        ("steps", 600, "training steps of each model"),
        ("seeds", 1, "networks; of lorenz, data and models"),
        ("trials", 500, "lorenz: trials, a fifth of them for evaluation"),
        ("batch", 128, "lorenz: trials of a minibatch"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    text = "leave the conditions out, by which read-ins are aligned"
    parser.add_argument("--random-read-ins", action="store_true", help=text)
    parser.add_argument("--section", nargs="*", default=[*SECTIONS], choices=SECTIONS)
    parser.add_argument("--models", nargs="*", default=[*PUBLISHED], choices=PUBLISHED)
    small = {"sessions": 2, "units": 6, "conditions": 6, "spikings": 5, "steps": 8}
    options = parse(parser, **small, trials=20, batch=4, models=["node-3"])
    for section in options.section:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
