"""The actors of a pool at work on one store: each opens it, runs one shard at a time, and is replaced if it dies.

Ray never restarts an actor (`max_restarts=0`). If an actor dies, its shard loses one attempt. The cause is known once the
next actor in the slot tells whether Linux killed a process for memory. Actors answer by futures, which put their slot in a
queue, so the crew need not ask every actor for its answer.
"""

import logging
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from cluster.ray.actor import Kind, Place
from cluster.ray.pool import Answer, Pool, Slot
from cluster.versions import versions
from jobs.errors import JobError
from jobs.redact import redact
from jobs.run.task import MOST_TRACE, Fault, Key, Report, Task, Work

log = logging.getLogger("ctd")

MAX_STARTS = 3
"""A slot is given up after this many actors in a row failed before they were ready."""

DEATHS = 3
"""A node is set aside once workers died on it during this many different shards. One shard that kills its
workers wherever it runs is no evidence against a node."""

EXPLAIN_S = 60.0
"""Longest wait (s) of the report of a death for the next actor."""


class Death(NamedTuple):
    """The death of an actor as it ran a shard."""

    slot: Slot
    """Its slot, to which the next actor comes."""
    place: Place
    """Its place."""
    report: Report
    at: float
    """The time.monotonic at which it was noticed."""


class Crew:
    """The actors of a pool, at work on the store at an address. They are told to open it, and not waited for."""

    def __init__(self, pool: Pool, address: str) -> None:
        self._pool, self._address = pool, address
        self.idle: dict[Slot, None] = {}
        """Slots whose actors are ready and run nothing, in order: the first one has waited longest."""
        self._answers: SimpleQueue[tuple[Slot, Answer]] = SimpleQueue()
        """The answers of actors, errors of those that died, in the order in which they came."""
        self._reports: list[Report] = []
        """Reports of actors that `end` has replaced, for the next `wait`."""
        self._unexplained: list[Death] = []
        """Deaths whose reports wait until their cause is known; until then the driver takes the shard for running."""
        self._warned: set[str] = set()
        """The kinds of warnings given so far: all workers have much the same to say."""
        self._lost_nodes: set[str] = set()
        """Nodes lost since the last `wait`: Ray takes them for alive, but the next attempts there would fail, too."""
        self._stopping = self._told = False
        """A stop was asked for; the actors have been told."""
        for slot in pool.slots:
            self._open(slot)

    def stop(self) -> None:
        """Make the next `wait` tell all actors to stop at a checkpoint; callable from a signal handler or another thread."""
        # No call of Ray here: a signal may have interrupted one that holds a lock, for which a second call would wait for ever.
        self._stopping = True

    def submit(self, work: Work) -> None:
        """Give the work to the actor that has been idle longest."""
        self._give(next(iter(self.idle)), work)

    def try_elsewhere(self, task: Task) -> bool:
        """Give a second attempt at a running shard to an idle actor; return whether there was one.

        It is on another node than the first attempt, which may be slow as a whole, and has devices of the same kind:
        others might compute other bits.
        """
        first = _slot_of((task.shard.number, task.attempt - 1), self._pool.slots)
        first_place = first.place if first else None
        for slot in self.idle:
            place = slot.place
            if (
                place
                and first_place
                and place.node != first_place.node
                and place.device == first_place.device
            ):
                self._give(slot, task)
                return True
        return False

    def end(self, attempt: Key, cause: str | None) -> None:
        """Replace the actor that runs an attempt, if there is one.

        cause: the error of the death that `wait` reports; None: the other attempt was committed, and `wait` reports nothing.
        """
        slot = _slot_of(attempt, self._pool.slots)
        if slot is None:
            return
        if cause is None:
            self._replace(slot)
        elif not slot.answer.done():  # else `wait` returns its report
            self._reports.append(_charged(self._pool, self._note_death(slot, "killed", cause)))

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports of shards that ended, after at most about `timeout` seconds. JobError if no actor could start."""
        if not self._stopping:
            for slot in self._pool.joined():
                self._open(slot)
        elif not self._told:
            self._told = True
            for slot in self._pool.slots:
                slot.actor.interrupt.options(concurrency_group="watch").remote()
        reports, self._reports = self._reports, []
        arrived = []
        with suppress(Empty):
            arrived.append(self._answers.get(timeout=0 if reports else timeout))
        # All that are there now: one that is put back, because its Ray does not answer, comes again at the next call.
        arrived += [self._answers.get() for _ in range(self._answers.qsize())]
        for slot, answer in arrived:
            if answer is slot.answer:  # else it is of an actor that was replaced
                reports += self._take(slot, answer)
        reports += self._explained()
        unusable = self._lost_nodes.union(self._pool.aside)
        for slot in [s for s in self.idle if s.place and s.place.node in unusable]:
            self._replace(slot)  # the new one starts on another node
        self._lost_nodes.clear()  # one that is back is used again
        return reports

    def _open(self, slot: Slot) -> None:
        """Tell the slot's actor to open the store."""
        # The answer to a heartbeat of another run, or of an actor that is gone, is dropped: the next tick asks anew.
        slot.place = slot.work = slot.pending = None
        self.idle.pop(slot, None)
        self._expect(slot, slot.actor.open.remote(self._address, self._pool.n, versions()))

    def _give(self, slot: Slot, work: Work) -> None:
        del self.idle[slot]
        slot.begin(work)
        self._expect(slot, slot.actor.do.remote(work))

    def _expect(self, slot: Slot, ref: Any) -> None:
        slot.answer = ref.future()
        # A thread of Ray's calls back. It touches nothing but the queue, so that slots belong to the driver's thread alone.
        slot.answer.add_done_callback(lambda answer: self._answers.put((slot, answer)))

    def _take(self, slot: Slot, answer: Answer) -> list[Report]:
        """Handle the answer of an actor; return the report in it, or that of the actor's death, if there is one."""
        work = slot.work
        try:
            content = answer.result()
        except RayError as error:
            if work is None or not isinstance(error, RayTaskError):
                return self._handle_loss(slot, answer, error)
            # The actor is alive, but its answer could not be sent.
            content = Report(*work.key, error=last_line(error))
        if work is None and not isinstance(content, Place):
            self._not_opened(slot, *content)
            return []
        slot.work = None
        self.idle[slot] = None
        if work is not None:
            return [content]
        slot.place, slot.failed_starts = content, 0
        if content.warning and "place" not in self._warned:
            self._warned.add("place")
            log.warning("warning: %s", content.warning)
        return []

    def _not_opened(self, slot: Slot, text: str, kind: Kind) -> None:
        """Let an actor that could not open the store try again, replace it, or give its slot up; JobError if it was the last."""
        # As with a shard: nobody is charged, however long the storage is away.
        if kind == "storage":
            if kind not in self._warned:
                self._warned.add(kind)
                log.warning("the workers wait for the storage: %s", text)
            self._open(slot)
            return
        # In vain: a wrong version or a job that cannot be read stays so, however often an actor starts.
        slot.failed_starts = MAX_STARTS if kind == "in vain" else slot.failed_starts + 1
        if slot.failed_starts < MAX_STARTS:
            self._replace(slot)
            return
        slots = self._pool.slots
        self._pool.kill(slot.actor)
        slots.remove(slot)
        log.warning("a worker could not start, %d left: %s", len(slots), text)
        if not slots:
            raise JobError(f"no worker could start on {self._address}: {text}")

    def _handle_loss(self, slot: Slot, answer: Answer, error: RayError) -> list[Report]:
        """Handle an answer that will not come; return the report of the actor's death, if its cause is known."""
        if not self._pool.reach.look():  # asked again, if the Ray comes back
            self._answers.put((slot, answer))
            return []
        kind = kind_of_death(error)
        if slot.work is None:
            if kind == "node":  # not the actor's fault: does not count
                self._replace(slot)
            else:
                self._not_opened(slot, last_line(error), "other")
            return []
        # Ray goes on with a list of what may have been the cause, or with ids; the trace keeps them.
        message = re.split(" Worker exit type| Owner Id", last_line(error))[0]
        if kind == "node" and (place := slot.place):
            name = place.host or place.node
            message = f"{name} is lost, or cannot be reached"
            if place.node not in self._warned:
                self._warned.add(place.node)
                log.warning("%s is lost; what ran there is tried again", name)
            self._lost_nodes.add(place.node)
        trace = redact(str(error))[-MOST_TRACE:]
        death = self._note_death(slot, kind, f"the worker died ({kind}): {message}", trace)
        if kind != "killed":
            return [death.report]
        self._unexplained.append(death)
        return []

    def _note_death(self, slot: Slot, kind: str, text: str, trace: str = "") -> Death:
        """Replace an actor that died, or is to die, as it ran a shard."""
        assert slot.work is not None
        assert slot.place is not None
        fault: Fault = "memory" if kind == "oom" else "death"
        about = {"died": kind, "node": slot.place.node}
        report = Report(*slot.work.key, None, text, trace, fault, about)
        death = Death(slot, slot.place, report, time.monotonic())
        self._replace(slot)
        return death

    def _replace(self, slot: Slot) -> None:
        """Put a new actor in the slot, after killing the old one, which may be dead or out of reach."""
        # The kill first: the resources of the old one are those that the new one waits for. If the old one is out of reach and
        # commits its shard all the same, it writes the bytes that the next attempt writes.
        self._pool.kill(slot.actor)
        slot.actor = self._pool.actor()
        self._open(slot)

    def _explained(self) -> list[Report]:
        """Return the reports of the deaths whose slots have new actors, or that waited long enough."""
        deaths, self._unexplained = self._unexplained, []
        reports = []
        for death in deaths:
            before, after, report = death.place, death.slot.place, death.report
            if not (after or self._stopping or time.monotonic() - death.at > EXPLAIN_S):
                self._unexplained.append(death)
            # Another node's count says nothing; then the death is charged as if memory had been enough.
            elif after and after.node == before.node and after.kernel_kills > before.kernel_kills:
                text = "the worker died (oom): the kernel killed it, memory ran out"
                about = {**report.about, "died": "oom"}
                reports.append(report._replace(error=text, fault="memory", about=about))
            else:
                reports.append(_charged(self._pool, death))
        return reports


def kind_of_death(error: RayError) -> str:
    """Return the reason for which an actor's answer did not come: "oom", "node" (it is lost) or "killed"."""
    if isinstance(error, OutOfMemoryError):  # not a RayActorError
        return "oom"
    # Ray may report a lost node as the death of its actor, and only the text tells. An actor that is unavailable may still
    # run; its slot cannot wait for it.
    is_node_lost = isinstance(
        error, ActorUnavailableError | NodeDiedError
    ) or "node has died" in str(error)
    return "node" if is_node_lost else "killed"


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, which names the cause, without credentials."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(lines[-1].strip())[:2000]


def _slot_of(attempt: Key, slots: Iterable[Slot]) -> Slot | None:
    """Return the slot whose actor runs an attempt; None if there is none."""
    return next((s for s in slots if s.work and s.work.key == attempt), None)


def _charged(pool: Pool, death: Death) -> Report:
    """Return the report of a death that its node is charged for. A node is set aside after too many, if an actor is ready on
    some other one.
    """
    node, report = death.place.node, death.report
    shards = pool.deaths[node]
    shards.add(report.shard)
    others = {slot.place.node for slot in pool.slots if slot.place} - {node} - pool.aside
    if node in pool.aside or len(shards) < DEATHS or not others:
        return report
    pool.aside.add(node)
    text = f"node {node}: no longer used: workers died there in the midst of {DEATHS} shards"
    log.warning(text)
    return report._replace(about={**report.about, "set_aside": text})
