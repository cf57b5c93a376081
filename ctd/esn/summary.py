"""The reduction of an ensemble: success rate and median error at each point of the sweep, over the seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ctd.esn.params import EchoState
from ctd.esn.series import Series
from ctd.kernel import Var, View, traced_type
from ctd.rows import combinations

SWEPT = traced_type(EchoState)._fields
"""Items with equal values of these fields form a point; the items of a point are its seeds."""

REDUCED = {
    **{
        name: Var(("point",), "1", EchoState.model_fields[name].description or "") for name in SWEPT
    },
    "count": Var(("point",), "1", "networks at this point"),
    "success_rate": Var(("point",), "1", "share of these networks that reach the threshold"),
    "success_rate_low": Var(("point",), "1", "lower end of its bootstrap interval"),
    "success_rate_high": Var(("point",), "1", "upper end of its bootstrap interval"),
    "nrmse_median": Var(("point",), "1", "median NRMSE; inf: most networks failed"),
    "nrmse_median_low": Var(("point",), "1", "lower end of its bootstrap interval"),
    "nrmse_median_high": Var(("point",), "1", "upper end of its bootstrap interval"),
    "nrmse_best": Var(("point",), "1", "lowest NRMSE of the point"),
    "best_row": Var((), "1", "row of the best network, by validation error if there is one"),
    "best_item": Var((), "item", "item id of that network"),
}


class Options(BaseModel):
    """Settings of the reduction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    success_below: float = Field(
        0.1, gt=0, description="a network succeeds below this replay NRMSE"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence of the bootstrap intervals")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of the seeds")


def reduce(
    inputs: View[EchoState],
    shared: Series,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Options,
) -> dict[str, np.ndarray]:
    """Success rate and median replay NRMSE over the seeds of every point, with bootstrap intervals.

    A point is one combination of values of the swept traced fields. A failed network counts as an infinite
    error. Intervals are percentiles over resamples of the seeds (Efron & Tibshirani 1993, ch. 13).

    Returns:
        The arrays of REDUCED.
    """
    del shared
    # A replay that diverged, or was never run, is worse than any that ended.
    error = np.asarray(results["replay_nrmse"], float)
    error = np.where(np.isfinite(error), error, np.inf)
    swept = [name for name in SWEPT if name in columns]
    points, point_of = combinations([np.asarray(columns[name]) for name in swept], len(error))
    out = {name: np.asarray(columns[name])[points] for name in swept}
    # Sort rows by point once, then cut: O(n log n), where a mask for each point would be O(n^2).
    order = np.argsort(point_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(point_of))[:-1])
    rows = [_point(error[some], options) for some in members]
    out |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    # Choosing by the test error would make the reported test error of the best too low.
    chosen = results["validation_nrmse"] if inputs.validation else error
    best = int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))
    return out | {
        "best_row": np.asarray(best),
        "best_item": np.asarray(columns["item"][best] if "item" in columns else best),
    }


def _point(error: np.ndarray, options: Options) -> dict[str, float]:
    # A fixed seed: gathering twice gives the same table.
    rng = np.random.default_rng(0)
    drawn = error[rng.integers(len(error), size=(options.resamples, len(error)))]
    tail = (1 - options.confidence) / 2
    row: dict[str, float] = {"count": len(error), "nrmse_best": error.min()}
    estimates = {
        "success_rate": lambda e: np.mean(e < options.success_below, axis=-1),
        # The lower median: the mean of a finite and an infinite error says nothing.
        "nrmse_median": lambda e: np.sort(e, axis=-1)[..., (len(error) - 1) // 2],
    }
    for name, estimate in estimates.items():
        row[name] = estimate(error)
        # inverted_cdf takes values that occur, not means of two values, for the same reason.
        ends = np.quantile(estimate(drawn), [tail, 1 - tail], method="inverted_cdf")
        row[f"{name}_low"], row[f"{name}_high"] = ends
    return row
