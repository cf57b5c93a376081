"""The pool of the Ray executor: the connection to a Ray, and the slots that hold an actor each, with their heartbeats."""

import ctypes
import os
import signal
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nsmallest
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.ray.actor import Place, ShardWorker
from cluster.ray.local import LocalRay
from cluster.ray.private import loopback_kept, nodes_alone, silence
from cluster.ray.reach import NoRay, Reach, knock
from jobs.errors import JobError, count
from jobs.plan.layout import Machines
from jobs.run.task import ExecutorLost, Heartbeat, Key, ShardProgress, Work
from jobs.run.worker import usable_memory
from jobs.spec.run import RunSettings

SIGACTION_BYTES = 512
"""More than a `struct sigaction` has on any system."""


def connect(address: str) -> None:
    """Connect to the Ray at host:port. NoRay if nothing answers there, or it cannot be used (other versions, wrong token)."""
    try:
        knock(address)  # Ray itself would keep trying for a minute
        silence()
        with loopback_kept(), nodes_alone(address), _sigterm_kept():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except NoRay:
        raise
    except (OSError, ValueError) as error:
        raise NoRay(
            f"--address {address}: no Ray answers there ({error}); start one with `ray start --head`, or "
            "leave --address out to have one started on this machine"
        ) from None
    except (RuntimeError, RayError) as error:
        raise NoRay(
            f"--address {address}: the Ray there cannot be used: {error}\nPython and ray must be equal to "
            "the last digit; a token is given by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=file"
        ) from None


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep this process' handler of SIGTERM while Ray connects or disconnects, in whichever thread.

    Connecting, Ray installs a handler of its own in C, which aborts the process 3 s after the signal, in the midst of an
    orderly stop. Disconnecting, it sets the system's default, which ends the process at once. Python changes handlers in
    the main thread alone, hence the C library's own function.
    """
    library, saved = ctypes.CDLL(None), ctypes.create_string_buffer(SIGACTION_BYTES)
    library.sigaction(signal.SIGTERM, None, saved)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, saved, None)


POLL_S = 1.0
"""Least time after an actor's heartbeat until it is asked for the next one."""

ASKS = 12
"""Actors that are asked at a time, in each of the four ticks a second; if more are running, each is asked less often."""

Answer = Future[Any]
"""The answer that an actor will give, `ObjectRef.future`."""


@dataclass(eq=False)
class Slot:
    """A place in the pool, and the actor in it. Times are those of time.monotonic."""

    actor: Any
    place: Place | None = None
    """The place of the actor; None until it has opened the store."""
    work: Work | None = None
    """The attempt that it runs; None while it opens the store or is idle."""
    answer: Answer = field(default_factory=Future)
    """Its answer to the last thing that it was told to do: to open the store or to run `work`."""
    failed_starts: int = 0
    """Actors in a row that failed to start in this slot."""
    pending: Answer | None = None
    """Pending answer of `heartbeat`, if any."""
    asked_at: float = 0.0
    """When it was asked for that."""
    heard_at: float = 0.0
    """When it last answered, or got its work."""
    alive_at: float = 0.0
    """When its work last gave a sign of life, as far as was known at `heard_at`."""
    progress: ShardProgress | None = None
    """Progress of its work at the last sign of life; None before the first one."""

    def begin(self, work: Work) -> None:
        """Note that the actor gets work."""
        self.work, self.progress = work, None
        self.alive_at = self.heard_at = time.monotonic()

    def silent_s(self, now: float) -> float:
        """Return how long its work has given no sign of life, as far as is known."""
        # An actor whose process is stopped, or in which the kernel holds Python's lock, cannot say that it is silent.
        unanswered = now - self.asked_at if self.pending is not None else 0.0
        return max(self.heard_at - self.alive_at, unanswered)


def heartbeats(slots: Sequence[Slot]) -> Mapping[Key, Heartbeat]:
    """Return the last heartbeat of each running shard, heard seconds ago, or more with many actors; ask for the next ones.

    An actor that was not asked lately is not silent; one that was asked and does not answer is.
    """
    now = time.monotonic()
    running = {slot.work.key: slot for slot in slots if slot.work is not None}
    for slot in running.values():
        if slot.pending is not None and slot.pending.done():
            _note(slot, slot.pending)
    # Ten thousand actors are not asked at once; those first that have not been heard for longest.
    due = [s for s in running.values() if s.pending is None and now - s.heard_at > POLL_S]
    for slot in nsmallest(ASKS, due, key=lambda slot: slot.heard_at):
        ask = slot.actor.heartbeat.options(concurrency_group="watch")
        slot.pending, slot.asked_at = ask.remote().future(), now
    return {key: Heartbeat(slot.progress, slot.silent_s(now)) for key, slot in running.items()}


def _note(slot: Slot, answer: Answer) -> None:
    slot.pending = None
    try:
        shard, beat, kernel_kills = answer.result()
    except RayError:
        return  # if the actor died, the answer of its shard says so
    now = slot.heard_at = time.monotonic()
    if slot.place is not None:
        slot.place = slot.place._replace(kernel_kills=kernel_kills)
    # Of another shard: the answer came after that shard's report, or before the actor began this one.
    if slot.work is not None and slot.work.key[0] == shard:
        slot.progress = beat.progress
        # The actor tells a duration, never a time: the clocks of two machines are not compared.
        slot.alive_at = max(slot.alive_at, now - beat.silent_s)


JOIN_S = 5.0
"""Least time between two checks for nodes that joined the cluster."""

PATIENCE_S, OWN_PATIENCE_S = 10.0, 1.0
"""Seconds for which an existing Ray, or one of our own, may not answer before it is lost. The head of a cluster that keeps its
state elsewhere may only restart; one of our own never comes back. Ray itself would end this process after 60 s."""


def gpu_memory(actors: Sequence[Any]) -> int | None:
    """Return the bytes that XLA may use of the GPU of the actor that answers first; None if it has no limit."""
    waiting = [actor.device_memory.remote() for actor in actors]
    while waiting:
        (first, *_), waiting = ray.wait(waiting)
        with suppress(RayError):  # of an actor that cannot start, Crew tells
            n_bytes: int | None = ray.get(first)
            return n_bytes
    return None


class Pool:
    """The connection to Ray, and the actors on it.

    local: the Ray to connect to, once it is up; None: the one at `address`, host:port.

    Raises NoRay if Ray cannot be reached or has no node with room for a worker, JobError if this process is connected to another.
    """

    def __init__(self, settings: RunSettings, address: str | None, local: LocalRay | None) -> None:
        self._settings, self._local = settings, local
        self.slots: list[Slot] = []
        self.deaths: defaultdict[str, set[int]] = defaultdict(set)
        """Node -> the shards during which a worker died there."""
        self.aside: set[str] = set()
        """Nodes on which no new worker starts, because workers kept dying there."""
        self._connected = not ray.is_initialized()
        if self._connected:
            connect(str(address)) if local is None else local.address(connect)
        elif address not in (None, connected_to := ray.get_runtime_context().gcs_address):
            raise JobError(
                f"--address {address}: this process is connected to the Ray at {connected_to}"
            )
        self.reach = Reach(OWN_PATIENCE_S if local else PATIENCE_S)
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
        self.reach.watch(GCS=context.gcs_address)
        alive = self._alive()
        this_node = next((node for node in alive if node["NodeID"] == context.get_node_id()), None)
        if this_node is None:
            raise NoRay(f"the Ray at {context.gcs_address} has given up the node of this process")
        self.reach.watch(raylet=f"{this_node['NodeManagerAddress']}:{this_node['NodeManagerPort']}")
        nodes = [node["Resources"] for node in alive]
        self._on_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        self._gpus = settings.gpus(self._on_gpus)
        self._devices = settings.devices(on_gpus=bool(self._gpus))
        """JAX devices that share a worker's memory: its CPU cores, or 1 if it has GPUs."""
        counts = [self._places(node) for node in nodes]
        if not sum(counts) and not settings.workers:
            cpus, gpus = (max(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
            raise NoRay(
                f"run: a worker takes cpus_per_worker: {settings.cpus_per_worker:g} and gpus_per_worker: {self._gpus:g}; "
                f"the largest node of this Ray has {count(cpus, 'CPU')} and {count(gpus, 'GPU')}"
            )
        fits = [node.get("CPU", 0) >= settings.cpus_per_worker for node in nodes]
        idle = sum(fit and not node.get("GPU") for fit, node in zip(fits, nodes, strict=True))
        if self._gpus and idle:
            warnings.warn(
                f"{count(idle, 'node')} of this Ray without GPUs will have nothing to do, as each worker takes one; run: "
                "{gpus_per_worker: 0} computes on the CPUs of all nodes",
                stacklevel=2,
            )
        self.n = settings.workers or sum(counts)
        self._looked_at = time.monotonic()
        # Ray decides which node gets an actor, so that each node may have to hold as many as fit, or all.
        most_actors = [min(k, self.n) for k in counts]
        shares = [
            node.get("memory", 0) / k for node, k in zip(nodes, most_actors, strict=True) if k
        ]
        self._node_share = int(min(shares, default=usable_memory(None)))
        self.slots += [Slot(self.actor()) for _ in range(self.n)]

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self.reach.ask(ray.nodes) if node["Alive"]]

    def _places(self, node: Mapping[str, float]) -> int:
        return self._settings.places(node.get("CPU", 0), node.get("GPU", 0), self._on_gpus)

    def joined(self) -> list[Slot]:
        """Add slots with new actors, as many as fit on nodes that joined since the last check, and return them.

        Adds none if the job sets `run.workers`, within `JOIN_S` of the last check, and on a local Ray, which has one node.
        """
        if self._local or self._settings.workers or time.monotonic() - self._looked_at < JOIN_S:
            return []
        if not self.reach.look():
            return []
        self._looked_at = time.monotonic()
        # `n` does not fall when a node goes: the new actors of its slots wait for room, which the next node to join gives them.
        n = sum(self._places(node["Resources"]) for node in self._alive())
        new = [Slot(self.actor()) for _ in range(n - self.n)]
        self.n += len(new)
        self.slots += new
        return new

    def machines(self) -> Machines:
        """Return how many actors there are, and the memory of one of their devices."""
        return Machines(self.n, self._device_memory, self._devices)

    @cached_property
    def _device_memory(self) -> int:
        """Bytes: `run.memory_gb` or else, on a CPU, the worker's share of its node, divided by its devices; on a GPU, XLA's limit."""
        if self._settings.memory_gb:
            return int(self._settings.memory_gb * 1e9) // self._devices
        if self._gpus:
            actors = [slot.actor for slot in self.slots]
            return self.reach.ask(lambda: gpu_memory(actors)) or self._node_share
        return self._node_share // self._devices

    def actor(self) -> Any:
        """Start a new actor; its environment fixes devices and threads before it imports anything."""
        # XLA sizes its thread pool by NPROC.
        names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = dict.fromkeys(names, str(self._settings.cores))
        if not self._gpus:
            # Ray no longer hides the GPUs from an actor that asked for none.
            env["JAX_PLATFORMS"] = "cpu"
            # One device per core: items are split over them as over GPUs. A user's XLA_FLAGS win.
            if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
                env["JAX_NUM_CPU_DEVICES"] = str(self._devices)
        elif self._gpus < 1:
            # JAX would take three quarters of the GPU; workers that share a GPU share 0.9 of it.
            env["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self._gpus:.3f}"
        make = ray.remote(
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self._gpus,
            # The driver decides what follows from a death: it charges the shard, narrows its group, or searches it.
            max_restarts=0,
            max_task_retries=0,
            # A thread beside the one that runs shards, for heartbeats and the order to stop.
            concurrency_groups={"watch": 1},
            runtime_env={"env_vars": env},
            label_selector=self.allowed(),
        )
        return self.reach.ask(make(ShardWorker).remote)

    def allowed(self) -> dict[str, str]:
        """Return Ray's label selector that excludes the nodes set aside; empty if there are none."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self.aside))})"} if self.aside else {}

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
            with _sigterm_kept():
                ray.shutdown()
