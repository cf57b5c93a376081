"""What dispatching an empty shard costs: this project's executor against bare Ray actor calls.

    python benchmarks/dispatch.py [--shards 1000] [--workers 2]

In one run, on one Ray and with the same number of actors, round after round:

    bare              an actor method that returns a report-sized tuple; `ray.wait`, one call at a time
    bare + writes     the same, and the method makes the two writes of a shard: a Zarr chunk and a marker
    empty             `run_shards` with actors that compute nothing: queue, retries, events, progress
    empty + writes    the same with the two writes
    shard             `run_shards` with real workers and a kernel that returns its input: rows read, program
                      called, rows written, read back, hashed, marker
    worker            `Worker.do` on the same shards in this process, nothing dispatched

Aim: empty + writes <= 1.5 x bare + the two writes.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ray
import zarr
from options import parse

import cluster.ray.pool
from cluster.ray.actor import Place, ShardWorker
from cluster.ray.executor import RayExecutor
from jobs.plan.layout import Shard
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.task import Report, Task, Work
from jobs.run.worker import Worker
from jobs.spec.job import parse_job
from jobs.spec.run import RunSettings
from jobs.storage import connect, objects
from jobs.store.marker import Marker

KERNEL = """
from ctd.kernel import Params, Traced, Var, one_shot


class Empty(Params):
    x: Traced[float] = 0.0


kernel = one_shot("empty", Empty, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.x})
"""


class Writes:
    """The two writes of a shard: a chunk of one array and a marker."""

    def __init__(self, folder: str, n: int) -> None:
        self.objects = connect.open_objects(folder, create=True)
        store = zarr.storage.ObjectStore(self.objects)
        self.array = zarr.create_array(
            store, name="y", shape=(n,), chunks=(1,), dtype="f4", overwrite=True
        )

    def write(self, shard: int) -> None:
        self.array[shard : shard + 1] = np.float32(1)
        objects.write(self.objects, f"done/{shard:06d}.json", b"{}" * 200)


class Bare:
    """The least that an actor can do."""

    def __init__(self, folder: str, n: int) -> None:
        self.writes = Writes(folder, n)

    def nothing(self, shard: int):
        return report(shard, 1)

    def write(self, shard: int):
        self.writes.write(shard)
        return report(shard, 1)


class EmptyWorker(ShardWorker):
    """An actor of the executor that computes nothing; it writes where the store's name says so."""

    def open(self, address: str, workers: int, expected: Mapping[str, str]) -> Place:
        del workers, expected
        self.writes = Writes(f"{address}-{os.getpid()}", 100_000) if "writes" in address else None
        return Place(str(ray.get_runtime_context().get_node_id()), "cpu", 0)

    def do(self, work: Work) -> Report:
        if self.writes:
            self.writes.write(work.key[0])
        return report(*work.key)


def report(shard: int, attempt: int) -> Report:
    marker = Marker(shard=Shard(shard, 0, shard, shard + 1), host="h", pid=1, platform="cpu")
    return Report(shard, attempt, marker)


def bare(actors, method: str, n: int) -> float:
    """Seconds a call, of which each actor gets the next one when it has answered."""
    start = time.perf_counter()
    numbers = iter(range(n))
    call = lambda actor: getattr(actor, method).remote(next(numbers))
    due = {call(actor): actor for actor in actors}
    left = n - len(due)
    while due:
        (ref, *_), _ = ray.wait(list(due))
        actor = due.pop(ref)
        ray.get(ref)
        if left:
            due[call(actor)] = actor
            left -= 1
    return (time.perf_counter() - start) / n


def executed(folder: Path, name: str, n: int, executor: RayExecutor) -> float:
    """Seconds a shard of `run_shards`, the store planned and the actors warm."""
    store = planned(folder, name, n, executor)
    start = time.perf_counter()
    progress = run_shards(store, executor)
    assert progress.shards_done == n
    return (time.perf_counter() - start) / n


def planned(folder: Path, name: str, n: int, executor: RayExecutor):
    run = {"shard_items": 1, "slots": 1, "microbatch": 1}
    sweep = {"grid": {"x": {"linspace": [0, 1, n]}}}
    spec = parse_job({"kernel": "empty_kernel", "sweep": sweep, "run": run}, name)
    return open_or_create(spec, str(folder), name, str(folder / f"{name}.zarr"), executor)


def worked(folder: Path, name: str, n: int, executor: RayExecutor) -> float:
    """Seconds a shard of `Worker.do` alone, in this process."""
    store = planned(folder, name, n, executor)
    worker = Worker(store.address)
    shards = list(store.job.plan.shards())
    worker.do(Task(shards[0]))
    start = time.perf_counter()
    for shard in shards:
        worker.do(Task(shard))
    return (time.perf_counter() - start) / n


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    args = parse(parser, shards=10, rounds=1)
    n = args.shards
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_kernel.py").write_text(KERNEL)
        started = time.perf_counter()
        # A fifth of a CPU each: there is room for all three kinds of actors, which work in turn.
        settings = RunSettings(workers=args.workers, cpus_per_worker=0.2)
        real = RayExecutor(settings)
        executed(folder, "first", 4 * args.workers, real)
        ready = time.perf_counter() - started
        cluster.ray.pool.ShardWorker = EmptyWorker  # type: ignore[attr-defined]  # in its place
        empty = RayExecutor(settings)
        make = ray.remote(num_cpus=0.01, runtime_env={"env_vars": {"NPROC": "1"}})(Bare)
        actors = [make.remote(str(folder / f"bare{k}"), n) for k in range(args.workers)]
        ray.get([actor.write.remote(0) for actor in actors])
        executed(folder, "warm", 4 * args.workers, empty)
        seconds: dict[str, list[float]] = {}
        for k in range(args.rounds):
            for label, value in (
                ("bare", bare(actors, "nothing", n)),
                ("empty", executed(folder, f"empty{k}", n, empty)),
                ("bare + writes", bare(actors, "write", n)),
                ("empty + writes", executed(folder, f"writes{k}", n, empty)),
                ("shard", executed(folder, f"run{k}", n, real)),
                ("worker", worked(folder, f"work{k}", n // 5, real)),
            ):
                seconds.setdefault(label, []).append(value)
        empty.close()
        real.close()
    show(args, seconds, ready)


def show(args, seconds: dict[str, list[float]], ready: float) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "jax", "zarr"))
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, ",
        end="",
    )
    print(f"Python {platform.python_version()}, {packages}")
    print(f"{args.shards} shards of one item, {args.workers} actors, {args.rounds} rounds")
    print(
        f"from nothing to {4 * args.workers} shards done: {ready:.1f} s (Ray, actors, plan, compile)\n"
    )
    print("| ms a shard | median | least | most |\n|---|---|---|---|")
    for label, values in seconds.items():
        row = [statistics.median(values), min(values), max(values)]
        print(f"| {label} | " + " | ".join(f"{1e3 * v:.2f}" for v in row) + " |")
    rows = zip(*(seconds[k] for k in ("bare", "bare + writes", "empty + writes")), strict=True)
    ratios = [ours / (1.5 * bare + (both - bare)) for bare, both, ours in rows]
    print(
        f"\nempty + writes / (1.5 bare + the writes): median {statistics.median(ratios):.2f}, aim <= 1"
    )


if __name__ == "__main__":
    main()
