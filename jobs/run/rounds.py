"""A worker's side of a search: the states that items go on from, and what a round reports and keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ctd.batch.round import RoundRun
from ctd.batch.run import Kept
from ctd.kernel import Kernel
from jobs.run.task import Step, Task
from jobs.search import Told
from jobs.spec.search import Search
from jobs.store.rounds import Cost, Damaged, read_round, write_round
from jobs.store.store import Store


class States:
    """The states from which the items of a store's searches go on; those of this worker's last round are in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[tuple[int, int], np.ndarray, np.ndarray, list[np.ndarray]] | None = None
        """((group, round), rows, done, leaves) of the last round that was computed here."""

    def of(self, group: int, step: Step, rows: np.ndarray) -> Kept | None:
        """Return the states that some rows of a round go on from; None if all start. Raises Damaged."""
        at = np.searchsorted(step.round.rows, rows)
        numbers, parents = step.round.rounds[at], step.round.parents[at]
        there = [np.flatnonzero(numbers == number) for number in np.unique(numbers[numbers >= 0])]
        if not there:
            return None
        first = self._store.job.plan.together(group)[0]
        found = [self._read(first, int(numbers[here[0]]), parents[here]) for here in there]
        leaves = [np.concatenate(parts) for parts in zip(*(kept for _, kept in found), strict=True)]
        return Kept(np.concatenate(there), leaves, np.concatenate([done for done, _ in found]))

    def _read(
        self, group: int, number: int, rows: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return (done, leaves) of some rows at the end of a round."""
        if self._last and self._last[0] == (group, number):
            _, kept, done, leaves = self._last
            at = np.searchsorted(kept, rows)
            return done[at], [leaf[at] for leaf in leaves]
        # A member may be copied many times: each state is read once.
        once, again = np.unique(rows, return_inverse=True)
        there = read_round(self._store, group, number)
        if there is None:
            raise Damaged(number)
        at = np.searchsorted(there.told.rows, once)
        leaves = there.states(self._store, once)
        return there.told.done[at][again], [leaf[again] for leaf in leaves]

    def keep(self, task: Task, run: RoundRun, told: Told, cost: Cost) -> None:
        """Write the end of a round to the store, and keep it here."""
        assert task.step is not None
        group = self._store.job.plan.together(task.shard.group)[0]
        step, leaves = task.step, run.states()
        write_round(self._store, group, step.number, step.round, told, cost, leaves)
        self._last = (group, step.number), told.rows, told.done, leaves


def told(run: RoundRun, kernel: Kernel, search: Search, rows: np.ndarray, step: Step) -> Told:
    """Return the report of a round that is over. rows: those that were computed."""
    names = [search.metric, *(["outcome"] if kernel.outcomes else [])]
    found = run.values(np.arange(run.n), names)
    broken = np.zeros(run.n, bool)
    if kernel.outcomes:
        broken = run.done & np.isin(found["outcome"], kernel.failing)
    failed = tuple(np.setdiff1d(step.round.rows, rows).tolist())
    metric = np.asarray(found[search.metric], np.float64)
    return Told(rows, metric, run.advances, run.done, broken, failed)


def results(
    run: RoundRun, kernel: Kernel, added: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the results of items that have ended. added: what the search stores beside those of the kernel."""
    found = run.results
    if kernel.outcomes:
        left = added["search_dropped"] | ~run.done  # at a rung, or with their population
        found["outcome"][left] = len(kernel.outcomes)  # see jobs.plan.search
    return {**found, **added}
