"""Gather at scale, and what a shard's write costs, against plain zarr on the same store in the same run.

    python benchmarks/gather.py [--items 1000000] [--units 100] [--rounds 3] [--workers 8]

gather    a store of fixed-point searches (by default a million candidates of 100 units, 0.8 GB of states)
          is gathered from nothing: unique points, item table, shard table, checksums. Against it: plain zarr
          reads every array of the group, one after another. Each in a process of its own; times are without
          imports and with JAX's compilation cache filled, memory is the process's peak, imports included.
again     the same gather once more, with nothing new, and with one shard new.
write     processes write shards of such results at once: `Store.write_shard` (encode, write, read back,
          hash, commit) against region writes of plain zarr to an array of the same layout.

The ends lie around `--points` states, 1e-9 apart as converged searches are; a tenth never settled. No
search is run. Aims: gather in less than twice the time of plain zarr and under 300 MB; write >= 0.85.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from options import parse

from jobs import keys
from jobs.storage.checksums import digest
from jobs.store.writer import write_shard

N_SHARDS = 8
"""Shards that each process writes."""


def planned(folder: Path, name: str, items: int, units: int, run: dict | None = None):
    """An empty store of `items` searches."""
    import jax
    import numpy as np

    from cluster.cache import use_compilation_cache
    from ctd.cells import get_cell
    from ctd.data import write_hdf5
    from ctd.weights import write_weights
    from jobs.run.prepare import open_or_create
    from jobs.run.worker import SerialExecutor
    from jobs.spec.job import parse_job

    path = folder / f"network{units}.h5"
    if not path.exists():
        cell = get_cell("gru")
        write_weights(path, cell.init(jax.random.key(0), units, 1, 1), "gru")
        states = np.random.default_rng(1).standard_normal((2_000, units))
        write_hdf5(folder / f"states{units}.h5", {"hiddens": states})
    content = {
        "kernel": "fixed_points",
        "params": {
            "cell": "gru",
            "weights": path.name,
            "dtype": "float64",
            "candidates": f"states{units}.h5",
        },
        "sweep": {"grid": {"candidate": {"range": items}}},
        "run": {"workers": 2, **(run or {})},
    }
    address = str(folder / f"{name}.zarr")
    use_compilation_cache()
    spec = parse_job(content, name)
    return open_or_create(spec, str(folder), name, address, SerialExecutor(8))


def results(shard, units: int, points: int) -> dict:
    """What the searches of a shard came to."""
    import numpy as np

    rng = np.random.default_rng(shard.number)
    n = shard.stop - shard.start
    centres = np.random.default_rng(0).standard_normal((points, units))
    outcome = np.where(rng.random(n) < 0.9, 0, 2).astype(np.int32)
    spread = np.where(outcome == 0, 1e-9, 1.0)[:, None]
    point = centres[rng.integers(points, size=n)] + spread * rng.standard_normal((n, units))
    q = 10.0 ** rng.uniform(-30, -21, n)
    return {
        "point": point,
        "q": q,
        "residual": np.sqrt(2 * q),
        "gradient_norm": np.sqrt(q) * rng.random(n),
        "distance": rng.random(n),
        "iterations": rng.integers(20, 400, n).astype(np.int32),
        "outcome": outcome,
        "constant_input": np.zeros((n, 1)),
        "status": np.ones(n, np.int8),
    }


def report(shard):
    """What a shard that took a second says of itself."""
    from ctd.batch import Layout
    from jobs.store.marker import Marker

    return Marker(
        shard=shard, seconds=1.0, host="h", pid=1, device_kind="cpu", platform="cpu",
        layout=Layout(1024, 64, 1),
    )  # fmt: skip


def fill(store, units: int, points: int) -> None:
    import numpy as np

    for shard in store.job.plan.shards():
        if shard.number not in store.committed.numbers():
            values = results(shard, units, points)
            write_shard(store, report(shard), values, np.arange(shard.start, shard.stop))


# --- gather -------------------------------------------------------------------------------------------


def read_plainly(address: str) -> float:
    import zarr

    group = zarr.open_group(f"{address}/results/0", mode="r", use_consolidated=False)
    began = time.perf_counter()
    for _, array in group.arrays():
        array[...]
    return time.perf_counter() - began


def gather_all(address: str) -> float:
    from cluster.cache import use_compilation_cache
    from jobs.gather.gather import gather
    from jobs.store.store import Store

    use_compilation_cache()
    store = Store.open(address)
    assert store.kernel.tables.reduce is not None  # imported
    began = time.perf_counter()
    gather(store)
    return time.perf_counter() - began


TASKS = {"plain zarr": read_plainly, "gather": gather_all}


def apart(task: str, address: str) -> tuple[float, float]:
    """(seconds, peak MB) of a task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--store", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def forget(address: str) -> None:
    """As if it had never been gathered."""
    from jobs.storage import connect, objects

    store = connect.open_objects(address)
    for folder in ("gathered", "items", "shards", "run/sums/gathered"):
        objects.delete_all(store, folder)
    objects.delete(store, "run/sums/gathered.json")


def gathering(folder: Path, args) -> None:
    from jobs.storage import objects
    from jobs.store.store import Store

    store = planned(folder, "gather", args.items, args.units)
    fill(store, args.units, args.points)
    store = Store.open(store.address)
    sizes = [store.array(0, name) for name in [*store.names(0), "status", "item", "candidate"]]
    logical = sum(array.nbytes for array in sizes) / 1e6
    sizes = [p.stat().st_size for p in Path(store.address).rglob("*") if p.is_file()]
    shards = store.job.plan.n_shards
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        forget(store.address)
        for task in TASKS:
            found.setdefault(task, []).append(apart(task, store.address))
        found.setdefault("gather, nothing new", []).append(apart("gather", store.address))
        last = list(store.job.plan.shards())[-1]
        sealed = store.committed.markers(last.group)[-1].to_bytes()
        store.committed.forget([last])
        apart("gather", store.address)
        key = keys.record(keys.DONE, last.group, last.number, digest(sealed))
        objects.write(store.objects, key, sealed)
        found.setdefault("gather, one shard new", []).append(apart("gather", store.address))
    print(
        f"\n{args.items:,} candidates x {args.units} units: {logical:.0f} MB of arrays, {shards} shards, "
        f"{sum(sizes) / 1e6:.0f} MB in {len(sizes)} objects"
    )
    print("\n| | s, median | least | most | MB/s | peak MB |\n|---|---|---|---|---|---|")
    for task, values in found.items():
        seconds = [s for s, _ in values]
        middle = statistics.median(seconds)
        print(
            f"| {task} | {middle:.2f} | {min(seconds):.2f} | {max(seconds):.2f} | "
            f"{logical / middle:.0f} | {max(mb for _, mb in values):.0f} |"
        )
    pairs = zip(found["plain zarr"], found["gather"], strict=True)
    speeds = [plain / ours for (plain, _), (ours, _) in pairs]
    print(f"\nspeed of gather / plain zarr: median {statistics.median(speeds):.2f}, aim >= 0.5")


# --- write --------------------------------------------------------------------------------------------


def write(how: str, address: str, which: int, units: int, points: int, start, ended, cpu) -> None:
    import numpy as np

    from jobs.store.store import Store

    store = Store.open(address)
    shards = [s for s in store.job.plan.shards() if s.number // N_SHARDS == which]
    values = [results(shard, units, points) for shard in shards]
    names = [*store.names(0), "status"]
    rows = [np.arange(shard.start, shard.stop) for shard in shards]
    arrays = {name: store.array(0, name) for name in names}
    start.wait()
    before = time.process_time()
    for shard, some, here in zip(shards, values, rows, strict=True):
        if how == "write_shard":
            write_shard(store, report(shard), some, here)
        else:
            for name, array in arrays.items():
                array[shard.start : shard.stop] = some[name]
    cpu[which] = time.process_time() - before
    ended.wait()


def written(folder: Path, how: str, number: int, args) -> tuple[float, float]:
    """(seconds, CPU seconds) that all processes take together, all ready at the start."""
    shard = 4096
    items = args.workers * N_SHARDS * shard
    store = planned(folder, f"write{number}", items, args.units, {"shard_items": shard})
    context = multiprocessing.get_context("spawn")
    start, ended = (context.Barrier(args.workers + 1) for _ in range(2))
    cpu = context.Array("d", args.workers)
    processes = [
        context.Process(
            target=write, args=(how, store.address, k, args.units, args.points, start, ended, cpu)
        )
        for k in range(args.workers)
    ]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    ended.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    shutil.rmtree(store.address)
    return seconds, sum(cpu)


def writing(folder: Path, args) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for k in range(2 * args.rounds):
        for how in ("plain zarr", "write_shard")[:: 1 if k % 2 else -1]:
            found.setdefault(how, []).append(written(folder, how, k, args))
    megabytes = args.workers * N_SHARDS * 4096 * (8 * args.units + 57) / 1e6
    print(f"\n{args.workers} processes, {N_SHARDS} shards of 4096 items each, {megabytes:.0f} MB")
    print("\n| | MB/s, median | least | most | MB a CPU second |\n|---|---|---|---|---|")
    for how, values in found.items():
        speed = sorted(megabytes / s for s, _ in values)
        cpu = megabytes / statistics.median(c for _, c in values)
        print(
            f"| {how} | {statistics.median(speed):.0f} | {speed[0]:.0f} | {speed[-1]:.0f} | {cpu:.0f} |"
        )
    for what, k in (("MB/s", 0), ("MB a CPU second", 1)):
        pairs = zip(found["plain zarr"], found["write_shard"], strict=True)
        ratios = [plain[k] / ours[k] for plain, ours in pairs]
        shown = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
        print(
            f"\nwrite_shard / plain zarr, {what}: median {statistics.median(ratios):.2f} of {shown}",
            end="",
        )
    print("; aim >= 0.85")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--only", choices=("gather", "write"))
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parse(parser, items=2000, units=5, points=3, rounds=1, only="gather")
    if args.task:
        seconds = TASKS[args.task](args.store)
        status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with our parent's
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        print(json.dumps([seconds, int(peak) * 1024 / 1e6]))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "zarr", "numpy"))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, {packages}")
    with tempfile.TemporaryDirectory(prefix="ctd-") as name:
        if args.only != "gather":
            writing(Path(name), args)
        if args.only != "write":
            gathering(Path(name), args)


if __name__ == "__main__":
    main()
