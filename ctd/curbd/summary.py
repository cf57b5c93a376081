"""Summary of a group of fits: the best ones, the currents between regions in all of them, and plots of currents, rates and pVar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ctd.curbd.params import Curbd, Shared
from ctd.kernel import Var, View
from ctd.plots import Axis, Group, Image, Plot, Scale, of_group, spread
from ctd.plots.curves import compare_lines, some_curves
from ctd.rows import Best, Columns, best_row, ranked

MOST = 4
"""Regions up to which each pair has a picture of its own; of more, the sizes of the currents alone are drawn."""
UNITS, BINS = 100, 400
"""Units and bins of a picture, at most."""

REDUCED = {
    "item": Var(("rank",), "item", "item id, by decreasing pVar"),
    "pvar": Var(("rank",), "1", "pVar of that fit"),
    "pvar_median": Var((), "1", "median of pVar over the fits that did not fail"),
    "current_rms_median": Var(("target", "source"), "1", "median over these fits of the current that a unit of `target` gets from `source`"),
    "current_rms_mad": Var(("target", "source"), "1", "median absolute deviation from that"),
    "current_target": Var(("current",), "1", "region that gets the current"),
    "current_source": Var(("current",), "1", "region that sends the current"),
    "current_median": Var(("current",), "1", "root mean square of the current that a unit of the target gets, median over these fits"),
    "current_mad": Var(("current",), "1", "median absolute deviation from that"),
    "failed": Var((), "1", "fits that diverged or were ill-conditioned"),
}  # fmt: skip


def reduce(
    inputs: View[Curbd], shared: Shared, columns: Columns, results: Columns, options: Best
) -> dict[str, np.ndarray]:
    """The fits with the largest pVar, and medians over all that did not fail."""
    fine = np.flatnonzero(np.asarray(results["outcome"]) == 0)
    pvar = np.asarray(results["pvar"], float)
    order = ranked(results, "pvar", more_is_better=True)[: options.n_best]
    n, names = len(shared.member), np.asarray(list(inputs.regions))
    sizes = np.asarray(results["current_rms"], float)[fine]
    median = lambda values: np.median(values, 0) if len(fine) else np.full(values.shape[1:], np.nan)
    middle = median(sizes)
    apart = median(np.abs(sizes - middle))
    return {
        "item": np.asarray(columns["item"])[order],
        "pvar": pvar[order],
        "pvar_median": np.asarray(median(pvar[fine])),
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
    exponent_params = {"weights": item, "cell": "leaky", "dtype": params.dtype}
    return {"its largest exponent": {"kernel": "fixed_points.exponents", "params": exponent_params}}


def _sizes(group: Group, row: int, item: int) -> Plot:
    """The size of the current between each two regions."""
    names = list(group.inputs.regions)
    size = np.asarray(group.results["current_rms"][row], float)[::-1]  # rows are drawn upwards
    across, down = Axis("source region", ticks=names), Axis("target region", ticks=names[::-1])
    scale = Scale("root mean square of the current", low=0.0)
    return Plot(f"Currents between regions, item {item}", [Image(size)], across, down, scale)


def _grid(group: Group, row: int) -> list[Plot]:
    """The currents of each pair of regions, unit by unit, the pairs of one target after each other."""
    names, member = list(group.inputs.regions), np.asarray(group.shared.member) > 0
    if len(names) > MOST or "currents" not in group.inputs.record:
        return []
    currents = np.asarray(group.results["currents"][row], float)
    every = -(-currents.shape[1] // BINS)
    currents, across = currents[:, ::every], Axis("bin" if every == 1 else f"bin / {every}")
    # One scale for all pairs, so that they compare; a single large current does not set it.
    high = float(np.quantile(np.abs(currents), 0.99)) or 1.0
    scale = Scale("current", diverging=True, low=-high, high=high)
    pictures = []
    for target, to in enumerate(names):
        units = np.flatnonzero(member[target])
        units = units[spread(len(units), UNITS)]
        # Units in the order in which they peak, by all of their currents: the same for every source.
        units = units[np.argsort(currents.sum(0)[:, units].argmax(0), kind="stable")]
        for source, origin in enumerate(names):
            picture = [Image(np.clip(currents[source][:, units].T, -high, high))]
            title = f"{origin} to {to}"
            pictures.append(
                Plot(title, picture, across, Axis(f"units of {to}, by their peaks"), scale)
            )
    return pictures


def _rates(group: Group, row: int, item: int) -> list[Plot]:
    """The rates of the units that vary most, beside their recording."""
    if "rates" not in group.inputs.record:
        return []
    rates = np.asarray(group.results["rates"][row], float)
    true = np.asarray(group.shared.x[0], float)[: len(rates)]
    some = np.argsort(-true.std(0))[:3]
    time = group.inputs.dt * np.arange(len(rates))
    names = "recording", f"network, item {item}"
    layers = compare_lines(time, true[:, some].T, rates[:, some].T, names, apart=2)
    return [Plot("Units that vary most", layers, Axis("time (unit of dt)"), Axis("rate, 2 apart"))]


def _curves(group: Group) -> Plot:
    """PVar of training runs."""
    lines = some_curves(group, "pvar_curve", "fits")
    curves = np.asarray(lines.y)
    note = "Values below -1 are drawn there." if np.nanmin(curves, initial=0.0) < -1 else ""
    # Untrained networks explain less than nothing, by any factor.
    lines = replace(lines, y=np.maximum(curves, -1))
    return Plot("Variance explained", [lines], Axis("training run"), Axis("pVar"), note=note)


@of_group
def plots(group: Group) -> list[Plot]:
    """Sizes of currents, rates, curves, and the grid of currents of the best fit."""
    best = best_row(group, "pvar", more_is_better=True)
    if best is None:
        return [_curves(group)]
    return [_curves(group), _sizes(group, *best), *_rates(group, *best), *_grid(group, best[0])]
