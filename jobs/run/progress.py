"""Progress of a run, as its listener receives it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.plan.layout import Shard
from jobs.store.failed import FailedItem
from jobs.store.marker import Marker
from jobs.store.store import Store


@dataclass
class Progress:
    """Progress of a run; the listener is called with it several times a second, and at the end."""

    n_items: int
    n_shards: int
    items_done: int = 0
    shards_done: int = 0
    items_before: int = 0
    """Items that were in the store when this run began."""
    outcomes: dict[str, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    """Shards given up -> the last error."""
    failed_items: dict[int, str] = field(default_factory=dict)
    """Items that fail by themselves -> the error. A failure that is an outcome of the kernel does not count here."""
    retried: int = 0
    running_items: int = 0
    """Finished items of the shards that are running."""
    advances: tuple[int, ...] = ()
    """Advances of each running shard."""
    most_advances: int = 0
    """The most advances that one of them may make; 0 if unknown."""
    stage: str = ""
    """Progress of the search in one of them, as text."""
    tuning: bool = False
    """Whether one of them is measuring its microbatch."""
    compiling: bool = False
    """Whether all of them still compile their first advance, and no advance has ended in this run."""
    started: float = field(default_factory=time.monotonic)
    """When the run began (time.monotonic): no correction of the clock changes the duration shown."""
    stopped: str | None = None
    """Why the run was stopped before its end."""
    trouble: str | None = None
    """Why the run waits: the storage fails, or no worker starts."""

    def add(self, shard: Shard, outcomes: Mapping[str, int], sign: int = 1) -> None:
        """Count a committed shard; with `sign` -1, one that is no longer committed."""
        self.shards_done += sign
        self.items_done += sign * shard.n_items
        # A shard that is taken back may have been in the store before the run: done now is never less than done before.
        self.items_before = min(self.items_before, self.items_done)
        for name, n in outcomes.items():
            self.outcomes[name] = self.outcomes.get(name, 0) + sign * n

    def blame(self, items: Iterable[FailedItem]) -> int:
        """Note items that fail by themselves; return how many are new."""
        before = len(self.failed_items)
        self.failed_items |= {item.item: item.error for item in items}
        return len(self.failed_items) - before


Listener = Callable[[Progress], None]


def progress_of(
    store: Store, markers: Sequence[Marker], failed: Mapping[int, Sequence[FailedItem]]
) -> Progress:
    """Return the progress of a store before a run, from its markers and failing items."""
    plan = store.job.plan
    progress = Progress(sum(plan.group_sizes), plan.n_shards)
    for marker in markers:
        progress.add(marker.shard, marker.outcomes)
    for items in failed.values():
        progress.blame(items)
    progress.items_before = progress.items_done
    return progress
