"""Check every object of a store against its checksum, and repair damaged ones.

    run/job.json, its copy      their own checksums; each is the other's backup                    mending.py
    the kernel's description    its own checksum; made again from the kernel                       mending.py
    metadata, sweep columns     checksums taken at creation; made again from the job               mending.py
    segments of records         a checksum in every line; written again without the lost lines     records.py
    commit markers              their own checksums; a shard without marker is computed again      records.py
    rows of committed shards    all storage objects, by the checksums in the marker                records.py
    notes                       their own checksums; taken from the markers, or learned again      records.py
    leftovers                   removed                                                            (here)
    events, decisions           checksums taken at the end; nothing makes them again               (here)
    other programs' objects     counted, and left alone                                            (here)
    reductions                  checksums taken by gather; reduced again                           mending.py

A repair removes the markers of damaged shards, so that `resume` computes them. Leases, requests and submissions
are not checked: they come and go with runs, and nothing is made from them.
"""

import itertools
import os
import re
import traceback
from collections.abc import Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from jobs import keys
from jobs.errors import advised
from jobs.gather.check.mending import Finding as Finding
from jobs.gather.check.mending import Mending, check_created, check_gathered, check_job
from jobs.gather.check.records import MARKER_LOST as MARKER_LOST
from jobs.gather.check.records import check_markers, check_notes, check_results
from jobs.run.shards import claim
from jobs.spec.trust import refuse_untrusted
from jobs.storage import addresses, objects
from jobs.storage.checksums import read_verified, write_sums
from jobs.store.checkpoint import decode
from jobs.store.rounds import is_whole_round
from jobs.store.store import Store, refuse_links

OTHERS = "not written by ctd: left alone"


def check(address: str, repair: bool = False) -> list[Finding]:
    """List everything that is wrong with a store; with `repair`, repair it as far as possible.

    After a repair, `resume` computes what is missing. Raises JobError if there is no store or both copies of
    run/job.json are damaged; for a repair also if the store is being run, or names code that the user has not trusted.

    >>> check("points.zarr")
    []
    """
    store = Store.open(address)
    if not repair:
        return list(_everything(Mending(store)))
    # A repair imports the kernel, to make metadata and reductions again.
    refuse_untrusted(store.job.base, store.job.spec.modules(), address)
    refuse_links(store)
    lease = claim(store)
    with lease.renewing():
        return list(_everything(Mending(store, lease)))


def damage(error: BaseException) -> str | None:
    """Find the damage behind an error: one line with the object and the cure, or None if the store is whole.

    The stores are those in the error's traceback. Few objects are read: those that creation and gather wrote beside
    the rows. Rows count as damaged if Zarr raised the error.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    locals_ = (value for frame in reversed(frames) for value in frame.f_locals.values())
    for store in dict.fromkeys(store for value in locals_ for store in _stores_of(value)):
        cure = f"; {advised('ctd', 'check', store.address, '--repair')}"
        if addresses.is_zip(addresses.local_path(store.address)):  # which nothing repairs
            cure = ""
        mending = Mending(store)
        # Of a store that is being made, parts are missing: the error says why.
        if not any(mending.exists(key) for key in (keys.JOB, keys.JOB_COPY)):
            continue
        parts = (check_job(mending), check_created(mending), check_gathered(mending))
        for finding in itertools.chain(*parts):
            if finding.cure:
                return f"{store.address}: {finding.key} is {finding.what}{cure}"
        if re.search(r"/(zarr|numcodecs)/", frames[-1].f_code.co_filename):
            fault = f"is damaged ({str(error).partition(chr(10))[0]})"
            return f"{store.address}: {fault}{cure}"
    return None


@runtime_checkable
class _Several(Protocol):
    """Several stores that are asked together (jobs.query.tables)."""

    stores: Sequence[Store]


def _stores_of(value: object) -> list[Store]:
    values = value.stores if isinstance(value, _Several) else [value]
    return [value for value in values if isinstance(value, Store)]


def _everything(mending: Mending) -> Iterator[Finding]:
    # Each part relies on what the earlier ones found or mended: rows on markers, notes and leftovers on intact rows, tables on
    # all of them.
    yield from check_job(mending)
    yield from check_created(mending)
    markers = yield from check_markers(mending)
    yield from check_results(mending, markers)
    yield from check_notes(mending, markers)
    yield from check_leftovers(mending, set(markers))
    yield from check_logs(mending)
    yield from check_others(mending)
    yield from check_gathered(mending)


# --- what should be gone by now, logs, and objects of other programs ------------------------------


def check_leftovers(mending: Mending, done: Set[int]) -> Iterator[Finding]:
    """Check what running shards, creation and killed processes left behind, and the pictures.

    done: the numbers of the shards whose commit is intact.
    """
    plan = mending.store.job.plan
    # Rounds of a search have numbers of their own; they are over once all shards of their group are committed.
    committed = {g for g in range(len(plan.group_sizes)) if done >= {*plan.numbers(g)}}
    over = {str(g) for g in committed if committed >= {*plan.together(g)}}
    done_shards = [shard for shard in plan.shards() if shard.number in done]
    stale = {keys.place(keys.CHECKPOINTS, shard.group, shard.number) for shard in done_shards}
    stale |= {keys.live(shard.group, shard.number) for shard in done_shards}
    # `resume --failed` goes on from the states beside items that failed.
    records = mending.store.failed.latest().values()
    needed = {str(plan.together(record.shard.group)[0]) for record in records}
    # The decisions of a search that is over have checksums: check_logs.
    logged = mending.summed("decisions")

    is_over = lambda key: key.split("/")[2] in over
    is_stale = lambda key: key in stale or key.rpartition("/")[0] in stale or is_over(key)
    is_unused = lambda key: is_over(key) and key.split("/")[2] not in needed
    never = lambda key: False
    is_sealed = lambda key: read_verified(mending.objects, key) is not None
    is_checkpoint = lambda key: decode(objects.read(mending.objects, key) or b"") is not None
    for folder, is_left, is_whole in (
        (keys.CHECKPOINTS, is_stale, is_checkpoint),
        (keys.LIVE, is_stale, is_sealed),
        (keys.ROUNDS, is_unused, partial(is_whole_round, mending.store)),
        (keys.DECISIONS, never, lambda key: _log(key) in logged or is_sealed(key)),
        (keys.PICTURES, never, is_sealed),
    ):
        for key in sorted(objects.list_keys(mending.objects, folder)):
            if is_left(key):
                yield mending.mend(key, "removed", fault="left over: its shard is committed")
            elif not is_whole(key):
                yield mending.mend(key, "removed", fault="damaged")
    for key, cure in ((keys.CARD, "removed"), (keys.NOTE, "removed; `ctd note` writes another")):
        if mending.exists(key) and not is_sealed(key):
            yield mending.mend(key, cure, fault="damaged")
    if mending.exists(keys.CREATING):
        yield mending.mend(keys.CREATING, "removed", fault="left over: the store is complete")
    for path in _half_written(mending.store.address):
        if mending.may_write():
            path.unlink(missing_ok=True)
        key = str(path.relative_to(Path(mending.store.address)))
        yield Finding(key, "left over: half written", "removed")


def _half_written(address: str) -> Iterator[Path]:
    """Iterate over files `NAME#N`, which a killed process leaves on a file system and no listing of objects shows."""
    root = addresses.local_path(address)
    for place, _, names in os.walk(root) if root else ():
        for name in names:
            stem, mark, number = name.rpartition("#")
            if mark and stem and number.isdigit() and name.isprintable():
                yield Path(place) / name


def check_others(mending: Mending) -> Iterator[Finding]:
    """Name the objects below run/ that ctd has not written; a repair leaves them alone."""
    for key in sorted(objects.list_all(mending.objects, "run")):
        if not keys.is_ours(key):
            yield Finding(key, OTHERS, "")


def _log(key: str) -> str:
    """The name of the log that an event or a decision belongs to, as run/sums has it."""
    return key.removeprefix("run/").rpartition("-" if key.startswith(keys.EVENTS) else "/")[0]


def check_logs(mending: Mending) -> Iterator[Finding]:
    """Check the events, which a driver seals when its run ends, and the decisions of searches that are over."""
    logs: dict[str, list[str]] = {}
    for place in (keys.EVENTS, keys.DECISIONS):
        for key in sorted(objects.list_keys(mending.objects, place)):
            logs.setdefault(_log(key), []).append(key)
    summed = mending.summed("events") | mending.summed("decisions")
    for name in sorted(logs.keys() | summed):
        log_keys = logs.get(name, [])
        # A driver that was killed wrote no checksums; one that ended did.
        ended = lambda key: b'"event": "end"' in (objects.read(mending.objects, key) or b"")
        sealed = name in summed or any(map(ended, log_keys))
        bad = mending.altered(name) if sealed else []
        findings = [Finding(key, mending.state(key), "what is readable is kept") for key in bad]
        if bad and mending.may_write():
            write_sums(mending.objects, name, log_keys)
        yield from findings
