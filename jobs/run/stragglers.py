"""The running attempts: one at each shard, or two at a shard that takes far longer than its peers.

The attempt that is committed first counts; the other one is dropped. If one of them fails, the shard has not failed: the
other attempt goes on.
"""

import time

from jobs.run.executor import ManyWorkers
from jobs.run.ledger import Ledger, peers
from jobs.run.limits import Patience
from jobs.run.task import Key, Task
from jobs.storage import objects
from jobs.store.checkpoint import clear
from jobs.store.events import Event


class Attempts:
    """The attempts that a driver has handed out and not heard of yet."""

    def __init__(self) -> None:
        self._tasks: dict[Key, Task] = {}
        self._began: dict[Key, float] = {}
        self._both: dict[int, tuple[Task, Task]] = {}
        """Shard -> its first and second attempt, once there were two."""

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, task: Task) -> None:
        """Add an attempt that is handed out."""
        self._tasks[task.key], self._began[task.key] = task, time.monotonic()

    def end(self, attempt: Key) -> Task | None:
        """Remove an attempt that has ended, and return its task; None if it was dropped before."""
        self._began.pop(attempt, None)
        return self._tasks.pop(attempt, None)

    def add_second(self, first: Task, second: Task) -> None:
        """Add the second attempt at a running shard."""
        self.begin(second)
        self._both[first.shard.number] = first, second

    def other(self, task: Task) -> Task | None:
        """Return the other attempt at the task's shard; None if there is none, or it has ended."""
        both = self._both.get(task.shard.number, ())
        return next((t for t in both if t.key != task.key and t.key in self._tasks), None)

    def counts(self, attempt: Key) -> bool:
        """Whether the progress counts an attempt: of two attempts at a shard, only the first."""
        task = self._tasks.get(attempt)
        return task is not None and not (task.begin == "beside" and self.other(task))

    def shards(self) -> list[int]:
        """Return the numbers of the running shards, rising."""
        return sorted({number for number, _ in self._tasks})

    def slow(self, patience: Patience) -> list[tuple[Task, float]]:
        """Return (attempt, seconds) of attempts that have lasted far longer than their peers, longest first.

        Left out: shards with a second attempt already, and probes.
        """
        now = time.monotonic()
        found = [
            (task, now - self._began[key])
            for key, task in self._tasks.items()
            if not (task.probe or task.shard.number in self._both)
        ]
        slow = [(t, s) for t, s in found if s > patience.of(peers(t))]
        return sorted(slow, key=lambda pair: -pair[1])


class Stragglers:
    """Tries shards that take far longer than their peers a second time, on nodes with nothing else to do."""

    def __init__(self, ledger: Ledger, executor: ManyWorkers, attempts: Attempts) -> None:
        self._ledger, self._executor, self._attempts = ledger, executor, attempts

    def try_elsewhere(self) -> None:
        """Begin a second attempt at the shards that take far longer than their peers; call it while no shard waits."""
        for task, seconds in self._attempts.slow(self._ledger.patience):
            second = task._replace(attempt=task.attempt + 1, begin="beside")
            # With other slots the second attempt might give other bits than the first, and both write the same objects.
            same = task.slots == self._ledger.failures.slots(task.shard.group)
            if same and self._executor.try_elsewhere(second):
                self._attempts.add_second(task, second)
                self._note("second", second, f"the first attempt has run for {seconds:.0f} s")

    def drop(self, task: Task) -> None:
        """End an attempt at a shard that the other attempt has committed."""
        self._attempts.end(task.key)
        self._executor.end(task.key)
        with objects.may_fail():  # it may have kept a checkpoint after the other one removed them
            clear(self._ledger.store, task.shard)
        self._note("superseded", task, "dropped: the other attempt was committed first")

    def _note(self, kind: str, task: Task, text: str) -> None:
        event = Event(kind=kind, shard=task.shard.number, attempt=task.attempt, text=text)
        self._ledger.events.note(event)
        self._ledger.events.flush()
