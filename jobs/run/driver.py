"""One run over a store: hand out shards, record their reports, retry, stop in order, whatever the executor.

A shard has one running attempt, or two if it takes far longer than its peers. The attempt that is committed first counts; the
other one is dropped. If one of them fails, the shard has not failed: the other attempt goes on.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jobs.run.ledger import Ledger
from jobs.run.limits import should_try_elsewhere
from jobs.run.progress import Listener
from jobs.run.stop import Stop
from jobs.run.task import Executor, ExecutorLost, Heartbeat, Key, Report, ShardProgress, Task
from jobs.storage import objects
from jobs.storage.process import this_process
from jobs.store.checkpoint import CheckpointProgress, clear, progress_in_checkpoints
from jobs.store.events import Begin, End, Remark

IDLE_S = 60.0
"""Seconds without a ready worker before the listener is told. Workers that all import JAX at once take 30 s to start."""

STARTING = "starting a worker"
"""The step that a run waits for until a worker reports."""


class Attempts:
    """The attempts that a driver has handed out, and whose reports it awaits."""

    def __init__(self) -> None:
        self._running: dict[Key, Task] = {}
        self._began: dict[Key, float] = {}
        """The time.monotonic at which each of them began."""
        self._seconds: dict[int, int] = {}
        """Shard -> the number of its second attempt, which may have ended."""

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, task: Task) -> None:
        # The driver's monotonic clock: neither a correction of the time nor a worker's clock makes a shard look slow.
        self._running[task.key], self._began[task.key] = task, time.monotonic()
        if task.begin == "beside":
            self._seconds[task.shard.number] = task.attempt

    def end(self, attempt: Key) -> Task | None:
        """Remove an attempt that has ended; return its task, or None if it was dropped before."""
        self._began.pop(attempt, None)
        return self._running.pop(attempt, None)

    def other(self, task: Task) -> Task | None:
        """Return the other running attempt at the task's shard, if there is one."""
        number, attempt = task.key  # the second one is numbered after the first
        return self._running.get((number, attempt - 1)) or self._running.get((number, attempt + 1))

    def last(self, task: Task) -> int:
        """Return the number of the last attempt at the task's shard."""
        return max(task.attempt, self._seconds.get(task.shard.number, 0))

    def counts(self, attempt: Key) -> bool:
        """Return whether the progress counts an attempt: of two at a shard, only the first."""
        task = self._running.get(attempt)
        return task is not None and not (task.begin == "beside" and self.other(task))

    def shards(self) -> list[int]:
        return sorted({number for number, _ in self._running})

    def firsts(self) -> list[tuple[Task, float]]:
        """Return (attempt, its seconds so far), longest first, at shards that have had no second attempt in this run."""
        now = time.monotonic()
        tasks = (task for task in self._running.values() if task.shard.number not in self._seconds)
        return sorted(((t, now - self._began[t.key]) for t in tasks), key=lambda pair: -pair[1])


class Driver:
    """Hands out the shards of one run, and records their reports in the ledger."""

    def __init__(self, ledger: Ledger, executor: Executor, listener: Listener, stop: Stop) -> None:
        self.ledger, self.executor, self.listener, self.stop = ledger, executor, listener, stop
        self.attempts = Attempts()
        self.idle_since = time.monotonic()

    def run(self) -> None:
        """Run until every shard is committed or given up, or the run is stopped.

        Raises ExecutorLost as the executor does.
        """
        ledger, executor, stop = self.ledger, self.executor, self.stop
        with self._log_run():
            ledger.progress.wait_for(STARTING)
            self.listener(ledger.progress)
            # From here on the loop reads `stop.reason`; an exception from a signal would leave shards without checkpoints.
            with stop.deferred():
                if stop.reason is None:
                    executor.start(ledger.store.address, stop, self._tick)
                    self._loop()
                if ledger.is_open or self.attempts:
                    ledger.progress.stopped = stop.reason

    def _loop(self) -> None:
        ledger, stop = self.ledger, self.stop
        while self.attempts or (ledger.is_open and stop.reason is None):
            if stop.reason is None:
                while self.executor.capacity() > 0 and (task := ledger.next_task()) is not None:
                    self.attempts.begin(task)
                    self.executor.submit(task)
            else:
                stop.begin_grace(ledger.store.job.spec.run.grace_s)
                if stop.is_over:
                    break
            try:
                # `wait` returns at the first report. The timeout bounds the delay of a stop; it is short while nothing runs,
                # because then a retry waits for its time.
                reports = self.executor.wait(timeout=0.5 if self.attempts else 0.05)
            except ExecutorLost:
                # A run that is stopping anyway ends as stopped: its Ray may have got the same signal.
                if stop.reason is None:
                    raise
                break
            for report in reports:
                self._take(report)
        in_checkpoints = None
        if stop.reason is not None:
            # The last heartbeats came before the last advances. A worker that died, or ran out of time, has reported more than its
            # checkpoint holds.
            with objects.may_fail():
                in_checkpoints = progress_in_checkpoints(ledger.store, ledger.done)
        self._show({}, in_checkpoints)

    @contextmanager
    def _log_run(self) -> Iterator[None]:
        """Log the beginning and the end of the run as events."""
        events, progress = self.ledger.events, self.ledger.progress
        process = this_process().model_dump(include={"host", "pid"})
        before, failed_before = progress.shards_done, progress.n_failed
        pending = len(self.ledger.queue) + self.ledger.searches.n_open
        name, workers = self.executor.name, self.executor.machines().workers
        events.note(Begin(executor=name, workers=workers, pending=pending, **process))
        events.flush()  # now: a driver that is killed writes nothing later
        executor_error = None
        try:
            yield
        except ExecutorLost as error:
            executor_error = str(error)
            raise
        finally:
            unfinished = progress.unfinished if self.stop.reason is not None else {}
            events.note(End(
                done=progress.shards_done - before, failed=len(progress.failed),
                n_failed=progress.n_failed - failed_before, stopped=self.stop.reason or executor_error,
                lost=self.attempts.shards(), **process, **unfinished,
            ))  # fmt: skip
            events.close()

    # --- called by the executor at each tick -----------------------------------------------------------

    def _tick(self, heartbeats: Mapping[Key, Heartbeat]) -> None:
        """End hung attempts, report progress, and try slow shards a second time on another node."""
        self._end_hung(heartbeats)
        self._show(heartbeats)
        # Workers are to spare only once no shard waits.
        spare = self.stop.reason is None and not self.ledger.has_task
        if spare and self.executor.capacity() > 0:
            self._try_elsewhere()

    def _end_hung(self, heartbeats: Mapping[Key, Heartbeat]) -> None:
        for attempt, (progress, silent_s) in heartbeats.items():
            # An attempt that has not answered yet is taken for one that loads.
            advancing = progress is not None and progress.advancing
            group = self.ledger.shards[attempt[0]].group
            limit = self.ledger.durations.limit(group, advancing)
            if silent_s > limit:
                # The worker may still commit until it is dead: harmless, as its successor writes the same objects again.
                fault = "no advance has ended" if advancing else "loading or writing has not ended"
                self.executor.end(attempt, f"{fault} for {silent_s:.0f} s (limit {limit:.0f} s)")

    def _try_elsewhere(self) -> None:
        """Begin a second attempt, on another node, at each shard that takes far longer than its peers."""
        ledger, factor = self.ledger, self.ledger.store.job.spec.run.straggler_factor
        for task, seconds in self.attempts.firsts():
            slots = ledger.failures.slots.get(task.shard.group)
            peers = ledger.durations.recent(task)
            second = task._replace(attempt=task.attempt + 1, begin="beside")
            is_slow = should_try_elsewhere(task, seconds, peers, factor, slots)
            if is_slow and self.executor.try_elsewhere(second):
                self.attempts.begin(second)
                self._note("second", second, f"the first attempt has run for {seconds:.0f} s")

    def _drop(self, task: Task) -> None:
        """End an attempt at a shard that the other attempt has committed."""
        self.attempts.end(task.key)
        self.executor.end(task.key)
        clear(self.ledger.store, task.shard)  # it may have kept one after the other removed them
        self._note("superseded", task, "dropped: the other attempt was committed first")

    def _note(self, kind: str, task: Task, text: str) -> None:
        number, attempt = task.key
        self.ledger.events.note(Remark(kind=kind, shard=number, attempt=attempt, text=text))
        self.ledger.events.flush()

    def _show(
        self, heartbeats: Mapping[Key, Heartbeat], in_checkpoints: CheckpointProgress | None = None
    ) -> None:
        progress, counts = self.ledger.progress, self.attempts.counts
        running = [now for key, (now, _) in heartbeats.items() if now is not None and counts(key)]
        progress.stopping = self.stop.reason is not None
        progress.update(running, self.ledger.searches.progress, in_checkpoints)
        progress.trouble = self.ledger.storage.reason or self._idle()
        progress.wait_for(self._waiting(running))
        self.listener(progress)

    def _waiting(self, running: Sequence[ShardProgress]) -> str:
        """Return what the run waits for before its first advance; "" afterwards."""
        waiting = [now.waiting for now in running if now.waiting]
        if "tuning" in waiting:
            return "tuning"
        progress = self.ledger.progress
        if progress.moving_since is not None or progress.trouble:
            return ""
        return waiting[0] if waiting else "" if progress.stopping else STARTING

    def _idle(self) -> str | None:
        """Return a message if shards wait and no worker has been ready for `IDLE_S` seconds; None otherwise."""
        if self.attempts or not self.ledger.has_task or self.executor.capacity() > 0:
            self.idle_since = time.monotonic()
        idle_s, name = time.monotonic() - self.idle_since, self.executor.name
        if idle_s < IDLE_S:
            return None
        return f"no worker has been ready for {idle_s:.0f} s ({name}'s own logs may say why)"

    # --- one report --------------------------------------------------------------------------------

    def _take(self, report: Report) -> None:
        """Record one report: the shard is done, its round has ended, it is retried, or it is given up."""
        task = self.attempts.end(report.key)
        if task is None:  # the other attempt was committed first
            return
        other = self.attempts.other(task)
        # The next attempt is numbered after both, also if the second was the first to end.
        latest = task._replace(attempt=self.attempts.last(task))
        if report.lost_round is not None:
            # The other attempt needs the same states: its report will ask for them, or it has read them before they were lost.
            if not other:
                self.ledger.searches.lose_states(latest, report.lost_round)
        elif report.round_end or report.marker:
            if report.round_end:
                self.ledger.end_round(task, *report.round_end)
            elif report.marker:
                self.ledger.commit(report.marker)
            if other:
                self._drop(other)
        else:
            # A failure, or a probe that passed: it has neither an error nor a marker.
            self.ledger.fail(task, report)
            # While the other attempt runs, the shard has not failed.
            if not other:
                self.ledger.decide(latest, report)
