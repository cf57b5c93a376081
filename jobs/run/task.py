"""What a driver hands to a worker, and what it learns of it."""

from typing import Any, Literal, NamedTuple

from jobs.plan.layout import Shard
from jobs.run.rendezvous import Meeting

Fault = Literal["error", "outside", "input", "memory", "storage", "death", "stopped", "waits"]
"""Why a shard was not committed.

    error      an exception in the computation of its items
    outside    an exception in loading, reading or writing
    input      bad input, which another attempt would not change
    memory     memory ran out
    storage    the storage failed
    death      its worker died
    stopped    a stop was asked for
    waits      nothing is wrong: it waits for the other shards of its population
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
    resume: bool = False
    """There may be a checkpoint or an arrival to go on from."""
    reduces: bool = False
    """Reduce the committed shards of group `shard.group`, and compute nothing."""
    meeting: Meeting | None = None
    """Where the shard meets the others of its population; None: it has no others."""
    second: bool = False
    """Another attempt at the shard is running, which alone keeps checkpoints."""
    workers: int = 1
    """Shards that can run at a time."""

    @property
    def key(self) -> Key:
        """The attempt's name."""
        return self.shard.number, self.attempt


class Report(NamedTuple):
    """What the driver learns of one attempt at a shard; it holds no results."""

    shard: int
    attempt: int
    error: str | None = None
    """None: committed, or a probe or reduction done. Otherwise the last line of what went wrong."""
    trace: str = ""
    fault: Fault = "error"
    """Kind of error; meaningless if there is none."""
    info: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    @property
    def key(self) -> Key:
        """The name of the attempt."""
        return self.shard, self.attempt


class Standing(NamedTuple):
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


class Sign(NamedTuple):
    """The last sign of life of a running attempt."""

    standing: Standing | None
    """How far its shard has come; None if it has not told."""
    silent_s: float
    """Seconds without a sign; 0 where nobody could end the attempt."""
