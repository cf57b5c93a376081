"""How figures are read from the stores of a row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from definitions import (
    best_by,
    census,
    change_per_level,
    cosine,
    effective_connectivity,
    mean_field,
    r2,
    turn_per_step,
    whole_deviation,
)
from figure import Measure, Stores
from sine_task import Sines

from ctd.similarity.analysis import silhouette

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from jobs.query.tree import StoreTree


def result(table: pd.DataFrame, name: str) -> pd.Series:
    """A result of every item; NaN, which counts as the worst value, for those that failed."""
    return table[name].where(table["status"] != "failed")


def column(stage: str, name: str) -> Measure:
    """One result of every item of a stage."""
    return lambda stores: result(stores[stage].table(), name).tolist()


def tables(store: StoreTree) -> list[xr.Dataset]:
    """The tables of the kernel's reduction, one for each group."""
    return [group.to_dataset() for group in store["gathered"].children.values()]


def only(store: StoreTree, name: str) -> np.ndarray:
    """A result of the one item of a store."""
    return store["results/0"][name].values[0]


# --- tutorials, fixed points ------------------------------------------------------------------------


def untrained(stores: Stores) -> int:
    """Number of networks that did not learn their task, of which no points were searched."""
    return len(stores["train"].table()) - len(tables(stores["points"]))


def as_a_cube(stores: Stores) -> list[float]:
    """1 for each network with 8, 12, 6 and 1 fixed points of 0, 1, 2 and 3 unstable directions, else 0."""
    found = tables(stores["points"])
    have = [float(census(one.q.values, one.n_unstable.values) == [8, 12, 6, 1]) for one in found]
    return have + [0.0] * untrained(stores)


def between_cells(stores: Stores) -> list[float]:
    """The distance of connection graphs of every two networks of different cells."""
    return _pairs(stores["distances"], "connections", alike=False).tolist()


def geometry(stores: Stores) -> list[float]:
    """Median Procrustes distance between networks of different cells over that between networks of one cell."""
    other, same = (
        _pairs(stores["distances"], "procrustes", alike=alike) for alike in (False, True)
    )
    return [float(np.median(other) / np.median(same))]


def _pairs(store: StoreTree, method: str, alike: bool) -> np.ndarray:
    """The distances by one method of all pairs of networks of one cell, or of different cells."""
    table = store.query(f"method == '{method}'", table="pair")
    first, second = (table[name].str.extract(r"cell=(\S+)")[0] for name in ("first", "second"))
    return table["pair_distance"][(first == second) == alike].to_numpy()


def silhouettes(method: str, shared: str, power: int = 1) -> Measure:
    """How well the distances, to this power, part the systems of each draw by what they share."""

    def measure(stores: Stores) -> list[float]:
        table = stores["distances"].query(f"method == '{method}'", table="pair")
        names = sorted({*table["first"], *table["second"]})
        first, second = (table[side].map(names.index).to_numpy() for side in ("first", "second"))
        apart = np.zeros((len(names), len(names)))
        apart[first, second] = apart[second, first] = table["pair_distance"] ** power
        draws, by = (
            np.array([int(re.search(rf"{field}=(\d+)", name)[1]) for name in names])
            for field in ("draw", shared)
        )
        return [
            silhouette(apart[np.ix_(draws == one, draws == one)], by[draws == one])
            for one in np.unique(draws)
        ]

    return measure


def degeneracy(factor: str, of: str, draws: int = 200) -> Measure:
    """What a factor's levels do to the degeneracy of networks: 95 % of its changes per level, see `definitions.change_per_level`."""

    def measure(stores: Stores) -> list[float]:
        table = [group[f"of_{of}"].values[0] for group in _groups(stores[f"{factor}_apart"])]
        kinds = 3 if factor == "complexity" else 1
        found = np.sort(change_per_level(np.array_split(table, kinds), of != "behaviour", draws))
        return found[draws // 40 : draws - draws // 40].tolist()

    return measure


def _groups(store: StoreTree) -> list[xr.Dataset]:
    """The results of all groups, in their order."""
    found = store["results"].children
    return [found[name].to_dataset() for name in sorted(found, key=int)]


def sine_explained(stores: Stores) -> list[float]:
    """Share of the variance of sines, 1/2, that each network generates in trials."""
    return (1 - 2 * result(stores["train"].table(), "eval_loss")).tolist()


def sine_turn(stores: Stores) -> list[float]:
    """For each network and input: the turn per step at its fixed point, relative to the frequency that the input names."""
    task, n_inputs = Sines(), stores["points"].table()["x"].nunique()
    found = [np.nan] * (n_inputs * untrained(stores))
    for table in tables(stores["points"]):
        inputs = np.unique(table.constant_input.values)
        found += [np.nan] * (n_inputs - len(inputs))  # those without any point
        for x in inputs:
            here = (table.constant_input.values[:, 0] == x) & (table.q.values < 1e-12)
            # The point inside of the cycle has the fewest other unstable modes.
            order = np.argsort(table.n_unstable.values[here], kind="stable")
            turns = [turn_per_step(table.eigenvalue.values[here][k]) for k in order]
            found.append(turns[0] / task.frequency(x) if turns else np.nan)
    return found


def sine_unstable(stores: Stores) -> list[float]:
    """For each network: the share of inputs with a fixed point with one unstable pair of modes and no other."""
    found, n_inputs = [], stores["points"].table()["x"].nunique()
    for table in tables(stores["points"]):
        inputs, fixed = table.constant_input.values[:, 0], table.q.values < 1e-12
        two = fixed & (table.n_unstable.values == 2)
        found.append(len(np.unique(inputs[two])) / n_inputs)
    return found + [0.0] * untrained(stores)


# --- tasks, low rank --------------------------------------------------------------------------------


def worst_task(stores: Stores) -> list[float]:
    """The accuracy of the worst task, of networks that learn one task each or of one that learns all."""
    table = stores["yang"].table()
    if "task.rule" in table:
        return [float(result(table, "accuracy").min(skipna=False))]
    return result(table, "worst_accuracy").tolist()


def lint_rates(task: str) -> Measure:
    """R2 of the fitted network's rates in evaluation trials, every fifth."""

    def measure(stores: Stores) -> list[float]:
        true = only(stores[f"{task}_rates"], "targets")[4::5]
        return [r2(true, only(stores[f"{task}_fit"], "outputs"))]

    return measure


def lint_bound(task: str) -> Measure:
    """R2 of the rates that the first network has without its noise: nothing can explain more of those with it."""

    def measure(stores: Stores) -> list[float]:
        true, quiet = (only(stores[f"{task}_rates"], name)[4::5] for name in ("targets", "quiet"))
        return [r2(true, quiet)]

    return measure


def lint_effective(task: str) -> Measure:
    """Cosine of the effective connectivities of the trained and the fitted network."""

    def measure(stores: Stores) -> list[float]:
        names = ("low_rank.m", "low_rank.n", "weights.wI")
        both = [[only(stores[f"{task}{end}"], name) for name in names] for end in ("", "_fit")]
        return [cosine(*(effective_connectivity(*arrays) for arrays in both))]

    return measure


def circuit_connections(stores: Stores) -> list[float]:
    """For each latent circuit: the correlation of its recurrent weights with the network's projected on its nodes, Q' W Q."""
    w, fits = only(stores["network"], "W"), stores["fit"]["results/0"]
    both = zip(fits["embedding"].values, fits["weights.wR"].values, strict=True)
    return [float(np.corrcoef((q.T @ w @ q).ravel(), own.ravel())[0, 1]) for q, own in both]


def kappa(stores: Stores) -> list[float]:
    """Kappa of each network over that of the mean field."""
    table = stores["mean_field"].table()
    return (result(table, "kappa") / table["overlap"].map(mean_field)).tolist()


# --- reservoirs -------------------------------------------------------------------------------------


def narma_nmse(stores: Stores) -> list[float]:
    """The NMSE of each seed in the test, of the setting that is best in validation."""
    table = stores["narma"].table().set_index(["input_scale", "bias", "seed"])
    squared = lambda name: result(table, name).unstack("seed").to_numpy() ** 2
    return best_by(squared("validation_nrmse"), squared("replay_nrmse")).tolist()


def nvar(name: str) -> Measure:
    """An NRMSE of each segment, over the deviation of all entries."""

    def measure(stores: Stores) -> list[float]:
        factor = whole_deviation(only(stores["series"], "targets"))
        return (factor * result(stores["models"].table(), name)).tolist()

    return measure


# --- networks fitted to recordings ------------------------------------------------------------------


def force_error(stores: Stores) -> list[float]:
    """The normalised error, sum (z - f)^2 / sum f^2, of each network whose readout alone was trained."""
    wanted = only(stores["series"], "targets")
    share = wanted.var() / (wanted**2).mean()
    return (share * result(stores["force"].table(), "replay_nrmse") ** 2).tolist()


def region_currents(stores: Stores) -> list[float]:
    """For each fit: the correlation of its currents between regions with the true ones, mean over the pairs of regions."""
    true = _by_region(only(stores["simulation"], "currents"))
    apart = [(a, b) for a in range(len(true)) for b in range(len(true)) if a != b]
    return [
        float(np.mean([np.corrcoef(fit[a, b], true[a, b])[0, 1] for a, b in apart]))
        for fit in map(_by_region, stores["fit"]["results/0"]["currents"].values)
    ]


def _by_region(currents: np.ndarray) -> np.ndarray:
    """(source, time, unit) -> (source, target, sample)."""
    n = len(currents)
    parts = currents.reshape(n, currents.shape[1], n, -1)
    return parts.transpose(0, 2, 1, 3).reshape(n, n, -1)


# --- LFADS ------------------------------------------------------------------------------------------


def stitching_gain(stores: Stores) -> list[float]:
    """Rate R2 of the stitched model less the mean of those of single sessions."""
    mean = lambda stage: result(stores[stage].table(), "rate_r2").mean(skipna=False)
    return [float(mean("stitched") - mean("single"))]


def preset_gain(stores: Stores) -> list[float]:
    """Nats a trial by which the best member of the preset's population is better than the best random draw."""
    best = lambda stage: result(stores[stage].table(), "eval_nll").min()
    return [float(best("random") - best("preset"))]


def few_shot_picks(stores: Stores) -> list[float]:
    """For each truth, 1 if the model without extraneous dimensions has the best few-shot co-smoothing, else 0."""
    table = stores["few_shot"].table()
    scored = table.assign(score=result(table, "few_shot_co_bps")).dropna(subset="score")
    best = scored.sort_values("score").groupby("truth")["extraneous"].last()
    return (best.reindex(table["truth"].unique()) == 0).astype(float).tolist()


def co_bps_range(stores: Stores) -> list[float]:
    """For each truth, the best co-smoothing of its models less the worst, over the best."""
    table = stores["few_shot"].table()
    each = result(table, "co_bps").groupby(table["truth"])
    # NumPy's range is NaN where a model failed; pandas would leave that model out.
    return each.agg(lambda scores: np.ptp(scores.to_numpy()) / scores.max()).tolist()
