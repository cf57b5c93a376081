"""Keep in every slot of a pool an actor that has opened the store, and ask it now and then how far its shard is.

Ray never restarts an actor (`max_restarts=0`): one that dies, or cannot open the store, is replaced here.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayError

from cluster.ray.actor import Place
from cluster.ray.pool import DEATHS, Answer, Pool, Slot
from cluster.versions import versions
from jobs.errors import JobError
from jobs.redact import redact
from jobs.run.task import Heartbeat, Key

log = logging.getLogger("ctd")

MAX_STARTS = 3
"""A slot is given up after this many actors in a row failed before they were ready."""

MOST = 2
"""An actor holds at most this many tasks: one that runs, one that is queued behind it."""

POLL_S = 1.0
"""Least time after an actor's answer until it is asked again."""
ASKS_A_S = 50.0
"""Actors that are asked in a second; if there are more, each is asked less often."""


class Places:
    """The slots with ready actors, by how many tasks they hold, kept up to date slot by slot: nobody looks at all of them."""

    def __init__(self) -> None:
        self._holding: list[dict[int, Slot]] = [{} for _ in range(MOST + 1)]

    def note(self, slot: Slot) -> None:
        """Note that the slot's actor became ready or unready, or that what it holds has changed."""
        for slots in self._holding:
            slots.pop(id(slot), None)
        # Added at the end of its dict, which keeps that order: the first of a dict has waited longest.
        if slot.ready:
            self._holding[len(slot.held)][id(slot)] = slot

    def free(self, depth: int) -> int:
        """Return how many more tasks the actors take, if each may hold `depth`."""
        return sum((depth - k) * len(slots) for k, slots in enumerate(self._holding[:depth]))

    def emptiest(self) -> Slot:
        """Return a slot whose actor holds the fewest tasks; the one that has waited longest among them."""
        return next(slot for slots in self._holding for slot in slots.values())

    def idle(self) -> Iterator[Slot]:
        """Iterate over the slots whose actors hold no task."""
        return iter(self._holding[0].values())


class Crew:
    """The actors of a pool, at work on one store.

    Args:
        pool: where the actors live.
        address: the store.
    """

    def __init__(self, pool: Pool, address: str) -> None:
        self._pool, self._address = pool, address
        self.slots, self.reach, self.places = pool.slots, pool.reach, Places()
        self.answered: SimpleQueue[Slot] = SimpleQueue()
        """Slots whose actors have answered, or died, in the order of their answers."""
        self._warned = False
        """Whether a worker's warning was logged: the others have the same one."""
        self._waits_for = ""
        """What the storage said that actors could not reach, as last logged; "" once one has reached it."""

    def open(self, slot: Slot) -> None:
        """Tell the slot's actor to open the store; does not wait for it."""
        # A heartbeat that another run asked for, or of an actor that is gone, comes to nobody here: it is asked for anew.
        slot.ready, slot.node, slot.asked = False, "", None
        self.places.note(slot)
        slot.opening = self.expect(
            slot, slot.actor.open.remote(self._address, self._pool.n, versions())
        )

    def expect(self, slot: Slot, ref: Any) -> Answer:
        """Return the future of an answer of the slot's actor; once it is there, the slot is in `answered`."""
        answer: Answer = ref.future()
        # A thread of Ray's calls back. It touches nothing but the queue, so that slots belong to the driver's thread alone.
        answer.add_done_callback(lambda _: self.answered.put(slot))
        return answer

    def grow(self) -> None:
        """Add actors on nodes that have joined the cluster."""
        for slot in self._pool.joined():
            self.slots.append(slot)
            self.open(slot)

    def opened(self, slot: Slot) -> None:
        """Handle the answer of an opening actor: mark it ready, let it try again, replace it, or give its slot up.

        Raises:
            JobError: this was the last slot.
        """
        assert slot.opening is not None
        try:
            found = slot.opening.result()
        except RayError as error:
            if not self.reach.look():  # asked again, if the Ray comes back
                self.answered.put(slot)
                return
            if kind_of_death(error) == "node":  # not the actor's fault: does not count
                self.replace(slot)
                return
            found = last_line(error), "other"
        slot.opening = None
        if isinstance(found, Place):
            slot.node, slot.device, slot.kernel_kills, warning = found
            slot.ready, slot.failed_starts = True, 0
            if warning and not self._warned:
                log.warning("warning: %s", warning)
                self._warned = True
            self._waits_for = ""
            self.places.note(slot)
            return
        text, kind = found
        # As with a shard: nobody is charged, however long the storage is away.
        if kind == "storage":
            if text != self._waits_for:
                log.warning("the workers wait for the storage: %s", text)
            self._waits_for = text
            self.open(slot)
            return
        # In vain: a wrong version or a job that cannot be read stays so, however often an actor starts.
        slot.failed_starts = MAX_STARTS if kind == "in vain" else slot.failed_starts + 1
        if slot.failed_starts < MAX_STARTS:
            self.replace(slot)
            return
        self._pool.kill(slot.actor)
        self.slots.remove(slot)
        log.warning("a worker could not start, %d left: %s", len(self.slots), text)
        if not self.slots:
            raise JobError(f"no worker could start on {self._address}: {text}")

    def replace(self, slot: Slot) -> None:
        """Put a new actor in the slot, after killing the old one, which may be dead or out of reach."""
        # The kill first: the resources of the old one are those that the new one waits for. If the old one is out of reach and
        # commits its shard all the same, it writes the bytes that the next attempt writes.
        self._pool.kill(slot.actor)
        slot.actor, slot.held = self._pool.actor(), []
        self.open(slot)

    def note_death(self, node: str, shard: int) -> dict[str, str]:
        """Count the death of an actor on a node; set the node aside after too many.

        A node is set aside only if an actor is ready on some other node. Returns what to add to the
        report: {"set_aside": text}, or nothing.
        """
        nodes = self._pool.nodes
        if not nodes.note_death(node, shard):
            return {}
        if not any(s.ready and s.node not in {node, *nodes.aside} for s in self.slots):
            return {}
        nodes.aside.add(node)
        for slot in self.slots:
            self.move_if_set_aside(slot)
        text = f"node {node}: set aside, workers died there in the midst of {DEATHS} shards"
        log.warning(text)
        return {"set_aside": text}

    def move_if_set_aside(self, slot: Slot) -> None:
        """Replace an actor without a shard whose node is set aside: the new one starts elsewhere."""
        if slot.node in self._pool.nodes.aside and not slot.held:
            self.replace(slot)

    def tell_to_stop(self) -> None:
        """Tell every actor to stop at a checkpoint."""
        for slot in self.slots:
            slot.actor.interrupt.options(concurrency_group="watch").remote()

    def holder(self, attempt: Key) -> Slot | None:
        """Return the slot whose actor runs an attempt, or has it queued; None if there is none."""
        held = lambda slot: any(task.key == attempt for _, task in slot.held)
        return next(filter(held, self.slots), None)


class Heartbeats:
    """The heartbeats of the actors of `slots`, which are asked in turn.

    The list belongs to the pool, which adds and removes slots.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._asked_at = 0.0
        self._next = 0
        """Number of slots that were looked at so far, one after another, to see whether to ask them."""

    def last(self) -> Mapping[Key, Heartbeat]:
        """Return the last heartbeat of each running shard, heard seconds ago, or more with many actors.

        An actor that was not asked lately is not silent; one that was asked and does not answer is.
        """
        for slot in self._slots:
            if slot.asked is not None and slot.asked.done():
                self._note(slot, slot.asked)
        now = time.monotonic()
        # A budget that grows with the time, up to a second's: ten thousand actors are not asked at once after a pause.
        n = int(min(now - self._asked_at, POLL_S) * ASKS_A_S)
        if n:
            self._asked_at = now
            self._ask_some(n)

        def of(slot: Slot) -> Heartbeat:
            # An actor whose process is stopped, or in which the kernel holds Python's lock, cannot say that it is silent.
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
                ask = slot.actor.heartbeat.options(concurrency_group="watch")
                slot.asked, slot.asked_at = ask.remote().future(), now
                most -= 1
            if not most:
                return

    def _note(self, slot: Slot, answer: Answer) -> None:
        slot.asked = None
        try:
            shard, beat, kernel_kills = answer.result()
        except RayError:
            return  # if the actor died, the answer of its shard says so
        now = slot.heard_at = time.monotonic()
        slot.kernel_kills = kernel_kills
        # Of another shard: the answer came after that shard's report, or before the actor began this one.
        if slot.held and slot.held[0][1].key[0] == shard:
            slot.progress = beat.progress
            # The actor tells a duration, never a time: the clocks of two machines are not compared.
            slot.alive_at = max(slot.alive_at, now - beat.silent_s)


def kind_of_death(error: RayError) -> str:
    """Return the reason for which an actor's answer did not come: "oom", "node" (it is lost) or "killed"."""
    if isinstance(error, OutOfMemoryError):  # not a RayActorError
        return "oom"
    # Ray may report a lost node as the death of its actor, and only the text tells. An actor that is unavailable may still
    # run; its slot cannot wait for it.
    lost = isinstance(error, ActorUnavailableError | NodeDiedError) or "node has died" in str(error)
    return "node" if lost else "killed"


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, which names the cause, without credentials."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(lines[-1].strip())[:2000]
