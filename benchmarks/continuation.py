"""Seconds to follow 27 points over an input, beside searching them anew at each of its values, in one run.

    python benchmarks/continuation.py [--units 60] [--values 100]

The network remembers three bits, each by a third of its units, which drive one another: h = tanh(GAIN mean(h) + x). So
its points are known: 27 at inputs |x| < FOLD of the first bit; beyond, where two of that bit's three points have met, 9.
The input goes from -RANGE to RANGE. Searches start at each value from the 27 points without input, the best
starts that there are.
`right` is the share of the values at which all points are found, and no others. Programs are compiled before.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from options import parse

from ctd.batch import Layout, layout_for, precision, run_items
from ctd.data import write_hdf5
from ctd.fixed_points import continuation
from ctd.fixed_points import kernel as points
from ctd.fixed_points.continuation import Continuation
from ctd.fixed_points.search.params import FixedPoint
from ctd.kernel import Kernel, Params, inputs_of
from ctd.weights import write_weights

GAIN = 1.5
STEEP = np.sqrt(1 - 1 / GAIN)
FOLD = float(GAIN * STEEP - np.arctanh(STEEP))
RANGE = 0.3


def three_bits(folder: Path, n: int) -> tuple[str, str]:
    """Files of the network, and of its points without input."""
    bit = np.kron(np.eye(3), np.ones((n // 3, 1)))
    own = {"wI": bit, "wR": GAIN * 3 / n * bit @ bit.T, "bR": np.zeros(n)}
    write_weights(
        folder / "net.h5",
        own | {"wO": bit.T * 3 / n, "bO": np.zeros(3), "h0": np.zeros(n)},
        "vanilla",
    )
    one = 0.5
    for _ in range(200):
        one = np.tanh(GAIN * one)
    levels = np.stack(np.meshgrid(*[[-one, 0, one]] * 3), axis=-1).reshape(-1, 3)
    write_hdf5(folder / "points.h5", {"point": levels @ bit.T})
    return str(folder / "net.h5"), str(folder / "points.h5")


class Way(NamedTuple):
    """A way to the points at all values."""

    name: str
    kernel: Kernel
    params: Params
    columns: dict[str, np.ndarray]
    short: dict[str, Any]
    """Parameters with which its programs are compiled and hardly run."""
    counted: Callable[[dict[str, Any], dict[str, Any], np.ndarray], np.ndarray]
    """(results, tables, values) -> how many points there are at each value."""


def crossings(results: dict[str, Any], tables: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """How often the branches, each once, pass each value."""
    p = results["parameter"][tables["branch_item"]]
    before, after = p[:, :-1, None] - values, p[:, 1:, None] - values
    return np.sum(before * after <= 0, axis=(0, 1))


def at_values(results: dict[str, Any], tables: dict[str, Any], values: np.ndarray) -> np.ndarray:
    del results
    here = tables["constant_input"][tables["kind"] == "fixed", :1]
    return np.sum(np.abs(here - values) < 1e-9, axis=0)


def ways(net: str, file: str, values: np.ndarray) -> list[Way]:
    """Both ways."""
    follow = Continuation(weights=net, points=file, low=-RANGE, high=RANGE)
    starts = {"start_point": np.arange(27)}
    search = FixedPoint(weights=net, candidates=file, dataset="point")
    x = np.repeat(np.outer(values, [1.0, 0, 0]), 27, axis=0)
    columns = {"x": x, "candidate": np.tile(np.arange(27), len(values))}
    narrow: dict[str, Any] = {"low": -1e-3, "high": 1e-3}
    return [
        Way("followed", continuation.kernel, follow, starts, narrow, crossings),
        Way("searched anew", points, search, columns, {"max_iterations": 1}, at_values),
    ]


def measure(way: Way, values: np.ndarray) -> None:
    """Print one line of the table."""
    inputs = inputs_of(way.params)
    assert way.kernel.tables.reduce is not None
    with precision(inputs):
        shared = way.kernel.load(inputs)
    n = len(next(iter(way.columns.values())))
    layout: Layout = layout_for(way.kernel, n, 1)
    options = way.kernel.tables.Options()

    def run(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
        results = run_items(way.kernel, params, way.columns, shared=shared, layout=layout)
        with precision(inputs):
            return results, way.kernel.tables.reduce(inputs, shared, way.columns, results, options)

    run(way.params.model_copy(update=way.short))
    wall, cpu = time.perf_counter(), time.process_time()
    found = run(way.params)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    right = way.counted(*found, values) == np.where(np.abs(values) < FOLD, 27, 9)
    print(f"{way.name:<16} {n:7d} {wall:9.2f} {cpu:9.2f} {right.mean():8.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--values", type=int, default=100)
    options = parse(parser, units=6, values=4)
    values = np.linspace(-RANGE, RANGE, options.values)
    print(
        f"{options.units} units, 27 points, {options.values} values of the input\n"
        "way                items    wall s     CPU s    right"
    )
    with TemporaryDirectory() as folder:
        files = three_bits(Path(folder), options.units // 3 * 3)
        for way in ways(*files, values):
            measure(way, values)


if __name__ == "__main__":
    main()
