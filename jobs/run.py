"""Run the shards of a store: hand them out, retry, stop in order, note what happened.

The executor says where a shard runs; everything else about a run is here, once, for all executors.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs import objects
from jobs.events import Events
from jobs.events import read_events as read_events
from jobs.executor import Executor as Executor
from jobs.executor import SerialExecutor as SerialExecutor
from jobs.failure import Failures, Hopeless, Queue, forget_failed
from jobs.lease import Held, Lease
from jobs.parts import Part, open_parts, open_shards, refuse_mixture
from jobs.patience import Pause, TimeLimits, storage_trouble
from jobs.plan import Shard
from jobs.prepare import Prepared as Prepared
from jobs.prepare import difference as difference
from jobs.prepare import open_or_create as open_or_create
from jobs.prepare import prepare as prepare
from jobs.progress import Listener as Listener
from jobs.progress import Progress as Progress
from jobs.search.barrier import Barrier
from jobs.sources import accept_changes, refuse_changed
from jobs.stop import Stop
from jobs.store import Store
from jobs.work import Report, Task

IDLE_S = 60.0
"""Workers that import JAX beside each other take half a minute to start."""


def run_shards(
    store: Store,
    executor: Executor,
    listener: Listener = lambda p: None,
    stop: Stop | None = None,
    part: Part | None = None,
) -> Progress:
    """Run every shard of the store that is not committed; what cannot be done is in `failed`.

    part: those of the part alone, beside other drivers that have other parts.

    stop: once it is asked for, no shard is begun and the workers have `run.grace_s` to leave theirs at
    a checkpoint; `stopped` then says why. Held where another driver runs the store, or the part;
    JobError where the kernel's source has changed since the store was made.
    """
    stop = stop or Stop()
    refuse_changed(store)
    if len(store.done()) == store.job.plan.n_shards:
        return _Driver(store, executor, listener, stop).progress
    refuse_mixture(store, part)
    place = store.objects if part is None else part.place(store)
    with Lease.take(place, store.address).held(stop):
        driver = _Driver(store, executor, listener, stop, part)
        if driver.queue:
            driver.run()
    return driver.progress


def run_parts(
    store: Store, executor: Executor, first: int, n: int, listener: Listener, stop: Stop
) -> Progress:
    """Run, of the n parts of the store, those that no other driver holds, from part `first` on."""
    failed: dict[int, str] = {}
    failed_items: dict[int, str] = {}
    stopped = None
    for part in open_parts(store, first, n):
        try:
            progress = run_shards(store, executor, listener, stop, part)
        except Held:
            continue
        failed |= progress.failed
        failed_items |= progress.failed_items
        if stopped := progress.stopped:
            break
    whole = _Driver(store, executor, listener, stop).progress
    return replace(whole, failed=failed, failed_items=failed_items, stopped=stopped)


def reconsider(store: Store, failed: bool = False, changes: bool = False) -> None:
    """Before a run: have items that failed by themselves computed again, accept source that has changed.

    Held where a driver runs the store; JobError, and nothing is changed, where changes are not accepted.
    """
    if not (failed or changes):
        return
    refuse_mixture(store, None)
    with Lease.take(store.objects, store.address).held(Stop()):
        events = Events(store)
        if not changes:
            refuse_changed(store)  # before anything is taken away
        elif edited := accept_changes(store):
            events.note("decision", text=f"changed source accepted: {', '.join(edited)}")
        if failed and (n := forget_failed(store)):
            events.note("decision", text=f"{n} items that failed are computed again")
        events.close()


class _Driver:
    """One run over one store."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        listener: Listener,
        stop: Stop,
        part: Part | None = None,
    ) -> None:
        self.store, self.executor, self.listener, self.stop = store, executor, listener, stop
        self.settings = store.job.spec.run
        self.shards = list(store.job.plan.shards())
        self.queue, self.failures = Queue(), Failures(store)
        self.barrier = Barrier(store, self.failures)
        self.running: dict[int, Task] = {}
        self.hung: dict[int, str] = {}
        self.errors: dict[int, str] = {}
        self.limits = TimeLimits(self.settings.time_limit_s)
        self.storage, self.hopeless = Pause(), Hopeless()
        self.events = Events(store)
        self.idle_since = time.monotonic()
        markers = store.markers()
        self.done = done = {marker["shard"]["number"] for marker in markers}
        before = sum(self.shards[k].stop - self.shards[k].start for k in done)
        self.progress = Progress(
            sum(store.job.plan.group_sizes), len(self.shards), before, len(done), before
        )
        for marker in markers:
            self._count(marker["outcomes"])
            shard = self.shards[marker["shard"]["number"]]
            self.limits.note(shard.group, marker.get("longest_s"))
            self.hopeless.done(shard.group, shard.stop - shard.start - len(marker["without"]))
        for number, entries in self.failures.failed.items():
            self._blame(number, entries)
        kept = {int(key.split("/")[-2]) for key in objects.keys(store.objects, "run/checkpoints")}
        kept |= self.barrier.left()
        mine = open_shards(store, done, part)
        for shard in self.shards:
            if shard.number in mine:
                self.queue.push(self.failures.task(shard, 1, shard.number in kept))

    def run(self) -> None:
        """Until every shard is committed or given up, or the run is stopped."""
        executor, progress = self.executor, self.progress
        who: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
        self.events.note(
            "run",
            executor=executor.name,
            pending=len(self.queue),
            workers=executor.workers(),
            **who,
        )
        self.events.flush()  # at once: a driver that is killed says nothing later
        self.listener(progress)
        try:
            self.barrier.tidy(self.barrier.left(), self.done)
            if self.stop.reason is None:
                executor.start(self.store.address)
                executor.hear(self._look)
                self.stop.tell(executor.interrupt)
            while self.running or (self.queue and self.stop.reason is None):
                if self.stop.reason is None:
                    self._hand_out()
                else:
                    self.stop.begin_grace(self.settings.grace_s)
                    if self.stop.is_over:
                        break
                for report in executor.wait(timeout=0.5 if self.running else 0.05):
                    self._take(report)
                self._end_hung()
                self._look()
            if self.queue or self.running:
                progress.stopped = self.stop.reason
        finally:
            self.events.note(
                "end", done=progress.shards_done, failed=len(progress.failed),
                stopped=self.stop.reason, lost=sorted(self.running), **who,
            )  # fmt: skip
            self.events.close()

    def _look(self) -> None:
        """Tell the listener where the run stands."""
        running = self.executor.progress().values()
        self.progress.running_items = sum(now.finished for now in running)
        self.progress.advances = tuple(now.advances for now in running)
        self.progress.trouble = self.storage.reason or self._idle()
        self.listener(self.progress)

    def _idle(self) -> str | None:
        """That no worker takes a shard, said once the usual time of a start is over."""
        if self.running or not self.queue or self.executor.capacity() > 0:
            self.idle_since = time.monotonic()
        idle_s = time.monotonic() - self.idle_since
        if idle_s < IDLE_S:
            return None
        return (
            f"no worker is ready since {idle_s:.0f} s ({self.executor.name}'s own logs may say why)"
        )

    def _hand_out(self) -> None:
        while (
            not self.storage.lasts
            and self.executor.capacity() > 0
            and (task := self.queue.pop()) is not None
        ):
            # Slots may have been halved since it was put into the queue.
            task = task._replace(slots=self.failures.slots(task.shard.group))
            if not task.probe:
                task = task._replace(meeting=self.barrier.meeting(task.shard))
            self.running[task.shard.number] = task
            self.executor.submit(task)

    def _end_hung(self) -> None:
        for number, silent_s in self.executor.silence().items():
            limit = self.limits.of(self.shards[number].group)
            if silent_s > limit and number not in self.hung:
                self.hung[number] = (
                    f"no advance has ended for {silent_s:.0f} s (limit {limit:.0f} s)"
                )
                self.executor.kill(number)

    def _take(self, report: Report) -> None:
        """Book one report: done, to be tried again, or given up."""
        task, shard = self.running.pop(report.shard), self.shards[report.shard]
        if report.fault == "waits":
            self.storage.end()
            self.barrier.wait(task, report.info["lap"])
        elif report.error is None and not task.probe:
            self.storage.end()
            self._done(report, shard)
        else:
            self._decide(task, report, shard)
        self._meet(shard)

    def _decide(self, task: Task, report: Report, shard: Shard) -> None:
        """What follows from a failure, or from a probe that has told something."""
        if report.error is None:
            self.storage.end()
            verdict = self.failures.passed(task, shard)
        else:
            if (why := self.hung.pop(report.shard, None)) and report.fault == "death":
                report = report._replace(error=why)
            if report.fault == "storage":
                self.storage.begin(storage_trouble(self.store.address, str(report.error)))
            if not task.probe:
                self.errors[report.shard] = str(report.error)
            verdict = self.failures.decide(task, report, shard)
            self.events.note(
                "stopped" if report.fault == "stopped" else "error",
                shard=report.shard, attempt=report.attempt, error=report.error,
                trace=report.trace, fault=report.fault, probe=task.probe,
                rows=[task.shard.start, task.shard.stop], **report.info,
            )  # fmt: skip
        if verdict.note:
            self.events.note("decision", shard=report.shard, text=verdict.note)
        before = len(self.progress.failed_items)
        self._blame(shard.number, self.failures.failed.get(shard.number, []))
        found = len(self.progress.failed_items) - before
        if verdict.task is None:
            error = self.errors[report.shard]
            self.progress.failed[report.shard] = (
                f"{error} ({verdict.note})" if verdict.note else error
            )
        else:
            again = report.error is not None and not task.probe and not verdict.task.probe
            self.progress.retried += again and report.fault != "stopped"
            self.queue.push(verdict.task, verdict.wait_s)
        gone = verdict.task is None and self.hopeless.given_up(shard.group)
        if self.hopeless.blamed(shard.group, found) or gone:
            self._give_up(shard.group)
        self.events.flush()

    def _give_up(self, group: int) -> None:
        text = f"not tried: nothing of group {group} could be computed before"
        n = self._abandon(lambda shard: shard.group == group, text)
        self.events.note("decision", group=group, text=f"{n} shards {text}")

    def _abandon(self, which: Callable[[Shard], bool], text: str) -> int:
        dropped = [*self.queue.drop(which), *self.barrier.drop(which)]
        self.progress.failed |= {task.shard.number: text for task in dropped}
        return len(dropped)

    def _meet(self, shard: Shard) -> None:
        """Call the shards of its population that wait, once all have come; give them up where one was."""
        population = self.barrier.population(shard.number)
        if lost := [k for k in population if k in self.progress.failed]:
            text = (
                f"not ended: shard {lost[0]}, whose items its own are compared with, was given up"
            )
            self._abandon(lambda shard: shard.number in population, text)
        elif called := self.barrier.call(shard.number, self.done):
            for marker in self.store.markers(shard.group) if called.undone else []:
                if (number := marker["shard"]["number"]) in called.undone:
                    self._undo(marker, self.shards[number])
            for task in called.tasks:
                self.queue.push(task)
            if called.start_over:
                numbers = sorted(task.shard.number for task in called.tasks)
                text = f"shards {numbers}, whose items are compared, start over"
                self.events.note("decision", shard=shard.number, text=text)
                self.events.flush()

    def _undo(self, marker: Mapping[str, Any], shard: Shard) -> None:
        self.store.uncommit(shard.group, shard.number)
        self.done.remove(shard.number)
        self.progress.shards_done -= 1
        self.progress.items_done -= shard.stop - shard.start
        self.progress.items_before = min(self.progress.items_before, self.progress.items_done)
        for name, n in marker["outcomes"].items():
            self.progress.outcomes[name] -= n

    def _done(self, report: Report, shard: Shard) -> None:
        self.done.add(shard.number)
        self.progress.shards_done += 1
        self.progress.items_done += shard.stop - shard.start
        self._count(report.info["outcomes"])
        n_blamed = len(self.failures.failed.get(shard.number, []))
        self.hopeless.done(shard.group, shard.stop - shard.start - n_blamed)
        self.limits.note(shard.group, report.info.get("longest_s"))
        short = {k: report.info[k] for k in ("host", "pid", "seconds", "n_failed")}
        self.events.note("done", shard=report.shard, attempt=report.attempt, **short)
        self.barrier.tidy([shard.number], self.done)

    def _blame(self, number: int, entries: Sequence[Mapping[str, Any]]) -> None:
        self.progress.failed_items |= {entry["item"]: entry["error"] for entry in entries}

    def _count(self, outcomes: Mapping[str, int]) -> None:
        for name, n in outcomes.items():
            self.progress.outcomes[name] = self.progress.outcomes.get(name, 0) + n
