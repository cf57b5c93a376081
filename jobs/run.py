"""Run a job: plan it, make or reopen its store, hand out shards, retry, note what happened.

The executor says where a shard runs; everything else about a run is here, once, for all executors.
"""

import heapq
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ctd.kernel import Kernel
from jobs import objects
from jobs.errors import JobError
from jobs.plan import Items, Plan, Shard, expand, lay_out
from jobs.spec import JobSpec, find_kernel, options_of
from jobs.store import Job, Store
from jobs.work import Measured, Report, Worker, measure, provenance


class Executor(Protocol):
    """Where shards run. `submit` at most `capacity()` shards, `wait` for what became of them."""

    name: str

    def workers(self) -> int:
        """How many shards can run at a time."""

    def memory(self) -> int:
        """Bytes that one worker may use for its items."""

    def start(self, address: str) -> None:
        """Get ready for the store at `address`."""

    def capacity(self) -> int:
        """How many more shards it takes now."""

    def submit(self, shard: Shard, attempt: int) -> None:
        """Take a shard; its report comes from `wait`."""

    def wait(self, timeout: float) -> list[Report]:
        """The reports that have come in, waiting for the first at most `timeout` seconds."""

    def progress(self) -> Mapping[int, int]:
        """Shard -> items finished, of the shards now running."""

    def close(self) -> None:
        """Give everything back."""


class SerialExecutor:
    """Runs shards one after another in this process: no cluster, no other process."""

    name = "serial"

    def __init__(self, memory_gb: float | None = None) -> None:
        self._memory = int((memory_gb or 0) * 1e9) or available_memory()
        self._waiting: list[tuple[Shard, int]] = []
        self._worker: Worker | None = None
        self._progress: dict[int, int] = {}

    def workers(self) -> int:
        """One."""
        return 1

    def memory(self) -> int:
        """The memory that is free now, or what was asked for."""
        return self._memory

    def start(self, address: str) -> None:
        """Open the store."""
        self._worker = Worker(address)

    def capacity(self) -> int:
        """One shard at a time."""
        return 1 - len(self._waiting)

    def submit(self, shard: Shard, attempt: int) -> None:
        """Keep the shard for `wait`."""
        self._waiting.append((shard, attempt))

    def wait(self, timeout: float) -> list[Report]:
        """Run the shard that is waiting, however long it takes."""
        del timeout
        assert self._worker is not None
        reports = []
        while self._waiting:
            shard, attempt = self._waiting.pop(0)
            note = lambda n, index=shard.number: self._progress.__setitem__(index, n)
            reports.append(self._worker.do(shard, attempt, note))
            self._progress.pop(shard.number, None)
        return reports

    def progress(self) -> Mapping[int, int]:
        """Items finished in the shard that is running."""
        return dict(self._progress)

    def close(self) -> None:
        """Forget the worker."""
        self._worker = None


def available_memory() -> int:
    """Bytes of memory that this host can still give."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Prepared:
    """A planned job: everything that is known before the first item is computed."""

    spec: JobSpec
    base: str
    kernel: Kernel
    items: Items
    plan: Plan
    measured: list[Measured]


def prepare(
    spec: JobSpec, base: str, where: str, workers: Callable[[], int], memory: Callable[[], int]
) -> Prepared:
    """Validate and plan; reads the groups' data. Raises JobError, writes nothing.

    workers, memory: as `Executor` has them; asked last, since a cluster may take seconds to know.
    """
    kernel = find_kernel(spec.kernel, base)
    options_of(spec, kernel)
    items = expand(spec, kernel, where)
    compiled: dict[Any, int] = {}
    measured = []
    for group in items.groups:
        try:
            measured.append(measure(kernel, group.params, base, compiled))
        except JobError as error:
            raise JobError(f"{where}: {error}") from error
    sizes = [(len(g.items), m.sizes) for g, m in zip(items.groups, measured, strict=True)]
    plan = lay_out(sizes, kernel, spec.run, spec.run.workers or workers(), memory(), where)
    return Prepared(spec, base, kernel, items, plan, measured)


def open_or_create(spec: JobSpec, base: str, where: str, address: str, executor: Executor) -> Store:
    """The job's store, planned and laid out if there is none yet.

    Raises JobError where `address` holds another job, or the job is not valid.
    """
    if Store.exists(address):
        store = Store.open(address)
        if store.job.spec.digest() != spec.digest():
            raise JobError(
                f"{address}: holds another job; give --store another path, or delete it\n"
                + difference(store.job.spec, spec)
            )
        return store
    ready = prepare(spec, base, where, executor.workers, executor.memory)
    shapes: list[dict[str, Any]] = [dict(m.shapes) for m in ready.measured]
    coords = [m.coords for m in ready.measured]
    job = Job(spec, ready.plan, base)
    return Store.create(address, job, ready.items, shapes, coords, provenance())


def difference(old: JobSpec, new: JobSpec) -> str:
    """The fields that differ, one a line: path: old -> new."""

    def leaves(value: Any, path: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            found: dict[str, Any] = {}
            for key, inner in value.items():
                found |= leaves(inner, f"{path}.{key}" if path else key)
            return found
        return {path: value}

    a, b = leaves(old.science()), leaves(new.science())
    absent = "(not given)"
    return "\n".join(
        f"  {path}: {a.get(path, absent)} in the store, {b.get(path, absent)} in the job"
        for path in sorted(a.keys() | b.keys())
        if a.get(path, absent) != b.get(path, absent)
    )


@dataclass
class Progress:
    """Where a run stands; the listener gets it after every change."""

    n_items: int
    n_shards: int
    items_done: int = 0
    shards_done: int = 0
    items_before: int = 0
    """Items that were in the store when this run began."""
    outcomes: dict[str, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    """Shards given up -> the last error."""
    retried: int = 0
    running_items: int = 0
    """Items finished inside shards that are not committed yet."""
    started: float = field(default_factory=time.time)


Listener = Callable[[Progress], None]


class Events:
    """What happened, one JSON line each, in objects of at most `SIZE` lines below run/events/."""

    SIZE = 500

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prefix = f"run/events/{time.time_ns():020d}-{os.getpid()}"
        self._lines: list[str] = []
        self._segment = 0

    def note(self, event: str, **fields: Any) -> None:
        """Add one line; kept in memory until `flush` or a full object."""
        self._lines.append(json.dumps({"time": time.time(), "event": event, **fields}))
        if len(self._lines) >= self.SIZE:
            self.flush()
            self._segment, self._lines = self._segment + 1, []

    def flush(self) -> None:
        """Write the lines that are not in the store yet."""
        if self._lines:
            key = f"{self._prefix}-{self._segment:05d}.jsonl"
            objects.write(self._store.objects, key, ("\n".join(self._lines) + "\n").encode())


def read_events(store: Store) -> list[dict[str, Any]]:
    """All events of all runs on this store, in order."""
    lines = []
    for key in sorted(objects.keys(store.objects, "run/events")):
        lines += (objects.read(store.objects, key) or b"").decode().splitlines()
    return [json.loads(line) for line in lines]


class _Queue:
    """Shards that wait for their turn, each from a time on, and the attempts made at them."""

    def __init__(self, shards: list[Shard]) -> None:
        self._heap = [(0.0, shard.number, shard, 1) for shard in shards]
        heapq.heapify(self._heap)

    def push(self, shard: Shard, attempt: int, wait_s: float) -> None:
        heapq.heappush(self._heap, (time.time() + wait_s, shard.number, shard, attempt))

    def pop(self) -> tuple[Shard, int] | None:
        """A shard whose time has come."""
        if self._heap and self._heap[0][0] <= time.time():
            _, _, shard, attempt = heapq.heappop(self._heap)
            return shard, attempt
        return None

    def __len__(self) -> int:
        return len(self._heap)


def run_shards(store: Store, executor: Executor, listener: Listener = lambda p: None) -> Progress:
    """Run every shard of the store that is not committed; what cannot be done is in `failed`."""
    plan, settings = store.job.plan, store.job.spec.run
    shards = {shard.number: shard for shard in plan.shards()}
    done = store.done()
    progress = Progress(sum(plan.group_sizes), len(shards), shards_done=len(done))
    progress.items_before = sum(shards[k].stop - shards[k].start for k in done)
    progress.items_done = progress.items_before
    for marker in store.markers():
        _count(progress, marker["outcomes"])
    events = Events(store)
    queue = _Queue([shard for index, shard in shards.items() if index not in done])
    if not len(queue):
        return progress
    events.note("run", executor=executor.name, pending=len(queue), workers=executor.workers())
    listener(progress)
    executor.start(store.address)
    in_flight = 0
    try:
        while len(queue) or in_flight:
            while executor.capacity() > 0 and (ready := queue.pop()):
                executor.submit(*ready)
                in_flight += 1
            for report in executor.wait(timeout=1.0 if in_flight else 0.05):
                in_flight -= 1
                _take(report, shards[report.shard], progress, queue, events, settings)
            running = executor.progress()
            progress.running_items = sum(running.values())
            listener(progress)
    finally:
        events.note("end", done=progress.shards_done, failed=len(progress.failed))
        events.flush()
    return progress


def _take(
    report: Report, shard: Shard, progress: Progress, queue: _Queue, events: Events, settings: Any
) -> None:
    """Book one report: done, to be tried again, or given up."""
    if report.error is None:
        progress.shards_done += 1
        progress.items_done += shard.stop - shard.start
        _count(progress, report.info["outcomes"])
        short = {k: report.info[k] for k in ("host", "pid", "seconds", "n_failed")}
        events.note("done", shard=shard.number, attempt=report.attempt, **short)
        return
    events.note(
        "error", shard=shard.number, attempt=report.attempt, error=report.error, trace=report.trace,
        **report.info,
    )  # fmt: skip
    events.flush()
    if report.hopeless or report.attempt > settings.retries:
        progress.failed[shard.number] = report.error
    else:
        progress.retried += 1
        wait = settings.backoff_s * 2 ** (report.attempt - 1)
        queue.push(shard, report.attempt + 1, wait)


def _count(progress: Progress, outcomes: Mapping[str, int]) -> None:
    for name, n in outcomes.items():
        progress.outcomes[name] = progress.outcomes.get(name, 0) + n
