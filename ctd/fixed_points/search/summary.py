"""The table of a network's fixed and slow points, made from the ends of its searches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ctd.fixed_points import linear
from ctd.fixed_points.candidates import Map, Network, SearchFields, as_dtype, euler, outputs_of
from ctd.fixed_points.search import ends
from ctd.fixed_points.search.methods import FIXED, SLOW
from ctd.fixed_points.search.missed import Known, between, newton_of, settled
from ctd.fixed_points.search.unique import Basins, nearest_distance
from ctd.kernel import Var, View
from ctd.late import jax, jnp
from ctd.principal import principal_axes
from ctd.rows import blocks
from ctd.words import count

N_AXES = 3
"""Principal axes of the states that the pictures need."""


class Options(BaseModel):
    """Settings of the reduction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unique_tol: float = Field(
        1e-3,
        gt=0,
        description="ends closer than this, in units of h, are one point. A point with residual "
        "|F(h) - h| is off by up to that over the smallest singular value of dF/dh - 1: with the "
        "default q_tol, 1e-10 / 1e-5 at worst",
    )
    outlier_tol: float = Field(
        2.0,
        gt=0,
        description="an outlier is farther than this from every candidate state, in units of the "
        "states' root mean square distance from their mean: nowhere near what the network visits",
    )
    max_points: int = Field(
        500, gt=0, description="most points analysed for each input; those with the largest basins"
    )
    settle: int = Field(
        200,
        ge=0,
        lt=2**31,
        description="steps that the network itself makes from up to 500 of the states, for each input, before Newton's "
        "method: finds stable points that no search ended at; 0: none. Not of flows",
    )
    between: int = Field(
        500,
        ge=0,
        description="most searches by Newton for each input from halfway between two of its fixed points: finds saddles "
        "that no search ended at. Fewer for networks of more than 250 units, whose steps cost n^3; 0: none",
    )


class PointFields(SearchFields, Protocol):
    """The fields of a search that its table depends on."""

    @property
    def dt(self) -> float | None: ...


_ENDS = ("outcome", "q", "constant_input", "point", "anywhere_start")
"""The results that tell how a search ended, and where it began; the last only where there is a region."""

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
    "error": Var(
        _P,
        "1",
        "how far off a fixed point is, to first order: the length of Newton's step; NaN for slow points",
    ),
    "count": Var(_P, "1", "searches that ended here"),
    "search_share": Var(_P, "1", "share of all searches with this input that ended here"),
    "stability": Var(
        _P, "1", "unstable: a mode grows; marginal: none grows, one does not decay; stable"
    ),
    "stable": Var(
        _P, "1", "all modes decay, |eigenvalue| < 1 - 1e-6; of a flow, real part < -1e-6"
    ),
    "n_unstable": Var(
        _P, "1", "modes that grow, |eigenvalue| > 1 + 1e-6; of a flow, real part > 1e-6"
    ),
    "n_marginal": Var(
        _P, "1", "modes between, and the drift of a slow point, whose eigenvalue is 1; of a flow 0"
    ),
    "leading": Var(_P, "1", "largest magnitude of an eigenvalue; of a flow, largest real part"),
    "tau": Var(
        _P,
        "step",
        "time constant of this leading mode, in steps or units of time; negative: it grows; inf: it is marginal",
    ),
    "leading_frequency": Var(
        _P,
        "1/step",
        "frequency of this leading mode, per step or unit of time; 0: it does not turn",
    ),
    "tau_decaying": Var(
        _P, "step", "time constant of the slowest mode that decays; NaN: none does"
    ),
    "curvature": Var(_P, "1", "smallest eigenvalue of the Hessian of q"),
    "nearest_state": Var(_P, "1", "distance to the nearest candidate state"),
    "outlier": Var(_P, "1", "far from every candidate state"),
    "output": Var((*_P, "output"), "1", "readout of the state"),
    "jacobian": Var((*_P, "state_out", "state"), "1", "dF/dh; of a flow, of the field"),
    "input_jacobian": Var((*_P, "state_out", "input"), "1", "dF/dx"),
    "eigenvalue": Var(
        (*_P, "mode"), "1", "eigenvalues of dF/dh, by decreasing magnitude; of a flow, real part"
    ),
    "right": Var((*_P, "state", "mode"), "1", "right eigenvectors, of unit length"),
    "left": Var((*_P, "state", "mode"), "1", "left eigenvectors, left^H right = identity"),
    "time_constant": Var(
        (*_P, "mode"), "step", "-1 / ln|eigenvalue|; of a flow -1 / real part; negative: grows"
    ),
    "frequency": Var(
        (*_P, "mode"), "1/step", "arg(eigenvalue) / 2 pi; of a flow, imaginary part / 2 pi"
    ),
    "time_constant_s": Var((*_P, "mode"), "s", "time constant in seconds, where dt is given"),
    "frequency_hz": Var((*_P, "mode"), "Hz", "frequency in hertz, where dt is given"),
    "n_unique": Var((), "1", "unique points, those beyond max_points included"),
    "plane_mean": Var(("state",), "1", "mean of the candidate states: 0 in the pictures"),
    "plane_axes": Var(("state", "component"), "1", "their principal axes, those of the pictures"),
}
SUMMARY = (
    "kind", "constant_input", "q", "error", "stability", "n_unstable", "leading", "count", "origin",
)  # fmt: skip
"""Columns of the table that a run ends with: without the last, which is rare, they fit a terminal of 80 columns."""


def reduce(
    map_of: Callable[..., Map],
    inputs: View[PointFields],
    shared: Network,
    columns: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    options: Options,
) -> dict[str, np.ndarray]:
    """The unique points of a network, and the network linearised around each.

    Points are ordered by input x (as they first appear), then fixed before slow, then larger basins first,
    then lower q first. A basin's point is its member of lowest q; a fixed member comes before slow ones. Fixed points at
    which no search ended have a basin of 0 candidates; those found between others come last of these.
    Derivatives are computed in float64, whatever dtype the searches ran in. The ends are read in blocks.
    """
    del columns
    by_input, n_states, n_in = _by_input(inputs, results, options.unique_tol)
    origins = ("states", inputs.region)  # anywhere_start is 0 or 1
    tables = [found.table(options.max_points, origins) for found in by_input]
    states = np.asarray(shared.states, float).reshape(-1, n_states)
    more = _More(euler(map_of(shared, inputs.time), inputs.time), shared, states, options)
    # A step of a flow's Euler map is as long as its unit of time: it would not go where the flow does.
    steps = options.settle if inputs.time == "steps" else 0
    tables = [more.added(t, e.x, steps) for t, e in zip(tables, by_input, strict=True)]
    join = lambda name, empty: np.concatenate([empty, *(table[name] for table in tables)])
    points = join("point", np.zeros((0, n_states)))
    outcome, q = join("outcome", np.zeros(0, int)), join("q", np.zeros(0))
    x = join("constant_input", np.zeros((0, n_in)))
    nearest = nearest_distance(points, states)
    linearised = _linearise(map_of, inputs, shared, points, x, outcome == SLOW)
    _warn_of_error(linearised["error"], options.unique_tol)
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


def _by_input(
    inputs: View[PointFields], results: Mapping[str, np.ndarray], unique_tol: float
) -> tuple[list[ends.Ends], int, int]:
    """The ends of the searches at each input, in the order in which inputs appear; the numbers of states and of inputs."""
    n_states = n_in = 0
    found: dict[bytes, ends.Ends] = {}
    names = _ENDS if inputs.region != "none" else _ENDS[:-1]
    for block in blocks(results, names):
        n_states, n_in = block["point"].shape[1], block["constant_input"].shape[1]
        for x, members in ends.by_input(np.asarray(block["constant_input"], float)):
            basins = Basins(unique_tol, n_states)
            found.setdefault(x.tobytes(), ends.Ends(x, basins)).add(block, members)
    return list(found.values()), n_states, n_in


def _warn_of_error(error: np.ndarray, unique_tol: float) -> None:
    """Warn of fixed points, those whose error is not NaN, that may be none."""
    if n := int((error > unique_tol).sum()):
        warnings.warn(
            f"{count(n, 'fixed point')} of {(error == error).sum()} have an error above unique_tol: {unique_tol:g}. They may be slow "
            "points, or several may be one; give a lower q_tol",
            stacklevel=2,
        )


class _More:
    """Adds to a table of points those at which the network comes to rest, and the fixed points between these."""

    def __init__(self, f: Map, shared: Network, states: np.ndarray, options: Options) -> None:
        self._f, self._states, self._options = f, states, options
        self._weights = as_dtype(shared.weights, "float64")
        self._newton = newton_of(f, self._weights)
        self._spread = float(shared.spread)

    def added(
        self, table: dict[str, np.ndarray], x: np.ndarray, steps: int
    ) -> dict[str, np.ndarray]:
        """The table of the input x with these points added. steps: how many the network makes to come to rest."""
        if len(table["q"]) >= self._options.max_points:
            return table
        newton = partial(self._newton, x)
        fixed = table["outcome"] == FIXED
        points, options = table["point"], self._options
        known = Known(newton, points[fixed], points[~fixed], self._spread, options.unique_tol)
        if steps:
            found = settled(self._f, self._weights, x, newton, known, self._states, steps)
            known.add(found)
            table = self._joined(table, x, found, "settled")
        if options.between:
            found = between(newton, known, options.between)
            # Newton, unlike descent and the network itself, may leave the region of the states.
            away = nearest_distance(found, self._states)
            found = found[away <= options.outlier_tol * self._spread]
            table = self._joined(table, x, found, "between points")
        order = np.argsort(table["outcome"], kind="stable")  # fixed points before slow ones
        # `n_unique` is one number, not a column.
        return table | {name: table[name][order] for name in table.keys() - {"n_unique"}}

    def _joined(
        self, table: dict[str, np.ndarray], x: np.ndarray, points: np.ndarray, origin: str
    ) -> dict[str, np.ndarray]:
        # `n_unique` counts also the points that the table has no room for.
        found, points = len(points), points[: self._options.max_points - len(table["q"])]
        if not len(points):
            return table | {"n_unique": table["n_unique"] + found}
        m = len(points)
        new = {
            "point": points,
            "outcome": np.full(m, FIXED),
            "q": self._newton(x, points)[0] ** 2 / 2,
            "origin": np.full(m, origin),
            "count": np.zeros(m, int),
            "search_share": np.zeros(m),
            "constant_input": np.tile(x, (m, 1)),
        }
        joined = {name: np.concatenate([table[name], values]) for name, values in new.items()}
        return joined | {"n_unique": table["n_unique"] + found}


def _linearise(
    map_of: Callable[..., Map],
    inputs: View[PointFields],
    shared: Network,
    points: np.ndarray,
    x: np.ndarray,
    slow: np.ndarray,
) -> dict[str, np.ndarray]:
    flow = inputs.time == "continuous"
    # Not `euler` of it: the eigenvalues of a flow are those of its own field.
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
        "right": m.right,
        "left": m.left,
        "time_constant": tau,
        "frequency": frequency,
    }
    if inputs.dt is not None:
        out |= {"time_constant_s": tau * inputs.dt, "frequency_hz": frequency / inputs.dt}
    return out
