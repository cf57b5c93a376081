"""The driver's side of meetings: who has come to the end of a lap, and what follows once all have.

    all wait            they are called, and find there what they need to decide
    called in vain      something that was left is damaged: the population starts over
    one is computed     after the others were committed (`ctd resume --failed`, `ctd check --repair`): it
    again               starts over too
    what is compared    an item was found to fail, or memory forced a smaller microbatch: those that wait,
    has changed         and those that are committed, start over

A shard that waits keeps no worker, and all shards of a population are one driver's (jobs.run.partition), so that
nobody waits for what cannot come.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import jax

from jobs import keys
from jobs.plan.layout import Shard
from jobs.run.rendezvous import Meeting, populations
from jobs.run.retry import Failures
from jobs.run.worker import Task
from jobs.storage import objects
from jobs.store.checkpoint import clear
from jobs.store.store import Store


class Called(NamedTuple):
    """Shards that are to go on from where they waited, or to start over."""

    tasks: list[Task]
    start_over: bool = False
    undone: Set[int] = frozenset()
    """Those of them that are committed."""
    clear: bool = False
    """Whether what they left is removed."""


Done = Mapping[int, str | None]
"""Committed shard -> the folder of the meetings that it took part in."""


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
        """What a shard meets, as far as is known of items that fail and of memory that runs out."""
        if not (shards := self.population(shard.number)):
            return None
        failing = {k: rows for k in shards if (rows := self._failing(k))}
        rests_on = [failing, self._failures.narrowed(shard.group), jax.__version__]
        key = hashlib.sha256(json.dumps(rests_on).encode()).hexdigest()[:8]
        members = tuple(k for k in shards if len(failing.get(k, [])) < self._n(k))
        return Meeting(f"{self._folder(shards)}/{key}", members)

    def left(self) -> set[int]:
        """Shards that have left something at a meeting."""
        if not self._populations:
            return set()
        return {
            keys.number_of(key) for key in objects.list_keys(self._store.objects, keys.MEETINGS)
        }

    def clear(self, number: int) -> None:
        """Remove all that a shard and those that it is compared with have left."""
        shards = self.population(number)
        objects.delete_all(self._store.objects, self._folder(shards))
        for k in shards:
            clear(self._store, self._shards[k])

    def wait(self, task: Task, lap: int) -> None:
        """A shard has come to the end of a lap."""
        self._waiting[task.shard.number] = task, lap

    def drop(self, which: Callable[[Shard], bool]) -> list[Task]:
        """Take out the waiting shards that are meant."""
        out = [task for task, _ in self._waiting.values() if which(task.shard)]
        for task in out:
            del self._waiting[task.shard.number]
        return out

    def call(self, number: int, done: Done) -> Called | None:
        """Who of a shard's population is to go on, after something has become of one of them. Whoever
        does as it says drops them."""
        shards = self.population(number)
        if not shards or done.keys() >= set(shards):
            return None
        now = self.meeting(self._shards[number])
        assert now is not None
        waiting = {k: self._waiting[k] for k in now.shards if k in self._waiting}
        stale = [k for k, (task, _) in waiting.items() if task.meeting != now]
        undone = {k for k in now.shards if k in done and done[k] != now.folder}
        if stale or undone:
            return Called([self._called(k) for k in (*stale, *undone)], True, undone)
        missing = {k for k in now.shards if k not in waiting}
        if not waiting or not done.keys() >= missing:
            return None
        # A shard that is a lap behind is called first: the others may have found all there, and gone on.
        lap = min(lap for _, lap in waiting.values())
        met = now, lap
        if not missing and self._met.get(shards[0]) != met:
            self._met[shards[0]] = met
            return Called([self._called(k) for k, (_, at) in waiting.items() if at == lap])
        self._met.pop(shards[0], None)
        return Called([self._called(k) for k in (*waiting, *missing)], True, missing, True)

    def _called(self, number: int) -> Task:
        if number in self._waiting:
            return self._waiting[number][0]._replace(resume=True)
        return self._failures.task(self._shards[number], 1, False)

    def _folder(self, shards: tuple[int, ...]) -> str:
        return f"{keys.MEETINGS}/{self._shards[shards[0]].group}/{shards[0]:06d}"

    def _failing(self, number: int) -> list[int]:
        return sorted(entry["row"] for entry in self._failures.failed.get(number, []))

    def _n(self, number: int) -> int:
        shard = self._shards[number]
        return shard.stop - shard.start
