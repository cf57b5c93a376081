"""Networks of low rank that learn four tasks, and networks fitted to their rates: LINT (Valente, Pillow & Ostojic 2022).

    python benchmarks/lint.py [--tasks rdm romo mante dms] [--units 512] [--batches 1500] [--fit 6000]

A leaky network of rank r, of tanh units with noise, is trained on a task. Then a second one, of the same rank, with other
random weights and without noise, is fitted to the rates of the first in 800 trials (`readout: identity`). The table has

    accuracy    of the first network in 1,000 new trials
    R2          of the rates of the second network in 200 trials that it was not fitted to: 1 - squared error over
                squared distance from the mean of all rates, as the authors have it (scikit-learn's r2_score). The rates of
                the first network have its noise, which nothing can explain
    no noise    the same, of the rates that the first network has in these trials without its noise
    effective   cosine between the effective connectivities m n' of both networks: n projected on the columns of m and
                the input weights, which span what states can be
    as it is    the same of m n' as it is

beside the authors' figures. Their code (adrian-valente/lowrank_inference) has the effective connectivity; of dms it
projects the first column of n twice, so that .628 compares other matrices than ours.

What is cut so that it fits two cores: steps, and delays of up to 600 ms. What differs besides: the learning rate
falls to 0 (cosine) and is 0.03 in fits, where theirs is constant and 0.01 or 0.001; after 2,000 steps at 0.01 connectivities
do not agree yet (.25 in place of .99 for mante, 128 units). Readouts, input weights and biases are trained in both networks; theirs are not all,
and there is no bias. The first networks of romo and dms start with n = m + N(0, 1), theirs from trained ones of full rank. The
published sizes, for a GPU, are

    python benchmarks/lint.py --full --batches 5000 --fit 12500
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
from ctd.tasks.noise import noisy, seeded
from ctd.tasks.recorded import EVAL_EVERY
from ctd.train_rnn import Network, kernel


class Setting(NamedTuple):
    """How a task is learned, and what the authors report."""

    rank: int
    overlap: float
    """Of m and n at the start of training: what a network without it keeps no memory by."""
    noise: float
    """sd of the noise on states, each step."""
    r2: float
    effective: float
    as_it_is: float | None


SETTINGS = {
    "rdm": Setting(1, 0, 0.05, 0.984, 0.988, 0.506),
    "romo": Setting(2, 1, 0.005, 0.958, 0.929, None),
    "mante": Setting(1, 0, 0.05, 0.925, 0.991, 0.572),
    "dms": Setting(2, 1, 0.05, 0.984, 0.628, 0.392),
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
    """The first network."""
    noise = {"noise": True, "state_noise": setting.noise, "eval_state_noise": setting.noise}
    start = {"input_scale": task.n_in**0.5, "overlap": setting.overlap}
    steps = {"n_batches": options.batches, "learning_rate": options.rate}
    return item(network(task, setting, options, **noise, **start, **steps))


def fitted(
    trials: Trial, targets: np.ndarray, setting: Setting, options: argparse.Namespace
) -> dict[str, np.ndarray]:
    """The second network."""
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        write_hdf5(file.name, {"inputs": trials.inputs, "targets": targets})
        start = {"input_scale": trials.inputs.shape[-1] ** 0.5, "seed": 1000}
        steps = {"n_batches": options.fit, "learning_rate": options.fit_rate}
        given = {"trials": file.name, "readout": "identity", "n_saved": N_TRIALS // EVAL_EVERY}
        return item(network("file", setting, options, **given, **start, **steps))


def rates(found: dict[str, np.ndarray], noise: float, trials: Trial) -> tuple[np.ndarray, ...]:
    """(rates, outputs) of a trained network in these trials, with so much noise on its states."""
    weights = {k.removeprefix("weights."): v for k, v in found.items() if k.startswith("weights.")}
    cell = noisy(get_cell("leaky"), noise, trials.inputs.shape[-1])
    inputs = seeded(trials, jax.random.key(2), 0.0).inputs
    states, outputs = jax.jit(jax.vmap(lambda x: run(cell, weights, x)))(inputs)
    return np.tanh(states), outputs


def r2(targets: np.ndarray, found: np.ndarray) -> float:
    return float(1 - np.sum((found - targets) ** 2) / np.sum((targets - targets.mean()) ** 2))


def connectivities(found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(effective, as it is), (N, N) each."""
    m, n = found["low_rank.m"].astype(float), found["low_rank.n"].astype(float)
    axes, _ = np.linalg.qr(np.column_stack([m, found["weights.wI"]]))
    return m @ (axes @ (axes.T @ n)).T, m @ n.T


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def row(name: str, options: argparse.Namespace) -> str:
    """The line of the table for one task."""
    start, setting = time.perf_counter(), SETTINGS[name]
    task = get_task(task_of(name, options.full))
    first = trained(task, setting, options)
    trials = batch(task, jax.random.key(1), N_TRIALS)
    targets, outputs = rates(first, setting.noise, trials)
    quiet, _ = rates(first, 0.0, trials)
    accuracy = float(jnp.mean(jax.vmap(task.success)(trials, outputs)))
    second = fitted(trials, targets, setting, options)
    kept = slice(EVAL_EVERY - 1, None, EVAL_EVERY)
    of_rates, of_quiet = (r2(some[kept], second["outputs"]) for some in (targets, quiet))
    pairs = zip(connectivities(first), connectivities(second), strict=True)
    effective, as_it_is = (cosine(a, b) for a, b in pairs)
    told = "" if setting.as_it_is is None else f" ({setting.as_it_is:.3f})"
    return (
        f"| {name} | {setting.rank} | {accuracy:.3f} (1) | {of_rates:.3f} ({setting.r2:.3f}) | "
        f"{of_quiet:.3f} | {effective:.3f} ({setting.effective:.3f}) | {as_it_is:.3f}{told} | "
        f"{time.perf_counter() - start:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--full", action="store_true", help="the published durations")
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--batches", type=int, default=1500, help="steps of training")
    parser.add_argument("--fit", type=int, default=6000, help="steps of the fit")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of training")
    parser.add_argument("--fit-rate", type=float, default=3e-2, help="of the fit")
    options = parse(parser, tasks=["rdm"], units=4, batches=2, fit=2)
    print(f"{platform.platform()}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(
        f"{options.units} units, {options.batches} steps of 32 trials, {options.fit} of the fit; "
        "the authors' figures in brackets\n"
    )
    print("| task | rank | accuracy | R2 | no noise | effective | as it is | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.tasks:
        print(row(name, options), flush=True)


if __name__ == "__main__":
    main()
