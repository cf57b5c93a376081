"""The attempts under way: one at each running shard, or two at one that takes far longer than its peers.

Of two attempts, the one that is committed first counts, and the other is dropped. If one fails, this does not count as a
failure of the shard: the other attempt goes on.
"""

import time

from jobs.run.limits import Patience
from jobs.run.task import Key, Task


class Attempts:
    """The attempts that a driver has handed out and waits for."""

    def __init__(self) -> None:
        self._tasks: dict[Key, Task] = {}
        self._began: dict[Key, float] = {}
        self._both: dict[int, tuple[Task, Task]] = {}
        """Shard -> its first and second attempt, once there were two."""

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, task: Task) -> None:
        """Note an attempt that is handed out."""
        self._tasks[task.key], self._began[task.key] = task, time.monotonic()

    def end(self, attempt: Key) -> Task | None:
        """Return the task of an attempt that has ended; None if it had been dropped."""
        self._began.pop(attempt, None)
        task = self._tasks.pop(attempt, None)
        return task and task._replace(second=False)

    def add_second(self, first: Task, second: Task) -> None:
        """Note the second attempt at a running shard."""
        self.begin(second)
        self._both[first.shard.number] = first, second

    def other(self, task: Task) -> Task | None:
        """Return the other attempt at the task's shard; None if there is none, or it has ended."""
        both = self._both.get(task.shard.number, ())
        return next((t for t in both if t.key != task.key and t.key in self._tasks), None)

    def counts(self, attempt: Key) -> bool:
        """Whether what an attempt has done counts in the progress: of two at a shard, the first does."""
        task = self._tasks.get(attempt)
        return task is not None and not (task.second and self.other(task))

    def shards(self) -> list[int]:
        """Return the numbers of the running shards, rising."""
        return sorted({number for number, _ in self._tasks})

    def slow(self, patience: Patience) -> list[tuple[Task, float]]:
        """Return the attempts that have lasted far longer than their peers, and for how many seconds; longest first.

        Left out: shards that were tried a second time before, probes, and shards that meet others, of which all wait for
        the slowest whatever is done.
        """
        now = time.monotonic()
        found = [
            (task, now - self._began[key])
            for key, task in self._tasks.items()
            if not (task.probe or task.meeting or task.shard.number in self._both)
        ]
        slow = [(t, s) for t, s in found if s > patience.of(t.shard.group)]
        return sorted(slow, key=lambda pair: -pair[1])
