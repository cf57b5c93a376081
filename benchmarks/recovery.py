"""How long a run is held up by a death, and what checkpoints cost.

    python benchmarks/recovery.py [--rounds 3]

On a Ray of a head and two nodes, with a sweep of short shards (about 0.2 s), each round: SIGKILL of one

    worker      the process of an actor
    node        a raylet and everything under it; another node joins in its place
    driver      `ctd run`; `ctd resume` is started half a second later

and the time from the kill to the next commit marker. For a worker and a node it is the time until a new actor
commits its first shard, since the other worker goes on in the meantime.

Checkpoints: a long shard without any, with the default (every 300 s), and with one after every advance (of
which the runner keeps to 2 % of the time), process CPU time, interleaved.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from options import parse

from cluster.ray.private import set_environment
from jobs.run.prepare import open_or_create
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor, Worker
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.store.store import Store

ROOT = Path(__file__).resolve().parent.parent

KERNEL = """
import jax, jax.numpy as jnp
from ctd.kernel import Kernel, Params, Static, Traced, Var


class Walk(Params):
    n: Static[int] = 100
    n_advances: Traced[int] = 20
    rate: Traced[float] = 0.5


def advance(static, shared, traced, key, state):
    key = jax.random.fold_in(key, state["step"])

    def step(k, x):
        noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
        return jnp.tanh(traced.rate * x + noise)

    return {"x": jax.lax.fori_loop(0, 200, step, state["x"]), "step": state["step"] + 1,
            "last": traced.n_advances}


kernel = Kernel(
    "walk", Walk, {"x": Var(("component",), "1", "position")},
    lambda static, shared, traced, key: {
        "x": jnp.zeros(static.n, static.dtype), "step": jnp.int32(0), "last": traced.n_advances},
    advance, lambda s: s["step"] >= s["last"], lambda static, shared, traced, key, s: {"x": s["x"]},
)
"""


def planned(folder: Path, name: str, items: int, params: dict, **run) -> Store:
    run = {"microbatch": 1, "slots": 4, "shard_items": 4, "workers": 2, "backoff_s": 0, **run}
    sweep = {"grid": {"rate": {"linspace": [0.1, 0.9, items]}}}
    content = {"kernel": "recovery_kernel", "params": params, "sweep": sweep, "run": run}
    address = str(folder / f"{name}.zarr")
    spec = parse_job(content, name)
    return open_or_create(spec, str(folder), name, address, SerialExecutor())


class Ray:
    """A head without CPUs and two nodes."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.small = {"object_store_memory": 80 << 20}
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **self.small},
        )
        self.nodes = [self.cluster.add_node(num_cpus=2, **self.small) for _ in range(2)]

    def lose_node(self) -> None:
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=2, **self.small))


def driver(store: Store, address: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "cluster.cli.main",
        "resume",
        store.address,
        "--address",
        address,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(claim, limit_s: float = 300.0) -> float:
    began = time.monotonic()
    while not claim():
        if time.monotonic() - began > limit_s:
            raise TimeoutError
        time.sleep(0.01)
    return time.monotonic() - began


def workers() -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            mine = b"CTD_RECOVERY=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mine and line.startswith(b"ray::ShardWorker"):
            found.append(int(pid))
    return found


def death(
    store: Store, ray: Ray, what: str, process: subprocess.Popen
) -> tuple[float, subprocess.Popen]:
    """Return the seconds from the kill to a new actor's first result (worker, node) or the next one of all (driver), and the driver."""
    until(lambda: len({m.pid for m in store.committed.markers()[-20:]} & set(workers())) == 2)
    before = set(workers())
    if what == "driver":
        process.kill()
        process.wait()
        time.sleep(0.5)  # shards whose actors outlive it by a moment
        done = store.committed.numbers()
        process = driver(store, ray.cluster.address)
        return until(lambda: store.committed.numbers() - done) + 0.5, process
    began = time.monotonic()
    if what == "worker":
        os.kill(min(before), signal.SIGKILL)
    else:
        ray.lose_node()
    # a new actor's first result: what ran in the lost one has a place again
    until(lambda: any(m.pid not in before for m in store.committed.markers()))
    return time.monotonic() - began, process


def deaths(folder: Path, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"worker": [], "node": [], "driver": []}
    ray = Ray()
    for k in range(rounds):
        for what in seconds:
            store = planned(folder, f"{what}{k}", 40_000, {"n_advances": 20})
            process = driver(store, ray.cluster.address)
            try:
                value, process = death(store, ray, what, process)
                seconds[what].append(value)
            finally:
                process.kill()
                process.wait()
    ray.cluster.shutdown()
    return seconds


def checkpoints(folder: Path, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one shard of 32 items with a state of 0.8 MB, by time between checkpoints."""
    labels = {"none": 1e9, "default (300 s)": 300.0, "as often as allowed": 0.0}
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    params = {"n_advances": 20, "n": 6_000}
    for k in range(rounds + 1):
        for number, (label, every) in enumerate(labels.items()):
            store = planned(
                folder, f"c{k}-{number}", 32, params, slots=32, shard_items=32, checkpoint_s=every
            )
            worker = Worker(store.address)
            began = time.process_time()
            report = worker.do(Task(next(store.job.plan.shards())))
            assert report.error is None, report.error
            if k:  # the first round compiles
                seconds[label].append(time.process_time() - began)
        print(json.dumps({label: len(v) for label, v in seconds.items()}), file=sys.stderr)
    assert not list(objects.list_keys(store.objects, "run/checkpoints"))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parse(parser, rounds=1)
    with tempfile.TemporaryDirectory(prefix="ctd-") as name:
        folder = Path(name)
        (folder / "recovery_kernel.py").write_text(KERNEL)
        environment = {
            "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "CTD_RECOVERY": "1",
            "CTD_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        set_environment(environment)
        kept = checkpoints(folder, args.rounds)
        lost = deaths(folder, args.rounds)
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "jax", "zarr"))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, {packages}\n")
    print("| killed | s to a new result, median | least | most |\n|---|---|---|---|")
    for what, values in lost.items():
        print(
            f"| {what} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |"
        )
    print("\n| checkpoints | CPU s a shard, median | over none |\n|---|---|---|")
    base = statistics.median(kept["none"])
    for label, values in kept.items():
        here = statistics.median(values)
        print(f"| {label} | {here:.2f} | {100 * (here / base - 1):+.1f} % |")


if __name__ == "__main__":
    main()
