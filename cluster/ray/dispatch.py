"""Hand shards to the ready actors, one at a time, and collect what they report.

An actor that dies costs the shard that it ran one attempt. The shard queued behind that one goes to another
actor, at no cost. The cause of a death is known once the next actor in its slot tells whether the kernel ran out of memory.
"""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ray.exceptions import RayError, RayTaskError

from cluster.ray.crew import Crew, kind_of_death, last_line
from cluster.ray.pool import Slot
from jobs.redact import redact
from jobs.run.task import MOST_TRACE, Fault, Key, Report, Task, Work

QUEUE_BELOW_S = 1.0
"""If shards take less than this, each actor gets a second one in advance, which hides the millisecond of a
dispatch. A longer shard is better off waiting for the first free actor."""


EXPLAIN_S = 60.0
"""Longest wait (s) of the report of a death for the next actor."""


class Death(NamedTuple):
    """The death of an actor of unknown cause."""

    slot: Slot
    """Its slot, to which the next actor comes."""
    node: str
    """Id of the node that it was on."""
    kernel_kills: int
    """Its count of whom the kernel killed for memory, as last heard."""
    report: Report
    """The report of its shard."""
    at: float
    """The time.monotonic at which it was noticed."""


class Dispatch:
    """The tasks that a crew holds, and those that dead actors left behind."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._depth = 1
        """Most tasks that an actor may hold."""
        self._returned: list[Work] = []
        """Tasks that were queued at actors that died."""
        self._ended_here: list[Report] = []
        """Reports of actors that `end` has replaced, for the next `wait`."""
        self._deaths: list[Death] = []
        """Deaths whose reports wait."""
        self._told = False
        """Whether the actors have been told to stop."""
        self.stopping = False
        """Whether the next `wait` tells the actors to stop."""

    def stop(self) -> None:
        """Make the next `wait` tell all actors to stop at a checkpoint; callable from a signal handler or another thread."""
        # No call of Ray here: a signal may have interrupted one that holds a lock, for which a second call would wait for ever.
        self.stopping = True

    def capacity(self) -> int:
        """Return the free places at ready actors, less the shards that dead actors left behind in their queues."""
        # Those go out first, in `wait`; with fewer places than such shards this is negative, which counts as none.
        return self._crew.places.free(self._depth) - len(self._returned)

    def submit(self, work: Work) -> None:
        """Give the work to the ready actor that holds the least."""
        self._give(self._crew.places.emptiest(), work)

    def try_elsewhere(self, task: Task) -> bool:
        """Give a second attempt at a running shard to an idle actor; return whether there was one.

        It is on another node than the first attempt, which may be slow as a whole, and has devices of the same kind:
        others might compute other bits.
        """
        first = self._crew.holder((task.shard.number, task.attempt - 1))
        fits = lambda slot: first and slot.node != first.node and slot.device == first.device
        slot = next(filter(fits, self._crew.places.idle()), None)
        if slot is not None:
            self._give(slot, task)
        return slot is not None

    def end(self, attempt: Key, why: str | None) -> None:
        """Replace the actor that runs an attempt; if the attempt is queued only, forget it.

        why: the error of the death that `wait` reports; None: it reports none.
        """
        slot = self._crew.holder(attempt)
        if slot is None:
            self._returned = [task for task in self._returned if task.key != attempt]
        elif slot.held[0][1].key != attempt:
            slot.held = [held for held in slot.held if held[1].key != attempt]
            self._crew.places.note(slot)
        elif why is None:
            # Without a report: the other attempt was committed, and the driver expects nothing more of this one.
            self._replace(slot)
        elif not slot.held[0][0].done():  # else `wait` returns its report
            self._ended_here.append(self._charged(self._died(slot, "killed", why)))

    def _give(self, slot: Slot, work: Work) -> None:
        if not slot.held:
            slot.begin()
        slot.held.append((self._crew.expect(slot, slot.actor.do.remote(work)), work))
        self._crew.places.note(slot)

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports of shards that ended, after at most about `timeout` seconds.

        Raises:
            JobError: no actor could start.
        """
        if not self.stopping:
            while self._returned and self._crew.places.free(self._depth):
                self.submit(self._returned.pop(0))
            self._crew.grow()
        elif waiting := self._stop():
            return waiting
        reports, self._ended_here = self._ended_here, []
        for slot in _arrived(self._crew.answered, 0 if reports else timeout):
            if slot.opening is None:
                reports += self._ended(slot)
            elif slot.opening.done():
                self._crew.opened(slot)
        return reports + self._explained()

    def _stop(self) -> list[Report]:
        """Tell every actor to stop, once; return "stopped" reports for the returned tasks."""
        if not self._told:
            self._told = True
            self._crew.tell_to_stop()
        waiting, self._returned = self._returned, []
        text = "stopped before it began"
        return [Report(*work.key, error=text, fault="stopped") for work in waiting]

    def _ended(self, slot: Slot) -> list[Report]:
        """Return the reports of an actor that has answered; if it died instead, replace it."""
        reports: list[Report] = []
        # Both tasks of a short queue may have ended, while `answered` holds the slot twice: the second time finds nothing done.
        while slot.held and slot.held[0][0].done():
            answer, task = slot.held[0]
            try:
                report = answer.result()
            except RayTaskError as error:  # the actor is alive, but its answer could not be sent
                report = Report(*task.key, error=last_line(error))
            except RayError as error:
                if not self._crew.reach.look():  # asked again, if the Ray comes back
                    self._crew.answered.put(slot)
                    return reports
                kind = kind_of_death(error)
                # Ray goes on with a list of what may have been the cause; the trace keeps it.
                said, _, _ = last_line(error).partition(" Worker exit type")
                text = f"the worker died ({kind}): {said}"
                # A death by `killed` is reported once its cause is known; until then the driver takes the shard for running.
                death = self._died(slot, kind, text, redact(str(error))[-MOST_TRACE:])
                if kind != "killed":
                    return [*reports, death.report]
                self._deaths.append(death)
                return reports
            slot.held.pop(0)
            slot.begin()
            if report.marker:
                self._depth = 2 if report.marker.seconds < QUEUE_BELOW_S else 1
            reports.append(report)
        self._crew.places.note(slot)
        self._crew.move_if_set_aside(slot)
        return reports

    def _died(self, slot: Slot, kind: str, text: str, trace: str = "") -> Death:
        """Replace an actor that died, or is to die, as it ran a shard."""
        fault: Fault = "memory" if kind == "oom" else "death"
        about = {"died": kind, "node": slot.node}
        report = Report(*slot.held[0][1].key, None, text, trace, fault, about)
        death = Death(slot, slot.node, slot.kernel_kills, report, time.monotonic())
        self._replace(slot)
        return death

    def _explained(self) -> list[Report]:
        """Return the reports of the deaths whose slots have new actors, or that waited long enough."""
        now, deaths = time.monotonic(), self._deaths
        due = [d.slot.ready or self.stopping or now - d.at > EXPLAIN_S for d in deaths]
        self._deaths = [d for d, is_due in zip(deaths, due, strict=True) if not is_due]
        return [self._explain(d) for d, is_due in zip(deaths, due, strict=True) if is_due]

    def _explain(self, death: Death) -> Report:
        report, slot = death.report, death.slot
        # Another node's count says nothing; then the death is charged as if memory had been enough.
        same = slot.ready and slot.node == death.node
        if same and slot.kernel_kills > death.kernel_kills:
            text = "the worker died (oom): the kernel killed it, memory ran out"
            about = {**report.about, "died": "oom"}
            return report._replace(error=text, fault="memory", about=about)
        return self._charged(death)

    def _charged(self, death: Death) -> Report:
        """Return the report of a death that its node is charged for."""
        noted = self._crew.note_death(death.node, death.report.shard)
        return death.report._replace(about={**death.report.about, **noted})

    def _replace(self, slot: Slot) -> None:
        """Replace a slot's actor; the shards queued behind the one that it runs go elsewhere."""
        self._returned += [task for _, task in slot.held[1:]]
        self._crew.replace(slot)


def _arrived(answered: SimpleQueue[Slot], timeout: float) -> list[Slot]:
    """Return the slots whose actors have answered; wait for the first at most `timeout` seconds.

    All at once: one that is put back, because its Ray does not answer, comes again at the next call.
    """
    slots: list[Slot] = []
    with suppress(Empty):
        slots.append(answered.get(timeout=timeout))
        while True:
            slots.append(answered.get_nowait())
    return slots
