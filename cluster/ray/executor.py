"""Run shards on Ray: a pool of actors, one for each device slot, fed one shard at a time.

driver                          actor (one process, `cpus_per_worker` cores, its own GPUs or none)
submit(task)             ---->  do: read rows, run the kernel, write, commit      (jobs.run.worker.Worker)
wait() -> Report         <----  a few hundred bytes: no result ever passes through Ray
on_tick(heartbeats)      <--->  heartbeat: answered by a second thread of the actor
a stop                   ---->  interrupt: the same thread; the report says where the shard was left
"""

import math
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import jax

from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from cluster.ray.reach import NoRay
from jobs.plan.layout import Machines
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Key, OnTick, Report, Task, Ticker, Work
from jobs.spec.run import RunSettings
from jobs.storage.addresses import absolute

if TYPE_CHECKING:  # Ray is imported once its environment is set, in `RayExecutor`
    from cluster.ray.crew import Crew
    from cluster.ray.pool import Pool


class RayExecutor:
    """`jobs.run.task.Executor` on Ray.

    address: host:port of a running Ray, which is left running; "auto" means the newest one on this machine. None: start a Ray
    on this machine, and stop it in `close`; RAY_ADDRESS and any Ray already running here are ignored. If this process is already
    connected to a Ray, that one is used; an `address` of another Ray is then an error.

    Construction does not block: Ray starts, and its actors import JAX, while the job is planned. The first method that needs
    the Ray raises JobError if it cannot be reached or has no room for a single worker. The driver itself computes on the CPU and
    leaves the GPUs to the actors.
    """

    name = "ray"

    _crew: "Crew"
    _ticker: Ticker

    def __init__(self, settings: RunSettings, address: str | None = None) -> None:
        # Before the driver plans: JAX would take most of a GPU's memory with its first computation.
        jax.config.update("jax_platforms", "cpu")
        self._environment: dict[str, str | None] = {}
        self._local: LocalRay | None = None
        """The Ray that was started here, if one was."""
        ray = sys.modules.get("ray")
        if address is None and not (ray and ray.is_initialized()):
            cpus = len(os.sched_getaffinity(0))
            needed = math.ceil((settings.workers or 0) * settings.cpus_per_worker)
            self._local = LocalRay(max(cpus, needed))
            self._environment = set_environment(self._local.environment)

        def pool() -> "Pool":
            # Here, since Ray reads the token's variables as it is imported.
            from cluster.ray.pool import Pool

            return Pool(settings, address, self._local)

        # One thread for one task: `_pool` may be asked again and again, and gets the same pool or the same error.
        starter = ThreadPoolExecutor(1, "ray-start")
        self._starting = starter.submit(pool)
        starter.shutdown(wait=False)

    @property
    def _pool(self) -> "Pool":
        return self._starting.result()

    def machines(self) -> Machines:
        """Return the actors: `run.workers`, or as many as the cluster has room for."""
        return self._pool.machines()

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        """Tell every actor to open the store at `address`; does not wait for them."""
        # First: its thread imports Ray, and two threads that do so at once may each find half of a module.
        pool = self._pool
        from cluster.ray.crew import Crew

        # Absolute: an actor's working directory is not the driver's.
        self._crew = Crew(pool, absolute(address))
        self._ticker = Ticker(on_tick)
        if stop is not None:
            stop.add_callback(self._crew.stop)

    def capacity(self) -> int:
        return len(self._crew.idle)

    def submit(self, work: Work) -> None:
        self._crew.submit(work)

    def try_elsewhere(self, task: Task) -> bool:
        return self._crew.try_elsewhere(task)

    def end(self, attempt: Key, cause: str | None = None) -> None:
        self._crew.end(attempt, cause)

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports of shards that ended, after at most about `timeout` seconds.

        Raises JobError if no actor could start, ExecutorLost if the Ray is lost (see `cluster.ray.reach`).
        """
        reach = self._pool.reach
        reach.refuse_lost()
        self._ticker.tick(self.heartbeats)
        if not reach.holds:  # what it is asked now it might never answer
            time.sleep(timeout)
            return []
        return self._crew.wait(timeout)

    def heartbeats(self) -> Mapping[Key, Heartbeat]:
        """Return the last heartbeats; none while the Ray does not answer, for then silence says nothing of a worker."""
        from cluster.ray.pool import heartbeats

        return heartbeats(self._pool.slots) if self._pool.reach.holds else {}

    def close(self) -> None:
        """Kill the actors, and stop the Ray if this executor started it."""
        if self._local is not None and not self._local.is_up:
            self._local.stop()  # else the next line would wait for it to come up
        if self._starting.exception() is None:
            self._pool.close()
        if self._local is not None:
            self._local.stop()
            with suppress(NoRay):  # it stays as it was for this Ray
                set_environment(self._environment)
