"""The table of a network's fixed and slow points, made from the ends of its searches."""

from __future__ import annotations

import warnings

import numpy as np

from ctd.cells import Cell
from ctd.fixed_points import linear
from ctd.fixed_points.network import Network, cell_of, map_of, outputs_of, step_of
from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.fixed_points.search.missed import with_missed
from ctd.fixed_points.search.params import FixedPoint, Options
from ctd.fixed_points.search.unique import Basins, Ends, by_input, nearest_distance
from ctd.kernel import Var, View
from ctd.late import jax, jnp
from ctd.principal import principal_axes
from ctd.rows import Columns, blocks
from ctd.words import count

N_AXES = 3
"""Principal axes of the states that the pictures need."""

ROUNDING = 1e-6
"""Excess over a cell's bound that |h_i| may have by rounding."""

NEAR = 0.5
"""A point lies near the candidate states if one is within this, in units of their spread. On a line attractor the points of
networks that integrate have a median of 0.1 to 0.2; those of a network that rotates around its points, 0.8."""

FEW = 0.1
"""A warning says so if no more than this share of the points lies near the candidate states ..."""

MANY = 10
"""... of this many points at least. Few points may well lie elsewhere: the one in the middle of a cycle, saddles between states."""

MOST_NAMED = 5
"""Points that a warning names."""


_P = ("fixed_point",)
REDUCED = {
    "origin": Var(
        _P,
        "1",
        "what led here first: searches from states, a box or a sphere; settled: the network itself; between points: Newton",
        usual="states",
    ),
    "kind": Var(_P, "1", "fixed: q below q_tol; slow: a local minimum of q"),
    "point": Var((*_P, "state"), "1", "the state h"),
    "constant_input": Var((*_P, "input"), "1", "the constant input x"),
    "q": Var(_P, "1", "q = |F(h) - h|^2 / 2; of a flow |dh/dt|^2 / 2"),
    "residual": Var(_P, "1", "|F(h) - h|; of a flow |dh/dt|"),
    "error": Var(_P, "1", "how far off a fixed point is, to first order: the length of Newton's step; NaN for slow points"),
    "count": Var(_P, "1", "searches that ended here; 0: `origin` says what led here"),
    "search_share": Var(_P, "1", "share of all searches with this input that ended here"),
    "stability": Var(_P, "1", "unstable: a mode grows; marginal: none grows, one does not decay; stable"),
    "stable": Var(_P, "1", "all modes decay, |eigenvalue| < 1 - 1e-6; of a flow, real part < -1e-6"),
    "n_unstable": Var(_P, "1", "modes that grow, |eigenvalue| > 1 + 1e-6; of a flow, real part > 1e-6"),
    "n_marginal": Var(_P, "1", "modes that neither grow nor decay, and the drift at a slow point, whose eigenvalue is 1 (of a flow, 0)"),
    "leading": Var(_P, "1", "largest magnitude of an eigenvalue; of a flow, largest real part"),
    "tau": Var(_P, "step", "time constant of this leading mode, in steps or units of time; negative: it grows; inf: it is marginal"),
    "leading_frequency": Var(_P, "1/step", "frequency of this leading mode, per step or unit of time; 0: it does not turn"),
    "tau_decaying": Var(_P, "step", "time constant of the slowest mode that decays; NaN: none does"),
    "curvature": Var(_P, "1", "smallest eigenvalue of the Hessian of q"),
    "nearest_state": Var(_P, "1", "distance to the nearest candidate state"),
    "outlier": Var(_P, "1", "far from every candidate state"),
    "output": Var((*_P, "output"), "1", "readout of the state"),
    "jacobian": Var((*_P, "state_out", "state"), "1", "dF/dh; of a flow, of the field"),
    "input_jacobian": Var((*_P, "state_out", "input"), "1", "dF/dx"),
    "eigenvalue": Var((*_P, "mode"), "1", "eigenvalues of dF/dh, by decreasing magnitude; of a flow, real part"),
    "right": Var((*_P, "state", "mode"), "1", "right eigenvectors, of unit length"),
    "left": Var((*_P, "state", "mode"), "1", "left eigenvectors, left^H right = identity"),
    "time_constant": Var((*_P, "mode"), "step", "-1 / ln|eigenvalue|; of a flow -1 / real part; negative: grows"),
    "frequency": Var((*_P, "mode"), "1/step", "arg(eigenvalue) / 2 pi; of a flow, imaginary part / 2 pi"),
    "time_constant_s": Var((*_P, "mode"), "s", "time constant in seconds, where dt is given"),
    "frequency_hz": Var((*_P, "mode"), "Hz", "frequency in hertz, where dt is given"),
    "n_unique": Var((), "1", "unique points, those beyond max_points included"),
    "plane_mean": Var(("state",), "1", "mean of the candidate states: the origin of the pictures"),
    "plane_axes": Var(("state", "component"), "1", "their principal axes, those of the pictures"),
}  # fmt: skip
SUMMARY = (
    "kind", "constant_input", "q", "error", "stability", "n_unstable", "leading", "count", "origin",
)  # fmt: skip
"""Columns of the table that a run ends with: without the last, which is rare, they fit a terminal of 80 columns."""


def reduce(
    inputs: View[FixedPoint], shared: Network, columns: Columns, results: Columns, options: Options
) -> dict[str, np.ndarray]:
    """The unique points of a network, and the network linearised around each.

    Points are ordered by input x (as they first appear), then fixed before slow, then larger basins first,
    then lower q first. A basin's point is its member of lowest q; a fixed member comes before slow ones. Fixed points at
    which no search ended have a basin of 0 candidates; those found between others come last of these.
    Derivatives are computed in float64, whatever dtype the searches ran in. The ends are read in blocks.
    """
    _warn_of_pooled(columns)
    states = np.asarray(shared.states, float).reshape(-1, shared.states.shape[-1])
    n_states, n_in = states.shape[1], np.shape(results["constant_input"][:1])[1]
    origins = ("states", inputs.region)  # anywhere_start is 0 or 1
    f = step_of(shared, inputs.time)
    # A step of a flow's Euler map is as long as its unit of time: it would not go where the flow does.
    steps = options.settle if inputs.time == "steps" else 0
    tables = [
        with_missed(ends.table(options.max_points, origins), f, shared, ends.x, options, steps)
        for ends in _ends(inputs, results, options.unique_tol)
    ]
    join = lambda name, empty: np.concatenate([empty, *(table[name] for table in tables)])
    points = join("point", np.zeros((0, n_states)))
    outcome, q = join("outcome", np.zeros(0, int)), join("q", np.zeros(0))
    x = join("constant_input", np.zeros((0, n_in)))
    nearest = nearest_distance(points, states)
    linearised = _linearise(inputs, shared, points, x, outcome == SLOW)
    _warn_of_error(linearised["error"], options.unique_tol)
    _warn_of_reach(shared, points)
    _warn_of_distance(nearest / float(shared.spread))
    return {
        "origin": join("origin", np.zeros(0, "<U1")),
        "kind": np.where(outcome == FIXED, "fixed", "slow"),
        "point": points,
        "constant_input": x.astype(inputs.dtype),  # an x of 0.1 stays 0.1
        "q": q,
        "residual": np.sqrt(2 * q),
        "count": join("count", np.zeros(0, int)),
        "search_share": join("search_share", np.zeros(0)),
        "nearest_state": nearest,
        "outlier": nearest > options.outlier_tol * float(shared.spread),
        "n_unique": np.asarray(sum(table["n_unique"] for table in tables)),
        "plane_mean": states.mean(axis=0),
        "plane_axes": principal_axes(states, N_AXES),
        **linearised,
    }


def _ends(inputs: View[FixedPoint], results: Columns, unique_tol: float) -> list[Ends]:
    """The ends of the searches at each input, in the order in which inputs appear."""
    ends_by_input: dict[bytes, Ends] = {}
    names = ["outcome", "q", "constant_input", "point"]
    if inputs.region != "none":
        names.append("anywhere_start")
    for block in blocks(results, names):
        for x, members in by_input(np.asarray(block["constant_input"], float)):
            basins = Basins(unique_tol, block["point"].shape[1])
            ends_by_input.setdefault(x.tobytes(), Ends(x, basins)).add(block, members)
    return list(ends_by_input.values())


def _warn_of_pooled(columns: Columns) -> None:
    """Warn if settings of searches, such as tolerances, are swept: the points of all their values go into one table."""
    apart = {"item", "candidate", "x"}
    swept = [n for n in columns if n not in apart and len(np.unique(np.asarray(columns[n]))) > 1]
    if swept:
        warnings.warn(
            f"{', '.join(swept)}: swept, and the table of points is one of all values together; a job for each value keeps them apart",
            stacklevel=2,
        )


def _warn_of_error(error: np.ndarray, unique_tol: float) -> None:
    """Warn of fixed points that may be none. error: NaN for slow points."""
    if n := int((error > unique_tol).sum()):
        warnings.warn(
            f"{count(n, 'fixed point')} of {(error == error).sum()} have an error above unique_tol: {unique_tol:g}. They may be slow "
            "points, or several may be one; give a lower q_tol",
            stacklevel=2,
        )


def _warn_of_reach(shared: Network, points: np.ndarray) -> None:
    """Warn of points where no trial of the cell comes by."""
    cell = cell_of(shared)
    if not isinstance(cell, Cell):
        return
    rows = np.flatnonzero(np.abs(points).max(axis=1, initial=0) > cell.most + ROUNDING)
    if len(rows):
        some = ", ".join(map(str, rows[:MOST_NAMED])) + ", ..." * (len(rows) > MOST_NAMED)
        warnings.warn(
            f"{count(len(rows), 'point')} of {len(points)} with some |h_i| above {cell.most:g}, where a {cell.name} that starts below "
            f"never comes: fixed_point {some}",
            stacklevel=2,
        )


def _warn_of_distance(distance: np.ndarray) -> None:
    """Warn if nearly all points are far from the candidate states. distance: to the nearest one, in units of their spread."""
    near = int((distance <= NEAR).sum())
    if len(distance) >= MANY and near <= FEW * len(distance):
        warnings.warn(
            f"{near} of {len(distance)} points near the states that searches start from, within {NEAR:g} of their spread; the "
            f"median distance is {np.median(distance):.2g} of it. The network is elsewhere in its trials: points may say little of what it "
            "does there",
            stacklevel=2,
        )


def _linearise(
    inputs: View[FixedPoint], shared: Network, points: np.ndarray, x: np.ndarray, slow: np.ndarray
) -> dict[str, np.ndarray]:
    flow = inputs.time == "continuous"
    # Not `step_of`: the eigenvalues of a flow are those of its own field.
    f = map_of(shared, inputs.time)
    with jax.enable_x64(True):
        weights = {name: jnp.asarray(w, jnp.float64) for name, w in shared.weights.items()}
        output = np.asarray(outputs_of(shared._replace(weights=weights), jnp.asarray(points)))
    d = linear.derivatives(f, weights, points, x, flow)
    m = linear.modes(d.dh, flow)
    growth = linear.growth(m.eigenvalues, slow, flow)
    stability = linear.stability(growth)
    tau = linear.time_constants(m.eigenvalues, flow)
    frequency = linear.frequencies(m.eigenvalues, flow)
    size = m.eigenvalues.real if flow else np.abs(m.eigenvalues)
    out = {
        "stability": stability,
        "stable": stability == "stable",
        "n_unstable": (growth == linear.GROWS).sum(axis=1),
        "n_marginal": (growth == linear.NEITHER).sum(axis=1),
        "leading": size.max(axis=1, initial=-np.inf if flow else 0),
        "tau": tau[:, 0],
        "leading_frequency": np.abs(frequency[:, 0]),
        "tau_decaying": np.fmax.reduce(
            np.where(growth == linear.DECAYS, tau, np.nan), axis=1, initial=np.nan
        ),
        "curvature": d.curvature,
        "error": np.where(slow, np.nan, d.error),  # a slow point has no zero to be off
        "output": output,
        "jacobian": d.dh,
        "input_jacobian": d.dx,
        "eigenvalue": m.eigenvalues,
        "right": m.right_vectors,
        "left": m.left_vectors,
        "time_constant": tau,
        "frequency": frequency,
    }
    if inputs.dt is not None:
        out |= {"time_constant_s": tau * inputs.dt, "frequency_hz": frequency / inputs.dt}
    return out
