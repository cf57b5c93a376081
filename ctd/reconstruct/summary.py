"""Summary of a group of fits: the best ones, the median and spread of each measure, and plots of attractors, spectra and curves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.kernel import Var, View
from ctd.plots import Axis, Group, Layer, Lines, Plot, Points, of_group
from ctd.plots.curves import Curves, compare_lines, loss_curves
from ctd.principal import principal
from ctd.reconstruct.data import Shared
from ctd.reconstruct.measures import compare_halves, divergence_at_rest, peak
from ctd.reconstruct.params import AT_REST, DIVERGED, FITTED, WORSE_THAN_MEAN, Reconstruction
from ctd.rows import Best, Columns, ranked
from ctd.training import block_ends

MOST = 3000
"""Samples of an attractor that are drawn."""

MEASURES = {"d_stsp": "1", "d_h": "1", "prediction_error": "1", "exponent": "1/time"}
"""Measure of a fit -> its units."""

SMALL = 0.1
"""A D_stsp up to which a fit is like the data."""

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing D_stsp, those that predict no better than the mean of the data last; runs at rest are left out"),
    **{name: Var(("rank",), units, f"{name} of that fit") for name, units in MEASURES.items()},
    "end_spread": Var(("rank",), "1", "sd of its run after 10,000 steps or more, over that of the data"),
    "peak_frequency": Var(("rank",), "1/time", "frequency at which its run has most power, per unit of dt", may_be_nan=True),
    "data_peak_frequency": Var(("rank",), "1/time", "the same of the data", may_be_nan=True),
    **{f"data_{name}": Var(("rank",), "1", f"{name} of one half of the data against the other: what a good fit comes to") for name in ("d_stsp", "d_h")},
    **{f"{name}_median": Var((), units, f"median of {name} over the fits that did not diverge") for name, units in MEASURES.items()},
    **{f"{name}_mad": Var((), units, f"median absolute deviation of {name} from that") for name, units in MEASURES.items()},
    "diverged": Var((), "1", "fits that diverged"),
}  # fmt: skip


def reduce(
    inputs: View[Reconstruction], shared: Shared, columns: Columns, results: Columns, options: Best
) -> dict[str, np.ndarray]:
    """The best fits whose runs move, and medians over all that did not diverge."""
    fine = np.flatnonzero(np.asarray(results["outcome"]) != DIVERGED)
    measures = {name: np.asarray(results[name], float) for name in MEASURES}
    order = best_fits(results)[: options.n_best]
    out: dict[str, np.ndarray] = {"item": np.asarray(columns["item"])[order]}
    for name in ("end_spread", "peak_frequency"):
        if name in results:  # driven runs are not run on, and have no end_spread
            out[name] = np.asarray(results[name], float)[order]
    of_data = peak(np.asarray(shared.measured.x, float), np)[0] / inputs.dt
    data = compare_halves(inputs, shared.measured.x) | {"peak_frequency": of_data}
    # Fits of short trials may rest after them, however well they predict.
    of_one = len(shared.measured.x) == 1
    if len(order) and (of_one or results["outcome"][order[0]] == WORSE_THAN_MEAN):
        at_rest = divergence_at_rest(inputs, shared.measured.x)
        _warn_of_distance(measures["d_stsp"][order[0]], data["d_stsp"], at_rest)
    out |= {f"data_{name}": np.full(len(order), value) for name, value in data.items()}
    for name, values in measures.items():
        # A measure without a value, as PE(n) of predictions that overflow, is the worst of all: a median counts it as infinite.
        without_nan = np.where(np.isnan(values[fine]), np.inf, values[fine])
        middle = np.median(without_nan) if len(without_nan) else np.nan
        # An infinite value has no finite distance from the median, and is left out of the spread.
        apart = (
            np.abs(without_nan[np.isfinite(without_nan)] - middle)
            if np.isfinite(middle)
            else np.zeros(0)
        )
        out[name] = values[order]
        out[f"{name}_median"] = np.asarray(middle)
        out[f"{name}_mad"] = np.asarray(np.median(apart) if len(apart) else np.nan)
    return out | {"diverged": np.asarray(len(np.asarray(results["outcome"])) - len(fine))}


def best_fits(results: Columns) -> np.ndarray:
    """The rows of fits whose runs move, by increasing D_stsp; those that predict no better than the mean of the data come last."""
    outcome = np.asarray(results["outcome"][:])
    rows = [ranked({"outcome": outcome - end, "d_stsp": results["d_stsp"]}, "d_stsp") for end in (FITTED, WORSE_THAN_MEAN)]  # fmt: skip
    return np.concatenate(rows)


def _warn_of_distance(best: float, halves: float, at_rest: float) -> None:
    """Warn if the logarithm of the best fit's D_stsp is nearer to that of a run at rest than to that of two halves of the data."""
    if best > max((halves * at_rest) ** 0.5, SMALL):
        warnings.warn(
            f"no fit is like the data: the best d_stsp is {best:.3g}, that of one half of the data against the other {halves:.3g}, and "
            f"that of a run at rest {at_rest:.3g}; give more n_batches or hidden units, or other forcing",
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


def _generated(group: Group, row: int) -> np.ndarray:
    """(step, channel) the observations of the stored states of an item."""
    read = lambda name: np.asarray(group.results[name][row], float)
    return np.asarray(read("states") @ read("weights.wO").T + read("weights.bO"))


def _recording_note(group: Group) -> str:
    """The recording that is drawn, as the end of a title; "" if there is no other."""
    n = len(group.shared.measured.x)
    return f"; the first of {n:,} recordings" if n > 1 else ""


def _attractor(group: Group, row: int, item: int) -> Plot:
    """Two channels, or the first two principal components of the data."""
    true = np.asarray(group.shared.measured.x[0], float)[:MOST]
    # The network's run is drawn in the components of the data, where both compare.
    generated = _generated(group, row)[:MOST]
    if true.shape[1] > 1:
        project, share = principal(true, 2)
        names = [f"component {k + 1} ({part:.0%})" for k, part in enumerate(share[:2])]
        parts = lambda v: project(v).T
    else:
        names = ["sample", "next sample"]
        # One channel alone is drawn against its next value.
        parts = lambda v: np.stack([v[:-1, 0], v[1:, 0]])
    (x, y), (u, v) = parts(true), parts(generated)
    run: Layer = Lines(u, v, f"network, item {item}")
    if group.results["outcome"][row] == AT_REST:  # a line of no length would not be seen
        run = Points(u[-1:], v[-1:], f"network, item {item}, at rest", marker="diamond")
    layers = [Lines(x, y, "data", faint=True), run]
    x_axis, y_axis = map(Axis, names)
    return Plot(f"Attractor, true and generated{_recording_note(group)}", layers, x_axis, y_axis)


def _spectra(group: Group, row: int, item: int) -> Plot:
    """Spectra of the first channel, of equal lengths."""
    generated = _generated(group, row)[:, 0]
    true = np.asarray(group.shared.measured.x[0, : len(generated), 0], float)
    n = min(len(generated), len(true))
    frequency = np.fft.rfftfreq(n, float(group.inputs.dt))[1:]
    # The ends of a series do not meet: without a window they would spread power over all frequencies.
    window = np.hanning(n)

    def power(values: np.ndarray) -> np.ndarray:
        centred = (values[:n] - values[:n].mean()) * window
        return np.asarray(np.abs(np.fft.rfft(centred))[None, 1:] ** 2 / n)

    layers = compare_lines(
        frequency, power(true), power(generated), ("data", f"network, item {item}")
    )
    axes = Axis("frequency (1 / unit of dt)"), Axis("power", log=True)
    return Plot(f"Power spectra, channel 0{_recording_note(group)}", layers, *axes)


def _beside_d_stsp(group: Group, name: str, title: str, axis: Axis) -> Plot:
    """Another measure of all fits against their D_stsp."""
    items = group.items
    x, y, exponent = map(group.values, ("d_stsp", name, "exponent"))
    fine = np.isfinite(x) & np.isfinite(y)
    text = [f"item {k}: exponent {e:.4g}" for k, e in zip(items[fine], exponent[fine], strict=True)]
    layer = Points(x[fine], y[fine], text=text, key=items[fine], item=items[fine])
    return Plot(title, [layer], Axis("D_stsp"), axis)


def _curves(group: Group) -> Plot:
    final, failed = group.values("train_loss"), group.ended(DIVERGED)
    curves = Curves(block_ends(group.inputs), group.results["curve"], group.items, final, failed)
    title = f"Fitting {group.inputs.cell}, n = {group.inputs.n}"
    return loss_curves(curves, title, Axis("squared error of forced predictions", log=True), "fits")


@of_group
def plots(group: Group) -> list[Plot]:
    """The attractor and spectra of the best fit, loss curves, measures of all. Where all runs rest, the point of the first one."""
    best = best_fits(group.results)[:1]
    common_plots = [
        _curves(group),
        _beside_d_stsp(group, "d_h", "How near the attractors are", Axis("D_H")),
        _beside_d_stsp(group, "exponent", "Largest exponents", Axis("exponent (1 / unit of dt)")),
    ]
    if np.isfinite(group.values("d_stsp")[best]).any():
        row, item = int(best[0]), int(group.items[best[0]])
        return [_attractor(group, row, item), _spectra(group, row, item), *common_plots]
    # Runs at rest have no spectrum.
    resting_rows = np.flatnonzero(group.ended(AT_REST))[:1]
    return [*(_attractor(group, k, group.items[k]) for k in resting_rows), *common_plots]
