"""Workers on nodes of their own, by a clock of the test's."""

import heapq
from dataclasses import replace

from jobs.run.task import Report
from jobs.run.worker import SerialExecutor


class Nodes(SerialExecutor):
    """Workers on nodes of their own that take their time by a clock of the test's, and compute when it is over.

    seconds: what a task takes; (seconds, fault) if it fails.
    """

    name = "nodes"

    def __init__(self, n, seconds, nodes=None):
        super().__init__(1)
        self.now, self.seconds = 0.0, seconds
        self.free, self.nodes = list(range(n)), nodes or range(n)
        self.running, self.dropped = [], []

    def machines(self):
        return replace(super().machines(), workers=len(self.nodes))

    def capacity(self):
        return len(self.free)

    def submit(self, task, place=0):
        worker, took = self.free.pop(place), self.seconds(task)
        took, fault = took if isinstance(took, tuple) else (took, None)
        heapq.heappush(self.running, (self.now + took, worker, task, took, fault))

    def try_elsewhere(self, task):
        (here,) = (r[1] for r in self.running if r[2].shard == task.shard)
        for place, worker in enumerate(self.free):
            if self.nodes[worker] != self.nodes[here]:
                self.submit(task, place)
                return True
        return False

    def end(self, attempt, cause=None):
        assert cause is None
        (gone,) = (r for r in self.running if r[2].key == attempt)
        self.running.remove(gone)
        heapq.heapify(self.running)
        self.free.append(gone[1])
        self.dropped.append(attempt)

    def wait(self, timeout):
        self._ticker.tick(self.heartbeats)
        if not self.running or self.running[0][0] > self.now + timeout:
            self.now += timeout
            return []
        self.now, worker, task, took, fault = heapq.heappop(self.running)
        self.free.append(worker)
        if fault:
            return [Report(*task.key, None, f"{fault} of {task.shard.number}", "trace", fault)]
        report = self._worker.do(task)
        if report.round_end:
            told, cost = report.round_end
            return [report._replace(round_end=(told, replace(cost, seconds=took)))]
        if report.marker is None:
            return [report]
        slower = report.marker.model_copy(update={"seconds": took})
        return [report._replace(marker=slower)]
