"""A grown job: a new store that begins with the shards of the old one."""

from dataclasses import replace

import numpy as np

from jobs import keys
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.prepare import create, difference, has_grown, prepare, reopen
from jobs.run.shards import claim
from jobs.run.sources import refuse_changed
from jobs.run.task import Executor
from jobs.spec.job import JobSpec, find_kernel
from jobs.storage import objects
from jobs.storage.lease import Lease
from jobs.store.manifest import origin
from jobs.store.marker import FailedItems
from jobs.store.store import Store
from jobs.store.writer import write_shard


def fork(
    spec: JobSpec, base: str, location: str, address: str, old: Store, executor: Executor
) -> Store:
    """Return the store of `spec` at `address`, with every shard that it shares with `old` copied from there.

    Raises LeaseHeld if a driver runs the new store; JobError if anything but the added sweeps differs, if the kernel's source
    has changed, or if the search compares all items of a group.
    """
    kernel = find_kernel(spec.kernel, base)
    if spec.search != old.job.spec.search:
        raise JobError(
            f"--fork {old.address}: the search differs, and another search, or one of more trials, decides from its first item on; "
            f"run it without --fork\n{difference(old.job.spec, spec)}"
        )
    if not has_grown(old.job.spec, spec, kernel):
        raise JobError(
            f"--fork {old.address}: its items can be kept only if you add sweeps at the end of the list, "
            "`sweep: [{...}, {...}]`, or raise the `samples` of a last sweep without grid and zip, and change nothing else\n"
            f"{difference(old.job.spec, spec)}"
        )
    if spec.search is not None and spec.search.block is None:
        raise JobError(
            f"--fork {old.address}: its search compares all items that share a program, so a grown sweep is another search; only a "
            "search with search.size can go on"
        )
    refuse_changed(old)
    if Store.exists(address):
        store = reopen(spec, address, kernel, location)
    else:
        ready = prepare(spec, base, location, executor.machines)
        # The old groups keep their layouts: others could change their bits.
        before, planned = old.job.plan.layouts, ready.plan.layouts
        plan = replace(ready.plan, layouts=(*before, *planned[len(before) :]))
        store = create(replace(ready, plan=plan), address, {"forked": origin(old.job, old.address)})
    if len(store.committed.numbers()) < store.job.plan.n_shards:
        with claim(store).renewing() as lease:
            _copy(old, store, lease)
    return store


def _copy(old: Store, new: Store, lease: Lease) -> None:
    """Copy the shards that both stores have and `new` lacks; it may be interrupted and repeated."""
    # Microbatches and slots come first: the old ones hold for the new rows of a group, too.
    for prefix in (keys.LAYOUT, keys.SLOTS):
        for key in list(objects.list_keys(old.objects, prefix)):
            # A key that is there stays: before an interruption, shards of the new store may have been computed with it.
            objects.create(new.objects, key, objects.read(old.objects, key) or b"")
    done = new.committed.numbers()
    # By group and rows, because shards may be numbered differently.
    target = {shard[1:]: shard for shard in new.job.plan.shards()}
    failed = old.failed.items()
    for marker in old.committed.markers():
        shard = target.get(marker.shard[1:])
        if shard is None or shard.number in done:
            continue
        _check_items(old, new, shard)
        # Before the marker: it lacks the rows that these records explain.
        if entries := failed.get(marker.shard.number):
            new.failed.add(FailedItems(shard=shard, rows=entries))
        # Other rows hold fill values, which the writer puts there again.
        rows = np.setdiff1d(np.arange(shard.start, shard.stop), marker.without + marker.unused)
        values = {
            name: old.rows(shard.group, name, shard.start, shard.stop)[rows - shard.start]
            for name in [*old.names(shard.group), "status"]
        }
        lease.check()  # another driver may have taken this process for dead
        copied = marker.model_copy(update={"shard": shard, "copied_from": old.address})
        write_shard(new, copied, values, rows)


def _check_items(old: Store, new: Store, shard: Shard) -> None:
    # Of an older ctd, the draws of a second random sweep were those of the first once more.
    random_fields = {name for part in old.job.spec.sweeps() for name in part.random}
    for name in ["item", *sorted(random_fields & {*old.results(shard.group)})]:
        before, after = (s.rows(shard.group, name, shard.start, shard.stop) for s in (old, new))
        if not np.array_equal(before, after):
            mismatch = f"shard {shard.number} has other items there ({name} differs)"
            raise JobError(f"--fork {old.address}: {mismatch}; it cannot be kept")
