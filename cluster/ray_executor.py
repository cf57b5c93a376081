"""Run shards on Ray: a pool of actors, one for each device slot, fed one shard at a time.

    driver                          actor (one process, `cpus_per_worker` threads, its own GPUs or none)
    submit(shard, attempt)   ---->  do: read rows, run the kernel, write, commit      (jobs.work.Worker)
    wait() -> Report         <----  a few hundred bytes: no result ever passes through Ray
    progress()               <--->  finished: answered by a second thread of the actor

An actor is fed once it has opened the store, and is never restarted by Ray (`max_restarts=0`): what it
held when it died is known here. The shard that ran is reported with the error, which charges it one
attempt; the one that was queued behind it goes to another actor, uncharged; a new actor takes the place.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from cluster.cache import use_compilation_cache
from cluster.local import LocalRay
from jobs import objects
from jobs.errors import JobError
from jobs.plan import Shard
from jobs.run import available_memory
from jobs.spec import RunSettings
from jobs.work import Report, Worker, said

log = logging.getLogger("ctd")

MAX_STARTS = 3
"""A place whose actors died this often in a row before they were ready stays empty."""

QUEUE_BELOW_S = 1.0
"""Shards shorter than this are queued one behind the running one, which hides the millisecond of a
dispatch; a longer one would rather wait for whichever actor is free first."""

POLL_S = 1.0
"""Actors are asked at most this often how far they are."""


ANSWER_S = 5.0
"""A Ray at a given address answers within this time."""


class ShardWorker:
    """What runs inside an actor. Every method answers: an error is text in the answer."""

    def __init__(self) -> None:
        use_compilation_cache()
        self._worker: Worker | None = None
        self._finished = (-1, 0)

    def open(self, address: str) -> tuple[str, bool] | None:
        """Get ready for a store; otherwise (what went wrong, whether trying again is in vain)."""
        try:
            self._worker = Worker(address)
        except BaseException as error:
            return said(error), isinstance(error, JobError)
        return None

    def do(self, shard: Shard, attempt: int) -> Report:
        """Compute, write and commit one shard."""
        assert self._worker is not None
        self._finished = (shard.number, 0)
        note = lambda n: setattr(self, "_finished", (shard.number, n))
        try:
            return self._worker.do(shard, attempt, note)
        except BaseException as error:  # sys.exit in a kernel, or an error that cannot be printed
            return Report(shard.number, attempt, said(error))

    def finished(self) -> tuple[int, int]:
        """(the shard that runs, how many of its items have finished)."""
        return self._finished

    def device_memory(self) -> int | None:
        """Bytes that XLA may use of one device; None on a CPU."""
        stats = jax.local_devices()[0].memory_stats()
        return int(stats["bytes_limit"]) if stats else None


@dataclass
class _Slot:
    """One actor's place in the pool."""

    actor: Any
    opening: Any = None
    """The answer that is due before the actor may be fed; None once it is ready."""
    ready: bool = False
    held: list[tuple[Any, Shard, int]] = field(default_factory=list)
    """(answer due, shard, attempt): the first one runs, a second is queued behind it."""
    asked: Any = None
    """The `finished` answer that is due."""
    failed_starts: int = 0


class _Pool:
    """The connection to Ray, and the actors."""

    def __init__(self, settings: RunSettings, address: str | None, local: LocalRay | None) -> None:
        self._settings = settings
        self.slots: list[_Slot] = []
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(local.address() if local else str(address))
        elif address not in (None, here := ray.get_runtime_context().gcs_address):
            raise JobError(f"--address {address}: this process is connected to the Ray at {here}")
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        """How many actors there can be, what each may have; start them."""
        settings = self._settings
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.gpus = settings.gpus_per_worker
        if self.gpus is None:
            self.gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
        counts = [self._places(node) for node in nodes]
        if not sum(counts) and not settings.workers:
            most = {kind: max(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU")}
            raise JobError(
                f"run: a worker takes {settings.cpus_per_worker:g} CPUs (cpus_per_worker) and {self.gpus} "
                f"GPUs (gpus_per_worker); the largest node of this Ray has {most['CPU']} and {most['GPU']}"
            )
        self.n = settings.workers or sum(counts)
        held = [min(k, self.n) for k in counts]
        shares = [node.get("memory", 0) / k for node, k in zip(nodes, held, strict=True) if k]
        self.node_share = int(min(shares, default=available_memory()))
        self.slots += [_Slot(self.actor()) for _ in range(self.n)]

    def _places(self, node: Mapping[str, float]) -> int:
        places = node.get("CPU", 0) / self._settings.cpus_per_worker
        return int(min(places, node.get("GPU", 0) / self.gpus) if self.gpus else places)

    def actor(self) -> Any:
        """A new actor: its device and threads are settled before it imports anything."""
        threads = str(max(1, math.floor(self._settings.cpus_per_worker)))
        # NPROC is what XLA sizes its own thread pool by.
        names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = dict.fromkeys(names, threads)
        if not self.gpus:
            # Ray no longer hides the GPUs from an actor that asked for none.
            env["JAX_PLATFORMS"] = "cpu"
        make = ray.remote(
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"watch": 1},
            runtime_env={"env_vars": env},
        )
        return make(ShardWorker).remote()

    def close(self) -> None:
        """Kill the actors; leave Ray if it was this pool that connected to it."""
        while self.slots:
            ray.kill(self.slots.pop().actor, no_restart=True)
        if self._connected:
            ray.shutdown()


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:
            socket.create_connection(
                (host, int(port)), ANSWER_S
            ).close()  # Ray itself tries for a minute
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise JobError(
            f"--address {address}: no Ray answers there ({error}); start one with `ray start --head`, or "
            "leave --address out to have one started on this machine"
        ) from None


class RayExecutor:
    """`jobs.run.Executor` on Ray.

    Args:
        settings: `run:` of the job.
        address: host:port of a running Ray, used as it is and left running. None: a Ray is started on
            this machine and stopped by `close`; neither RAY_ADDRESS nor a Ray that happens to run here is
            looked at ("auto", given explicitly, means the newest one on this machine). A Ray that this
            process is connected to already is used in both cases.

    Construction does not block: Ray starts, and its actors import JAX, while the job is planned. The
    driver itself computes on the CPU and leaves the GPUs to the actors.

    Errors: JobError where Ray cannot be reached, has no room for a single worker, or no worker can open
    the store; from the first method that needs to know.
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
            self._environment = _set_environment(self._local.environment)
        starter = ThreadPoolExecutor(1, "ray-start")
        self._starting: Future[_Pool] = starter.submit(_Pool, settings, address, self._local)
        starter.shutdown(wait=False)
        self._address = ""
        self._returned: list[tuple[Shard, int]] = []
        self._depth = 1
        self._items: dict[int, int] = {}
        self._asked_at = 0.0

    @property
    def _pool(self) -> _Pool:
        return self._starting.result()

    def workers(self) -> int:
        """`run.workers`, or as many as the cluster has room for."""
        return self._pool.n

    def memory(self) -> int:
        """`run.memory_gb`; else what XLA may use of a GPU; else a worker's share of its node."""
        if self._settings.memory_gb:
            return int(self._settings.memory_gb * 1e9)
        if self._pool.gpus:
            answers = [slot.actor.device_memory.remote() for slot in self._pool.slots]
            first, _ = ray.wait(answers)
            return ray.get(first[0]) or self._pool.node_share
        return self._pool.node_share

    def start(self, address: str) -> None:
        """Let every actor open the store."""
        path = objects.local_path(address)
        self._address = str(path.absolute()) if path is not None else address
        for slot in self._pool.slots:
            slot.opening, slot.ready = slot.actor.open.remote(self._address), False

    def capacity(self) -> int:
        """How many shards ready actors can take, less those that wait for a place again."""
        free = sum(max(0, self._depth - len(s.held)) for s in self._pool.slots if s.ready)
        return free - len(self._returned)

    def submit(self, shard: Shard, attempt: int) -> None:
        """Give the shard to the ready actor that holds the fewest."""
        ready = [slot for slot in self._pool.slots if slot.ready]
        slot = min(ready, key=lambda slot: len(slot.held))
        slot.held.append((slot.actor.do.remote(shard, attempt), shard, attempt))

    def wait(self, timeout: float) -> list[Report]:
        """Reports of the shards that ended; JobError once there is no actor left."""
        while self._returned and any(
            len(s.held) < self._depth for s in self._pool.slots if s.ready
        ):
            self.submit(*self._returned.pop(0))
        due: dict[Any, _Slot] = {}
        for slot in self._pool.slots:
            due |= {ref: slot for ref, _, _ in slot.held}
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
            self._items.pop(report.shard, None)
        return reports

    def _opened(self, slot: _Slot) -> None:
        """The actor is ready, or is replaced, or its place stays empty."""
        try:
            fault = ray.get(slot.opening)
        except RayError as error:
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

    def _ended(self, slot: _Slot, come: set[Any]) -> list[Report]:
        """The reports that this actor's answers hold; an answer that never came ends the actor."""
        reports = []
        while slot.held and slot.held[0][0] in come:
            ref, shard, attempt = slot.held.pop(0)
            try:
                report = ray.get(ref)
            except RayTaskError as error:  # the actor lives: its answer could not be sent
                report = Report(shard.number, attempt, _last_line(error))
            except RayError as error:
                kind = _kind_of_death(error)
                text = f"the worker died ({kind}): {_last_line(error)}"
                info = {"died": kind}
                reports.append(Report(shard.number, attempt, text, str(error)[-8000:], info=info))
                self._returned += [(shard, attempt) for _, shard, attempt in slot.held]
                self._replace(slot)
                return reports
            if report.error is None:
                self._depth = 2 if report.info["seconds"] < QUEUE_BELOW_S else 1
            reports.append(report)
        return reports

    def _replace(self, slot: _Slot) -> None:
        """A new actor in the place of one that died (or that Ray lost sight of)."""
        ray.kill(slot.actor, no_restart=True)
        slot.actor, slot.held, slot.asked, slot.ready = self._pool.actor(), [], None, False
        slot.opening = slot.actor.open.remote(self._address)

    def progress(self) -> Mapping[int, int]:
        """Items finished in each running shard, as of the last second or two."""
        now = time.monotonic()
        asking = now - self._asked_at > POLL_S
        if asking:
            self._asked_at = now
        for slot in self._pool.slots:
            if asking and slot.held and slot.asked is None:
                ask = slot.actor.finished.options(concurrency_group="watch")
                slot.asked = ask.remote()
            elif slot.asked is not None and ray.wait([slot.asked], timeout=0)[0]:
                self._note_finished(slot)
        return dict(self._items)

    def _note_finished(self, slot: _Slot) -> None:
        try:
            shard, n = ray.get(slot.asked)
        except RayError:
            return  # its shard's own answer tells
        finally:
            slot.asked = None
        if any(held.number == shard for _, held, _ in slot.held):
            self._items[shard] = n

    def close(self) -> None:
        """End the actors, and the Ray that was started for us."""
        if self._local is not None and not self._local.is_up:
            self._local.stop()  # ends the wait for it
        try:
            pool = self._starting.result()
        except Exception as error:
            log.debug("closing a Ray that never came up: %s", error)
        else:
            pool.close()
        if self._local is not None:
            self._local.stop()
            _set_environment(self._environment)


def _set_environment(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set (or with None, remove) environment variables that Ray reads; returns what was there."""
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray reads them when it is imported, which was earlier.
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    return before


def _kind_of_death(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):  # not a RayActorError
        return "oom"
    return "node" if "node has died" in str(error) else "killed"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:2000]
