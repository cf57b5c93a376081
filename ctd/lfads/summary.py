"""The reduction of a group of models: the best ones, with their metrics, and quantiles of the loss curves."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

import numpy as np

from ctd.kernel import JobFields, Var, View, changed
from ctd.lfads.data import Dataset
from ctd.lfads.params import Model
from ctd.plots.curves import QUANTILES, curve_quantiles
from ctd.rows import Best

TRAINED, STOPPED_EARLY, DIVERGED = range(3)
"""Codes of the outcomes, in the order of the kernel's `outcomes`."""

METRICS = {
    "bits_per_spike": "bits a spike, seen units",
    "cosmoothing_bits_per_spike": "bits a spike, held-out units",
    "co_bps": "bits a spike, held-out units together",
    "co_bps_true": "co_bps of the true rates, which a model can hardly exceed",
    "co_bps_units": "bits a spike of each held-out unit, their mean",
    "fp_bps": "bits a spike, held-out bins",
    "psth_r2": "R2 of averages by condition",
    "psth_r2_true": "psth_r2 of the true rates",
    "rate_r2": "squared correlation with true rates",
    "rate_r2_weighted": "R2 of rates, units by variance",
    "state_r2_from_true": "R2 of the generator's states from true ones",
    "state_r2_from_true_mean": "the same, mean over the generator's dimensions",
    "state_r2_of_true": "R2 of true states from the generator's",
    "input_r2": "squared correlation with true inputs",
    "initial_state_r2": "R2 of true initial states",
    "behavior_r2": "R2 of behaviour",
}
"""Metric -> its title in the table of best models, which shows those that the data allow."""


RANKED = {"loss": "eval_loss", "nll": "eval_nll", "last": "eval_loss"}
"""Criterion -> what ranks models that were trained by it."""

REDUCED = {
    "item": Var(
        ("rank",), "item", "item id, by increasing eval_loss, or eval_nll with criterion: nll"
    ),
    "eval_loss": Var(("rank",), "nat", "negative ELBO a trial, all evaluation trials"),
    "eval_nll": Var(("rank",), "nat", "negative log likelihood a trial, all evaluation trials"),
    **{name: Var(("rank",), "1", text) for name, text in METRICS.items()},
    "co_bps_rank": Var(
        ("rank",), "1", "rank by co_bps, 0 the best: what the penalties of eval_loss do not enter"
    ),
    "curve_quantile": Var(("quantile", "batch"), "nat", "quantiles of the evaluation loss"),
    "quantile": Var(("quantile",), "1", "which quantile"),
}


def reduce(
    inputs: View[Model],
    shared: Dataset,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """Rank the models that did not diverge, and take quantiles of their loss curves. The arguments: see `ctd.kernel`."""
    del shared
    order = _order(inputs, results)
    best = order[: options.n_best]
    curves = np.asarray(results["curve.eval.loss"])
    names = ("eval_loss", "eval_nll", *(name for name in METRICS if name in results))
    if "co_bps" in results:
        above = np.argsort(-np.asarray(results["co_bps"], float)[order], kind="stable")  # NaN last
        held_out = {"co_bps_rank": np.argsort(above)[: options.n_best]}
    else:
        held_out = {}
    return held_out | {
        "item": np.asarray(columns["item"])[best],
        **{name: np.asarray(results[name])[best] for name in names},
        "curve_quantile": curve_quantiles(curves[order]),
        "quantile": QUANTILES,
    }


def _order(inputs: View[Model], results: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows of the models that did not diverge, the best one first."""
    trained = np.flatnonzero(np.asarray(results["outcome"][:]) != DIVERGED)
    value = np.asarray(results[RANKED[inputs.criterion]][:])
    return trained[np.argsort(value[trained], kind="stable")]


def next_jobs(
    model: Model, item: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, JobFields | str]:
    """Infer all trials; find the fixed points of its generator, from the stored states; train it for twice as many steps."""
    store, _, number = item.rpartition("::")
    infer = f"ctd posterior {shlex.quote(store)} --where 'item == {number}'"
    longer = changed(model, n_batches=2 * model.n_batches)
    first: dict[str, JobFields | str] = {"rates of all trials": infer}
    train = {"train another for longer": {"kernel": "lfads", "params": longer}}
    if "states" not in shapes:
        return first | train
    points = {
        "cell": model.generator_cell, "weights": item, "candidates": f"{item}::results", "dataset": "states",
        "q_tol": 1e-10,
    }  # fmt: skip
    n = min(1000, math.prod(shapes["states"][:-1]))  # candidates beyond their number repeat
    search = {
        "kernel": "fixed_points",
        "params": points,
        "sweep": {"grid": {"candidate": {"range": n}}},
    }
    return {**first, "its fixed points": search, **train}
