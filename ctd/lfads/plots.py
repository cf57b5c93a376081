"""The plots of LFADS models in a report: their training, and what the best one infers on saved trials."""

import numpy as np

from ctd.lfads.data import Dataset
from ctd.lfads.summary import DIVERGED
from ctd.lfads.trial_plots import N_TRIALS, by_condition, single_trials, trial_layers
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
    of_group,
    spread,
    stacked,
)
from ctd.plots.curves import Curves, block_ends, loss_curves, rows_axis
from ctd.principal import component, principal
from ctd.rows import Columns

TERMS = {"loss": "loss", "nll": "-log likelihood", "kl_ic": "KL initial", "kl_input": "KL inputs"}
N_PLOTS = 4
"""Plots of the figure of a single model."""
N_UNITS = 6
"""Units whose rates are drawn, the most active ones."""
N_DRAWN = 50
"""Most trials of a posterior whose factors are drawn."""


@of_group
def plots(group: Group) -> list[Plot]:
    """Losses of all models; loss terms, rates, factors and inferred inputs of the best one."""
    results = group.results
    items, loss, failed = group.items, group.values("eval_loss"), group.ended(DIVERGED)
    steps, quantiles = block_ends(group.inputs), group.reduced.get("curve_quantile")
    curves = Curves(
        steps, results["curve.eval.loss"], items, loss, failed, quantiles, int((~failed).sum())
    )
    axis = Axis("negative ELBO per trial (nat)")
    made = [loss_curves(curves, "Evaluation loss", axis, "models")]
    made += _loss_and_truth(group, loss)
    if len(group.reduced.get("item", ())):
        item = int(group.reduced["item"][0])
        # Rows are in the order of items, but a group may hold any items of the sweep.
        row = int(np.flatnonzero(items == item)[0])
        made.append(_terms(group, row, item, steps))
        # One row of each result is read: the others stay in the store.
        best = {name: np.asarray(results[name][row], float) for name in SAVED if name in results}
        made += _inferred(group.shared, best, item)
        if "input_r2_by_lag" in results:
            made.append(_by_lag(results, items))
    return made


SAVED = ("rates", "factors", "inferred_inputs", "trial_session")


@of_group
def figure(group: Group) -> Figure:
    """The first `plots` of a single model; none of several, of which the metric over the sweep says more."""
    return Figure(plots(*group)[:N_PLOTS] if len(group.items) == 1 else [])


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
    model, made = group.inputs.of_item, list[Plot]()
    if "rates" in best:
        data = group.shared.dataset.train.data[n_train:]  # training trials come first
        made += _rates(best["rates"], np.asarray(data[: len(best["rates"])], float), None, model)
    return made + (_factors(best["factors"], model) if "factors" in best else [])


def _terms(group: Group, row: int, item: int, steps: np.ndarray) -> Plot:
    """The parts of the loss, in training and in evaluation; without a controller there is none of inputs."""
    layers: list[Layer] = []
    smallest = np.inf
    for hue, (name, label) in enumerate(TERMS.items()):
        for where in ("eval", "train"):
            key = f"curve.{where}.{name}"
            if key not in group.results or (name == "kl_input" and not group.inputs.controller):
                continue
            curve = np.asarray(group.results[key][row], float)
            smallest = min(smallest, np.nanmin(curve, initial=np.inf))
            layers.append(
                Lines(steps, curve, f"{label}, {where}", dashed=where == "train", hue=hue)
            )
    return Plot(
        f"Loss terms of model {item}, the best",
        layers,
        Axis("training step"),
        # Terms range from 1 to 1000, but a density of reals may be above 1, and its nll below 0.
        Axis("nat per trial", log=bool(smallest > 0)),
    )


def _loss_and_truth(group: Group, loss: np.ndarray) -> list[Plot]:
    """Metrics against the loss: models with equal losses may differ in their metrics."""
    made, items = [], group.items
    for name, label in (
        ("rate_r2", "r² of the rates"),
        ("input_r2", "r² of the inferred inputs"),
        ("state_r2_of_true", "R² of true states"),
        ("psth_r2", "R² of PSTHs"),
        ("behavior_r2", "R² of behaviour"),
        ("cosmoothing_bits_per_spike", "bits per spike, held-out units"),
    ):
        if name not in group.results or len(items) < 3:
            continue
        worth = group.values(name)
        text = [
            f"model {k}: loss {a:.5g}, {b:.3f}" for k, a, b in zip(items, loss, worth, strict=True)
        ]
        made.append(
            Plot(
                f"{label} against the loss",
                [Points(loss, worth, text=text, key=items, item=items)],
                Axis("evaluation loss (nat per trial)"),
                Axis(label),
            )
        )
    return made


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
    made = []
    if "rates" in best:
        counts = np.asarray(trials.data[: len(best["rates"])], float)
        truth = None if trials.rates is None else np.asarray(trials.rates, float)
        made += _rates(best["rates"], counts, truth, item)
    if "factors" in best:
        made += _factors(best["factors"], item)
    saved = best.get("rates", best.get("factors"))
    if trials.condition is not None and saved is not None:
        n = len(saved)
        data, condition = np.asarray(trials.data[:n], float), np.asarray(trials.condition[:n])
        made += by_condition(best.get("rates"), best.get("factors"), data, condition, item)
    if "inferred_inputs" in best:
        truth = None if trials.inputs is None else np.asarray(trials.inputs, float)
        made += _inputs(best["inferred_inputs"], truth, item)
    return made


def _rates(
    rates: np.ndarray, counts: np.ndarray, truth: np.ndarray | None, item: int
) -> list[Plot]:
    """Rates and spikes of the most active units on one trial, of one unit on several trials, of all units as images."""
    # Silent units would show nothing.
    busy = np.sort(np.argsort(-counts.sum(axis=(0, 1)), kind="stable")[:N_UNITS])
    true = truth[0][:, busy].T if truth is not None and len(truth) else None
    names = [f"unit {unit}" for unit in busy]
    layers, rows = trial_layers(rates[0][:, busy].T, counts[0][:, busy].T, true, names)
    return [
        Plot(
            f"Rates of model {item} against the data, one trial",
            layers,
            Axis("bin"),
            rows,
            note=f"The {len(busy)} most active units on evaluation trial 0; their data are marks at the height of rate 0.",
        ),
        single_trials(rates, counts, truth, item),
        *_unit_images(rates[0], counts[0], item),
    ]


def _unit_images(rates: np.ndarray, counts: np.ndarray, item: int) -> list[Plot]:
    """Data and rates (bin, unit) as images, units in the order of their peak rates: shows sequences and common swings."""
    # By peak time, sequences of activity become a diagonal.
    order = np.argsort(np.argmax(rates, axis=0), kind="stable")
    return [
        Plot(
            title,
            [Image(values[:, order].T)],
            Axis("bin"),
            Axis("unit, by the time of its largest rate", ticks=[str(k) for k in order]),
            Scale(label),
            note="Evaluation trial 0.",
        )
        for title, values, label in (
            ("Data of one trial", counts, "count"),
            (f"Rates of model {item} on that trial", rates, "rate a bin"),
        )
    ]


def _factors(factors: np.ndarray, item: int) -> list[Plot]:
    """The factors of saved trials in their principal components: one against the other, and over time."""
    project, share = principal(factors.reshape(-1, factors.shape[-1]), 3)
    paths = project(factors)
    time = np.arange(factors.shape[1])
    # Time as colour: the direction of a trajectory shows.
    shade = np.tile(time.astype(float), (len(paths), 1))
    text = [f"evaluation trial {k}" for k in range(len(paths))]
    made = []
    if len(share) > 1:
        made.append(
            Plot(
                f"Factors of model {item}, state space",
                [Lines(paths[..., 0], paths[..., 1], "trials", colour=shade, text=text)],
                Axis(component(share, 0)),
                Axis(component(share, 1)),
                Scale("bin"),
            )
        )
    layers: list[Layer] = [
        Lines(time, paths[..., k], f"component {k + 1}", text=text) for k in range(len(share))
    ]
    made.append(
        Plot(f"Factors of model {item} over time", layers, Axis("bin"), Axis("principal component"))
    )
    return made


def _inputs(inferred: np.ndarray, truth: np.ndarray | None, item: int) -> list[Plot]:
    """Up to three inferred inputs of some trials; the first beside the true one, which is scaled."""
    names = [f"trial {k}" for k in range(min(N_TRIALS, len(inferred)))]
    made = []
    for k in range(min(3, inferred.shape[-1])):
        # Around the mean over all shown trials, so that trials remain comparable.
        shown = inferred[:N_TRIALS, :, k]
        shown = shown - shown.mean()
        time, step = np.arange(shown.shape[1]), 1.2 * max(float(np.ptp(shown)), 1e-9)
        layers: list[Layer] = []
        title, note = f"Inferred input {k + 1} of model {item}", "Evaluation trials."
        if k == 0:
            title, note = (
                f"Inferred inputs of model {item}",
                "The first inferred input on evaluation trials.",
            )
        if k == 0 and truth is not None and len(truth) >= len(shown):
            true = truth[: len(shown), :, 0]
            centred = true - true.mean()
            # Least squares over all shown trials: one factor for all of them.
            fitted = centred * np.sum(centred * shown) / (np.sum(centred**2) or 1.0)
            lines = stacked(fitted, step)
            layers.append(Lines(time, lines, "true, scaled", strong=True, text=names))
            note += (
                " The true one is scaled to it by least squares: sign and unit are not identified."
            )
        layers.append(Lines(time, stacked(shown, step), "inferred", text=names))
        made.append(Plot(title, layers, Axis("bin"), rows_axis(names, step), note=note))
    return made


def _by_lag(results: Columns, items: np.ndarray) -> Plot:
    """r2 of inferred and true inputs at each lag. Models of equal loss may infer inputs early or late."""
    rows = spread(len(items), 200)
    values = np.asarray(results["input_r2_by_lag"][rows], float)
    # Lags are symmetric about 0.
    lags = np.arange(values.shape[1]) - values.shape[1] // 2
    return Plot(
        "Inferred inputs, by lag",
        [Lines(lags, values, text=[f"model {items[k]}" for k in rows])],
        Axis("true input so many bins later"),
        Axis("r² with the inferred input"),
        note="A peak away from 0: inferred early or late.",
    )
