"""Start a Ray, or find one, in a thread of its own, so that a job is planned meanwhile."""

import logging
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster.ray.local import LocalRay
from cluster.ray.private import set_environment
from cluster.ray.reach import NoRay
from jobs.spec.job import RunSettings

if TYPE_CHECKING:
    from cluster.ray.pool import Pool

log = logging.getLogger("ctd")


class Startup:
    """A pool of actors that comes up while the caller goes on.

    Args:
        settings: the job's `run:` settings.
        address: see `cluster.ray.executor.RayExecutor`.
    """

    def __init__(self, settings: RunSettings, address: str | None) -> None:
        self._environment: dict[str, str | None] = {}
        self.local: LocalRay | None = None
        """The Ray that was started here, if one was."""
        if address is None and not _is_connected():
            cpus = len(os.sched_getaffinity(0))
            self.local = LocalRay(
                max(cpus, math.ceil((settings.workers or 0) * settings.cpus_per_worker))
            )
            self._environment = set_environment(self.local.environment)
        starter = ThreadPoolExecutor(1, "ray-start")
        self._starting = starter.submit(_pool, settings, address, self.local)
        starter.shutdown(wait=False)

    def pool(self) -> "Pool":
        """Return the pool once it is up; raise what kept it from coming up."""
        return self._starting.result()

    def close(self) -> None:
        """Kill the actors, and stop the Ray if it was started here."""
        if self.local is not None and not self.local.is_up:
            self.local.stop()  # else the next line would wait for it to come up
        try:
            pool = self._starting.result()
        except Exception as error:
            log.debug("closing a Ray that never came up: %s", error)
        else:
            pool.close()
        if self.local is not None:
            self.local.stop()
            with suppress(NoRay):  # it stays as it was for this Ray
                set_environment(self._environment)


def _is_connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _pool(settings: RunSettings, address: str | None, local: LocalRay | None) -> "Pool":
    from cluster.ray.pool import Pool  # here: Ray reads the token's variables as it is imported

    return Pool(settings, address, local)
