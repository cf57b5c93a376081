"""Tasks that a driver hands to workers, and the reports that it gets back."""

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
"""The beginning of an attempt.

    fresh     from the start
    resume    from a checkpoint or an arrival, if an earlier attempt left one
    beside    as `resume`, while another attempt at the shard is running; only that one keeps checkpoints
"""

Key = tuple[int, int]
"""Identifies an attempt: (number of its shard, number of the attempt)."""


class Task(NamedTuple):
    """One attempt at a shard."""

    shard: Shard
    attempt: int = 1
    slots: int | None = None
    """Items on a device at a time, if memory allows fewer than planned; None: as planned."""
    without: tuple[int, ...] = ()
    """Rows of the group that are not computed and are marked as failed."""
    probe: bool = False
    """Compute without writing. `shard` is then part of a planned one, to find the items that fail."""
    meeting: Meeting | None = None
    """The meeting of the shard with the others of its population; None: it has no others."""
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
"""A piece of work for a worker."""


class Waiting(NamedTuple):
    """The lap at whose end a shard waits for the others of its population."""

    lap: int
    stage: str
    """The lap, in words for the terminal."""


class Report(NamedTuple):
    """The outcome of one attempt, as the driver gets it; it holds no results."""

    shard: int
    """Number of the shard, or of the group that was reduced."""
    attempt: int
    marker: Marker | None = None
    """Marker of the committed shard, without checksums; None after a probe, a reduction, or if nothing was committed."""
    error: str | None = None
    """Last line of the error; None if nothing went wrong."""
    trace: str = ""
    fault: Fault = "error"
    """Kind of error; meaningless if there is none."""
    about: Mapping[str, Any] = {}
    """For the events: host, devices, cause of the worker's death."""
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
    """Progress of a running shard."""

    finished: int = 0
    """Items that make no further advances."""
    advances: int = 0
    """Advances of the devices, including those before the checkpoint from which it went on."""
    most: int = 0
    """Upper bound of `advances`, reached if every item makes all that it may; 0 if unknown."""
    stage: str = ""
    """Progress of its search, as text; empty without one."""
    tuning: bool = False
    """Whether the microbatch is being measured."""


class Heartbeat(NamedTuple):
    """The last sign of life of a running attempt."""

    progress: ShardProgress | None
    """Progress of its shard; None if it has not reported yet."""
    silent_s: float
    """Seconds since then; always 0 where nobody could end the attempt."""
