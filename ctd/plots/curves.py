"""Plots that several kernels use: loss curves of many networks, generated lines beside true ones, units of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctd.plots import Axis, Band, Group, Image, Layer, Lines, Plot, Scale, has_line, spread

N_CURVES = 200
"""Most curves that are drawn."""
MANY = 10
"""Fewest networks with quantiles: of fewer, 10-90 % is about their range, and the curves themselves say more."""

STEPS = Axis("training step")

TOP = 3
"""Losses of diverged networks are drawn up to this multiple of the largest other loss: higher ones would flatten all others."""


def some_curves(group: Group, name: str, label: str, x: np.ndarray | None = None) -> Lines:
    """The result `name` (item, n) of up to N_CURVES items of a group, evenly spaced in their order, over x (n,), by default 1 ... n."""
    items = group.items
    some = spread(len(items), N_CURVES)
    curves = np.asarray(group.results[name][some], float)
    x = np.arange(1, 1 + curves.shape[1]) if x is None else x
    return Lines(x, curves, label, item=items[some])


def compare_lines(
    x: np.ndarray, true: np.ndarray, generated: np.ndarray, names: tuple[str, str], apart: float = 0
) -> list[Layer]:
    """Draw the lines that a network generated beside the true ones, both (line, n), over x (n,), each `apart` above the one before."""
    up = apart * np.arange(len(true))[:, None]
    return [Lines(x, true + up, names[0], faint=True), Lines(x, generated + up, names[1])]


def rows_axis(names: Sequence[str], step: float, unit: str = "") -> Axis:
    """The axis of rows that are `stacked` by a step, named from the top: each name is at the height of the row's 0.

    >>> rows_axis(["unit 3", "unit 7"], 4.4, "counts a bin").label
    'between two rows: 4.4 counts a bin'
    """
    return Axis(f"between two rows: {step:.4g} {unit}".strip(), ticks=names[::-1])


def unit_images(
    counts: np.ndarray, rates: np.ndarray, titles: tuple[str, str], note: str = ""
) -> list[Plot]:
    """Counts and rates (bin, unit) of one trial as images, units in the order of their peak rates: a sequence becomes a diagonal."""
    order = np.argsort(np.argmax(rates, axis=0), kind="stable")
    units = Axis("unit, by the time of its largest rate", ticks=[str(k) for k in order])
    return [
        Plot(title, [Image(values[:, order].T)], Axis("bin"), units, Scale(label), note=note)
        for title, values, label in zip(
            titles, (counts, rates), ("count", "rate a bin"), strict=True
        )
    ]


QUANTILES = np.array([0.1, 0.5, 0.9])


def curve_quantiles(curves: np.ndarray) -> np.ndarray:
    """`QUANTILES` (quantile, step) over the curves (item, step) that reached a step; NaN where none did.

    >>> curve_quantiles(np.array([[1.0, 2.0], [3.0, np.nan]])).round(1).tolist()
    [[1.2, 2.0], [2.0, 2.0], [2.8, 2.0]]
    """
    out = np.full((len(QUANTILES), curves.shape[1]), np.nan, curves.dtype)
    # nanquantile warns of columns without any number.
    reached = np.isfinite(curves).any(0)
    if reached.any():
        out[:, reached] = np.nanquantile(curves[:, reached], QUANTILES, axis=0)
    return out


@dataclass(frozen=True)
class Curves:
    """The loss curves of many networks."""

    steps: np.ndarray
    """(step,) the training steps at which the losses were taken."""
    losses: np.ndarray
    """(item, step), read when indexed."""
    items: np.ndarray
    """(item,) ids."""
    final: np.ndarray
    """(item,) the losses by which the networks are ranked and coloured, see `loss`."""
    failed: np.ndarray
    """(item,) bool: True for those that diverged."""
    quantiles: Any = None
    """(3, step) the 0.1, 0.5 and 0.9 quantiles over the networks that are trained, if known."""
    n_trained: int = 0
    """The number of these."""
    loss: str = "final loss"
    """The name of the loss in `final`: the curves may end at another one."""

    @property
    def has_quantiles(self) -> bool:
        """True if there are quantiles of enough networks to say more than the curves themselves."""
        is_enough = self.quantiles is not None and self.n_trained >= MANY
        return bool(is_enough and np.isfinite(self.quantiles).any())


def loss_curves(curves: Curves, title: str, axis: Axis, name: str, across: Axis = STEPS) -> Plot:
    """Plot the losses of up to N_CURVES networks against the training step, with the median and the 10-90 % of the trained ones.

    The networks are evenly spaced in the ranks of `final`, so that the best and the worst are among them.

    axis: of the losses. name: the word for the networks. across: the axis of `steps`.
    """
    items, final = curves.items, curves.final
    # Losses that are not finite come last, as the worst.
    rank = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    # Sorted again, so that rows are read from the store in order.
    some = np.sort(rank[spread(len(rank), N_CURVES)])
    losses = np.asarray(curves.losses[some], float)
    text = [f"item {items[k]}: {curves.loss} {final[k]:.4g}" for k in some]
    # A final loss of 0 or NaN has no logarithm; such a line is drawn without a shade.
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(final[some]) if axis.log else final[some]
    layers: list[Layer] = []
    if curves.has_quantiles:
        layers.append(Band(curves.steps, curves.quantiles[0], curves.quantiles[2], "10-90 %"))
    fine, failed = (np.flatnonzero(curves.failed[some] == kind) for kind in (False, True))
    identify = lambda rows: {"text": [text[k] for k in rows], "item": items[some][rows]}
    coloured = fine.size > 1  # the colour of a single one would compare it with nothing
    if fine.size:
        colour = shade[fine] if coloured else None
        layers.append(Lines(curves.steps, losses[fine], name, colour, **identify(fine)))
    notes = []
    if failed.size:
        top = TOP * np.nanmax(losses[fine], initial=-np.inf) if fine.size else np.inf
        high = losses[failed] > top
        losses[failed] = np.where(high, np.nan, losses[failed])
        layers.append(
            Lines(curves.steps, losses[failed], "diverged", dashed=True, **identify(failed))
        )
        if high.any():
            notes.append(f"Losses above {top:.3g} of those that diverged are not drawn.")
    n_hidden = int((~has_line(losses)).sum())
    if n_hidden:
        notes.append(f"Without a line: {n_hidden} of {len(some):,} {name}.")
    if curves.has_quantiles:
        layers.append(Lines(curves.steps, curves.quantiles[1], "median", strong=True))
        if curves.n_trained < len(items):
            notes.append(
                f"Median and 10-90 %: of the {curves.n_trained} {name} trained to their end."
            )
    if len(some) < len(items):
        notes.append(f"{len(some)} of {len(items):,} {name}, evenly spaced in their {curves.loss}.")
    label = f"log10 {curves.loss}" if axis.log else curves.loss
    scale = Scale(label if coloured else "")
    return Plot(title, layers, across, axis, scale, note=" ".join(notes))
