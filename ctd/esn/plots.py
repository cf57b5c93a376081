"""The figures of an ensemble: success, errors and valid times over the sweep, the best network's replay."""

from typing import NamedTuple

import numpy as np

from ctd.esn.params import DIVERGED
from ctd.esn.summary import SWEPT
from ctd.plots import (
    Axis,
    Group,
    Image,
    Layer,
    Lines,
    Plot,
    Points,
    Scale,
    is_wide,
    log_histogram,
    of_group,
    stacked,
)
from ctd.plots.curves import Curves, loss_curves, rows_axis
from ctd.rows import Columns
from ctd.words import left_out, number

N_OUTPUTS = 5
"""Most outputs drawn of a replay."""


@of_group
def plots(group: Group) -> list[Plot]:
    """Success over the sweep, the replay of the best network, errors in training and replay."""
    figures = success(group) if varied_fields(group.reduced) else []
    figures += replayed(group)
    if group.results["train_nrmse"].shape[1:] not in ((), (1,)):  # of several passes
        figures.append(_training(group))
    return [*figures, _errors(group)]


def _errors(group: Group) -> Plot:
    """Histogram of the replay errors."""
    error = group.values("replay_nrmse")
    note = left_out(int((~np.isfinite(error)).sum()), noun="network")
    if not np.isfinite(error).any():
        note = "No network has a finite replay error."
    axes = Axis("log10 replay NRMSE"), Axis("networks")
    return Plot("Replay error of all networks", [log_histogram(error)], *axes, note=note)


class Measure(NamedTuple):
    """A reduced value that the pictures show."""

    name: str
    title: str
    label: str
    note: str
    """Describes the value at a point; `{seeds}`, `{threshold}`, `{valid_error}` and `{horizon}` are filled in."""
    best: np.ufunc | None
    """Chooses among points that differ in further fields; None: their mean."""


MEASURES = (
    Measure(
        "success_rate", "Success", "success rate",
        "Share of {seeds} at a point whose replay NRMSE is {threshold}", None,
    ),
    Measure(
        "nrmse_median", "Replay error", "median NRMSE",
        "Median over a point's networks; no value: half of them or more failed", np.fmin,
    ),
    Measure(
        "valid_time_median", "Valid time", "median valid time",
        "Median over a point's networks of the time before an error first exceeds {valid_error:g} deviations, "
        "0 where the first sample's does or the network failed; at most {horizon}, the horizon", np.fmax,
    ),
)  # fmt: skip


def success(group: Group) -> list[Plot]:
    """Success rate, median error and valid time: maps or points over the first two varied fields, or curves over one."""
    varied = varied_fields(group.reduced)
    draw = _over_two if len(varied) > 1 else _curve
    return [draw(measure, varied, group) for measure in MEASURES]


def _label(name: str, group: Group) -> str:
    """A swept field as the label of an axis: `g` says what it is."""
    return f"g ({group.inputs.scale.replace('_', ' ')})" if name == "g" else name


def _note(measure: Measure, group: Group) -> str:
    """The measure's note, with its numbers filled in."""
    reduced, inputs = group.reduced, group.inputs
    low, count = f"below {float(reduced['success_below']):g}", reduced["count"]
    if measure.name == "success_rate" and count.max() == 1:
        return f"1: the replay NRMSE of the network at a point is {low}, 0: it is not"
    seeds = f"the {count.min():,} networks" if np.ptp(count) == 0 else "all networks"
    horizon = inputs.dt * (inputs.horizon or inputs.test or inputs.train)
    return measure.note.format(
        seeds=seeds, threshold=low, valid_error=inputs.valid_error, horizon=number(horizon, 3)
    )


def _over_two(measure: Measure, varied: list[str], group: Group) -> Plot:
    """A value over the first two varied fields: a map, or points on true axes where most cells of a map would be empty."""
    reduced, (first, second, *others) = group.reduced, varied
    value = np.asarray(reduced[measure.name], float)
    label, scale, note = measure.label, Scale(measure.label), _note(measure, group)
    if measure.name == "success_rate":
        scale = Scale(label, low=0.0, high=1.0)
    elif measure.name == "nrmse_median":
        value, scale = _log(value), Scale(f"log10 {label}")
    x, y = (np.asarray(reduced[name], float) for name in (first, second))
    across, up = (_label(name, group) for name in (first, second))
    if len(np.unique(x)) * len(np.unique(y)) > SPARSE * len(x):
        text = [
            f"{first} {a:.4g}, {second} {b:.4g}: {c:.4g}"
            for a, b, c in zip(x, y, value, strict=True)
        ]
        points = Points(x, y, colour=value, text=text)
        axes = Axis(across, log=is_wide(x)), Axis(up, log=is_wide(y))
        note += f"; points differ in {', '.join(others)}, too" if others else ""
        return Plot(measure.title, [points], *axes, scale, note=f"{note}.")
    if others:
        kind = "mean" if measure.best is None else "best value"
        note += f"; {kind} over {', '.join(others)}"
    xs, ys, z = on_grid(x, y, value, measure.best)
    axes = (
        Axis(across, ticks=[number(v, 3) for v in xs]),
        Axis(up, ticks=[number(v, 3) for v in ys]),
    )
    return Plot(measure.title, [Image(z)], *axes, scale, note=f"{note}.")


SPARSE = 2
"""Cells of a map for each point, above which points are drawn: those of a search or of random draws never share a row."""


def _log(value: np.ndarray) -> np.ndarray:
    """Log10; NaN where the value is infinite."""
    with np.errstate(divide="ignore"):
        return np.log10(np.where(np.isfinite(value), value, np.nan))


def _curve(measure: Measure, varied: list[str], group: Group) -> Plot:
    """A value over the varied field, with its interval if it has one."""
    reduced, name = group.reduced, varied[0]
    x = np.asarray(reduced[name], float)
    order = np.argsort(x, kind="stable")
    x = x[order]
    finite = lambda v: np.where(np.isfinite(v[order]), v[order], np.nan)
    y = finite(reduced[measure.name])
    layers: list[Layer] = []
    if f"{measure.name}_low" in reduced:
        ends = [finite(reduced[f"{measure.name}_{end}"]) for end in ("low", "high")]
        both = np.stack([x, x], axis=1), np.stack(ends, axis=1)
        name_of = f"{100 * float(reduced['confidence']):g} % interval"
        layers.append(Lines(*both, name_of, faint=True))
    text = [f"{name} {a:.4g}: {b:.4g}" for a, b in zip(x, y, strict=True)]
    layers += [Lines(x, y, measure.label), Points(x, y, text=text, hue=0)]
    across = Axis(_label(name, group), log=is_wide(x))
    up = Axis(measure.label, log=measure.name == "nrmse_median")
    return Plot(
        f"{measure.title} over {name}", layers, across, up, note=f"{_note(measure, group)}."
    )


def replayed(group: Group) -> list[Plot]:
    """The first replay of the best network with its target, one output below the other; none before `reduce` has chosen it."""
    if "trace_target" not in group.results or not group.reduced:
        return []
    item = int(group.reduced["best_item"])
    row = int(np.flatnonzero(group.items == item)[0])
    read = lambda name: np.asarray(group.results[name][row], float)[:, :N_OUTPUTS]
    outputs, targets = read("trace"), read("trace_target")
    time = group.inputs.dt * np.arange(1, 1 + len(outputs))
    # One output's range plus a fifth separates the lines; 1e-9 keeps constant targets apart from 0.
    step = 1.2 * max(float(np.ptp(targets, axis=0).max()), 1e-9)
    middle = targets.mean(axis=0)
    # Cut a replay that leaves the scale of its target: it would flatten all other lines.
    outputs = np.where(np.abs(outputs - middle) < 1.5 * step, outputs, np.nan)
    text = [f"output {k}" for k in range(outputs.shape[1])]
    m, note = group.results["trace"].shape[2], "The network on its own."
    if m > N_OUTPUTS:
        note += f" The first {N_OUTPUTS} of {m} outputs."
    lines, up = (lambda values: stacked((values - middle).T, step)), rows_axis(text, step)
    if m == 1:
        lines, up = (lambda values: values.T), Axis("output")
    layers = [
        Lines(time, lines(targets), "target", strong=True, text=text),
        Lines(time, lines(outputs), "network", text=text),
    ]
    axes = Axis("time since the start of the replay"), up
    return [Plot(f"Replay of item {item}, the best", layers, *axes, note=note)]


def _training(group: Group) -> Plot:
    """NRMSE of every pass of FORCE."""
    errors, final = group.results["train_nrmse"], group.values("replay_nrmse")
    passes, failed = np.arange(1, 1 + errors.shape[1]), group.ended(DIVERGED)
    curves = Curves(passes, errors, group.items, final, failed, loss="replay NRMSE")
    axis = Axis("NRMSE before each update", log=True)
    return loss_curves(curves, "Training error by pass", axis, "networks", Axis("pass"))


def varied_fields(reduced: Columns) -> list[str]:
    """The names of the swept fields that have more than one value."""
    return [name for name in SWEPT if name in reduced and len(np.unique(reduced[name])) > 1]


def on_grid(
    x: np.ndarray, y: np.ndarray, value: np.ndarray, best: np.ufunc | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put points (x, y) on the grid of their values: (xs, ys, z (y, x)). `best` chooses among points in one cell; None takes their mean.

    >>> on_grid(np.array([1, 1, 2]), np.array([5, 5, 5]), np.array([3.0, 4, np.nan]), np.fmin)
    (array([1, 2]), array([5]), array([[ 3., nan]]))
    """
    xs, column = np.unique(x, return_inverse=True)
    ys, row = np.unique(y, return_inverse=True)
    z = np.full((len(ys), len(xs)), np.nan)
    if best is not None:
        best.at(z, (row, column), value)
    else:
        count, total = np.zeros_like(z), np.zeros_like(z)
        np.add.at(count, (row, column), 1)
        np.add.at(total, (row, column), value)
        np.divide(total, count, out=z, where=count > 0)  # a cell without points stays empty
    return xs, ys, z
