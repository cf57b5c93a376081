"""A searcher: from the reports of items it decides which items go on, and from whose state.

    ask     the next items that make their advances together: a `Round`
    tell    the report of a round: metric, advances, whether each item has finished
    decide  what follows from the reports so far

A searcher knows no store, no device and no process. The driver (jobs.run.search) asks, writes what it was given to the
store, hands it out, and tells. Calling the same three methods in the same order again gives the same decisions, so a
driver that starts anew repeats what is written.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, PlainSerializer, PlainValidator

from jobs.errors import count

if TYPE_CHECKING:
    from jobs.search.comparison import Comparison

TO_THE_END = 2**31 - 1
"""The length of a round that ends once all of its items have finished."""


TO_LIST = PlainSerializer(lambda array: array.tolist())
IntArray = Annotated[np.ndarray, PlainValidator(lambda values: np.array(values, np.int64)), TO_LIST]
RealArray = Annotated[
    np.ndarray, PlainValidator(lambda values: np.array(values, np.float64)), TO_LIST
]
BoolArray = Annotated[
    np.ndarray, PlainValidator(lambda values: np.array(values, np.bool_)), TO_LIST
]
Values = Annotated[np.ndarray, PlainValidator(np.array), TO_LIST]
"""Arrays of rounds and reports, which are lists where jobs.store.rounds writes them."""


Read = Callable[[str], np.ndarray]
"""Returns the values of a column or a result by its name, an entry for each item."""


@dataclass(frozen=True)
class SearchedItems:
    """The items that are searched together, as they begin."""

    ids: np.ndarray
    """(n,) their ids."""
    seed: int
    """The job's."""
    starts: Read
    """Returns the first values of a searched field, (n,)."""
    variants: Sequence[Mapping[str, object]] = ({},)
    """For each group, the compiled-in fields that the search may choose -> their values there."""


@dataclass(frozen=True)
class Round:
    """Items of a group that make their next advances together."""

    rows: IntArray
    """(n,) int64, rising: the items' rows in the group."""
    rounds: IntArray
    """(n,) int64: the round that kept the state from which each goes on; -1: it starts."""
    parents: IntArray
    """(n,) int64: the row whose state that was."""
    length: int
    """Advances that each makes, or fewer if it finishes."""
    values: Mapping[str, Values] = field(default_factory=dict)
    """Searched field -> (n,) its values in this round."""
    group: Annotated[int, Field(exclude_if=lambda group: group == 0)] = 0
    """The group of the items, among those that are searched together."""


@dataclass(frozen=True)
class RoundReport:
    """The report of a round: arrays over its rows, without those that failed with an error."""

    rows: IntArray
    """(n,) int64, rising."""
    metric: RealArray
    """(n,) float64: the metric at the end of the round."""
    advances: IntArray
    """(n,) int64: the advances that each item made in the round."""
    done: BoolArray
    """(n,) bool: whether it has finished."""
    broken: BoolArray
    """(n,) bool: whether its outcome is a failure of the kernel."""
    failed: tuple[int, ...] = ()
    """Rows of the round that failed with an error: they have no state and leave the search."""


class Searcher(ABC):
    """The state of a search over the n items of one group. A lap is what an item does between two comparisons."""

    def __init__(self, search: "Comparison", items: SearchedItems) -> None:
        n = len(items.ids)
        self.search, self.ids, self.n = search, items.ids, n
        self._size = search.n_compared(n)
        ends = [0, *search.ends(self._size)]
        self._lengths = [after - before for before, after in pairwise(ends)] + [TO_THE_END]
        """The advances of each lap."""
        self.most_laps = n_laps = len(self._lengths)
        """The number of laps that `stage` counts; the driver lowers it if it knows that all items end before."""
        self._sign = 1 if search.mode == "min" else -1
        self.group = np.zeros(n, np.int64)
        """(n,) the group of each item, among those that are searched together; -1: not chosen yet."""
        self.lap = np.zeros(n, np.int64)
        """(n,) the lap that each item is in."""
        self.ready = np.ones(n, bool)
        """(n,) True for items that wait for their next round."""
        self.running = np.zeros(n, bool)
        """(n,) True for items in a round without a report."""
        self.ended = np.zeros(n, bool)
        """(n,) True for items that make no further advance: their last state holds their results."""
        self.failed = np.zeros(n, bool)
        """(n,) True for items that failed with an error."""
        self.dropped = np.zeros(n, bool)
        """(n,) True for items that left before they had finished, because others were better."""
        self.done = np.zeros(n, bool)
        """(n,) True for items that have finished: the kernel has no further advance for them."""
        self.ages = np.zeros(n, np.int64)
        """(n,) advances that each has made."""
        self.metric = np.full((n, n_laps), np.nan)
        """(n, laps) the metric at the end of each lap; NaN where an item did not come to it."""
        self.loss = np.full(n, np.nan)
        """(n,) the metric at the end of the last lap, signed so that less is better; NaN: broken."""
        self.state_rounds = np.full(n, -1, np.int64)
        """(n,) the round that kept the state from which each goes on, or, once it has ended, that of its results; -1: none."""
        # The row that had this state.
        self._parent = np.arange(n)

    # --- what each kind of search decides -------------------------------------------------------------

    @abstractmethod
    def decide(self) -> None:
        """Mark the items that are ready for a further round, and those that have ended."""

    def records(self) -> dict[str, np.ndarray]:
        """Return what the store keeps of the search, name -> (n, ...): by default, the metric at every rung, and the rungs from
        which items went on; see jobs.plan.search."""
        return {"search_metric": self.metric[:, :-1], "search_rung": self.lap.astype(np.int32)}

    def choose(self, most: int) -> np.ndarray:
        """Return the rows of the next round, at most `most`; they are in one lap and group. None are ready: no rows."""
        rows = np.flatnonzero(self.ready)
        return rows[self.lap[rows] == self.lap[rows[:1]]][:most]

    def take(self, rows: np.ndarray) -> None:
        """Note that these rows begin their next round."""
        self.ready[rows], self.running[rows] = False, True

    def values(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the searched fields of these rows in their present lap."""
        del rows
        return {}

    # --- rounds ---------------------------------------------------------------------------------------

    def ask(self, most: int) -> Round | None:
        """Return the next round, of at most `most` items; None if no item is ready."""
        rows = self.choose(most)
        if not len(rows):
            return None
        self.take(rows)
        length, group = self._lengths[self.lap[rows[0]]], int(self.group[rows[0]])
        return Round(
            rows, self.state_rounds[rows], self._parent[rows], length, self.values(rows), group
        )

    def tell(self, number: int, report: RoundReport) -> None:
        """Note the report of the round with this number: the first that was asked for has number 0."""
        rows = report.rows
        self.running[rows] = False
        self.ages[rows] += report.advances
        self.done[rows] = report.done
        # An item goes on from its own state, unless a population has it copy another one (`select`).
        self.state_rounds[rows], self._parent[rows] = number, rows
        self.metric[rows, self.lap[rows]] = report.metric
        loss = self._sign * report.metric
        self.loss[rows] = np.where(np.isfinite(loss) & ~report.broken, loss, np.nan)
        failed = np.array(report.failed, np.int64)
        self.running[failed] = False
        self.failed[failed] = self.ended[failed] = True
        self.loss[failed] = np.nan

    def skip(self, rows: np.ndarray) -> np.ndarray:
        """Leave out rows whose results exist before the search begins; return those that are left out.

        An item stays if another item of its block has no results yet: that item must be compared with it.
        """
        blocks, n = np.unique(rows // self._size, return_counts=True)
        out = rows[np.isin(rows // self._size, blocks[n == self._size])]
        self.ended[out], self.ready[out] = True, False
        return out

    def retry(self, rows: np.ndarray) -> None:
        """Have rows that failed go on from their last state, in the lap in which they failed; not in a search in step."""
        self.failed[rows] = self.ended[rows] = False
        self.ready[rows] = True

    @property
    def over(self) -> BoolArray:
        """(n,) True for items that have ended, or surely will without a further advance; for progress."""
        return self.ended

    @property
    def stage(self) -> str:
        """How far the search has come, as text."""
        # The last lap of a search on rungs leads from the last rung to the end.
        n = self.most_laps - bool(self.search.rungs)
        lap = int(self.lap.max(initial=0)) + 1
        text = f"{self.search.lap_name} {lap} of {n}"
        return text if lap <= n else f"first past the last of {count(n, self.search.lap_name)}"

    @property
    def best(self) -> str:
        """The best metric of the last lap that has one, as text; "" if there is none."""
        laps = np.flatnonzero(np.isfinite(self.metric).any(axis=0))
        if not len(laps):
            return ""
        values = self.metric[:, laps[-1]]
        best = np.nanmin(values) if self._sign > 0 else np.nanmax(values)
        return f"best {self.search.metric} {best:.4g}"

    @property
    def tied(self) -> str:
        """The first rung at which items were dropped although all had the same metric, as text; "" if there is none."""
        for lap in np.unique(self.lap[self.dropped]):
            values = self.metric[:, lap]
            if len(values := np.unique(values[np.isfinite(values)])) == 1:
                when = count(sum(self._lengths[: lap + 1]), "advance")
                return (
                    f"after {when} all items had {self.search.metric} {values[0]:.4g}, so only their order decided which "
                    "went on; compare later (min_advances) or by another metric"
                )
        return ""


class InStep(Searcher):
    """A search in which `size` neighbouring items, a block, make their laps in step and are then compared."""

    def decide(self) -> None:
        """Compare the blocks whose items have all made their lap."""
        blocks = np.arange(self.n).reshape(-1, self._size)
        waits = (self.ready | self.running)[blocks].any(axis=1) | self.ended[blocks].all(axis=1)
        for rows in blocks[~waits]:
            # Again where only finished items go on: they pass the next lap without a round.
            while not (self.ended[rows].all() or (self.ready | self.running)[rows].any()):
                self._compare(rows[~self.ended[rows]])

    @abstractmethod
    def select(self, rows: np.ndarray, lap: int) -> np.ndarray:
        """Return which of a block's rows make the next lap, (n,) bool, and set whose states they go on from.

        rows: those that have come this far and have not failed. lap: the lap that is over.
        """

    def is_settled(self, rows: np.ndarray, lap: int) -> bool:
        """Return whether a block has stopped getting better."""
        del rows, lap
        return False

    def _compare(self, rows: np.ndarray) -> None:
        lap = int(self.lap[rows[0]])
        if lap == 0 and self.done[rows].all() and not np.isnan(self.loss[rows]).all():
            raise self.search.too_late(self._size, int(self.ages[rows].max()))
        is_over = self.is_settled(rows, lap)
        if lap == len(self._lengths) - 1 or is_over or self.done[rows].all():
            self.ended[rows] = True
            return
        going = self.select(rows, lap)
        out = rows[~going]
        self.dropped[out] = ~self.done[out]
        self.ended[out] = True
        rows = rows[going]
        self.lap[rows] = lap + 1
        self.ready[rows] = ~self.done[rows]
        # Those that have finished wait: the next lap changes nothing of theirs.
        rows = rows[self.done[rows]]
        self.metric[rows, lap + 1] = self.metric[rows, lap]
