"""How long workers wait under halving and ASHA, and what a decision of the driver costs.

    python benchmarks/search.py [--section simulated|decision|ray] [--items 10000] [--repeats 10] [--step 0.05]

simulated   Four workers with a simulated clock compute items whose advances differ fourfold in time. A worker holds 1 or 8
            items at a time and is free once the slowest of them is there. The searchers are the real ones. Shown is
            the share of worker time without work until the last item goes on from a rung, which halving and ASHA decide.
decision    CPU time of tell, decide and ask together, once the reports of a round of 64 items are there (of Optuna: of as many
            as were proposed together, 16). 10,000 items; of Optuna the last 64 of 10,000 trials, those before proposed at random.
ray         27 items on four Ray workers of this machine, one at a time each. An advance sleeps STEP to 4 STEP, by item, so that more
            workers than cores are no matter. Read from the store's decisions: the share of worker time outside of rounds, from
            when each worker has begun one until the last item goes on from a rung. So it has what dispatch and writing cost.

Aim: ASHA idle at most 10 %; a decision under 20 ms.
"""

import argparse
import heapq
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from options import parse

from cluster.ray.executor import RayExecutor
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.search.asha import Asha
from jobs.search.halving import Halving
from jobs.search.optuna import Optuna, sampler_of
from jobs.search.population import Population
from jobs.search.searcher import RoundReport, SearchedItems
from jobs.spec.job import parse_job
from jobs.store.rounds import read_decisions

RUNGS = {"metric": "loss", "min_advances": 4, "eta": 3}
RATE = {"rate": {"loguniform": [1e-4, 1e-1]}, "l2": {"loguniform": [1e-7, 1e-3]}}
END = 2000
"""Advances of an item that goes on from the last rung."""


class Items:
    """Items with a quality of their own, which a metric shows better the older they are."""

    def __init__(self, n, seed):
        rng = np.random.default_rng(seed)
        self.quality, self.noise = rng.normal(size=n), rng.normal(size=n)
        self.step = 4 ** rng.random(n)
        """Seconds of an advance: 1 to 4."""
        self.ages = np.zeros(n, np.int64)

    def report(self, asked):
        """(seconds, RoundReport) of a round."""
        rows = asked.rows
        ages = np.where(asked.rounds < 0, 0, self.ages[asked.parents])
        advances = np.minimum(asked.length, END - ages)
        self.ages[rows] = ages = ages + advances
        metric = self.quality[rows] + self.noise[rows] / np.sqrt(ages)
        seconds = float((advances * self.step[rows]).max())
        return seconds, RoundReport(rows, metric, advances, ages >= END, np.zeros(len(rows), bool))


def begin(search, n, seed, starts=None):
    """The searcher of n items. starts: searched field -> (n,) its first values."""
    return search.searcher(SearchedItems(np.arange(n), seed, (starts or {}).__getitem__))


def simulated(search, n, workers, most, seed):
    """(idle share of worker time until the last promotion, that time in s) of one search."""
    searcher, items = begin(search, n, seed), Items(n, seed)
    busy, spans, now, last, number = [], [], 0.0, 0.0, 0
    while not searcher.ended.all():
        while len(busy) < workers and (asked := searcher.ask(most)) is not None:
            if asked.rounds.max() >= 0:
                last = now
            seconds, told = items.report(asked)
            spans.append((now, now + seconds))
            heapq.heappush(busy, (now + seconds, number, told))
            number += 1
        now, k, told = heapq.heappop(busy)
        searcher.tell(k, told)
        searcher.decide()
    worked = sum(min(b, last) - min(a, last) for a, b in spans)
    return 1 - worked / (workers * last), last


def show_simulated(n, repeats):
    print(f"\n{n} items, four workers, {repeats} seeds: median (least, most)\n")
    print(
        "| search | items a worker | idle until the last promotion | that is after |\n|---|---|---|---|"
    )
    for most in (1, 8):
        for search in (Halving(method="halving", **RUNGS), Asha(method="asha", **RUNGS)):
            found = [simulated(search, n, 4, most, seed) for seed in range(repeats)]
            idle, after = zip(*found, strict=True)
            share = f"{statistics.median(idle):.1%} ({min(idle):.1%}, {max(idle):.1%})"
            print(f"| {search.method} | {most} | {share} | {statistics.median(after):,.0f} s |")


def decisions(searcher, n, most, skip=0):
    """Seconds of each decision, the first `skip` left out."""
    items, waiting, number, found = Items(n, 0), [], 0, []
    while not searcher.ended.all() and number < skip + 10**5:
        while len(waiting) < 4 and (asked := searcher.ask(most)) is not None:
            waiting.append((number, items.report(asked)[1]))
            number += 1
        k, told = waiting.pop(0)
        start = time.process_time()
        searcher.tell(k, told)
        searcher.decide()
        asked = searcher.ask(most)
        found.append(time.process_time() - start)
        if asked is not None:
            waiting.append((number, items.report(asked)[1]))
            number += 1
    return found[skip:]


def show_decision(n):
    pbt = {"method": "population", "metric": "loss", "every": 4, "generations": 4, "params": RATE}
    searches = {
        "halving": Halving(method="halving", **RUNGS),
        "halving, size: 10": Halving(method="halving", size=10, **RUNGS),
        "asha": Asha(method="asha", **RUNGS),
        "population, tournament": Population(**pbt),
        "population, truncation": Population(**pbt, exploit="truncation"),
        "population, size: 10": Population(**pbt, size=10),
    }
    starts = {name: np.full(n, np.mean(law["loguniform"])) for name, law in RATE.items()}
    print(
        f"\n{n:,} items, rounds of 64\n\n| CPU ms a decision | median | 99th percentile | most |\n|---|---|---|---|"
    )
    for name, search in searches.items():
        row(name, decisions(begin(search, n, 0, starts), n, 64))
    import scipy.stats  # noqa: F401  of qmc; its import is no decision

    for sampler in ("random", "tpe", "qmc", "cmaes"):
        for trials in (n // 10, n):
            search = Optuna(
                method="optuna", metric="loss", trials=trials, together=16, params=RATE, sampler="random",
                prune={"min_advances": 4, "eta": 3},
            )  # fmt: skip
            row(
                f"optuna, {sampler}, {trials:,} trials, 16 together",
                last_of(search, sampler, trials),
            )


def last_of(search, sampler, trials):
    """Seconds of the decisions about the last trials, which `sampler` proposes; the others are proposed at random."""
    searcher, items = begin(search, trials, 0), Items(trials, 0)
    number, found = 0, []
    while (asked := searcher.ask(16)) is not None:
        told = items.report(asked)[1]
        if asked.rows[0] > trials - 80 and not found:
            chosen = search.model_copy(update={"sampler": sampler})
            searcher._studies[0].sampler = sampler_of(chosen, 0)
        start = time.process_time()
        searcher.tell(number, told)
        searcher.decide()
        asks = not searcher.ready[searcher.lap > 0].any() and searcher.ready.any()
        number += 1
        if asked.rows[0] > trials - 80 and asks:
            held = searcher.ask(16)
            found.append(time.process_time() - start)
            searcher.tell(number, items.report(held)[1])
            number += 1
    return found


def row(name, seconds):
    found = [statistics.median(seconds), float(np.quantile(seconds, 0.99)), max(seconds)]
    print(f"| {name} | " + " | ".join(f"{1e3 * v:.2f}" for v in found) + " |", flush=True)


KERNEL = """
import time

import jax
import jax.numpy as jnp
from ctd.kernel import Kernel, Params, Traced, Var


class Sleeps(Params):
    step_s: Traced[float] = 0.05


def wait(seconds):
    time.sleep(float(seconds))
    return jnp.int32(1)


def init(static, shared, traced, key):
    quality, noise = jax.random.normal(key, (2,))
    return {"age": jnp.int32(0), "quality": quality, "noise": noise}


def advance(static, shared, traced, key, state):
    one = jax.pure_callback(wait, jax.ShapeDtypeStruct((), "int32"), traced.step_s, vmap_method="sequential")
    return state | {"age": state["age"] + one}


def result(static, shared, traced, key, state):
    return {"loss": state["quality"] + state["noise"] / jnp.sqrt(1.0 + state["age"])}


kernel = Kernel("sleeps", Sleeps, {"loss": Var()}, init, advance, lambda state: state["age"] >= 48, result)
"""


def on_ray(method, step_s, seed, base, executor, workers):
    """(idle share of worker time until the last promotion, that time in s) of one search on Ray."""
    job = {
        "kernel": "sleeps", "seed": seed, "search": {"method": method, **RUNGS},
        "sweep": {"random": {"step_s": {"loguniform": [step_s, 4 * step_s]}}, "samples": 27},
        "run": {"shard_items": 1, "slots": 1, "microbatch": 1},
    }  # fmt: skip
    name = f"{method}-{seed}-{step_s}"
    spec = parse_job(job, name)
    store = open_or_create(spec, str(base), name, str(base / f"{name}.zarr"), executor)
    progress = run_shards(store, executor)
    assert progress.shards_done == 27, progress
    decisions = list(read_decisions(store, 0))
    promoted = [one.asked.rounds.max() >= 0 for one in decisions if one.asked]
    spans = {k: (c.started, c.started + c.seconds) for one in decisions for k, _, c in one.told}
    begin = sorted(a for a, _ in spans.values())[workers - 1]
    last = max(spans[k][0] for k, is_promoted in enumerate(promoted) if is_promoted)
    inside = lambda moment: min(max(moment, begin), last)
    worked = sum(inside(b) - inside(a) for a, b in spans.values())
    return 1 - worked / (workers * (last - begin)), last - begin


def show_ray(repeats, step_s, workers=4):
    print(
        f"\n27 items, {workers} Ray workers, {repeats} seeds: median (least, most)\n\n"
        "| search | idle until the last promotion | that is after |\n|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "sleeps.py").write_text(KERNEL)
        settings = parse_job(
            {"kernel": "sleeps", "run": {"workers": workers, "cpus_per_worker": 0.25}}, ""
        )
        executor = RayExecutor(settings.run)
        try:
            on_ray("asha", step_s / 10, 0, base, executor, workers)  # all workers have started
            methods = ("halving", "asha")
            found = [
                [on_ray(method, step_s, seed, base, executor, workers) for method in methods]
                for seed in range(repeats)
            ]
        finally:
            executor.close()
    for method, results in zip(methods, zip(*found, strict=True), strict=True):
        idle, after = zip(*results, strict=True)
        share = f"{statistics.median(idle):.1%} ({min(idle):.1%}, {max(idle):.1%})"
        print(f"| {method} | {share} | {statistics.median(after):,.1f} s |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--section", choices=["simulated", "decision", "ray"])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--step", type=float, default=0.05, help="ray: shortest advance (s)")
    args = parse(parser, items=200, repeats=1, step=0.005)
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "optuna", "cmaes"))
    machine = platform.processor() or platform.machine()
    print(
        f"{machine}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}, {packages}"
    )
    if args.section in (None, "simulated"):
        for n in (81, 729) if args.items >= 1000 else (27,):
            show_simulated(n, args.repeats)
    if args.section in (None, "decision"):
        show_decision(args.items)
    if args.section in (None, "ray"):
        show_ray(min(args.repeats, 5), args.step)


if __name__ == "__main__":
    main()
