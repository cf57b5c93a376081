"""What planning a job costs: CPU seconds and memory by the number of items, with nothing computed.

    python benchmarks/plan.py [--items 10000 100000 1000000 10000000]

Each size runs in three processes of their own, for shards of 100 items:

    plan      `expand` makes the columns and groups, `lay_out` the shards, `walk` goes through them once; MB beyond what the
              imports took
    create    all that `ctd run` does before it computes: planned, measured, the empty store written
    start     what a driver reads of that store before it hands out the first shard

MB of these two is all that the process has had at most, some 250 MB of JAX included. The sweep is a grid of one field and
ten seeds of a kernel that comes with the examples. Aim: < 500 MB at 10^7 items in 10^5 shards.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from options import parse

from jobs.spec.job import JobSpec, parse_job

EXAMPLES = str(Path(__file__).parent.parent / "examples")


def job(n: int) -> JobSpec:
    """A job of `n` items."""
    sweep = {"grid": {"coupling": {"linspace": [0, 4, n // 10]}}, "seeds": 10}
    run = {"shard_items": 100, "slots": 100, "microbatch": 100}
    return parse_job({"kernel": "kuramoto", "sweep": sweep, "run": run}, "plan")


def create(n: int, folder: Path) -> dict[str, float]:
    """Seconds to plan the job and create its store."""
    from jobs.run.prepare import open_or_create
    from jobs.run.worker import SerialExecutor

    began = time.process_time()
    store = open_or_create(job(n), EXAMPLES, "plan", str(folder / "plan.zarr"), SerialExecutor(1))
    assert store.job.plan.n_shards == n // 100
    return {"create": time.process_time() - began}


def start(n: int, folder: Path) -> dict[str, float]:
    """Seconds until a driver knows what is to be done."""
    from jobs.run.shards import open_ledger
    from jobs.store.store import Store

    began = time.process_time()
    ledger = open_ledger(Store.open(str(folder / "plan.zarr")))
    assert ledger.progress.n_shards == n // 100
    return {"start": time.process_time() - began}


def plan(n: int, folder: Path) -> dict[str, float]:
    """Seconds of each step, and MB beyond what the imports took."""
    del folder
    from jobs.plan.items import expand
    from jobs.plan.layout import Machines, Sizes, lay_out
    from jobs.spec.job import find_kernel

    kernel = find_kernel("kuramoto", EXAMPLES)
    spec = job(n)
    before = peak()
    times = [time.process_time()]
    items = expand(spec, kernel)
    times.append(time.process_time())
    found = lay_out([(items.n, Sizes(8, 8, 8, 8))], kernel, spec.run, Machines(1000, 10**9))
    times.append(time.process_time())
    shards = sum(1 for _ in found.shards())
    times.append(time.process_time())
    assert shards == found.n_shards == items.n // 100
    names = ("expand", "lay_out", "walk")
    seconds = {name: b - a for name, a, b in zip(names, times, times[1:], strict=False)}
    return seconds | {"MB": peak() - before}


def peak() -> float:
    """MB that this process has had at most; ru_maxrss would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


STEPS: dict[str, Callable[..., dict[str, float]]] = {"plan": plan, "create": create, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000]
    )
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parse(parser, items=[1000])
    if options.step:
        found = STEPS[options.step](*options.items, Path.cwd())
        print(json.dumps(found if "MB" in found else found | {"MB": peak()}))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "pydantic"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {packages}\n")
    print("| items | expand s | lay_out s | walk s | MB | create s | MB | start s | MB |")
    print(f"|{'---|' * 9}")
    for n in options.items:
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                line = [sys.executable, str(Path(__file__).resolve()), "--step", step, "--items", str(n)]  # fmt: skip
                done = subprocess.run(line, check=True, capture_output=True, text=True, cwd=folder)
                found = json.loads(done.stdout)
                cells += [f"{v:.0f}" if k == "MB" else f"{v:.2f}" for k, v in found.items()]
        print(f"| {n:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
