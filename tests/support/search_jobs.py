"""Jobs with a search, and what came of them."""

import copy

RATE = {"loguniform": [1e-3, 0.9]}


HALVING = {
    "kernel": "hill",
    "seed": 5,
    "params": {"dtype": "float64", "noise": 0.05, "steps": 60},
    "sweep": {"random": {"rate": RATE}, "samples": 27},
    "search": {"method": "halving", "metric": "loss", "min_advances": 2, "eta": 3},
    "run": {"microbatch": 2, "slots": 4, "checkpoint_s": 0},
}


POPULATION = HALVING | {
    "sweep": {"random": {"rate": RATE}, "samples": 8},
    "search": {
        "method": "population", "metric": "loss", "every": 3, "generations": 9,
        "params": {"rate": RATE},
    },
}  # fmt: skip


def changed(job, path, value):
    """A copy of a job with the field at `a.b` replaced, or taken out where the value is None."""
    job = copy.deepcopy(job)
    *parents, last = path.split(".")
    here = job
    for name in parents:
        here = here.setdefault(name, {})
    here[last] = value
    return job if value is not None else {k: v for k, v in job.items() if k != path}


def results(store, group=0):
    return {name: store.rows(group, name, 0, 10**6) for name in [*store.names(group), "status"]}


def spread(job, shard_items):
    """The job, in shards of so many items."""
    return changed(changed(job, "search.spread", True), "run.shard_items", shard_items)
