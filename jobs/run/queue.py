"""Tasks that wait to be handed out."""

import heapq
import time
from collections.abc import Callable

from jobs.plan.layout import Shard
from jobs.run.task import Task


class Queue:
    """Tasks that wait to be handed out, each not before its time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Task]] = []
        self._pushed = 0

    def push(self, task: Task, wait_s: float = 0.0) -> None:
        """Add a task, which `pop` returns no earlier than `wait_s` seconds from now."""
        self._pushed += 1
        at = time.monotonic() + wait_s if wait_s else 0.0
        heapq.heappush(self._heap, (at, task.shard.number, self._pushed, task))

    def pop(self) -> Task | None:
        """Return a task whose time has come; None if there is none."""
        if self._heap and self._heap[0][0] <= time.monotonic():
            return heapq.heappop(self._heap)[-1]
        return None

    def drop(self, which: Callable[[Shard], bool]) -> list[Task]:
        """Remove the tasks of the shards that `which` selects; return them."""
        out = [entry[-1] for entry in self._heap if which(entry[-1].shard)]
        self._heap = [entry for entry in self._heap if not which(entry[-1].shard)]
        heapq.heapify(self._heap)
        return out

    def __len__(self) -> int:
        return len(self._heap)
