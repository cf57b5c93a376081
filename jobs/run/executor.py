"""Where shards run: what `jobs.run.shards` asks of an executor, and the one that needs no other process."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from jobs.run.worker import Report, Standing, Task, Worker

HEAR_S = 0.5
"""Least time between two calls of a listener."""

IDLE_S = 0.05
"""Where there is nothing to run: retries wait for their time, the storage for better ones."""


class Executor(Protocol):
    """Where shards run. `submit` at most `capacity()` tasks, `wait` for what became of them."""

    name: str

    def workers(self) -> int:
        """How many shards can run at a time."""

    def memory(self) -> int:
        """Bytes that one device may use for its items."""

    def devices(self) -> int:
        """How many devices of a worker share its host's memory; 1 where they have memory of their own."""

    def start(self, address: str) -> None:
        """Get ready for the store at `address`."""

    def capacity(self) -> int:
        """How many more shards it takes now."""

    def submit(self, task: Task) -> None:
        """Take a task; its report comes from `wait`."""

    def wait(self, timeout: float) -> list[Report]:
        """The reports that have come in, waiting for the first at most `timeout` seconds."""

    def progress(self) -> Mapping[int, Standing]:
        """Shard -> how far it has come, of the shards now running."""

    def hear(self, listener: Callable[[], None]) -> None:
        """Call `listener` now and then from within `wait`, where that computes itself and takes long."""

    def silence(self) -> Mapping[int, float]:
        """Shard -> seconds since its last sign of life, of those running shards that `kill` can end."""

    def kill(self, shard: int) -> None:
        """End the worker that runs this shard, whose death `wait` then reports."""

    def interrupt(self) -> None:
        """Ask the workers to leave their shards at a checkpoint; the reports come from `wait`.

        Returns at once, and may be called from a signal handler or another thread.
        """

    def close(self) -> None:
        """Give everything back, at once; what still runs is lost."""


class SerialExecutor:
    """Runs shards one after another in this process: no cluster, no other process."""

    name = "serial"

    def __init__(self, memory_gb: float | None = None) -> None:
        self._memory = int((memory_gb or 0) * 1e9) or available_memory()
        self._waiting: list[Task] = []
        self._worker: Worker | None = None
        self._progress: dict[int, Standing] = {}
        self._listener: Callable[[], None] = lambda: None
        self._heard_at = 0.0

    def workers(self) -> int:
        """One."""
        return 1

    def memory(self) -> int:
        """The memory that is free now, or what was asked for."""
        return self._memory

    def devices(self) -> int:
        """One, as far as memory goes."""
        return 1

    def start(self, address: str) -> None:
        """Open the store."""
        self._worker = Worker(address)

    def capacity(self) -> int:
        """One shard at a time."""
        return 1 - len(self._waiting)

    def submit(self, task: Task) -> None:
        """Keep the task for `wait`."""
        self._waiting.append(task)

    def wait(self, timeout: float) -> list[Report]:
        """Run the shard that is waiting, however long it takes."""
        assert self._worker is not None
        if not self._waiting:
            time.sleep(min(timeout, IDLE_S))
        reports = []
        while self._waiting:
            task = self._waiting.pop(0)
            note = lambda now, number=task.shard.number: self._note(number, now)
            reports.append(self._worker.do(task, note))
            self._progress.pop(task.shard.number, None)
        return reports

    def _note(self, shard: int, now: Standing) -> None:
        self._progress[shard] = now
        if time.monotonic() - self._heard_at > HEAR_S:
            self._listener()
            self._heard_at = time.monotonic()

    def progress(self) -> Mapping[int, Standing]:
        """The shard that is running."""
        return dict(self._progress)

    def hear(self, listener: Callable[[], None]) -> None:
        """Call it after advances."""
        self._listener = listener

    def silence(self) -> Mapping[int, float]:
        """Nothing: a shard that hangs here hangs the process."""
        return {}

    def kill(self, shard: int) -> None:
        """Never called, since `silence` names no shard."""

    def interrupt(self) -> None:
        """Leave the running shard after its present advance."""
        if self._worker is not None:
            self._worker.interrupt()

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None


def available_memory() -> int:
    """Bytes of memory that this host can still give."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
