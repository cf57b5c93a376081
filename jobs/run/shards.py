"""Run the shards of a store, all or one part, under a lease. jobs.run.driver has the loop of a run.

Several drivers may share a store: its shards are in parts, each part under its own lease. Shard s is in part s mod n; if the
job has a search, search g is in part g mod n, because one driver decides for all of its items. A driver goes through the
parts, starting at its own, and runs every part that no other driver holds. So the parts of a driver that died or never
started are run as well. The lease of a part is a `jobs.storage.lease` in the folder run/parts/PPPP.
"""

import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain

from obstore.store import ObjectStore

from jobs import keys
from jobs.errors import count
from jobs.plan.layout import Shard
from jobs.run.driver import Driver
from jobs.run.ledger import Ledger
from jobs.run.progress import Listener, Progress, progress_of
from jobs.run.rounds import forget_search
from jobs.run.sources import accept_changes, refuse_changed
from jobs.run.stop import Stop
from jobs.run.task import Begin, Executor
from jobs.search.method import Method
from jobs.spec.run import LAYOUT, RunSettings
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.storage.lease import (
    POLL_S,
    Lease,
    LeaseHeld,
    LeaseRecord,
    held_by,
    holder,
    last_seen,
    part_place,
    part_places,
    running,
)
from jobs.store.checkpoint import progress_in_checkpoints
from jobs.store.events import Events, Kill, Remark
from jobs.store.look import Look
from jobs.store.store import Store, change_job

YIELD_S = 5.0
"""Seconds for drivers of parts to give way to one of the whole that started at the same moment."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `n_parts`."""

    number: int
    n_parts: int

    def __contains__(self, turn: int) -> bool:
        return turn % self.n_parts == self.number


def run_shards(
    store: Store,
    executor: Executor,
    listener: Listener = lambda p: None,
    stop: Stop | None = None,
    part: Part | None = None,
) -> Progress:
    """Run every shard of the store that is not committed; return the progress (`failed`: shards given up).

    part: only the shards of this part, beside drivers that have other parts. stop: once it is asked for, no further shard begins,
    and the workers have `run.grace_s` seconds to leave theirs at a checkpoint; `stopped` then has the reason.

    Raises LeaseHeld if another driver runs the store or the part; JobError if the kernel's source has changed since
    the store was made; ExecutorLost if the executor is lost: committed shards stay, and another executor can go on.
    """
    stop = stop or Stop()
    refuse_changed(store)
    # Nothing to do needs no lease, and so no right to write.
    if len(store.committed.numbers()) == store.job.plan.n_shards:
        return progress_of(Look(store))
    with claim(store, part).renewing(stop) as lease:
        # Under the lease: another driver may have committed shards until now.
        ledger = open_ledger(store, part)
        # What a killed driver's workers have committed meanwhile is in the ledger; what they commit from now on is computed
        # twice, to the same bytes.
        if ledger.is_open:
            lease.progress = ledger.progress.to_json
            Driver(ledger, executor, listener, stop).run()
            ledger.compact()
    return ledger.progress


def run_parts(
    store: Store, executor: Executor, first: int, n: int, listener: Listener, stop: Stop
) -> Progress:
    """Run those of `n` parts that no other driver holds, from part `first` on; return the progress of the whole store.

    After a stop, the progress is that of the last part's driver.
    """
    done: list[Progress] = []
    within = store.job.plan.n_shards  # later parts have no shard
    for k in chain(range(first, min(n, within)), range(min(first, within))):
        part = Part(k, n)
        # Read again for each part: other drivers have committed shards meanwhile.
        if not open_shards(store, store.committed.numbers(), part):
            continue
        with suppress(LeaseHeld):  # another driver came first: it runs this part
            done.append(run_shards(store, executor, listener, stop, part))
            if done[-1].stopped:
                break
    failed = {number: text for progress in done for number, text in progress.failed.items()}
    # A stop may have come because of a storage that fails: nothing more is asked of it.
    if done and done[-1].stopped:
        return replace(done[-1], failed=failed)
    look = Look(store)
    for number in look.committed:  # another driver may have committed them since
        failed.pop(number, None)
    return replace(progress_of(look), failed=failed)


def open_ledger(store: Store, part: Part | None = None) -> Ledger:
    """Return the ledger of a store, with the uncommitted shards of a part (None: of the whole store) queued."""
    ledger = Ledger(Look(store))
    mine = sorted(open_shards(store, ledger.done, part))
    if store.job.spec.search is not None:
        first = lambda number: store.job.plan.together(ledger.shards[number].group)[0]
        groups = sorted({first(number) for number in mine})
        orphaned = [shard for group in groups for shard in ledger.searches.begin(group)]
        store.committed.forget(orphaned)
        return open_ledger(store, part) if orphaned else ledger
    # One listing, instead of a request for each shard, tells which shards left a state to go on from.
    resumable = {int(k.split("/")[-2]) for k in objects.list_keys(store.objects, keys.CHECKPOINTS)}
    if resumable and part is None:
        ledger.progress.begin(progress_in_checkpoints(store, ledger.done).work)
    for number in mine:
        begin: Begin = "resume" if number in resumable else "fresh"
        ledger.queue.push(ledger.failures.task(ledger.shards[number], 1, begin))
    return ledger


# --- parts ----------------------------------------------------------------------------------------


def claim(store: Store, part: Part | None = None) -> Lease:
    """Return the lease of a store, or of a part of it; raise LeaseHeld if a driver of it runs, or one of the other kind.

    If a driver of the whole and drivers of parts start at the same moment, that of the whole wins.
    """
    # Leases that are here already and that nobody renews are dead drivers': they keep nobody out.
    dead = _rivals(store, part, last_seen)
    if others := _rivals(store, part, running):
        raise held_by(store.address, others[0])
    place = store.objects if part is None else part_place(store.address, f"{part.number:04d}")
    before = holder(place)
    lease = Lease.acquire(place, store.address)
    if before is not None and not before.released:
        # Its lease, which had the last sign of life of a driver that was killed, is gone now.
        with closing(Events(store)) as events:
            events.note(Kill(time=before.renewed, host=before.host, pid=before.pid))
    try:
        # Two drivers may both have looked before either had its lease, so each looks again. The driver of the whole store waits for
        # the driver of a part to give way.
        end = time.monotonic() + (YIELD_S if part is None else 0.0)
        while others := [rival for rival in _rivals(store, part, last_seen) if rival not in dead]:
            if time.monotonic() >= end:
                raise held_by(store.address, others[0])
            time.sleep(POLL_S)
    except BaseException:
        lease.release()
        raise
    return lease


def _rivals(
    store: Store, part: Part | None, look: Callable[[ObjectStore], LeaseRecord | None]
) -> list[LeaseRecord]:
    """Return the drivers that `look` finds: of the whole, if we run a part, else of the parts."""
    # Their leases lie in different folders, so neither would exclude the other.
    places = [store.objects] if part is not None else part_places(store.objects, store.address)
    # In parallel, because it takes seconds to tell the lease of a dead driver on another machine from a living one's.
    with ThreadPoolExecutor(16) as threads:
        return [record for record in threads.map(look, places) if record]


def open_shards(store: Store, done: Set[int], part: Part | None) -> set[int]:
    """Return the shards of a part (None: of the store) that are not among the committed ones, `done`."""
    searched, plan = store.job.spec.search is not None, store.job.plan
    turn = lambda shard: shard.group // plan.n_variants if searched else shard.number
    mine = (shard for shard in plan.shards() if part is None or turn(shard) in part)
    return {shard.number for shard in mine} - done


# --- before another run ---------------------------------------------------------------------------


def progress_digest(store: Store) -> str:
    """Return a digest that changes with every committed shard, failing item and checkpoint; "" while there is none."""
    records = (store.committed.latest(), store.failed.latest())
    versions = [
        [(number, entry.version) for number, entry in entries.items()] for entries in records
    ]
    unfinished = objects.stamp(store.objects, (keys.CHECKPOINTS, keys.DECISIONS, keys.ROUNDS))
    return digest(repr((versions, unfinished)).encode()) if unfinished or any(versions) else ""


def take_settings(store: Store, settings: RunSettings) -> list[str]:
    """Take the settings of a run that a job gives for its store; return, as texts, which of those of the layout differ: these stay."""
    old = store.job.spec.run
    run = settings.model_copy(update={name: getattr(old, name) for name in LAYOUT})
    if run != old:  # workers, on other machines too, read the settings in the store
        spec = lambda job: job.spec.model_copy(update={"run": run})
        change_job(store, lambda job: job.model_copy(update={"spec": spec(job)}))
    differ = [name for name in LAYOUT if getattr(settings, name) not in (None, getattr(old, name))]
    return [
        f"run.{name}: {getattr(settings, name)} given; {store.address} keeps the layout that it was made with"
        for name in differ
    ]


def reconsider(store: Store, failed: bool = False, changes: bool = False) -> None:
    """Prepare a store for another run: take back items that failed by themselves, accept changed source.

    Raises LeaseHeld if a driver runs the store; JobError, with nothing changed, if the source has changed and
    `changes` is False.
    """
    if not (failed or changes):
        return
    with claim(store).renewing():
        events = Events(store)
        if not changes:
            refuse_changed(store, failed)  # before anything is removed
        elif edited := accept_changes(store):
            events.note(Remark(text=f"changes accepted: {', '.join(edited)}"))
        if failed and (n := _forget_failed(store)):
            text = f"computed again: the shards of {count(n, 'item')} that failed"
            events.note(Remark(text=text))
        events.close()


def _forget_failed(store: Store) -> int:
    """Take back the shards of all items that failed by themselves, so that they are computed again; return the number of items.

    The caller must hold the store's lease.
    """
    markers = store.committed.markers()
    rows = {marker.shard: {*marker.without} for marker in markers if marker.without}
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


def _with_peers(store: Store, rows: dict[Shard, set[int]], search: Method) -> None:
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
