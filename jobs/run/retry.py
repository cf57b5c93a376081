"""Decide what to do about a shard that was not committed.

    bad input                       given up: another attempt would end the same way
    stop, storage, a lost node      tried again, uncharged
    memory ran out                  tried again, uncharged, with half the slots for its whole group
    exception outside of the items  tried again `run.retries` times, then given up
    exception, death of a worker    tried again `run.retries` times; then parts of the shard are probed
                                    until the items that fail by themselves are found. They are marked
                                    as failed, and the shard is computed without them.

Uncharged attempts do not count against `run.retries`. A lost node is uncharged `FREE_NODE_DEATHS` times. With one
slot left, running out of memory counts as an exception. Once enough of a group has failed, and none of it was fine,
what is left of it is given up. The store keeps two lessons for the next run:

    run/slots/G.json            items that a device holds at a time in group G
    run/failed/G/...            the failing items of a shard, each with its error and trace
"""

import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jobs import keys
from jobs.errors import count
from jobs.plan.layout import Shard
from jobs.run.task import Begin, Report, Step, Task, rows_of
from jobs.spec.run import RunSettings
from jobs.storage import objects
from jobs.store.layouts import FewerSlots, Microbatch
from jobs.store.look import Look
from jobs.store.marker import FailedItem, FailedItems

MAX_FOUND = 32
"""A shard in which this many items fail while the search still goes on is given up as a whole."""

LEAST_CONFIRM = 2
"""Deaths of a worker before a row is blamed: the cause may lie in what the worker computed earlier."""

FREE_NODE_DEATHS = 3
"""Lost nodes that a shard is not charged for; later ones count as failures of the shard, which may bring nodes down."""

HOPELESS_SHARDS, HOPELESS_ITEMS = 3, 64
"""A group without a single good item is hopeless after this many shards given up, or failing items: a few may be bad by chance."""


class Verdict(NamedTuple):
    """The decision about a shard: its next attempt, or none."""

    task: Task | None
    """The next attempt; None: give the shard up."""
    wait_s: float = 0.0
    note: str = ""
    """The reason, for the events."""
    error: str = ""
    """The last error of a shard that is given up."""


class Bisection:
    """Binary search for the rows of a shard that fail by themselves; every row in `failing` has failed alone.

    A range that fails is cut in two. If the first half passes, the second is taken to fail and is cut without a
    probe, so one failing row among n takes about log2(n) probes. A single row must fail `confirm` times in a
    row: workers also die for other reasons, or only after they have reported.

    rows: the rows in question, rising; a probe's range may hold others between them.
    """

    def __init__(self, rows: Sequence[int], confirm: int) -> None:
        self._confirm = confirm
        self.failing: list[int] = []
        self._search = self._probes(rows, is_known=True)
        self.probe: tuple[int, int] | None = next(self._search)
        """(first row, row after the last) of the next probe; None once the search is over."""

    def note_probe(self, failed: bool) -> bool:
        """Note whether the probe failed; return whether that added a row to `failing`."""
        before = len(self.failing)
        try:
            self.probe = self._search.send(failed)
        except StopIteration:
            self.probe = None
        return len(self.failing) > before

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
            self.failing.append(rows[0])
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

    shard: Shard
    charged: int = 0
    """Failed attempts that count against `run.retries`."""
    lost_nodes: int = 0
    died: bool = False
    """True if the last charged attempt at all of it ended with the death of its worker."""
    error: str = ""
    """Last error of an attempt at all of it, or of a probe that failed outside of its items."""
    search: Bisection | None = None
    """The search for failing items, while it runs."""
    ids: np.ndarray | None = None
    """(n,) the items of the shard; read before a row may be blamed."""
    widest: int = 1
    """The widest microbatch that its group runs with, as last read with `ids`."""


class Failures:
    """The failures of this run, and the decisions that follow from them: see the module's docstring."""

    def __init__(self, look: Look) -> None:
        self._store = store = look.store
        self._settings: RunSettings = store.job.spec.run
        self._histories: dict[int, ShardHistory] = {}
        """Shard -> its failures."""
        listed = list(objects.list_keys(store.objects, keys.SLOTS))
        notes = {keys.number_of(key): FewerSlots.read(store.objects, key) for key in listed}
        self.slots = {group: note.slots for group, note in notes.items() if note}
        """Group -> items that a device holds at a time, where memory allows fewer than planned."""
        self.failed = {number: [*items] for number, items in look.failed.items()}
        """Shard -> its failing items."""
        self._fine: set[int] = set()
        """Groups with an item that did not fail with an error."""
        self._given_up, self._blamed = Counter[int](), Counter[int]()
        """Group -> its shards that were given up, its items that were found to fail."""

    def task(self, shard: Shard, attempt: int, begin: Begin, step: Step | None = None) -> Task:
        """Return an attempt at a shard or a part of it, with the group's slots and without the rows known to fail."""
        rows = tuple(sorted(entry.row for entry in self.failing(shard)))
        return Task(shard, attempt, self.slots.get(shard.group), rows, step=step, begin=begin)

    def failing(self, shard: Shard) -> list[FailedItem]:
        """Return the items known to fail between the start and the stop of a shard."""
        homes = self._store.job.plan.overlapping(shard)
        entries = [entry for k in homes for entry in self.failed.get(k, ())]
        return [entry for entry in entries if shard.start <= entry.row < shard.stop]

    def note_fine(self, group: int, n: int) -> None:
        """Note that `n` items of a group did not fail with an error. One is enough: then failures are the items' own."""
        if n:
            self._fine.add(group)

    def is_hopeless(self, group: int) -> bool:
        """Return whether nothing of a group can be computed: the kernel or the data is at fault, not an item.

        Otherwise every shard of a large sweep would be searched for the same mistake in a kernel.
        """
        shards, items = self._given_up[group], self._blamed[group]
        return group not in self._fine and (shards >= HOPELESS_SHARDS or items >= HOPELESS_ITEMS)

    def decide(self, task: Task, report: Report, shard: Shard) -> Verdict:
        """Return the decision about `shard` after an attempt that failed, or a probe that passed.

        Raises the errors of the storage, before it has counted anything.
        """
        # The order of the questions is the order of the table at the top: from faults of others to faults of the items.
        history = self._histories.setdefault(shard.number, ShardHistory(shard))
        search, outside = history.search, report.fault == "outside"
        again = task._replace(attempt=task.attempt + 1, begin="resume")
        if search:
            self._look_up(history)
            if report.error is None:
                search.note_probe(failed=False)
                return self._probe(again, history, search)
        if not task.probe or outside:
            history.error = report.error or ""
        if report.fault == "input":
            return self._give_up(history)
        if report.fault in ("stopped", "storage"):
            return Verdict(again)
        if report.about.get("died") == "node":  # lost as a whole, which no shard can be blamed for
            history.lost_nodes += 1
            if history.lost_nodes <= FREE_NODE_DEATHS:
                return Verdict(again)
        if report.fault == "memory" and (narrower := self._narrowed(again)):
            return narrower
        if search and not outside:
            if search.note_probe(failed=True):
                self._blame(report, history, search.failing[-1])
            return self._probe(again, history, search)
        return self._charge(again, report, history)

    def _charge(self, again: Task, report: Report, history: ShardHistory) -> Verdict:
        """Count an attempt against `run.retries`; once they are used up, look for the items that fail. again: the next attempt."""
        outside = report.fault == "outside"
        rows = rows_of(again._replace(shard=history.shard)).tolist()
        if len(rows) == 1 and not outside:
            self._look_up(history)
        if not history.search:
            history.died = report.fault == "death"
        history.charged += 1
        if history.charged <= self._settings.retries:
            # The wait doubles, so that a cause that passes has the time to pass.
            return Verdict(again, self._settings.backoff_s * 2 ** (history.charged - 1))
        if outside or not rows:
            return self._give_up(history)
        if len(rows) == 1:
            # With `retries: 0` a single death would blame the row.
            if history.died and history.charged < LEAST_CONFIRM:
                return Verdict(again)
            self._blame(report, history, rows[0])
            # Nothing is left to compute; an attempt that goes on clears the checkpoints of those before it.
            return Verdict(self.task(history.shard, again.attempt, "resume", again.step))
        # A probe that fails outside of the items has retries of its own.
        history.charged = 0
        history.search = Bisection(rows, max(LEAST_CONFIRM, self._settings.retries + 1))
        first = self._probe(again, history, history.search)
        return first._replace(note="looking for the items that fail")

    def _give_up(self, history: ShardHistory, note: str = "") -> Verdict:
        self._given_up[history.shard.group] += 1
        return Verdict(None, note=note, error=history.error)

    def _look_up(self, history: ShardHistory) -> None:
        """Read from the store what blaming a row or halving the slots needs: if the storage fails, nothing is decided yet."""
        shard = history.shard
        if history.ids is None:
            history.ids = self._store.rows(shard.group, "item", shard.start, shard.stop)
        # The microbatch decides the bits; more slots change none.
        history.widest = self._store.job.plan.layouts[shard.group].microbatch
        if not history.widest:  # measured, on each kind of device
            layouts = objects.list_keys(self._store.objects, keys.LAYOUT)
            listed = [key for key in layouts if keys.number_of(key) == shard.group]
            notes = [Microbatch.read(self._store.objects, key) for key in listed]
            history.widest = max((note.microbatch for note in notes if note), default=1)

    def _narrowed(self, again: Task, floor: int = 1) -> Verdict | None:
        """Halve the slots of the task's group, unless that was done since the last attempt was handed out.

        again: the next attempt, with the slots of the last one. None if fewer than `floor` slots would be left.
        """
        group = again.shard.group
        planned = self._store.job.plan.layouts[group].slots
        now = self.slots.get(group, planned)
        # Many shards of the group run out of memory together: the first report halves, the others only try again.
        if (again.slots or planned) > now:
            note = "the slots of its group have been halved meanwhile"
            return Verdict(again._replace(slots=now), note=note)
        fewer = now // 2
        if fewer < floor:
            return None
        self.slots[group] = fewer
        # If the write fails, this run knows the number; only the next one has to find it again.
        with objects.may_fail():
            FewerSlots(slots=fewer, planned=planned).write(self._store.objects, keys.slots(group))
        note = f"group {group}: {fewer} slots in place of {now}"
        return Verdict(again._replace(slots=fewer), note=note)

    def _probe(self, again: Task, history: ShardHistory, search: Bisection) -> Verdict:
        """Return the next probe; after the last one, the whole shard without the failing rows. again: has the attempt's number."""
        shard = history.shard
        if search.probe is not None and len(search.failing) < MAX_FOUND:
            part = shard._replace(start=search.probe[0], stop=search.probe[1])
            probe = self.task(part, again.attempt, "fresh", again.step)
            return Verdict(probe._replace(probe=True))
        history.search = None
        if search.probe is not None:
            note = f"{MAX_FOUND} of its items fail; the shard is at fault as a whole"
            return self._give_up(history, note)
        shard_task = self.task(shard, again.attempt, "resume", again.step)
        if search.failing:
            # Without these rows the shard has all its retries again.
            history.charged = 0
            failed = count(len(shard_task.without), "item")
            return Verdict(shard_task, note=f"going on without {failed} that failed")
        # No part fails alone: the whole may take too much memory, which kills a worker without a message.
        if history.died and (narrower := self._narrowed(shard_task, history.widest)):
            history.charged = self._settings.retries  # the next failure is searched at once
            return narrower
        return self._give_up(history)

    def _blame(self, report: Report, history: ShardHistory, row: int) -> None:
        shard = history.shard
        assert history.ids is not None
        failed = FailedItem(
            row=row, item=int(history.ids[row - shard.start]),
            error=str(report.error), trace=report.trace, fault=report.fault,
            attempt=report.attempt, time=time.time(), **report.about,
        )  # fmt: skip
        self._blamed[shard.group] += 1
        # A round of a search has rows of several planned shards; the record belongs to the planned one.
        home = self._store.job.plan.shard_of(shard.group, row)
        planned = self._store.job.plan.shard(home)
        assert planned is not None
        # In memory first, then in the store: this run leaves the item out even if the record cannot be written.
        entries = self.failed.setdefault(home, [])
        entries.append(failed)
        with objects.may_fail():  # as in `_narrowed`
            self._store.failed.add(FailedItems(shard=planned, rows=entries))
