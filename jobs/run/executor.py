"""Where shards run: what the driver and gather ask of an executor."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from jobs.plan.layout import Machines
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Key, Report, Task, Work

TICK_S = 0.25
"""Least seconds between two ticks."""

OnTick = Callable[[Mapping[Key, Heartbeat]], None]
"""Is given attempt -> its last heartbeat, of those now running."""


class ExecutorLost(Exception):
    """Raised by `wait` where the executor can compute no more: what runs is lost, and what is committed stays."""


class Executor(Protocol):
    """Where shards run: `submit` at most `capacity()` pieces of work, then `wait` for their reports."""

    name: str

    def machines(self) -> Machines:
        """Return its workers, and the memory and devices of each; a cluster may take seconds to answer."""

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        """Get ready for the store at `address`.

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
        """Give everything back at once; what still runs is lost."""


@runtime_checkable
class ManyWorkers(Protocol):
    """What an executor can do besides if it has workers to spare, each a process that can be killed."""

    def try_elsewhere(self, task: Task) -> bool:
        """Take a second attempt at a running shard if a worker like the one that runs it, but on another node, has
        nothing to do; return whether it was taken."""

    def end(self, attempt: Key, why: str | None = None) -> None:
        """End an attempt, and the worker that runs it.

        why: what `wait` reports as the error of a death; None: nobody needs the attempt, and it is not reported.
        """


class Ticker:
    """Calls a function with the heartbeats of what runs, no more often than every `TICK_S` seconds."""

    def __init__(self, on_tick: OnTick | None) -> None:
        self._on_tick, self._at = on_tick, time.monotonic()

    def tick(self, heartbeats: Callable[[], Mapping[Key, Heartbeat]]) -> None:
        """Call the function if it is time."""
        if self._on_tick is not None and time.monotonic() - self._at >= TICK_S:
            self._on_tick(heartbeats())
            self._at = time.monotonic()
