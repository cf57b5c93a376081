"""Where a run stands: what its listener is given."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.plan.layout import Shard
from jobs.store.failed import FailedItem
from jobs.store.marker import Marker
from jobs.store.store import Store


@dataclass
class Progress:
    """Where a run stands; the listener is called with it several times a second, and at the end."""

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
    """Items that fail by themselves -> the error; failures that are an outcome of the kernel are not here."""
    retried: int = 0
    running_items: int = 0
    """Finished items of the shards that are running."""
    advances: tuple[int, ...] = ()
    """Advances of each running shard."""
    most_advances: int = 0
    """The most that one of them may make; 0: nobody knows."""
    stage: str = ""
    """Where the search in one of them stands."""
    tuning: bool = False
    """Whether one of them is measuring its microbatch."""
    compiling: bool = False
    """Whether all of them are in their first advance, which is compiled first, and none has made one in this run."""
    started: float = field(default_factory=time.monotonic)
    """When the run began, by a clock that nobody sets."""
    stopped: str | None = None
    """Why the run was stopped before its end."""
    trouble: str | None = None
    """What the run waits for: a failing storage, or workers that do not start."""

    def add(self, shard: Shard, outcomes: Mapping[str, int], sign: int = 1) -> None:
        """Count a committed shard; with `sign` -1, one that is no longer committed."""
        self.shards_done += sign
        self.items_done += sign * shard.n_items
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
    """Return where a store stands before a run, from its markers and failing items."""
    plan = store.job.plan
    progress = Progress(sum(plan.group_sizes), plan.n_shards)
    for marker in markers:
        progress.add(marker.shard, marker.outcomes)
    for items in failed.values():
        progress.blame(items)
    progress.items_before = progress.items_done
    return progress
