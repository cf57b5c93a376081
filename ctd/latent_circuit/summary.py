"""The reduction of fits: the best circuits of a group, and whether the others found the same connections."""

from collections.abc import Mapping

import numpy as np

from ctd.kernel import Var, View
from ctd.late import scipy
from ctd.latent_circuit.data import Shared
from ctd.latent_circuit.params import LatentCircuit
from ctd.rows import Best, ranked

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing error of rates"),
    "nmse": Var(("rank",), "1", "error of rates of that circuit"),
    "connectivity_r": Var(("rank",), "1", "correlation of its recurrent weights with those of the best, node by node; nodes without input or output are matched by their embedding"),
    "nmse_median": Var((), "1", "median over the fits that did not fail"),
    "failed": Var((), "1", "fits that diverged"),
}  # fmt: skip


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the entries of two arrays; NaN where one is constant.

    >>> round(correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 3)
    1.0
    """
    a, b = (x.ravel() - x.mean() for x in (a, b))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else float("nan")


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
    inputs: View[LatentCircuit],
    shared: Shared,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """The circuits with the smallest error of rates, and how alike their weights are to those of the best."""
    del inputs
    n_in, n_out = shared.evaluation.inputs.shape[2], shared.evaluation.targets.shape[2]
    error = np.asarray(results["nmse"], float)
    order = ranked(results, "nmse")  # those that failed are left out
    best = order[: options.n_best]
    found = [np.asarray(results["embedding"][row], float) for row in best]
    nodes = [matched(q, found[0], n_in, n_out) for q in found]
    weights = [
        np.asarray(results["weights.wR"][row], float)[np.ix_(of, of)]
        for row, of in zip(best, nodes, strict=True)
    ]
    return {
        "item": np.asarray(columns["item"])[best],
        "nmse": error[best],
        # The first entry is 1, the best circuit with itself.
        "connectivity_r": np.asarray([correlation(w, weights[0]) for w in weights]),
        "nmse_median": np.asarray(np.median(error[order]) if len(order) else np.nan),
        "failed": np.asarray(len(error) - len(order)),
    }
