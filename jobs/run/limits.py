"""How long an advance may take before it counts as hung, and how long to wait for a failing storage."""

import shutil
import time

from jobs.storage import objects

LEAST_LIMIT_S = 60.0
LIMIT_FACTOR = 20.0
"""An advance hangs if it takes this many times the longest one of a committed shard of its group."""

LONGEST_PAUSE_S = 60.0


class TimeLimits:
    """The longest that an advance may take, by group.

    fixed_s: the job's own limit. Without it, there is no limit until a shard of the group is committed: a first
    advance includes compilation, and nothing tells how long that may take.
    """

    def __init__(self, fixed_s: float | None) -> None:
        self._fixed_s = fixed_s
        self._longest: dict[int, float] = {}

    def note(self, group: int, longest_s: float | None) -> None:
        """Note a committed shard's longest advance in seconds, compilation included."""
        self._longest[group] = max(self._longest.get(group, 0.0), longest_s or 0.0)

    def of(self, group: int) -> float:
        """Return the limit of a group in seconds."""
        if self._fixed_s is not None:
            return self._fixed_s
        if group not in self._longest:
            return float("inf")
        return max(LEAST_LIMIT_S, LIMIT_FACTOR * self._longest[group])


class Pause:
    """A time in which no shard is handed out; it doubles while the trouble lasts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._until = 0.0
        self._wait_s = 0.5

    def begin(self, reason: str) -> None:
        """Begin a pause; one that lasts is not made longer, since other running shards report the same trouble."""
        self.reason = reason
        if not self.lasts:
            self._wait_s = min(2 * self._wait_s, LONGEST_PAUSE_S)
            self._until = time.monotonic() + self._wait_s

    def end(self) -> None:
        """End the pause: the trouble is over."""
        self.reason, self._until, self._wait_s = None, 0.0, 0.5

    @property
    def lasts(self) -> bool:
        """Whether to wait still."""
        return time.monotonic() < self._until


def storage_trouble(address: str, error: str) -> str:
    """Return a message: what failed, where, and how much room is left there."""
    text = f"{address}: the storage fails: {error.splitlines()[0]}"
    path = objects.local_path(address)
    if path is not None:
        try:
            text += f" ({shutil.disk_usage(path).free / 1e6:,.1f} MB free)"
        except OSError as gone:
            text += f" ({gone.strerror})"
    return text
