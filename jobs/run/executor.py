"""Where shards run: what the driver and gather ask of an executor, and one that needs no other process."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from jobs.run.task import Key, Report, Sign, Standing, Task
from jobs.run.worker import Worker

HEAR_S = 0.5
"""Least seconds between two calls of the listener."""

IDLE_S = 0.05
"""Longest sleep, in seconds, of a `wait` with nothing to run: retries wait for their time, or the storage fails."""


class Gone(Exception):
    """Raised by `wait` where the executor can compute no more: what runs is lost, and what is committed stays."""


class Executor(Protocol):
    """Where shards run: `submit` at most `capacity()` tasks, then `wait` for their reports."""

    name: str

    def workers(self) -> int:
        """Return how many shards can run at a time."""

    def memory(self) -> int:
        """Return the bytes that one device may use for its items."""

    def devices(self) -> int:
        """Return how many devices of a worker share its host's memory; 1 if each has its own."""

    def start(self, address: str) -> None:
        """Get ready for the store at `address`."""

    def capacity(self) -> int:
        """Return how many more shards it takes now."""

    def submit(self, task: Task) -> None:
        """Take a task; `wait` returns its report."""

    def try_elsewhere(self, task: Task) -> bool:
        """Take a second attempt at a running shard if a worker like the one that runs it, but on another node, has
        nothing to do; return whether it was taken."""

    def end(self, attempt: Key, why: str | None = None) -> None:
        """End an attempt, and the worker that runs it.

        why: what `wait` reports as the error of a death; None: nobody needs the attempt, and it is not reported.
        """

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports that have come in; wait for the first at most `timeout` seconds.

        Raises Gone if no further one will come.
        """

    def signs(self) -> Mapping[Key, Sign]:
        """Return attempt -> its last sign of life, of those now running."""

    def hear(self, listener: Callable[[], None]) -> None:
        """Call `listener` now and then from within `wait`, if that computes itself and takes long."""

    def interrupt(self) -> None:
        """Ask the workers to leave their shards at a checkpoint; `wait` returns the reports.

        Returns at once, and may be called from a signal handler or another thread.
        """

    def close(self) -> None:
        """Give everything back at once; what still runs is lost."""


class SerialExecutor:
    """Runs shards one after another in this process.

    memory_gb: memory for the items, in GB; by default what is free now.
    """

    name = "serial"

    def __init__(self, memory_gb: float | None = None) -> None:
        self._memory = int((memory_gb or 0) * 1e9) or available_memory()
        self._waiting: list[Task] = []
        self._worker: Worker | None = None
        self._signs: dict[Key, Sign] = {}
        self._listener: Callable[[], None] = lambda: None
        self._heard_at = 0.0

    def workers(self) -> int:
        """Return 1."""
        return 1

    def memory(self) -> int:
        """Return the bytes that were asked for, or that were free when this executor was made."""
        return self._memory

    def devices(self) -> int:
        """Return 1."""
        return 1

    def start(self, address: str) -> None:
        """Open the store."""
        self._worker = Worker(address)

    def capacity(self) -> int:
        """Return 1 if no shard waits: one runs at a time."""
        return 1 - len(self._waiting)

    def submit(self, task: Task) -> None:
        """Keep the task for `wait`."""
        self._waiting.append(task)

    def try_elsewhere(self, task: Task) -> bool:
        """Return False: there is no other worker."""
        del task
        return False

    def end(self, attempt: Key, why: str | None = None) -> None:
        """Never called: `try_elsewhere` takes no attempt, and none is silent, as one that hangs hangs this process."""

    def wait(self, timeout: float) -> list[Report]:
        """Run the waiting shard, however long it takes."""
        assert self._worker is not None
        if not self._waiting:
            time.sleep(min(timeout, IDLE_S))
        reports = []
        while self._waiting:
            task = self._waiting.pop(0)
            note = lambda now, attempt=task.key: self._note(attempt, now)
            reports.append(self._worker.do(task, note))
            self._signs.pop(task.key, None)
        return reports

    def _note(self, attempt: Key, now: Standing) -> None:
        self._signs[attempt] = Sign(now, 0.0)
        if time.monotonic() - self._heard_at > HEAR_S:
            self._listener()
            self._heard_at = time.monotonic()

    def signs(self) -> Mapping[Key, Sign]:
        """Return how far the running shard has come."""
        return dict(self._signs)

    def hear(self, listener: Callable[[], None]) -> None:
        """Call `listener` after advances, at most every `HEAR_S` seconds."""
        self._listener = listener

    def interrupt(self) -> None:
        """Leave the running shard after its present advance."""
        if self._worker is not None:
            self._worker.interrupt()

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None


def available_memory() -> int:
    """Return the bytes of memory that are free on this host."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
