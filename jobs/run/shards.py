"""Run the shards of a store, all or one part, under a lease. jobs.run.driver has the loop of a run."""

from dataclasses import replace

from jobs import keys
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.driver import Driver
from jobs.run.executor import Executor
from jobs.run.ledger import open_ledger
from jobs.run.parts import Part, open_parts, refuse_mixture
from jobs.run.progress import Listener, Progress, progress_of
from jobs.run.search import forget_search
from jobs.run.sources import accept_changes, refuse_changed
from jobs.run.stop import Stop
from jobs.spec.search import Search
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.storage.lease import Held, Lease
from jobs.store.events import Event, Events
from jobs.store.store import Store


def run_shards(
    store: Store,
    executor: Executor,
    listener: Listener = lambda p: None,
    stop: Stop | None = None,
    part: Part | None = None,
) -> Progress:
    """Run every shard of the store that is not committed; return the progress (`failed`: shards given up).

    part: run the shards of this part only, beside other drivers that have other parts.

    stop: after a request, no further shard begins, and the workers have `run.grace_s` seconds to leave theirs at a
    checkpoint; `stopped` then has the reason.

    Raises Held if another driver runs the store or the part; JobError if the kernel's source has changed since
    the store was made; ExecutorLost if the executor is lost: committed shards stay, and another executor can go on.
    """
    stop = stop or Stop()
    refuse_changed(store)
    # Nothing to do needs no lease, and so no right to write.
    if len(store.committed.numbers()) == store.job.plan.n_shards:
        return _without_a_run(store)
    if store.job.provenance.get("merged"):
        raise JobError(
            f"{store.address}: was merged, and the random numbers of its items are those of the stores that it came from, "
            "so that they cannot be computed again here; repair those stores, and merge them again"
        )
    refuse_mixture(store, part)
    place = store.objects if part is None else part.place(store)
    lease = Lease.acquire(place, store.address)
    with lease.held(stop):
        # Under the lease: another driver may have committed shards until now.
        ledger = open_ledger(store, part)
        if ledger.is_open:
            lease.tell = ledger.progress.to_json
            Driver(ledger, executor, listener, stop).run()
            ledger.compact()
    return ledger.progress


def run_parts(
    store: Store, executor: Executor, first: int, n: int, listener: Listener, stop: Stop
) -> Progress:
    """Run the parts, of `n`, that no other driver holds, from part `first` on; return the whole store's progress."""
    failed: dict[int, str] = {}
    failed_items: dict[int, str] = {}
    stopped = None
    for part in open_parts(store, first, n):
        try:
            progress = run_shards(store, executor, listener, stop, part)
        except Held:
            continue  # another driver came first: it runs this part
        failed |= progress.failed
        failed_items |= progress.failed_items
        if stopped := progress.stopped:
            break
    whole = _without_a_run(store)
    return replace(whole, failed=failed, failed_items=failed_items, stopped=stopped)


def _without_a_run(store: Store) -> Progress:
    return progress_of(store, store.committed.markers(), store.failed.items())


def progress_digest(store: Store) -> str:
    """Return a digest that changes with every committed shard, failing item and checkpoint."""
    records = (store.committed.latest(), store.failed.latest())
    known = [[(number, one.version) for number, one in found.items()] for found in records]
    left = objects.digest_of(store.objects, (keys.CHECKPOINTS, keys.DECISIONS, keys.ROUNDS))
    return digest(repr((known, left)).encode())


def reconsider(store: Store, failed: bool = False, changes: bool = False) -> None:
    """Prepare a store for another run: take back items that failed by themselves, accept changed source.

    Raises Held if a driver runs the store; JobError, with nothing changed, if the source has changed and
    `changes` is False.
    """
    if not (failed or changes):
        return
    refuse_mixture(store, None)
    with Lease.acquire(store.objects, store.address).held(Stop()):
        events = Events(store)
        if not changes:
            refuse_changed(store)  # before anything is removed
        elif edited := accept_changes(store):
            events.note(
                Event(kind="decision", text=f"changed source accepted: {', '.join(edited)}")
            )
        if failed and (n := _forget_failed(store)):
            events.note(Event(kind="decision", text=f"{n} items that failed are computed again"))
        events.close()


def _forget_failed(store: Store) -> int:
    """Take back the shards of all items that failed by themselves, so that they are computed again; return the number of items.

    The caller must hold the store's lease.
    """
    rows = {
        marker.shard: {*marker.without} for marker in store.committed.markers() if marker.without
    }
    for record in store.failed.latest().values():
        rows.setdefault(record.shard, set()).update(item.row for item in record.items)
    # In a search out of step the driver has the failed items tried again: GroupSearch.open.
    if (search := store.job.spec.search) and search.in_step:
        _with_peers(store, rows, search)
    # The markers first: a kill in between leaves records without markers, and the next run computes these shards without
    # the failing items. The reverse would leave markers that lack rows for no visible reason.
    store.committed.forget(rows)
    store.failed.forget(rows)
    return sum(map(len, rows.values()))


def _with_peers(store: Store, rows: dict[Shard, set[int]], search: Search) -> None:
    """Add to `rows` the shards whose items were compared with theirs, and have the searches of these groups begin anew."""
    plan = store.job.plan
    for shard, some in list(rows.items()):
        size = search.n_compared(plan.group_sizes[shard.group])
        for block in {row // size for row in some}:
            peers = shard._replace(start=block * size, stop=(block + 1) * size)
            for number in plan.overlapping(peers):
                if home := plan.shard(number):
                    rows.setdefault(home, set())
    for group in {shard.group for shard in rows}:
        forget_search(store, group)
