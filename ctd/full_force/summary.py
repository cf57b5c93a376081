"""What is told of a group of networks: the best and the median of all; outputs, and errors in training and test as pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ctd.full_force.params import FullForce, Trials
from ctd.kernel import Var, View
from ctd.plots import Axis, Figure, Group, Lines, Plot, histogram, of_group
from ctd.plots.curves import some_curves
from ctd.rows import Best, best_row, ranked

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing test error"),
    "test_error": Var(("rank",), "1", "test error of that network; 1 is that of an output of 0"),
    "test_error_median": Var((), "1", "median over all networks; those that failed count as infinite: inf if half or more did"),
    "failed": Var((), "1", "networks that diverged or were ill-conditioned"),
}  # fmt: skip


def reduce(
    inputs: View[FullForce],
    shared: Trials,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """The networks with the smallest test error, and the median of all."""
    del inputs, shared
    error = np.asarray(results["test_error"], float)
    failed = (np.asarray(results["outcome"]) != 0) | ~np.isfinite(error)
    order = ranked(results, "test_error")
    order = order[np.isfinite(error[order])][: options.n_best]
    return {
        "item": np.asarray(columns["item"])[order],
        "test_error": error[order],
        "test_error_median": np.asarray(np.median(np.where(failed, np.inf, error))),
        "failed": np.asarray(failed.sum()),
    }


def _output(group: Group, row: int, item: int) -> Plot:
    """The outputs of one network in its first test trial, 2 apart where there are several."""
    z, f = (np.asarray(group.results[name][row], float).T for name in ("output", "target"))
    apart = 2 * np.arange(len(z))[:, None]
    time = group.inputs.dt * np.arange(z.shape[1])
    layers = [
        Lines(time, f + apart, "wanted", faint=True),
        Lines(time, z + apart, f"network, item {item}"),
    ]
    return Plot("A test trial", layers, Axis("time (s)"), Axis("output"))


def _curves(group: Group) -> Plot:
    items, curves = some_curves(group, "curve")
    lines = Lines(np.arange(1, 1 + curves.shape[1]), curves, "networks", item=items)
    axes = Axis("training trial"), Axis("normalised error", log=True)
    return Plot("Error in training", [lines], *axes)


def _errors(group: Group) -> Plot:
    error = np.asarray(group.results["test_error"][:], float)
    fine = error[np.isfinite(error) & (error > 0)]  # what has a logarithm
    axes = Axis("log10 normalised test error"), Axis("networks")
    return Plot("Test errors", [histogram(np.log10(fine))], *axes)


@of_group
def plots(group: Group) -> list[Plot]:
    """A test trial of the best network, errors in training, errors of the tests."""
    best = best_row(group, "test_error")
    return [*([_output(group, *best)] if best else []), _curves(group), _errors(group)]


@of_group
def figure(group: Group) -> Figure:
    """All of them in one picture."""
    return Figure(plots(*group))
