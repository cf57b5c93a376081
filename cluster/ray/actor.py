"""The class that runs inside an actor of the Ray executor."""

import socket
import time
from collections.abc import Mapping

import jax
import ray

from cluster.cache import prune_compilation_cache, use_compilation_cache
from cluster.versions import differences, versions
from jobs.errors import JobError
from jobs.run.sources import SourceDiffers
from jobs.run.task import Report, Sign, Standing, Task
from jobs.run.worker import Worker
from jobs.storage.objects import Unreachable
from jobs.store.provenance import said


class ShardWorker:
    """The class that runs inside an actor. `open` and `do` return errors as text instead of raising them."""

    def __init__(self) -> None:
        use_compilation_cache()
        prune_compilation_cache()
        self._worker: Worker | None = None
        self._shard, self._standing = -1, Standing()
        self._advanced = time.monotonic()

    def open(self, address: str, expected: Mapping[str, str]) -> tuple[str, bool] | None:
        """Open the store; return None, or (what went wrong, whether another try is pointless).

        expected: the driver's versions; this process must have the same.
        """
        wrong = differences(expected, versions(), f"on {socket.gethostname()}")
        if wrong:
            return f"versions differ: {wrong}; install the same everywhere", True
        try:
            self._worker = Worker(address)
        except BaseException as error:
            # These two may pass: a shared folder can lag behind for a moment.
            passes = isinstance(error, Unreachable | SourceDiffers)
            in_vain = isinstance(error, JobError) and not passes
            return said(error), in_vain
        return None

    def do(self, task: Task) -> Report:
        """Compute, write and commit one shard."""
        assert self._worker is not None
        number = task.shard.number

        def note(now: Standing) -> None:
            self._shard, self._standing, self._advanced = number, now, time.monotonic()

        note(Standing())
        try:
            return self._worker.do(task, note)
        except BaseException as error:  # a kernel called sys.exit, or its error cannot be printed
            return Report(number, task.attempt, said(error))

    def interrupt(self) -> None:
        """Stop the running shard at a checkpoint, and do not begin a queued one."""
        if self._worker is not None:
            self._worker.interrupt()

    def sign(self) -> tuple[int, Sign]:
        """Number of the running shard, -1 before the first one, and how far it is."""
        return self._shard, Sign(self._standing, time.monotonic() - self._advanced)

    def place(self) -> tuple[str, str]:
        """Id of the node that this actor runs on, and the kind of its devices."""
        return str(ray.get_runtime_context().get_node_id()), jax.local_devices()[0].device_kind

    def device_memory(self) -> int | None:
        """Bytes that XLA may use on one device; None on a CPU."""
        stats = jax.local_devices()[0].memory_stats()
        return int(stats["bytes_limit"]) if stats else None
