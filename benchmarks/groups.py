"""What groups cost: CPU seconds, memory and files by the number of values of a field that is compiled in.

    python benchmarks/groups.py [--groups 100 1000] [--items 1] [--rounds 1]

Each value of such a field is a group, with a program of its own. The kernel computes next to nothing, so that all of it is
the runner's. Each command runs in a process of its own, one after the other:

    plan      `ctd plan`, with no program of XLA compiled yet
    run       `ctd run --executor serial`, likewise: planned, computed, gathered, drawn
    again     the same job in another store: its programs are on disk
    MB        the most that a process has had at a time
    files     files of the store

CPU seconds are those of the whole process, in user and system. With `--rounds` the least of each counts.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from options import parse

MAIN = "from cluster.cli.main import main; main()"
KERNEL = """
import jax.numpy as jnp

from ctd.kernel import Params, Static, Traced, Var, one_shot


class Sum(Params):
    n: Static[int] = 0
    x: Traced[float] = 1.0


def run(static, shared, traced, key):
    return {"y": jnp.sum(traced.x * jnp.arange(static.n + 1, dtype=static.dtype))}


kernel = one_shot("sums", Sum, {"y": Var()}, run)
"""
JOB = """
kernel: sums
sweep: {{grid: {{n: {{range: {groups}}}, x: {{linspace: [0, 1, {items}]}}}}}}
"""


def used(words: Sequence[str], folder: Path, cache: str) -> tuple[float, float]:
    """(CPU seconds, MB) of `ctd WORDS` in a folder."""
    env = os.environ | {"CTD_CACHE": str(folder / cache), "PYTHONPYCACHEPREFIX": str(folder / "pyc")}  # fmt: skip
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    output = folder / "output.txt"
    with output.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", MAIN, *words], cwd=folder, env=env, stdout=file, stderr=file
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"ctd {' '.join(words)}: {output.read_text()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def measured(n: int, items: int, folder: Path) -> list[float]:
    """The row of a job of `n` groups."""
    (folder / "sums.py").write_text(KERNEL)
    (folder / "job.yaml").write_text(JOB.format(groups=n, items=items))
    run = ["run", "job.yaml", "--executor", "serial", "--trust", "--store"]
    row = [*used(["plan", "job.yaml"], folder, "plan")]
    row += [*used([*run, "cold.zarr"], folder, "run"), *used([*run, "warm.zarr"], folder, "run")]
    row.append(sum(path.is_file() for path in (folder / "warm.zarr").rglob("*")))
    for name in ("cold.zarr", "warm.zarr", "plan", "run"):
        shutil.rmtree(folder / name)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--groups", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--items", type=int, default=1, help="items of a group")
    parser.add_argument("--rounds", type=int, default=1)
    options = parse(parser, groups=[2])
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "zarr", "numpy"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}\n")  # fmt: skip
    print("| groups | plan s | MB | run s | MB | again s | MB | files |")
    print(f"|{'---|' * 8}")
    with tempfile.TemporaryDirectory() as name:
        measured(1, options.items, Path(name))  # Python's own compilation
        for n in options.groups:
            rows = [measured(n, options.items, Path(name)) for _ in range(options.rounds)]
            cells = [f"{value:.1f}" if value < 100 else f"{value:,.0f}" for value in map(min, *rows, rows[0])]  # fmt: skip
            print(f"| {n:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
