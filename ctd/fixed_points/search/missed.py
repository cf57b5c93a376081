"""Points at which no search ended: saddles between known points, and stable points to which the network itself comes.

A saddle parts the basins of the points around it, so that it lies between them; but trials leave it, and the searches
from their states pass it by. Newton's method from halfway between two points finds it.

A search goes down q, and may end at a saddle or a slow point next to a state from which the network itself would go on
to a stable point. Of a network of 24 random units, 300 searches from states drawn uniformly found 60 points and none
of the three stable ones. `stable_points` runs the network from some of its states.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctd.cells import Weights, as_weights
from ctd.fixed_points import linear
from ctd.fixed_points.network import Map, Network, compiled
from ctd.fixed_points.search.methods import FIXED
from ctd.fixed_points.search.params import Options
from ctd.fixed_points.search.unique import cover, nearest_distance
from ctd.late import Array, Float, Int, jax, jnp, lax, scipy

type Newton = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points (k, n) -> (|F(h) - h| (k,), Newton's step for F(h) = h (k, n))."""

STEPS = 30
"""Most steps of Newton: at a simple zero it needs less than ten."""

LONGEST = 0.25
"""Longest step, in units of the states' spread."""

TOLERANCE = 1e-11
"""Largest |F(h) - h| / (1 + |h|) at a fixed point: the rounding of a few hundred units in float64 stays below."""

CLOSE = 1e-6
"""Largest last step, in units of the states' spread: where dF/dh - 1 is nearly singular, a small |F(h) - h| says
little of where the point is."""

BLOCK = 64
"""Points whose steps are computed at a time, fewer if their Jacobians would take more than ENTRIES."""

ENTRIES = 1 << 24

WORK = 8e9
"""Most n^3, summed over the starts: a minute or so of one core."""

N_STATES = 500
"""States from which the network runs, evenly among all."""

TOGETHER = 0.01
"""Ends of runs nearer to each other than this, in units of the states' spread, are one start of Newton's method: along a line
attractor each would be another one."""


def newton_of(f: Map, weights: Weights, x: np.ndarray) -> Newton:
    """Newton's steps of the map F(weights, h, x) in float64; compiled at the first call."""

    def newton(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = points.shape[1]
        block = max(1, min(BLOCK, ENTRIES // n**2))
        blocks = [(np.zeros(0), np.zeros((0, n)))]
        with jax.enable_x64(True):
            for k in range(0, len(points), block):
                some = points[k : k + block]
                # Each block has the same shape, so that one program serves all.
                padded = np.pad(some, ((0, block - len(some)), (0, 0)))
                size, move = (np.asarray(array) for array in _steps(f, weights, padded, x))
                blocks.append((size[: len(some)], move[: len(some)]))
        sizes, moves = zip(*blocks, strict=True)
        return np.concatenate(sizes), np.concatenate(moves)

    return newton


@compiled
def _steps(
    f: Map, weights: Weights, points: Float[Array, "k state"], x: Float[Array, "input"]
) -> tuple[Float[Array, "k"], Float[Array, "k state"]]:
    """|F(h) - h| and Newton's step at each point."""

    def newton_step(h: Float[Array, "state"]) -> tuple[Float[Array, ""], Float[Array, "state"]]:
        g = lambda h: f(weights, h, x) - h  # of a flow, f is h + dh/dt
        return jnp.linalg.norm(g(h)), -jnp.linalg.solve(jax.jacfwd(g)(h), g(h))

    return jax.vmap(newton_step)(points)


def descend(newton: Newton, starts: np.ndarray, spread: float) -> np.ndarray:
    """(m, n) the fixed points at which Newton arrives from starts (k, n), in units of `spread`; m <= k."""
    ends, h = [starts[:0]], starts
    for _ in range(STEPS):
        if not len(h):
            break
        size, move = newton(h)
        length = np.linalg.norm(move, axis=1)
        arrived = (size <= TOLERANCE * (1 + np.linalg.norm(h, axis=1))) & (length <= CLOSE * spread)
        ends.append(h[arrived] + move[arrived])  # a last step: Newton squares the error
        going = ~arrived & np.isfinite(length)  # not finite where dF/dh - 1 is singular
        # 1e-300 keeps a step of length 0 from dividing by 0.
        shortened = np.minimum(1, LONGEST * spread / np.maximum(length[going], 1e-300))
        h = h[going] + move[going] * shortened[:, None]
    return np.concatenate(ends)


class KnownPoints:
    """The points of a table, by which new ends of Newton's method are recognised.

    A fixed point that was found to a coarser tolerance than `tol`, as Newton's first step from it tells, stands for all
    zeros that it may mean: so a line attractor that was searched coarsely, where hundreds of points pass for fixed,
    stays as it is.
    """

    def __init__(
        self, newton: Newton, fixed: np.ndarray, slow: np.ndarray, spread: float, tol: float
    ) -> None:
        error = np.linalg.norm(newton(fixed)[1], axis=1)
        error = np.where(np.isfinite(error), error, np.inf)
        coarse = error > tol
        self.newton, self.spread, self._tol = newton, spread, tol
        self.exact = fixed[~coarse]
        """(k, n) fixed points that were found to `tol`."""
        self._taken = np.concatenate([self.exact, slow])
        # The zero lies about one step of Newton's away: a point claims twice that, but never more than LONGEST.
        self._coarse, self._reach = fixed[coarse], np.minimum(2 * error[coarse], LONGEST * spread)

    def new(self, ends: np.ndarray) -> np.ndarray:
        """(m, n) those of (k, n) ends that are more than `tol` from each other and from all that is known."""
        if len(self._taken):
            ends = ends[nearest_distance(ends, self._taken) > self._tol]
        apart = scipy.spatial.distance.cdist(ends, self._coarse)
        ends = ends[(apart > self._reach).all(axis=1)]
        return ends[np.unique(cover(ends, self._tol))]  # the leaders alone

    def beyond(self, starts: np.ndarray) -> np.ndarray:
        """(m, n) the fixed points, none of them known, at which Newton arrives from (k, n) starts."""
        return self.new(descend(self.newton, starts, self.spread))

    def add(self, points: np.ndarray) -> None:
        """Add the points (k, n) to the known ones."""
        self.exact = np.concatenate([self.exact, points])
        self._taken = np.concatenate([self._taken, points])


def between(known_points: KnownPoints, most: int) -> np.ndarray:
    """(m, n) further fixed points, reached from halfway between two of the known exact ones or of those reached so.

    They are known from then on. most: starts.
    """
    n_known, n = known_points.exact.shape
    most, tried = min(most, int(WORK / n**3)), 0
    while most > 0 and len(starts := _halfway(known_points.exact, tried, most)):
        most -= len(starts)
        fresh = known_points.beyond(starts)
        if not len(fresh):
            break
        tried = len(known_points.exact)
        known_points.add(fresh)
    return known_points.exact[n_known:]


def _halfway(points: np.ndarray, tried: int, most: int) -> np.ndarray:
    """(pair, n) the middles of the `most` nearest pairs that are not among the first `tried` points."""
    i, j = np.triu_indices(len(points), 1)
    i, j = i[j >= tried], j[j >= tried]
    squares = np.einsum("ij,ij->i", points, points)
    # Squared distances by the expanded square: their rounding cannot matter, since they only order.
    apart = (squares[:, None] + squares - 2 * points @ points.T)[i, j]
    near = np.argsort(apart, kind="stable")[:most]
    return (points[i[near]] + points[j[near]]) / 2


def stable_points(
    f: Map,
    weights: Weights,
    x: np.ndarray,
    known_points: KnownPoints,
    states: np.ndarray,
    steps: int,
) -> np.ndarray:
    """(m, n) stable points of f(weights, h, x) to which `steps` steps lead from states (k, n). None was known; they are from then on."""
    n = states.shape[1]
    some = states[np.unique(np.linspace(0, len(states) - 1, N_STATES).astype(int))]
    with jax.enable_x64(True):
        ends, moved = (np.asarray(v) for v in _run(f, weights, some, x, steps))
    # What is nearest to rest comes first, since the first row leads in `cover`.
    order = np.argsort(moved, kind="stable")  # NaN last
    ends = known_points.new(ends[order[np.isfinite(moved[order])]])
    starts = ends[np.unique(cover(ends, TOGETHER * known_points.spread))][: int(WORK / n**3)]
    points = known_points.beyond(starts)
    at = linear.derivatives(f, weights, points, np.tile(x, (len(points), 1)))
    modes = linear.growth(np.linalg.eigvals(at.dh))
    stable = points[(modes == linear.DECAYS).all(axis=1)]  # Newton may have gone to a saddle
    known_points.add(stable)
    return stable


@compiled
def _run(
    f: Map,
    weights: Weights,
    states: Float[Array, "k state"],
    x: Float[Array, "input"],
    steps: Int[Array, ""],
) -> tuple[Float[Array, "k state"], Float[Array, "k"]]:
    """(the states after the steps, |F(h) - h| there)."""

    def run_state(h: Float[Array, "state"]) -> tuple[Float[Array, "state"], Float[Array, ""]]:
        h = lax.fori_loop(0, steps, lambda _, h: f(weights, h, x), h)
        return h, jnp.linalg.norm(f(weights, h, x) - h)

    return jax.vmap(run_state)(states)


def with_missed(
    table: dict[str, np.ndarray],
    f: Map,
    shared: Network,
    x: np.ndarray,
    options: Options,
    steps: int,
) -> dict[str, np.ndarray]:
    """The table of f's points at the input x, with those at which no search ended. steps: of the network, to come to rest."""
    if len(table["q"]) >= options.max_points:
        return table
    states = np.asarray(shared.states, float).reshape(-1, shared.states.shape[-1])
    weights, spread = as_weights(shared.weights, "float64"), float(shared.spread)
    newton, fixed = newton_of(f, weights, x), table["outcome"] == FIXED
    points = table["point"]
    known_points = KnownPoints(newton, points[fixed], points[~fixed], spread, options.unique_tol)
    more: dict[str, np.ndarray] = {}
    if steps:
        more["settled"] = stable_points(f, weights, x, known_points, states, steps)
    if options.between:
        extra = between(known_points, options.between)
        # Newton, unlike descent and the network itself, may leave the region of the states.
        near = nearest_distance(extra, states) <= options.outlier_tol * spread
        more["between points"] = extra[near]
    for origin, extra in more.items():
        selected = extra[: options.max_points - len(table["q"])]
        # `n_unique` counts also the points that the table has no room for.
        table = table | {"n_unique": table["n_unique"] + len(extra)}
        if not len(selected):
            continue
        none = np.zeros(len(selected))
        new = {
            "point": selected,
            "outcome": np.full(len(selected), FIXED),
            "q": newton(selected)[0] ** 2 / 2,
            "origin": np.full(len(selected), origin),
            "count": none.astype(int),
            "search_share": none,
            "constant_input": np.tile(x, (len(selected), 1)),
        }
        table |= {name: np.concatenate([table[name], values]) for name, values in new.items()}
    order = np.argsort(table["outcome"], kind="stable")  # fixed points before slow ones
    # `n_unique` is one number, not a column.
    return table | {name: table[name][order] for name in table.keys() - {"n_unique"}}
