"""Three time limits: when an advance hangs, when a shard gets a second attempt, how long a run waits for a failing storage."""

import shutil
import statistics
import time
from collections import deque

from jobs.storage import addresses

LEAST_LIMIT_S = 60.0
"""Seconds that every advance may take, however short the others were: a busy machine delays short ones by any factor."""
LIMIT_FACTOR = 20.0
"""An advance hangs if it takes this many times the longest one of a committed shard of its group."""

REST_LIMIT_S = 3600.0
"""Seconds that an attempt may load or write without a sign of life. Data may come from far away, and the storage may be busy, so
nobody knows how long this should take: the limit ends only attempts that would wait for ever."""

LEAST_PATIENCE_S = 30.0
"""Seconds before any second attempt: the other worker may have to load data and to compile first."""
PEERS = 100
"""The median duration is taken over at most this many of the last committed shards of a group."""

LONGEST_PAUSE_S = 60.0
"""Longest wait between two attempts at a failing storage, in seconds."""


Peers = tuple[int, int | None]
"""(Group, length of the round; None without a search): shards and rounds that should take equally long."""


class Durations:
    """The durations of shards and rounds, which decide which advance hangs, and which shard gets a second attempt.

    time_limit_s: the job's own limit of an advance. Without it, there is none until a shard of the group is committed: the first
    advance includes compilation, whose duration nobody knows. straggler_factor: 0: no second attempts.
    """

    def __init__(self, time_limit_s: float | None, straggler_factor: float) -> None:
        self._time_limit_s, self._factor = time_limit_s, straggler_factor
        self._longest: dict[int, float] = {}
        """Group -> its longest advance (s): the next worker has to compile as well."""
        self._seconds: dict[Peers, deque[float]] = {}

    def note(self, peers: Peers, seconds: float, longest_s: float | None) -> None:
        """Note a committed shard or a round: its duration, and that of its longest advance, compilation included (s)."""
        self._seconds.setdefault(peers, deque(maxlen=PEERS)).append(seconds)
        if longest_s:  # of a shard in which nothing was computed it says nothing
            self._longest[peers[0]] = max(self._longest.get(peers[0], 0.0), longest_s)

    def limit(self, group: int, advancing: bool = True) -> float:
        """Return the limit of a group (s): of an advance, or of what lies before, between and after its advances."""
        limit = self._time_limit_s
        if limit is None:
            limit = max(LEAST_LIMIT_S, LIMIT_FACTOR * self._longest.get(group, float("inf")))
        return limit if advancing else max(REST_LIMIT_S, limit)

    def patience(self, peers: Peers) -> float:
        """Return how long (s) one of these may run before a second attempt begins: a multiple of the median of its peers.

        A second attempt takes about one median, so it likely ends sooner than a shard that has taken several already.
        """
        if not self._factor or peers not in self._seconds:
            return float("inf")
        # The median: one other slow shard among the peers must not raise it.
        return max(LEAST_PATIENCE_S, self._factor * statistics.median(self._seconds[peers]))


class Pause:
    """A pause in which no shard is handed out; each further pause is twice as long, while the trouble lasts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._until = 0.0
        self._wait_s = 0.5  # doubled before the first pause

    def begin(self, reason: str) -> None:
        """Begin a pause, unless one lasts."""
        self.reason = reason
        # All running shards report the same trouble: only the first report may double the wait.
        if not self.lasts:
            self._wait_s = min(2 * self._wait_s, LONGEST_PAUSE_S)
            self._until = time.monotonic() + self._wait_s

    def end(self) -> None:
        self.reason, self._until, self._wait_s = None, 0.0, 0.5

    @property
    def lasts(self) -> bool:
        # `reason` outlasts it: only a shard that is handed out now can tell whether the storage works, and calls `end`.
        return time.monotonic() < self._until


def storage_trouble(address: str, error: str) -> str:
    """Return a message: what failed, where, and how much room is left there."""
    text = f"{address}: the storage fails: {error.splitlines()[0]}"
    if (path := addresses.local_path(address)) is None:
        return text
    try:
        return f"{text} ({shutil.disk_usage(path).free / 1e6:,.1f} MB free)"
    except OSError as failure:
        return f"{text} ({failure.strerror})"
