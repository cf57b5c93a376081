"""Reduce an ensemble to the points of its sweep: how often the networks of a point succeed, and how well."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ctd.esn.params import EchoState
from ctd.kernel import Var, traced_type
from ctd.plots import is_wide
from ctd.rows import combinations

SWEPT = traced_type(EchoState)._fields
"""Items with equal values of these fields form a point; the items of one point are its seeds."""

REDUCED = {
    **{
        name: Var(("point",), "1", EchoState.model_fields[name].description or "") for name in SWEPT
    },
    "count": Var(("point",), "1", "networks at this point"),
    "success_rate": Var(("point",), "1", "share of them that reach the threshold"),
    "success_rate_low": Var(("point",), "1", "lower end of its bootstrap interval"),
    "success_rate_high": Var(("point",), "1", "upper end of its bootstrap interval"),
    "nrmse_median": Var(("point",), "1", "median NRMSE; inf: most networks failed"),
    "nrmse_median_low": Var(("point",), "1", "lower end of its bootstrap interval"),
    "nrmse_median_high": Var(("point",), "1", "upper end of its bootstrap interval"),
    "nrmse_best": Var(("point",), "1", "lowest NRMSE of the point"),
    "best_row": Var((), "1", "row of the best network; by validation, if there is any"),
    "best_item": Var((), "1", "item id of that network"),
}


class Options(BaseModel):
    """Settings of the reduction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    success_below: float = Field(
        0.1, gt=0, description="a network succeeds below this replay NRMSE"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the bootstrap intervals")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of the seeds")


def reduce(
    inputs: Any,
    shared: Any,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Options,
) -> dict[str, np.ndarray]:
    """Success rate and median replay NRMSE over the seeds of every point, with bootstrap intervals.

    A point is one combination of values of the swept traced fields. A failed network counts as an infinite
    error. Intervals are percentiles over resamples of the seeds (Efron & Tibshirani 1993, ch. 13).
    """
    del shared
    error = np.asarray(results["replay_nrmse"], float)
    error = np.where(np.isfinite(error), error, np.inf)
    swept = [name for name in SWEPT if name in columns]
    points, point_of = combinations([np.asarray(columns[name]) for name in swept], len(error))
    out = {name: np.asarray(columns[name])[points] for name in swept}
    order = np.argsort(point_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(point_of))[:-1])
    rows = [_point(error[some], options) for some in members]
    out |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    chosen = results["validation_nrmse"] if inputs.validation else error
    best = int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))
    return out | {
        "best_row": np.asarray(best),
        "best_item": np.asarray(columns["item"][best] if "item" in columns else best),
    }


def _point(error: np.ndarray, options: Options) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    drawn = error[rng.integers(len(error), size=(options.resamples, len(error)))]
    tail = (1 - options.confidence) / 2
    row: dict[str, Any] = {"count": len(error), "nrmse_best": error.min()}
    estimates = {
        "success_rate": lambda e: np.mean(e < options.success_below, axis=-1),
        # The lower median, since the mean of a finite and an infinite error says nothing.
        "nrmse_median": lambda e: np.sort(e, axis=-1)[..., (len(error) - 1) // 2],
    }
    for name, estimate in estimates.items():
        row[name] = estimate(error)
        # inverted_cdf takes values that occur, not means of two, for the same reason.
        ends = np.quantile(estimate(drawn), [tail, 1 - tail], method="inverted_cdf")
        row[f"{name}_low"], row[f"{name}_high"] = ends
    return row


def varied_fields(reduced: Mapping[str, np.ndarray]) -> list[str]:
    """The swept fields that have more than one value."""
    return [name for name in SWEPT if name in reduced and len(np.unique(reduced[name])) > 1]


def success_grid(
    first: str, second: str, reduced: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(values of `first`, values of `second`, success rates, log10 of the median NRMSE).

    The last two are (second, first). Over points that differ in further fields, the rate is the mean and the
    error the lowest; NaN where there is none.
    """
    xs, column = np.unique(reduced[first], return_inverse=True)
    ys, row = np.unique(reduced[second], return_inverse=True)
    cell, shape = row * len(xs) + column, (len(ys), len(xs))
    n = np.bincount(cell, minlength=shape[0] * shape[1])
    with np.errstate(invalid="ignore"):
        rate = np.bincount(cell, reduced["success_rate"], len(n)) / n
    error = np.full(len(n), np.inf)
    np.minimum.at(error, cell, reduced["nrmse_median"])
    with np.errstate(divide="ignore"):
        power = np.log10(np.where(np.isfinite(error), error, np.nan))
    return xs, ys, rate.reshape(shape), power.reshape(shape)


def figure(
    inputs: Any,
    shared: Any,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    reduced: Mapping[str, np.ndarray],
) -> Any:
    """Success rate and median NRMSE as maps over the first two swept fields, or curves if one is swept.

    Over further swept fields the maps show the mean success rate and the lowest NRMSE.
    """
    del shared, columns, results
    from matplotlib.figure import Figure

    varied = varied_fields(reduced)
    fig = Figure(figsize=(10, 4), layout="constrained")
    axes = fig.subplots(1, 2)
    if len(varied) < 2:
        _curves(axes, varied[0] if varied else None, reduced)
    else:
        _maps(fig, axes, varied[0], varied[1], reduced)
    fig.suptitle(f"{inputs.readout} on {inputs.target}, n = {inputs.n}")
    return fig


def _curves(axes: Any, name: str | None, reduced: Mapping[str, np.ndarray]) -> None:
    x = reduced[name] if name else np.zeros(1)
    for ax, value in zip(axes, ("success_rate", "nrmse_median"), strict=True):
        shown = np.isfinite(reduced[f"{value}_high"])
        y, low, high = (reduced[value + end][shown] for end in ("", "_low", "_high"))
        ax.errorbar(x[shown], y, (y - low, high - y), fmt="o-", capsize=3)
        ax.set(xlabel=name or "", ylabel=REDUCED[value].long_name)
        if name and is_wide(x):
            ax.set_xscale("log")
    axes[1].set_yscale("log")


def _maps(fig: Any, axes: Any, first: str, second: str, reduced: Mapping[str, np.ndarray]) -> None:
    xs, ys, rate, error = success_grid(first, second, reduced)
    panels = ((rate, "success rate", 0.0, 1.0), (error, "log10 median NRMSE", None, None))
    for ax, (grid, label, low, high) in zip(axes, panels, strict=True):
        image = ax.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high)
        fig.colorbar(image, ax=ax, label=label)
        ax.set(xlabel=first, ylabel=second)
        ax.set_xticks(range(len(xs)), [f"{v:.3g}" for v in xs], rotation=45)
        ax.set_yticks(range(len(ys)), [f"{v:.3g}" for v in ys])
