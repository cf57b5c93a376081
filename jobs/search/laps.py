"""One shard's search: laps of advances, and between them decisions: which items go on, and from which state.

Everything is a function of the job and of the items' own numbers, so a search that goes on from a checkpoint
decides as one that was never disturbed. If the compared items lie in several shards (`search.spread`), each
shard reports its own items at the end of a lap, decides for all of them from all reports, and acts on its own:
jobs.run.rendezvous.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ctd.batch import Snapshot
from ctd.batch.laps import TO_THE_END, Laps
from jobs.errors import JobError
from jobs.search.halving import survivors
from jobs.search.population import generator, moved, parents
from jobs.spec.search import Halving, Population

Fetch = Callable[[int], Sequence[np.ndarray]]
"""Index of an item among those of all reports -> the leaves of its state."""


class SearchRun(ABC):
    """Computes the results of items, as `ctd.batch.Run` does, but with a search.

    laps: the items, at their start. blocks: (n,) the population or bracket of each. meets: whether some of the
    compared items lie in other shards, so that the caller must call `decide`.
    """

    length_field: str
    """Field of the search that says how long its first lap is."""
    lap_name: str
    """What a lap is called."""

    def __init__(
        self,
        laps: Laps,
        search: Halving | Population,
        blocks: np.ndarray,
        n_laps: int,
        meets: bool,
    ) -> None:
        self.laps, self._blocks, self._meets = laps, blocks, meets
        self._name, self._sign = search.metric, 1 if search.mode == "min" else -1
        self._n_laps, self.lap = n_laps, 0
        self.going = np.ones(laps.n, bool)
        """(n,) bool: which make the present lap."""
        self.dropped = np.zeros(laps.n, bool)
        """(n,) bool: which left before they had finished."""
        self.metric = np.full((laps.n, n_laps), np.nan)
        """(n, laps) the metric at the end of each lap; NaN where an item did not reach it."""
        self.results: dict[str, np.ndarray] = {}
        self.finished = False
        self.arrived = False
        """Whether the lap is over and nothing has been decided yet."""
        self.report: dict[str, np.ndarray] = {}
        """Once the lap is over: what `decide` needs of these items."""
        self._begin()

    @abstractmethod
    def _length(self) -> int:
        """Return the advances of the present lap, which is not the last."""

    @abstractmethod
    def _select(self, found: Mapping[str, np.ndarray], first: int, fetch: Fetch) -> None:
        """Decide which items make the next lap, and from which state.

        found: the reports, joined; this shard's own items start at `first`. fetch: reads the state of any of
        them.
        """

    @abstractmethod
    def _records(self) -> dict[str, np.ndarray]:
        """Return what the store keeps of the search: see jobs.plan.search_results."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """Return what changes from lap to lap, beside the laps themselves, for checkpoints."""

    @property
    def rounds(self) -> int:
        """Advances of the devices."""
        return self.laps.rounds

    @property
    def n_finished(self) -> int:
        """Number of items that make no further advances."""
        return int((self.laps.done | ~self.going).sum())

    @property
    def stage(self) -> str:
        """The lap, and the best metric at the end of the last one that is over."""
        text = f"{self.lap_name} {self.lap + 1} of {self._n_laps}"
        over = np.flatnonzero(np.isfinite(self.metric).any(axis=0))
        if not len(over):
            return text
        values = self.metric[:, over[-1]]
        best = np.nanmin(values) if self._sign > 0 else np.nanmax(values)
        return f"{text}, best {self._name} {best:.4g}"

    def advance(self) -> None:
        """Advance the items on the devices once. At the end of a lap, report, and decide if no other shards are met."""
        if not self.laps.over:
            self.laps.advance()
        if self.laps.over:
            loss = self._measure()
            self.report = {
                "loss": loss, "done": self.laps.done.copy(), "going": self.going.copy(),
                "blocks": self._blocks, **self._told(),
            }  # fmt: skip
            self.arrived = True
            if not self._meets:
                self.decide([self.report], 0, lambda index: ())

    def decide(self, reports: Sequence[Mapping[str, np.ndarray]], own: int, fetch: Fetch) -> None:
        """Begin the next lap, or end the search.

        reports: of all shards that are compared, in their order; name -> (items of the shard,), with `loss`:
        less is better, NaN is broken. own: which of them is this one's. fetch: reads the state of any of their
        items. Raises JobError if the items finish before the search has compared them.
        """
        found = {name: np.concatenate([r[name] for r in reports]) for name in reports[own]}
        if self.lap == 0:
            self._check_length(found["loss"], found["done"])
        self.arrived = False
        # A block in which no item can go on has ended, whatever the other blocks do.
        open_blocks = found["blocks"][found["going"] & ~found["done"]]
        found["going"] &= np.isin(found["blocks"], open_blocks)
        self.going &= np.isin(self._blocks, open_blocks)
        if self.lap == self._n_laps - 1 or not len(open_blocks):
            self._end()
            return
        self._select(found, sum(len(r["loss"]) for r in reports[:own]), fetch)
        self.lap += 1
        self._begin()

    def _told(self) -> dict[str, np.ndarray]:
        """Return what else the other shards need to know: name -> (n,)."""
        return {}

    def _begin(self) -> None:
        last = self.lap == self._n_laps - 1
        self.laps.begin(np.flatnonzero(self.going), TO_THE_END if last else self._length())

    def _measure(self) -> np.ndarray:
        """Note the metric of the items that made the lap; return it as a loss: (n,), NaN is broken."""
        rows = np.flatnonzero(self.going)
        outcomes = self.laps.program.kernel.outcomes
        found = self.laps.values(rows, [self._name, *(["outcome"] if outcomes else [])])
        self.metric[rows, self.lap] = found[self._name]
        loss = self._sign * self.metric[:, self.lap]
        loss[~np.isfinite(loss)] = np.nan
        if outcomes:
            failing = [k for k, outcome in enumerate(outcomes) if outcome.failed]
            loss[rows[self.laps.done[rows] & np.isin(found["outcome"], failing)]] = np.nan
        return loss

    def _end(self) -> None:
        results = self.laps.values(np.arange(self.laps.n)) | self._records()
        if outcomes := self.laps.program.kernel.outcomes:
            results["outcome"][self.dropped] = len(outcomes)  # see jobs.plan.search_results
        results["search_advances"] = self.laps.ages.astype(np.int32)
        self.results = results | {"search_dropped": self.dropped}
        self.finished = True

    def _check_length(self, loss: np.ndarray, done: np.ndarray) -> None:
        if done.all() and not np.isnan(loss).all():
            raise JobError(
                f"search.{self.length_field}: the items finish after {int(self.laps.ages.max())} "
                "advances, before the search has compared them; lower it, or have an item make more "
                "and shorter advances"
            )

    # --- checkpoints ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the search between two advances; `restore` goes on from it with the same bits and lineage."""
        saved = self.laps.snapshot()
        saved.arrays |= {f"search.{name}": array.copy() for name, array in self._all().items()}
        saved.arrays["search.lap"] = np.asarray(self.lap)
        return saved

    def restore(self, saved: Snapshot) -> None:
        """Go on from `saved`, which a search over the same items and layout made."""
        self.laps.restore(saved)
        for name, array in self._all().items():
            array[...] = saved.arrays[f"search.{name}"]
        self.lap = int(saved.arrays["search.lap"])

    def _all(self) -> dict[str, np.ndarray]:
        return {
            "going": self.going, "dropped": self.dropped, "metric": self.metric, **self._arrays(),
        }  # fmt: skip


class HalvingRun(SearchRun):
    """Successive halving.

    size: number of items in a bracket.
    """

    length_field, lap_name = "min_advances", "rung"

    def __init__(
        self, laps: Laps, search: Halving, blocks: np.ndarray, size: int, meets: bool
    ) -> None:
        self._search = search
        self._rung = np.zeros(laps.n, np.int32)
        super().__init__(laps, search, blocks, search.n_rungs(size) + 1, meets)

    def _length(self) -> int:
        return self._search.lap(self.lap)

    def _select(self, found: Mapping[str, np.ndarray], first: int, fetch: Fetch) -> None:
        del fetch
        going = survivors(
            found["loss"], found["going"], found["blocks"], self._search.eta, self.lap
        )[first : first + self.laps.n]
        self.dropped |= self.going & ~going & ~self.laps.done
        self.going &= going
        self._rung += going

    def _records(self) -> dict[str, np.ndarray]:
        return {"search_metric": self.metric[:, :-1], "search_rung": self._rung}

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"rung": self._rung}


class PopulationRun(SearchRun):
    """Population-based training.

    items: (n,) ids. starts: searched parameter -> (n,) float64.
    """

    length_field, lap_name = "every", "generation"

    def __init__(
        self,
        laps: Laps,
        search: Population,
        blocks: np.ndarray,
        seed: int,
        items: np.ndarray,
        starts: Mapping[str, np.ndarray],
        meets: bool,
    ) -> None:
        self._search, self._seed, self._items = search, seed, items
        shape = (laps.n, search.generations)
        self._parent = np.full(shape, -1, np.int32)
        self._parent[:, 0] = items
        self._params = {name: np.full(shape, np.nan) for name in search.params}
        for name, values in starts.items():
            self._params[name][:, 0] = values
        super().__init__(laps, search, blocks, search.generations, meets)

    def _length(self) -> int:
        return self._search.every

    def _select(self, found: Mapping[str, np.ndarray], first: int, fetch: Fetch) -> None:
        now, new, n = self.lap, self.lap + 1, self.laps.n
        rngs = [generator(self._seed, now, int(item)) for item in found["items"]]
        chosen = parents(self._search, rngs, found["loss"], found["done"], found["blocks"])
        parent, own = chosen[first : first + n], np.arange(first, first + n)
        here = (parent >= first) & (parent < first + n)
        self.laps.copy(np.where(here, parent, own) - first)
        for row in np.flatnonzero(~here):
            self.laps.put(int(row), fetch(int(parent[row])))
        going = self.going
        self._parent[going, new] = found["items"][parent[going]]
        for name, values in self._params.items():
            values[going, new] = found[f"params.{name}"][parent[going]]
        for row in np.flatnonzero(parent != own):
            copied = {name: float(values[row, new]) for name, values in self._params.items()}
            for name, value in moved(self._search, rngs[first + row], copied).items():
                self._params[name][row, new] = value
        for name in self._params:
            self.laps.set_traced(name, self._last(name))

    def _told(self) -> dict[str, np.ndarray]:
        now = {f"params.{name}": values[:, self.lap] for name, values in self._params.items()}
        return {"items": self._items, **now}

    def _records(self) -> dict[str, np.ndarray]:
        found = {"search_metric": self.metric, "search_parent": self._parent}
        for name, values in self._params.items():
            found[f"search_{name}"], found[f"final_{name}"] = values, self._last(name)
        return found

    def _last(self, name: str) -> np.ndarray:
        """Return (n,) a searched parameter in the last generation that each member has begun."""
        values = self._params[name]
        begun = (self._parent >= 0).sum(axis=1) - 1
        return values[np.arange(len(values)), begun]

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"parent": self._parent, **{f"params.{k}": v for k, v in self._params.items()}}
