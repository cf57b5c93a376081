"""A further method of search: the better half of the items goes on, once."""

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from jobs.search.comparison import Rungs
from jobs.search.method import Sized
from jobs.search.searcher import InStep


class BetterHalf(Sized):
    """Compares once; the worse half of the items keeps its results so far."""

    method: Literal["better_half"]
    after: PositiveInt
    """advances before the comparison"""

    @property
    def rungs(self):
        return Rungs(eta=2, min_advances=self.after)

    @property
    def length_field(self):
        return "after"

    def _all_ends(self, size):
        return [self.after]

    def describe(self, size, advances=0):
        return f"the better half of {size} goes on after {self.after} advances"

    def searcher(self, items):
        return BetterHalfSearcher(self, items)


class BetterHalfSearcher(InStep):
    def select(self, rows, lap):
        return self.loss[rows] <= np.nanmedian(self.loss[rows])
