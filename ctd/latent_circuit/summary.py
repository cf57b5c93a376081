"""Summary of a group of fits: the best circuits, their agreement with each other, and plots of weights, activity and losses."""

from __future__ import annotations

import numpy as np

from ctd.kernel import Var, View
from ctd.late import scipy
from ctd.latent_circuit.params import LatentCircuit, Shared
from ctd.plots import Axis, Group, Image, Plot, Scale, of_group
from ctd.plots.curves import compare_lines, some_curves
from ctd.rows import Best, Columns, best_row, ranked
from ctd.training import block_ends

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing error of rates"),
    "nmse": Var(("rank",), "1", "error of rates of that circuit"),
    "connectivity_r": Var(("rank",), "1", "correlation of its recurrent weights with those of the best, node by node; nodes without input or output are matched by their embedding"),
    "nmse_median": Var((), "1", "median over the fits that did not fail"),
    "failed": Var((), "1", "fits that diverged"),
}  # fmt: skip


def matched(q: np.ndarray, to: np.ndarray, n_in: int, n_out: int) -> np.ndarray:
    """(node,) the nodes of embedding q (unit, node) in the order of those of `to`.

    Nodes of inputs, the first, and of outputs, the last, have fixed places. The others are exchangeable, and each takes the place of
    the one that the units show it most alike.

    >>> matched(np.eye(4)[:, [0, 2, 1, 3]], np.eye(4), 1, 1).tolist()
    [0, 2, 1, 3]
    """
    order = np.arange(q.shape[1])
    free = slice(n_in, len(order) - n_out)
    # Columns have the length 1. A circuit that was stored with NaN is matched anyhow.
    alike = np.nan_to_num(to[:, free].T @ q[:, free])
    order[free] = n_in + scipy.optimize.linear_sum_assignment(-alike)[1]
    return order


def reduce(
    inputs: View[LatentCircuit], shared: Shared, columns: Columns, results: Columns, options: Best
) -> dict[str, np.ndarray]:
    """The circuits with the smallest error of rates, and how alike their weights are to those of the best."""
    del inputs
    n_in, n_out = shared.evaluation.inputs.shape[2], shared.evaluation.targets.shape[2]
    error = np.asarray(results["nmse"], float)
    order = ranked(results, "nmse")  # those that failed are left out
    best = order[: options.n_best]
    embeddings = [np.asarray(results["embedding"][row], float) for row in best]
    nodes = [matched(q, embeddings[0], n_in, n_out) for q in embeddings]
    weights = [
        np.asarray(results["weights.wR"][row], float)[np.ix_(node_order, node_order)].ravel()
        for row, node_order in zip(best, nodes, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN of weights that are all equal
        alike = [np.corrcoef(w, weights[0])[0, 1] for w in weights]
    return {
        "item": np.asarray(columns["item"])[best],
        "nmse": error[best],
        # The first entry is 1, the best circuit with itself.
        "connectivity_r": np.asarray(alike),
        "nmse_median": np.asarray(np.median(error[order]) if len(order) else np.nan),
        "failed": np.asarray(len(error) - len(order)),
    }


def _names(group: Group) -> list[str]:
    """The nodes: those of inputs first, those of outputs last."""
    n_in, n_out = (np.asarray(a).shape[2] for a in group.shared.evaluation[:2])
    names = [f"{'input' if k < n_in else 'node'} {k}" for k in range(group.inputs.n - n_out)]
    return [*names, *(f"output {k}" for k in range(n_out))]


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
    apart = 1.2 * max(np.abs(y).max(), 1e-9)
    names = "rates, projected", f"circuit, item {item}"
    layers = compare_lines(np.arange(len(x)), y.T, x.T, names, apart)
    return [Plot("Nodes in an evaluation trial", layers, Axis("step"), Axis("activity"))]


@of_group
def plots(group: Group) -> list[Plot]:
    """Losses; weights and activity of the best circuit."""
    lines = some_curves(group, "curve", "fits", block_ends(group.inputs))
    curves = Plot("Loss in training", [lines], Axis("training step"), Axis("loss", log=True))
    best = best_row(group, "nmse")
    if best is None:
        return [curves]
    return [_weights(group, *best), *_activity(group, *best), curves]
