"""LFADS on the field's own problems: our figures beside published ones or beside what they must beat.

    python benchmarks/lfads_field.py [--section stitched preset attractors] [--sessions 4] [--conditions 40] [--spikings 10] [--steps 600] [--seeds 1]
        [--trials 500] [--batch 128] [--systems lorenz] [--models node-3 gru-10 gru-100] [--spikes FOLDER] [--members 20] [--search-steps 480]

Sections, each a function:

    stitched    one model of several sessions against the mean of models of one session each
    preset      `search: {preset: autolfads}` against random draws at equal cost
    attractors  a neural ODE of three dimensions beside GRUs, on the Lorenz and Arneodo systems: lfads_attractors.py

stitched: the chaotic network of the original generator (tensorflow/models, research/lfads, synth_data): a vanilla
network tau x' = -x + J tanh(x), J ~ N(0, g^2 / n), g 1.5, 50 neurons, tau 25 ms, dt 10 ms, 1 s, no inputs; a
condition is an initial state; rates from 0 to 30 Hz; each condition is spiked several times. A session records some of
the neurons, spiked anew. The original has 400 conditions x 10 (`--conditions 400 --steps 20000`, settings in
`MODEL`: hours on two cores). Rate R2 is the squared correlation over time, mean over trials and units of a session, of
evaluation trials; for the stitched model, mean over sessions.

preset: the first of these sessions; a population of `--members` against as many random draws from the preset's ranges, all with as
many steps (`--search-steps`, published: at most 20,000; ramps and burn-in are shorter in proportion,
generations fewer: 15). An evaluation is the negative
log likelihood of the evaluation trials, one posterior draw each, at the best weights.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lfads_attractors import MODELS, SYSTEMS, attractors
from options import parse

N, G, TAU, DT, SECONDS, MOST_HZ = 50, 1.5, 0.025, 0.01, 1.0, 30.0
SIZES = {
    "encoder": 32, "controller": 0, "generator": 48, "n_factors": 10, "batch_size": 32,
    "n_samples": 16, "n_saved": 0,
}  # fmt: skip
MODEL = SIZES | {"learning_rate": 0.01, "dropout": 0.05}


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


# --- the preset -----------------------------------------------------------------------------------


def preset(options: argparse.Namespace) -> None:
    """Best evaluations: of the preset's population, and of as many draws from its ranges that all train to their end."""
    print(
        f"preset: {options.units} of {N} neurons, {options.conditions} conditions x {options.spikings}, "
        f"{options.members} members or draws, {options.search_steps} steps each"
    )
    better = 0
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            data = write_sessions(Path(folder), options, seed)[0]
            population = searched(folder, data, options, seed)
            drawn = draws(folder, data, options, seed)
        better += population["eval_nll"] <= drawn["eval_nll"]
        for name, best in (("preset", population), ("random", drawn)):
            print(
                f"  seed {seed} {name}: best evaluation {best['eval_nll']:.2f} nats a trial, rate R2 "
                f"{best['rate_r2']:.3f}, {best['steps']:.0f} steps ({best['seconds']:.0f} CPU s)",
                flush=True,
            )
    print(f"  the preset was not worse in {better} of {options.seeds}")


def lengths(options: argparse.Namespace) -> dict[str, int]:
    """How long training is and its ramps are: shares of it, as in the preset."""
    every = max(options.search_steps // 48, 1)
    ramp = options.search_steps // 12
    return {
        "n_batches": options.search_steps,
        "report_every": every,
        "kl_ramp": ramp,
        "l2_ramp": ramp,
    }


UNUSED = ("kl_input", "l2_controller")
"""What the preset searches of the controller, which is left out here."""


def searched(folder: str, data: str, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """The best member of the preset's population, which does not end early: the draws cost as much."""
    params = SIZES | lengths(options) | {"data": data}
    search = {
        "preset": "autolfads", "burn_in": 6, "every": 3, "generations": 15, "patience": None,
        "params": dict.fromkeys(UNUSED),
    }  # fmt: skip
    sweep = {"seeds": options.members}
    return best_of(f"{folder}/preset.zarr", params=params, sweep=sweep, search=search, seed=seed)


def draws(folder: str, data: str, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """The best of random draws from the preset's ranges, all else as it has it."""
    from ctd.lfads.presets import AUTOLFADS

    params = {**AUTOLFADS.params, **SIZES, **lengths(options), "data": data}
    ranges = {
        name: {law: ends for law, ends in moved.items() if law in ("uniform", "loguniform")}
        for name, moved in AUTOLFADS.search["params"].items()
        if name not in UNUSED
    }
    sweep = {"random": ranges, "samples": options.members}
    return best_of(f"{folder}/random.zarr", params=params, sweep=sweep, seed=seed)


def best_of(store: str, **fields: Any) -> dict[str, float]:
    """Scores of the item with the best evaluation, the steps of all items, and CPU seconds."""
    from cluster import Job

    start = time.process_time()
    made = Job("lfads", **fields).run(store, executor="serial")
    items = made.query(columns="eval_nll,rate_r2,batches", sort="eval_nll")
    best = items.iloc[0]
    return {
        "eval_nll": float(best.eval_nll),
        "rate_r2": float(best.rate_r2),
        "steps": float(items.batches.sum()),
        "seconds": time.process_time() - start,
    }


SECTIONS = {"stitched": stitched, "preset": preset, "attractors": attractors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default, text in (
        ("sessions", 4, "sessions"),
        ("units", 15, "neurons that a session records"),
        ("conditions", 40, "initial states of the network"),
        ("spikings", 10, "trials of a condition in each session"),
        ("steps", 600, "training steps of each model"),
        ("seeds", 1, "networks; of attractors, data and models"),
        ("trials", 500, "attractors: trials, a fifth of them for evaluation"),
        ("batch", 128, "attractors: trials of a minibatch"),
        ("members", 20, "preset: members of the population, and random draws"),
        ("search-steps", 480, "preset: training steps of each"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    text = (
        "attractors: the folder `datasets` of github.com/snel-repo/expressive-latent-dynamics-paper"
    )
    parser.add_argument("--spikes", help=text)
    text = "leave the conditions out, by which read-ins are aligned"
    parser.add_argument("--random-read-ins", action="store_true", help=text)
    parser.add_argument("--section", nargs="*", default=[*SECTIONS], choices=SECTIONS)
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--systems", nargs="*", default=["lorenz"], choices=SYSTEMS)
    small = {"sessions": 2, "units": 6, "conditions": 6, "spikings": 5, "steps": 8}
    small |= {"trials": 20, "batch": 4, "members": 3, "search_steps": 12}
    options = parse(parser, **small, models=["node-3"])
    for section in options.section:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
