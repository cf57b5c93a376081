"""The interface of executors: run shards, and reduce groups, for the driver and gather."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from jobs.plan.layout import Machines
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Key, Report, Task, Work

TICK_S = 0.25
"""Least seconds between two ticks."""

OnTick = Callable[[Mapping[Key, Heartbeat]], None]
"""Called with attempt -> its last heartbeat, for the running attempts."""


class ExecutorLost(Exception):
    """Raised by `wait` if the executor can compute no more. Running attempts are lost; committed shards stay."""


class Executor(Protocol):
    """Runs shards: `submit` at most `capacity()` pieces of work, then `wait` for their reports."""

    name: str

    def machines(self) -> Machines:
        """Return the number of workers, and the memory and devices of each; a cluster may take seconds to answer."""

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        """Prepare for the store at `address`.

        stop: once it is asked for, the workers leave their shards at a checkpoint, and `wait` returns the reports.
        on_tick: called from within `wait`, every `TICK_S` seconds or later.
        """

    def capacity(self) -> int:
        """Return how many more pieces of work it takes now."""

    def submit(self, work: Work) -> None:
        """Take a piece of work; `wait` returns its report."""

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports that have come in; wait for the first at most `timeout` seconds.

        Raises ExecutorLost if no further one will come.
        """

    def close(self) -> None:
        """Release all workers at once; running attempts are lost."""


@runtime_checkable
class ManyWorkers(Protocol):
    """An executor with several workers, each a process that can be killed."""

    def try_elsewhere(self, task: Task) -> bool:
        """Begin a second attempt at a running shard, if another node has an idle worker of the same kind; return whether it began."""

    def end(self, attempt: Key, why: str | None = None) -> None:
        """End an attempt, and the worker that runs it.

        why: the error that `wait` reports, as a death of the worker; None: the attempt is superseded and not reported.
        """


class Ticker:
    """Calls a function with the heartbeats of running attempts, at most every `TICK_S` seconds."""

    def __init__(self, on_tick: OnTick | None) -> None:
        self._on_tick, self._at = on_tick, time.monotonic()

    def tick(self, heartbeats: Callable[[], Mapping[Key, Heartbeat]]) -> None:
        """Call the function if `TICK_S` has passed."""
        # `heartbeats` is a function, so that nobody collects them before it is time.
        if self._on_tick is not None and time.monotonic() - self._at >= TICK_S:
            self._on_tick(heartbeats())
            # After the call, so that a slow listener does not make the next tick due at once.
            self._at = time.monotonic()
