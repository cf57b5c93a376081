"""Processes that are killed at a chosen moment.

They are forked from one that has imported what they need and done nothing else: to import it takes a second and a half
of a core, and here dozens are killed.
"""

import itertools
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from obstore.store import MemoryStore
from stores import make, run

from jobs import keys
from jobs.gather.gather import gather
from jobs.plan.layout import GroupLayout, Plan, Shard
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store import checkpoint
from jobs.store.marker import FailedItem, FailedItems, Marker
from jobs.store.store import Store

FORKS = multiprocessing.get_context("forkserver")
# Importing them starts no thread of theirs, and JAX finds its devices when it first computes.
FORKS.set_forkserver_preload(["pytest", "killing", "toy", "hill", "jax", "zarr", "optax"])


def killed(what, *arguments):
    """Call `what(*arguments)` in a process of its own, which must end in SIGKILL; return what it printed."""
    with tempfile.NamedTemporaryFile() as said:
        process = begun(what, *arguments, said=said.name)
        process.join()
        text = Path(said.name).read_bytes()
    assert process.exitcode == -signal.SIGKILL, text.decode()
    return text


def begun(what, *arguments, said=os.devnull):
    """Start a process with the environment of this one that calls `what(*arguments)`."""
    process = FORKS.Process(target=_call, args=(dict(os.environ), said, what, *arguments))
    process.start()
    return process


def _call(environment, said, what, *arguments):
    os.environ.clear()
    os.environ.update(environment)
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    what(*arguments)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# --- what they do -----------------------------------------------------------------------------------


def command(*arguments):
    """`ctd ARGUMENTS`."""
    from cluster.cli.main import main

    sys.argv = ["ctd", *arguments]
    main()


def script(folder, path, *options):
    """`python PATH OPTIONS` in a folder."""
    os.chdir(folder)
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path, *options]
    runpy.run_path(path, run_name="__main__")


def checkpoint_often():
    """Keep a checkpoint after every advance, whatever it costs."""
    checkpoint.COST = 1e9


def killed_at_a_write(path, job, when, what, nth, often=False):
    """Make, run and gather a store, killed before or after the nth write of a key with `what` in it."""
    killed(_dies_at_a_write, str(path), job, when, what, nth, often)


def _dies_at_a_write(path, job, when, what, nth, often):
    import zarr

    left = [nth]

    def look(key, now):
        if what in key and when == now:
            left[0] -= 1
            if left[0] == 0:
                die()

    def dying(really):
        def write(store, key, data):
            look(key, "before")
            done = really(store, key, data)
            look(key, "after")
            return done

        return write

    real_set = zarr.storage.ObjectStore.set

    async def set_(self, key, value):
        # Tables of a gather are hierarchies of their own, whose keys begin below them.
        whole = f"{self.store.prefix}/{key}"
        look(whole, "before")
        await real_set(self, key, value)
        look(whole, "after")

    objects.write, objects.create = dying(objects.write), dying(objects.create)
    zarr.storage.ObjectStore.set = set_
    if often:
        checkpoint_often()
    store = make(path, job)
    run_shards(store, SerialExecutor(1))
    gather(store)


def dies_after_a_checkpoint(address, job, shard):
    """Make and run a store, killed after the first checkpoint of a shard."""
    keep = checkpoint.Checkpoints.keep

    def dying(self, *state):
        keep(self, *state)
        if f"{shard:06d}" in self._folder:
            die()

    checkpoint.Checkpoints.keep = dying
    run(address, job)


def goes_on(address):
    """Run a store to its end, with many checkpoints."""
    checkpoint_often()
    run_shards(Store.open(address), SerialExecutor(1))


def killed_at_random(store, seen):
    """Run a store in three processes, one after another, each killed soon after the first change in what
    `seen` tells of it; how many were still at work."""
    kills = 0
    for _ in range(3):
        before = seen(store)
        process = begun(goes_on, store.address)
        while seen(store) == before and process.is_alive():
            time.sleep(0.02)  # to look takes the core that the process starts on
        time.sleep(random.random() * 0.1)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    return kills


# --- the same without a process each ----------------------------------------------------------------

LEFT_OUT = shutil.ignore_patterns("*#*", "lease")


def middle(states, *kinds):
    """Of these kinds of writes the one in the middle, of what `stopped_at_writes` found."""
    of_kind = [[state for state in states if state[0].startswith(kind)] for kind in kinds]
    assert all(of_kind)
    return [found[len(found) // 2] for found in of_kind]


def stopped_at_writes(store, folder, monkeypatch, every=1):
    """Run and gather a store; (what was to be written or deleted, copy of what a kill leaves), one for each.

    every: of each kind the first, and from there on one of so many; the columns of a table, and the groups, are one kind. Leases are left out: they would be those of a process that lives.
    """
    import obstore

    found, seen = [], Counter()

    def watching(name):
        call = getattr(obstore, name)

        def wrapped(where, key, *rest, **options):
            if str(key).startswith("run/lease"):  # at times of its own, in a thread
                return call(where, key, *rest, **options)
            parts = str(key).split("/")
            kind = name, *parts[: 2 if parts[0] == "run" else 1]
            seen[kind] += 1
            if (seen[kind] - 1) % every:
                return call(where, key, *rest, **options)
            copy = Path(folder) / f"{len(found)}.zarr"
            # Links: an object is written beside its place and renamed, never changed where it lies.
            shutil.copytree(store.address, copy, ignore=LEFT_OUT, copy_function=os.link)
            found.append((f"{name.partition('_')[0]} {key}", copy))
            return call(where, key, *rest, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "COST", 1e9)
        for name in ("put", "put_async", "delete", "delete_async"):
            patch.setattr(obstore, name, watching(name))
        run_shards(store, SerialExecutor(1))
        gather(store)
    return found


# --- threads that make one request each when they are told to -----------------------------------


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
