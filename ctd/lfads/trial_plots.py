"""The plots of the best LFADS model in a report, by condition and trial by trial."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ctd.plots import Axis, Layer, Lines, Plot, Points, Scale, stacked
from ctd.plots.curves import rows_axis
from ctd.principal import component, principal
from ctd.words import count

N_CONDITIONS = 8
"""Conditions that are drawn, those with most trials."""
N_UNITS = 4
"""Units whose averages are drawn, the most active ones."""
N_TRIALS = 6
"""Single trials that are drawn."""


def trial_layers(
    rates: np.ndarray, data: np.ndarray, true: np.ndarray | None, names: Sequence[str]
) -> tuple[list[Layer], Axis]:
    """Rates (row, bin), one row below the other, with the data as marks, and the axis of the rows. true: the true rates."""
    # Rows are apart by a little more than the largest rate, so that they do not touch.
    step = 1.2 * max(float(rates.max()), float(true.max()) if true is not None else 0.0, 1e-9)
    time = np.arange(rates.shape[1])
    layers: list[Layer] = []
    if true is not None:
        layers.append(Lines(time, stacked(true, step), "true rate", strong=True, text=names))
    layers.append(Lines(time, stacked(rates, step), "rate", text=names))
    row, bin = np.nonzero(data)
    heights = data[row, bin]
    # Areas in proportion to counts; 0.02 keeps a single spike small.
    size = 0.02 * heights / max(1.0, float(np.abs(heights).max(initial=1)))
    text = [f"{names[r]}, bin {b}: {h:g}" for r, b, h in zip(row, bin, heights, strict=True)]
    layers.append(Points(bin, len(names) - 1 - row, "data", size=size, text=text))
    return layers, rows_axis(names, step, "counts a bin")


def single_trials(rates: np.ndarray, data: np.ndarray, truth: np.ndarray | None, item: int) -> Plot:
    """The most active unit on the first saved trials. rates, data: (trial, time, unit). truth: true rates of the first trials."""
    unit = int(np.argmax(data.sum(axis=(0, 1))))
    n = min(N_TRIALS, len(rates))
    true = truth[:n, :, unit] if truth is not None and len(truth) >= n else None
    names = [f"trial {k}" for k in range(n)]
    layers, rows = trial_layers(rates[:n, :, unit], data[:n, :, unit], true, names)
    return Plot(
        f"Rates of unit {unit}, single trials, model {item}",
        layers,
        Axis("bin"),
        rows,
        note="The most active unit on the first evaluation trials; its data are marks at the height of rate 0.",
    )


def averages(values: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """The averages (condition, time, ...) of values (trial, time, ...). condition: (trial, condition) bool; each has a trial.

    >>> averages(np.array([[1.0], [3.0], [5.0]]), np.array([[True, False], [True, False], [False, True]]))
    array([[2.],
           [5.]])
    """
    return np.stack([values[mine].mean(axis=0) for mine in condition.T])


def by_condition(
    rates: np.ndarray | None,
    factors: np.ndarray | None,
    data: np.ndarray,
    condition: np.ndarray,
    item: int,
) -> list[Plot]:
    """Plot averages over the saved trials of each condition: data and rates, and factors in three principal components.

    rates, factors, data: (trial, time, ...) of the saved trials. condition: (trial, condition) bool.
    """
    n = condition.sum(axis=0)
    shown = np.sort(np.argsort(-n, kind="stable")[: min(N_CONDITIONS, int((n > 0).sum()))])
    if not len(shown):
        return []
    condition = condition[:, shown]
    note = f"{len(shown)} of {len(n)} conditions; averages over {count(int(condition.sum()), 'saved evaluation trial')}."
    made = []
    if rates is not None:
        title = f"PSTHs of data and of model {item}, by condition"
        made.append(_psths(title, averages(rates, condition), averages(data, condition), shown))
    if factors is not None:
        title = f"Factors of model {item} by condition"
        made += _planes(title, averages(factors, condition), factors, shown)
    return [replace(plot, note=f"{plot.note} {note}".strip()) for plot in made]


def _psths(title: str, rates: np.ndarray, data: np.ndarray, shown: np.ndarray) -> Plot:
    """PSTHs of the most active units, from averages (condition, time, unit): rates as lines, data dashed."""
    units = np.sort(np.argsort(-data.sum(axis=(0, 1)), kind="stable")[:N_UNITS])
    step = 1.2 * max(float(rates[..., units].max()), float(data[..., units].max()), 1e-9)
    time = np.arange(rates.shape[1])
    layers: list[Layer] = []
    for hue, number in enumerate(shown):
        for values, name, dashed in ((data, "data", True), (rates, "rates", False)):
            lines = stacked(values[hue][:, units].T, step)
            text = [f"unit {u}, condition {number}, {name}" for u in units]
            label = f"condition {number}, {name}"
            layers.append(Lines(time, lines, label, text=text, dashed=dashed, hue=hue))
    rows = rows_axis([f"unit {u}" for u in units], step, "counts a bin")
    note = f"Rate 0 is at the height of a unit's name; the {len(units)} most active units."
    return Plot(title, layers, Axis("bin"), rows, note=note)


def _planes(title: str, paths: np.ndarray, factors: np.ndarray, shown: np.ndarray) -> list[Plot]:
    """Averages (condition, time, factor) in the planes of the first three principal components of all saved trials."""
    project, share = principal(factors.reshape(-1, factors.shape[-1]), 3)
    paths = project(paths)
    text = [f"condition {number}" for number in shown]
    return [
        Plot(
            f"{title}, components {a + 1} and {b + 1}",
            [Lines(paths[..., a], paths[..., b], "conditions", shown.astype(float), text)],
            Axis(component(share, a)),
            Axis(component(share, b)),
            Scale("condition"),
        )
        for a, b in ((0, 1), (0, 2), (1, 2))
        if b < len(share)
    ]
