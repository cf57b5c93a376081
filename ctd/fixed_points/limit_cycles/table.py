"""The table and pictures of limit cycles, each once."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from ctd.fixed_points import linear
from ctd.fixed_points.limit_cycles.cycle import CYCLE
from ctd.fixed_points.network import Network, OfDynamics
from ctd.fixed_points.pictures import unit_circle
from ctd.kernel import Var, View
from ctd.plots import Axis, Group, Layer, Lines, Plot, Points, of_group
from ctd.principal import component, principal
from ctd.rows import Columns, alike

SAME_PERIOD = 1e-5
"""Cycles whose periods differ by more, relative to them, are not the same."""

TRIED = 64
"""States of a cycle that are looked for on another one at most."""

MOST = 200
"""Cycles that a picture shows at most."""

MOST_COLOURS = 8
"""Cycles up to which each has a colour."""


class Options(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings of the reduction."""

    unique_tol: float = Field(
        1e-3,
        gt=0,
        description="two cycles of equal period are one if the states of one are this near to the other, in units of its size; for a flow, "
        "up to half the distance between the neighbouring states there is allowed in addition, and what a leap is longer than most",
    )


_C = ("cycle",)
REDUCED = {
    "cycle_period": Var(_C, "step", "period; of a flow, in units of time"),
    "cycle_stability": Var(_C, "1", "unstable: a mode grows; marginal: none grows, one does not decay; stable"),
    "cycle_n_unstable": Var(_C, "1", "modes that grow, |multiplier| > 1 + 1e-6"),
    "cycle_n_marginal": Var(_C, "1", "modes that neither grow nor decay; the one along a flow's cycle is not counted"),
    "cycle_leading": Var(_C, "1", "largest |multiplier|; the one along a flow's cycle is not counted"),
    "cycle_size": Var(_C, "1", "largest distance between two of its states"),
    "cycle_count": Var(_C, "1", "trajectories that ended here"),
    "cycle_share": Var(_C, "1", "share of the trajectories with this input that ended here"),
    "cycle_input": Var((*_C, "input"), "1", "the constant input x"),
    "cycle_multiplier": Var(
        (*_C, "mode"),
        "1",
        "Floquet multipliers by decreasing magnitude, complex; those below 1e-15 of the largest are rounding",
    ),
    "cycle_points": Var((*_C, "phase", "state"), "1", "states, in order"),
    "cycle_item": Var(_C, "item", "the first trajectory that ended here"),
}  # fmt: skip
SUMMARY = (
    "cycle_period", "cycle_stability", "cycle_n_unstable", "cycle_leading", "cycle_size", "cycle_count",
    "cycle_item",
)  # fmt: skip


def reduce(
    inputs: View[OfDynamics], shared: Network, columns: Columns, results: Columns, options: Options
) -> dict[str, np.ndarray]:
    """The cycles at which trajectories ended, each once; by input, as these appear, then the most frequent first."""
    del shared
    names = ("outcome", "period", "cycle_state", "multiplier", "size", "constant_input")
    arrays = {name: np.asarray(results[name][:]) for name in names}
    n = len(arrays["outcome"])
    items = np.asarray(columns.get("item", np.arange(n)))
    flow = inputs.time == "continuous"
    is_like = lambda row, other: _is_same(arrays, row, other, flow, options.unique_tol)
    first, group = alike(np.flatnonzero(arrays["outcome"] == CYCLE).tolist(), is_like)
    count = np.bincount(group, minlength=len(first))
    x = arrays["constant_input"]
    same_input = (x[first][:, None] == x[None]).all(axis=2).reshape(len(first), n)  # (cycle, item)
    appears = same_input.argmax(axis=1) if len(first) else first  # first item with its input
    order = np.lexsort((first, -count, appears))  # lexsort takes its last key first
    first, count, share = first[order], count[order], (count / same_input.sum(1))[order]
    parts = arrays["multiplier"][first]
    values = parts[..., 0] + 1j * parts[..., 1]
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1)
    across = _across(values) if flow else values
    growth = linear.growth(across)  # a flow's multipliers, like a map's, grow above 1
    return {
        "cycle_period": arrays["period"][first],
        "cycle_stability": linear.stability(growth),
        "cycle_n_unstable": (growth == linear.GROWS).sum(axis=1),
        "cycle_n_marginal": (growth == linear.NEITHER).sum(axis=1),
        "cycle_leading": np.abs(across).max(axis=1, initial=0),
        "cycle_size": np.array([_diameter(path) for path in arrays["cycle_state"][first]]),
        "cycle_count": count,
        "cycle_share": share,
        "cycle_input": x[first],
        "cycle_multiplier": values,
        "cycle_points": arrays["cycle_state"][first],
        "cycle_item": items[first],
    }


def _diameter(path: np.ndarray) -> float:
    path = path[np.isfinite(path).all(axis=1)]  # NaN beyond a map's period
    return float(np.linalg.norm(path[:, None] - path, axis=2).max())


def _across(multipliers: np.ndarray) -> np.ndarray:
    """(cycle, mode - 1) all but the trivial one of a flow, along the cycle, which is 1 but for rounding."""
    along = np.argmin(np.abs(multipliers - 1), axis=1)
    is_across = np.arange(multipliers.shape[1]) != along[:, None]
    return multipliers[is_across].reshape(len(multipliers), multipliers.shape[1] - 1)


def _is_same(arrays: Columns, row: int, other: int, flow: bool, tol: float) -> bool:
    period, x = arrays["period"], arrays["constant_input"]
    if not (x[row] == x[other]).all() or abs(period[row] / period[other] - 1) > SAME_PERIOD:
        return False
    path, states = (v[np.isfinite(v).all(axis=1)] for v in arrays["cycle_state"][[other, row]])
    ahead, lengths = _lines(path, flow)
    near = tol * arrays["size"][other] + lengths / 2
    # Where a flow leaps from one stored state to the next, the other's may have leapt over it.
    step_lengths = _lines(states, flow)[1]
    step_lengths = np.maximum(step_lengths, np.roll(step_lengths, 1))
    leaps = np.maximum(step_lengths - np.median(step_lengths), 0)
    # Hunts meet a cycle at different phases. All states count: two cycles may be near each other in a part, as on both sides of a
    # saddle.
    return all(
        (_gaps(states[k], path, ahead, lengths) <= near + leaps[k]).any()
        for k in range(0, len(states), -(-len(states) // TRIED))
    )


def _lines(path: np.ndarray, flow: bool) -> tuple[np.ndarray, np.ndarray]:
    """The straight lines from each state to the next, on which a flow goes on, and their lengths; of a map 0."""
    ahead = np.roll(path, -1, axis=0) - path if flow else np.zeros_like(path)
    return ahead, np.linalg.norm(ahead, axis=1)


def _gaps(h: np.ndarray, path: np.ndarray, ahead: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The distances of a state from these lines of a path."""
    share = ((h - path) * ahead).sum(axis=1) / np.where(lengths > 0, lengths, 1) ** 2
    return np.linalg.norm(path + np.clip(share, 0, 1)[:, None] * ahead - h, axis=1)


# --- pictures -------------------------------------------------------------------------------------


@of_group
def plots(group: Group) -> list[Plot]:
    """The cycles in their states' principal components, and their multipliers."""
    if not len(group.reduced.get("cycle_period", ())):
        return []
    paths = np.asarray(group.reduced["cycle_points"])[:MOST]
    return [*_paths(group, paths), _multipliers(group)]


def _texts(group: Group) -> list[str]:
    columns = {name: np.asarray(group.reduced[f"cycle_{name}"]) for name in ("period", "stability")}
    return [
        f"cycle {k}: period {period:.6g}, {stability}"
        for k, (period, stability) in enumerate(
            zip(columns["period"], columns["stability"], strict=True)
        )
    ]


def _layers(group: Group, x: np.ndarray, y: np.ndarray, lines: bool = False) -> list[Layer]:
    """Draw k places (x, y) of each cycle in a colour of its own; of more than MOST_COLOURS cycles, by their stability."""
    texts = np.array(_texts(group)[:MOST])
    stability = np.asarray(group.reduced["cycle_stability"])[:MOST]
    names = texts if len(texts) <= MOST_COLOURS else stability
    layers: list[Layer] = []
    for hue, name in enumerate(dict.fromkeys(names.tolist())):
        rows = np.flatnonzero(names == name)
        grows = bool(stability[rows[0]] == "unstable")
        if lines:
            text = texts[rows].tolist()
            layers.append(Lines(x[rows], y[rows], name, text=text, dashed=grows, hue=hue))
            continue
        k, at = np.nonzero(np.isfinite(x[rows]))
        k = rows[k]
        layers.append(Points(x[k, at], y[k, at], name, hollow=grows, text=texts[k].tolist(), key=k, hue=hue))  # fmt: skip
    return layers


def _paths(group: Group, paths: np.ndarray) -> list[Plot]:
    if paths.shape[-1] < 2:
        return []
    project, share = principal(paths[np.isfinite(paths).all(-1)], 2)
    if len(share) < 2:
        return []
    flow = group.inputs.time == "continuous"
    # The first state once more at the end closes the line of a flow's cycle.
    places = project(np.concatenate([paths, paths[:, :1]], axis=1) if flow else paths)
    layers = _layers(group, places[..., 0], places[..., 1], lines=flow)
    axis = lambda k: Axis(component(share, k))
    note = "Dashed: unstable." if flow else "Hollow: unstable."
    return [Plot("Limit cycles", layers, axis(0), axis(1), note=note)]


def _multipliers(group: Group) -> Plot:
    values = np.asarray(group.reduced["cycle_multiplier"])[:MOST]
    layers = [unit_circle(), *_layers(group, values.real, values.imag)]
    return Plot(
        "Floquet multipliers", layers, Axis("Re"), Axis("Im"), equal=True,
        note="A mode outside the unit circle grows. Along a flow's cycle one multiplier is 1.",
    )  # fmt: skip
