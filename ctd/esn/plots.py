"""The figures of an ensemble: success over the sweep, the best network's replay, the errors."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctd.esn.summary import REDUCED, SWEPT
from ctd.plots import (
    Axis,
    Figure,
    Group,
    Image,
    Layer,
    Lines,
    Plot,
    Points,
    Scale,
    histogram,
    is_wide,
    of_group,
    spread,
    stacked,
    tick,
)

N_OUTPUTS = 5
"""Most outputs drawn of a replay."""
N_CURVES = 200
"""Most networks whose training error is drawn."""


@of_group
def plots(group: Group) -> list[Plot]:
    """Success over the sweep, the replay of the best network, errors in training and replay."""
    results = group.results
    made = success(group.reduced) if varied_fields(group.reduced) else []
    if "trace" in results:
        made.append(replayed(group))
    if results["train_nrmse"].shape[1] > 1:
        made.append(_training(results, group.columns))
    return [*made, errors(results)]


@of_group
def figure(group: Group) -> Figure:
    """Success rate and median error over the sweep."""
    inputs = group.inputs
    title = f"{inputs.readout} on {inputs.target}, n = {inputs.n}"
    return Figure(success(group.reduced), title)


def errors(results: Mapping[str, np.ndarray]) -> Plot:
    """Histogram of the replay errors."""
    error = np.asarray(results["replay_nrmse"][:], float)
    # The axis is log10.
    error = error[np.isfinite(error) & (error > 0)]
    return Plot(
        "Replay error of all networks",
        [histogram(np.log10(error))],
        Axis("log10 replay NRMSE"),
        Axis("networks"),
        note="" if len(error) else "No network has a finite replay error.",
    )


def success(reduced: Mapping[str, np.ndarray]) -> list[Plot]:
    """Success rate and median error: maps over the first two varied fields, or curves over one."""
    varied = varied_fields(reduced)
    return _maps(varied, reduced) if len(varied) > 1 else _curves((*varied, None)[0], reduced)


def _threshold(reduced: Mapping[str, np.ndarray]) -> str:
    """The NRMSE below which a network succeeds; stores of an earlier ctd do not have it."""
    return f"below {float(reduced['success_below']):g}" if "success_below" in reduced else "low"


def _maps(varied: list[str], reduced: Mapping[str, np.ndarray]) -> list[Plot]:
    """Success rate and median error over the first two swept fields."""
    first, second, *others = varied
    grid = success_grid(first, second, reduced)
    x = Axis(first, ticks=[tick(v) for v in grid.xs])
    y = Axis(second, ticks=[tick(v) for v in grid.ys])
    further = f" over {', '.join(others)}" if others else ""
    count = reduced["count"]
    seeds = f"{count.min():,} networks" if np.ptp(count) == 0 else "all networks"
    threshold = _threshold(reduced)
    share = (
        f"1: the replay NRMSE of the network at a point is {threshold}, 0: it is not"
        if count.max() == 1
        else f"Share of the {seeds} at a point whose replay NRMSE is {threshold}"
    )
    return [
        Plot(
            "Success",
            [Image(grid.rate)],
            x,
            y,
            Scale("success rate", low=0.0, high=1.0),
            note=share + (f"; mean{further}." if others else "."),
        ),
        Plot(
            "Replay error",
            [Image(grid.error)],
            x,
            y,
            Scale("log10 median NRMSE"),
            note="Median over a point's networks; empty: half of them or more failed."
            + (f" Lowest value{further}." if others else ""),
        ),
    ]


def _curves(name: str | None, reduced: Mapping[str, np.ndarray]) -> list[Plot]:
    """Success rate and median error with their intervals, over the varied field; name None: of the only point."""
    x = np.asarray(reduced[name], float) if name else np.zeros(1)
    order = np.argsort(x, kind="stable")
    x = x[order]
    axis = Axis(name, log=is_wide(x)) if name else Axis(ticks=["all networks"])
    made = []
    for value, log in (("success_rate", False), ("nrmse_median", True)):
        y, low, high = (
            np.where(np.isfinite(reduced[value + end][order]), reduced[value + end][order], np.nan)
            for end in ("", "_low", "_high")
        )
        bars = np.stack([low, high], axis=1)
        layers: list[Layer] = [
            Lines(np.stack([x, x], axis=1), bars, "interval", faint=True),
            Lines(x, y, REDUCED[value].long_name),
            Points(
                x, y, text=[f"{name} {a:.4g}: {b:.4g}" for a, b in zip(x, y, strict=True)], hue=0
            ),
        ]
        title = value.replace("_", " ") + (f" over {name}" if name else "")
        note = "" if log else f"Success: a replay NRMSE that is {_threshold(reduced)}."
        made.append(Plot(title, layers, axis, Axis(value, log=log), note=note))
    return made


def replayed(group: Group, later: np.ndarray | None = None) -> Plot:
    """The first replay of the best network with its target, one output below the other.

    later: (item,) samples by which an item's training range starts later than `washout`; without it, 0.
    """
    inputs, shared, columns, results, reduced = group
    item = int(reduced["best_item"])
    row = int(np.flatnonzero(np.asarray(columns["item"][:]) == item)[0])
    outputs = np.asarray(results["trace"][row], float)[:, :N_OUTPUTS]
    start = inputs.washout + (inputs.train + inputs.validation if inputs.test else 0)
    start += 0 if later is None else int(later[row])
    targets = np.asarray(shared.targets, float)[start : start + len(outputs), :N_OUTPUTS]
    time = inputs.dt * np.arange(1, 1 + len(outputs))
    # One output's range plus a fifth separates the lines; 1e-9 keeps constant targets apart from 0.
    step = 1.2 * max(float(np.ptp(targets, axis=0).max()), 1e-9)
    middle = targets.mean(axis=0)
    # Cut a replay that leaves the scale of its target: it would flatten all other lines.
    outputs = np.where(np.abs(outputs - middle) < 1.5 * step, outputs, np.nan)
    text = [f"output {k}" for k in range(outputs.shape[1])]
    m = shared.targets.shape[1]
    return Plot(
        f"Replay of item {item}, the best",
        [
            Lines(time, stacked((targets - middle).T, step), "target", strong=True, text=text),
            Lines(time, stacked((outputs - middle).T, step), "network", text=text),
        ],
        Axis("time since the start of the replay"),
        Axis(ticks=text[::-1]),
        note="The network on its own."
        + (f" The first {N_OUTPUTS} of {m} outputs." if m > N_OUTPUTS else ""),
    )


def _training(results: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> Plot:
    """NRMSE of every pass of FORCE."""
    n, passes = results["train_nrmse"].shape
    rows = spread(n, N_CURVES)
    error = np.asarray(results["train_nrmse"][rows], float)
    final = np.asarray(results["replay_nrmse"][:], float)[rows]
    items = np.asarray(columns["item"][:])[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(final)
    text = [f"item {k}: replay NRMSE {e:.4g}" for k, e in zip(items, final, strict=True)]
    return Plot(
        "Training error by pass",
        [Lines(np.arange(1, passes + 1), error, "networks", shade, text, item=items)],
        Axis("pass"),
        Axis("NRMSE before each update", log=True),
        Scale("log10 replay NRMSE"),
        note="" if n <= N_CURVES else f"{len(rows)} of {n:,} networks, evenly spaced.",
    )


def varied_fields(reduced: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the swept fields that have more than one value."""
    return [name for name in SWEPT if name in reduced and len(np.unique(reduced[name])) > 1]


class SuccessGrid(NamedTuple):
    """Success rate and error over two swept fields."""

    xs: np.ndarray
    """(first,) values of the first field."""
    ys: np.ndarray
    """(second,) values of the second field."""
    rate: np.ndarray
    """(second, first) success rates."""
    error: np.ndarray
    """(second, first) log10 of the median NRMSE; NaN where it is infinite or missing."""


def success_grid(first: str, second: str, reduced: Mapping[str, np.ndarray]) -> SuccessGrid:
    """Put the points on a grid of two fields. Over points that differ in further fields, the rate is the mean and the error the minimum."""
    xs, column = np.unique(reduced[first], return_inverse=True)
    ys, row = np.unique(reduced[second], return_inverse=True)
    cell, shape = row * len(xs) + column, (len(ys), len(xs))
    n = np.bincount(cell, minlength=shape[0] * shape[1])
    # A cell without points divides 0 by 0: it stays empty.
    with np.errstate(invalid="ignore"):
        rate = np.bincount(cell, reduced["success_rate"], len(n)) / n
    error = np.full(len(n), np.inf)
    np.minimum.at(error, cell, reduced["nrmse_median"])
    with np.errstate(divide="ignore"):
        power = np.log10(np.where(np.isfinite(error), error, np.nan))
    return SuccessGrid(xs, ys, rate.reshape(shape), power.reshape(shape))
