"""Successive halving in step: {method: halving, metric: eval_loss, min_advances: 4}."""

from typing import Literal

import numpy as np

from jobs.search.comparison import in_words
from jobs.search.method import OnRungs, Sized
from jobs.search.searcher import InStep, SearchedItems


class Halving(OnRungs, Sized):
    """Successive halving (Jamieson & Talwalkar 2016): of every `size` items, the best size / eta^k continue
    after min_advances * eta^(k-1) advances, k = 1, 2, ...; the others keep their results so far."""

    method: Literal["halving"]

    def describe(self, size: int, advances: int = 0) -> str:
        """Describe the search over `size` items, on one line. advances: as for `ends`."""
        ends = self.ends(size, advances)
        sizes = [size // self.eta**k for k in range(len(ends) + 1)]
        return f"halving by {self.best} {self.metric}: {in_words(sizes)} items, up to {in_words(ends)} advances and the end"

    def searcher(self, items: SearchedItems) -> "HalvingSearcher":
        """Return the search of these items at its start."""
        return HalvingSearcher(self, items)


class HalvingSearcher(InStep):
    """Successive halving (Jamieson & Talwalkar 2016): the best max(1, n // eta^(k+1)) of every `size` items go on after rung k.

    n: `size` without the items that have failed with an error. NaN is worse than any number; ties go to the item that
    comes first. Items that have finished keep their place.
    """

    search: Halving

    def select(self, rows: np.ndarray, lap: int) -> np.ndarray:
        block = int(rows[0]) // self._size * self._size
        n = self._size - int(self.failed[block : block + self._size].sum())
        quota = max(1, n // self.search.eta ** (lap + 1))
        best = np.argsort(self.loss[rows], kind="stable")[:quota]  # NaN sorts last
        goes_on = np.zeros(len(rows), bool)
        goes_on[best] = True
        return goes_on
