"""One run over a store: hand out shards, book their reports, try again, stop in order.

The executor decides where a shard runs. Everything else about a run is here, once for all executors.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from jobs import keys
from jobs.plan.layout import Shard
from jobs.run.coordinator import Barrier, Called
from jobs.run.executor import Executor
from jobs.run.limits import Pause, TimeLimits, storage_trouble
from jobs.run.partition import Part, open_shards
from jobs.run.progress import Listener, Progress
from jobs.run.queue import Queue
from jobs.run.retry import Failures, Hopeless
from jobs.run.stop import Stop
from jobs.run.worker import Report, Task
from jobs.storage import objects
from jobs.store.events import Event, Events
from jobs.store.failed import FailedItem
from jobs.store.provenance import said
from jobs.store.store import Store, uncommit

IDLE_S = 60.0
"""Seconds without a ready worker before the listener is told; workers that import JAX together take 30 s to start."""


class Driver:
    """One run over one store.

    part: run only the shards of this part; None: all.
    """

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
        self.unmet: set[int] = set()
        """Shards whose population must be looked at again."""
        self.undecided: list[tuple[Task, Report]] = []
        """Reports whose decision a storage failure postponed."""
        self.errors: dict[int, str] = {}
        self.limits = TimeLimits(self.settings.time_limit_s)
        self.storage, self.hopeless = Pause(), Hopeless()
        self.events = Events(store)
        self.idle_since = time.monotonic()
        markers = store.markers()
        self.done = {marker.shard.number: marker.meeting for marker in markers}
        before = sum(self.shards[k].stop - self.shards[k].start for k in self.done)
        self.progress = Progress(
            sum(store.job.plan.group_sizes), len(self.shards), before, len(self.done), before
        )
        for marker in markers:
            self._count(marker.outcomes)
            shard = self.shards[marker.shard.number]
            self.limits.note(shard.group, marker.longest_s)
            self.hopeless.done(shard.group, shard.n_items - len(marker.without))
        for number, entries in self.failures.failed.items():
            self._blame(number, entries)
        kept = {
            int(key.split("/")[-2]) for key in objects.list_keys(store.objects, keys.CHECKPOINTS)
        }
        kept |= self.barrier.left()
        mine = open_shards(store, self.done.keys(), part)
        self.unmet |= {first for k in mine for first in self.barrier.population(k)[:1]}
        for shard in self.shards:
            if shard.number in mine:
                self.queue.push(self.failures.task(shard, 1, shard.number in kept))

    def run(self) -> None:
        """Run until every shard is committed or given up, or the run is stopped."""
        executor, progress = self.executor, self.progress
        host, pid = socket.gethostname(), os.getpid()
        begun = Event(
            kind="run", executor=executor.name, pending=len(self.queue),
            workers=executor.workers(), host=host, pid=pid,
        )  # fmt: skip
        self.events.note(begun)
        self.events.flush()  # now: a driver that is killed writes nothing later
        self.listener(progress)
        try:
            self._tidy(self.barrier.left())
            if self.stop.reason is None:
                executor.start(self.store.address)
                executor.hear(self._look)
                self.stop.tell(executor.interrupt)
            while self.running or (self._is_open and self.stop.reason is None):
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
            if self._is_open or self.running:
                progress.stopped = self.stop.reason
        finally:
            ended = Event(
                kind="end", done=progress.shards_done, failed=len(progress.failed),
                stopped=self.stop.reason, lost=sorted(self.running), host=host, pid=pid,
            )  # fmt: skip
            self.events.note(ended)
            self.events.close()

    @property
    def _is_open(self) -> bool:
        return bool(self.queue or self.unmet or self.undecided)

    def _look(self) -> None:
        """Tell the listener where the run stands."""
        running = self.executor.progress().values()
        self.progress.running_items = sum(now.finished for now in running)
        self.progress.advances = tuple(now.advances for now in running)
        self.progress.stage = next((now.stage for now in running if now.stage), self.progress.stage)
        self.progress.trouble = self.storage.reason or self._idle()
        self.listener(self.progress)

    def _idle(self) -> str | None:
        """Return a message if shards wait and no worker has been ready for `IDLE_S` seconds; None otherwise."""
        if self.running or not self.queue or self.executor.capacity() > 0:
            self.idle_since = time.monotonic()
        idle_s = time.monotonic() - self.idle_since
        if idle_s < IDLE_S:
            return None
        return (
            f"no worker is ready since {idle_s:.0f} s ({self.executor.name}'s own logs may say why)"
        )

    def _hand_out(self) -> None:
        if not self.storage.lasts:
            self._settle()
        while (
            not self.storage.lasts
            and self.executor.capacity() > 0
            and (task := self.queue.pop()) is not None
        ):
            # Slots may have been halved since the task was queued.
            task = task._replace(slots=self.failures.slots(task.shard.group))
            try:
                meeting = None if task.probe else self.barrier.meeting(task.shard)
            except Exception as error:
                self._wait_for_storage(error)
                self.queue.push(task)
                break
            task = task._replace(meeting=meeting)
            self.running[task.shard.number] = task
            self.executor.submit(task)

    def _settle(self) -> None:
        """Retry the decisions that a storage failure postponed."""
        while self.undecided and not self.storage.lasts:
            task, report = self.undecided.pop(0)
            self._decide(task, report, self.shards[report.shard])
            self.unmet.add(report.shard)
        unmet, self.unmet = self.unmet, set()
        for number in sorted(unmet):
            self._meet(number)

    def _wait_for_storage(self, error: Exception) -> None:
        """Pause if the storage has failed; raise any other error."""
        if not objects.is_storage_error(error):
            raise error
        self.storage.begin(storage_trouble(self.store.address, said(error)))

    def _end_hung(self) -> None:
        for number, silent_s in self.executor.silence().items():
            limit = self.limits.of(self.shards[number].group)
            if silent_s > limit and number not in self.hung:
                self.hung[number] = (
                    f"no advance has ended for {silent_s:.0f} s (limit {limit:.0f} s)"
                )
                self.executor.kill(number)

    def _take(self, report: Report) -> None:
        """Book one report: the shard is done, waits for others, is tried again, or is given up."""
        task, shard = self.running.pop(report.shard), self.shards[report.shard]
        if (why := self.hung.pop(report.shard, None)) and report.fault == "death":
            report = report._replace(error=why)
        if report.fault == "waits":
            self.storage.end()
            self.hopeless.done(shard.group, shard.n_items)
            self.progress.stage = report.info["stage"]
            self.barrier.wait(task, report.info["lap"])
        elif report.error is None and not task.probe:
            self.storage.end()
            self._done(report, shard)
        else:
            self._note(task, report)
            self._decide(task, report, shard)
        self._meet(shard.number)

    def _note(self, task: Task, report: Report) -> None:
        """Record a failure's error and event; pause if the storage has failed."""
        if report.error is None:
            return
        if report.fault == "storage":
            self.storage.begin(storage_trouble(self.store.address, str(report.error)))
        if not task.probe:
            self.errors[report.shard] = str(report.error)
        failure = Event(
            kind="stopped" if report.fault == "stopped" else "error",
            shard=report.shard, attempt=report.attempt, error=report.error,
            trace=report.trace, fault=report.fault, probe=task.probe,
            rows=[task.shard.start, task.shard.stop], about=report.info,
        )  # fmt: skip
        self.events.note(failure)

    def _decide(self, task: Task, report: Report, shard: Shard) -> None:
        """Decide what follows from a failure or a probe; postpone it if the storage fails."""
        try:
            if report.error is None:
                verdict = self.failures.passed(task, shard)
                self.storage.end()
            else:
                verdict = self.failures.decide(task, report, shard)
        except Exception as error:
            self._wait_for_storage(error)
            self.undecided.append((task, report))
            return
        if verdict.note:
            self.events.note(Event(kind="decision", shard=report.shard, text=verdict.note))
        before = len(self.progress.failed_items)
        self._blame(shard.number, self.failures.failed.get(shard.number, []))
        found = len(self.progress.failed_items) - before
        if verdict.task is None:
            last = self.errors[report.shard]
            self.progress.failed[report.shard] = (
                f"{last} ({verdict.note})" if verdict.note else last
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
        self.events.note(Event(kind="decision", group=group, text=f"{n} shards {text}"))

    def _abandon(self, which: Callable[[Shard], bool], text: str) -> int:
        undecided = [task for task, _ in self.undecided if which(task.shard)]
        self.undecided = [pair for pair in self.undecided if not which(pair[0].shard)]
        dropped = [*self.queue.drop(which), *self.barrier.drop(which), *undecided]
        self.progress.failed |= {task.shard.number: text for task in dropped}
        return len(dropped)

    def _meet(self, number: int) -> None:
        """Queue the shards of a population that go on or start over; give up those not running if one was given up.

        Postponed if the storage fails.
        """
        population = self.barrier.population(number)
        if lost := [k for k in population if k in self.progress.failed]:
            text = (
                f"not ended: shard {lost[0]}, whose items its own are compared with, was given up"
            )
            self._abandon(lambda shard: shard.number in population, text)
            return
        try:
            if called := self.barrier.call(number, self.done):
                self._call(number, called)
        except Exception as error:
            self._wait_for_storage(error)
            self.unmet.add(number)

    def _call(self, number: int, called: Called) -> None:
        if called.clear:
            self.barrier.clear(number)
        markers = self.store.markers(called.tasks[0].shard.group) if called.undone else []
        outcomes = {marker.shard.number: marker.outcomes for marker in markers}
        for task in called.tasks:
            if task.shard.number in called.undone:
                self._undo(task.shard, outcomes.get(task.shard.number, {}))
            self.barrier.drop(task.shard.__eq__)
            self.queue.push(task)
        if called.start_over:
            numbers = sorted(task.shard.number for task in called.tasks)
            text = f"shards {numbers}, whose items are compared, start over"
            self.events.note(Event(kind="decision", shard=number, text=text))
            self.events.flush()

    def _tidy(self, numbers: Iterable[int]) -> None:
        """Remove the arrivals and checkpoints of those populations that are committed as a whole."""
        for first in {self.barrier.population(k)[:1] for k in numbers}:
            if first and self.done.keys() >= set(self.barrier.population(first[0])):
                try:
                    self.barrier.clear(first[0])
                except Exception as error:  # `ctd check` finds what stays
                    if not objects.is_storage_error(error):
                        raise

    def _undo(self, shard: Shard, outcomes: Mapping[str, int]) -> None:
        uncommit(self.store.objects, shard)
        del self.done[shard.number]
        self.progress.shards_done -= 1
        self.progress.items_done -= shard.n_items
        self.progress.items_before = min(self.progress.items_before, self.progress.items_done)
        self._count(outcomes, -1)

    def _done(self, report: Report, shard: Shard) -> None:
        self.done[shard.number] = report.info.get("meeting")
        self.progress.shards_done += 1
        self.progress.items_done += shard.n_items
        self._count(report.info["outcomes"])
        n_blamed = len(self.failures.failed.get(shard.number, []))
        self.hopeless.done(shard.group, shard.n_items - n_blamed)
        self.limits.note(shard.group, report.info.get("longest_s"))
        short = {k: report.info[k] for k in ("host", "pid", "seconds", "n_failed")}
        self.events.note(Event(kind="done", shard=report.shard, attempt=report.attempt, **short))
        self._tidy([shard.number])

    def _blame(self, number: int, entries: Sequence[FailedItem]) -> None:
        self.progress.failed_items |= {entry.item: entry.error for entry in entries}

    def _count(self, outcomes: Mapping[str, int], sign: int = 1) -> None:
        for name, n in outcomes.items():
            self.progress.outcomes[name] = self.progress.outcomes.get(name, 0) + sign * n
