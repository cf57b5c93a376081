"""The driver's side of meetings: which shards wait at the end of a lap, and what follows once all do.

    all wait            they are called, and find at the meeting what they need to decide
    called in vain      an arrival is damaged: the population starts over
    one is computed     after the others were committed (`ctd resume --failed`, `ctd check --repair`):
    again               the population starts over
    what is compared    an item was found to fail, or memory forced a smaller microbatch: the shards that
    has changed         wait and those that are committed start over

A waiting shard holds no worker. One driver has all shards of a population (jobs.run.parts), so no shard
waits for one that cannot come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from ctd.late import jax
from jobs import keys
from jobs.plan.layout import Shard
from jobs.run.rendezvous import Meeting, populations
from jobs.run.retry import Failures
from jobs.run.task import Task
from jobs.storage import objects
from jobs.store.checkpoint import clear
from jobs.store.store import Store


class Called(NamedTuple):
    """Shards that go on from where they waited, or start over."""

    tasks: list[Task]
    start_over: bool = False
    undone: Set[int] = frozenset()
    """Numbers of those that are committed, and must be uncommitted first."""
    clear: bool = False
    """Whether to remove the arrivals and checkpoints of the population."""


Done = Mapping[int, str | None]
"""Committed shard -> the folder of the meetings it took part in; None if it met no others."""


class Barrier:
    """The populations (or brackets) of a run that span several shards."""

    def __init__(self, store: Store, failures: Failures) -> None:
        self._store, self._failures = store, failures
        self._populations = populations(store.job)
        self._shards = {s.number: s for s in store.job.plan.shards()} if self._populations else {}
        self._waiting: dict[int, tuple[Task, int]] = {}
        self._met: dict[int, tuple[Meeting | None, int]] = {}
        """First shard of a population -> the meeting and lap of its last call."""

    def population(self, number: int) -> tuple[int, ...]:
        """Return all shards of a shard's population, itself included; none if it has no others."""
        return self._populations.get(number, ())

    def meeting(self, shard: Shard) -> Meeting | None:
        """Return the meeting that a shard takes part in; None if its population has no other shards.

        The meeting changes with the items known to fail and the microbatch that memory forced. Raises what the
        storage raises.
        """
        if not (shards := self.population(shard.number)):
            return None
        failing = {k: rows for k in shards if (rows := self._failures.failing_rows(k))}
        rests_on = [failing, self._failures.narrowed(shard.group), jax.__version__]
        key = hashlib.sha256(json.dumps(rests_on).encode()).hexdigest()[:8]
        members = tuple(k for k in shards if len(failing.get(k, ())) < self._shards[k].n_items)
        return Meeting(f"{self._folder(shards)}/{key}", members)

    def left(self) -> set[int]:
        """Return the shards that have left an arrival."""
        if not self._populations:
            return set()
        return {
            keys.number_of(key) for key in objects.list_keys(self._store.objects, keys.MEETINGS)
        }

    def clear(self, number: int) -> None:
        """Remove the arrivals and checkpoints of a shard's population."""
        shards = self.population(number)
        objects.delete_all(self._store.objects, self._folder(shards))
        for k in shards:
            clear(self._store, self._shards[k])

    def wait(self, task: Task, lap: int) -> None:
        """Note that a shard waits at the end of `lap`."""
        self._waiting[task.shard.number] = task, lap

    def drop(self, which: Callable[[Shard], bool]) -> list[Task]:
        """Remove the waiting shards that `which` selects; return their tasks."""
        out = [task for task, _ in self._waiting.values() if which(task.shard)]
        for task in out:
            del self._waiting[task.shard.number]
        return out

    def call(self, number: int, done: Done) -> Called | None:
        """Return the shards to resume or restart after one of them changed state; None if nothing follows.

        number: the shard that changed. done: all committed shards. The caller must `drop` the shards that it
        queues. Raises what the storage raises.
        """
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
        # Shards that are a lap behind are called first: the others may have met there and gone on.
        lap = min(lap for _, lap in waiting.values())
        met = now, lap
        if not missing and self._met.get(shards[0]) != met:
            self._met[shards[0]] = met
            return Called([self._called(k) for k, (_, at) in waiting.items() if at == lap])
        self._met.pop(shards[0], None)
        return Called([self._called(k) for k in (*waiting, *missing)], True, missing, True)

    def _called(self, number: int) -> Task:
        if number in self._waiting:
            return self._waiting[number][0]._replace(begin="resume")
        return self._failures.task(self._shards[number], 1, "fresh")

    def _folder(self, shards: tuple[int, ...]) -> str:
        return f"{keys.MEETINGS}/{self._shards[shards[0]].group}/{shards[0]:06d}"
