"""Population-based training: which member copies which, and where the copied parameters move.

A parameter has a position x in [0, 1] in its range: linear for `uniform`, in the logarithm for `loguniform`. It moves by
u ~ U(-perturb, perturb), reflected at the ends; `perturb` is its own or else the search's. Up is as likely as down, so
without selection it does not drift. (A factor 1 + u would drift down: the mean of its logarithm is negative.)

After generation g, the generator [seed, SALT, g, i] draws a table of uniform numbers for the population whose first item
is i. Member k uses row k, so its draws depend on no other member.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np

from jobs.forms import Loguniform, extremes
from jobs.search.searcher import InStep
from jobs.spec.search import Moved, Population

SALT = zlib.crc32(b"search")
"""Keeps these draws apart from those of the sweep."""
FRACTION = 0.2
"""Share of the members that copy, and of those that are copied, by truncation."""
MIN_IMPROVEMENT = 5e-4
"""Least improvement for `patience`, as a share of the mean absolute value of these best metrics."""


def draws(seed: int, generation: int, first: int, size: int, n_params: int) -> np.ndarray:
    """Return (size, 1 + 2 n_params) uniform numbers of the members of one population after a generation.

    Column 0 draws whom a member is compared with; then, for each parameter, comes one that nothing reads and where it moves.
    first: the id of the population's first item.
    """
    rng = np.random.default_rng([seed, SALT, generation, first])
    return rng.random((size, 1 + 2 * n_params))


class PopulationSearcher(InStep):
    """Population-based training (Jaderberg et al. 2017) of every `size` neighbours.

    starts: searched field -> (n,) float64, its value in the first generation.
    """

    search: Population

    def __init__(
        self, search: Population, seed: int, items: np.ndarray, starts: Mapping[str, np.ndarray]
    ) -> None:
        super().__init__(search, items)
        self._seed, shape = seed, self.metric.shape
        self._lineage = np.full(shape, -1, np.int32)
        self._lineage[:, 0] = items
        self._params = {name: np.full(shape, np.nan) for name in search.params}
        for name, values in starts.items():
            self._params[name][:, 0] = values
        self._best = np.full((self.n // self._size, shape[1]), np.nan)

    def values(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: found[rows, self.lap[rows]] for name, found in self._params.items()}

    def select(self, rows: np.ndarray, lap: int) -> np.ndarray:
        """Let members copy others, and move the parameters of those that do; all go on."""
        block = rows[0] // self._size * self._size
        u = draws(self._seed, lap, int(self.items[block]), self._size, len(self._params))
        u = u[rows - block]
        drawn = u[:, 0], self.loss[rows], self.done[rows]
        is_tournament = self.search.exploit == "tournament"
        chosen = tournament(*drawn) if is_tournament else truncation(*drawn)
        parents = rows[chosen]
        self._lineage[rows, lap + 1] = self.items[parents]
        self.kept[rows], self._parent[rows] = self.kept[parents], parents
        self.done[rows] = self.done[parents]
        copies = parents != rows
        for k, (name, found) in enumerate(self._params.items()):
            found[rows, lap + 1] = found[parents, lap]
            found[rows[copies], lap + 1] = moved(
                self.search, name, found[parents[copies], lap], u[copies, 2 + 2 * k]
            )
        return np.ones(len(rows), bool)

    def is_settled(self, rows: np.ndarray, lap: int) -> bool:
        """Note the best loss; return whether it has stopped falling.

        Over the last `patience` generations: best of the first - best of all <= MIN_IMPROVEMENT * mean |best|.
        """
        if (patience := self.search.patience) is None:
            return False
        best = self._best[rows[0] // self._size]
        if np.isfinite(losses := self.loss[rows]).any():
            best[lap] = np.nanmin(losses)
        last = best[max(0, lap + 1 - patience) : lap + 1]
        # If all members of a generation are broken, its best is NaN, and so is `least`: nothing is settled.
        least = MIN_IMPROVEMENT * np.abs(last).mean()
        return len(last) == patience and bool(last[0] - last.min() <= least)

    def records(self) -> dict[str, np.ndarray]:
        """Return the metric, the parent and the parameters of every generation, and the last parameters."""
        found = {"search_metric": self.metric, "search_parent": self._lineage}
        # The last generation that each member began: its parent is noted as it begins.
        begun = (self._lineage >= 0).sum(axis=1) - 1
        for name, values in self._params.items():
            found[f"search_{name}"] = values
            found[f"final_{name}"] = values[np.arange(self.n), begun]
        return found


def tournament(u: np.ndarray, loss: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return (n,) the member from whose state each of the n goes on; its own if it copies nobody.

    Each member draws one of the others that can be copied. It copies that one if it is better, or if it is broken itself.

    u: (n,) uniform draws. loss: (n,) less is better, NaN where a member is broken. done: (n,) which have finished: nobody can go
    on from them.
    """
    own = np.arange(len(loss))
    can = ~np.isnan(loss) & ~done
    whom = np.flatnonzero(can)
    n_others = len(whom) - can
    drawn = (u * n_others).astype(np.int64)
    # The others are those before and those behind itself.
    drawn += can & (drawn >= np.cumsum(can) - 1)
    other = own.copy()
    there = n_others > 0
    other[there] = whom[drawn[there]]
    return np.where(np.isnan(loss) | (loss[other] < loss), other, own)


def truncation(u: np.ndarray, loss: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return (n,) members, as `tournament` does.

    The worst `FRACTION` and all broken members copy members drawn from the best `FRACTION`.
    """
    found = np.arange(len(loss))
    n = max(1, int(FRACTION * len(loss)))
    order = np.argsort(loss, kind="stable")  # NaN, the broken ones, last
    best = order[:n][~np.isnan(loss[order[:n]]) & ~done[order[:n]]]
    # Not before the best end: of one member, it would be among both.
    worst = np.isnan(loss)
    worst[order[max(n, len(loss) - n) :]] = True
    if len(best):
        found[worst] = best[(u[worst] * len(best)).astype(np.int64)]
    return found


def moved(search: Population, name: str, values: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the values of a parameter in members that have just copied them.

    values: (n,) as copied. u: (n,) uniform draws.
    """
    law = search.params[name]
    most = search.perturb if law.perturb is None else law.perturb
    # Reflected at 0, then at 1: as `perturb` is at most 1, once each is enough.
    x = np.abs(position(law, values) + most * (2 * u - 1))
    return value_at(law, np.where(x > 1, 2 - x, x))


def position(law: Moved, values: np.ndarray) -> np.ndarray:
    """Return where values lie in their range: 0 at the low end, 1 at the high end."""
    low, high = extremes(law)
    if isinstance(law, Loguniform):
        return (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    return (values - low) / (high - low)


def value_at(law: Moved, x: np.ndarray) -> np.ndarray:
    """Return the values at positions `x`, never outside the range; the inverse of `position`."""
    low, high = extremes(law)
    if isinstance(law, Loguniform):
        values = np.exp(math.log(low) + x * (math.log(high) - math.log(low)))
    else:
        values = low + x * (high - low)
    return np.clip(values, low, high)
