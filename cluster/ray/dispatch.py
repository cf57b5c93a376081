"""Hand shards to the ready actors, one at a time, and collect what they report.

An actor that dies costs the shard that it ran one attempt. The shard queued behind that one goes to another
actor, at no cost.
"""

import time
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.ray.crew import Crew, kind_of_death, last_line
from cluster.ray.pool import Slot
from jobs.run.task import Fault, Report, Task

QUEUE_BELOW_S = 1.0
"""If shards take less than this, each actor gets a second one in advance, which hides the millisecond of a
dispatch. A longer shard is better off waiting for the first free actor."""


class Dispatch:
    """The tasks that a crew holds, and those that dead actors left behind."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._depth = 1
        """How many tasks an actor may hold."""
        self._returned: list[Task] = []
        """Tasks that were queued at actors that died."""
        self._told = False
        """Whether the actors have been told to stop."""
        self.stopping = False
        """Set this to make the next `wait` tell all actors to stop at a checkpoint."""

    def capacity(self) -> int:
        """Free places at ready actors, less the shards that dead actors left behind in their queues."""
        free = sum(max(0, self._depth - len(s.held)) for s in self._crew.slots if s.ready)
        return free - len(self._returned)

    def submit(self, task: Task) -> None:
        """Give the task to the ready actor that holds the fewest tasks."""
        ready = [slot for slot in self._crew.slots if slot.ready]
        slot = min(ready, key=lambda slot: len(slot.held))
        if not slot.held:
            slot.alive_at = time.monotonic()
        slot.held.append((slot.actor.do.remote(task), task))

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports of shards that ended, after at most about `timeout` seconds.

        Raises:
            JobError: no actor could start.
        """
        if not self.stopping:
            self._hand_out_returned()
            self._crew.grow()
        elif waiting := self._stop():
            return waiting
        due = self._due()
        if not due:
            time.sleep(timeout)
            return []
        first, _ = ray.wait(list(due), timeout=timeout)
        if not first:
            return []
        come, _ = ray.wait(list(due), num_returns=len(due), timeout=0)
        reports = []
        for slot in {id(due[ref]): due[ref] for ref in come}.values():
            if slot.opening is not None:
                self._crew.opened(slot)
            else:
                reports += self._ended(slot, set(come))
        return reports

    def _hand_out_returned(self) -> None:
        has_room = lambda slot: slot.ready and len(slot.held) < self._depth
        while self._returned and any(map(has_room, self._crew.slots)):
            self.submit(self._returned.pop(0))

    def _stop(self) -> list[Report]:
        """Tell every actor to stop, once; return "stopped" reports for the returned tasks."""
        if not self._told:
            self._told = True
            self._crew.tell_to_stop()
        waiting, self._returned = self._returned, []
        text = "stopped before it began"
        return [Report(t.shard.number, t.attempt, text, fault="stopped") for t in waiting]

    def _due(self) -> dict[Any, Slot]:
        """Every answer that is still to come -> the slot whose actor gives it."""
        due: dict[Any, Slot] = {}
        for slot in self._crew.slots:
            due |= {ref: slot for ref, _ in slot.held}
            if slot.opening is not None:
                due[slot.opening] = slot
        return due

    def _ended(self, slot: Slot, come: set[Any]) -> list[Report]:
        """Return the reports of an actor whose answers came; if it died instead, replace it."""
        reports: list[Report] = []
        while slot.held and slot.held[0][0] in come:
            ref, task = slot.held.pop(0)
            slot.alive_at = time.monotonic()
            try:
                report = ray.get(ref)
            except RayTaskError as error:  # the actor is alive, but its answer could not be sent
                report = Report(task.shard.number, task.attempt, last_line(error))
            except RayError as error:
                return [*reports, self._died(slot, task, error)]
            if "seconds" in report.info:
                self._depth = 2 if report.info["seconds"] < QUEUE_BELOW_S else 1
            reports.append(report)
        self._crew.move_if_set_aside(slot)
        return reports

    def _died(self, slot: Slot, task: Task, error: RayError) -> Report:
        """Replace an actor that died as it ran `task`; return the report of that shard."""
        kind, number = kind_of_death(error), task.shard.number
        text = f"the worker died ({kind}): {last_line(error)}"
        info = {"died": kind, "node": slot.node, **self._crew.note_death(slot, kind, number)}
        fault: Fault = "memory" if kind == "oom" else "death"
        self._returned += [task for _, task in slot.held]
        self._crew.replace(slot)
        return Report(number, task.attempt, text, str(error)[-8000:], fault, info)
