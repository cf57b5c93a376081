"""Asynchronous successive halving: {method: asha, metric: eval_loss, min_advances: 4}."""

from typing import Literal

import numpy as np

from jobs.search.comparison import Rung, in_words
from jobs.search.method import OnRungs
from jobs.search.searcher import BoolArray, RoundReport, SearchedItems, Searcher


class Asha(OnRungs):
    """Asynchronous successive halving (Li et al. 2020): an item goes on as soon as it is among the best 1 / eta of those
    that have come to its rung. All items of a group are compared, and have as many rungs as under halving: as often as their
    number can be divided by `eta`."""

    method: Literal["asha"]

    def in_round(self, share: int) -> int:
        """A quarter of a worker's share: with few large rounds, workers would wait for the last ones."""
        return -(-share // 4)

    def describe(self, size: int, advances: int = 0) -> str:
        """Describe the search over `size` items, on one line. advances: as for `ends`."""
        return (
            f"asynchronous halving of {size} by {self.best} {self.metric}: the best 1 / {self.eta} of those that "
            f"have come to {in_words(self.ends(size, advances))} advances go on, the last to the end"
        )

    def searcher(self, items: SearchedItems) -> "AshaSearcher":
        """Return the search of these items at its start."""
        return AshaSearcher(self, items)


class AshaSearcher(Searcher):
    """Asynchronous successive halving (Li et al. 2020, Algorithm 2) of all items of a group.

    Rung k lies at min_advances * eta^k advances, k < n_rungs; behind the last one an item goes to its end. When a worker is
    free it gets, from the highest rung at which there are any, items that are among the best floor(m / eta) of the m that have
    come there and have not gone on; if there are none at any rung, items that have not begun. So what is decided depends on
    the order of the reports. An item whose metric is NaN never goes on. An item that finishes before its last rung
    keeps its place and takes no worker. The others are dropped once nothing runs and nothing can go on; they stay dropped
    if items that failed are tried again later.
    """

    search: Asha

    def __init__(self, search: Asha, items: SearchedItems) -> None:
        super().__init__(search, items)
        self._rungs = [Rung() for _ in self._lengths[1:]]

    def records(self) -> dict[str, np.ndarray]:
        """Return what the store keeps; as under halving nobody goes on from a rung to which only finished items came."""
        records = super().records()
        n = sum(not self.done[rung.rows].all() for rung in self._rungs)
        records["search_rung"] = np.minimum(records["search_rung"], n).astype(np.int32)
        records["search_metric"] = records["search_metric"].copy()
        records["search_metric"][:, n + 1 :] = np.nan
        return records

    def choose(self, most: int) -> np.ndarray:
        for rung in reversed(range(len(self._rungs))):
            rows = self._best(rung)
            rows = rows[~self.ended[rows]][:most]
            if len(rows):
                return np.sort(rows)
        return super().choose(most)

    def take(self, rows: np.ndarray) -> None:
        """Let the rows begin, or go on from their rung."""
        # Ready items begin their lap, or try it again; the others come from a rung, and go on to the next lap.
        self.lap[rows] += ~self.ready[rows]
        super().take(rows)

    def tell(self, number: int, report: RoundReport) -> None:
        super().tell(number, report)
        if not len(rows := report.rows):
            return
        lap = int(self.lap[rows[0]])  # that of all rows of a round, see `choose`
        if lap < len(self._rungs):
            self._rungs[lap].add(rows, self.loss[rows])
        else:
            self.ended[rows] = True

    def decide(self) -> None:
        """Let items that have finished pass their rungs; end the search if nothing can go on."""
        # Upwards, since an item that has finished may pass several rungs at once.
        for rung in range(len(self._rungs)):
            rows = self._best(rung)
            rows = np.sort(rows[self.done[rows]])
            self.lap[rows] = rung + 1
            self.metric[rows, rung + 1] = self.metric[rows, rung]
            if rung + 1 < len(self._rungs):
                self._rungs[rung + 1].add(rows, self.loss[rows])
        self.ended |= self.done
        if self.running.any() or len(self.choose(1)):
            return
        age, are_over = int(self.ages.max(initial=0)), (self.done | self.failed).all()
        if age <= self._lengths[0] and are_over and not np.isnan(self.loss).all():
            raise self.search.too_late(self.n, age)
        # Nothing runs, and no further report can lift an item that waits at its rung.
        self.dropped |= ~self.ended
        self.ended[:] = True

    @property
    def over(self) -> BoolArray:
        over = self.ended.copy()
        for k, rung in enumerate(self._rungs):
            to_come = ~over & (self.lap <= k)
            to_come[rung.rows] = False
            # Items that come later can only push an item back.
            most = (len(rung.rows) + int(to_come.sum())) // self.search.eta
            stays = rung.rows[(np.arange(len(rung.rows)) >= most) | np.isnan(rung.loss)]
            over[stays[self.lap[stays] == k]] = True
        return over

    def _best(self, rung: int) -> np.ndarray:
        """Return the rows among the best 1 / eta of a rung that have not gone on, best first."""
        n = len(self._rungs[rung].rows) // self.search.eta
        rows, loss = self._rungs[rung].rows[:n], self._rungs[rung].loss[:n]
        return rows[(self.lap[rows] == rung) & ~np.isnan(loss)]
