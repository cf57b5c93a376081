"""The ledger of a run: which shards are committed, waiting, failed or given up, and what follows from each report.

jobs.run.retry decides what to do about a failure; the ledger carries it out and records it.
"""

import heapq
import time

from jobs.errors import count
from jobs.run.limits import Durations, Pause, peers, storage_trouble
from jobs.run.progress import progress_of
from jobs.run.retry import Failures, Verdict
from jobs.run.search import Searches
from jobs.run.task import Report, Task, error_text
from jobs.search.searcher import RoundReport
from jobs.storage import objects
from jobs.store.events import Commit, Events, Failure, Remark
from jobs.store.look import Look
from jobs.store.marker import Cost, Marker

COMPACT_EVERY = 64
"""Compact after this many new records; until then a reader fetches each of them with a request of its own."""


class Queue:
    """Tasks that wait to be handed out, each no earlier than its time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []
        """(time, number of the shard, task): a shard waits once at most, so no two tasks are compared."""

    def push(self, task: Task, wait_s: float = 0.0) -> None:
        """Add a task, which `pop` returns no earlier than `wait_s` seconds from now."""
        at = time.monotonic() + wait_s if wait_s else 0.0
        heapq.heappush(self._heap, (at, task.shard.number, task))

    def pop(self) -> Task | None:
        """Return a task whose time has come, or None."""
        if self._heap and self._heap[0][0] <= time.monotonic():
            return heapq.heappop(self._heap)[-1]
        return None

    def drop(self, group: int) -> list[Task]:
        """Remove the tasks of a group; return them."""
        tasks = [task for _, _, task in self._heap if task.shard.group == group]
        self._heap = [entry for entry in self._heap if entry[-1].shard.group != group]
        heapq.heapify(self._heap)
        return tasks

    def __len__(self) -> int:
        return len(self._heap)


class Ledger:
    """The state of every shard in one run. The driver records each report here, and takes the next task from here.

    look: at the store before the run.
    """

    def __init__(self, look: Look) -> None:
        store, markers = look.store, look.markers
        self.store, self.failures = store, Failures(look)
        self.shards = {shard.number: shard for shard in store.job.plan.shards()}
        """Number -> the shard: the planned ones, and the rounds of this run."""
        self.queue = Queue()
        self.done = set(look.committed)
        """The numbers of the committed shards."""
        self.progress = progress_of(look)
        self._loose = 0
        """Markers and failing items since records were last moved into a segment."""
        self.events, self.storage = Events(store), Pause()
        self.searches = Searches(store, self.failures, self.done, self.progress, self.events)
        self.durations = Durations(store.job.spec.run.time_limit_s)
        for marker in markers:
            self._learn(marker, len(marker.without))

    @property
    def is_open(self) -> bool:
        """True while there is anything to hand out or to decide."""
        return bool(self.queue or self.searches)

    @property
    def has_task(self) -> bool:
        """True if something could be handed out now, or when its time has come."""
        return bool(self.queue or self.searches.has_task)

    def next_task(self) -> Task | None:
        """Return the next task whose time has come, brought up to date; None if there is none, or while the storage fails."""
        if self.storage.lasts:
            return None
        # Those of a search that has ended meanwhile are dropped.
        while (task := self.queue.pop()) and task.step and task.shard.group not in self.searches:
            pass
        if task is None:
            try:
                task = self.searches.next_task()
            except Exception as error:
                self.wait_for_storage(error)
            if task is None:
                return None
            self.shards[task.shard.number] = task.shard
        # Slots may have been halved since the task was queued.
        return task._replace(slots=self.failures.slots.get(task.shard.group))

    # --- one report ------------------------------------------------------------------------------------

    def commit(self, marker: Marker) -> None:
        shard = marker.shard
        # A commit wrote to the storage, so the storage works again.
        self.storage.end()
        self.done.add(shard.number)
        self.progress.add(marker)
        self._learn(marker, len(self.failures.failing(shard)))
        self.searches.committed(shard)
        names = {"attempt", "host", "pid", "seconds", "n_failed"}
        self.events.note(Commit(shard=shard.number, **marker.model_dump(include=names)))
        # Compacting between reports needs no lock: only the driver's thread does it, and other processes may at any time.
        self._loose += 1
        self.compact(COMPACT_EVERY)

    def end_round(self, task: Task, report: RoundReport, cost: Cost) -> None:
        self.storage.end()
        self.failures.note_fine(task.shard.group, len(report.rows))
        self.durations.note(peers(task), cost.seconds, cost.longest_s)
        self.searches.end_round(task, report, cost)

    def fail(self, task: Task, report: Report) -> None:
        """Record a failed attempt: its error and event. Pause if the storage has failed."""
        if report.error is None:
            return
        if report.fault == "storage":
            self.storage.begin(storage_trouble(self.store.address, report.error))
        self.events.note(Failure(
            kind="stopped" if report.fault == "stopped" else "error", shard=report.shard,
            attempt=report.attempt, error=report.error, trace=report.trace, fault=report.fault,
            probe=task.probe, rows=[task.shard.start, task.shard.stop], **report.about,
        ))  # fmt: skip

    def decide(self, task: Task, report: Report) -> None:
        """Decide what follows from a failure or a probe, and record it."""
        shard = self.shards[report.shard]
        if task.step and shard.group not in self.searches:
            return  # its search has ended meanwhile
        try:
            verdict = self.failures.decide(task, report, shard)
            if report.error is None:
                self.storage.end()
        except Exception as error:
            # Deciding reads the store before it counts anything: the attempt is tried again, as if the storage had failed under it.
            self.wait_for_storage(error)
            verdict = Verdict(task._replace(attempt=task.attempt + 1, begin="resume"))
        if verdict.note:
            self.events.note(Remark(shard=report.shard, text=verdict.note))
        self._loose += self.progress.blame(self.failures.failing(shard))
        if verdict.task is None:
            text = verdict.error + f" ({verdict.note})" * bool(verdict.note)
            if task.step:
                self.searches.end(shard.group, text)
            else:
                self.progress.give_up([shard], text)
        else:
            again = report.error is not None and not task.probe and not verdict.task.probe
            self.progress.retried += again and report.fault != "stopped"
            self.queue.push(verdict.task, verdict.wait_s)
        # A stop and the storage say nothing of a group.
        if report.fault not in ("stopped", "storage") and self.failures.is_hopeless(shard.group):
            self.give_up_group(shard.group)
        self.compact(COMPACT_EVERY)
        self.events.flush()

    # --- several shards at once -----------------------------------------------------------------------

    def compact(self, least: int = 1) -> None:
        """Move new records into segments, if there are at least `least` of them."""
        if self._loose >= least:
            with objects.may_fail():  # if it fails, they are compacted with the next ones
                self.store.committed.compact()
                self.store.failed.compact()
                self._loose = 0

    def give_up_group(self, group: int) -> None:
        """Give up the shards of a group that are not running."""
        text = f"not tried: nothing of group {group} could be computed before"
        self.searches.end(group, text)
        given_up = [self.shards[task.shard.number] for task in self.queue.drop(group)]
        self.progress.give_up(given_up, text)
        if given_up:
            n = count(len(given_up), "shard")
            self.events.note(Remark(group=group, text=f"{n} {text}"))

    def wait_for_storage(self, error: Exception) -> None:
        """Pause if the storage has failed; raise any other error."""
        if not objects.is_storage_error(error):
            raise error
        self.storage.begin(storage_trouble(self.store.address, error_text(error)))

    def _learn(self, marker: Marker, n_blamed: int) -> None:
        """Learn from a committed shard how long shards of its group take, and that its items can be computed."""
        group = marker.shard.group
        self.durations.note((group, None), marker.seconds, marker.longest_s)
        self.failures.note_fine(group, marker.n_items - n_blamed)
