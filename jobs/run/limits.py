"""How long to wait: for an advance before it counts as hung, for a storage that fails."""

import shutil
import time

from jobs.storage import objects

LEAST_LIMIT_S = 60.0
LIMIT_FACTOR = 20.0
"""An advance hangs if it takes this many times the longest that a committed shard of its group had."""

LONGEST_PAUSE_S = 60.0


class TimeLimits:
    """The longest that an advance may take, by group.

    fixed_s: the job's own limit. Without it, none until a shard of the group has been committed: the
    time of a first advance includes its compilation, and nothing tells how long that may be.
    """

    def __init__(self, fixed_s: float | None) -> None:
        self._fixed_s = fixed_s
        self._longest: dict[int, float] = {}

    def note(self, group: int, longest_s: float | None) -> None:
        """A committed shard's longest advance, compilation included."""
        self._longest[group] = max(self._longest.get(group, 0.0), longest_s or 0.0)

    def of(self, group: int) -> float:
        """The limit of a group in seconds."""
        if self._fixed_s is not None:
            return self._fixed_s
        if group not in self._longest:
            return float("inf")
        return max(LEAST_LIMIT_S, LIMIT_FACTOR * self._longest[group])


class Pause:
    """A time in which no shard is handed out, doubled while the trouble lasts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._until = 0.0
        self._wait_s = 0.5

    def begin(self, reason: str) -> None:
        """Trouble; the reports of other shards that were running add nothing."""
        self.reason = reason
        if not self.lasts:
            self._wait_s = min(2 * self._wait_s, LONGEST_PAUSE_S)
            self._until = time.monotonic() + self._wait_s

    def end(self) -> None:
        """No more trouble."""
        self.reason, self._until, self._wait_s = None, 0.0, 0.5

    @property
    def lasts(self) -> bool:
        """Whether to wait still."""
        return time.monotonic() < self._until


def storage_trouble(address: str, error: str) -> str:
    """What failed, where, and how much room is left there."""
    text = f"{address}: the storage fails: {error.splitlines()[0]}"
    path = objects.local_path(address)
    if path is not None:
        try:
            text += f" ({shutil.disk_usage(path).free / 1e6:,.1f} MB free)"
        except OSError as gone:
            text += f" ({gone.strerror})"
    return text
