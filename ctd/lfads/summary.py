"""The reduction of a group of models: the best ones, with their metrics, and quantiles of the loss curves."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

import numpy as np

from ctd.kernel import JobFields, Var, View, changed
from ctd.lfads.data import Dataset
from ctd.lfads.names import DIMS
from ctd.lfads.params import Model
from ctd.plots.curves import QUANTILES, curve_quantiles
from ctd.rows import Best, Columns

TRAINED, STOPPED_EARLY, DIVERGED = range(3)
"""Codes of the outcomes, in the order of the kernel's `outcomes`."""

METRICS = (
    "bits_per_spike", "co_bps", "co_bps_true", "co_bps_units", "fp_bps",
    "psth_r2", "psth_r2_true", "rate_r2", "rate_r2_weighted",
    "state_r2_from_true", "state_r2_from_true_mean", "state_r2_of_true",
    "input_r2", "initial_state_r2", "behavior_r2",
)  # fmt: skip
"""The metrics in the table of best models, which has those that the data allow."""

SESSIONS = ("session_loss", "session_nll", "session_co_bps", "session_bits_per_spike")
"""The metrics of single sessions, in a table of their own."""
_S = ("ranked_session",)

RANKED = {"loss": "eval_loss", "nll": "eval_nll", "last": "eval_loss"}
"""Criterion -> what ranks models that were trained by it."""

REDUCED = {
    "item": Var(
        ("rank",), "item", "item id, by increasing eval_loss, or eval_nll with criterion: nll"
    ),
    **{name: DIMS[name]._replace(axes=("rank",)) for name in ("eval_loss", "eval_nll", *METRICS)},
    "session_item": Var(_S, "item", "item id of the best models, once for each session"),
    "session": Var(_S, "1", "number of the session, by its place in `data`"),
    **{name: DIMS[name]._replace(axes=_S) for name in SESSIONS},
    "co_bps_rank": Var(
        ("rank",), "1", "rank by co_bps, 0 is the best; unlike eval_loss, it has no penalties"
    ),
    "curve_quantile": Var(("quantile", "batch"), "nat", "quantiles of the evaluation loss"),
    "quantile": Var(("quantile",), "1", "which quantile"),
}


def reduce(
    inputs: View[Model], shared: Dataset, columns: Columns, results: Columns, options: Best
) -> dict[str, np.ndarray]:
    """Rank the models that did not diverge, and take quantiles of their loss curves. The arguments: see `ctd.kernel`."""
    del shared
    trained = np.flatnonzero(np.asarray(results["outcome"][:]) != DIVERGED)
    value = np.asarray(results[RANKED[inputs.criterion]][:])
    order = trained[np.argsort(value[trained], kind="stable")]
    best = order[: options.n_best]
    curves = np.asarray(results["curve.eval.loss"])
    names = ("eval_loss", "eval_nll", *(name for name in METRICS if name in results))
    held_out = {}
    if "co_bps" in results:
        above = np.argsort(-np.asarray(results["co_bps"], float)[order], kind="stable")  # NaN last
        held_out["co_bps_rank"] = np.argsort(above)[: options.n_best]
    return (
        held_out
        | _by_session(columns, results, best)
        | {
            "item": np.asarray(columns["item"])[best],
            **{name: np.asarray(results[name])[best] for name in names},
            "curve_quantile": curve_quantiles(curves[order]),
            "quantile": QUANTILES,
        }
    )


def _by_session(columns: Columns, results: Columns, best: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of each session of the best models, those of a model together; empty for models of one session."""
    values = {name: np.asarray(results[name])[best] for name in SESSIONS if name in results}
    if not values:
        return {}
    n = values["session_loss"].shape[1]
    rows = {
        "session_item": np.repeat(np.asarray(columns["item"])[best], n),
        "session": np.tile(np.arange(n), len(best)),
    }
    return rows | {name: value.ravel() for name, value in values.items()}


def next_jobs(
    model: Model, item: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, JobFields | str]:
    """Infer all trials; judge the models by held-out units; find the fixed points of its generator, from the stored states; train
    it for twice as many steps."""
    store, _, number = item.rpartition("::")
    infer = f"ctd posterior {shlex.quote(store)} --where 'item == {number}'"
    longer = changed(model, n_batches=2 * model.n_batches)
    first: dict[str, JobFields | str] = {"rates of all trials": infer}
    if "co_bps" in shapes:
        held_out = f"ctd best {shlex.quote(store)} --by co_bps"
        first["the best by held-out units, without the penalties in eval_loss"] = held_out
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
