"""How a store grows with its shards: objects, and what each command asks of the storage.

    python benchmarks/growth.py [--shards 200 2000] [--failing 4]

For each number of shards of one item (a kernel that returns its input, so that nothing but the store costs): one
serial run, then one command after another, each in a process of its own. With --failing the item of every so-manyeth
shard fails with an error. `look` is what the page of `ctd watch`
does once a second, the second time that it does it. Requests are the calls to the storage's library: get (also
of ranges, and heads), put, list, delete; on an object store each is a request, but a listing of more than 1000
keys and a deletion of as many take one for each thousand. Seconds and memory are of the whole process, its imports
included: `run` computes in it, which is most of what it takes (benchmarks/many_workers.py: the driver alone).
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from options import parse

KERNEL = """
from ctd.kernel import Params, Traced, Var, one_shot


class Empty(Params):
    x: Traced[float] = 0.0


kernel = one_shot("empty", Empty, {"y": Var()}, lambda static, shared, traced, key: {"y": traced.x})
"""

FAILING = """
import jax
import numpy as np

from ctd.kernel import Params, Static, Traced, Var, one_shot


class Item(Params):
    every: Static[int]
    x: Traced[int] = 0


def run(static, shared, traced, key):
    def answer(x):
        if (x % static.every == static.every - 1).any():
            raise ValueError("this item fails")
        return np.asarray(x, np.float32)

    like = jax.ShapeDtypeStruct((), np.float32)
    return {"y": jax.pure_callback(answer, like, traced.x, vmap_method="expand_dims")}


kernel = one_shot("failing", Item, {"y": Var()}, run)
"""

KINDS = {"get": "get", "get_range": "get", "get_ranges": "get", "head": "get", "put": "put",
         "list": "list", "list_with_delimiter": "list", "delete": "delete"}  # fmt: skip
"""Function of obstore, without `_async` -> what is counted."""

COMMANDS: dict[str, list[str]] = {
    "run": ["run", "job.yaml", "--executor", "serial"],
    "status": ["status", "job.zarr", "--json"],
    "resume": ["resume", "job.zarr", "--executor", "serial"],
    "gather": ["gather", "job.zarr"],
    "query": ["query", "job.zarr", "--limit", "3"],
    "look": [],
    "report": ["report", "job.zarr"],
    "check": ["check", "job.zarr"],
}


def counted() -> Counter[str]:
    """Count from now on the calls to the storage's library in this process."""
    import obstore

    counts: Counter[str] = Counter()

    def counting(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counts[kind] += 1
            return call(*args, **kwargs)

        return wrapped

    for name, kind in KINDS.items():
        for full in (name, f"{name}_async"):
            if call := getattr(obstore, full, None):
                setattr(obstore, full, counting(kind, call))
    return counts


def one(command: str, told: Path) -> None:
    """Run one command, and write what it asked of the storage."""
    counts = counted()
    try:
        if command == "look":
            look(counts)
        else:
            from cluster.cli.main import app

            app(COMMANDS[command])
    finally:
        status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with our parent's
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        told.write_text(json.dumps(counts | {"MB": int(peak) * 1024 / 1e6}))


def look(counts: Counter[str]) -> None:
    """Look at a store twice, and forget what the first look asked for."""
    from cluster.watch import Maker
    from jobs.store.store import Store

    maker = Maker(Store.open("job.zarr"))
    maker.look()
    counts.clear()
    maker.look()


def write_job(folder: Path, n: int, failing: int) -> None:
    """Write the job of `n` shards, and its kernel."""
    run = {"shard_items": 1, "slots": 1, "microbatch": 1, "retries": 0, "backoff_s": 0}
    job: dict[str, Any] = {"kernel": "own_kernel", "run": run}
    if failing:
        job |= {"params": {"every": failing}, "sweep": {"grid": {"x": {"range": n}}}}
    else:
        job |= {"sweep": {"grid": {"x": {"linspace": [0, 1, n]}}}}
    (folder / "own_kernel.py").write_text(FAILING if failing else KERNEL)
    (folder / "job.yaml").write_text(json.dumps(job))


def measure(n: int, failing: int) -> None:
    """Print a row for each command on a store of `n` shards."""
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), n, failing)
        for command in COMMANDS:
            seconds = -resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            seconds -= resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
            began = time.monotonic()
            line = [sys.executable, str(Path(__file__).resolve()), "--one", command]
            done = subprocess.run(
                line, cwd=folder, capture_output=True, text=True, check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip
            elapsed = time.monotonic() - began
            fine = {0, 1} if failing and command in ("run", "resume") else {0}
            assert done.returncode in fine, f"{command}: {done.stderr[-2000:]}"
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds += used.ru_utime + used.ru_stime
            counts = Counter(json.loads((Path(folder) / "told.json").read_text()))
            took = f"{elapsed:.1f} | {seconds:.1f} | {counts['MB']:.0f}"
            files = [p for p in (Path(folder) / "job.zarr").rglob("*") if p.is_file()]
            of_run = sum("run" in p.relative_to(folder).parts for p in files)
            kinds = " | ".join(f"{counts[kind]:,}" for kind in ("get", "put", "list", "delete"))
            print(
                f"| {n:,} | {command} | {len(files):,} | {of_run:,} | {kinds} | {took} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shards", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--failing", type=int, default=0, help="one shard in so many")
    parser.add_argument("--one", choices=COMMANDS, help=argparse.SUPPRESS)
    options = parse(parser, shards=[20])
    if options.one:
        one(options.one, Path("told.json"))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "zarr", "obstore"))
    print(f"Python {platform.python_version()}, {packages}\n")
    print(
        "| shards | command | objects | below run/ | get | put | list | delete | s | CPU s | MB |"
    )
    print(f"|{'---|' * 11}")
    for n in options.shards:
        measure(n, options.failing)


if __name__ == "__main__":
    main()
