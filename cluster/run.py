"""Run what is left of a store and gather it: what `ctd run` and `Job.run` have in common."""

from collections.abc import Callable
from typing import NamedTuple

from cluster.cli.display import err, live_progress
from cluster.submit import Again
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.run.executor import Executor, SerialExecutor
from jobs.run.progress import Progress
from jobs.run.shards import reconsider, run_shards
from jobs.run.stop import Stop, signals
from jobs.spec.job import JobSpec
from jobs.store.store import Store


def make_executor(name: str, spec: JobSpec, address: str | None) -> Executor:
    if name == "serial":
        if address:
            raise JobError("--address: goes with --executor ray")
        return SerialExecutor(spec.run.memory_gb)
    from cluster.ray.executor import RayExecutor

    return RayExecutor(spec.run, address)


class Ran(NamedTuple):
    store: Store
    progress: Progress


def compute(
    make: Callable[[Executor], Store], executor: Executor, again: Again, quiet: bool = False
) -> Ran:
    stop = Stop()
    with signals(stop):
        try:
            store = make(executor)
            reconsider(store, again.failed, again.accept_changes)
            with live_progress(quiet=quiet) as listener:
                progress = run_shards(store, executor, listener, stop)
            if progress.stopped is None:
                gather(store, executor)
        finally:
            executor.close()
    return Ran(store, progress)


def say_what_failed(store: Store, progress: Progress) -> None:
    for what, found in (("shard", progress.failed), ("item", progress.failed_items)):
        for number, error in list(found.items())[:5]:
            err.print(f"{what} {number} failed: {error}", style="red")
        if found:
            some = next(iter(found))
            err.print(
                f"{len(found)} {what}s failed; `ctd logs {store.address} --{what} {some}` tells more, "
                f"`ctd resume {store.address}{' --failed' if what == 'item' else ''}` tries again"
            )
