"""What a search decides between two laps: which items go on, and from which state. One rule for each kind of search."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctd.batch.laps import Laps
from jobs.search.population import generator, moved, parents
from jobs.spec.search import Halving, Population


def survivors(
    loss: np.ndarray, alive: np.ndarray, blocks: np.ndarray, eta: int, rung: int
) -> np.ndarray:
    """Return which items go on after a rung of successive halving: (n,) bool.

    A bracket begins with n items. At rung k = 0, 1, ... the best max(1, n // eta^(k+1)) of the items that have come this far
    go on. Items that have finished leave nothing to save and stay as they are.

    loss: (n,) less is better; NaN is worse than any number; ties go to the item that comes first. alive: (n,)
    which have come to this rung. blocks: (n,) which bracket each belongs to.
    """
    going = np.zeros(len(loss), bool)
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        quota = max(1, len(members) // eta ** (rung + 1))
        here = members[alive[members]]
        going[here[np.argsort(loss[here], kind="stable")][:quota]] = True  # NaN sorts last
    return going


Fetch = Callable[[int], Sequence[np.ndarray]]
"""Index of an item among those of all reports -> the leaves of its state."""


@dataclass(frozen=True)
class Compared:
    """What is known of all items that are compared, at the end of a lap."""

    lap: int
    reports: Mapping[str, np.ndarray]
    """The reports of the shards, joined: name -> (all items,)."""
    first: int
    """Where this shard's own items start in them."""
    fetch: Fetch
    """Reads the state of any of the items."""


class Rule(ABC):
    """A kind of search over the items of one shard, with the lineage that it keeps of them."""

    @abstractmethod
    def select(self, laps: Laps, going: np.ndarray, compared: Compared) -> np.ndarray:
        """Return which of this shard's items make the next lap, (n,) bool, and give each its state for it.

        going: (n,) which made the lap that is over.
        """

    @abstractmethod
    def records(self, metric: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the store keeps of the search: see jobs.plan.search.

        metric: (n, laps).
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return what changes from lap to lap, for checkpoints."""

    def told(self, lap: int) -> dict[str, np.ndarray]:
        """Return what the other shards need to know beside the loss: name -> (n,)."""
        del lap
        return {}


class HalvingRule(Rule):
    """Successive halving of `n` items."""

    def __init__(self, search: Halving, n: int) -> None:
        self._search, self._rung = search, np.zeros(n, np.int32)

    def select(self, laps: Laps, going: np.ndarray, compared: Compared) -> np.ndarray:
        """Return the best of each bracket; their states stay."""
        del going
        found, own = compared.reports, slice(compared.first, compared.first + laps.n)
        kept = survivors(
            found["loss"], found["going"], found["blocks"], self._search.eta, compared.lap
        )[own]
        self._rung += kept
        return kept

    def records(self, metric: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metric at every rung, and the rungs survived."""
        return {"search_metric": metric[:, :-1], "search_rung": self._rung}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the rungs survived."""
        return {"rung": self._rung}


class PopulationRule(Rule):
    """Population-based training.

    items: (n,) ids. starts: searched parameter -> (n,) float64.
    """

    def __init__(
        self, search: Population, seed: int, items: np.ndarray, starts: Mapping[str, np.ndarray]
    ) -> None:
        self._search, self._seed, self._items = search, seed, items
        shape = (len(items), search.generations)
        self._parent = np.full(shape, -1, np.int32)
        self._parent[:, 0] = items
        self._params = {name: np.full(shape, np.nan) for name in search.params}
        for name, values in starts.items():
            self._params[name][:, 0] = values

    def select(self, laps: Laps, going: np.ndarray, compared: Compared) -> np.ndarray:
        """Let members copy others, and move the parameters of those that do; all go on."""
        found, first, n = compared.reports, compared.first, laps.n
        now, new = compared.lap, compared.lap + 1
        rngs = [generator(self._seed, now, int(item)) for item in found["items"]]
        chosen = parents(self._search, rngs, found["loss"], found["done"], found["blocks"])
        # Populations that have ended stay as they are.
        chosen = np.where(found["going"], chosen, np.arange(len(chosen)))
        parent, own = chosen[first : first + n], np.arange(first, first + n)
        here = (parent >= first) & (parent < first + n)
        laps.copy(np.where(here, parent, own) - first)
        for row in np.flatnonzero(~here):
            laps.put(int(row), compared.fetch(int(parent[row])))
        self._parent[going, new] = found["items"][parent[going]]
        for name, values in self._params.items():
            values[going, new] = found[f"params.{name}"][parent[going]]
        for row in np.flatnonzero(parent != own):
            copied = {name: float(values[row, new]) for name, values in self._params.items()}
            for name, value in moved(self._search, rngs[first + row], copied).items():
                self._params[name][row, new] = value
        for name in self._params:
            laps.set_traced(name, self._last(name))
        return going

    def told(self, lap: int) -> dict[str, np.ndarray]:
        """Return the ids, and the parameters of this generation."""
        now = {f"params.{name}": values[:, lap] for name, values in self._params.items()}
        return {"items": self._items, **now}

    def records(self, metric: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metric, the parent and the parameters of every generation, and the last parameters."""
        found = {"search_metric": metric, "search_parent": self._parent}
        for name, values in self._params.items():
            found[f"search_{name}"], found[f"final_{name}"] = values, self._last(name)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the parents and the parameters."""
        return {"parent": self._parent, **{f"params.{k}": v for k, v in self._params.items()}}

    def _last(self, name: str) -> np.ndarray:
        """Return (n,) a searched parameter in the last generation that each member has begun."""
        values = self._params[name]
        begun = (self._parent >= 0).sum(axis=1) - 1
        return values[np.arange(len(values)), begun]
