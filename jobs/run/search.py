"""The driver's side of a search: it asks the searcher of a group, writes down what follows, hands it out, and tells.

    a round ends       its report is told; the searcher decides
    a worker is free   the next round is asked for; report and round are written (jobs.store.rounds), then handed out
    items have ended   once this holds for all items of a planned shard, its last step writes their results

A driver that starts anew repeats the decisions that are written. The states of a round that is needed and missing
(they are deleted once nobody goes on from them, or are damaged) are computed again: jobs.run.states.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from ctd.kernel import inputs_of
from jobs import keys
from jobs.errors import JobError
from jobs.plan.items import chosen
from jobs.plan.layout import Shard
from jobs.run.retry import Failures
from jobs.run.states import KeptStates
from jobs.run.task import Begin, Step, Task
from jobs.search import Round, Searcher, Told, searcher_of
from jobs.spec.search import Population
from jobs.storage import objects
from jobs.storage.checksums import write_sums
from jobs.store.rounds import (
    Cost,
    Decision,
    read_decisions,
    read_round,
    round_digest,
    write_decision,
)
from jobs.store.store import Store


class GroupSearch:
    """The search of one group in one run, or of several that are searched together.

    group: the first of them. done: the numbers of the committed shards; the caller keeps it up to date.
    """

    def __init__(self, store: Store, group: int, failures: Failures, done: Set[int]) -> None:
        self._store, self._group, self._failures, self._done = store, group, failures, done
        plan = store.job.plan
        self._groups = plan.together(group)
        self._shards = [s for g in self._groups for k in plan.numbers(g) if (s := plan.shard(k))]
        self._n = plan.group_sizes[group]
        self._most = min(plan.layouts[g].shard_items for g in self._groups)
        self.searcher = _searcher(store, group, self._n)
        self.states = KeptStates(store, group, self._again)
        self._rounds: list[Round] = []
        """All that were asked for, by number."""
        self._told: dict[int, Told] = {}
        self._unheard: set[int] = set()
        """Rounds that were asked for and have not been told."""
        self._news: list[tuple[int, Told, Cost]] = []
        """Reports since the last decision."""
        self._unwritten: Decision | None = None
        """The last decision, if the storage failed when it was to be written."""
        self._n_decisions = 0
        self._costs = np.zeros((self._n, 2))
        """(n, 2) each item's share of seconds and advances of the devices."""
        self._longest_s, self._started = 0.0, np.inf
        self._writing: set[int] = set()
        """Shards whose last step has been handed out."""
        self._is_changed = True
        advances, kernel = store.science.advances, store.science
        params = kernel.Params.model_validate(store.params(group))
        self._whole = advances(inputs_of(params)) if advances else 0
        """The most advances of an item; 0 if the kernel does not say."""

    # --- a driver begins ------------------------------------------------------------------------------

    def open(self) -> None:
        """Repeat what is written, and take up what was handed out. Raises JobError if the search decides otherwise now."""
        decisions = list(read_decisions(self._store, self._group))
        for decision in decisions:
            self._repeat(decision)
        # Written anew if they follow a gap: nothing that is known rests on them.
        for key in list(objects.list_keys(self._store.objects, f"{keys.DECISIONS}/{self._group}")):
            if keys.number_of(key) >= self._n_decisions:
                objects.delete(self._store.objects, key)
        is_there = np.flatnonzero(~self._open_rows().any(axis=0))
        skipped = [] if decisions else self.searcher.skip(is_there).tolist()
        again = self._taken_back()
        if skipped or again:
            self._unwritten = Decision((), None, skipped, again)
            self.searcher.again(np.array(again, np.int64))
            self._write()
        for number in sorted(self._unheard):
            there = read_round(self._store, self._group, number, self._rounds[number])
            if there is not None:
                self.tell(number, there.told, there.cost)
            else:
                self.states.kept.discard(number)
                self.states.waiting.append(self._task(number, "resume"))

    def _taken_back(self) -> list[int]:
        """Return the rows that failed and are no longer recorded as failing: `resume --failed` has taken them back."""
        if self.searcher.search.in_step:
            return []
        whole = [Shard(-1, group, 0, self._n) for group in self._groups]
        recorded = [entry.row for part in whole for entry in self._failures.failing(part)]
        lost = np.flatnonzero(self.searcher.failed & self._is_open())
        return np.setdiff1d(lost, recorded).tolist()

    def _repeat(self, decision: Decision) -> None:
        self._n_decisions += 1
        if decision.skipped:
            self.searcher.skip(np.array(decision.skipped, np.int64))
        if decision.again:
            self.searcher.again(np.array(decision.again, np.int64))
        for number, told, cost in decision.told:
            self._note(number, told, cost)
        if decision.asked is None:
            return
        asked = self.searcher.ask(self._most)
        if asked is None or round_digest(asked) != round_digest(decision.asked):
            raise JobError(
                f"{self._store.address}: group {self._group}: the search decided otherwise when round {len(self._rounds)} "
                "was written (another version of Optuna?); go on with that version, or begin a new store"
            )
        self._unheard.add(len(self._rounds))
        self._rounds.append(asked)

    # --- reports --------------------------------------------------------------------------------------

    def tell(self, number: int, told: Told, cost: Cost) -> None:
        """Note the end of a round, and decide what follows. Raises JobError if the search cannot go on."""
        self.states.came(number)
        if number not in self._told:  # otherwise its states were needed again
            self._news.append((number, told, cost))
            self._note(number, told, cost)

    def _note(self, number: int, told: Told, cost: Cost) -> None:
        self.searcher.tell(number, told)
        self._told[number], self._is_changed = told, True
        self._unheard.discard(number)
        self._costs[told.rows] += np.array([cost.seconds, cost.rounds]) / max(1, len(told.rows))
        self._longest_s = max(self._longest_s, cost.longest_s)
        self._started = min(self._started, cost.started)
        self.searcher.decide()  # after each report, so that a repetition decides the same

    # --- tasks ----------------------------------------------------------------------------------------

    def next_task(self) -> Task | None:
        """Return the next task; None if there is none now. Raises the errors of the storage; then nothing is lost."""
        if task := self.states.next_task():
            return task
        if not self._add_last_step():
            if self._unwritten is None and (asked := self.searcher.ask(self._most)) is not None:
                self._unwritten, self._news = Decision(tuple(self._news), asked), []
            self._write()
        return self.states.next_task()

    def _add_last_step(self) -> bool:
        """Add the last step of a planned shard whose items have all ended; return whether there is one."""
        if not self._is_changed:
            return False
        for shard in self._shards:
            if shard.number in self._done or shard.number in self._writing:
                continue
            if self.searcher.ended[shard.start : shard.stop].all():
                self._write()
                if self._news:
                    self._unwritten, self._news = Decision(tuple(self._news), None), []
                    self._write()
                self._writing.add(shard.number)
                self.states.waiting.append(self._last_step(shard))
                return True
        self._is_changed = False
        return False

    def _write(self) -> None:
        """Write the last decision; the round that follows from it is handed out from then on."""
        if self._unwritten is None:
            return
        write_decision(self._store, self._group, self._n_decisions, self._unwritten)
        asked, self._unwritten = self._unwritten.asked, None
        self._n_decisions += 1
        if asked is not None:
            self._unheard.add(number := len(self._rounds))
            self._rounds.append(asked)
            self.states.waiting.append(self._task(number, "fresh"))
            running = [self._rounds[number] for number in self._unheard | self.states.repeated]
            self.states.forget(self._told.keys(), self._needed(), running)

    def _needed(self) -> set[int]:
        """Return the rounds whose states open shards still need, or, out of step, shards that `resume --failed` may take back."""
        found, rows = self.searcher, self._is_open()
        if found.search.in_step:
            return {*found.sources(np.flatnonzero(rows)).tolist()}
        for shard in self._shards if found.failed.any() else ():
            mine = self._rows(shard)
            rows[mine] |= found.failed[mine].any()
        return {*found.kept[rows].tolist()} - {-1}

    def _task(self, number: int, begin: Begin) -> Task:
        plan, asked = self._store.job.plan, self._rounds[number]
        group = self._groups[asked.group]
        as_shard = plan.n_shards + number * len(plan.group_sizes) + group
        rows = int(asked.rows[0]), int(asked.rows[-1]) + 1
        task = self._failures.task(Shard(as_shard, group, *rows), 1, begin)
        return task._replace(step=Step(number, asked))

    def _again(self, number: int) -> Task:
        """Return the task that computes a round again, without the items that failed in it, and with those that failed later."""
        return self._task(number, "resume")._replace(without=self._told[number].failed)

    def _last_step(self, shard: Shard) -> Task:
        """Return the task that writes the results of a planned shard."""
        found, rows = self.searcher, self._rows(shard)
        added = found.records() | {
            "search_advances": found.ages.astype(np.int32), "search_dropped": found.dropped
        }  # fmt: skip
        last = Round(rows, found.sources(rows), rows, 0, found.values(rows))
        seconds, advances = self._costs[rows].sum(axis=0)
        before = Cost(float(seconds), self._started, self._longest_s, round(advances))
        whole = slice(shard.start, shard.stop)
        step = Step(-1, last, {name: values[whole] for name, values in added.items()}, before)
        task = self._failures.task(shard, 1, "fresh")
        failed = {*task.without, *rows[found.failed[rows]].tolist()}
        return task._replace(step=step, without=tuple(sorted(failed)))

    def seal(self) -> None:
        """Once all shards are committed: seal the decisions; delete the states that nobody needs and what killed workers left."""
        name, needed = f"decisions/{self._group}", self._needed()
        with objects.may_fail():
            write_sums(
                self._store.objects, name, objects.list_keys(self._store.objects, f"run/{name}")
            )
            self.states.forget(self._told.keys(), needed, ())
            for folder in (keys.CHECKPOINTS, keys.LIVE, *(() if needed else (keys.ROUNDS,))):
                for group in self._groups:
                    objects.delete_all(self._store.objects, f"{folder}/{group}")

    # --- progress -------------------------------------------------------------------------------------

    def _rows(self, shard: Shard) -> np.ndarray:
        """Return the rows of a planned shard whose items are in its group."""
        rows = np.arange(shard.start, shard.stop)
        return rows[self.searcher.group[rows] == shard.group - self._group]

    def _is_open(self) -> np.ndarray:
        """Return (n,) bool: whether the item's shard is not committed."""
        found: np.ndarray = self._open_rows()[self.searcher.group, np.arange(self._n)]
        return found

    def _open_rows(self) -> np.ndarray:
        """Return (groups, n) bool: whether the shard of the row is not committed."""
        is_open = [shard.number not in self._done for shard in self._shards]
        rows = np.repeat(is_open, [shard.n_items for shard in self._shards])
        return rows.reshape(len(self._groups), self._n)

    @property
    def unfounded(self) -> list[Shard]:
        """Committed shards of several groups, if the decisions do not say that all of their items have ended.

        The decisions were lost or begin anew, and may have the items in other groups now.
        """
        found = []
        for shard in self._shards if len(self._groups) > 1 else ():
            rows, may_be_here = slice(shard.start, shard.stop), (-1, shard.group - self._group)
            waits = np.isin(self.searcher.group[rows], may_be_here) & ~self.searcher.ended[rows]
            if shard.number in self._done and waits.any():
                found.append(shard)
        return found

    @property
    def open_shards(self) -> list[int]:
        """The planned shards that are not committed."""
        return [shard.number for shard in self._shards if shard.number not in self._done]

    @property
    def has_task(self) -> bool:
        """Whether a task could be handed out now."""
        return bool(self.states.waiting) or self._is_changed or bool(len(self.searcher.choose(1)))

    @property
    def work(self) -> float:
        """The work of its items in past rounds, in items, of shards that are not committed."""
        found = self.searcher
        part = np.minimum(1.0, found.ages / self._whole) if self._whole else np.zeros(self._n)
        return float(np.where(found.ended, 1.0, part)[self._is_open()].sum())

    @property
    def n_ended(self) -> int:
        """The number of items that have ended, and whose shards are not committed."""
        return int((self.searcher.ended & self._is_open()).sum())


def _searcher(store: Store, group: int, n: int) -> Searcher:
    search, params = store.job.spec.search, store.science.Params.model_validate(store.params(group))
    assert search is not None
    stored = str(store.results(group).attrs["coordinates"]).split()
    read = lambda name: store.rows(group, name, 0, n)
    starts = {
        name: read(name).astype(float)
        if name in stored
        else np.full(n, getattr(params, name), float)
        for name in (search.params if isinstance(search, Population) else ())
    }
    ways = chosen(search, store.science)
    return searcher_of(search, store.job.spec.seed, read("item"), starts, ways)


def forget_search(store: Store, group: int) -> None:
    """Delete what a group's search has written, so that it begins anew; the caller must hold the store's lease."""
    objects.delete(store.objects, keys.sums(f"decisions/{group}"))
    for folder in (keys.DECISIONS, keys.ROUNDS):
        objects.delete_all(store.objects, f"{folder}/{group}")
