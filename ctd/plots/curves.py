"""Plots of training: loss curves of many networks, their final losses, outputs on saved trials."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ctd.plots import (
    Axis,
    Band,
    Figure,
    Layer,
    Lines,
    Plot,
    Points,
    Scale,
    histogram,
    spread,
    stacked,
)
from ctd.plots.group import Group, of_group

DIVERGED = 1
"""Outcome of a network that has diverged; networks that a search drops have another one."""

N_CURVES = 200
"""Largest number of curves that are drawn."""
N_OUTPUTS = 6
"""Largest number of saved trials that are drawn."""


def block_ends(settings: Any) -> np.ndarray:
    """(block,) the training step at which each block of `report_every` steps ends; the last is `n_batches`."""
    n, every = settings.n_batches, settings.report_every
    return np.minimum(np.arange(every, n + every, every), n)


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

    @property
    def has_quantiles(self) -> bool:
        """Whether there are quantiles that tell more than the curves themselves."""
        known = self.quantiles is not None and len(self.items) > 2
        return bool(known and np.isfinite(self.quantiles).any())


@of_group
def rnn_plots(group: Group) -> list[Plot]:
    """Plots of the networks of `ctd.train_rnn`: loss curves, final losses, outputs of the best network."""
    results = group.results
    outcome = np.asarray(results["outcome"][:])
    loss = np.asarray(results["eval_loss"][:], float)
    items = np.asarray(group.columns["item"][:])
    made = [
        _rnn_curves(group),
        _losses(np.asarray(results["train_loss"][:], float), loss, items, outcome),
    ]
    if "outputs" in results and (outcome == 0).any():
        best = int(np.flatnonzero(outcome == 0)[np.argmin(loss[outcome == 0])])
        made.append(_outputs(group.shared.evaluation, results["outputs"][best], int(items[best])))
    return made


@of_group
def rnn_figure(group: Group) -> Figure:
    """The loss curves of the networks."""
    return Figure([_rnn_curves(group)])


def _rnn_curves(group: Group) -> Plot:
    inputs, results = group.inputs, group.results
    curves = Curves(
        block_ends(inputs),
        results["curve"],
        np.asarray(group.columns["item"][:]),
        np.asarray(results["eval_loss"][:], float),
        np.asarray(results["outcome"][:]) == DIVERGED,
        group.reduced.get("curve_quantile"),
    )
    title = f"Training {inputs.cell}, n = {inputs.n}, {type(inputs.task).__name__}"
    return loss_curves(curves, title, Axis("mean squared error", log=True), "networks")


def loss_curves(curves: Curves, title: str, axis: Axis, name: str) -> Plot:
    """Loss against training step: up to N_CURVES networks, and the median over all.

    The networks are evenly spaced in the ranks of their final loss, so that the best and the worst are drawn.

    axis: of the losses. name: what the networks are called.
    """
    items, final = curves.items, curves.final
    rank = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    some = np.sort(rank[spread(len(rank), N_CURVES)])
    drawn = np.asarray(curves.losses[some], float)
    text = [f"item {items[k]}: final loss {final[k]:.4g}" for k in some]
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(final[some]) if axis.log else final[some]
    layers: list[Layer] = []
    if curves.has_quantiles:
        layers.append(Band(curves.steps, curves.quantiles[0], curves.quantiles[2], "10-90 %"))
    if (fine := np.flatnonzero(~curves.failed[some])).size:
        said = [text[k] for k in fine]
        layers.append(Lines(curves.steps, drawn[fine], name, shade[fine], said))
    if (failed := np.flatnonzero(curves.failed[some])).size:
        said = [text[k] for k in failed]
        layers.append(Lines(curves.steps, drawn[failed], "diverged", text=said, dashed=True))
    if curves.has_quantiles:
        layers.append(Lines(curves.steps, curves.quantiles[1], "median", strong=True))
    note = ""
    if len(some) < len(items):
        note = f"{len(some)} of {len(items):,} {name}, evenly spaced in their final loss."
    scale = Scale("log10 final loss" if axis.log else "final loss")
    return Plot(title, layers, Axis("training step"), axis, scale, note=note)


def _losses(train: np.ndarray, final: np.ndarray, items: np.ndarray, outcome: np.ndarray) -> Plot:
    """Evaluation loss against training loss, up to 2,000 networks; beyond, a histogram of evaluation losses."""
    fine = (outcome != DIVERGED) & np.isfinite(final) & (final > 0)
    if fine.sum() <= 2000:
        text = [
            f"item {k}: evaluation {f:.4g}, training {t:.4g}"
            for k, t, f in zip(items[fine], train[fine], final[fine], strict=True)
        ]
        layers: list[Layer] = [Points(train[fine], final[fine], text=text, key=items[fine])]
        both = np.concatenate([train[fine], final[fine]])
        if len(both):
            ends = np.array([both.min(), both.max()])
            layers.insert(0, Lines(ends, ends, "equal", dashed=True, faint=True))
        return Plot(
            "Evaluation against training loss",
            layers,
            Axis("loss over the last block", log=True),
            Axis("evaluation loss", log=True),
        )
    return Plot(
        "Evaluation losses",
        [histogram(np.log10(final[fine]))],
        Axis("log10 evaluation loss"),
        Axis("networks"),
    )


def _outputs(shared: Any, outputs: np.ndarray, item: int) -> Plot:
    """Targets and outputs of one network on its first saved trials, trials one below the other."""
    outputs = np.asarray(outputs, float)[:N_OUTPUTS, :, 0]
    targets = np.asarray(shared.targets, float)[: len(outputs), :, 0]
    mask = np.asarray(shared.mask, bool)[: len(outputs)]
    targets = np.where(mask, targets, np.nan)
    time = np.arange(outputs.shape[1])
    spans = [np.ptp(outputs), np.ptp(targets[mask]) if mask.any() else 0.0, 1e-9]
    step, text = 1.2 * float(max(spans)), [f"trial {k}" for k in range(len(outputs))]
    return Plot(
        f"Outputs of item {item}, the best",
        [
            Lines(time, stacked(targets, step), "target", strong=True, text=text),
            Lines(time, stacked(outputs, step), "output", text=text),
        ],
        Axis("time step"),
        Axis(ticks=text[::-1]),
        note="The first output on evaluation trials; the target is drawn where it counts.",
    )
