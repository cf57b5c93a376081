"""Jobs with a search, and what came of them."""

import atexit
import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path

from stores import run

from jobs.storage import objects

RATE = {"loguniform": [1e-3, 0.9]}


HALVING = {
    "kernel": "hill",
    "seed": 5,
    "params": {"dtype": "float64", "noise": 0.05, "steps": 60},
    "sweep": {"random": {"rate": RATE}, "samples": 27},
    "search": {"method": "halving", "metric": "loss", "min_advances": 2, "eta": 3},
    "run": {"microbatch": 2, "slots": 4, "checkpoint_s": 0, "backoff_s": 0.0},
}


POPULATION = HALVING | {
    "sweep": {"random": {"rate": RATE}, "samples": 8},
    "search": {
        "method": "population", "metric": "loss", "every": 3, "generations": 9,
        "params": {"rate": RATE},
    },
}  # fmt: skip

ROUNDS, DECISIONS = "run/rounds", "run/decisions"


def changed(job, path, value):
    """A copy of a job with the field at `a.b` replaced, or taken out where the value is None."""
    job = copy.deepcopy(job)
    *parents, last = path.split(".")
    here = job
    for name in parents:
        here = here.setdefault(name, {})
    here[last] = value
    return job if value is not None else {k: v for k, v in job.items() if k != path}


SHORT = changed(POPULATION, "search.generations", 6)

JOBS = {
    "halving": HALVING,
    "tournament": SHORT,
    "truncation": changed(SHORT, "search.exploit", "truncation"),
}


def cut(job, n):
    """The job in shards and rounds of at most n items."""
    return changed(job, "run.shard_items", n)


def in_rounds(name):
    """A job of JOBS whose first lap has seven rounds, or each has four."""
    return cut(JOBS[name], 4 if name == "halving" else 2)


@cache
def whole_store(name):
    """The finished store of a job of JOBS in one shard, each lap of which is one round."""
    folder = Path(tempfile.mkdtemp(prefix="rounds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return run(folder / f"{name}.zarr", cut(JOBS[name], 27))[0]


def results(store, group=0):
    return {name: store.rows(group, name, 0, 10**6) for name in [*store.names(group), "status"]}


def left(store, folder=ROUNDS):
    return list(objects.list_keys(store.objects, folder))


def same(store, whole):
    """Every number of every item, and nothing left behind."""
    assert store.job.plan.group_sizes == whole.job.plan.group_sizes
    for group in range(len(store.job.plan.group_sizes)):
        a, b = results(store, group), results(whole, group)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tobytes() == b[name].tobytes(), name
    assert left(store) + left(store, "run/checkpoints") == []
