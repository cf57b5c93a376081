"""The slots of a pool, and the progress of the shards in them."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

from ray.exceptions import RayError

from cluster.ray.actor import Place
from jobs.run.task import Heartbeat, Key, ShardProgress, Work

POLL_S = 1.0
"""Least time after an actor's heartbeat until it is asked for the next one."""

ASKS = 12
"""Actors that are asked at a time, in each of the four ticks a second; if more are running, each is asked less often."""

Answer = Future[Any]
"""The answer that an actor will give, `ObjectRef.future`."""


@dataclass(eq=False)
class Slot:
    """A place in the pool, and the actor in it. Times are those of time.monotonic."""

    actor: Any
    place: Place | None = None
    """Where the actor is; None until it has opened the store."""
    work: Work | None = None
    """What it runs; None while it opens the store or is idle."""
    answer: Answer = field(default_factory=Future)
    """Its answer to the last thing that it was told to do: to open the store or to run `work`."""
    failed_starts: int = 0
    """Actors in a row that failed to start in this slot."""
    asked: Answer | None = None
    """Pending answer of `heartbeat`, if any."""
    asked_at: float = 0.0
    """When it was asked for that."""
    heard_at: float = 0.0
    """When it last answered, or got its work."""
    alive_at: float = 0.0
    """When its work last gave a sign of life, as far as was known at `heard_at`."""
    progress: ShardProgress | None = None
    """Progress of its work at the last sign of life; None before the first one."""

    def begin(self, work: Work) -> None:
        """Note that the actor gets work."""
        self.work, self.progress = work, None
        self.alive_at = self.heard_at = time.monotonic()

    def silent_s(self, now: float) -> float:
        """Return how long its work has given no sign of life, as far as is known."""
        # An actor whose process is stopped, or in which the kernel holds Python's lock, cannot say that it is silent.
        unanswered = now - self.asked_at if self.asked is not None else 0.0
        return max(self.heard_at - self.alive_at, unanswered)


def heartbeats(slots: Sequence[Slot]) -> Mapping[Key, Heartbeat]:
    """Return the last heartbeat of each running shard, heard seconds ago, or more with many actors; ask for the next ones.

    An actor that was not asked lately is not silent; one that was asked and does not answer is.
    """
    now = time.monotonic()
    running = {slot.work.key: slot for slot in slots if slot.work is not None}
    for slot in running.values():
        if slot.asked is not None and slot.asked.done():
            _note(slot, slot.asked)
    # Ten thousand actors are not asked at once; those first that have not been heard for longest.
    due = [s for s in running.values() if s.asked is None and now - s.heard_at > POLL_S]
    for slot in nsmallest(ASKS, due, key=lambda slot: slot.heard_at):
        ask = slot.actor.heartbeat.options(concurrency_group="watch")
        slot.asked, slot.asked_at = ask.remote().future(), now
    return {key: Heartbeat(slot.progress, slot.silent_s(now)) for key, slot in running.items()}


def _note(slot: Slot, answer: Answer) -> None:
    slot.asked = None
    try:
        shard, beat, kernel_kills = answer.result()
    except RayError:
        return  # if the actor died, the answer of its shard says so
    now = slot.heard_at = time.monotonic()
    if slot.place is not None:
        slot.place = slot.place._replace(kernel_kills=kernel_kills)
    # Of another shard: the answer came after that shard's report, or before the actor began this one.
    if slot.work is not None and slot.work.key[0] == shard:
        slot.progress = beat.progress
        # The actor tells a duration, never a time: the clocks of two machines are not compared.
        slot.alive_at = max(slot.alive_at, now - beat.silent_s)
