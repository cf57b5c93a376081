"""Plots of training: loss curves of many networks, their final losses, outputs on saved trials."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.plots import Axis, Band, Layer, Lines, Plot, Points, Scale, histogram, spread, stacked

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


def rnn_plots(
    inputs: Any,
    shared: Any,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    reduced: Mapping[str, np.ndarray],
) -> list[Plot]:
    """Plots of the networks of `ctd.train_rnn`: loss curves, final losses, outputs of the best network."""
    outcome = np.asarray(results["outcome"][:])
    steps = block_ends(inputs)
    loss = np.asarray(results["eval_loss"][:], float)
    items = np.asarray(columns["item"][:])
    made = [
        loss_curves(
            steps,
            results["curve"],
            items,
            loss,
            outcome == DIVERGED,
            title=f"Training {inputs.cell}, n = {inputs.n}, {type(inputs.task).__name__}",
            quantiles=reduced.get("curve_quantile"),
        ),
        _losses(np.asarray(results["train_loss"][:], float), loss, items, outcome),
    ]
    if "outputs" in results and (outcome == 0).any():
        best = int(np.flatnonzero(outcome == 0)[np.argmin(loss[outcome == 0])])
        made.append(_outputs(shared, results["outputs"][best], int(items[best])))
    return made


def loss_curves(
    steps: np.ndarray,
    curves: Any,
    items: np.ndarray,
    final: np.ndarray,
    failed: np.ndarray,
    title: str,
    quantiles: Any = None,
    label: str = "mean squared error",
    log: bool = True,
    name: str = "networks",
) -> Plot:
    """Loss against training step: up to N_CURVES networks, and the median over all.

    The networks are evenly spaced in the ranks of their final loss, so that the best and the worst are drawn.

    curves: (item, step), read when indexed. quantiles: (3, step) the 0.1, 0.5 and 0.9 quantiles, if known.
    """
    rank = np.argsort(np.where(np.isfinite(final), final, np.inf), kind="stable")
    some = np.sort(rank[spread(len(rank), N_CURVES)])
    drawn = np.asarray(curves[some], float)
    text = [f"item {items[k]}: final loss {final[k]:.4g}" for k in some]
    with np.errstate(divide="ignore", invalid="ignore"):
        shade = np.log10(final[some]) if log else final[some]
    fine = ~failed[some]
    layers: list[Layer] = []
    if quantiles is not None and len(items) > 2 and np.isfinite(quantiles).any():
        layers.append(Band(steps, quantiles[0], quantiles[2], "10-90 %"))
    for rows, label_of in ((fine, name), (~fine, "diverged")):
        if rows.any():
            names = [text[k] for k in np.flatnonzero(rows)]
            colour = shade[rows] if label_of == name else None
            layers.append(
                Lines(steps, drawn[rows], label_of, colour, names, dashed=label_of == "diverged")
            )
    if quantiles is not None and len(items) > 2 and np.isfinite(quantiles).any():
        layers.append(Lines(steps, quantiles[1], "median", strong=True))
    note = ""
    if len(some) < len(items):
        note = f"{len(some)} of {len(items):,} {name}, evenly spaced in their final loss."
    return Plot(
        title,
        layers,
        Axis("training step"),
        Axis(label, log=log),
        Scale("log10 final loss" if log else "final loss"),
        note=note,
    )


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
