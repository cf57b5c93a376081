"""What a driver hands to a worker, and what it learns of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from jobs.plan.layout import Shard
from jobs.run.rendezvous import Meeting
from jobs.store.marker import Marker

Fault = Literal["error", "outside", "input", "memory", "storage", "death", "stopped"]
"""Why a shard was not committed.

    error      an exception in the computation of its items
    outside    an exception in loading, reading or writing
    input      bad input, which another attempt would not change
    memory     memory ran out
    storage    the storage failed
    death      its worker died
    stopped    a stop was asked for
"""

Begin = Literal["fresh", "resume", "beside"]
"""How an attempt begins.

    fresh     from the start
    resume    from a checkpoint or an arrival, if an earlier attempt left one
    beside    as `resume`, while another attempt at the shard is running, which alone keeps checkpoints
"""

Key = tuple[int, int]
"""Names an attempt: (number of its shard, number of the attempt)."""


class Task(NamedTuple):
    """One attempt at a shard."""

    shard: Shard
    attempt: int = 1
    slots: int | None = None
    """Items that a device holds, if fewer than planned because memory ran out; None: as planned."""
    without: tuple[int, ...] = ()
    """Rows of the group that are not computed and are marked as failed."""
    probe: bool = False
    """Compute without writing: `shard` is part of a planned one, to find the items that fail."""
    meeting: Meeting | None = None
    """Where the shard meets the others of its population; None: it has no others."""
    begin: Begin = "fresh"

    @property
    def key(self) -> Key:
        """The attempt's name."""
        return self.shard.number, self.attempt


class Reduction(NamedTuple):
    """One attempt to reduce the committed shards of a group; nothing is computed."""

    group: int
    attempt: int = 1

    @property
    def key(self) -> Key:
        """The attempt's name; no shard runs while groups are reduced."""
        return self.group, self.attempt


Work = Task | Reduction
"""What an executor hands to a worker."""


class Waiting(NamedTuple):
    """Where a shard waits for the others of its population."""

    lap: int
    stage: str
    """The same, for people."""


class Report(NamedTuple):
    """What the driver learns of one attempt; it holds no results."""

    shard: int
    """Number of the shard, or of the group that was reduced."""
    attempt: int
    marker: Marker | None = None
    """Of a shard that was committed, without checksums; None of a probe, a reduction, and a shard that was not committed."""
    error: str | None = None
    """The last line of what went wrong; None: nothing did."""
    trace: str = ""
    fault: Fault = "error"
    """Kind of error; meaningless if there is none."""
    about: Mapping[str, Any] = {}
    """Where and how an attempt failed, for the events: host, devices, what its worker died of."""
    waiting: Waiting | None = None
    """Set if nothing went wrong and the shard waits for others."""

    @property
    def key(self) -> Key:
        """The name of the attempt."""
        return self.shard, self.attempt

    @property
    def node_was_lost(self) -> bool:
        """Whether the attempt ended because its whole node was lost, which no shard can be blamed for."""
        return self.about.get("died") == "node"


class ShardProgress(NamedTuple):
    """How far a running shard has come."""

    finished: int = 0
    """Items that make no further advances."""
    advances: int = 0
    """Advances of the devices, those before a checkpoint that it went on from included."""
    most: int = 0
    """As many at most, if all of its items need every one that they may make; 0: nobody knows."""
    stage: str = ""
    """Where its search stands; empty without one."""
    tuning: bool = False
    """Whether the microbatch is being measured."""


class Heartbeat(NamedTuple):
    """The last sign of life of a running attempt."""

    progress: ShardProgress | None
    """How far its shard has come; None if it has not told."""
    silent_s: float
    """Seconds without a sign; 0 where nobody could end the attempt."""
