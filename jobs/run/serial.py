"""The serial executor: shards run one after another in this process."""

import os
import time
from collections.abc import Mapping

from ctd.late import jax
from jobs.plan.layout import Machines
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Key, OnTick, Report, ShardProgress, Ticker, Work
from jobs.run.worker import Worker

IDLE_S = 0.05
"""Longest sleep (s) of a `wait` with nothing to run, while retries wait for their time or the storage fails."""


class SerialExecutor:
    """Runs shards one after another in this process.

    memory_gb: memory for the items, in GB; by default what is free now.
    """

    name = "serial"

    def __init__(self, memory_gb: float | None = None) -> None:
        self._memory = usable_memory(memory_gb)
        self._waiting: list[Work] = []
        self._worker: Worker | None = None
        self._running: dict[Key, Heartbeat] = {}
        self._ticker = Ticker(None)

    def machines(self) -> Machines:
        """Return one worker, whose CPU devices share the given memory, or else that which was free when this executor was made."""
        devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
        return Machines(1, self._memory // devices, devices)

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        """Open the store."""
        self._worker, self._ticker = Worker(address), Ticker(on_tick)
        if stop is not None:
            # Safe in a signal handler, which may run in the middle of an advance: it only sets an event.
            stop.add_callback(self._worker.interrupt)

    def capacity(self) -> int:
        """Return 1 if no work waits, else 0: one shard runs at a time."""
        return 1 - len(self._waiting)

    def submit(self, work: Work) -> None:
        """Keep the work for `wait`."""
        self._waiting.append(work)

    def wait(self, timeout: float) -> list[Report]:
        """Run the waiting shard, however long it takes."""
        assert self._worker is not None
        self._ticker.tick(self.heartbeats)
        if not self._waiting:
            time.sleep(min(timeout, IDLE_S))
        reports = []
        # Blocks until the shard ends; the kernel's advances call `_note`, which ticks on the way.
        while self._waiting:
            work = self._waiting.pop(0)
            note = lambda now, attempt=work.key: self._note(attempt, now)
            reports.append(self._worker.do(work, note))
            self._running.pop(work.key, None)
        return reports

    def _note(self, attempt: Key, now: ShardProgress) -> None:
        # Never silent: the shard runs in this process, so nobody could end it as hung.
        self._running[attempt] = Heartbeat(now, 0.0)
        self._ticker.tick(self.heartbeats)

    def heartbeats(self) -> Mapping[Key, Heartbeat]:
        """Return how far the running shard has come."""
        return dict(self._running)

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None


def usable_memory(memory_gb: float | None) -> int:
    """Return the given memory in bytes; without one, the memory that is free on this host."""
    return int((memory_gb or 0) * 1e9) or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
