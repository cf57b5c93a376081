"""The tables and pictures of a continuation: branches, each once, and their bifurcations."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from ctd.fixed_points import linear
from ctd.fixed_points.continuation.bifurcation import FOLD, KINDS
from ctd.fixed_points.continuation.branch import CLOSED, END, NOWHERE
from ctd.fixed_points.network import Network, OfDynamics, warn_of_untried
from ctd.fixed_points.pictures import ROUNDING, Part, parts
from ctd.kernel import NoOptions, Var, View
from ctd.plots import Axis, Group, Layer, Lines, Plot, Points, of_group
from ctd.principal import component, principal
from ctd.rows import Columns, alike
from ctd.words import count

SAME = 1e-5
"""Two ends of branches are one if p and h differ by less, in their units; two bifurcations, if h differs by less than a hundred
times this. A pitchfork met along one of its arms is known to the square root of
rounding only."""

MOST = 500
"""Branches that a picture shows at most."""

READ = (
    "constant_input", "parameter", "branch_state", "n_unstable", "outcome", "met_kind", "met_parameter", "met_state", "met_mode",
)  # fmt: skip
"""The results that tables and pictures are made from."""

_B, _R = ("bifurcation",), ("branch",)
REDUCED = {
    "kind": Var(_B, "1", f"{', '.join(KINDS)} (hopf: for maps, Neimark-Sacker)"),
    "bifurcation_parameter": Var(_B, "1", "p there"),
    "bifurcation_state": Var((*_B, "state"), "1", "h there"),
    "bifurcation_input": Var((*_B, "input"), "1", "the constant input x; over the input, that at p = 0"),
    "critical": Var(_B, "1", "the eigenvalue of dF/dh that is critical there"),
    "frequency": Var(_B, "1/step", "frequency of the critical mode: arg / 2 pi for a map, Im / 2 pi for a flow"),
    "branch": Var(_B, "1", "number of the branch that meets it first"),
    "count": Var(_B, "1", "branches that meet it"),
    "branch_starts": Var(_R, "1", "items that followed this branch"),
    "branch_item": Var(_R, "item", "the first of them"),
    "branch_input": Var((*_R, "input"), "1", "its constant input, as bifurcation_input"),
    "branch_low": Var(_R, "1", "smallest p on it"),
    "branch_high": Var(_R, "1", "largest p on it"),
    "branch_stable": Var(_R, "1", "share of its length that is stable, in units of p's range and of the largest |h_i|"),
    "branch_folds": Var(_R, "1", "folds on it"),
    "branch_of_start": Var(("start_item",), "1", "number of the branch that each item followed; -1: none"),
}  # fmt: skip
SUMMARY = ("kind", "bifurcation_parameter", "frequency", "branch", "count", "branch_item")


def reduce(
    inputs: View[OfDynamics],
    shared: Network,
    columns: Columns,
    results: Columns,
    options: NoOptions | None,
) -> dict[str, np.ndarray]:
    """The branches of a network, in order of their first items, and each bifurcation once, by p.

    Two items at one constant input are one branch if both of its ends are: at an end of the range of p, states are corrected to
    rounding. The ends of a closed branch are its folds of least and of largest p. An item that began nowhere, or elsewhere,
    followed none.
    """
    del options
    n = int(np.prod(shared.states.shape[:-1]))
    starts = np.asarray(columns.get("start_point", np.zeros(1, int)))
    warn_of_untried("start_point", len(np.unique(starts % n)), n)
    arrays = _read(results)
    _warn_of_no_point(arrays["outcome"])
    items = np.asarray(columns.get("item", np.arange(len(arrays["outcome"]))))
    branch_of = _branches(arrays)
    first = _first_rows(branch_of)
    met = _bifurcations(arrays, branch_of, first)
    critical = met["mode"][:, 0] + 1j * met["mode"][:, 1]
    lines = [_line(arrays, row) for row in first]
    return {
        "kind": np.asarray(KINDS)[met["kind"]],
        "bifurcation_parameter": met["parameter"],
        "bifurcation_state": met["state"],
        "bifurcation_input": met["input"],
        "critical": critical,
        "frequency": linear.frequencies(critical, inputs.time == "continuous"),
        "branch": met["branch"],
        "count": met["count"],
        "branch_starts": np.bincount(branch_of[branch_of >= 0], minlength=len(first)),
        "branch_item": items[first],
        "branch_input": arrays["constant_input"][first],
        "branch_low": np.array([line.p.min() for line in lines]),
        "branch_high": np.array([line.p.max() for line in lines]),
        "branch_stable": np.array([_stable_share(line) for line in lines]),
        "branch_folds": (arrays["met_kind"][first] == FOLD).sum(1),
        "branch_of_start": branch_of,
    }


def _warn_of_no_point(outcome: np.ndarray) -> None:
    """Warn of starts without a branch, which the table does not list."""
    if lacking := int((outcome == NOWHERE).sum()):
        warnings.warn(
            f"{lacking} of {count(len(outcome), 'start')} followed no branch, slow points or too far from a fixed one "
            "(outcome nowhere): start at fixed points that a search finds at the same p, or give a larger max_step",
            stacklevel=3,
        )


def _read(results: Columns, rows: np.ndarray | slice = np.s_[:]) -> dict[str, np.ndarray]:
    """The results of READ, and (p, h) along branches and at bifurcations in units of the range of p and of the largest |h_i|.

    Inputs are rounded: of points on one line x + p along, those at p = 0 differ by rounding alone.
    """
    arrays = {name: np.asarray(results[name][rows]) for name in READ if name in results}
    arrays.setdefault("constant_input", np.zeros((len(arrays["outcome"]), 0)))  # of an older store
    arrays["constant_input"] = np.round(arrays["constant_input"], 9) + 0.0
    p = arrays["parameter"][np.isfinite(arrays["parameter"])]
    unit_p = float(np.ptp(p)) or 1.0 if len(p) else 1.0
    unit_h = float(np.nanmax(np.abs(arrays["branch_state"]), initial=0)) or 1.0
    joined = lambda p, h: np.concatenate([p[..., None] / unit_p, h / unit_h], axis=-1)
    arrays["w"] = joined(arrays["parameter"], arrays["branch_state"])
    arrays["met_w"] = joined(arrays["met_parameter"], arrays["met_state"])
    return arrays


def _branches(arrays: Columns) -> np.ndarray:
    """(row,) number of the branch that each row followed; -1 if there was none."""
    outcome, x = arrays["outcome"], arrays["constant_input"]
    # (row, end, w); NaN: equal to no other.
    ends = np.full((len(outcome), 2, arrays["w"].shape[-1]), np.nan)
    for row in range(len(outcome)):
        folds = np.flatnonzero(arrays["met_kind"][row] == FOLD)
        if outcome[row] == END:
            ends[row] = arrays["w"][row, np.flatnonzero(arrays["n_unstable"][row] >= 0)[[0, -1]]]
        elif outcome[row] == CLOSED and len(folds):
            order = np.argsort(arrays["met_parameter"][row, folds])
            ends[row] = arrays["met_w"][row, folds[order[[0, -1]]]]

    def is_like(row: int, other: int) -> bool:
        if (x[row] != x[other]).any():
            return False
        # h at a fold is known to the root of rounding.
        near = SAME if outcome[row] == END else SAME * 100
        # One search's back may be the front of another.
        return any(np.abs(way - ends[other]).max() < near for way in (ends[row], ends[row][::-1]))

    rows = np.flatnonzero(outcome < NOWHERE)
    branch_of = np.full(len(outcome), -1)
    branch_of[rows] = alike(rows.tolist(), is_like)[1]
    return branch_of


class Line(NamedTuple):
    """The k points of a branch in order: its steps, and between them the bifurcations that it meets."""

    p: np.ndarray
    """(k,)"""
    h: np.ndarray
    """(k, state)"""
    w: np.ndarray
    """(k, 1 + state) both in their units."""
    unstable: np.ndarray
    """(k,) unstable modes between a point and the next one."""


def _line(arrays: Columns, row: int) -> Line:
    on_branch = np.flatnonzero(arrays["n_unstable"][row] >= 0)
    met = arrays["met_kind"][row] >= 0
    if arrays["outcome"][row] == CLOSED:
        # It came back within a step of its start, short of it or beyond: it ends there.
        on_branch[0] = on_branch[-1]
    steps = [arrays[name][row, on_branch] for name in ("parameter", "branch_state", "w")]
    unstable, w = arrays["n_unstable"][row, on_branch], steps[-1]
    if len(w) < 2 or not met.any():
        return Line._make([*steps, unstable])
    between = [arrays[f"met_{name}"][row, met] for name in ("parameter", "state", "w")]
    at = between[-1]
    away = np.linalg.norm(w[:, None] - at, axis=2)  # (step, met)
    # A bifurcation lies in the step which it makes least longer.
    longer = away[:-1] + away[1:] - np.linalg.norm(np.diff(w, axis=0), axis=1)[:, None]
    step = longer.argmin(axis=0)
    share = away[step, np.arange(len(at))]
    share /= np.maximum(share + away[step + 1, np.arange(len(at))], np.finfo(float).tiny)
    order = np.argsort(np.append(np.arange(len(w)), step + share), kind="stable")
    # Behind a bifurcation the branch is as stable as at the end of the step.
    pairs = zip([*steps, unstable], [*between, unstable[step + 1]], strict=True)
    return Line._make(np.concatenate(pair)[order] for pair in pairs)


def _stable_share(line: Line) -> float:
    lengths = np.linalg.norm(np.diff(line.w, axis=0), axis=1)
    if not lengths.sum():
        return float(line.unstable[0] == 0)  # a single point
    return float(lengths[line.unstable[:-1] == 0].sum() / lengths.sum())


def _first_rows(branch_of: np.ndarray) -> np.ndarray:
    """(branch,) the first row of each branch, which stands for it."""
    numbers, rows = np.unique(branch_of, return_index=True)
    return rows[numbers >= 0]


def _bifurcations(
    arrays: Columns, branch_of: np.ndarray, first: np.ndarray
) -> dict[str, np.ndarray]:
    """Collect the bifurcations of the branches' first rows, each once, by p."""
    row, k = np.nonzero(arrays["met_kind"][first] >= 0)
    names = ("kind", "parameter", "state", "mode", "w")
    met = {name: arrays[f"met_{name}"][first][row, k] for name in names}
    met["input"] = arrays["constant_input"][first][row]

    def is_like(i: int, j: int) -> bool:
        p, *h = np.abs(met["w"][i] - met["w"][j])
        # Beside a fold or a pitchfork h changes as the root of p, so that it is known less well than p.
        near = p <= SAME and max(h) <= SAME * 100
        return bool(
            near and met["kind"][i] == met["kind"][j] and (met["input"][i] == met["input"][j]).all()
        )

    distinct, group = alike(np.argsort(met["parameter"], kind="stable").tolist(), is_like)
    return {name: values[distinct] for name, values in met.items()} | {
        "branch": branch_of[first][row[distinct]],
        "count": np.bincount(group, minlength=len(distinct)),
    }


# --- pictures -------------------------------------------------------------------------------------


@of_group
def plots(group: Group) -> list[Plot]:
    """The bifurcation diagrams: h over p, of each constant input; of several units, the first two principal components of h."""
    line, x = _padded_lines(group)
    return [
        _diagram(group, line, view, part, _met(group, x[part.rows]))
        for view in _views(group, line)
        for part in parts(x, "branches")
    ]


def _met(group: Group, x: np.ndarray) -> np.ndarray:
    """The rows of the bifurcations at the constant inputs x, (branch, input)."""
    n = len(group.reduced.get("kind", ()))
    inputs = np.asarray(group.reduced.get("bifurcation_input", np.zeros((n, x.shape[1]))))
    return np.flatnonzero((inputs[:, None] == x).all(-1).any(1))


def _padded_lines(group: Group) -> tuple[Line, np.ndarray]:
    """The lines of all branches, (branch, k): NaN, and -1 for `unstable`, beyond the end of a shorter one; and their inputs."""
    if "branch_of_start" in group.reduced:
        rows = _first_rows(np.asarray(group.reduced["branch_of_start"]))[:MOST]
    else:  # not gathered yet
        rows = np.arange(len(group.results["outcome"]))[:MOST]
    some = _read(group.results, rows)
    lines = [_line(some, row) for row in range(len(rows))]
    shape = len(lines), max((len(line.p) for line in lines), default=0)
    empty = lambda name: np.full((*shape, some[name].shape[-1]), np.nan)
    padded = Line(np.full(shape, np.nan), empty("branch_state"), empty("w"), np.full(shape, -1))
    for row, line in enumerate(lines):
        for values, part in zip(padded, line, strict=True):
            values[row, : len(part)] = part
    return padded, some["constant_input"]


type Height = tuple[str, np.ndarray, np.ndarray]
"""(label, (branch, k) heights, (bifurcation,) heights) of a diagram."""


def _views(group: Group, line: Line) -> list[Height]:
    """The heights of the diagrams: h itself, or principal components of h."""
    # No bifurcations before the job is gathered.
    none = np.zeros((0, line.h.shape[-1]))
    bifurcations = np.asarray(group.reduced.get("bifurcation_state", none))
    if line.h.shape[-1] == 1:
        return [("h", line.h[..., 0], bifurcations[..., 0])]
    finite = line.h[np.isfinite(line.h).all(-1)]
    if not len(finite):
        return []
    project, share = principal(finite, 2)
    at, met = project(line.h), project(bifurcations)
    if not share.any():  # p moves no point, as a weight does not move one at 0
        return [("h, the same at every p", at[..., 0], met[..., 0])]
    some = np.flatnonzero(share > ROUNDING).tolist()
    return [(component(share, k, " of h"), at[..., k], met[..., k]) for k in some]


def _diagram(
    group: Group, line: Line, view: Height, part: Part, bifurcation_rows: np.ndarray
) -> Plot:
    """Heights over p of a part of the branches, full lines where they are stable. bifurcation_rows: of their bifurcations."""
    label, heights, at = view
    p, unstable, heights = line.p[part.rows], line.unstable[part.rows], heights[part.rows]
    layers: list[Layer] = []
    for name, some, dashed in (("stable", unstable == 0, False), ("unstable", unstable > 0, True)):
        # The point at which a line ends belongs to both, so that no gap is left.
        near = some.copy()
        near[:, 1:] |= some[:, :-1]
        near &= unstable >= 0
        if some.any():
            layers.append(
                Lines(p, np.where(near, heights, np.nan), name, dashed=dashed, hue=int(dashed))
            )
    kinds = np.asarray(group.reduced.get("kind", np.array([], str)))
    parameters = np.asarray(group.reduced.get("bifurcation_parameter", np.zeros(0)))
    for hue, kind in enumerate(KINDS, 2):  # hues 0 and 1 are those of the lines
        met = bifurcation_rows[kinds[bifurcation_rows] == kind]
        if len(met):
            text = [f"{kind} at {parameters[k]:.6g}" for k in met]
            layers.append(
                Points(parameters[met], at[met], f"{kind} ({len(met)})", text=text, hue=hue)
            )
    over = "input" if group.inputs.over == "input" else f"factor of {group.inputs.over}"
    title, note = f"Bifurcation diagram{part.at}", part.together.strip()
    return Plot(title, layers, Axis(f"p, {over}"), Axis(label), note=note)
