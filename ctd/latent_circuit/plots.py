"""The figures of fits: the weights of the best circuit, its activity beside the projected rates, losses along training."""

from __future__ import annotations

import numpy as np

from ctd.plots import Axis, Figure, Group, Image, Lines, Plot, Scale, of_group
from ctd.plots.curves import block_ends, some_curves
from ctd.rows import best_row


def _names(group: Group) -> list[str]:
    """The nodes: those of inputs first, those of outputs last."""
    n_in, n_out = (np.asarray(a).shape[2] for a in group.shared.evaluation[:2])
    others = group.inputs.n - n_in - n_out
    return [
        *(f"input {k}" for k in range(n_in)),
        *(f"node {n_in + k}" for k in range(others)),
        *(f"output {k}" for k in range(n_out)),
    ]


def _weights(group: Group, row: int, item: int) -> Plot:
    names = _names(group)
    w = np.asarray(group.results["weights.wR"][row], float)
    scale = Scale("weight", diverging=True, low=-np.abs(w).max(), high=np.abs(w).max())
    across, down = Axis("from", ticks=names), Axis("to", ticks=names)
    return Plot(f"Recurrent weights, item {item}", [Image(w)], across, down, scale)


def _activity(group: Group, row: int, item: int) -> list[Plot]:
    """The nodes' activity in an evaluation trial, beside the rates projected on them, Q'y."""
    if not group.inputs.n_saved:
        return []
    x = np.asarray(group.results["activity"][row], float)[0]
    q = np.asarray(group.results["embedding"][row], float)
    # Q'y lies in the nodes' space, where it compares with x.
    y = np.asarray(group.shared.evaluation.rates[0], float) @ q
    # The nodes' lines lie above each other.
    apart = np.arange(x.shape[1])[:, None] * 1.2 * max(np.abs(y).max(), 1e-9)
    steps = np.arange(len(x))
    layers = [
        Lines(steps, y.T + apart, "rates, projected", faint=True),
        Lines(steps, x.T + apart, f"circuit, item {item}"),
    ]
    return [Plot("Nodes in an evaluation trial", layers, Axis("step"), Axis("activity"))]


def _curves(group: Group) -> Plot:
    items, curves = some_curves(group, "curve")
    lines = Lines(block_ends(group.inputs), curves, "fits", item=items)
    return Plot("Loss in training", [lines], Axis("training step"), Axis("loss", log=True))


@of_group
def plots(group: Group) -> list[Plot]:
    """Losses; weights and activity of the best circuit."""
    row = best_row(group.results, "nmse")
    if row is None:
        return [_curves(group)]
    item = int(np.asarray(group.columns["item"][:])[row])
    return [_weights(group, row, item), *_activity(group, row, item), _curves(group)]


@of_group
def figure(group: Group) -> Figure:
    """All of them in one picture."""
    return Figure(plots(*group))
