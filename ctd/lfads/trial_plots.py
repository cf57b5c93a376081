"""The plots of what a model infers of single trials, and of conditions: rates beside data, factors, inputs.

Arrays are (trial, time, unit), (trial, time, factor) ... of the first evaluation trials; `item` is the model's.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ctd.plots import Axis, Layer, Lines, Plot, Points, Scale, stacked
from ctd.plots.curves import rows_axis, unit_images
from ctd.principal import component, principal
from ctd.words import count

N_CONDITIONS = 8
"""Conditions that are drawn, those with most trials."""
N_BUSY, N_UNITS = 6, 4
"""Units whose rates in one trial, and whose averages, are drawn: the most active ones."""
N_TRIALS = 6
"""Single trials that are drawn."""


def _busiest(data: np.ndarray, n: int) -> np.ndarray:
    """The units with most spikes in data (..., time, unit), in their order."""
    total = data.reshape(-1, data.shape[-1]).sum(axis=0)
    return np.sort(np.argsort(-total, kind="stable")[:n])


def _apart(*values: np.ndarray) -> float:
    """The distance of rows of rates: a little more than the largest rate, so that rows do not touch."""
    return 1.2 * max(*(float(rows.max()) for rows in values), 1e-9)


# --- rates ----------------------------------------------------------------------------------------


def rates_of(
    rates: np.ndarray, data: np.ndarray, truth: np.ndarray | None, item: int
) -> list[Plot]:
    """The most active units on one trial, the most active one on several, all units as images. truth: true rates of the first trials."""
    busy, n_true = _busiest(data, N_BUSY), 0 if truth is None else len(truth)
    true = truth[0][:, busy].T if truth is not None and n_true else None
    one_trial = _rows(
        f"Rates of model {item} against the data, one trial",
        (rates[0][:, busy].T, data[0][:, busy].T, true), [f"unit {unit}" for unit in busy],
        f"The {len(busy)} most active units on evaluation trial 0; their data are marks at the height of rate 0.",
    )  # fmt: skip
    unit, n = int(np.argmax(data.sum(axis=(0, 1)))), min(N_TRIALS, len(rates))
    true = truth[:n, :, unit] if truth is not None and n_true >= n else None
    one_unit = _rows(
        f"Rates of unit {unit}, single trials, model {item}",
        (rates[:n, :, unit], data[:n, :, unit], true), [f"trial {k}" for k in range(n)],
        "The most active unit on the first evaluation trials; its data are marks at the height of rate 0.",
    )  # fmt: skip
    titles = "Data of one trial", f"Rates of model {item} on that trial"
    return [one_trial, one_unit, *unit_images(data[0], rates[0], titles, "Evaluation trial 0.")]


def _rows(
    title: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    names: Sequence[str],
    note: str,
) -> Plot:
    """Rates (row, bin), one row below the other, with the data as marks. arrays: rates, data, and true rates or None."""
    rates, data, true = arrays
    step = _apart(*(rows for rows in (rates, true) if rows is not None))
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
    return Plot(title, layers, Axis("bin"), rows_axis(names, step, "counts a bin"), note=note)


# --- factors and inputs ---------------------------------------------------------------------------


def factors_of(factors: np.ndarray, item: int) -> list[Plot]:
    """Factors in their principal components: one against the other, and over time."""
    project, share = principal(factors.reshape(-1, factors.shape[-1]), 3)
    paths = project(factors)
    time = np.arange(factors.shape[1])
    # Time as colour: the direction of a trajectory shows.
    shade = np.tile(time.astype(float), (len(paths), 1))
    text = [f"evaluation trial {k}" for k in range(len(paths))]
    layers: list[Layer] = [
        Lines(time, paths[..., k], f"component {k + 1}", text=text) for k in range(len(share))
    ]
    title = f"Factors of model {item} over time"
    over_time = Plot(title, layers, Axis("bin"), Axis("principal component"))
    if len(share) == 1:
        return [over_time]
    lines = Lines(paths[..., 0], paths[..., 1], "trials", colour=shade, text=text)
    axes = Axis(component(share, 0)), Axis(component(share, 1))
    return [Plot(f"Factors of model {item}, state space", [lines], *axes, Scale("bin")), over_time]


def inputs_of(inferred: np.ndarray, truth: np.ndarray | None, item: int) -> list[Plot]:
    """Up to three inferred inputs of some trials; the first beside the true one, which is scaled."""
    names = [f"trial {k}" for k in range(min(N_TRIALS, len(inferred)))]
    figures = []
    for k in range(min(3, inferred.shape[-1])):
        # Around the mean over all shown trials, so that trials remain comparable.
        rows = inferred[:N_TRIALS, :, k]
        rows = rows - rows.mean()
        time, step = np.arange(rows.shape[1]), 1.2 * max(float(np.ptp(rows)), 1e-9)
        layers: list[Layer] = [Lines(time, stacked(rows, step), "inferred", text=names)]
        title, note = f"Inferred input {k + 1} of model {item}", "Evaluation trials."
        if k == 0:
            title = f"Inferred inputs of model {item}"
            note = "The first inferred input on evaluation trials."
        if k == 0 and truth is not None and len(truth) >= len(rows):
            true = truth[: len(rows), :, 0]
            centred = true - true.mean()
            # Least squares over all shown trials: one factor for all of them.
            fitted = centred * np.sum(centred * rows) / (np.sum(centred**2) or 1.0)
            lines = stacked(fitted, step)
            layers.insert(0, Lines(time, lines, "true, scaled", strong=True, text=names))
            note += (
                " The true one is scaled to it by least squares: sign and unit are not identified."
            )
        figures.append(Plot(title, layers, Axis("bin"), rows_axis(names, step), note=note))
    return figures


# --- conditions -----------------------------------------------------------------------------------


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
    numbers: np.ndarray,
    item: int,
) -> list[Plot]:
    """Plot averages over the saved trials of each condition: data and rates, and factors in three principal components.

    rates, factors, data: (trial, time, ...) of the saved trials. condition: (trial, condition) bool.
    numbers: (condition,) those of the file.
    """
    n = condition.sum(axis=0)
    selected = np.sort(np.argsort(-n, kind="stable")[: min(N_CONDITIONS, int((n > 0).sum()))])
    if not len(selected):
        return []
    condition, numbers = condition[:, selected], numbers[selected]
    note = f"{len(selected)} of {len(n)} conditions; averages over {count(int(condition.sum()), 'saved evaluation trial')}."
    figures = []
    if rates is not None:
        title = f"PSTHs of data and of model {item}, by condition"
        figures.append(
            _psths(title, averages(rates, condition), averages(data, condition), numbers)
        )
    if factors is not None:
        title = f"Factors of model {item} by condition"
        figures += _planes(title, averages(factors, condition), factors, numbers)
    return [replace(plot, note=f"{plot.note} {note}".strip()) for plot in figures]


def _psths(title: str, rates: np.ndarray, data: np.ndarray, numbers: np.ndarray) -> Plot:
    """PSTHs of the most active units, from averages (condition, time, unit): rates as lines, data dashed."""
    units = _busiest(data, N_UNITS)
    step = _apart(rates[..., units], data[..., units])
    time = np.arange(rates.shape[1])
    layers: list[Layer] = []
    for hue, number in enumerate(numbers):
        for values, name, dashed in ((data, "data", True), (rates, "rates", False)):
            lines = stacked(values[hue][:, units].T, step)
            text = [f"unit {u}, condition {number:g}, {name}" for u in units]
            label = f"condition {number:g}, {name}"
            layers.append(Lines(time, lines, label, text=text, dashed=dashed, hue=hue))
    rows = rows_axis([f"unit {u}" for u in units], step, "counts a bin")
    note = f"Rate 0 is at the height of a unit's name; the {len(units)} most active units."
    return Plot(title, layers, Axis("bin"), rows, note=note)


def _planes(title: str, paths: np.ndarray, factors: np.ndarray, numbers: np.ndarray) -> list[Plot]:
    """Averages (condition, time, factor) in the planes of the first three principal components of all saved trials."""
    project, share = principal(factors.reshape(-1, factors.shape[-1]), 3)
    paths = project(paths)
    text = [f"condition {number:g}" for number in numbers]
    return [
        Plot(
            f"{title}, components {a + 1} and {b + 1}",
            [Lines(paths[..., a], paths[..., b], "conditions", numbers.astype(float), text)],
            Axis(component(share, a)),
            Axis(component(share, b)),
            Scale("condition"),
        )
        for a, b in ((0, 1), (0, 2), (1, 2))
        if b < len(share)
    ]
