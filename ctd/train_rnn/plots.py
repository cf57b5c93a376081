"""The figures of trained networks: curves, losses, accuracy by condition, outputs, state space, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctd.kernel import View
from ctd.plots import (
    Axis,
    Bars,
    Group,
    Image,
    Layer,
    Lines,
    Plot,
    Points,
    Scale,
    histogram,
    of_group,
    spread,
    stacked,
)
from ctd.plots.curves import Curves, loss_curves, rows_axis
from ctd.principal import component, principal
from ctd.rows import best_row, ranked
from ctd.tasks import Recorded
from ctd.train_rnn.checks import area_of
from ctd.train_rnn.loss import Shared, condition_values
from ctd.train_rnn.params import Network
from ctd.training import block_ends

DIVERGED = 1
"""Outcome of a network that has diverged; networks that a search drops have another one."""
WEIGHTS = "weights.wR"
"""The result that is drawn as a matrix; gated cells have none of this name."""
N_OUTPUTS, N_PATHS, N_UNITS, N_NETWORKS = 6, 60, 200, 30
"""Drawn at most: outputs of saved trials, their paths in state space, units of a matrix, accuracies by condition."""


@of_group
def rnn_plots(group: Group) -> list[Plot]:
    """Loss curves, accuracies by condition, final losses; outputs, states and recurrent weights of the best network."""
    results, figures = group.results, [_curves(group), _losses(group)]
    if "condition_accuracy" in results and len(ranked(results, "accuracy")):
        figures.insert(1, _accuracies(group))
    if (pair := best_row(group, "eval_loss")) is None:
        return figures
    best, item = pair
    if "accuracy_curve" in results:
        figures.append(_curves(group, "accuracy_curve"))
    if "outputs" in results:
        figures.append(_outputs(group.shared, results["outputs"][best], item))
        figures.append(_space(group, results["states"][best], item))
    if WEIGHTS in results:
        figures.append(_weights(group.inputs, results[WEIGHTS][best], item))
    return figures


def _curves(group: Group, name: str = "curve") -> Plot:
    """Curves of the loss, or of the result `name`."""
    inputs, is_loss = group.inputs, name == "curve"
    curves = Curves(
        block_ends(inputs),
        group.results[name],
        group.items,
        group.values("eval_loss"),
        group.ended(DIVERGED),
        group.reduced.get("curve_quantile") if is_loss else None,
        int(group.ended(0).sum()),
        loss="evaluation loss",
    )
    loss_name = inputs.loss.replace("_", " ")
    axis = Axis(f"mean {loss_name}", log=True) if is_loss else Axis("accuracy on evaluation trials")
    # A task of a file has no other name than the file's.
    of_file = isinstance(inputs.task, Recorded) and inputs.trials
    task = f"trials of {Path(of_file).name}" if of_file else type(inputs.task).__name__
    title = f"Training {inputs.cell}, n = {inputs.n}, {task}"
    return loss_curves(curves, title, axis, "networks")


def _losses(group: Group) -> Plot:
    """Evaluation loss against training loss for up to 2,000 networks; for more, a histogram of evaluation losses."""
    items, train, final = group.items, group.values("train_loss"), group.values("eval_loss")
    # Both axes are logarithmic.
    fine = ~group.ended(DIVERGED) & np.isfinite(final) & (final > 0)
    if fine.sum() <= 2000:
        text = [
            f"item {k}: evaluation {f:.4g}, training {t:.4g}"
            for k, t, f in zip(items[fine], train[fine], final[fine], strict=True)
        ]
        layers: list[Layer] = [
            Points(train[fine], final[fine], text=text, key=items[fine], item=items[fine])
        ]
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


def _accuracies(group: Group) -> Plot:
    """Accuracy in each condition; a psychometric curve if the sign of the condition is the right one of two answers."""
    task, values = group.inputs.task, condition_values(group.inputs.task, group.shared)
    conditions = task.conditions
    choice, name = (conditions.choice, conditions.name) if conditions else (False, "condition")
    total = group.values("accuracy")
    rank = ranked(group.results, "accuracy", more_is_better=True)
    # Evenly spaced in their accuracy, so that good and bad networks are among them.
    some = np.sort(rank[spread(len(rank), N_NETWORKS)])
    share = np.asarray(group.results["condition_accuracy"][some], float)
    items = group.items
    text = [f"item {items[k]}: accuracy {total[k]:.3f}" for k in some]
    title = "Psychometric curves" if choice else f"Accuracy by {name}"
    numbers = np.asarray(values).dtype.kind in "if"
    if choice:
        # Turn the share of right answers into the share of "positive" answers.
        share = np.where(np.asarray(values) > 0, share, 1 - share)
    along = np.asarray(values, float) if numbers else np.arange(len(values))
    lines = Lines(along, share, "networks", total[some], text, item=items[some])
    layers: list[Layer] = [lines]
    if not numbers:
        # The evaluation trials are drawn: none may have some condition.
        has_trials = np.isfinite(share).any(axis=0)
        middle = np.nanmedian(share[:, has_trials], axis=0)
        layers.insert(0, Bars(along[has_trials] - 0.4, along[has_trials] + 0.4, middle, "median"))
    return Plot(
        title,
        layers,
        Axis(name) if numbers else Axis(name, ticks=[str(v) for v in values]),
        Axis("answers that are positive" if choice else "accuracy"),
        Scale("accuracy", low=0.0, high=1.0),
    )


def _counts(shared: Shared, n: int) -> np.ndarray:
    """True for the steps of the first n evaluation trials that count in the loss: (n, time, output), the last axis 1 if all outputs count alike."""
    return np.asarray(shared.evaluation.weights)[:n] > 0


def _outputs(shared: Shared, outputs: np.ndarray, item: int) -> Plot:
    """Targets and outputs of one network on its first saved trials, one trial below the other."""
    outputs = np.asarray(outputs, float)[:N_OUTPUTS, :, 0]
    mask = _counts(shared, len(outputs))[..., 0]
    targets = np.asarray(shared.evaluation.targets, float)[: len(outputs), :, 0]
    targets = np.where(mask, targets, np.nan)
    time = np.arange(outputs.shape[1])
    # 1e-9: outputs and targets that are constant must not give a step of 0, by which `stacked` divides.
    spans = [np.ptp(outputs), np.ptp(targets[mask]) if mask.any() else 0.0, 1e-9]
    step, text = 1.2 * float(max(spans)), [f"trial {k}" for k in range(len(outputs))]
    target_rows = stacked(targets, step)
    layers: list[Layer] = [Lines(time, stacked(outputs, step), "output", text=text)]
    # A line needs two vertices: draw a step that counts between two that do not as a point.
    padded = np.pad(mask, ((0, 0), (1, 1)))
    trial, at = np.nonzero(mask & ~padded[:, :-2] & ~padded[:, 2:])
    if lined := len(at) < mask.sum():
        layers.insert(0, Lines(time, target_rows, "target", strong=True, text=text))
    if len(at):
        labels, name = [f"target of trial {k}" for k in trial], "" if lined else "target"
        layers.append(Points(at, target_rows[trial, at], name, text=labels, marker="diamond"))
    return Plot(
        f"Outputs of item {item}, the best",
        layers,
        Axis("time step"),
        rows_axis(text, step),
        note="The first output on evaluation trials; the target is drawn where it counts"
        + (", a single step as a diamond." if len(at) else "."),
    )


def _space(group: Group, states: np.ndarray, item: int) -> Plot:
    """States of one network in its saved trials, in their first two principal components, coloured by condition."""
    shared, values = group.shared, condition_values(group.inputs.task, group.shared)
    states = np.asarray(states, float)[:N_PATHS]
    # A trial may end before its arrays; the states after its end are not drawn.
    counts = _counts(shared, len(states)).any(axis=-1)
    ends = states.shape[1] - np.argmax(counts[:, ::-1], axis=1)
    running = np.arange(states.shape[1]) < ends[:, None]
    project, share = principal(states[running], 2)
    path = np.where(running[..., None], project(states), np.nan)
    if path.shape[-1] == 1:  # a network of one unit has one component
        path = np.concatenate([path, np.zeros_like(path)], axis=-1)
    share = np.append(share, 0.0)[:2]
    condition = np.asarray(shared.evaluation.condition)[: len(states)]
    conditions = group.inputs.task.conditions
    scale, layers = Scale(conditions.name if conditions else "condition"), []
    if np.asarray(values).dtype.kind in "if" and len(values) > 1:
        scale = Scale(scale.label, diverging=bool(conditions and conditions.choice))
        layers.append(
            Lines(path[..., 0], path[..., 1], "trials", np.asarray(values, float)[condition])
        )
    else:
        for k in np.unique(condition):
            paths = path[condition == k]
            layers.append(Lines(paths[..., 0], paths[..., 1], str(values[k])))
    axis = lambda k: Axis(component(share, k))
    return Plot(f"State space of item {item}, the best", layers, axis(0), axis(1), scale)


def _weights(inputs: View[Network], weights: np.ndarray, item: int) -> Plot:
    """The recurrent weights of one network; units sorted by area, then excitatory first, then by outgoing strength."""
    weights = np.asarray(weights, float)
    n = len(weights)
    area = area_of(n, inputs.areas)
    # With Dale's law all weights of a column have one sign, that of its sum; minus, so that excitatory units sort first.
    kind = -np.sign(weights.sum(axis=0)) if inputs.dale else np.zeros(n)
    # lexsort takes its last key first.
    order = np.lexsort([-np.abs(weights).sum(axis=0), kind, area])
    order = order[spread(n, N_UNITS)]
    together = np.stack([area, kind], axis=1)[order]
    # Pixels are centred on whole numbers: a border lies half way between two.
    borders = np.flatnonzero((together[1:] != together[:-1]).any(axis=1)) + 0.5
    ends = np.array([-0.5, len(order) - 0.5])
    layers: list[Layer] = [Image(weights[np.ix_(order, order)])]
    if len(borders):
        at, along = np.repeat(borders[:, None], 2, axis=1), np.tile(ends, (len(borders), 1))
        x, y = np.concatenate([at, along]), np.concatenate([along, at])
        layers.append(Lines(x, y, dashed=True, faint=True))
    most = float(np.abs(weights).max())
    notes = [f"{len(order)} of {n} units"] if len(order) < n else []
    notes += [f"{inputs.areas} areas one after the other"] if inputs.areas > 1 else []
    notes += [
        f"{(kind < 0).sum()} excitatory units before {(kind > 0).sum()} inhibitory ones"
    ] * inputs.dale
    return Plot(
        f"Recurrent weights of item {item}, the best",
        layers,
        Axis("from unit, by strength"),
        Axis("to unit, in the same order"),
        Scale("weight", diverging=True, low=-most, high=most),
        note="; ".join([*notes, "units of larger outgoing weights first"]).capitalize() + ".",
    )
