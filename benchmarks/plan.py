"""What planning a job costs: seconds and memory by the number of items, with nothing computed.

    python benchmarks/plan.py [--items 10000 100000 1000000]

Each size runs in a process of its own. `expand` makes the columns and groups, `lay_out` the shards, `walk` goes
through them once. The sweep is a grid of two fields and ten seeds of a kernel that comes with the examples.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from options import parse

EXAMPLES = str(Path(__file__).parent.parent / "examples")


def measure(n: int) -> dict[str, float]:
    """Seconds of each step, and MB beyond what the imports took."""
    from jobs.plan.items import expand
    from jobs.plan.layout import Machines, Sizes, lay_out
    from jobs.spec.job import RunSettings, find_kernel, parse_job

    kernel = find_kernel("kuramoto", EXAMPLES)
    sweep = {"grid": {"coupling": {"linspace": [0, 4, n // 10]}}, "seeds": 10}
    spec = parse_job({"kernel": "kuramoto", "sweep": sweep}, "plan")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [time.perf_counter()]
    items = expand(spec, kernel)
    times.append(time.perf_counter())
    plan = lay_out(
        [(items.n, Sizes(8, 8, 8, 8))], kernel, RunSettings(shard_items=100), Machines(1000, 10**9)
    )
    times.append(time.perf_counter())
    shards = sum(1 for _ in plan.shards())
    times.append(time.perf_counter())
    assert shards == plan.n_shards == items.n // 100
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = ("expand", "lay_out", "walk")
    seconds = {name: b - a for name, a, b in zip(names, times, times[1:], strict=False)}
    return seconds | {"MB": (after - before) / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parse(parser, items=[1000])
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "pydantic"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {packages}\n")
    print("| items | expand s | lay_out s | walk s | MB |\n|---|---|---|---|---|")
    for n in options.items:
        line = [sys.executable, __file__, "--one", str(n)]
        found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        print(f"| {n:,} | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |")


if __name__ == "__main__":
    main()
