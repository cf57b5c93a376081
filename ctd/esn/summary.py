"""The reduction of an ensemble: success rate, median error and valid time at each point of the sweep, over the seeds."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel, Field

from ctd.esn.params import EchoState
from ctd.esn.series import Series
from ctd.kernel import Params, Var, View, traced_type
from ctd.rows import Columns, combinations

SWEPT = traced_type(EchoState)._fields
"""Items with equal values of these fields form a point; the items of a point are its seeds."""

OF_POINTS = {
    "count": Var(("point",), "1", "networks at this point"),
    "success_rate": Var(("point",), "1", "share of these networks with an NRMSE below success_below"),
    "success_below": Var((), "1", "replay NRMSE below which a network succeeds"),
    "success_rate_low": Var(("point",), "1", "lower end of its Wilson interval"),
    "success_rate_high": Var(("point",), "1", "upper end of its Wilson interval"),
    "nrmse_median": Var(("point",), "1", "median NRMSE; inf: half of the networks or more failed"),
    "nrmse_median_low": Var(("point",), "1", "lower end of its bootstrap interval; NaN for one network"),
    "nrmse_median_high": Var(("point",), "1", "upper end of its bootstrap interval; NaN for one network"),
    "nrmse_best": Var(("point",), "1", "lowest NRMSE of the point"),
    "validation_nrmse_median": Var(("point",), "1", "median NRMSE of the validation range"),
    "valid_time_median": Var(
        ("point",), "time",
        "median valid time of the test range; it is 0 if the first sample's error exceeds valid_error or the network failed", True
    ),
    "confidence": Var((), "1", "confidence of the intervals"),
    "best_row": Var((), "1", "row of the best network, by validation error if there is one"),
    "best_item": Var((), "item", "item id of that network"),
}  # fmt: skip
"""The values that `reduce` returns for every kernel, beside the swept fields."""


def reduced_of(params: type[Params]) -> dict[str, Var]:
    """The values that `reduce` returns for a kernel with these parameters: the swept fields, with their own descriptions, and OF_POINTS."""
    fields = params.model_fields
    swept = {name: fields[name].description or "" for name in SWEPT if name in fields}
    return {name: Var(("point",), "1", text) for name, text in swept.items()} | OF_POINTS


MEMORY = {
    "memory_capacity_median": Var(("point",), "1", "median memory capacity; a network without one counts as 0", True)
}  # fmt: skip
"""The values that `reduce` adds for networks with `memory_delays`."""

SUMMARISED = (
    "count",
    "success_rate",
    "validation_nrmse_median",
    "nrmse_median",
    "valid_time_median",
)
"""The values of a point that a terminal shows, beside its swept fields."""


class Options(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings of the reduction."""

    success_below: float = Field(0.1, gt=0)
    """a network succeeds below this replay NRMSE"""
    confidence: float = Field(0.95, gt=0, lt=1)
    """confidence of the intervals"""
    resamples: int = Field(1000, gt=0)
    """bootstrap resamples of the seeds, for the median"""


def reduce(
    inputs: View[EchoState], shared: Series, columns: Columns, results: Columns, options: Options
) -> dict[str, np.ndarray]:
    """Success rate, median replay NRMSE and valid time over the seeds of every point, the first two with intervals.

    A point is one combination of values of the swept traced fields. A failed network counts as an infinite
    error, and is valid for no time. Where each point has one network, as in a search, the best comes first, by validation
    error if there is one. The rate's interval is Wilson's (1927, JASA 22:209), which has a width even if all networks succeed, or none; the
    median's is from percentiles over resamples of the seeds (Efron & Tibshirani 1993, ch. 13).

    Returns:
        The arrays of OF_POINTS, of the swept fields, and of MEMORY where it was measured.
    """
    del shared
    # A replay that diverged, or was never run, is worse than any that ended.
    worst = {"replay_nrmse": np.inf, "valid_time": 0.0}
    if inputs.validation:
        worst["validation_nrmse"] = np.inf
    if "memory_capacity" in results:
        worst["memory_capacity"] = 0.0
    value = {name: np.asarray(results[name], float) for name in worst}
    value = {name: np.where(np.isfinite(v), v, worst[name]) for name, v in value.items()}
    error = value["replay_nrmse"]
    swept = [name for name in SWEPT if name in columns]
    points, point_of = combinations([np.asarray(columns[name]) for name in swept], len(error))
    out = {name: np.asarray(columns[name])[points] for name in swept}
    # Sort rows by point once, then cut: O(n log n), where a mask for each point would be O(n^2).
    order = np.argsort(point_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(point_of))[:-1])
    rows = [_point(error[some], options) for some in members]
    out |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name in list(value)[1:]:
        out[f"{name}_median"] = np.array([np.median(value[name][some]) for some in members])
    # Choosing by the test error would make the reported test error of the best too low.
    by = "validation_nrmse" if inputs.validation else "replay_nrmse"
    if len(points) == len(error):
        first = np.argsort(value[by][points], kind="stable")
        out = {name: values[first] for name, values in out.items()}
    best = int(np.argmin(value[by]))
    return out | {
        "success_below": np.asarray(options.success_below),
        "confidence": np.asarray(options.confidence),
        "best_row": np.asarray(best),
        "best_item": np.asarray(columns["item"][best] if "item" in columns else best),
    }


def _point(error: np.ndarray, options: Options) -> dict[str, float]:
    n, rate = len(error), float(np.mean(error < options.success_below))
    ends = np.full(2, np.nan)  # resamples of one network are all the same
    if n > 1:
        # A fixed seed: gathering twice gives the same table.
        rng = np.random.default_rng(0)
        resamples = error[rng.integers(n, size=(options.resamples, n))]
        tail = (1 - options.confidence) / 2
        # inverted_cdf takes values that occur: of a finite and an infinite one there is none in between.
        medians = np.median(resamples, axis=1)
        ends = np.quantile(medians, [tail, 1 - tail], method="inverted_cdf")
    row: dict[str, float] = {"count": n, "nrmse_best": error.min(), "success_rate": rate}
    row["success_rate_low"], row["success_rate_high"] = _wilson(rate, n, options.confidence)
    row["nrmse_median"] = float(np.median(error))
    row["nrmse_median_low"], row["nrmse_median_high"] = ends
    return row


def _wilson(rate: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share of n.

    >>> low, high = _wilson(0.0, 20, 0.95)
    >>> low, round(high, 4)
    (0.0, 0.1611)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, half = rate + z**2 / (2 * n), z * sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    denominator = 1 + z**2 / n
    # Rounding may leave the share itself outside where it is 0 or 1.
    return min((middle - half) / denominator, rate), max((middle + half) / denominator, rate)
