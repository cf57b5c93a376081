"""Threads that make one request each when they are told to, and a store that knows what it must say."""

import itertools
import threading
from types import SimpleNamespace

from obstore.store import MemoryStore

from jobs import keys
from jobs.plan.layout import GroupLayout, Plan, Shard
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.marker import FailedItem, FailedItems, Marker
from jobs.store.store import Store


class Killed(BaseException):
    pass


class Actor:
    """A thread that makes one request each time it is told to."""

    def __init__(self, stage, work):
        self.killed = self.ended = False
        self.stage, self.work, self.error = stage, work, None
        self.made, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.made.acquire()

    def _run(self):
        self.stage.actors[threading.get_ident()] = self
        try:
            self.pause()
            self.work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self.made.release()

    def pause(self):
        """Before every request: wait until it may be made."""
        self.made.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def step(self):
        """Make the next request, and go on to the one after it."""
        if not self.ended:
            self.go.release()
            self.made.acquire()
            if self.error:
                raise self.error

    def kill(self):
        self.killed = True
        self.step()
        self.thread.join()

    def finish(self):
        while not self.ended:
            self.step()


really_write = objects.write


class Stage:
    """One store of `n` shards, its actors, and what it must say of every shard.

    kind: of the records, `committed` or `failed`.
    """

    def __init__(self, n, kind):
        self.objects, self.n, self.clock, self.kind = MemoryStore(), n, itertools.count(1), kind
        self.actors, self.may, self.taking = {}, {k: {None} for k in range(n)}, {}

    def store(self):
        plan = Plan((self.n,), (GroupLayout(slots=1, microbatch=1, shard_items=1),))
        return Store("memory", self.objects, SimpleNamespace(plan=plan))

    def records(self, store=None):
        return getattr(store or self.store(), self.kind)

    def commit(self, k):
        """Commit shard k, or write what fails in it; what it must say changes with that one request."""
        if actor := self.actors.get(threading.get_ident()):
            actor.pause()
        # Only now, without a pause between: the newest marker is the one that was written last.
        shard, now = Shard(k, 0, k, k + 1), float(next(self.clock))
        failing = [FailedItem(row=k, item=k, error="no", time=now)]
        records = {
            "committed": Marker(shard=shard, started=now),
            "failed": FailedItems(shard=shard, rows=failing),
        }
        sealed = records[self.kind].to_bytes()
        key = keys.record(self.records().folder, 0, k, digest(sealed))
        really_write(self.objects, key, sealed)
        self.may[k] = {now, *({None} if k in self.taking.values() else ())}

    def take_back(self, k, store):
        """Take shard k back, as the only one that does so at a time."""
        me = threading.get_ident()
        self.taking[me], before = k, self.may[k]
        self.may[k] = {*before, None}
        now = self.may[k]
        try:
            self.records(store).forget([Shard(k, 0, k, k + 1)])
            if self.may[k] is now:  # no commit came between
                self.may[k] = {None}
        finally:
            del self.taking[me]

    def said(self, store=None):
        found = dict.fromkeys(range(self.n))
        return found | {k: one.version[0] for k, one in self.records(store).latest().items()}

    def check(self):
        said = self.said()
        for k, value in said.items():
            assert value in self.may[k], (k, value, self.may[k])
            if value is None or k not in self.taking.values():
                self.may[k] &= {value}
        assert self.records().numbers() == {k for k, value in said.items() if value}
        return said
