"""Workers, kernels and nodes that fail, stop or lose their storage when a test wants them to."""

import errno
import heapq
from dataclasses import replace
from functools import partial

from stores import JOB

from jobs.run.prepare import open_or_create
from jobs.run.task import Report, rows_of
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.store.events import read_events

RUN = {**JOB["run"], "retries": 1, "backoff_s": 0.0}
"""Settings of a run that tries each shard twice."""


class Overheard(SerialExecutor):
    """Calls `heard(task, note, progress)` in the place of the `note(progress)` of a task's worker."""

    def wait(self, timeout):
        do = self._worker.do
        self._worker.do = lambda task, note: do(task, partial(self.heard, task, note))
        try:
            return super().wait(timeout)
        finally:
            self._worker.do = do


class Interrupted(Overheard):
    """Asks for a stop after so many advances."""

    def __init__(self, stop, after):
        super().__init__(1)
        self.stop, self.after = stop, after

    def heard(self, task, note, progress):
        has_advanced = progress.advances > 0 and not progress.waiting
        self.after -= has_advanced
        if self.after == 0 and has_advanced:
            self.stop.ask("test")
        note(progress)


class Failing(SerialExecutor):
    """Reports a fault, without computing, for every task that `fault` finds one for."""

    def __init__(self, fault):
        super().__init__(1)
        self.fault, self.seen = fault, []

    def wait(self, timeout):
        reports = []
        for task in list(self._waiting):
            self.seen.append(task)
            if found := self.fault(task):
                self._waiting.remove(task)
                text = f"{found} of {task.shard.number}"
                about = {"died": "killed"} if found == "death" else {}
                report = Report(*task.key, None, text, "trace", found, about)
                reports.append(report)
        # With a report it waits for nothing more: a search for failing items has hundreds of them.
        return reports + super().wait(0 if reports else timeout)


def holds(task, rows):
    """Whether a task computes one of these rows of its group."""
    return bool(rows & {*rows_of(task).tolist()})


def in_lap(lap, row):
    """Fails the tasks that compute this row in this lap or a later one."""
    rounds = []

    def fault(task):
        if not holds(task, {row}) or task.step.search_results is not None:
            return None
        if task.step.number not in rounds:
            rounds.append(task.step.number)
        return "error" if rounds.index(task.step.number) >= lap else None

    return fault


class Meddling(SerialExecutor):
    """Does something to the store when the nth report has come; again with the next one, if that returned a function."""

    def __init__(self, nth, what):
        super().__init__(1)
        self.left, self.what = nth, what

    def wait(self, timeout):
        reports = super().wait(timeout)
        self.left -= len(reports)
        if self.what and self.left <= 0:
            self.what = self.what()
        return reports


class Flaky:
    """A function whose every other call finds a storage that fails, if `concerns` its arguments."""

    def __init__(self, really, concerns=lambda *args: True):
        self.really, self.concerns, self.n = really, concerns, 0

    def __call__(self, *args):
        if self.concerns(*args):
            self.n += 1
            if self.n % 2:
                raise OSError(errno.EIO, "the storage fails")
        return self.really(*args)


def make_faulty(folder, executor, name, sweep, *, kernel="faulty_kernel", params=None, **run):
    """A planned store for a job whose shards have one item each, unless `run` says otherwise."""
    run = {"microbatch": 1, "shard_items": 1, "backoff_s": 0, **run}
    content = {
        "kernel": kernel,
        "params": params or {"tag": f"{name}-{executor.name}"},
        "sweep": {"grid": sweep},
        "run": run,
    }
    address = str(folder / f"{name}-{executor.name}.zarr")
    return open_or_create(parse_job(content, name), str(folder), name, address, executor)


def attempts(store):
    return {marker.shard.number: marker.attempt for marker in store.committed.markers()}


def errors(store):
    return [event for event in read_events(store) if event.kind == "error"]


# --- workers on nodes of their own --------------------------------------------------------------


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
