"""Summary of a group of networks: the best ones, the median of all, and plots of outputs and of errors in training and test."""

from __future__ import annotations

import numpy as np

from ctd.full_force.params import FullForce, Trials
from ctd.kernel import Var, View
from ctd.plots import Axis, Group, Plot, log_histogram, of_group
from ctd.plots.curves import compare_lines, some_curves
from ctd.rows import Best, Columns, best_row, ranked

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing test error"),
    "test_error": Var(("rank",), "1", "test error of that network; 1 is that of an output of 0"),
    "test_error_median": Var((), "1", "median over all networks; those that failed count as infinite: inf if half or more did"),
    "failed": Var((), "1", "networks that diverged or were ill-conditioned"),
}  # fmt: skip


def reduce(
    inputs: View[FullForce], shared: Trials, columns: Columns, results: Columns, options: Best
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
    time = group.inputs.dt * np.arange(z.shape[1])
    layers = compare_lines(time, f, z, ("wanted", f"network, item {item}"), apart=2)
    return Plot("A test trial", layers, Axis("time (s)"), Axis("output"))


@of_group
def plots(group: Group) -> list[Plot]:
    """A test trial of the best network, errors in training, errors of the tests."""
    curves = some_curves(group, "curve", "networks")
    up = Axis("normalised error", log=True)
    errors = log_histogram(group.results["test_error"][:])
    across = Axis("log10 normalised test error")
    error_plots = [
        Plot("Error in training", [curves], Axis("training trial"), up),
        Plot("Test errors", [errors], across, Axis("networks")),
    ]
    best = best_row(group, "test_error")
    return [_output(group, *best), *error_plots] if best else error_plots
