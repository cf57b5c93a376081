"""The class that runs inside an actor of the Ray executor, and how ctd learns that Linux killed a worker for memory.

Ray reports such a death like any other, and a dead worker reports nothing. But Linux counts the processes that it kills.
A worker sends this count with its heartbeats, and the worker that takes its place sends it again. If the count has grown,
Linux killed the first one.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import ray

from cluster.cache import prune_compilation_cache, use_compilation_cache
from cluster.versions import differences, versions
from ctd.installed import NO_PLUGIN
from jobs.errors import JobError, count
from jobs.run.sources import SourceDiffers
from jobs.run.task import Heartbeat, Report, ShardProgress, Work, error_text
from jobs.run.worker import Worker
from jobs.storage.objects import StorageFailed, is_refusal, is_storage_error
from jobs.store.manifest import idle_gpus

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def kernel_kills(proc: Path = PROC, mount: Path = CGROUPS) -> int:
    """Return how many processes of this one's memory cgroup the kernel has killed because memory ran out.

    If the cgroup has no such count, that of this machine; 0 if the machine has none either.
    """
    for file in _counters(proc, mount):
        with suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def _counters(proc: Path, mount: Path) -> Iterator[Path]:
    """Yield the files that may have the count, the best first."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        below = path.lstrip("/")
        if "memory" in controllers.split(","):  # cgroup version 1
            # A container may see its own cgroup as the root, and the path to it from outside.
            yield mount / "memory" / below / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"
        elif not controllers:  # version 2, whose line is 0::PATH
            yield mount / below / "memory.events"
            yield mount / "memory.events"
    yield proc / "vmstat"


class Place(NamedTuple):
    """The place of an actor."""

    node: str
    """Id of its node."""
    device: str
    """Kind of its devices."""
    kernel_kills: int
    """The last known `kernel_kills`."""
    warning: str = ""
    """A warning for the user, if there is one."""
    host: str = ""
    """Name of its node."""


Kind = Literal["in vain", "storage", "other"]
"""Why an actor cannot open a store.

    in vain    another try would end the same way
    storage    the storage fails; the same actor opens it once that answers
    other      another try, of another actor, may succeed
"""

AGAIN_S = 1.0
"""Seconds that an actor waits after the storage has failed: a failing disk answers at once."""


def kind_of(error: BaseException) -> Kind:
    away = is_storage_error(error) and not is_refusal(error)
    if away or isinstance(error, StorageFailed):
        return "storage"
    # Source that differs may pass: a shared folder can lag behind for a moment.
    passes = isinstance(error, SourceDiffers) or not isinstance(error, JobError)
    return "other" if passes else "in vain"


class ShardWorker:
    """The class that runs inside an actor. `open` and `do` return errors as text instead of raising them."""

    def __init__(self) -> None:
        use_compilation_cache()
        prune_compilation_cache()
        self._worker: Worker | None = None
        self._shard, self._progress = -1, ShardProgress()

    def open(
        self, address: str, workers: int, expected: Mapping[str, str]
    ) -> Place | tuple[str, Kind]:
        """Open the store; return the place of this actor, or (what went wrong, of which kind).

        workers: actors that run shards. expected: the driver's versions, which this process must have.
        """
        # Tasks and reports travel as pickles, which another version may read otherwise; another JAX may give other bits.
        wrong = differences(expected, versions(), f"on {socket.gethostname()}")
        if wrong:
            return f"versions differ: {wrong}; install the same everywhere", "in vain"
        # As text: Ray would pickle an exception, and one that cannot be pickled ends the actor.
        try:
            kills = kernel_kills()  # before anything that takes much memory
            self._worker = Worker(address, workers)
            node, warning = str(ray.get_runtime_context().get_node_id()), ""
            if n := idle_gpus():
                warning = (
                    f"the worker on {socket.gethostname()} was given {count(n, 'GPU')}, and computes on the CPU: "
                    f"JAX sees no GPU there; {NO_PLUGIN}"
                )
            device = jax.local_devices()[0].device_kind
            return Place(node, device, kills, warning, socket.gethostname())
        except BaseException as error:
            kind = kind_of(error)
            if kind == "storage":
                time.sleep(AGAIN_S)
            return error_text(error), kind

    def do(self, work: Work) -> Report:
        """Compute, write and commit one shard, or reduce a group."""
        assert self._worker is not None

        def note(now: ShardProgress) -> None:
            # Without a lock: a heartbeat in between mixes two shards once, and the driver takes no sign of life for older
            # than the beginning of the shard (Slot.begin).
            self._shard, self._progress = work.key[0], now

        note(ShardProgress())
        try:
            return self._worker.do(work, note)
        except BaseException as error:  # a kernel called sys.exit, or its error cannot be printed
            return Report(*work.key, error=error_text(error))

    def interrupt(self) -> None:
        """Stop the running shard at a checkpoint, and begin no other."""
        if self._worker is not None:
            self._worker.interrupt()

    def heartbeat(self) -> tuple[int, Heartbeat, int]:
        """Return the number of the running shard (-1 before the first one), its heartbeat, and `kernel_kills`."""
        # Called in a thread of its own while `do` runs: see the concurrency group in cluster.ray.pool.
        assert self._worker is not None
        advancing, since = self._worker.pulse.last
        beat = Heartbeat(self._progress._replace(advancing=advancing), time.monotonic() - since)
        return self._shard, beat, kernel_kills()

    def device_memory(self) -> int | None:
        """Return the bytes that XLA may use on one device; None on a CPU."""
        stats = jax.local_devices()[0].memory_stats()
        return int(stats["bytes_limit"]) if stats else None
