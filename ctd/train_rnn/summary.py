"""The reduction of trained networks: the best of a group, and quantiles of its loss curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctd.kernel import Var
from ctd.plots.curves import QUANTILES, curve_quantiles
from ctd.rows import Best

REDUCED = {
    "network": Var(("rank",), "item", "item id, by increasing evaluation loss"),
    "eval_loss": Var(("rank",), "1", "loss on the evaluation trials"),
    "train_loss": Var(("rank",), "1", "loss over the last block"),
    "accuracy": Var(("rank",), "1", "share of the evaluation trials that are answered correctly"),
    "curve_quantile": Var(("quantile", "batch"), "1", "quantiles of the loss over networks"),
    "quantile": Var(("quantile",), "1", "the quantiles' probabilities"),
}


def reduce(
    inputs: Any,
    shared: Any,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Best,
) -> dict[str, np.ndarray]:
    """The trained networks with the smallest evaluation loss, and quantiles of the loss curves of all trained ones."""
    del inputs, shared
    trained = np.flatnonzero(results["outcome"] == 0)
    loss = results["eval_loss"]
    best = trained[np.argsort(loss[trained], kind="stable")][: options.n_best]
    scored = {"accuracy": results["accuracy"][best]} if "accuracy" in results else {}
    return scored | {
        "network": columns["item"][best],
        "eval_loss": loss[best],
        "train_loss": results["train_loss"][best],
        "curve_quantile": curve_quantiles(np.asarray(results["curve"])[trained]),
        "quantile": QUANTILES,
    }
