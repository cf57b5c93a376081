"""Loss curves of many networks, coloured by what was swept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ctd.plots import Axis, Band, Layer, Lines, Plot, Scale, is_wide, spread, tick

N_CURVES = 200
"""Largest number of curves that are drawn."""
N_VALUES = 12
"""With at most so many values of what was swept, the median curve of each is drawn."""


def block_ends(settings: Any) -> np.ndarray:
    """(block,) the training step at which each block of `report_every` steps ends; the last is `n_batches`."""
    n, every = settings.n_batches, settings.report_every
    return np.minimum(np.arange(every, n + every, every), n)


class Swept(NamedTuple):
    """A parameter that differs between items."""

    name: str
    values: np.ndarray
    """(item,)"""
    others: tuple[str, ...]
    """Further ones."""

    def shades(self) -> tuple[str, np.ndarray]:
        """(label, numbers) of the colour scale, logarithmic where the values are."""
        if is_wide(self.values):
            return f"log10 {self.name}", np.log10(self.values)
        return self.name, self.values


def swept_of(columns: Mapping[str, np.ndarray]) -> Swept | None:
    """The first parameter that differs between the items of a group, replicates (`seed`) left out."""
    found = []
    for name in columns:
        values = np.asarray(columns[name])
        numeric = name not in ("item", "seed") and values.ndim == 1 and values.dtype.kind in "if"
        if numeric and len(np.unique(values)) > 1:
            found.append((name, values.astype(float)))
    if not found:
        return None
    return Swept(*found[0], tuple(name for name, _ in found[1:]))


@dataclass(frozen=True)
class Curves:
    """The loss curves of many networks."""

    steps: np.ndarray
    """(step,) the training steps at which the losses were taken."""
    losses: Any
    """(item, step), read when indexed."""
    items: np.ndarray
    """(item,) ids."""
    final: np.ndarray
    """(item,) final losses."""
    failed: np.ndarray
    """(item,) bool: which of them diverged."""
    quantiles: Any = None
    """(3, step) the 0.1, 0.5 and 0.9 quantiles over all, if known."""
    swept: "Swept | None" = None
    """What colours the curves; None: their final losses do."""

    @property
    def has_quantiles(self) -> bool:
        """Whether there are quantiles that tell more than the curves themselves."""
        # Over different settings they are a property of the sweep.
        known = self.quantiles is not None and len(self.items) > 2 and self.swept is None
        return bool(known and np.isfinite(self.quantiles).any())


def loss_curves(curves: Curves, title: str, axis: Axis, name: str) -> Plot:
    """Loss against training step: up to N_CURVES networks, and the median over all, or over those of each value swept.

    The networks are evenly spaced in the ranks of their final loss, so that the best and the worst are drawn.

    axis: of the losses. name: what the networks are called.
    """
    items, final = curves.items, curves.final
    rank = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    some = np.sort(rank[spread(len(rank), N_CURVES)])
    drawn = np.asarray(curves.losses[some], float)
    label, shade = _shades(curves, axis.log)
    medians = _medians(curves, drawn, some, shade)
    text = [f"item {items[k]}: final loss {final[k]:.4g}{_said(curves.swept, k)}" for k in some]
    layers: list[Layer] = []
    if curves.has_quantiles:
        layers.append(Band(curves.steps, curves.quantiles[0], curves.quantiles[2], "10-90 %"))
    if (fine := np.flatnonzero(~curves.failed[some])).size:
        said, colour = [text[k] for k in fine], shade[some[fine]]
        faint = bool(medians)
        layers.append(Lines(curves.steps, drawn[fine], name, colour, said, faint=faint))
    if (failed := np.flatnonzero(curves.failed[some])).size:
        said = [text[k] for k in failed]
        layers.append(Lines(curves.steps, drawn[failed], "diverged", text=said, dashed=True))
    if curves.has_quantiles:
        layers.append(Lines(curves.steps, curves.quantiles[1], "median", strong=True))
    notes = []
    if len(some) < len(items):
        notes.append(f"{len(some)} of {len(items):,} {name}, evenly spaced in their final loss.")
    if curves.swept and curves.swept.others:
        notes.append(f"Swept besides: {', '.join(curves.swept.others)}.")
    layers += medians
    return Plot(title, layers, Axis("training step"), axis, Scale(label), note=" ".join(notes))


def _shades(curves: Curves, log: bool) -> tuple[str, np.ndarray]:
    """(label, (item,) numbers) of the colours."""
    if curves.swept is not None:
        return curves.swept.shades()
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(curves.final) if log else curves.final
    return "log10 final loss" if log else "final loss", shade


def _said(swept: Swept | None, item: int) -> str:
    return f", {swept.name} {tick(swept.values[item])}" if swept else ""


def _medians(curves: Curves, drawn: np.ndarray, some: np.ndarray, shade: np.ndarray) -> list[Layer]:
    """The median of the drawn curves at each value that was swept, where several have the same value."""
    if curves.swept is None:
        return []
    fine = ~curves.failed[some]
    values, drawn = curves.swept.values[some][fine], drawn[fine]
    distinct, first = np.unique(values, return_index=True)
    if not 1 < len(distinct) <= min(N_VALUES, len(values) - 1):
        return []
    # Curves end where training did: a median over none is a NaN, without a warning.
    masked = np.ma.masked_invalid(drawn)
    rows = [np.ma.median(masked[values == v], axis=0).filled(np.nan) for v in distinct]
    text = [f"{curves.swept.name} {tick(v)}: median" for v in distinct]
    name = f"median at each {curves.swept.name}"
    return [Lines(curves.steps, np.stack(rows), name, shade[some][fine][first], text)]
