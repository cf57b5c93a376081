"""The figures of networks: outputs of the best beside their targets, errors along training and of all."""

from __future__ import annotations

import numpy as np

from ctd.plots import Axis, Figure, Group, Lines, Plot, histogram, of_group
from ctd.plots.curves import some_curves
from ctd.rows import best_row


def _output(group: Group, row: int, item: int) -> Plot:
    """The outputs of one network in its first test trial, 2 apart where there are several."""
    read = lambda name: np.asarray(group.results[name][row], float).T
    z, f = read("output"), read("target")
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
    return Plot(
        "Error in training", [lines], Axis("training trial"), Axis("normalised error", log=True)
    )


def _errors(error: np.ndarray) -> Plot:
    fine = error[np.isfinite(error) & (error > 0)]  # what has a logarithm
    axis = Axis("log10 normalised test error")
    return Plot("Test errors", [histogram(np.log10(fine))], axis, Axis("networks"))


@of_group
def plots(group: Group) -> list[Plot]:
    """A test trial of the best network, errors in training, errors of the tests."""
    made = [_curves(group), _errors(np.asarray(group.results["test_error"][:], float))]
    row = best_row(group.results, "test_error")
    if row is None:
        return made
    return [_output(group, row, int(np.asarray(group.columns["item"][:])[row])), *made]


@of_group
def figure(group: Group) -> Figure:
    """All of them in one picture."""
    return Figure(plots(*group))
