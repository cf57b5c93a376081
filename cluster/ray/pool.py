"""The pool of the Ray executor: the connection to a Ray, and the slots that hold an actor each."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.ray.actor import ShardWorker
from cluster.ray.local import LocalRay
from cluster.ray.private import loopback_kept
from cluster.ray.reach import NoRay, Reach, knock
from jobs.errors import JobError, count
from jobs.run.task import ExecutorLost, ShardProgress, Work
from jobs.run.worker import usable_memory
from jobs.spec.job import RunSettings

SIGACTION_BYTES = 512
"""More than a `struct sigaction` has on any system."""


def connect(address: str) -> None:
    """Connect to the Ray at host:port.

    Raises:
        NoRay: nothing answers there, or that Ray cannot be used (other versions, wrong token).
    """
    try:
        knock(address)  # Ray itself would keep trying for a minute
        with loopback_kept(), _sigterm_kept():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise NoRay(
            f"--address {address}: no Ray answers there ({error}); start one with `ray start --head`, or "
            "leave --address out to have one started on this machine"
        ) from None
    except (RuntimeError, RayError) as error:  # other versions, a token that is missing or wrong
        raise NoRay(
            f"--address {address}: the Ray there cannot be used: {error}\nPython and ray must be equal to "
            "the last digit; a token is given by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=file"
        ) from None


def disconnect() -> None:
    """Disconnect this process from its Ray."""
    with _sigterm_kept():
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep this process' handler of SIGTERM while Ray connects or disconnects, in whichever thread.

    Connecting, Ray installs a handler of its own in C, which aborts the process 3 s after the signal, in the midst of an
    orderly stop. Disconnecting, it sets the system's default, which ends the process at once. Python changes handlers in
    the main thread alone, hence the C library's own function.
    """
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)


LOOK_S = 5.0
"""Least time between two checks for nodes that joined the cluster."""

PATIENCE_S, OWN_PATIENCE_S = 10.0, 1.0
"""Seconds for which an existing Ray, or one of our own, may not answer before it is lost. The head of a cluster that keeps its
state elsewhere may only restart; one of our own never comes back. Ray itself would end this process after 60 s."""

Answer = Future[Any]
"""The answer that an actor will give, `ObjectRef.future`."""


@dataclass
class Slot:
    """A place in the pool, and the actor in it. Times are those of time.monotonic."""

    actor: Any
    opening: Answer | None = None
    """Pending answer of `open`; None once the actor is ready and may get tasks."""
    ready: bool = False
    held: list[tuple[Answer, Work]] = field(default_factory=list)
    """(pending answer, task): the first one runs, a second one is queued behind it."""
    asked: Answer | None = None
    """Pending answer of `heartbeat`, if any."""
    asked_at: float = 0.0
    """When it was asked for that."""
    heard_at: float = 0.0
    """When it last answered, or got the running shard."""
    alive_at: float = 0.0
    """When the running shard last gave a sign of life, as far as was known at `heard_at`."""
    node: str = ""
    """Id of the actor's node, once it is known."""
    device: str = ""
    """Kind of its devices, once it is known."""
    kernel_kills: int = 0
    """The actor's count of whom the kernel killed for memory (`oom`), as last heard."""
    failed_starts: int = 0
    """Actors in a row that failed to start in this slot."""
    progress: ShardProgress | None = None
    """Progress of the running shard at the last sign of life; None before the first one."""

    def begin(self) -> None:
        """Note that a shard begins to run, or that none does."""
        self.alive_at = self.heard_at = time.monotonic()
        self.progress = None


DEATHS = 3
"""A node is set aside once workers died on it during this many different shards. One shard that kills its
workers wherever it runs is no evidence against a node."""


class Nodes:
    """Finds nodes on which workers keep dying; `aside` holds their ids, and new workers start elsewhere."""

    def __init__(self) -> None:
        self._deaths: dict[str, set[int]] = {}
        self.aside: set[str] = set()

    def note_death(self, node: str, shard: int) -> bool:
        """Note that a worker on `node` died while it ran `shard`; return whether to set the node aside."""
        shards = self._deaths.setdefault(node, set())
        shards.add(shard)
        return node not in self.aside and len(shards) >= DEATHS

    def selector(self) -> dict[str, str]:
        """Ray's label selector that excludes the nodes set aside; empty if there are none."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self.aside))})"} if self.aside else {}


class Pool:
    """The connection to Ray, and the actors on it.

    Args:
        settings: the job's `run:` settings.
        address: host:port of a running Ray; not used with `local`.
        local: the Ray to connect to, once it is up.

    Raises:
        NoRay: Ray cannot be reached, or has no node with room for a worker.
        JobError: it is not the one that this process is connected to.
    """

    def __init__(self, settings: RunSettings, address: str | None, local: LocalRay | None) -> None:
        self._settings, self._local = settings, local
        self.slots: list[Slot] = []
        self.nodes, self.reach = Nodes(), Reach(OWN_PATIENCE_S if local else PATIENCE_S)
        self._connected = not ray.is_initialized()
        if self._connected:
            connect(str(address)) if local is None else local.address(connect)
        elif address not in (None, here := ray.get_runtime_context().gcs_address):
            raise JobError(f"--address {address}: this process is connected to the Ray at {here}")
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        """Decide how many actors there are and what each one gets; start them."""
        settings = self._settings
        context = ray.get_runtime_context()
        # Before the first question, which a GCS that ends now would never answer; the raylet's address is in its answer.
        gcs = {"GCS": context.gcs_address}
        self.reach.watch(gcs)
        alive = [node for node in self.reach.ask(ray.nodes) if node["Alive"]]
        here = next((node for node in alive if node["NodeID"] == context.get_node_id()), None)
        if here is None:
            raise NoRay(f"the Ray at {context.gcs_address} has given up the node of this process")
        raylet = f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}"
        self.reach.watch(gcs | {"raylet": raylet})
        nodes = [node["Resources"] for node in alive]
        self.gpus = settings.gpus_per_worker
        if self.gpus is None:
            self.gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
        counts = [self._places(node) for node in nodes]
        if not sum(counts) and not settings.workers:
            most = {kind: max(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU")}
            raise NoRay(
                f"run: a worker takes cpus_per_worker: {settings.cpus_per_worker:g} and gpus_per_worker: {self.gpus:g}; "
                f"the largest node of this Ray has {count(most['CPU'], 'CPU')} and {count(most['GPU'], 'GPU')}"
            )
        self.n = settings.workers or sum(counts)
        self._looked_at = time.monotonic()
        # Ray decides which node gets an actor, so that each node may have to hold as many as fit, or all.
        held = [min(k, self.n) for k in counts]
        shares = [node.get("memory", 0) / k for node, k in zip(nodes, held, strict=True) if k]
        self.node_share = int(min(shares, default=usable_memory(None)))
        self.slots += [Slot(self.actor()) for _ in range(self.n)]

    def joined(self) -> list[Slot]:
        """Return slots with new actors, as many as fit on nodes that joined since the last check.

        None if the job sets `run.workers`, within `LOOK_S` of the last check, and on a local Ray, which has one
        node.
        """
        if self._local or self._settings.workers or time.monotonic() - self._looked_at < LOOK_S:
            return []
        if not self.reach.look():
            return []
        self._looked_at = time.monotonic()
        nodes = [node["Resources"] for node in self.reach.ask(ray.nodes) if node["Alive"]]
        # `n` does not fall when a node goes: the new actors of its slots wait for room, which the next node to join gives them.
        new = max(0, sum(self._places(node) for node in nodes) - self.n)
        self.n += new
        return [Slot(self.actor()) for _ in range(new)]

    def _places(self, node: Mapping[str, float]) -> int:
        places = node.get("CPU", 0) / self._settings.cpus_per_worker
        return int(min(places, node.get("GPU", 0) / self.gpus) if self.gpus else places)

    @property
    def devices(self) -> int:
        """JAX devices that share a worker's memory: its CPU cores, or 1 if it has GPUs."""
        return self._settings.devices(on_gpus=bool(self.gpus))

    def gpu_memory(self) -> int | None:
        """Return the bytes that XLA may use of the GPU of the actor that answers first; None if it has no limit."""

        def first() -> int | None:
            waiting = [slot.actor.device_memory.remote() for slot in self.slots]
            while waiting:
                answered, waiting = ray.wait(waiting)
                with suppress(RayError):  # of an actor that cannot start, Crew.opened tells
                    found: int | None = ray.get(answered[0])
                    return found
            return None

        return self.reach.ask(first)

    def actor(self) -> Any:
        """Start a new actor; its environment fixes devices and threads before it imports anything."""
        threads = str(self._settings.cores)
        # XLA sizes its thread pool by NPROC.
        names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = dict.fromkeys(names, threads)
        if not self.gpus:
            # Ray no longer hides the GPUs from an actor that asked for none.
            env["JAX_PLATFORMS"] = "cpu"
            # One device per core: items are split over them as over GPUs. A user's XLA_FLAGS win.
            if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
                env["JAX_NUM_CPU_DEVICES"] = str(self.devices)
        elif self.gpus < 1:
            # JAX would take three quarters of the GPU; workers that share a GPU share 0.9 of it.
            env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self.gpus:.3f}"
        make = ray.remote(
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self.gpus,
            # The driver decides what follows from a death: it charges the shard, narrows its group, or searches it.
            max_restarts=0,
            max_task_retries=0,
            # A thread beside the one that runs shards, for heartbeats and the order to stop.
            concurrency_groups={"watch": 1},
            runtime_env={"env_vars": env},
            label_selector=self.nodes.selector(),
        )
        return self.reach.ask(make(ShardWorker).remote)

    def kill(self, actor: object) -> None:
        """End an actor, which may be dead or out of reach."""
        self.reach.ask(lambda: ray.kill(actor, no_restart=True))

    def close(self) -> None:
        """Kill the actors, unless they are lost with their Ray; disconnect from it if this pool connected to it."""
        # Actors of a Ray that does not answer end with it, or with the connection.
        holds = self.reach.look()
        with suppress(ExecutorLost):
            while self.slots and holds:
                self.kill(self.slots.pop().actor)
        self.slots.clear()
        self.reach.close()
        if self._connected:
            disconnect()
