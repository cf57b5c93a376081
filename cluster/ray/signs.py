"""Signs of life: ask the actors now and then how far their shards are."""

import time
from collections.abc import Mapping, Sequence

import ray
from ray.exceptions import RayError

from cluster.ray.pool import Slot
from jobs.run.task import Standing

POLL_S = 1.0
"""Least time between two rounds of asking the actors for their progress."""


class Signs:
    """What the actors of `slots` told of their running shards.

    The list belongs to the pool, which adds and removes slots.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._standing: dict[int, Standing] = {}
        self._asked_at = 0.0

    def progress(self) -> Mapping[int, Standing]:
        """Progress of each running shard, a second or two old."""
        now = time.monotonic()
        asking = now - self._asked_at > POLL_S
        if asking:
            self._asked_at = now
        for slot in self._slots:
            if asking and slot.held and slot.asked is None:
                ask = slot.actor.standing.options(concurrency_group="watch")
                slot.asked = ask.remote()
            elif slot.asked is not None and ray.wait([slot.asked], timeout=0)[0]:
                self._note(slot)
        return dict(self._standing)

    def _note(self, slot: Slot) -> None:
        try:
            sign = ray.get(slot.asked)
        except RayError:
            return  # if the actor died, the answer of its shard says so
        finally:
            slot.asked = None
        if slot.held and slot.held[0][1].shard.number == sign.shard:
            self._standing[sign.shard] = sign.standing
            slot.alive_at = max(slot.alive_at, time.monotonic() - sign.silent_s)

    def forget(self, shard: int) -> None:
        """Forget the progress of a shard that has ended."""
        self._standing.pop(shard, None)

    def silence(self) -> Mapping[int, float]:
        """Seconds since the last sign of life of each running shard."""
        now = time.monotonic()
        return {s.held[0][1].shard.number: now - s.alive_at for s in self._slots if s.held}
