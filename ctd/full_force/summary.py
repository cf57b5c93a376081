"""The reduction of networks: the best of a group, and the median of their errors."""

from collections.abc import Mapping

import numpy as np

from ctd.full_force.data import Trials
from ctd.full_force.params import FullForce
from ctd.kernel import Var, View
from ctd.rows import Best, ranked

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
