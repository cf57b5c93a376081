"""One run over a store: hand out shards, book their reports, try again, stop in order.

The executor decides where a shard runs. Everything else about a run is here, once for all executors.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jobs.run.attempts import Attempts
from jobs.run.decisions import Decisions
from jobs.run.executor import Executor, Gone
from jobs.run.ledger import Ledger
from jobs.run.populations import Populations
from jobs.run.progress import Listener
from jobs.run.stop import Stop
from jobs.run.stragglers import Stragglers
from jobs.run.task import Key, Report, Sign
from jobs.store.events import Event

LOOK_S = 0.25
"""Seconds between two looks at all that runs. Whatever else a turn of the loop does, it does for what has ended."""

IDLE_S = 60.0
"""Seconds without a ready worker before the listener is told; workers that import JAX together take 30 s to start."""


class Driver:
    """Hands out the shards of one run, and books their reports."""

    def __init__(self, ledger: Ledger, executor: Executor, listener: Listener, stop: Stop) -> None:
        self.ledger, self.executor, self.listener, self.stop = ledger, executor, listener, stop
        self.decisions, self.populations = Decisions(ledger), Populations(ledger)
        self.attempts = Attempts()
        self.stragglers = Stragglers(ledger, executor, self.attempts)
        self.looked_at = self.idle_since = time.monotonic()
        self.has_begun = self.has_advanced = False

    def run(self) -> None:
        """Run until every shard is committed or given up, or the run is stopped. Raises Gone as the executor does."""
        ledger, executor, stop = self.ledger, self.executor, self.stop
        with self._noted():
            self.listener(ledger.progress)
            self.populations.tidy(ledger.barrier.left())
            with stop.deferred():
                if stop.reason is None:
                    executor.start(ledger.store.address)
                    executor.hear(self._look)
                    stop.tell(executor.interrupt)
                    self._loop()
                if ledger.is_open or self.attempts:
                    ledger.progress.stopped = stop.reason

    def _loop(self) -> None:
        ledger, executor, stop = self.ledger, self.executor, self.stop
        while self.attempts or (ledger.is_open and stop.reason is None):
            if stop.reason is None:
                self._hand_out()
            else:
                stop.begin_grace(ledger.store.job.spec.run.grace_s)
                if stop.is_over:
                    break
            try:
                reports = executor.wait(timeout=0.5 if self.attempts else 0.05)
            except Gone:
                if stop.reason is None:
                    raise
                return
            for report in reports:
                self._take(report)
            if time.monotonic() - self.looked_at >= LOOK_S:
                self._look()
                if stop.reason is None:
                    self.stragglers.try_elsewhere()
        self._look()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note the beginning and the end of the run in the events."""
        events, progress = self.ledger.events, self.ledger.progress
        host, pid = socket.gethostname(), os.getpid()
        begun = Event(
            kind="run", executor=self.executor.name, pending=len(self.ledger.queue),
            workers=self.executor.workers(), host=host, pid=pid,
        )  # fmt: skip
        events.note(begun)
        events.flush()  # now: a driver that is killed writes nothing later
        lost = None
        try:
            yield
        except Gone as gone:
            lost = str(gone)
            raise
        finally:
            ended = Event(
                kind="end", done=progress.shards_done, failed=len(progress.failed),
                stopped=self.stop.reason or lost, lost=self.attempts.shards(), host=host, pid=pid,
            )  # fmt: skip
            events.note(ended)
            events.close()

    def _look(self) -> None:
        """End what hangs; tell the listener where the run stands, and the events what was remarked."""
        for text in self.stop.remarks():
            self.ledger.events.note(Event(kind="decision", text=text))
        self.looked_at = time.monotonic()
        progress, signs = self.ledger.progress, self.executor.signs()
        self._end_hung(signs)
        counted = [
            sign.standing for attempt, sign in signs.items() if self.attempts.counts(attempt)
        ]
        running = [now for now in counted if now is not None]
        progress.running_items = sum(now.finished for now in running)
        progress.advances = tuple(now.advances for now in running)
        progress.most_advances = max((now.most for now in running), default=0)
        progress.stage = next((now.stage for now in running if now.stage), progress.stage)
        progress.tuning = any(now.tuning for now in running)
        self.has_advanced |= any(progress.advances) or progress.items_done > progress.items_before
        progress.compiling = bool(running) and not progress.tuning and not self.has_advanced
        progress.trouble = self.ledger.storage.reason or self._idle()
        self.listener(progress)

    def _idle(self) -> str | None:
        """Return a message if shards wait for the first worker, or none has been ready for `IDLE_S` seconds; None otherwise."""
        if self.attempts or not self.ledger.queue or self.executor.capacity() > 0:
            self.idle_since, self.has_begun = time.monotonic(), True
        idle_s = time.monotonic() - self.idle_since
        if idle_s < IDLE_S:
            return None if self.has_begun else "the first worker starts"
        return (
            f"no worker is ready since {idle_s:.0f} s ({self.executor.name}'s own logs may say why)"
        )

    def _hand_out(self) -> None:
        ledger = self.ledger
        if not ledger.storage.lasts:
            self.decisions.settle()
            self.populations.settle()
        while (
            not ledger.storage.lasts
            and self.executor.capacity() > 0
            and (task := ledger.queue.pop()) is not None
        ):
            # Slots may have been halved since the task was queued.
            task = task._replace(slots=ledger.failures.slots(task.shard.group))
            try:
                meeting = None if task.probe else ledger.barrier.meeting(task.shard)
            except Exception as error:
                ledger.wait_for_storage(error)
                ledger.queue.push(task)
                break
            task = task._replace(meeting=meeting, workers=self.executor.workers())
            self.attempts.begin(task)
            self.executor.submit(task)

    def _end_hung(self, signs: Mapping[Key, Sign]) -> None:
        for attempt, (_, silent_s) in signs.items():
            limit = self.ledger.limits.of(self.ledger.shards[attempt[0]].group)
            if silent_s > limit:
                why = f"no advance has ended for {silent_s:.0f} s (limit {limit:.0f} s)"
                self.executor.end(attempt, why)

    def _take(self, report: Report) -> None:
        """Book one report: the shard is done, waits for others, is tried again, or is given up."""
        ledger, number = self.ledger, report.shard
        task, shard = self.attempts.end(report.key), ledger.shards[number]
        if task is None:  # dropped
            return
        other = self.attempts.other(task)
        if report.fault == "waits":
            ledger.storage.end()
            ledger.hopeless.done(shard.group, shard.n_items)
            ledger.progress.stage = report.info["stage"]
            ledger.barrier.wait(task, report.info["lap"])
        elif report.error is None and not task.probe:
            ledger.storage.end()
            ledger.commit(report)
            self.populations.tidy([number])
            if other:
                self.stragglers.drop(other)
        else:
            self.decisions.note(task, report)
            if not other:
                self.decisions.decide(task, report)
        self.populations.meet(number)
