"""Three time limits: when an advance hangs, when a shard gets a second attempt, how long a run waits for a failing storage."""

import shutil
import statistics
import time
from collections import deque
from collections.abc import Collection

from jobs.run.task import Task
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


def peers(task: Task) -> Peers:
    """Return what a task has in common with those that should take as long."""
    return task.shard.group, task.step.round.length if task.step else None


def should_try_elsewhere(
    task: Task, seconds: float, peer_seconds: Collection[float], factor: float, slots: int | None
) -> bool:
    """Decide whether the only attempt at a shard is so slow that a second one should begin on another node.

    A second attempt takes about one median of its peers, so it likely ends sooner than one that has taken several already.

    Args:
        task: the attempt that runs.
        seconds: how long it has run.
        peer_seconds: the durations (s) of its last committed peers.
        factor: how many medians an attempt may take; 0: as many as it likes.
        slots: those that its group has now.
    """
    # A probe writes nothing. With other slots the second attempt might give other bits, and both write the same objects.
    if task.probe or task.slots != slots or not factor or not peer_seconds:
        return False
    # The median: one other slow shard among the peers must not raise it.
    return seconds > max(LEAST_PATIENCE_S, factor * statistics.median(peer_seconds))


class Durations:
    """The durations of shards and rounds of a run, by which an advance hangs or an attempt is slow.

    time_limit_s: the job's own limit of an advance. Without it, there is none until a shard of the group is committed: the first
    advance includes compilation, whose duration nobody knows.
    """

    def __init__(self, time_limit_s: float | None) -> None:
        self._time_limit_s = time_limit_s
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

    def recent(self, task: Task) -> Collection[float]:
        """Return the durations (s) of the last committed peers of a task."""
        return self._seconds.get(peers(task), ())


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
