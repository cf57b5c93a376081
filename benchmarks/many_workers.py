"""What the driver costs as the number of workers grows: CPU a shard, dispatch latency, memory.

    python benchmarks/many_workers.py [--workers 10 100 1000 10000] [--shards 20000]
    python benchmarks/many_workers.py --workers 1000 --shards 100000 --items 10000000
    python benchmarks/many_workers.py --ray 64 [--shards 20000]    # a real Ray of three node processes

Simulated workers compute nothing. A shard takes 10 s, give or take half; one node of eight workers in fifty takes
five times as long; one attempt in a hundred fails, one in a thousand takes its worker with it. Time is skipped
where nothing happens: the clock shows what was skipped and the CPU seconds of the driver, so that a driver with
too much to do is late. Each size runs in a process of its own.

    CPU        of the driver, a shard; 1 / CPU is the most shards a second
    latency    from the end of a shard to the next one on the same worker
    MB         of the process, imports included: at its peak, which may be the planning; while it runs; growth from a
               tenth of the shards to the end

`--ray`: the executor and its driver on a Ray whose actors only sleep, on CPUs that there are not.

Aims: at 1,000 workers <= 0.3 ms CPU a shard and <= 50 ms latency; < 500 MB at 10^5 shards and 10^7 items.
"""

import argparse
import heapq
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from options import parse

from jobs.plan.layout import Machines, Shard
from jobs.run.driver import Driver
from jobs.run.prepare import open_or_create
from jobs.run.shards import open_ledger
from jobs.run.stop import Stop
from jobs.run.task import Heartbeat, Key, OnTick, Report, ShardProgress, Task, Ticker
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.store.marker import Marker

KERNEL = """
from ctd.kernel import Params, Traced, Var, one_shot


class Empty(Params):
    x: Traced[float] = 0.0


kernel = one_shot("empty", Empty, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.x})
"""
MEDIAN_S, SPREAD, SLOW = 10.0, 0.25, 5.0
"""Duration of a shard: lognormal; how many times longer a slow node takes."""
PER_NODE, SLOW_NODES = 8, 50
FAILS, DIES, RESTART_S = 0.01, 0.001, 5.0
real_clock = time.monotonic


class Clock:
    """Seconds of the driver's CPU, and those that were skipped; takes the place of `time.monotonic`."""

    def __init__(self) -> None:
        self.skipped = self.simulating = 0.0

    def cpu(self) -> float:
        """CPU seconds of this thread, without those of the simulation."""
        return time.thread_time() - self.simulating

    def __call__(self) -> float:
        return self.skipped + self.cpu()

    @contextmanager
    def simulated(self) -> Iterator[None]:
        """Do not count what is done in this block."""
        before = time.thread_time()
        yield
        self.simulating += time.thread_time() - before


class Ended(NamedTuple):
    """When a worker ends what it does, and what that is (None: it starts)."""

    at: float
    worker: int
    task: Task | None
    seconds: float


class Simulated:
    """`jobs.run.task.Executor` whose workers only take their time."""

    name = "simulated"

    def __init__(self, n: int, clock: Clock) -> None:
        self.n, self.clock, self.draw = n, clock, random.Random(n)
        self.free = deque((worker, 0.0) for worker in range(n))
        self.ends: list[Ended] = []
        self.began: dict[Key, tuple[float, int]] = {}
        """Attempt -> when it began, and its worker."""
        self.latencies: list[float] = []

    def machines(self) -> Machines:
        return Machines(self.n, 10**9)

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        self.ticker = Ticker(on_tick)

    def capacity(self) -> int:
        return len(self.free)

    def submit(self, task: Task) -> None:
        with self.clock.simulated():
            worker, since = self.free.popleft()
            if since:
                self.latencies.append(self.clock() - since)
            self._begin(worker, task)

    def _begin(self, worker: int, task: Task) -> None:
        now = self.clock()
        slow = SLOW if worker // PER_NODE % SLOW_NODES == 1 else 1.0
        seconds = slow * MEDIAN_S * self.draw.lognormvariate(0, SPREAD)
        heapq.heappush(self.ends, Ended(now + seconds, worker, task, seconds))
        self.began[task.key] = now, worker

    def try_elsewhere(self, task: Task) -> bool:
        node = self.began[task.shard.number, task.attempt - 1][1] // PER_NODE
        for place in self.free:
            if place[0] // PER_NODE != node:
                self.free.remove(place)
                self._begin(place[0], task)
                return True
        return False

    def end(self, attempt: Key, why: str | None = None) -> None:
        if why is not None:  # nothing hangs; what is slow by chance goes on
            return
        worker = self.began.pop(attempt)[1]
        heapq.heappush(self.ends, Ended(self.clock() + RESTART_S, worker, None, 0.0))

    def wait(self, timeout: float) -> list[Report]:
        self.ticker.tick(self.heartbeats)
        with self.clock.simulated():
            until = self.clock() + timeout
            due = min(until, self.ends[0].at) if self.ends else until
            self.clock.skipped += max(0.0, due - self.clock())
            now, reports = self.clock(), []
            while self.ends and self.ends[0].at <= now:
                reports += self._end(heapq.heappop(self.ends))
        return reports

    def _end(self, end: Ended) -> list[Report]:
        if end.task is None:
            self.free.append((end.worker, 0.0))
            return []
        if end.task.key not in self.began:  # dropped
            return []
        number, attempt, chance = end.task.shard.number, end.task.attempt, self.draw.random()
        del self.began[end.task.key]
        if chance < DIES:
            heapq.heappush(self.ends, Ended(end.at + RESTART_S, end.worker, None, 0.0))
            return [
                Report(number, attempt, None, "the worker died", "", "death", {"died": "killed"})
            ]
        self.free.append((end.worker, end.at))
        if chance < DIES + FAILS:
            return [Report(number, attempt, None, "by chance", "trace " * 50)]
        return [report(number, attempt, end.seconds)]

    def heartbeats(self) -> Mapping[Key, Heartbeat]:
        now, progress = self.clock(), ShardProgress(0, 1)
        return {attempt: Heartbeat(progress, now - at) for attempt, (at, _) in self.began.items()}


def report(shard: int, attempt: int, seconds: float) -> Report:
    marker = Marker(
        shard=Shard(shard, 0, shard, shard + 1), host="node-0001.lab.example.org", pid=12345,
        platform="cpu", device_kind="cpu", seconds=seconds, longest_s=seconds,
        outcomes={"converged": 100},
    )  # fmt: skip
    return Report(shard, attempt, marker)


def planned(folder: Path, shards: int, items: int):
    (folder / "empty_kernel.py").write_text(KERNEL)
    run = {"shard_items": -(-items // shards), "slots": 1, "microbatch": 1, "backoff_s": 0.1}
    sweep = {"grid": {"x": {"linspace": [0, 1, items // 10]}}, "seeds": 10}
    spec = parse_job({"kernel": "empty_kernel", "sweep": sweep, "run": run}, "many")
    return open_or_create(spec, str(folder), "many", str(folder / "many.zarr"), SerialExecutor(1))


def resident() -> float:
    """MB of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """MB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def driven(store, executor, cpu: Callable[[], float]) -> dict[str, float]:
    """Run every shard; return what that cost the driver, by `cpu`."""
    sizes: list[float] = []
    n, before = store.job.plan.n_shards, cpu()
    executor_began = real_clock()

    def listen(progress):
        if progress.shards_done >= n * (len(sizes) + 1) // 10:
            sizes.append(resident())

    ledger = open_ledger(store)
    opened = cpu()
    Driver(ledger, executor, listen, Stop()).run()
    progress = ledger.progress  # a shard may fail by chance as often as it is tried
    assert progress.shards_done + len(progress.failed) == n, progress
    return {
        "CPU ms a shard": 1e3 * (cpu() - opened) / n,
        "open s": opened - before,
        "s": real_clock() - executor_began,
        "peak MB": peak(),
        "running MB": max(sizes),
        "growth MB": max(sizes) - sizes[0],
    }


def simulate(workers: int, shards: int, items: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        store = planned(Path(name), shards, items)
        planning = peak()
        clock = Clock()
        executor = Simulated(workers, clock)
        time.monotonic = clock
        found = driven(store, executor, clock.cpu)
        time.monotonic = real_clock
    late = np.array(executor.latencies[: shards - workers] or [np.nan])
    latency = {f"latency {q} % ms": 1e3 * float(np.percentile(late, q)) for q in (50, 99)}
    return latency | found | {"planned MB": planning}


# --- a real Ray -----------------------------------------------------------------------------------


class Sleeper:
    """An actor of the executor that sleeps in place of computing."""

    SECONDS = 1.0

    def __init__(self) -> None:
        self.shard, self.at = -1, time.monotonic()

    def open(self, address, workers, expected):
        import ray

        from cluster.ray.actor import Place

        del address, workers, expected
        return Place(str(ray.get_runtime_context().get_node_id()), "cpu", 0)

    def do(self, task):
        self.shard, self.at = task.shard.number, time.monotonic()
        time.sleep(self.SECONDS)
        return report(*task.key, seconds=self.SECONDS)

    def heartbeat(self):
        return self.shard, Heartbeat(ShardProgress(), time.monotonic() - self.at), 0

    def interrupt(self):
        pass


def on_ray(workers: int, shards: int) -> dict[str, float]:
    """The same with the executor of a Ray of three nodes; CPU is that of this process, Ray's threads included."""
    from ray.cluster_utils import Cluster

    import cluster.ray.pool
    from cluster.ray.executor import RayExecutor

    cluster.ray.pool.ShardWorker = Sleeper  # type: ignore[attr-defined]  # in its place
    node = {"num_cpus": -(-workers // 3), "object_store_memory": 80 << 20}
    three = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        three.add_node(**node)
    executor = RayExecutor(RunSettings(workers=workers), three.address)
    try:
        with tempfile.TemporaryDirectory() as name:
            store = planned(Path(name), shards, shards * 10)
            executor.start(store.address)
            while executor.capacity() < workers:
                executor.wait(1.0)
            found = driven(store, executor, time.process_time)
            late = workers * found["s"] / shards - Sleeper.SECONDS
            return {"latency ms": 1e3 * late, **found}
    finally:
        executor.close()
        three.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--items", type=int, help="ten a shard if not given")
    parser.add_argument("--ray", type=int, help="this many actors on a real Ray")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a shard on the real Ray")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parse(parser, workers=[10, 100], shards=300)
    items = options.items or 10 * options.shards
    if options.one:
        print(json.dumps(simulate(options.workers[0], options.shards, items)))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "jax", "zarr"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {packages}")
    print(f"{options.shards:,} shards, {items:,} items\n")
    if options.ray:
        Sleeper.SECONDS = options.seconds
        show({f"{options.ray} actors": on_ray(options.ray, options.shards)})
        return
    found = {}
    for n in options.workers:
        line = [sys.executable, __file__, "--one", "--workers", str(n)]
        line += ["--shards", str(options.shards), "--items", str(items)]
        said = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[f"{n:,} workers"] = json.loads(said)
    show(found)


def show(found: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(found.values())))
    print(f"| | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
    for label, values in found.items():
        print(f"| {label} | " + " | ".join(f"{value:.3g}" for value in values.values()) + " |")


if __name__ == "__main__":
    main()
