"""How far a run is: what its listener is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run stands; the listener gets it after every change."""

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
    """Items that fail by themselves, for a reason that is no outcome of the kernel -> the error."""
    retried: int = 0
    running_items: int = 0
    """Items finished inside shards that are not committed yet."""
    advances: tuple[int, ...] = ()
    """How many each of these shards has made."""
    stage: str = ""
    """What a search has come to in one of them."""
    started: float = field(default_factory=time.time)
    stopped: str | None = None
    """Why the run was stopped before its end."""
    trouble: str | None = None
    """What the run waits for: storage that fails, workers that do not start."""


Listener = Callable[[Progress], None]
