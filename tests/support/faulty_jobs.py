"""Jobs of the faulty kernel (`processes.KERNEL`), one item a shard: stores, and how their shards went."""

from jobs.run.prepare import open_or_create
from jobs.spec.job import parse_job
from jobs.store.events import read_events


def make(folder, executor, name, sweep, *, kernel="faulty_kernel", params=None, **run):
    """A planned store for a job whose shards have one item each, unless `run` says otherwise."""
    run = {"microbatch": 1, "shard_items": 1, "backoff_s": 0, **run}
    content = {
        "kernel": kernel,
        "params": params or {"tag": f"{name}-{executor.name}"},
        "sweep": {"grid": sweep},
        "run": run,
    }
    address = str(folder / f"{name}-{executor.name}.zarr")
    return open_or_create(parse_job(content, name), str(folder), name, address, executor)


def attempts(store):
    return {marker.shard.number: marker.attempt for marker in store.committed.markers()}


def errors(store):
    return [event for event in read_events(store) if event.kind == "error"]
