"""Networks of low rank that learn four tasks, and networks fitted to their rates: LINT (Valente, Pillow & Ostojic 2022).

    python benchmarks/lint.py [--tasks rdm romo mante dms] [--units 128] [--batches 2000] [--fit 2000]

A leaky network of rank r, of tanh units with noise, is trained on a task. Then a second one, of the same rank, with other
random weights and without noise, is fitted to the rates of the first in 800 trials (`readout: identity`). The table has

    accuracy    of the first network in 1,000 new trials
    R2          of the rates of the second network in 200 trials that it was not fitted to: 1 - squared error over
                squared distance from the mean of all rates, as the authors have it (scikit-learn's r2_score). The rates of
                the first network have its noise, which nothing can explain
    effective   cosine between the effective connectivities m n' of both networks: n projected on what the states can
                span, which are the columns of m, the input weights, and the bias, which the authors' networks lack
    as it is    the same of m n' as it is

beside the authors' figures. Their code (adrian-valente/lowrank_inference) has the effective connectivity; of dms it
projects the first column of n twice, so that .628 compares other matrices than ours.

What is cut so that it fits two cores: 128 units of 512, delays of up to 600 ms, fewer steps of a rate that falls to 0
(cosine), where the authors take 1,250 to 25,000 of a constant one. Input weights and readouts are trained, which theirs are
not, or only their scale. The published sizes, for a GPU, are

    python benchmarks/lint.py --full --units 512 --batches 5000 --fit 12500
"""

import argparse
import platform
import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from options import parse
from tasks import task_of

from ctd.batch import run_items
from ctd.cells import get_cell, run
from ctd.data import write_hdf5
from ctd.tasks import Task, Trial, batch, get_task
from ctd.tasks.recorded import EVAL_EVERY
from ctd.train_rnn import Network, kernel
from ctd.train_rnn.noise import Noise, noisy, seeded


class Setting(NamedTuple):
    """How a task is learned, and what the authors report."""

    rank: int
    noise: float
    """sd of the noise on states, each step."""
    r2: float
    effective: float
    as_it_is: float | None


SETTINGS = {
    "rdm": Setting(1, 0.05, 0.984, 0.988, 0.506),
    "romo": Setting(2, 0.005, 0.958, 0.929, None),
    "mante": Setting(1, 0.05, 0.925, 0.991, 0.572),
    "dms": Setting(2, 0.05, 0.984, 0.628, 0.392),
}
N_TRIALS = 1000


def network(task: Task | str, setting: Setting, options: argparse.Namespace, **more) -> Network:
    """What both networks share: m, n and input weights start as N(0, 1), states at 0."""
    return Network(
        cell="leaky",
        task=task,
        n=options.units,
        rank=setting.rank,
        alpha=0.2,
        initial_state="zero",
        batch_size=32,
        report_every=50,
        learning_rate=options.rate,
        schedule="cosine",
        l2=0,
        clip_norm=1,
        adam_eps=1e-8,
        n_eval=N_TRIALS // EVAL_EVERY,
        **more,
    )


def item(params: Network) -> dict[str, np.ndarray]:
    return {name: value[0] for name, value in run_items(kernel, params).items()}


def trained(task: Task, setting: Setting, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """The best of a few networks that learned the task."""
    noise = {"noise": True, "state_noise": setting.noise, "eval_state_noise": setting.noise}
    scale = task.n_in**0.5
    params = network(
        task, setting, options, n_batches=options.batches, input_scale=scale, overlap=1, **noise
    )
    found = run_items(kernel, params, {"seed": np.arange(options.seeds)})
    best = int(np.argmin(found["eval_loss"]))
    return {name: value[best] for name, value in found.items()}


def rates(found: dict[str, np.ndarray], setting: Setting, trials: Trial) -> tuple[np.ndarray, ...]:
    """(rates, outputs) of a trained network in these trials, with its noise."""
    weights = {k.removeprefix("weights."): v for k, v in found.items() if k.startswith("weights.")}
    cell = noisy(get_cell("leaky"), Noise(setting.noise, 0.0), trials.inputs.shape[-1])
    inputs = seeded(trials, jax.random.key(2)).inputs
    states, outputs = jax.jit(jax.vmap(lambda x: run(cell, weights, x)))(inputs)
    return np.tanh(states), outputs


def connectivities(found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(effective, as it is), (N, N) each."""
    m, n = found["low_rank.m"].astype(float), found["low_rank.n"].astype(float)
    spanned = np.column_stack([m, found["weights.wI"], found["weights.bR"]])
    axes, size, _ = np.linalg.svd(spanned, full_matrices=False)
    axes = axes[:, size > 1e-6 * size[0]]
    return m @ (axes @ (axes.T @ n)).T, m @ n.T


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def row(name: str, options: argparse.Namespace) -> str:
    """The line of the table for one task."""
    start, setting = time.perf_counter(), SETTINGS[name]
    task = get_task(task_of(name, options.full))
    first = trained(task, setting, options)
    trials = batch(task, jax.random.key(1), N_TRIALS)
    targets, outputs = rates(first, setting, trials)
    accuracy = float(jnp.mean(jax.vmap(task.success)(trials, outputs)))
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        write_hdf5(file.name, {"inputs": trials.inputs, "targets": targets})
        second = item(
            network(
                "file",
                setting,
                options,
                trials=file.name,
                readout="identity",
                n_batches=options.fit,
                input_scale=task.n_in**0.5,
                n_saved=N_TRIALS // EVAL_EVERY,
                seed=1000,
            )
        )
    kept = targets[EVAL_EVERY - 1 :: EVAL_EVERY]
    r2 = 1 - np.sum((second["outputs"] - kept) ** 2) / np.sum((kept - kept.mean()) ** 2)
    pairs = zip(connectivities(first), connectivities(second), strict=True)
    effective, as_it_is = (cosine(a, b) for a, b in pairs)
    told = "" if setting.as_it_is is None else f" ({setting.as_it_is:.3f})"
    return (
        f"| {name} | {setting.rank} | {accuracy:.3f} (1) | {r2:.3f} ({setting.r2:.3f}) | "
        f"{effective:.3f} ({setting.effective:.3f}) | {as_it_is:.3f}{told} | "
        f"{time.perf_counter() - start:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--full", action="store_true", help="the published durations")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--batches", type=int, default=2000, help="steps of training")
    parser.add_argument("--fit", type=int, default=2000, help="steps of the fit")
    parser.add_argument(
        "--seeds", type=int, default=1, help="networks trained, of which the best counts"
    )
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    options = parse(parser, tasks=["rdm"], units=4, batches=2, fit=2)
    print(f"{platform.platform()}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(
        f"{options.units} units, {options.batches} steps of 32 trials, {options.fit} of the fit; "
        "the authors' figures in brackets\n"
    )
    print("| task | rank | accuracy | R2 | effective | as it is | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in options.tasks:
        print(row(name, options), flush=True)


if __name__ == "__main__":
    main()
