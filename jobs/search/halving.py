"""Successive halving: all items of a bracket come to a rung, and the best of them go on."""

import numpy as np

from jobs.search.searcher import InStep
from jobs.spec.search import Halving


class HalvingSearcher(InStep):
    """Of every `size` items the best max(1, n // eta^(k+1)) go on after rung k = 0, 1, ... (Jamieson & Talwalkar 2016).

    n: `size` without the items that have failed with an error. NaN is worse than any number; ties go to the item that
    comes first. Items that have finished keep their place.
    """

    search: Halving

    def select(self, rows: np.ndarray, lap: int) -> np.ndarray:
        """Return which rows survive the rung."""
        block = int(rows[0]) // self._size * self._size
        n = self._size - int(self.failed[block : block + self._size].sum())
        quota = max(1, n // self.search.eta ** (lap + 1))
        best = np.argsort(self.loss[rows], kind="stable")[:quota]  # NaN sorts last
        kept = np.zeros(len(rows), bool)
        kept[best] = True
        return kept
