"""Seconds a pair of the kernel `similarity`, beside a loop in NumPy over the same pairs, in one run.

    python benchmarks/similarity.py [--networks 24] [--units 100] [--trials 40] [--steps 50] [--method cka dsa]

Networks are random smooth trajectories. Times are wall clock on this process's cores: of the kernel all rows of
the matrix, compiled before; of NumPy (whose BLAS is threaded) the first `--pairs` of its pairs. Both begin with what
`load` has made of the networks, whose seconds are a column of their own. The last column is what 500 networks take.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

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


def seconds(do: Callable[[], Any]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def of_numpy(method: str, features: Features, pairs: int) -> float:
    """Seconds a pair of the loop."""
    n, one = len(features.values), NUMPY[method]
    some = [(i, j) for i in range(n) for j in range(i)][:pairs]
    return seconds(lambda: [one(features.values[i], features.values[j]) for i, j in some]) / len(
        some
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=50, help="of the NumPy loop")
    parser.add_argument("--method", nargs="+", default=[*NUMPY, "dsa"])
    options = parse(parser, networks=3, units=8, trials=4, steps=20, pairs=2)
    states = networks(options.networks, options.trials, options.steps, options.units)
    n = len(states)
    print(
        f"{n} networks of {options.units} units, {options.trials} trials of {options.steps} steps"
    )
    print("method      load s/network  kernel s/pair  NumPy s/pair  ratio  500 networks, min")
    for method in options.method:
        params = Comparison(method=method, rank=min(10, options.units))
        made: list[Features] = []
        loading = seconds(lambda p=params, m=made: m.append(features_of(inputs_of(p), states)))  # type: ignore[misc]
        run = lambda rows, p=params, m=made: run_items(kernel, p, {"matrix_row": np.asarray(rows)}, shared=m[0])  # fmt: skip
        rows = list(range(n))
        run([0] + [n] * (n - 1))  # compiled: one row, and none
        pair = seconds(lambda run=run, rows=rows: run(rows)) / (n * (n - 1) / 2)  # type: ignore[misc]
        beside = of_numpy(method, made[0], options.pairs) if method in NUMPY else float("nan")
        whole = (pair * PAIRS_OF_500 + 500 * loading / n) / 60
        print(
            f"{method:<11} {loading / n:14.4f} {pair:14.5f} {beside:13.5f} {beside / pair:6.2f} {whole:18.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
