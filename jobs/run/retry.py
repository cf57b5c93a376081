"""What to do about a shard that was not committed.

    bad input                       given up: another attempt would end the same way
    stop, storage, a lost node      tried again, uncharged
    memory ran out                  tried again, uncharged, with half the slots for its whole group
    exception outside of the items  tried again `run.retries` times, then given up
    exception, death of a worker    tried again `run.retries` times; then parts of the shard are probed
                                    until the items that fail by themselves are found. They are marked
                                    as failed, and the shard is computed without them.

Uncharged attempts do not count against `run.retries`. A lost node is uncharged `FREE_NODE_DEATHS` times; with
one slot left, memory that runs out is treated as an exception. What is learned is kept in the store and holds
for the next run too:

    run/slots/G.json            items that a device holds at a time in group G
    run/failed/G/...            the failing items of a shard, each with its error and trace
"""

import time
from typing import NamedTuple

import numpy as np

from jobs import keys
from jobs.plan.layout import Shard
from jobs.run.bisect import Bisection
from jobs.run.task import Fault, Report, Task
from jobs.spec.job import RunSettings
from jobs.storage import objects
from jobs.storage.checksums import read_sealed, seal
from jobs.store.failed import FailedItem
from jobs.store.store import Store

MAX_FOUND = 32
"""A shard in which this many items fail, and more may, is given up as a whole."""


LEAST_CONFIRM = 2
"""Deaths before a row is blamed: a worker may die of what it computed earlier."""


FREE_NODE_DEATHS = 3
"""Lost nodes that a shard is not charged for; later ones count as its own failures."""


class Hopeless:
    """Finds groups in which nothing can be computed: the kernel or the data is at fault, not an item.

    Without it, every shard of a large sweep would be searched for the same mistake in a kernel.
    """

    SHARDS, ITEMS = 3, 64

    def __init__(self) -> None:
        self._fine: set[int] = set()
        self._shards: dict[int, int] = {}
        self._items: dict[int, int] = {}

    def done(self, group: int, n_fine: int) -> None:
        """Note that `n_fine` items of a shard did not fail with an error."""
        if n_fine:
            self._fine.add(group)

    def given_up(self, group: int) -> bool:
        """Count a shard that was given up; return whether the rest of its group should be."""
        self._shards[group] = self._shards.get(group, 0) + 1
        return group not in self._fine and self._shards[group] >= self.SHARDS

    def blamed(self, group: int, n: int) -> bool:
        """Count `n` more items that fail with an error; return whether the rest of the group should be given up."""
        self._items[group] = self._items.get(group, 0) + n
        return group not in self._fine and self._items[group] >= self.ITEMS


class Verdict(NamedTuple):
    """What to do next about a shard."""

    task: Task | None
    """The next attempt; None: give the shard up."""
    wait_s: float = 0.0
    note: str = ""
    """What was learned, for the events."""


class Failures:
    """Decides, shard by shard, what to do after a failure; see the module's docstring."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settings: RunSettings = store.job.spec.run
        self._charged: dict[int, int] = {}
        self._lost_nodes: dict[int, int] = {}
        self._searches: dict[int, Bisection] = {}
        self._searched: set[int] = set()
        self._last_fault: dict[int, Fault] = {}
        self._ids: dict[int, np.ndarray] = {}
        self._widest: dict[int, int] = {}
        self._slots = {
            keys.number_of(key): int(known["slots"])
            for key in objects.list_keys(store.objects, keys.SLOTS)
            if (known := read_sealed(store.objects, key))
        }
        self.failed = store.failed.items()
        """Shard -> its failing items."""
        self.unfolded = 0
        """Records of failing items since they were last put into segments."""

    def task(self, shard: Shard, attempt: int, resume: bool) -> Task:
        """Return an attempt at a whole shard, with the group's slots and without the rows known to fail."""
        rows = self.failing_rows(shard.number)
        return Task(shard, attempt, self._slots.get(shard.group), rows, resume=resume)

    def failing_rows(self, number: int) -> tuple[int, ...]:
        """Return the rows of a shard that are known to fail, rising."""
        return tuple(sorted(entry.row for entry in self.failed.get(number, ())))

    def slots(self, group: int) -> int | None:
        """Return how many items a device holds at a time in this group; None: as planned."""
        return self._slots.get(group)

    def narrowed(self, group: int) -> int | None:
        """Return the microbatch that memory forced on a group; None if it runs with the chosen one."""
        slots = self._slots.get(group)
        return slots if slots and slots < self._microbatch(group) else None

    def passed(self, task: Task, shard: Shard) -> Verdict:
        """Return what to do after a probe of `shard` was computed: its rows are not at fault. Raises as `decide`."""
        self._look_up(shard)
        search = self._searches[shard.number]
        search.passed()
        return self._probe(task, shard, search)

    def decide(self, task: Task, report: Report, shard: Shard) -> Verdict:
        """Return what to do about `shard` after an attempt that failed with this report.

        Raises what the storage raises; then it may be called again.
        """
        number, again = shard.number, task._replace(attempt=task.attempt + 1, resume=True)
        if report.fault == "input":
            return Verdict(None)
        if report.fault in ("stopped", "storage"):
            return Verdict(again)
        rows = sorted(set(range(shard.start, shard.stop)) - set(task.without))
        if number in self._searches or (len(rows) == 1 and report.fault != "outside"):
            self._look_up(shard)
        if report.info.get("died") == "node":
            self._lost_nodes[number] = self._lost_nodes.get(number, 0) + 1
            if self._lost_nodes[number] <= FREE_NODE_DEATHS:
                return Verdict(again)
        if report.fault == "memory" and (note := self._narrow(task)):
            return Verdict(again._replace(slots=self._slots[shard.group]), note=note)
        if number in self._searches:
            return self._probe_failed(task, report, shard)
        self._last_fault[number] = report.fault
        self._charged[number] = charged = self._charged.get(number, 0) + 1
        if charged <= self._settings.retries:
            return Verdict(again, self._settings.backoff_s * 2 ** (charged - 1))
        if report.fault == "outside" or number in self._searched:
            return Verdict(None)
        if len(rows) == 1:
            if report.fault == "death" and charged < LEAST_CONFIRM:
                return Verdict(again)
            return self._blame(task, report, shard, rows[0])
        if not rows:
            return Verdict(None)
        self._searched.add(number)
        confirm = max(LEAST_CONFIRM, self._settings.retries + 1)
        self._searches[number] = search = Bisection(rows, confirm)
        return self._probe(task, shard, search)._replace(note="looking for the items that fail")

    def _look_up(self, shard: Shard) -> None:
        """Read what blaming a row or halving the slots needs, so that the storage fails before anything is decided."""
        if shard.number not in self._ids:
            ids = self._store.rows(shard.group, "item", shard.start, shard.stop)
            self._ids[shard.number] = ids
        self._widest[shard.group] = self._microbatch(shard.group)

    # --- memory -----------------------------------------------------------------------------------

    def _narrow(self, task: Task, floor: int = 1) -> str:
        """Halve the slots of the task's group, unless that was done since the task was handed out.

        Returns a note for the events; empty if fewer than `floor` slots would be left.
        """
        group = task.shard.group
        planned = self._store.job.plan.layouts[group].slots
        now = self._slots.get(group, planned)
        if (task.slots or planned) > now:
            return "the slots of its group have been halved meanwhile"
        if now // 2 < floor:
            return ""
        self._slots[group] = now // 2
        note = seal({"slots": now // 2, "planned": planned})
        with objects.may_fail():  # this run knows it; the next one would have to find it out again
            objects.write(self._store.objects, keys.slots(group), note)
        return f"group {group}: {now // 2} slots in place of {now}"

    def _microbatch(self, group: int) -> int:
        """Return the widest microbatch that the group's shards run with: more slots than that change no bit."""
        planned = self._store.job.plan.layouts[group].microbatch
        chosen = [
            int((read_sealed(self._store.objects, key) or {}).get("microbatch", 1))
            for key in objects.list_keys(self._store.objects, keys.LAYOUT)
            if key.split("/")[-1].startswith(f"{group}-")
        ]
        return planned or max(chosen, default=1)

    # --- items ------------------------------------------------------------------------------------

    def _probe(self, task: Task, shard: Shard, search: Bisection) -> Verdict:
        """Return the next probe; after the last one, the whole shard without the rows found."""
        attempt = task.attempt + 1
        if search.probe is not None and len(search.found) < MAX_FOUND:
            part = shard._replace(start=search.probe[0], stop=search.probe[1])
            return Verdict(self.task(part, attempt, False)._replace(probe=True))
        del self._searches[shard.number]
        whole = self.task(shard, attempt, True)
        if search.probe is not None:
            return Verdict(
                None, note=f"{MAX_FOUND} of its items fail; the shard is at fault as a whole"
            )
        if search.found:
            self._searched.discard(shard.number)
            self._charged[shard.number] = 0
            return Verdict(whole, note=f"going on without {len(whole.without)} items that fail")
        # No part fails alone: the whole may take too much memory, which kills a worker without a message.
        died = self._last_fault[shard.number] == "death"
        if died and (note := self._narrow(whole, self._widest[shard.group])):
            self._searched.discard(shard.number)
            return Verdict(whole._replace(slots=self._slots[shard.group]), note=note)
        return Verdict(None)

    def _probe_failed(self, task: Task, report: Report, shard: Shard) -> Verdict:
        search = self._searches[shard.number]
        if search.failed():
            self._remember(report, shard, search.found[-1], task.attempt)
        return self._probe(task, shard, search)

    def _blame(self, task: Task, report: Report, shard: Shard, row: int) -> Verdict:
        """Blame the only row of a shard: it has been tried often enough."""
        self._remember(report, shard, row, task.attempt)
        return Verdict(self.task(shard, task.attempt + 1, False))

    def _remember(self, report: Report, shard: Shard, row: int, attempt: int) -> None:
        failed = FailedItem(
            row=row, item=int(self._ids[shard.number][row - shard.start]),
            error=str(report.error), trace=report.trace, fault=report.fault,
            attempt=attempt, time=time.time(), about=report.info,
        )  # fmt: skip
        entries = self.failed.setdefault(shard.number, [])
        entries.append(failed)
        with objects.may_fail():  # as in `_narrow`
            self._store.failed.add(shard, entries)
            self.unfolded += 1
