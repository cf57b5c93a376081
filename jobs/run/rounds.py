"""The shards and rounds of one search: the tasks that compute them, and the states that rounds leave in the store.

States are deleted once no round goes on from them. If states are needed and missing, their round is computed again: first
the rounds that it goes on from, back to rounds whose states are there or that start at the beginning.
"""

from collections import Counter
from collections.abc import Set

import numpy as np

from jobs import keys
from jobs.errors import JobError
from jobs.plan.layout import Plan, Shard
from jobs.run.retry import Failures
from jobs.run.task import Begin, Step, Task
from jobs.search.searcher import Round, RoundReport
from jobs.storage import objects
from jobs.store.marker import Cost
from jobs.store.rounds import read_round
from jobs.store.store import Store

LOSSES = 3
"""Repetitions of a round whose states are missing; then its search ends."""


class SearchedShards:
    """The planned shards of the groups that are searched together.

    done: the numbers of the committed shards. group: (n,) `Searcher.group` of the n items. The caller keeps both up to date.
    """

    def __init__(self, plan: Plan, groups: range, done: Set[int], group: np.ndarray) -> None:
        self.groups, self.done, self._group = groups, done, group
        self.all = [s for g in groups for k in plan.numbers(g) if (s := plan.shard(k))]

    @property
    def open(self) -> list[Shard]:
        """The shards that are not committed."""
        return [shard for shard in self.all if shard.number not in self.done]

    def open_rows(self) -> np.ndarray:
        """Return (groups, n) bool: whether the shard of the row is not committed."""
        is_open = [shard.number not in self.done for shard in self.all]
        rows = np.repeat(is_open, [shard.n_items for shard in self.all])
        return rows.reshape(len(self.groups), -1)

    def open_items(self) -> np.ndarray:
        """Return (n,) bool: whether the shard that holds an item is not committed."""
        return np.asarray(self.open_rows()[self._group, np.arange(len(self._group))])

    def rows(self, shard: Shard) -> np.ndarray:
        """Return the rows of a shard whose items are in its group."""
        rows = np.arange(shard.start, shard.stop)
        return rows[self._group[rows] == shard.group - self.groups[0]]


class Rounds:
    """The rounds of the search of n items that is known by `group`, and the tasks that have not been handed out."""

    def __init__(self, store: Store, group: int, failures: Failures, n: int) -> None:
        self._store, self._group, self._failures = store, group, failures
        self.proposed: list[Round] = []
        """The rounds that were asked for, by number."""
        self.reports: dict[int, RoundReport] = {}
        """Round -> its report."""
        self.running: set[int] = set()
        """Rounds that were asked for and have not been told."""
        stored = objects.list_keys(store.objects, f"{keys.ROUNDS}/{group}")
        self.stored = {keys.number_of(key) for key in stored}
        """Rounds whose states are in the store."""
        self.waiting: list[Task] = []
        """Tasks that were not handed out yet."""
        self.repeated: set[int] = set()
        """Rounds that are computed again."""
        self._costs = np.zeros((n, 2))
        """(n, 2) each item's share of seconds and advances of the devices."""
        self._longest_s, self._started = 0.0, np.inf
        self._missed: Counter[int] = Counter()
        """Round -> how often its states were found missing."""

    def add(self, round_: Round) -> int:
        """Add a round that was asked for; return its number."""
        self.running.add(number := len(self.proposed))
        self.proposed.append(round_)
        return number

    def resume(self, number: int) -> tuple[RoundReport, Cost] | None:
        """Return the report that a round left for an earlier driver; without one, add its task again."""
        # A worker may have written the round after the driver that asked for it was killed: its report is as good as told.
        stored = read_round(self._store, self._group, number, self.proposed[number])
        if stored is None:
            self.stored.discard(number)
            self.push(number, "resume")
        return stored and (stored.report, stored.cost)

    def add_report(self, number: int, report: RoundReport, cost: Cost) -> None:
        self.reports[number] = report
        self.running.discard(number)
        self._costs[report.rows] += np.array([cost.seconds, cost.rounds]) / max(1, len(report.rows))
        self._longest_s = max(self._longest_s, cost.longest_s)
        self._started = min(self._started, cost.started)

    def cost(self, rows: np.ndarray) -> Cost:
        """Return what the rounds cost that have been told: the share of some rows; start and longest advance of all."""
        seconds, advances = self._costs[rows].sum(axis=0)
        return Cost(float(seconds), self._started, self._longest_s, round(advances))

    def push(self, number: int, begin: Begin, without: tuple[int, ...] | None = None) -> None:
        """Add the task of a round. without: the rows to leave out, if not those that are known to fail."""
        plan, round_ = self._store.job.plan, self.proposed[number]
        # Checkpoints, attempts and events go by the number of a shard.
        group = plan.together(self._group)[round_.group]
        rows = int(round_.rows[0]), int(round_.rows[-1]) + 1
        shard = Shard(plan.round_number(number, group), group, *rows)
        task = self._failures.task(shard, 1, begin, Step(number, round_))
        self.waiting.append(task if without is None else task._replace(without=without))

    def next_task(self) -> Task | None:
        """Return a task whose states are there, or that of a round whose states such a task lacks."""
        for k, task in enumerate(self.waiting):
            assert task.step is not None
            missing = {*task.step.round.rounds.tolist()} - self.stored - {-1}
            if not missing:
                return self.waiting.pop(k)
            if new := missing - self.repeated - {t.step.number for t in self.waiting if t.step}:
                number = min(new)
                self._missed[number] += 1
                self.repeated.add(number)
                # Without the items that failed in it, and with those that failed later.
                self.push(number, "resume", self.reports[number].failed)
                # The states that this one goes on from may be missing, too. `repeated` ends the recursion: each is added once.
                return self.next_task()
        return None

    def lose_states(self, number: int, task: Task) -> None:
        """Note that the states of a round are gone; the task that needs them waits until they are computed again.

        Raises JobError if they were lost too often.
        """
        if self._missed[number] >= LOSSES:
            text = f"the states of round {number} are damaged again and again"
            raise JobError(f"{text}; check the storage")
        self.stored.discard(number)
        self.waiting.append(task._replace(attempt=task.attempt + 1, begin="resume"))

    def forget(self, needed: set[int]) -> None:
        """Delete the states of rounds that have been told, unless they are needed, or a task goes on from them."""
        # A running round may fail and start again; a repeated one reads its sources again.
        going = [self.proposed[number] for number in self.running | self.repeated]
        going += [task.step.round for task in self.waiting if task.step]
        sources = [{*round_.rounds.tolist()} for round_ in going]
        for number in (self.stored & self.reports.keys()) - needed.union(self.repeated, *sources):
            with objects.may_fail():  # `ctd check` finds what stays
                objects.delete(self._store.objects, keys.place(keys.ROUNDS, self._group, number))
                self.stored.discard(number)


def forget_search(store: Store, group: int) -> None:
    """Delete what a group's search has written, so that it begins anew; the caller must hold the store's lease."""
    # The checksums first: decisions without them are those of a search that goes on, whereas checksums without their
    # decisions would be a damage. The states last: any that a kill leaves are written anew before they are read.
    objects.delete(store.objects, keys.sums(f"decisions/{group}"))
    for folder in (keys.DECISIONS, keys.ROUNDS):
        objects.delete_all(store.objects, f"{folder}/{group}")
