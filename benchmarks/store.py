"""What a question to a store of a million items costs, against xarray, pandas and DuckDB used directly on it.

    python benchmarks/store.py [--items 1000000] [--rounds 3] [--store FOLDER]

The store has 12 sweep columns and 10 results. Each round, each of them in a fresh process, with the
store's files dropped from the page cache before:

    open       the store, until something can be asked of it
    cold       where + sort + top 20 with all columns, the first question of the process (after `open`)
    warm       the same question again, median of 5
    next       another one, top 40, whose rows have not been read
    group      median and mean over 100 groups, its columns read for the first time
    groups     the same question again, median of 5

    ctd        jobs.open_store, .query
    xarray     xr.open_zarr on the item table: a mask, isel, sortby
    pandas     the same table as a data frame: boolean indexing, sort_values, groupby
    duckdb     the same table in a database of DuckDB's own

and once, what the line `ctd query` takes with all that Python imports. The answers are compared.
Aims: open < 0.3 s; open + cold < 0.5 s; warm < 0.1 s; group < 1 s.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from options import parse

KERNEL = """
import jax.numpy as jnp

from ctd.kernel import Kernel, Outcome, Params, Traced, Var, one_shot

FIELDS = "abcdefhij"
Point = type("Point", (Params,), {
    "__module__": __name__,
    "__annotations__": {name: Traced[float] for name in ("g", "alpha", *FIELDS)} | {"seed": Traced[int]},
    **{name: 0.5 for name in ("g", "alpha", *FIELDS)}, "seed": 0,
})


def run(static, shared, traced, key):
    x = sum(getattr(traced, name) for name in FIELDS)
    y = jnp.sin(13 * x + 7 * traced.seed) + traced.alpha
    return {
        "q": jnp.exp(-20 * traced.a - 3 * y ** 2), "residual": jnp.exp(-traced.a), "basin": traced.b * jnp.cos(y),
        "nrmse": jnp.abs(y) * traced.g, "loss": x * y, "valid_time": 1 / (0.1 + y ** 2),
        "radius": traced.g * (1 + 0.1 * jnp.sin(x)), "iterations": (100 * traced.c).astype(int),
        "success": y > traced.g / 2, "outcome": (y > 0).astype(int),
    }


NAMES = ("q residual basin nrmse loss valid_time radius iterations success outcome").split()
kernel = one_shot("points", Point, {name: Var() for name in NAMES}, run,
                  outcomes=(Outcome("slow", ""), Outcome("converged", "")))
"""

NAMES = ("open", "cold", "warm", "next", "group", "groups")
WHERE, SORT, LIMIT = "q < 1e-6 and success", "-basin", 20
GROUP, AGG = ("g", "alpha"), "median(nrmse), mean(success)"
TOP_SQL = "select * from items where q < 1e-6 and success order by basin desc limit {}"
GROUP_SQL = "select g, alpha, median(nrmse), avg(success::int) from items group by g, alpha order by g, alpha"


def make(folder: Path, n: int) -> str:
    """Compute and gather the store."""
    from jobs.gather.gather import gather
    from jobs.run.prepare import open_or_create
    from jobs.run.shards import run_shards
    from jobs.run.worker import SerialExecutor
    from jobs.spec.job import parse_job

    (folder / "points_kernel.py").write_text(KERNEL)
    samples = n // 1000
    shard = min(n, 62_500)
    spec = {
        "kernel": "points_kernel",
        "sweep": {
            "grid": {name: {"linspace": [0.1, 1.0, 10]} for name in ("g", "alpha")},
            "random": {name: {"uniform": [0, 1]} for name in "abcdefhij"},
            "samples": samples,
            "seeds": 10,
        },
        "run": {"slots": shard, "shard_items": shard, "microbatch": shard},
    }
    address = str(folder / "points.zarr")
    executor = SerialExecutor()
    store = open_or_create(parse_job(spec, "points"), str(folder), "points", address, executor)
    progress = run_shards(store, executor)
    assert progress.items_done == n, progress.failed
    gather(store)
    return address


class Ctd:
    """The questions by jobs.open_store."""

    def __init__(self, address: str) -> None:
        import jobs

        self.store = jobs.open_store(address)

    def top(self, limit):
        return self.store.query(WHERE, sort=SORT, limit=limit)

    def group(self):
        return self.store.query(group_by=GROUP, agg=AGG)


class Xarray:
    """By xarray alone, as one would write it."""

    def __init__(self, address: str) -> None:
        import xarray as xr

        self.items = xr.open_zarr(address, group="items", chunks=None)

    def top(self, limit):
        import numpy as np

        keep = (self.items.q < 1e-6) & self.items.success
        found = self.items.isel(item=np.flatnonzero(keep))
        return (
            found.sortby("basin", ascending=False)
            .isel(item=slice(limit))
            .to_dataframe()
            .reset_index()
        )

    def group(self):
        both = self.items[["nrmse", "success"]].groupby(list(GROUP))
        return both.median().nrmse.to_dataframe(), both.mean().success.to_dataframe()


class Pandas:
    """By a data frame of the whole table."""

    def __init__(self, address: str) -> None:
        import xarray as xr

        self.frame = xr.open_zarr(address, group="items", chunks=None).to_dataframe().reset_index()

    def top(self, limit):
        frame = self.frame
        return (
            frame[(frame.q < 1e-6) & frame.success]
            .sort_values("basin", ascending=False)
            .head(limit)
        )

    def group(self):
        return self.frame.groupby(list(GROUP)).agg(a=("nrmse", "median"), b=("success", "mean"))


class Duckdb(Pandas):
    """By a database that has taken the table in."""

    def __init__(self, address: str) -> None:
        import duckdb

        super().__init__(address)
        self.database = duckdb.connect(":memory:")
        self.database.register("frame", self.frame)
        self.database.execute("create table items as select * from frame")

    def top(self, limit):
        return self.database.sql(TOP_SQL.format(limit)).df()

    def group(self):
        return self.database.sql(GROUP_SQL).df()


KINDS: dict[str, Any] = {
    "ctd": Ctd,
    "xarray": Xarray,
    "pandas": Pandas,
    "duckdb": Duckdb,
}


def measure(method: str, address: str) -> dict[str, object]:
    """One method in this process, which has imported everything and read nothing of the store."""
    import pandas as pd  # noqa: F401
    import xarray as xr  # noqa: F401

    import jobs
    import jobs.query.tree  # noqa: F401

    drop(Path(address))
    start = time.perf_counter()
    opened = KINDS[method](address)
    times = {"open": time.perf_counter() - start}
    times["cold"], frame = timed(opened.top, LIMIT)
    times["warm"] = statistics.median(timed(opened.top, LIMIT)[0] for _ in range(5))
    times["next"], _ = timed(opened.top, 2 * LIMIT)
    times["group"], _ = timed(opened.group)
    times["groups"] = statistics.median(
        timed(opened.group)[0] for _ in range(5 * (method != "xarray") or 1)
    )
    return {"times": times, "answer": [float(value) for value in frame["basin"]]}


def timed(call, *args):
    start = time.perf_counter()
    found = call(*args)
    return time.perf_counter() - start, found


def drop(folder: Path) -> None:
    """Take the files out of the page cache, so that they are read from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000, help="a multiple of 1000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--store", type=Path, help="keep the store here, or use the one that is here"
    )
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--method", choices=KINDS, help=argparse.SUPPRESS)
    args = parse(parser, items=1000, rounds=1, methods=["ctd", "xarray"])
    if args.method:
        print(json.dumps(measure(args.method, str(args.store))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.store or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(folder, args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    address = str(folder / "points.zarr")
    if not Path(address).exists():
        start = time.perf_counter()
        make(folder, args.items)
        print(f"store of {args.items:,} items made in {time.perf_counter() - start:.1f} s")
    files = [path.stat().st_size for path in Path(address, "items").rglob("c/*") if path.is_file()]
    print(
        f"item table: {len(files)} objects, {sum(files) / 1e6:.0f} MB, largest {max(files) / 1e6:.1f} MB"
    )
    found = {method: [] for method in args.methods}
    answers = set()
    for _ in range(args.rounds):
        for method in args.methods:
            run = [sys.executable, __file__, "--store", address, "--method", method]
            reply = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
            found[method].append(reply["times"])
            answers.add(tuple(reply["answer"]))
    print(f"{'':8}" + "".join(f"{name:>21}" for name in NAMES))
    for method, times in found.items():
        cells = []
        for name in NAMES:
            values = [one[name] for one in times]
            cells.append(f"{statistics.median(values):9.3f} ({min(values):.3f}-{max(values):.3f})")
        print(f"{method:8}" + "".join(f"{cell:>21}" for cell in cells))
    assert len(answers) == 1, "they do not agree"
    drop(Path(address))
    command = [sys.executable, "-m", "cluster.cli.main", "query"]
    line = [*command, address, "--where", WHERE, "--sort", SORT, "--limit", str(LIMIT)]
    seconds, _ = timed(lambda: subprocess.run(line, check=True, capture_output=True))
    print(f"the line `ctd query`, all in all: {seconds:.2f} s")
    names = ("numpy", "pandas", "xarray", "zarr")
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, " + ", ".join(f"{x} {version(x)}" for x in names))


if __name__ == "__main__":
    main()
