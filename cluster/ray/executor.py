"""Run shards on Ray: a pool of actors, one for each device slot, fed one shard at a time.

    driver                          actor (one process, `cpus_per_worker` cores, its own GPUs or none)
    submit(task)             ---->  do: read rows, run the kernel, write, commit      (jobs.run.worker.Worker)
    wait() -> Report         <----  a few hundred bytes: no result ever passes through Ray
    progress()               <--->  standing: answered by a second thread of the actor
    interrupt()              ---->  interrupt: the same thread; the report says where the shard was left

An actor gets shards once it has opened the store. Ray never restarts it (`max_restarts=0`), so this module
knows what an actor held when it died. It reports the running shard with the error, which costs that shard
one attempt; gives the queued shard to another actor, at no cost; and starts a new actor in the slot.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import ray
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from cluster.ray.connection import set_environment, take_back_sigterm
from cluster.ray.local import LocalRay
from cluster.ray.nodes import DEATHS
from cluster.ray.pool import Pool, Slot
from cluster.versions import versions
from jobs.errors import JobError
from jobs.run.task import Fault, Report, Standing, Task
from jobs.spec.job import RunSettings
from jobs.storage import objects

log = logging.getLogger("ctd")

MAX_STARTS = 3
"""A slot is given up after this many actors in a row failed before they were ready."""

QUEUE_BELOW_S = 1.0
"""If shards take less than this, each actor gets a second one in advance, which hides the millisecond of a
dispatch. A longer shard is better off waiting for the first free actor."""

POLL_S = 1.0
"""Least time between two rounds of asking the actors for their progress."""


class RayExecutor:
    """`jobs.run.executor.Executor` on Ray.

    Args:
        settings: the job's `run:` settings.
        address: host:port of a running Ray, which is left running; "auto" means the newest one on this
            machine. None: start a Ray on this machine, and stop it in `close`; RAY_ADDRESS and any Ray
            already running here are ignored. If this process is already connected to a Ray, that one is
            used; an `address` of another Ray is then an error.

    Construction does not block: Ray starts, and its actors import JAX, while the job is planned. The
    driver itself computes on the CPU and leaves the GPUs to the actors.

    Raises:
        JobError: Ray cannot be reached or has no room for a single worker, or no worker can open the
            store. Not the constructor raises it, but the first method that needs the answer.
    """

    name = "ray"

    def __init__(self, settings: RunSettings, address: str | None = None) -> None:
        jax.config.update("jax_platforms", "cpu")
        self._settings = settings
        self._environment: dict[str, str | None] = {}
        self._local: LocalRay | None = None
        if address is None and not ray.is_initialized():
            cpus = len(os.sched_getaffinity(0))
            self._local = LocalRay(
                max(cpus, math.ceil((settings.workers or 0) * settings.cpus_per_worker))
            )
            self._environment = set_environment(self._local.environment)
        starter = ThreadPoolExecutor(1, "ray-start")
        self._starting: Future[Pool] = starter.submit(Pool, settings, address, self._local)
        starter.shutdown(wait=False)
        self._address = ""
        self._returned: list[Task] = []
        self._interrupted = self._told = False
        self._depth = 1
        self._standing: dict[int, Standing] = {}
        self._asked_at = 0.0

    @property
    def _pool(self) -> Pool:
        return self._starting.result()

    def workers(self) -> int:
        """Number of actors: `run.workers`, or as many as the cluster has room for."""
        return self._pool.n

    def memory(self) -> int:
        """Bytes that one device may use.

        A worker's `run.memory_gb` comes first, divided by its devices. Otherwise: on a GPU, XLA's limit; on
        a CPU, the worker's share of its node, divided by its devices.
        """
        if self._settings.memory_gb:
            return int(self._settings.memory_gb * 1e9) // self._pool.devices
        if self._pool.gpus:
            answers = [slot.actor.device_memory.remote() for slot in self._pool.slots]
            first, _ = ray.wait(answers)
            return ray.get(first[0]) or self._pool.node_share
        return self._pool.node_share // self._pool.devices

    def devices(self) -> int:
        """Devices that share a worker's memory: its CPU cores, or 1 if it has GPUs."""
        return self._pool.devices

    def start(self, address: str) -> None:
        """Tell every actor to open the store at `address`; does not wait for them."""
        path = objects.local_path(address)
        self._address = str(path.absolute()) if path is not None else address
        self._interrupted = self._told = False
        slots = self._pool.slots
        take_back_sigterm()
        for slot in slots:
            self._open(slot)

    def _open(self, slot: Slot) -> None:
        slot.ready, slot.node = False, ""
        slot.where = slot.actor.node.remote()
        slot.opening = slot.actor.open.remote(self._address, versions())

    def capacity(self) -> int:
        """Free places at ready actors, less the shards that dead actors left behind in their queues."""
        free = sum(max(0, self._depth - len(s.held)) for s in self._pool.slots if s.ready)
        return free - len(self._returned)

    def submit(self, task: Task) -> None:
        """Give the task to the ready actor that holds the fewest tasks."""
        ready = [slot for slot in self._pool.slots if slot.ready]
        slot = min(ready, key=lambda slot: len(slot.held))
        if not slot.held:
            slot.alive_at = time.monotonic()
        slot.held.append((slot.actor.do.remote(task), task))

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports of shards that ended, after at most about `timeout` seconds.

        Also hands out returned tasks, and adds actors on new nodes.

        Raises:
            JobError: no actor could start.
        """
        while (
            self._returned
            and not self._interrupted
            and any(len(s.held) < self._depth for s in self._pool.slots if s.ready)
        ):
            self.submit(self._returned.pop(0))
        if self._interrupted and (waiting := self._tell_to_stop()):
            return waiting
        if not self._interrupted:
            for slot in self._pool.joined():
                self._pool.slots.append(slot)
                self._open(slot)
        due: dict[Any, Slot] = {}
        for slot in self._pool.slots:
            due |= {ref: slot for ref, _ in slot.held}
            if slot.opening is not None:
                due[slot.opening] = slot
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
                self._opened(slot)
            else:
                reports += self._ended(slot, set(come))
        for report in reports:
            self._standing.pop(report.shard, None)
        return reports

    def _tell_to_stop(self) -> list[Report]:
        """Tell every actor to stop, once; return "stopped" reports for the returned tasks."""
        if not self._told:
            self._told = True
            for slot in self._pool.slots:
                slot.actor.interrupt.options(concurrency_group="watch").remote()
        waiting, self._returned = self._returned, []
        text = "stopped before it began"
        return [Report(t.shard.number, t.attempt, text, fault="stopped") for t in waiting]

    def _opened(self, slot: Slot) -> None:
        """Handle the answer of an opening actor: mark it ready, replace it, or give its slot up."""
        try:
            fault = ray.get(slot.opening)
            slot.node = ray.get(slot.where)
        except RayError as error:
            if _kind_of_death(error) == "node":  # not the actor's fault: does not count
                self._replace(slot)
                return
            fault = _last_line(error), False
        slot.opening = None
        if fault is None:
            slot.ready, slot.failed_starts = True, 0
            return
        text, in_vain = fault
        slot.failed_starts = MAX_STARTS if in_vain else slot.failed_starts + 1
        if slot.failed_starts < MAX_STARTS:
            self._replace(slot)
            return
        ray.kill(slot.actor, no_restart=True)
        self._pool.slots.remove(slot)
        log.warning("a worker could not start, %d left: %s", len(self._pool.slots), text)
        if not self._pool.slots:
            raise JobError(f"no worker could start on {self._address}: {text}")

    def _ended(self, slot: Slot, come: set[Any]) -> list[Report]:
        """Return the reports of an actor whose answers came; if it died instead, replace it."""
        reports = []
        while slot.held and slot.held[0][0] in come:
            ref, task = slot.held.pop(0)
            slot.alive_at = time.monotonic()
            number, attempt = task.shard.number, task.attempt
            try:
                report = ray.get(ref)
            except RayTaskError as error:  # the actor is alive, but its answer could not be sent
                report = Report(number, attempt, _last_line(error))
            except RayError as error:
                kind = _kind_of_death(error)
                text = f"the worker died ({kind}): {_last_line(error)}"
                info = {"died": kind, "node": slot.node, **self._set_aside(slot, kind, number)}
                fault: Fault = "memory" if kind == "oom" else "death"
                reports.append(Report(number, attempt, text, str(error)[-8000:], fault, info))
                self._returned += [task for _, task in slot.held]
                self._replace(slot)
                return reports
            if "seconds" in report.info:
                self._depth = 2 if report.info["seconds"] < QUEUE_BELOW_S else 1
            reports.append(report)
        if slot.node in self._pool.nodes.aside and not slot.held:
            self._replace(slot)
        return reports

    def _set_aside(self, slot: Slot, kind: str, shard: int) -> dict[str, str]:
        """Count a death on the slot's node; set the node aside after too many.

        A node is set aside only if an actor is ready on some other node. Returns what to add to the
        report: {"set_aside": text}, or nothing.
        """
        nodes = self._pool.nodes
        if kind != "killed" or not nodes.note_death(slot.node, shard):
            return {}
        if not any(s.ready and s.node not in {slot.node, *nodes.aside} for s in self._pool.slots):
            return {}
        nodes.aside.add(slot.node)
        for other in self._pool.slots:
            if other.node == slot.node and other is not slot and not other.held:
                self._replace(other)
        text = f"node {slot.node}: set aside, workers died there in the midst of {DEATHS} shards"
        log.warning(text)
        return {"set_aside": text}

    def _replace(self, slot: Slot) -> None:
        """Put a new actor in the slot, after killing the old one, which may be dead or out of reach."""
        ray.kill(slot.actor, no_restart=True)
        slot.actor, slot.held, slot.asked = self._pool.actor(), [], None
        self._open(slot)

    def hear(self, listener: Callable[[], None]) -> None:
        """Ignore the listener: `wait` always returns in time, so there is no need to call it."""

    def progress(self) -> Mapping[int, Standing]:
        """Progress of each running shard, a second or two old."""
        now = time.monotonic()
        asking = now - self._asked_at > POLL_S
        if asking:
            self._asked_at = now
        for slot in self._pool.slots:
            if asking and slot.held and slot.asked is None:
                ask = slot.actor.standing.options(concurrency_group="watch")
                slot.asked = ask.remote()
            elif slot.asked is not None and ray.wait([slot.asked], timeout=0)[0]:
                self._note_standing(slot)
        return dict(self._standing)

    def _note_standing(self, slot: Slot) -> None:
        try:
            shard, now, silent_s = ray.get(slot.asked)
        except RayError:
            return  # if the actor died, the answer of its shard says so
        finally:
            slot.asked = None
        if slot.held and slot.held[0][1].shard.number == shard:
            self._standing[shard] = now
            slot.alive_at = max(slot.alive_at, time.monotonic() - silent_s)

    def silence(self) -> Mapping[int, float]:
        """Seconds since the last sign of life of each running shard."""
        now = time.monotonic()
        return {s.held[0][1].shard.number: now - s.alive_at for s in self._pool.slots if s.held}

    def kill(self, shard: int) -> None:
        """Kill the actor that runs this shard."""
        for slot in self._pool.slots:
            if slot.held and slot.held[0][1].shard.number == shard:
                ray.kill(slot.actor, no_restart=True)

    def interrupt(self) -> None:
        """Make the next `wait` tell all actors to stop at a checkpoint."""
        self._interrupted = True

    def close(self) -> None:
        """Kill the actors, and stop the Ray if this executor started it."""
        if self._local is not None and not self._local.is_up:
            self._local.stop()  # else the next line would wait for it to come up
        try:
            pool = self._starting.result()
        except Exception as error:
            log.debug("closing a Ray that never came up: %s", error)
        else:
            pool.close()
        if self._local is not None:
            self._local.stop()
            set_environment(self._environment)


def _kind_of_death(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):  # not a RayActorError
        return "oom"
    lost = isinstance(error, ActorUnavailableError | NodeDiedError) or "node has died" in str(error)
    return "node" if lost else "killed"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:2000]
