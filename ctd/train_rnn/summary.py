"""The reduction of trained networks: the best of a group, and quantiles of its loss curves; what to do with the best one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ctd.kernel import JobFields, Var, View, changed
from ctd.plots.curves import QUANTILES, curve_quantiles
from ctd.rows import Best, Columns, ranked
from ctd.tasks import Recorded
from ctd.train_rnn.loss import Shared
from ctd.train_rnn.params import Network

REDUCED = {
    "item": Var(("rank",), "item", "item id, by increasing evaluation loss"),
    "eval_loss": Var(("rank",), "1", "loss on the evaluation trials"),
    "train_loss": Var(("rank",), "1", "loss over the last block"),
    "accuracy": Var(("rank",), "1", "share of the evaluation trials that are answered correctly"),
    "curve_quantile": Var(("quantile", "batch"), "1", "quantiles of the loss over trained networks, without those that a search dropped"),
    "quantile": Var(("quantile",), "1", "the quantiles' probabilities"),
    "inputs": Var(("trial", "time", "input"), "1", "inputs of the saved trials, without eval_input_noise"),
    "targets": Var(("trial", "time", "output"), "1", "targets of the saved trials"),
    "mask": Var(("trial", "time", "output"), "1", "weights of the saved trials' steps in the loss"),
}  # fmt: skip


def reduce(
    inputs: View[Network], shared: Shared, columns: Columns, results: Columns, options: Best
) -> dict[str, np.ndarray]:
    """The trained networks with the smallest evaluation loss, quantiles of the loss curves of all trained ones, saved trials."""
    trained = np.flatnonzero(results["outcome"] == 0)
    best = ranked(results, "eval_loss")[: options.n_best]
    names = [name for name in ("accuracy", "eval_loss", "train_loss") if name in results]
    return _saved(inputs, shared) | {name: results[name][best] for name in names} | {
        "item": columns["item"][best],
        "curve_quantile": curve_quantiles(np.asarray(results["curve"])[trained]),
        "quantile": QUANTILES,
    }  # fmt: skip


def _saved(inputs: View[Network], shared: Shared) -> dict[str, np.ndarray]:
    """The trials whose states and outputs are stored, which are the same for all networks of a group; none without `n_saved`."""
    if not inputs.n_saved:
        return {}
    x, y, mask = (
        np.asarray(leaf)[: inputs.n_saved]
        for leaf in (shared.evaluation.inputs, shared.evaluation.targets, shared.evaluation.weights)
    )
    return {"inputs": x, "targets": y, "mask": np.broadcast_to(mask, y.shape)}


def next_jobs(
    network: Network, item: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, JobFields]:
    """Find its fixed points, in each context if the task has some; train it for twice as many steps, whatever its accuracy."""
    # stop_at would end the training where it did.
    longer = {k: v for k, v in changed(network).items() if k != "stop_at"}
    longer |= {"n_batches": 2 * network.n_batches}
    train: dict[str, JobFields] = {
        "train another for longer": {"kernel": "train_rnn", "params": longer}
    }
    # Without a context's input, a network has points that it never uses.
    x = [list(row) for row in network.task.constant_inputs]
    points = {"weights": item, **{k: v for k, v in changed(network).items() if k == "task"}}
    n = 1000
    if isinstance(network.task, Recorded):  # whose trials no other kernel reads
        if "states" not in shapes:
            return train
        points = {"weights": item, "candidates": f"{item}::results", "dataset": "states"}
        n = min(n, math.prod(shapes["states"][:-1]))  # candidates beyond their number repeat
    search = {
        "kernel": "fixed_points",
        "params": points,
        "sweep": {"grid": {"candidate": {"range": n}} | ({"x": x} if x else {})},
    }
    return {"its fixed points": search, **train}
