"""Decide what to do about a shard that was not committed.

    bad input                       given up: another attempt would end the same way
    stop, storage, a lost node      tried again, uncharged
    memory ran out                  tried again, uncharged, with half the slots for its whole group
    exception outside of the items  tried again `run.retries` times, then given up
    exception, death of a worker    tried again `run.retries` times; then parts of the shard are probed
                                    until the items that fail by themselves are found. They are marked
                                    as failed, and the shard is computed without them.

Uncharged attempts do not count against `run.retries`. A lost node is uncharged `FREE_NODE_DEATHS` times. With one
slot left, running out of memory counts as an exception. The store keeps two lessons for the next run:

    run/slots/G.json            items that a device holds at a time in group G
    run/failed/G/...            the failing items of a shard, each with its error and trace
"""

import time
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jobs import keys
from jobs.errors import count
from jobs.plan.layout import Shard
from jobs.run.task import Begin, Fault, Report, Task, rows_of
from jobs.spec.job import RunSettings
from jobs.storage import objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.store.marker import FailedItem
from jobs.store.store import Store

MAX_FOUND = 32
"""A shard in which this many items fail while the search still goes on is given up as a whole."""


LEAST_CONFIRM = 2
"""Deaths of a worker before a row is blamed: the cause may lie in what the worker computed earlier."""


FREE_NODE_DEATHS = 3
"""Lost nodes that a shard is not charged for; later ones count as failures of the shard, which may bring nodes down."""


class GroupBreaker:
    """Finds groups in which nothing can be computed: the kernel or the data is at fault, not an item.

    Without it, every shard of a large sweep would be searched for the same mistake in a kernel.
    """

    # Shards given up, or items that fail, before a group without a single fine item is given up: a few may be bad by chance.
    SHARDS, ITEMS = 3, 64

    def __init__(self) -> None:
        self._fine: set[int] = set()
        self._shards: Counter[int] = Counter()
        self._items: Counter[int] = Counter()

    def done(self, group: int, n_fine: int) -> None:
        """Note that `n_fine` items of a shard did not fail with an error."""
        # One fine item is enough: then the kernel works, and failures are the items' own.
        if n_fine:
            self._fine.add(group)

    def given_up(self, group: int) -> bool:
        """Count a shard that was given up; return whether the rest of its group should be."""
        self._shards[group] += 1
        return group not in self._fine and self._shards[group] >= self.SHARDS

    def blamed(self, group: int, n: int) -> bool:
        """Count `n` more items that fail with an error; return whether the rest of the group should be given up."""
        self._items[group] += n
        return group not in self._fine and self._items[group] >= self.ITEMS


class Verdict(NamedTuple):
    """The decision about a shard: its next attempt, or none."""

    task: Task | None
    """The next attempt; None: give the shard up."""
    wait_s: float = 0.0
    note: str = ""
    """The reason, for the events."""


class Bisection:
    """Binary search for the rows of a shard that fail by themselves; every row found has failed alone.

    A range that fails is cut in two. If the first half passes, the second is taken to fail and is cut without a
    probe, so one failing row among n takes about log2(n) probes. A single row must fail `confirm` times in a
    row: workers also die for other reasons, or only after they have reported.

    rows: the rows in question, rising; a probe's range may hold others between them.
    """

    def __init__(self, rows: Sequence[int], confirm: int) -> None:
        self._confirm = confirm
        self.found: list[int] = []
        self._search = self._probes(rows, is_known=True)
        self.probe: tuple[int, int] | None = next(self._search)
        """(first row, row after the last) of the next probe; None once the search is over."""

    def tell(self, failed: bool) -> bool:
        """Note whether the probe failed; return whether that added a row to `found`."""
        before = len(self.found)
        try:
            self.probe = self._search.send(failed)
        except StopIteration:
            self.probe = None
        return len(self.found) > before

    def _probes(
        self, rows: Sequence[int], is_known: bool
    ) -> Generator[tuple[int, int], bool, bool]:
        """Yield the probes of some rows, and take whether each failed; return whether the rows failed.

        is_known: whether they are known to fail. A single row is probed all the same: it is blamed only after it has failed alone.
        """
        probe = rows[0], rows[-1] + 1
        if len(rows) == 1:
            for _ in range(self._confirm):
                if not (yield probe):
                    return False
            self.found.append(rows[0])
            return True
        if not is_known and not (yield probe):
            return False
        half = len(rows) // 2
        failed = yield from self._probes(rows[:half], is_known=False)
        # The whole failed and its first half passed: the second half must hold the failing row.
        yield from self._probes(rows[half:], is_known=not failed)
        return True


@dataclass
class ShardHistory:
    """The failures of one shard in this run."""

    charged: int = 0
    """Failed attempts that count against `run.retries`."""
    lost_nodes: int = 0
    last_fault: Fault = "error"
    """Fault of the last charged attempt at all of it."""
    search: Bisection | None = None
    """The search for failing items, while it runs."""
    searched: bool = False
    """Whether the rows that are left have been searched."""
    ids: np.ndarray | None = None
    """(n,) the items of the shard; read before a row may be blamed."""
    widest: int = 1
    """The widest microbatch that its group runs with, as last read with `ids`."""


class Failures:
    """Decides, shard by shard, what to do after a failure; see the module's docstring."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settings: RunSettings = store.job.spec.run
        self._histories: defaultdict[int, ShardHistory] = defaultdict(ShardHistory)
        self.slots = {
            keys.number_of(key): int(known["slots"])
            for key in objects.list_keys(store.objects, keys.SLOTS)
            if (known := read_verified(store.objects, key))
        }
        """Group -> items that a device holds at a time, where memory allows fewer than planned."""
        self.failed = store.failed.items()
        """Shard -> its failing items."""
        self.loose = 0
        """Records of failing items written since the last compaction."""

    def task(self, shard: Shard, attempt: int, begin: Begin) -> Task:
        """Return an attempt at a whole shard, with the group's slots and without the rows known to fail."""
        rows = tuple(sorted(entry.row for entry in self.failing(shard)))
        return Task(shard, attempt, self.slots.get(shard.group), rows, begin=begin)

    def failing(self, shard: Shard) -> list[FailedItem]:
        """Return the items known to fail between the start and the stop of a shard."""
        homes = self._store.job.plan.overlapping(shard)
        entries = [entry for k in homes for entry in self.failed.get(k, ())]
        return [entry for entry in entries if shard.start <= entry.row < shard.stop]

    def passed(self, task: Task, shard: Shard) -> Verdict:
        """Return the decision after a probe of `shard` that was computed: its rows are not at fault. Raises as `decide`."""
        self._look_up(shard)
        search = self._histories[shard.number].search
        assert search is not None
        search.tell(failed=False)
        return self._probe(task, shard, search)

    def decide(self, task: Task, report: Report, shard: Shard) -> Verdict:
        """Return the decision about `shard` after an attempt that failed with this report.

        Raises the errors of the storage; then it may be called again.
        """
        # The order of the questions is the order of the table at the top: from faults of others to faults of the items.
        again = task._replace(attempt=task.attempt + 1, begin="resume")
        if report.fault == "input":
            return Verdict(None)
        if report.fault in ("stopped", "storage"):
            return Verdict(again)
        history = self._histories[shard.number]
        rows = rows_of(task._replace(shard=shard)).tolist()
        # Before anything is counted: if the storage fails here, the same report is decided again, and must count once.
        if history.search or (len(rows) == 1 and report.fault != "outside"):
            self._look_up(shard)
        if report.about.get("died") == "node":  # lost as a whole, which no shard can be blamed for
            history.lost_nodes += 1
            if history.lost_nodes <= FREE_NODE_DEATHS:
                return Verdict(again)
        if report.fault == "memory" and (narrower := self._narrowed(again, task.slots)):
            return narrower
        if history.search and report.fault != "outside":
            if history.search.tell(failed=True):
                self._blame(report, shard, history.search.found[-1])
            return self._probe(task, shard, history.search)
        # From here on the attempt is charged. The wait doubles, so that a cause that passes has the time to pass.
        if not history.search:
            history.last_fault = report.fault
        history.charged += 1
        if history.charged <= self._settings.retries:
            return Verdict(again, self._settings.backoff_s * 2 ** (history.charged - 1))
        if report.fault == "outside" or history.searched or not rows:
            return Verdict(None)
        if len(rows) == 1:
            # With `retries: 0` a single death would blame the row.
            if report.fault == "death" and history.charged < LEAST_CONFIRM:
                return Verdict(again)
            self._blame(report, shard, rows[0])
            # Nothing is left to compute; an attempt that goes on clears the checkpoints of those before it.
            return Verdict(self._anew(task, shard, "resume"))
        # A probe that fails outside of the items has retries of its own.
        history.searched, history.charged = True, 0
        confirm = max(LEAST_CONFIRM, self._settings.retries + 1)
        history.search = search = Bisection(rows, confirm)
        return self._probe(task, shard, search)._replace(note="looking for the items that fail")

    def _look_up(self, shard: Shard) -> None:
        """Read from the store what blaming a row or halving the slots needs: if the storage fails, nothing is decided yet."""
        history = self._histories[shard.number]
        if history.ids is None:
            history.ids = self._store.rows(shard.group, "item", shard.start, shard.stop)
        history.widest = self._microbatch(shard.group)

    # --- memory -----------------------------------------------------------------------------------

    def _narrowed(self, again: Task, had: int | None, floor: int = 1) -> Verdict | None:
        """Halve the slots of the task's group, unless that was done since the last attempt was handed out.

        had: the slots of that attempt; None: as planned. Returns the next attempt with the new slots; None if fewer than
        `floor` slots would be left.
        """
        group = again.shard.group
        planned = self._store.job.plan.layouts[group].slots
        now = self.slots.get(group, planned)
        # Many shards of the group run out of memory together: the first report halves, the others only try again.
        if (had or planned) > now:
            note = "the slots of its group have been halved meanwhile"
            return Verdict(again._replace(slots=now), note=note)
        if now // 2 < floor:
            return None
        self.slots[group] = now // 2
        record = checksummed({"slots": now // 2, "planned": planned})
        # If the write fails, this run knows the number; only the next one has to find it again.
        with objects.may_fail():
            objects.write(self._store.objects, keys.slots(group), record)
        note = f"group {group}: {now // 2} slots in place of {now}"
        return Verdict(again._replace(slots=now // 2), note=note)

    def _microbatch(self, group: int) -> int:
        """Return the widest microbatch of the group's shards. The microbatch decides the bits; more slots change none."""
        planned = self._store.job.plan.layouts[group].microbatch
        chosen = [
            int((read_verified(self._store.objects, key) or {}).get("microbatch", 1))
            for key in objects.list_keys(self._store.objects, keys.LAYOUT)
            if key.split("/")[-1].startswith(f"{group}-")
        ]
        return planned or max(chosen, default=1)

    # --- items ------------------------------------------------------------------------------------

    def _probe(self, task: Task, shard: Shard, search: Bisection) -> Verdict:
        """Return the next probe; after the last one, the whole shard without the rows found."""
        history = self._histories[shard.number]
        if search.probe is not None and len(search.found) < MAX_FOUND:
            part = shard._replace(start=search.probe[0], stop=search.probe[1])
            return Verdict(self._anew(task, part, "fresh")._replace(probe=True))
        history.search = None
        whole = self._anew(task, shard, "resume")
        if search.probe is not None:
            return Verdict(
                None, note=f"{MAX_FOUND} of its items fail; the shard is at fault as a whole"
            )
        if search.found:
            # Without these rows the shard has all its retries again.
            history.searched, history.charged = False, 0
            return Verdict(
                whole, note=f"going on without {count(len(whole.without), 'item')} that failed"
            )
        # No part fails alone: the whole may take too much memory, which kills a worker without a message.
        if history.last_fault == "death" and (
            narrower := self._narrowed(whole, whole.slots, history.widest)
        ):
            # The next failure is searched at once.
            history.searched, history.charged = False, self._settings.retries
            return narrower
        return Verdict(None)

    def _anew(self, task: Task, shard: Shard, begin: Begin) -> Task:
        """Return the next attempt after `task`, at all of a shard or a part of it."""
        return self.task(shard, task.attempt + 1, begin)._replace(step=task.step)

    def _blame(self, report: Report, shard: Shard, row: int) -> None:
        """Record that the item in a row fails by itself."""
        ids = self._histories[shard.number].ids
        assert ids is not None
        failed = FailedItem(
            row=row, item=int(ids[row - shard.start]),
            error=str(report.error), trace=report.trace, fault=report.fault,
            attempt=report.attempt, time=time.time(), **report.about,
        )  # fmt: skip
        # A round of a search has rows of several planned shards; the record belongs to the planned one.
        (home,) = self._store.job.plan.overlapping(shard._replace(start=row, stop=row + 1))
        # In memory first, then in the store: this run leaves the item out even if the record cannot be written.
        entries = self.failed.setdefault(home, [])
        entries.append(failed)
        planned = self._store.job.plan.shard(home)
        assert planned is not None
        with objects.may_fail():  # as in `_narrowed`
            self._store.failed.add(planned, entries)
            self.loose += 1
