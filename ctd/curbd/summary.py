"""The reduction of fits: the best of a group, and what currents between regions are like in all of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.curbd.data import Shared
from ctd.curbd.params import Curbd
from ctd.kernel import Var, View
from ctd.rows import Best, ranked

REDUCED = {
    "item": Var(("rank",), "item", "item id, by decreasing pVar"),
    "pvar": Var(("rank",), "1", "pVar of that fit"),
    "pvar_median": Var((), "1", "median of pVar over the fits that did not fail"),
    "current_rms_median": Var(("target", "source"), "1", "median over these fits of the current that a unit of `target` gets from `source`"),
    "current_rms_mad": Var(("target", "source"), "1", "median absolute deviation from that"),
    "current_target": Var(("current",), "1", "region that gets the current"),
    "current_source": Var(("current",), "1", "region from which it comes"),
    "current_median": Var(("current",), "1", "median over these fits of its root mean square, that a unit of the target gets"),
    "current_mad": Var(("current",), "1", "median absolute deviation from that"),
    "failed": Var((), "1", "fits that diverged or were ill-conditioned"),
}  # fmt: skip


def reduce(
    inputs: View[Curbd],
    shared: Shared,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """The fits with the largest pVar, and medians over all that did not fail."""
    fine = np.flatnonzero(np.asarray(results["outcome"]) == 0)
    pvar = np.asarray(results["pvar"], float)
    order = ranked(results, "pvar", more_is_better=True)[: options.n_best]
    n, names = len(shared.member), np.asarray(list(inputs.regions))
    sizes = np.asarray(results["current_rms"], float)[fine]
    middle = np.median(sizes, 0) if len(fine) else np.full((n, n), np.nan)
    apart = np.median(np.abs(sizes - middle), 0) if len(fine) else np.full((n, n), np.nan)
    return {
        "item": np.asarray(columns["item"])[order],
        "pvar": pvar[order],
        "pvar_median": np.asarray(np.median(pvar[fine]) if len(fine) else np.nan),
        "current_rms_median": middle,
        "current_rms_mad": apart,
        "current_target": np.repeat(names, n),
        "current_source": np.tile(names, n),
        "current_median": middle.ravel(),
        "current_mad": apart.ravel(),
        "failed": np.asarray(len(pvar) - len(fine)),
    }


def next_jobs(
    params: Curbd, item: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, Any]]:
    """Compute the largest exponent of the network without its noise."""
    del shapes
    if "weights" not in params.record:
        return {}
    given = {"weights": item, "cell": "leaky", "dtype": params.dtype}
    return {"its largest exponent": {"kernel": "fixed_points.exponents", "params": given}}
