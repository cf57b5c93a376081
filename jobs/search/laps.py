"""One shard's search: laps of advances, and between them decisions: which items go on, and from which state.

Everything is a function of the job and of the items' own numbers, so a search that goes on from a checkpoint
decides as one that was never disturbed. If the compared items lie in several shards (`search.spread`), each
shard reports its own items at the end of a lap, decides for all of them from all reports, and acts on its own:
jobs.run.rendezvous.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ctd.batch import Snapshot
from ctd.batch.laps import TO_THE_END, Laps
from jobs.errors import JobError
from jobs.search.rules import Compared, Fetch, Rule
from jobs.spec.search import Halving, Population


class SearchRun:
    """Computes the results of items, as `ctd.batch.Run` does, but with a search.

    laps: the items, at their start. rule: what the search decides between them. rows: (n,) the items' rows in the
    group, of which each `size` neighbours are compared. meets: whether some of the compared items lie in other
    shards, so that the caller must call `decide`.
    """

    def __init__(
        self,
        laps: Laps,
        search: Halving | Population,
        rule: Rule,
        rows: np.ndarray,
        size: int,
        meets: bool,
    ) -> None:
        self.laps, self._search, self._rule, self._meets = laps, search, rule, meets
        self._blocks, self._n_laps = rows // size, search.n_laps(size)
        self._name, self._sign = search.metric, 1 if search.mode == "min" else -1
        self.lap = 0
        self.going = np.ones(laps.n, bool)
        """(n,) bool: which make the present lap."""
        self.dropped = np.zeros(laps.n, bool)
        """(n,) bool: which left before they had finished."""
        self.metric = np.full((laps.n, self._n_laps), np.nan)
        """(n, laps) the metric at the end of each lap; NaN where an item did not reach it."""
        self._patience = search.patience if isinstance(search, Population) else None
        self._best = np.full((laps.n, self._n_laps), np.nan)
        """(n, laps) the least loss, at the end of each lap, among the items that each is compared with."""
        self.results: dict[str, np.ndarray] = {}
        self.finished = False
        self.arrived = False
        """Whether the lap is over and nothing has been decided yet."""
        self.report: dict[str, np.ndarray] = {}
        """Once the lap is over: what `decide` needs of these items."""
        self._begin()

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
        text = f"{self._search.lap_name} {self.lap + 1} of {self._n_laps}"
        over = np.flatnonzero(np.isfinite(self.metric).any(axis=0))
        if not len(over):
            return text
        values = self.metric[:, over[-1]]
        best = np.nanmin(values) if self._sign > 0 else np.nanmax(values)
        return f"{text}, best {self._name} {best:.4g}"

    def peek(self, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As `Laps.peek`."""
        return self.laps.peek(names)

    def advance(self) -> None:
        """Advance the items on the devices once. At the end of a lap, report, and decide if no other shards are met."""
        if not self.laps.over:
            self.laps.advance()
        if self.laps.over:
            loss = self._measure()
            self.report = {
                "loss": loss, "done": self.laps.done.copy(), "going": self.going.copy(),
                "blocks": self._blocks, **self._rule.told(self.lap),
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
        if self.lap == 0 and found["done"].all() and not np.isnan(found["loss"]).all():
            raise _too_late(self._search, int(self.laps.ages.max()))
        self.arrived = False
        # A block in which no item can go on has ended, whatever the other blocks do.
        open_blocks = found["blocks"][found["going"] & ~found["done"]]
        open_blocks = np.setdiff1d(open_blocks, self._settled(found))
        found["going"] &= np.isin(found["blocks"], open_blocks)
        self.going &= np.isin(self._blocks, open_blocks)
        if self._is_last or not len(open_blocks):
            self._end()
            return
        first = sum(len(r["loss"]) for r in reports[:own])
        compared = Compared(self.lap, found, first, fetch)
        going = self._rule.select(self.laps, self.going, compared)
        self.dropped |= self.going & ~going & ~self.laps.done
        self.going &= going
        self.lap += 1
        self._begin()

    def _settled(self, found: Mapping[str, np.ndarray]) -> list[int]:
        """Note the best loss of each block; return the blocks that have stopped getting better.

        Over the last `patience` laps: best of the first - best of all <= min_improvement * mean |best|.
        """
        if (patience := self._patience) is None:
            return []
        assert isinstance(self._search, Population)
        settled = []
        for block in np.unique(self._blocks):
            losses = found["loss"][(found["blocks"] == block) & found["going"]]
            own = self._blocks == block
            if np.isfinite(losses).any():
                self._best[own, self.lap] = np.nanmin(losses)
            best = self._best[own][0, max(0, self.lap + 1 - patience) : self.lap + 1]
            least = self._search.min_improvement * np.abs(best).mean()
            if len(best) == patience and best[0] - best.min() <= least:
                settled.append(int(block))
        return settled

    @property
    def _is_last(self) -> bool:
        return self.lap == self._n_laps - 1

    def _begin(self) -> None:
        length = TO_THE_END if self._is_last else self._search.lap(self.lap)
        self.laps.begin(np.flatnonzero(self.going), length)

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
        results = self.laps.values(np.arange(self.laps.n)) | self._rule.records(self.metric)
        if outcomes := self.laps.program.kernel.outcomes:
            left = self.dropped | ~self.laps.done  # at a rung, or with their population
            results["outcome"][left] = len(outcomes)  # see jobs.plan.search
        results["search_advances"] = self.laps.ages.astype(np.int32)
        self.results = results | {"search_dropped": self.dropped}
        self.finished = True

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
        own = {"going": self.going, "dropped": self.dropped, "metric": self.metric}
        if self._patience is not None:
            own["best"] = self._best
        return own | self._rule.arrays()


def _too_late(search: Halving | Population, advances: int) -> JobError:
    return JobError(
        f"search.{search.length_field}: the items finish after {advances} "
        "advances, before the search has compared them; lower it, or have an item make more "
        "and shorter advances"
    )
