"""Progress of a run, as its listener receives it."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.errors import count, duration
from jobs.plan.layout import Shard
from jobs.run.task import ShardProgress
from jobs.store.checkpoint import CheckpointProgress
from jobs.store.live import Value
from jobs.store.look import Look
from jobs.store.marker import FailedItem, Marker

ROUNDING = 1e-6
"""Items below which a difference of work is none: a round of a search counts its work in another order once it is past."""
LONGEST_LEFT_S = 365 * 86_400
"""A longer time left is not told: it comes from a rate that says nothing yet."""


@dataclass
class Progress:
    """Progress of a run; the listener is called with it several times a second, and at the end."""

    n_items: int
    n_shards: int
    items_done: int = 0
    shards_done: int = 0
    items_before: int = 0
    """Items that were in the store when this run began."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failing: Counter[str] = field(default_factory=Counter)
    """Failing outcomes of items of the running shards."""
    failed: dict[int, str] = field(default_factory=dict)
    """Shards given up -> the last error."""
    items_given_up: float = 0
    """Items of those shards; of groups that are searched together, on average."""
    n_variants: int = 1
    """Groups that have a row for each item: `Plan.n_variants`."""
    failed_items: dict[int, str] = field(default_factory=dict)
    """Items that fail by themselves -> the error. A failure that is an outcome of the kernel does not count here."""
    n_failed: int = 0
    """Failed items of committed shards, also by an outcome."""
    retried: int = 0
    running_items: int = 0
    """Finished items of the shards that are running."""
    work: float = 0.0
    """Work done in the shards that are not committed, in items: half of an item's advances are half an item."""
    work_before: float = 0.0
    """`items_done` and `work` when the first advance of this run ended; a checkpoint counts."""
    moving_since: float | None = None
    """When that was (time.monotonic)."""
    moved_at: float | None = None
    """When the work changed last (time.monotonic), as it does after each advance."""
    value: Value | None = None
    """The running items' value of the first curve, where the kernel has curves and they were looked at."""
    advances: tuple[int, ...] = ()
    """Advances of each running shard."""
    most_advances: int = 0
    """The most advances that one of them may make; 0 if unknown."""
    stage: str = ""
    """The stage of the search in one of them, as text."""
    best: str = ""
    """The best metric of that search, as text."""
    waiting: str = ""
    """The step that the run waits for, if no advance has ended yet or no worker is ready."""
    waiting_since: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)
    """When the run began (time.monotonic): no correction of the clock changes the duration shown."""
    _before: tuple[int, float] = (0, 0.0)
    """(Items that have ended, work in items) over all shards, as the last run left them."""
    _last_shown: tuple[int, float] = (0, 0.0)
    """The same, as last shown."""
    _best: float | None = None
    """The best value that any item was seen to have."""
    stopping: bool = False
    """True once a stop was asked for."""
    stopped: str | None = None
    """Why the run was stopped before its end."""
    trouble: str | None = None
    """Why the run cannot go on for now: the storage fails, or no worker is ready."""

    def add(self, marker: Marker) -> None:
        """Count a committed shard, which another worker or driver may have finished after it was given up."""
        if self.failed.pop(marker.shard.number, None):
            self.items_given_up -= marker.shard.n_items / self.n_variants
        self.shards_done += 1
        self.items_done += marker.n_items
        self.n_failed += marker.n_failed
        self.outcomes.update(marker.outcomes)

    def give_up(self, shards: Iterable[Shard], text: str) -> None:
        for shard in shards:
            if shard.number not in self.failed:
                self.items_given_up += shard.n_items / self.n_variants
            self.failed[shard.number] = text

    def wait_for(self, step: str) -> None:
        """Note what the run waits for; "" for nothing."""
        if step != self.waiting:
            self.waiting, self.waiting_since = step, time.monotonic()

    def begin(self, work: float = 0.0) -> None:
        """Note that a run begins. work: what the last one left in checkpoints, in items."""
        self.items_before, self.work = self.items_done, work
        self._before = self._last_shown = (0, self.items_done + work)

    def update(
        self,
        running: Sequence[ShardProgress],
        rounds: tuple[int, float] = (0, 0.0),
        in_checkpoints: CheckpointProgress | None = None,
    ) -> None:
        """Note how far the running shards have come. rounds: items that have ended, and work, in past rounds of searches.

        in_checkpoints: what a stopped run leaves in checkpoints.
        """
        if in_checkpoints:
            done = self.items_done
            ended, work = in_checkpoints.ended + rounds[0], in_checkpoints.work + rounds[1]
            self._last_shown = done + ended, done + work
        # A shard reports nothing until it has read its checkpoint, nor after a stop, once it has left one.
        items, work = self._last_shown if self.stopping else self._before
        ended = sum(now.finished for now in running) + rounds[0]
        self.running_items = max(ended, items - self.items_done)
        self.work = max(sum(now.work for now in running) + rounds[1], work - self.items_done)
        current = self.items_done + self.running_items, self.items_done + self.work
        if current[1] != self._last_shown[1]:
            self.moved_at = time.monotonic()
        self._last_shown = current
        has_advanced = any(now.advances and not now.waiting for now in running)
        if self.moving_since is None and (has_advanced or self.items_done > self.items_before):
            self.work_before, self.moving_since = current[1], time.monotonic()
        self.advances = tuple(now.advances for now in running)
        self.most_advances = max((now.most for now in running), default=0)
        self.failing = sum((Counter(now.failed) for now in running), Counter[str]())
        self._look([now.value for now in running if now.value])

    @property
    def unfinished(self) -> dict[str, Any]:
        """The items that had ended and the work of shards without results, when last shown, as their checkpoints hold them."""
        items, work = (max(0, amount - self.items_done) for amount in self._last_shown)
        return {"ended": items, "work": round(float(work), 3)}

    def _look(self, values: Sequence[Value]) -> None:
        """Note how well the items of each running shard do; nothing if none was looked at: ended ones did better later."""
        if not values:
            self.value = None
            return
        now = float(np.median([value.now for value in values]))
        best = [value.best for value in values] + ([] if self._best is None else [self._best])
        self._best = values[0].better(*best)
        self.value = values[0]._replace(now=now, best=self._best)

    @property
    def share(self) -> float:
        """The share of all work that is done, 0 to 1."""
        return min(1.0, (self.items_done + self.work) / self.n_items) if self.n_items else 1.0

    @property
    def rate(self) -> float | None:
        """Items a second from the first advance of this run, which compiled, to the last; None before there is one to go by."""
        moved = self.items_done + self.work - self.work_before
        since = self.moving_since
        if since is None or moved <= ROUNDING:  # all was done in one advance
            moved, since = self.items_done - self.items_before, self.started
        elapsed = (self.moved_at or time.monotonic()) - since
        return moved / elapsed if moved > 0 and elapsed > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds left at this rate; None without a rate, at a stop, once they are over, beyond a year, and if nothing is left."""
        if self.stopping:
            return None
        remaining = self.n_items - self.items_done - self.items_given_up - self.work
        rate = self.rate
        since = time.monotonic() - self.moved_at if self.moved_at else 0.0
        left_s = remaining / rate - since if rate else 0.0
        return left_s if 0 < left_s < LONGEST_LEFT_S else None

    def text(self) -> str:
        return ", ".join(filter(None, self.lines()))

    def lines(self) -> list[str]:
        """Return outcomes, advances, metric, rate and time left in one line, and each trouble in a further one."""
        # Threads that draw and that renew the lease call this while the driver writes: each field is read once.
        outcomes, rate, left_s = Counter(dict(self.outcomes)), self.rate, self.left_s
        stage, best, value = self.stage, self.best, self.value
        advances = self._advances_text(self.advances)
        if ended := self.shards_done >= self.n_shards:
            # The last look came before the last advances: of a whole store it would say too little.
            stage, best, value = "", "", None
        else:
            outcomes += self.failing
        parts = [f"{n:,} {name}" for name, n in outcomes.items() if n]
        # The advances of a round are those of its lap.
        parts += [f"{stage} ({advances})" if stage and advances else stage or advances, best]
        if value and not best:
            median = "median " * (self.n_items > 1)
            # Looks are rare. Shards that run together have advances of their own.
            old = value.advances and len(self.advances) == 1 and value.advances not in self.advances
            at_advance = f" at advance {value.advances}" if old else ""
            parts.append(f"{median}{value.name} {value.now:.4g}{at_advance}")
            parts += [] if math.isnan(value.best) else [f"best {value.best:.4g}"]
        if self.waiting:
            parts.append(f"{self.waiting}, {time.monotonic() - self.waiting_since:.0f} s")
        if ended:
            # The rate leaves compiling out, which is most of a short run.
            took = (self.moved_at or time.monotonic()) - self.started
            parts += [f"in {duration(took)}"] * (self.items_done > self.items_before)
        elif rate and rate >= 1:
            parts.append(f"{rate:,.3g} items/s")
        elif rate and not left_s and self.items_done + self.running_items > self.items_before:
            # An item's results may take longer than its advances: the pace of work is none of items.
            parts.append(f"{duration(1 / rate)} an item")
        if left_s:
            parts.append(f"{duration(round(left_s))} left")
        if self.retried:
            parts.append(f"{self.retried} retried")
        lines = [", ".join(filter(None, parts))]
        if self.failed_items:
            lines.append(f"{count(len(self.failed_items), 'item')} failed with an error")
        if self.trouble:
            lines.append(f"waiting: {self.trouble}")
        if self.failed:
            lines.append(f"{count(len(self.failed), 'shard')} failed")
        return lines

    def _advances_text(self, advances: Sequence[int]) -> str:
        """Return the advances of the running shards as text; items of a single advance are counted already."""
        if not advances or max(advances) <= (self.most_advances <= 1):
            return ""
        if self.running_items and self.items_done + self.running_items >= self.n_items:
            # An item may end long before the most advances.
            return "writing results"
        few, many = min(advances), max(advances)
        total = f"/{self.most_advances}" if self.most_advances >= many else ""
        # Of a round of a search it is not the items' last one.
        last = ", then results" * (few + 1 == self.most_advances and not self.stage)
        return (f"advance {many}" if few == many else f"advances {few}-{many}") + total + last

    def to_json(self) -> dict[str, Any]:
        """Return what the lease tells other processes: items of committed shards, work in others, rate and the line of text."""
        done, work = self.items_done, self.work
        return {"done": done, "work": work, "rate": self.rate, "text": self.text()}

    def blame(self, items: Iterable[FailedItem]) -> int:
        """Note items that fail by themselves; return how many are new."""
        before = len(self.failed_items)
        self.failed_items |= {item.item: item.error for item in items}
        return len(self.failed_items) - before


Listener = Callable[[Progress], None]


def progress_of(look: Look) -> Progress:
    """Return the progress of a store before a run."""
    plan = look.store.job.plan
    progress = Progress(plan.n_items, plan.n_shards, n_variants=plan.n_variants)
    for marker in look.markers:
        progress.add(marker)
    for items in look.failed.values():
        progress.blame(items)
    progress.begin()
    return progress
