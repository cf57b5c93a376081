"""Where a run stands: what its listener is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run stands; the listener is called with it after every change."""

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
    stage: str = ""
    """Where the search in one of them stands."""
    started: float = field(default_factory=time.time)
    stopped: str | None = None
    """Why the run was stopped before its end."""
    trouble: str | None = None
    """What the run waits for: a failing storage, or workers that do not start."""


Listener = Callable[[Progress], None]
