"""Seconds a pair of the kernel `similarity`, beside a loop in NumPy over the same pairs, in one run.

    python benchmarks/similarity.py [--networks 24] [--units 100] [--trials 40] [--steps 50] [--method cka dsa]

Networks are random trajectories. The kernel computes all rows of the matrix, compiled before; NumPy, whose BLAS is
threaded, the first `--pairs` of its pairs. Both begin with what `load` has made of the networks, whose seconds are
columns of their own. `ratio` is that of the CPU seconds, which other load on the machine distorts least; the last
column is what 500 networks take of one core, in minutes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from options import parse

from ctd.batch import run_items
from ctd.kernel import inputs_of
from ctd.similarity.features import Features, features_of
from ctd.similarity.kernel import kernel
from ctd.similarity.params import Comparison

PAIRS_OF_500 = 500 * 499 // 2


def networks(n: int, trials: int, steps: int, units: int) -> list[np.ndarray]:
    """(trial, time, unit) random walks that decay, mixed at random."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        h, mix = np.zeros((trials, units)), rng.normal(size=(units, units)) / np.sqrt(units)
        states = []
        for _ in range(steps):
            h = np.tanh(0.9 * h @ mix + 0.3 * rng.normal(size=h.shape))
            states.append(h)
        found.append(np.stack(states, axis=1))
    return found


def gram(x: np.ndarray) -> np.ndarray:
    squares = np.sum(x**2, axis=1)
    k: np.ndarray = np.exp(-(squares[:, None] + squares - 2 * x @ x.T) / 2)
    mean = k.mean(axis=0)
    return k - mean[:, None] - mean + mean.mean()


def rbf(a: np.ndarray, b: np.ndarray) -> float:
    k, m = gram(a), gram(b)
    return float(np.sum(k * m) / (np.linalg.norm(k) * np.linalg.norm(m)))


NUMPY: dict[str, Callable[[Any, Any], float]] = {
    "procrustes": lambda a, b: float(np.linalg.svd(a.T @ b, compute_uv=False).sum()),
    "cka": lambda a, b: float(np.sum((a.T @ b) ** 2)),
    "rbf_cka": rbf,
    "svcca": lambda a, b: float(np.linalg.svd(a.T @ b, compute_uv=False).mean()),
}
"""The similarity of two networks; `dsa` has no such line."""


class Seconds(NamedTuple):
    """Wall clock, and time of the processor over all threads of this process."""

    wall: float
    cpu: float

    def over(self, n: float) -> "Seconds":
        return Seconds(self.wall / n, self.cpu / n)


def seconds(do: Callable[[], Any]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def of_numpy(method: str, features: Features, pairs: int) -> Seconds:
    """Seconds a pair of the loop."""
    n, one = len(features.values), NUMPY[method]
    some = [(i, j) for i in range(n) for j in range(i)][:pairs]
    loop = lambda: [one(features.values[i], features.values[j]) for i, j in some]
    return seconds(loop).over(len(some))


def measure(method: str, states: Sequence[np.ndarray], pairs: int) -> None:
    """Print one line of the table."""
    n, params = len(states), Comparison(method=method, rank=min(10, states[0].shape[-1]))
    made: list[Features] = []
    names, shown = [str(k) for k in range(n)], [(x, None) for x in states]
    load = lambda: made.append(features_of(inputs_of(params), names, shown))
    loading = seconds(load).over(n)
    run = lambda rows: run_items(kernel, params, {"matrix_row": np.asarray(rows)}, shared=made[0])
    run([0] + [n] * (n - 1))  # compiled: one row, and none
    pair = seconds(lambda: run(range(n))).over(n * (n - 1) / 2)
    beside = of_numpy(method, made[0], pairs) if method in NUMPY else Seconds(np.nan, np.nan)
    whole = (pair.cpu * PAIRS_OF_500 + 500 * loading.cpu) / 60
    times = " ".join(f"{x:12.5f}" for two in (loading, pair, beside) for x in two)
    print(f"{method:<11} {times} {beside.cpu / pair.cpu:6.2f} {whole:10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=50, help="of the NumPy loop")
    parser.add_argument("--method", nargs="+", default=[*NUMPY, "dsa"])
    options = parse(
        parser, networks=3, units=8, trials=4, steps=20, pairs=2, method=["procrustes", "cka"]
    )
    states = networks(options.networks, options.trials, options.steps, options.units)
    print(
        f"{len(states)} networks of {options.units} units, {options.trials} trials of {options.steps} steps\n"
        "            load a network            kernel a pair             NumPy a pair\n"
        f"method     {'wall s          CPU s    ' * 3:>75}  ratio    500, min"
    )
    for method in options.method:
        measure(method, states, options.pairs)


if __name__ == "__main__":
    main()
