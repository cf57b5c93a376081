"""Ask the actors now and then how far their shards are."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from ray.exceptions import RayError

from cluster.ray.pool import Slot
from jobs.run.task import Heartbeat, Key

POLL_S = 1.0
"""Least time after an actor's answer until it is asked again."""
ASKS_A_S = 50.0
"""How many actors are asked in a second: more than these are asked less often."""


class Heartbeats:
    """What the actors of `slots` told of their running shards.

    The list belongs to the pool, which adds and removes slots.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._answered: SimpleQueue[Slot] = SimpleQueue()
        self._asked_at = 0.0
        self._next = 0
        """How many slots were looked at, one after another, to see whether to ask them."""

    def last(self) -> Mapping[Key, Heartbeat]:
        """The last heartbeat of each running shard, heard seconds ago, or more with many actors.

        An actor that was not asked lately is not silent; one that was asked and does not answer is.
        """
        with suppress(Empty):
            while True:
                self._note(self._answered.get_nowait())
        now = time.monotonic()
        n = int(min(now - self._asked_at, POLL_S) * ASKS_A_S)
        if n:
            self._asked_at = now
            self._ask_some(n)

        def of(slot: Slot) -> Heartbeat:
            unanswered = now - slot.asked_at if slot.asked is not None else 0.0
            return Heartbeat(slot.progress, max(slot.heard_at - slot.alive_at, unanswered))

        return {slot.held[0][1].key: of(slot) for slot in self._slots if slot.held}

    def _ask_some(self, most: int) -> None:
        """Ask at most so many of the actors that have not answered for `POLL_S` seconds."""
        now = time.monotonic()
        for _ in range(len(self._slots)):
            slot = self._slots[self._next % len(self._slots)]
            self._next += 1
            if slot.held and slot.asked is None and now - slot.heard_at > POLL_S:
                self._ask(slot)
                most -= 1
            if not most:
                return

    def _ask(self, slot: Slot) -> None:
        ask = slot.actor.heartbeat.options(concurrency_group="watch")
        slot.asked, slot.asked_at = ask.remote().future(), time.monotonic()
        slot.asked.add_done_callback(lambda _: self._answered.put(slot))

    def _note(self, slot: Slot) -> None:
        if slot.asked is None or not slot.asked.done():  # the answer was of an actor that is gone
            return
        answer, slot.asked = slot.asked, None
        try:
            shard, beat, kernel_kills = answer.result()
        except RayError:
            return  # if the actor died, the answer of its shard says so
        now = slot.heard_at = time.monotonic()
        slot.kernel_kills = kernel_kills
        if slot.held and slot.held[0][1].key[0] == shard:
            slot.progress = beat.progress
            slot.alive_at = max(slot.alive_at, now - beat.silent_s)
