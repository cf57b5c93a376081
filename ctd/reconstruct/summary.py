"""The reduction of fits: the best of a group, and the median of each measure with its spread, as papers report them."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.kernel import Var, View
from ctd.reconstruct.data import Shared
from ctd.reconstruct.measures import of_halves, peak
from ctd.reconstruct.params import DIVERGED, Reconstruction
from ctd.rows import Best, ranked

MEASURES = ("d_stsp", "d_h", "prediction_error", "exponent")

FAR, VISIBLE = 10, 0.1
"""The best D_stsp may be so many times that of two halves of the data; up to `VISIBLE` it is small anyway."""

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing D_stsp; runs at rest are left out"),
    **{name: Var(("rank",), "1", f"{name} of that fit") for name in MEASURES},
    "end_spread": Var(("rank",), "1", "sd of its run after 10,000 steps or more, over that of the data"),
    "peak_frequency": Var(("rank",), "1/time", "frequency at which its run has most power, per unit of dt", may_be_nan=True),
    "data_peak_frequency": Var(("rank",), "1/time", "the same of the data", may_be_nan=True),
    **{f"data_{name}": Var(("rank",), "1", f"{name} of one half of the data against the other: what a good fit comes to") for name in ("d_stsp", "d_h")},
    **{f"{name}_median": Var((), "1", f"median of {name} over the fits that did not diverge") for name in MEASURES},
    **{f"{name}_mad": Var((), "1", f"median absolute deviation of {name} from that") for name in MEASURES},
    "diverged": Var((), "1", "fits that diverged"),
}  # fmt: skip


def reduce(
    inputs: View[Reconstruction],
    shared: Shared,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """The fits with the smallest D_stsp whose runs move, and medians over all that did not diverge."""
    fine = np.flatnonzero(np.asarray(results["outcome"]) != DIVERGED)
    found = {name: np.asarray(results[name], float) for name in MEASURES}
    order = ranked(results, "d_stsp")[: options.n_best]
    out: dict[str, np.ndarray] = {"item": np.asarray(columns["item"])[order]}
    for name in ("end_spread", "peak_frequency"):
        if name in results:  # older stores have none; driven runs are not run on
            out[name] = np.asarray(results[name], float)[order]
    of_data = peak(np.asarray(shared.measured.x, float), np)[0] / inputs.dt
    data = of_halves(inputs, shared.measured.x) | {"peak_frequency": of_data}
    if len(order):
        error = found["prediction_error"][order[0]]
        variance = float(np.asarray(shared.measured.x, float).var((0, 1)).mean())
        _warn_of_distance(found["d_stsp"][order[0]], data["d_stsp"], error, variance)
    out |= {f"data_{name}": np.full(len(order), value) for name, value in data.items()}
    for name, values in found.items():
        # A measure without a value, as PE(n) of predictions that overflow, is the worst of all: a median counts it as infinite.
        of = np.where(np.isnan(values[fine]), np.inf, values[fine])
        middle = np.median(of) if len(of) else np.nan
        # An infinite value has no finite distance from the median, and is left out of the spread.
        apart = np.abs(of[np.isfinite(of)] - middle) if np.isfinite(middle) else np.zeros(0)
        out[name] = values[order]
        out[f"{name}_median"] = np.asarray(middle)
        out[f"{name}_mad"] = np.asarray(np.median(apart) if len(apart) else np.nan)
    return out | {"diverged": np.asarray(len(np.asarray(results["outcome"])) - len(fine))}


def _warn_of_distance(best: float, halves: float, error: float, variance: float) -> None:
    """Warn where the best fit runs in other places than the data, and predicts them no better than their mean does."""
    if best > max(FAR * halves, VISIBLE) and not error < variance:  # NaN: predictions overflow
        warnings.warn(
            f"no fit is like the data: the best d_stsp is {best:.3g}, that of one half of the data against the other {halves:.3g}, and "
            f"its prediction_error {error:.3g}, that of the data's mean {variance:.3g}; give more n_batches or hidden units, or other forcing",
            stacklevel=2,
        )


def next_jobs(
    params: Reconstruction, item: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, Any]]:
    """Find its fixed points; compute all its exponents."""
    del shapes
    states = {"weights": item, "cell": params.cell}
    # Halfway between states: `exact` finds no point inside a cycle from the states of the cycle alone.
    points = {"candidates": f"{item}::results", "dataset": "states", "mix": 0.5}
    return {
        "its fixed points": {
            "kernel": "fixed_points",
            "params": states | points,
            "sweep": {"grid": {"candidate": {"range": params.n_saved}}},  # as many as stored states
        },
        "its exponents": {
            "kernel": "fixed_points.exponents",
            "params": states | {"n_exponents": params.n},
        },
    }
