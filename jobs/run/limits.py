"""How long an advance may take before it counts as hung, how long a shard before it is tried a second time, and how
long to wait for a failing storage."""

import shutil
import statistics
import time
from collections import deque

from jobs.storage import objects

LEAST_LIMIT_S = 60.0
LIMIT_FACTOR = 20.0
"""An advance hangs if it takes this many times the longest one of a committed shard of its group."""

LEAST_PATIENCE_S = 30.0
"""No shard is tried a second time before this: the other worker may have to load its data and to compile first."""
PEERS = 100
"""How many committed shards of a group tell how long one takes: the last ones."""

LONGEST_PAUSE_S = 60.0


class TimeLimits:
    """The longest that an advance may take, by group.

    fixed_s: the job's own limit. Without it, there is no limit until a shard of the group is committed: a first
    advance includes compilation, and nobody knows how long that may take.
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


class Patience:
    """How long a shard may run before a second attempt is made elsewhere, by group.

    factor: this many times the median of its peers, the committed shards of its group; 0: for ever. A second attempt
    takes about the median, so that one worth `factor` of them ends sooner than a shard that is on a slow node.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seconds: dict[int, deque[float]] = {}

    def note(self, group: int, seconds: float) -> None:
        """Note how long a committed shard took."""
        self._seconds.setdefault(group, deque(maxlen=PEERS)).append(seconds)

    def of(self, group: int) -> float:
        """Return the patience with the shards of a group in seconds."""
        if not self._factor or group not in self._seconds:
            return float("inf")
        return max(LEAST_PATIENCE_S, self._factor * statistics.median(self._seconds[group]))


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
