"""What each search finds for the same work, and how many trials a CPU second it makes beside plain Optuna.

    python benchmarks/search_methods.py [--section equal|plain] [--jobs esn decision lfads] [--fits 64] [--seeds 10]
        [--trials 256] [--repeats 3]

equal   Every search makes as many advances as `--fits` random draws that are all trained to their end. Shown is the best
        metric that it has seen by then, median over seeds; in how many seeds it is better than that of the random
        draws of the same seed; and the CPU seconds of the whole run, store included. The metric is the one that the search
        compares: of data that no fit was trained on, but the fits were chosen by it. Of `esn` also the test range's, which
        nothing was chosen by, for the network that was chosen.

        esn        ridge readout on Mackey-Glass 17, in the closed loop: spectral radius, leak, scale of the input (its own
                   output, fed back), ridge. A fit is one advance, so that nothing can be stopped on the way. Each
                   item draws its own reservoir.
        decision   train_rnn on the task `decision`: learning rate, l2, gains of the recurrent and the input weights
        lfads      examples/lfads_spikes.h5: scale of the KL, l2, dropout, learning rate

        random            a sweep of random draws
        halving, asha     rungs at 1, 3 and 9 of 9 advances, eta 3; more items, so that the advances come to the same
        tpe, cmaes        proposed by Optuna, 8 together
        tpe, prune        the same, with the rungs of asha

plain   The search of `esn` beside `optuna.Study.optimize` in one process, which calls the kernel for one trial
        after another by `ctd.batch.run_items`; with the series read once, or read by each call (an eighth of the trials, times 8). All share one compiled
        program each, compiled before the clock starts. `kernel`: all trials in one call of `run_items`, without a search.
        Every repeat runs all, in turns; CPU seconds, medians.

Searches run in this process (the serial executor), stores lie in a temporary folder.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from options import parse

from ctd import esn
from ctd.batch import Layout, precision, run_items
from ctd.kernel import inputs_of, static_of
from jobs import open_store
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.rounds import read_decisions
from jobs.store.store import Store

ROOT = Path(__file__).resolve().parent.parent
TOGETHER, RUNGS = 8, {"min_advances": 1, "eta": 3}
ADVANCES = 9
"""Of a fit of `decision` and `lfads`."""
ITEMS = {"halving": 1.0, "asha": 0.9, "tpe, prune": 0.8}
"""Items of a search, as a share of those that halving has for the same advances. The others keep some more on the way: fewer
items come to the budget, and a little over it."""


class Job(NamedTuple):
    kernel: str
    params: dict[str, Any]
    ranges: dict[str, Any]
    metric: str
    advances: int
    held_out: str | None = None


def log(low: float, high: float) -> dict[str, list[float]]:
    return {"loguniform": [low, high]}


def uniform(low: float, high: float) -> dict[str, list[float]]:
    return {"uniform": [low, high]}


SERIES = {
    "target": "mackey-glass-17", "dt": 1, "m": 1, "readout": "ridge", "dynamics": "discrete",
    "scale": "spectral_radius", "intercept": True, "washout": 100,
}  # fmt: skip
ESN = {
    "g": uniform(0.1, 1.6), "leak": uniform(0.1, 1), "feedback_scale": log(0.05, 5), "ridge": log(1e-9, 1e-1),
}  # fmt: skip
JOBS = {
    "esn": Job(
        "esn",
        SERIES | {"n": 100, "train": 1000, "validation": 400, "test": 400, "starts": 4, "horizon": 84},
        ESN, "validation_nrmse", 1, "replay_nrmse",
    ),
    "decision": Job(
        "train_rnn",
        {"task": "decision", "cell": "vanilla", "n": 16, "batch_size": 16, "n_batches": 360, "report_every": 40, "n_eval": 256},
        {"learning_rate": log(1e-4, 1e-1), "l2": log(1e-7, 1e-2), "recurrent_scale": uniform(0.1, 2), "input_scale": log(0.1, 10)},
        "eval_loss", ADVANCES,
    ),
    "lfads": Job(
        "lfads",
        {
            "data": str(ROOT / "examples" / "lfads_spikes.h5"), "encoder": 8, "controller": 0, "generator": 12, "n_factors": 4,
            "batch_size": 16, "n_batches": 180, "report_every": 20, "kl_ramp": 60, "warm_up": 10, "n_samples": 2, "n_metric": 20, "n_saved": 0,
        },
        {"kl_ic": log(1e-2, 10), "l2_generator": log(1e-7, 1e-1), "dropout": uniform(0, 0.6), "learning_rate": log(1e-4, 1e-1)},
        "eval_nll", ADVANCES,
    ),
}  # fmt: skip


def methods(job: Job, fits: int) -> dict[str, dict[str, Any]]:
    """Method -> its part of the job file, for as many advances as `fits` whole fits make."""
    proposed = {
        "method": "optuna", "together": min(TOGETHER, fits), "metric": job.metric, "params": job.ranges, "trials": fits
    }  # fmt: skip
    found = {
        "random": {"sweep": {"random": job.ranges, "samples": fits}},
        "tpe": {"search": proposed | {"sampler": "tpe"}},
        "cmaes": {"search": proposed | {"sampler": "cmaes"}},
    }
    if job.advances == 1:
        return found
    # Of n items all make 1 advance, a third 2 more, a ninth 6 more: n (1 + 2/3 + 6/9) in all.
    n = {name: round(share * fits * job.advances * 3 / 7) for name, share in ITEMS.items()}
    for name in ("halving", "asha"):
        search = {"method": name, "metric": job.metric, **RUNGS}
        found[name] = {"sweep": {"random": job.ranges, "samples": n[name]}, "search": search}
    pruned = {"sampler": "tpe", "trials": n["tpe, prune"], "prune": RUNGS}
    found["tpe, prune"] = {"search": proposed | pruned}
    return found


def run(content: dict[str, Any], folder: str, seed: int) -> tuple[Store, float]:
    """(the store of a job that has run, CPU seconds of making and running it)."""
    address = str(Path(folder) / "search.zarr")
    start = time.process_time()
    spec = parse_job(content | {"seed": seed}, "search")
    store = open_or_create(spec, str(ROOT), "search", address, SerialExecutor(1))
    progress = run_shards(store, SerialExecutor(1))
    seconds = time.process_time() - start
    assert not progress.failed
    return store, seconds


class Found(NamedTuple):
    best: float
    held_out: float
    advances: int
    """Of the whole run."""
    items: int
    """Begun until the budget was spent."""
    seconds: float


def find(job: Job, part: dict[str, Any], budget: int, seed: int) -> Found:
    """The best of one search, from the reports of its first `budget` advances, in the order in which they came."""
    size = {"microbatch": 1, "slots": TOGETHER, "shard_items": TOGETHER}
    content = {"kernel": job.kernel, "params": job.params, "run": size, **part}
    with tempfile.TemporaryDirectory() as folder:
        store, seconds = run(content, folder, seed)
        tree = open_store(store.address)["results/0"]
        if "search" in part:
            told = [told for d in read_decisions(store, 0) for _, told, _ in d.told]
            spent = np.cumsum([t.advances.sum() for t in told])
            total = int(spent[-1])
            told = [t for t, s in zip(told, spent, strict=True) if s <= budget]
            rows = np.concatenate([t.rows for t in told])
            metric = np.concatenate([np.where(t.broken, np.nan, t.metric) for t in told])
        else:
            rows, total = np.arange(part["sweep"]["samples"]), budget
            metric = np.where(tree["status"].values == 1, tree[job.metric].values, np.nan)
        best = int(np.nanargmin(metric))
        held_out = float(tree[job.held_out][rows[best]]) if job.held_out else np.nan
    return Found(float(metric[best]), held_out, total, len(np.unique(rows)), seconds)


def show_equal(name: str, fits: int, seeds: int) -> None:
    job, budget = JOBS[name], fits * JOBS[name].advances
    every = methods(job, fits)
    for part in methods(job, max(TOGETHER, fits // 8)).values():
        find(job, part, budget, seeds)  # compiles
    found = {m: [find(job, part, budget, seed) for seed in range(seeds)] for m, part in every.items()}  # fmt: skip
    print(f"\n{name}: {fits} fits of {job.advances} advances, {seeds} seeds, {job.metric} (less is better)\n")  # fmt: skip
    held = f" {job.held_out} of the chosen, median |" if job.held_out else ""
    print(f"| method | median (quartiles) | better than random |{held} items begun | advances of the run | CPU s |")  # fmt: skip
    print("|---" * (6 + bool(held)) + "|")
    for method, ours in found.items():
        best = [one.best for one in ours]
        low, middle, high = np.quantile(best, [0.25, 0.5, 0.75])
        wins = sum(b < r.best for b, r in zip(best, found["random"], strict=True))
        median = lambda field, ours=ours: statistics.median(getattr(one, field) for one in ours)
        cells = [
            method,
            f"{middle:.4g} ({low:.4g}, {high:.4g})",
            "" if method == "random" else f"{wins} of {seeds}",
            *([f"{median('held_out'):.4g}"] if held else []),
            f"{median('items'):.0f}",
            f"{median('advances'):.0f}",
            f"{median('seconds'):.1f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


# --- beside plain Optuna --------------------------------------------------------------------------


def plain(params: esn.EchoState, trials: int, sampler: str, seed: int, shared: Any) -> float:
    """CPU seconds of a study whose objective calls the kernel. shared: the series; None: each call reads it."""
    chosen = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
    start = time.process_time()

    def objective(trial: optuna.Trial) -> float:
        columns = {
            name: [trial.suggest_float(name, *ends, log=kind == "loguniform")]
            for name, law in ESN.items()
            for kind, ends in law.items()
        }
        found = run_items(esn.kernel, params, columns, seed=seed, shared=shared)
        return float(found["validation_nrmse"][0])

    study = optuna.create_study(sampler=chosen(seed=seed))
    study.optimize(objective, n_trials=trials)
    return time.process_time() - start


def of_search(given: dict[str, Any], trials: int, sampler: str, seed: int, together: int) -> float:
    """CPU seconds of our search."""
    search = {
        "method": "optuna", "sampler": sampler, "trials": trials, "together": together,
        "metric": "validation_nrmse", "params": ESN,
    }  # fmt: skip
    layout = {"microbatch": 1, "slots": together, "shard_items": trials}
    content = {"kernel": "esn", "params": given, "search": search, "run": layout}
    with tempfile.TemporaryDirectory() as folder:
        return run(content, folder, seed)[1]


def alone(params: esn.EchoState, trials: int, seed: int, shared: Any) -> float:
    """CPU seconds of the kernel for as many random draws."""
    rng = np.random.default_rng(seed)
    columns = {
        name: np.exp(rng.uniform(*np.log(ends), trials)) if kind == "loguniform" else rng.uniform(*ends, trials)
        for name, law in ESN.items() for kind, ends in law.items()
    }  # fmt: skip
    start = time.process_time()
    run_items(esn.kernel, params, columns, seed=seed, shared=shared, layout=Layout(trials, 1))
    return time.process_time() - start


def show_plain(n: int, train: int, trials: int, repeats: int) -> None:
    given = SERIES | {"n": n, "train": train, "validation": 200, "horizon": min(84, train)}
    params = esn.EchoState(**given)
    with precision(static_of(params)):
        shared = esn.kernel.load(inputs_of(params))
    print(f"\nesn of {n} units, {train} samples, {trials} trials, {repeats} repeats\n")
    print("| sampler | contender | ms of CPU a trial, median (least, most) | trials a CPU second | ours / this |")  # fmt: skip
    print("|---|---|---|---|---|")
    for sampler in ("random", "tpe"):
        contenders = {
            "search, 16 together": lambda k, s=sampler: of_search(given, trials, s, k, min(16, trials)),
            "search, 64 together": lambda k, s=sampler: of_search(given, trials, s, k, min(64, trials)),
            "plain": lambda k, s=sampler: plain(params, trials, s, k, shared),
            "plain, each call reads the series": lambda k, s=sampler: 8 * plain(params, trials // 8, s, k, None),
            "kernel": lambda k: alone(params, trials, k, shared),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for k in range(repeats + 1):
            for name, contender in contenders.items():
                taken = contender(k)
                if k:  # the first turn compiles
                    seconds[name].append(taken)
        ours = statistics.median(seconds["search, 16 together"])
        for name, taken in seconds.items():
            middle = statistics.median(taken)
            of_trial = ", ".join(f"{1e3 * s / trials:.2f}" for s in (min(taken), max(taken)))
            print(
                f"| {sampler} | {name} | {1e3 * middle / trials:.2f} ({of_trial}) | {trials / middle:.0f} "
                f"| {middle / ours:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--section", choices=["equal", "plain"])
    parser.add_argument("--jobs", nargs="+", choices=[*JOBS], default=[*JOBS])
    parser.add_argument("--fits", type=int, default=64, help="equal: whole fits of a search")
    parser.add_argument("--seeds", type=int, default=10, help="equal: searches of each method")
    parser.add_argument("--trials", type=int, default=256, help="plain: of a study")
    parser.add_argument("--repeats", type=int, default=3, help="plain: turns")
    args = parse(parser, jobs=["esn", "decision"], fits=8, seeds=1, trials=8, repeats=1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "optuna", "cmaes"))
    machine, cpus = platform.processor() or platform.machine(), len(os.sched_getaffinity(0))
    print(f"{machine}, {cpus} CPUs, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {packages}")  # fmt: skip
    if args.section in (None, "equal"):
        for name in args.jobs:
            show_equal(name, args.fits, args.seeds)
    if args.section in (None, "plain"):
        for n, train in ((30, 200), (100, 500)) if args.trials > 8 else ((10, 50),):
            show_plain(n, train, args.trials, args.repeats)


if __name__ == "__main__":
    main()
