"""The driver's side of meetings: who has come to the end of a lap, and what follows once all have.

    all wait             they are called again, and find there what they need to decide
    called in vain       something that was left is damaged: the population starts over
    some are committed   and the others are to be computed again (`ctd resume --failed`, `ctd check
                         --repair`): it starts over too

A shard that waits keeps no worker, and all shards of a population are one driver's (jobs.parts), so that
nobody waits for what cannot come.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence, Set
from typing import NamedTuple

from jobs import objects
from jobs.checkpoint import clear
from jobs.failure import Failures
from jobs.plan import Shard
from jobs.search.meeting import FOLDER, Meeting, populations
from jobs.store import Store
from jobs.work import Task


class Called(NamedTuple):
    """Shards that are called from where they waited."""

    tasks: list[Task]
    start_over: bool = False
    undone: Sequence[int] = ()
    """Committed shards that start over with them."""


class Barrier:
    """Those populations (or brackets) of one run that lie in several shards."""

    def __init__(self, store: Store, failures: Failures) -> None:
        self._store, self._failures = store, failures
        self._populations = populations(store.job)
        self._shards = {s.number: s for s in store.job.plan.shards()} if self._populations else {}
        self._waiting: dict[int, tuple[Task, int]] = {}
        self._met: dict[int, tuple[Meeting | None, int]] = {}
        """First shard of a population -> the last meeting from which it was called, and its lap."""

    def population(self, number: int) -> tuple[int, ...]:
        """All shards of a shard's population; none where it has no others."""
        return self._populations.get(number, ())

    def meeting(self, shard: Shard) -> Meeting | None:
        """What a shard meets, without the items that are known to fail by themselves."""
        if not (shards := self.population(shard.number)):
            return None
        failing = {k: rows for k in shards if (rows := self._failing(k))}
        key = hashlib.sha256(json.dumps(failing).encode()).hexdigest()[:8]
        members = tuple(k for k in shards if len(failing.get(k, [])) < self._n(k))
        return Meeting(f"{self._folder(shards)}/{key}", members)

    def left(self) -> set[int]:
        """Shards that have left something at a meeting."""
        if not self._populations:
            return set()
        return {int(key.rpartition("/")[2]) for key in objects.keys(self._store.objects, FOLDER)}

    def tidy(self, shards: Iterable[int], done: Set[int]) -> None:
        """Remove what was left at the meetings of those of these shards whose populations are committed."""
        for population in {self.population(number) for number in shards}:
            if population and done >= set(population):
                objects.delete_all(self._store.objects, self._folder(population))

    def wait(self, task: Task, lap: int) -> None:
        """A shard has come to the end of a lap."""
        self._waiting[task.shard.number] = task, lap

    def drop(self, which: Callable[[Shard], bool]) -> list[Task]:
        """Take out the waiting shards that are meant."""
        out = [task for task, _ in self._waiting.values() if which(task.shard)]
        for task in out:
            del self._waiting[task.shard.number]
        return out

    def call(self, number: int, done: Set[int]) -> Called | None:
        """Who of a shard's population is to go on, after something has become of one of them."""
        shards = self.population(number)
        waiting = {k: self._waiting[k] for k in shards if k in self._waiting}
        if not waiting:
            return None
        now = self.meeting(self._shards[number])
        assert now is not None
        stale = [k for k, (task, _) in waiting.items() if task.meeting != now]
        if stale:  # an item was found to fail: the others are compared without it, from the start
            return Called([self._called(k) for k in stale], True)
        missing = [k for k in now.shards if k not in waiting]
        if not done >= set(missing):
            return None
        # Those furthest behind: one that a driver found later may have gone on from where all had come.
        lap = min(lap for _, lap in waiting.values())
        if not missing and self._met.get(shards[0]) != (now, lap):
            self._met[shards[0]] = now, lap
            return Called([self._called(k) for k, (_, at) in waiting.items() if at == lap])
        self._met.pop(shards[0], None)
        objects.delete_all(self._store.objects, self._folder(shards))
        for k in (*waiting, *missing):
            clear(self._store, self._shards[k])
        again = [self._failures.task(self._shards[k], 1, False) for k in missing]
        return Called([*(self._called(k) for k in waiting), *again], True, missing)

    def _called(self, number: int) -> Task:
        return self._waiting.pop(number)[0]._replace(resume=True)

    def _folder(self, shards: tuple[int, ...]) -> str:
        return f"{FOLDER}/{self._shards[shards[0]].group}/{shards[0]:06d}"

    def _failing(self, number: int) -> list[int]:
        return sorted(entry["row"] for entry in self._failures.failed.get(number, []))

    def _n(self, number: int) -> int:
        shard = self._shards[number]
        return shard.stop - shard.start
