"""Accuracy that small networks reach on the cognitive tasks, each alone and Yang's twenty together.

    python benchmarks/tasks.py [--tasks dm1 rdm ...] [--together] [--batches 1500] [--units 64]

Alone: one GRU for each task is trained until its accuracy on 512 evaluation trials reaches `--until`, or for
`--batches` steps. The table has the accuracy, the steps and the seconds taken, compilation included.

Together: one GRU on all twenty (contextdm1 and contextdm2 five times as often), with the accuracy of every task.
The authors analyse networks whose worst task has 0.8 or more.

What is cut so that it fits two cores: rings of 16 units, 40 ms a step, durations times 0.4, and the strengths of stimuli
shown together differ by 10 to 40 % in place of 1 to 8 %; a GRU of 64 units with a linear readout. The published
sizes, for a GPU and hours, are

    python benchmarks/tasks.py --full --together --units 256 --batches 150000

(1e7 trials at 64 a step, which is where the authors stop).
"""

import argparse
import platform
import time

import jax
import numpy as np
from options import parse

from ctd.batch import run_items
from ctd.tasks import RULES, TASKS
from ctd.train_rnn import Network, kernel

REDUCED = {"n_ring": 16, "dt": 40.0, "time_scale": 0.4, "coherences": (0.1, 0.2, 0.4)}
SHORT = {
    "romo": {"delay": (200, 600)},
    "dms": {"delay": (200, 600), "response": 300},
    "nbff": {"n_steps": 100},
}
"""Of the other tasks: shorter delays and trials."""
OTHERS = ("rdm", "romo", "mante", "dms", "nbff")


def task_of(name: str, full: bool) -> dict:
    if name in TASKS:
        return {"name": name, **({} if full else SHORT.get(name, {}))}
    return {"name": "yang", "rule": name, **({} if full else REDUCED)}


def network(task: dict, options: argparse.Namespace, stop_at: float | None) -> Network:
    return Network(
        cell=options.cell,
        task=task,
        n=options.units,
        batch_size=64,
        n_batches=options.batches,
        report_every=min(50, options.batches),
        n_eval=options.trials,
        stop_at=stop_at,
        learning_rate=options.rate,
        decay=1.0,
        l2=1e-7,
        clip_norm=1.0,
        adam_eps=1e-8,
    )


def trained(params: Network) -> tuple[dict[str, np.ndarray], float]:
    start = time.perf_counter()
    found = run_items(kernel, params)
    return {name: value[0] for name, value in found.items()}, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=[*RULES, *OTHERS])
    parser.add_argument("--together", action="store_true", help="all twenty in one network")
    parser.add_argument("--full", action="store_true", help="the published sizes of the tasks")
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--batches", type=int, default=1500)
    parser.add_argument("--trials", type=int, default=512, help="evaluation trials")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--until", type=float, default=0.95, help="accuracy that is enough")
    options = parse(
        parser, cell="vanilla", tasks=["rdm"], units=4, batches=2, trials=8, together=False
    )
    print(f"{platform.platform()}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"{options.cell}, {options.units} units, at most {options.batches} steps of 64 trials")
    if options.together:
        found, seconds = trained(network(task_of("all", options.full), options, None))
        print(f"\nall twenty: accuracy {found['accuracy']:.3f}, {seconds:.0f} s\n")
        print("| task | accuracy |\n|---|---|")
        for rule, share in zip(RULES, found["condition_accuracy"], strict=True):
            print(f"| {rule} | {share:.3f} |")
        print(f"| the worst | {found['worst_accuracy']:.3f} |")
        return
    print("\n| task | accuracy | steps | seconds |\n|---|---|---|---|")
    for name in options.tasks:
        params = network(task_of(name, options.full), options, options.until)
        found, seconds = trained(params)
        line = f"| {name} | {found['accuracy']:.3f} | {int(found['batches'])} | {seconds:.0f} |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
