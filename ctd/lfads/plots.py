"""The plots of LFADS models in a report: their training, and what the best one infers on saved trials."""

import numpy as np

from ctd.lfads.data import Dataset
from ctd.lfads.summary import DIVERGED
from ctd.lfads.trial_plots import by_condition, factors_of, inputs_of, rates_of
from ctd.plots import Axis, Group, Layer, Lines, Plot, Points, of_group
from ctd.plots.curves import Curves, loss_curves, some_curves
from ctd.training import block_ends

TERMS = {"loss": "loss", "nll": "-log likelihood", "kl_ic": "KL initial", "kl_input": "KL inputs"}
N_DRAWN = 50
"""Most trials of a posterior whose factors are drawn."""


@of_group
def plots(group: Group) -> list[Plot]:
    """Losses of all models; loss terms, rates, factors and inferred inputs of the best one."""
    results, failed = group.results, group.ended(DIVERGED)
    loss, quantiles = group.values("eval_loss"), group.reduced.get("curve_quantile")
    steps, n_trained = block_ends(group.inputs), int((~failed).sum())
    curves = Curves(
        steps, results["curve.eval.loss"], group.items, loss, failed, quantiles, n_trained
    )
    figures = [
        loss_curves(curves, "Evaluation loss", Axis("negative ELBO per trial (nat)"), "models")
    ]
    figures += _against_loss(group, loss)
    if len(group.reduced.get("item", ())):
        item = int(group.reduced["item"][0])
        # Rows are in the order of items, but a group may hold any items of the sweep.
        row = int(np.flatnonzero(group.items == item)[0])
        figures.append(_terms(group, row, item, steps))
        # One row of each result is read: the others stay in the store.
        best = {name: np.asarray(results[name][row], float) for name in SAVED if name in results}
        figures += _inferred(group.shared, best, item)
        if "input_r2_by_lag" in results:
            figures.append(_by_lag(group))
    return figures


SAVED = ("rates", "factors", "inferred_inputs", "trial_session")


@of_group
def posterior_plots(group: Group) -> list[Plot]:
    """Rates and factors of the first evaluation trials, from the chunk that begins with them; none before it is computed."""
    results, n_train = group.results, int(group.shared.n[0])
    first = np.asarray(results["trial_number"][:])[:, 0], np.asarray(results["split"][:])[:, 0]
    rows = np.flatnonzero((first[0] == 0) & (first[1] == 1))
    if not len(rows):
        return []
    n = min(N_DRAWN, int(group.shared.n[1]))
    best = {k: np.asarray(results[k][rows[0]][:n], float) for k in SAVED[:2] if k in results}
    model, figures = group.inputs.of_item, list[Plot]()
    if "rates" in best:
        data = group.shared.dataset.train.data[n_train:]  # training trials come first
        figures += rates_of(
            best["rates"], np.asarray(data[: len(best["rates"])], float), None, model
        )
    return figures + (factors_of(best["factors"], model) if "factors" in best else [])


def _terms(group: Group, row: int, item: int, steps: np.ndarray) -> Plot:
    """The parts of the loss, in training and in evaluation; without a controller there is none of inputs."""
    layers: list[Layer] = []
    smallest = np.inf
    for hue, (name, label) in enumerate(TERMS.items()):
        for split in ("eval", "train"):
            key = f"curve.{split}.{name}"
            if key not in group.results or (name == "kl_input" and not group.inputs.controller):
                continue
            curve = np.asarray(group.results[key][row], float)
            smallest = min(smallest, np.nanmin(curve, initial=np.inf))
            name_of = f"{label}, {split}"
            layers.append(Lines(steps, curve, name_of, dashed=split == "train", hue=hue))
    # Terms range from 1 to 1000, but a density of reals may be above 1, and its nll below 0.
    axes = Axis("training step"), Axis("nat per trial", log=bool(smallest > 0))
    return Plot(f"Loss terms of model {item}, the best", layers, *axes)


AGAINST_LOSS = {
    "rate_r2": "r² of the rates",
    "input_r2": "r² of the inferred inputs",
    "state_r2_of_true": "R² of true states",
    "psth_r2": "R² of PSTHs",
    "behavior_r2": "R² of behaviour",
    "co_bps": "bits per spike, held-out units",
}
"""Metric -> its label where it is drawn against the loss."""


def _against_loss(group: Group, loss: np.ndarray) -> list[Plot]:
    """Metrics against the loss of at least three models: those of equal losses may differ in their metrics."""
    figures, items = [], group.items
    across = Axis("evaluation loss (nat per trial)")
    for name, label in AGAINST_LOSS.items() if len(items) > 2 else ():
        if name in group.results:
            worth = group.values(name)
            rows = zip(items, loss, worth, strict=True)
            text = [f"model {k}: loss {a:.5g}, {b:.3f}" for k, a, b in rows]
            points = Points(loss, worth, text=text, key=items, item=items)
            figures.append(Plot(f"{label} against the loss", [points], across, Axis(label)))
    return figures


def _inferred(shared: Dataset, best: dict[str, np.ndarray], item: int) -> list[Plot]:
    """Posterior means beside data and true values, on the first evaluation trials."""
    if shared.stitched is not None:
        # Sessions have units of their own: the plots show those of the first session.
        shared = shared.stitched.sessions[0]
        mine = best.get("trial_session", np.zeros(0)) == 0
        best = {name: v[mine] for name, v in best.items() if len(v) == len(mine)}
        if "rates" in best:
            best["rates"] = best["rates"][..., : shared.evaluation.data.shape[2]]
    trials = shared.evaluation
    figures = []
    if "rates" in best:
        counts = np.asarray(trials.data[: len(best["rates"])], float)
        truth = None if trials.rates is None else np.asarray(trials.rates, float)
        figures += rates_of(best["rates"], counts, truth, item)
    if "factors" in best:
        figures += factors_of(best["factors"], item)
    saved = best.get("rates", best.get("factors"))
    if trials.condition is not None and saved is not None:
        n = len(saved)
        data, condition = np.asarray(trials.data[:n], float), np.asarray(trials.condition[:n])
        numbers = np.asarray(shared.conditions)
        figures += by_condition(
            best.get("rates"), best.get("factors"), data, condition, numbers, item
        )
    if "inferred_inputs" in best:
        truth = None if trials.inputs is None else np.asarray(trials.inputs, float)
        figures += inputs_of(best["inferred_inputs"], truth, item)
    return figures


def _by_lag(group: Group) -> Plot:
    """r2 of inferred and true inputs at each lag. Models of equal loss may infer inputs early or late."""
    n = group.results["input_r2_by_lag"].shape[1]
    # Lags are symmetric about 0.
    lines = some_curves(group, "input_r2_by_lag", "", np.arange(n) - n // 2)
    axes = Axis("true input so many bins later"), Axis("r² with the inferred input")
    note = "A peak away from 0: inferred early or late."
    return Plot("Inferred inputs, by lag", [lines], *axes, note=note)
