"""How long a user waits for commands: wall and CPU seconds of each, and the phases of the main job by name.

    python benchmarks/startup.py [--rounds 5] [--job examples/decision_fixed_points.yaml]

Each command runs in a process of its own, `rounds` times; `first` is the first of them, with nothing compiled yet, and the
others are the best of all. Python keeps its bytecode, as it does unless PYTHONDONTWRITEBYTECODE is set. CPU seconds are
those of the command and of the processes that it waited for: not those of Ray's own.

The phases of `ctd run` are read from what it leaves:

    plan       until the store is made: imports, the sizes of an item, the arrays
    workers    until the first shard is begun: imports in workers, the microbatch
    first      until the first shard is committed: it compiles
    others     until the last one is
    gather     until the tables are written
    pictures   until the PNG is
    end        until the process is gone
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from options import parse

ROOT = Path(__file__).parent.parent
STARTED = "--help|--version|kernels|kernels lfads|new fixed_points|schema esn"
ASKED = "status STORE|logs STORE|query STORE|query STORE --group-by outcome --agg count"
MAIN = "from cluster.cli.main import main; main()"


class Took(NamedTuple):
    """What one process took (s)."""

    wall: float
    cpu: float


def timed(words: Sequence[str], folder: Path) -> Took:
    """Run `ctd WORDS` in a folder."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env = clean | {"CTD_CACHE": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "pyc")}
    began = time.perf_counter()
    with open(folder / "said.txt", "w") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", MAIN, *words], cwd=folder, env=env, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"ctd {' '.join(words)}: {(folder / 'said.txt').read_text()}")
    return Took(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


def row(name: str, found: Sequence[Took]) -> str:
    best = min(found, key=lambda took: took.cpu)
    wall = min(took.wall for took in found)
    return f"| {name} | {found[0].wall:.2f} | {wall:.2f} | {best.cpu:.2f} |"


def phases(store: Path, began: float, ended: float) -> dict[str, float]:
    """Phase -> seconds, of the run of a store between two times (seconds since 1970)."""
    from jobs import Store, keys

    opened = Store.open(str(store))
    markers = opened.markers()
    written = lambda path: path.stat().st_mtime
    ends = {
        "plan": written(store / keys.JOB),
        "workers": min(m.started for m in markers),
        "first": min(m.ended for m in markers),
        "others": max(m.ended for m in markers),
        "gather": written(store / keys.sums("gathered")),
        "pictures": written(store.with_suffix(".png")),
        "end": ended,
    }
    times = [began, *ends.values()]
    return {name: b - a for name, a, b in zip(ends, times, times[1:], strict=False)}


def run_main(job: Path, executor: str, rounds: int, folder: Path, smoke: bool) -> list[str]:
    """Lines of the table, and of the phases of the last round."""
    store = folder / f"{executor}.zarr"
    words = ["run", str(job), "--executor", executor, "--store", str(store)]
    if smoke:
        words += ["--set", "sweep.grid.candidate.range=8", "--set", "params.n_trials=2"]
    found = []
    for _ in range(rounds):
        shutil.rmtree(store, ignore_errors=True)
        began = time.time()
        found.append(timed(words, folder))
        ended = time.time()
    parts = ", ".join(f"{name} {s:.2f}" for name, s in phases(store, began, ended).items())
    return [row(f"run, {executor}", found), f"    {executor}: {parts}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--executors", nargs="+", default=["serial", "ray"])
    parser.add_argument("--job", type=Path, default=ROOT / "examples/decision_fixed_points.yaml")
    options = parse(parser, rounds=1, executors=["serial"])
    told = []
    with tempfile.TemporaryDirectory(prefix="ctd-startup-") as place:
        folder, job = Path(place), options.job.resolve()
        print("| ctd | first s | wall s | CPU s |\n|---|---|---|---|")
        for line in STARTED.split("|"):
            found = [timed(line.split(), folder) for _ in range(options.rounds)]
            print(row(line, found), flush=True)
        found = [timed(["plan", str(job)], folder) for _ in range(options.rounds)]
        print(row("plan", found), flush=True)
        for executor in options.executors:
            line, phase = run_main(job, executor, options.rounds, folder, options.smoke)
            print(line, flush=True)
            told.append(phase)
        store = str(folder / f"{options.executors[0]}.zarr")
        for line in ASKED.split("|"):
            words = line.replace("STORE", store).split()
            found = [timed(words, folder) for _ in range(options.rounds)]
            print(row(line, found), flush=True)
    print("\nthe last run, phase by phase (s)", *told, sep="\n")
    names = ("jax", "numpy", "pydantic", "ray", "typer", "zarr")
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"\n{platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}")


if __name__ == "__main__":
    main()
