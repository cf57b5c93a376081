"""Check the records of shards (markers and failing items, in segments or by themselves), the rows that markers commit, and notes."""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

from jobs import keys
from jobs.errors import count
from jobs.gather.check.mending import Finding, Mending
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import checksummed, digest, read_verified
from jobs.store.marker import Marker
from jobs.store.records import Record, Records, newest
from jobs.store.segments import Log, Segment, live, lost_from, resolved

AGAIN = "its shard is computed again"

NOT_COMPUTED = "not there: the shard is not computed"
LOST = "not there, though the shard's results are: the marker is lost, or they are to be computed again"

MOST_NAMED = 10
"""Most shards that a finding names."""


def check_segments[T: Record](
    mending: Mending, records: Records[T]
) -> Generator[Finding, None, dict[int, T]]:
    """Yield findings; return shard -> intact record, as the segments hold them.

    A repair replaces all segments by one of the intact records; the shards of lost records are computed again.
    """
    seen = records.log.read()
    bad = list(_damaged(mending, records, seen)) or list(_missing(records.log, seen))
    yield from bad
    lines = resolved(seen)
    found = records.in_log(lines)
    # A new segment replaces all, and `compact` deletes those: a kill in between leaves both, of which the new one counts.
    if bad and mending.repair:
        mending.check_lease()
        records.log.rewrite(seen, {number: lines[number] for number in found})
        records.compact()
    return found


def _damaged[T: Record](
    mending: Mending, records: Records[T], seen: list[Segment]
) -> Generator[Finding]:
    for segment in seen:
        key = records.log.key(segment.number)
        data = objects.read(mending.objects, key)
        # None: a writer has replaced the segment meanwhile.
        lost = None if data is None else lost_from(segment.number, data)
        strange = segment.lines.keys() - records.in_log(segment.lines).keys()
        if lost is not None or strange:
            yield Finding(key, "damaged", f"written again{_without({*(lost or ()), *strange})}")


def _missing(log: Log, seen: list[Segment]) -> Generator[Finding]:
    """Yield a finding for every gap in the log; check_markers reports the shards that were in it."""
    last = -1
    for segment in live(seen):
        if segment.since > last + 1:
            yield Finding(log.key(segment.since - 1), "missing", "its shards are computed again")
        last = segment.number


def _without(lost: Collection[int]) -> str:
    if not lost:
        return ""
    named = ", ".join(map(str, sorted(lost)[:MOST_NAMED])) + (
        ", ..." if len(lost) > MOST_NAMED else ""
    )
    return f" without the records of {count(len(lost), 'shard')}, to be computed again: {named}"


def check_markers(mending: Mending) -> Generator[Finding, None, dict[int, Marker]]:
    """Yield findings; return shard -> marker for the intact markers."""
    committed = mending.store.committed
    # Before the segments, as every reader does: a marker that moves meanwhile may be seen in both, never in neither.
    read = committed.singles()
    found = yield from check_segments(mending, committed)
    single = committed.whole(read)
    for key in sorted(read):
        if key not in single:
            yield mending.mend(key, f"removed: {AGAIN}", what="damaged")
    good = found | {number: single[key] for number, key in newest(single).items()}
    for shard in mending.shards:
        if shard.number not in good:
            what = LOST if _has_results(mending, shard) else NOT_COMPUTED
            yield Finding(keys.place(keys.DONE, shard.group, shard.number), what, "")
    return good


def _has_results(mending: Mending, shard: Shard) -> bool:
    """Whether a shard's results are stored; its `status` is among the last arrays that a worker writes."""
    try:
        return bool(mending.store.rows(shard.group, "status", shard.start, shard.stop).any())
    except Exception:
        # Metadata or objects are damaged; other parts of the check report them.
        return False


def check_results(mending: Mending, markers: dict[int, Marker]) -> Iterator[Finding]:
    """Check every object of the committed shards; remove damaged shards from `markers`.

    A repair also deletes what is damaged: whoever reads the table of all items, as a gather does, reads these objects too.
    """
    damaged, unreadable = [], []
    for shard in mending.shards:
        if shard.number not in markers or shard.group in mending.broken_groups:
            continue
        sums = markers[shard.number].sha256
        bad = {
            key: "missing" if data is None else "not as committed"
            for key, data in objects.read_all(mending.objects, sums)
            if data is None or digest(data) != sums[key]
        }
        if bad:
            del markers[shard.number]
            damaged.append(shard)
        for key, what in bad.items():
            unreadable.append(key)
            yield Finding(key, what, AGAIN)
    # The markers first: results that are not there would read as fill values of a committed shard.
    compute_again(mending, damaged)
    if mending.repair:
        for key in unreadable:
            objects.delete(mending.objects, key)


def compute_again(mending: Mending, shards: Iterable[Shard]) -> None:
    """If this is a repair, remove the markers of these shards, so that `resume` computes them."""
    if mending.repair:
        mending.check_lease()
        mending.store.committed.forget(shards)


def check_notes(mending: Mending, markers: Mapping[int, Marker]) -> Iterator[Finding]:
    """Check the notes; each marker repeats what its shard ran with, so that most notes can be restored."""
    layouts, slots = _layouts(mending, markers), _slots(mending, markers)
    yield from _of(mending, keys.LAYOUT, layouts, "taken from the markers, or measured again")
    yield from _of(mending, keys.SLOTS, slots, "taken from the markers, or learned again")
    yield from _check_failed(mending, markers)


def _check_failed(mending: Mending, markers: Mapping[int, Marker]) -> Iterator[Finding]:
    """Check the records of failing items; a marker names the items of its shard that need one."""
    failed, again = mending.store.failed, []
    read = failed.singles()
    found = yield from check_segments(mending, failed)
    single = failed.whole(read)
    for key in sorted(read.keys() - single.keys()):
        again += [shard for shard in mending.shards if shard.number == keys.number_of(key)]
        yield mending.mend(key, AGAIN, what="damaged")
    found |= {number: single[key] for number, key in newest(single).items()}
    for number, marker in markers.items():
        known = {item.row for item in found[number].items} if number in found else set()
        if not known >= {*marker.without}:
            again.append(marker.shard)
            key = keys.place(keys.FAILED, marker.shard.group, number)
            yield Finding(key, "missing", AGAIN)
    compute_again(mending, again)


def _of(
    mending: Mending, folder: str, wanted: Mapping[str, dict[str, object]], cure: str
) -> Iterator[Finding]:
    """Check the notes in a folder, and the notes that it must hold. wanted: key -> content."""
    for key in sorted({*objects.list_keys(mending.objects, folder), *wanted}):
        if read_verified(mending.objects, key) is None:
            yield mending.mend(key, cure, checksummed(wanted[key]) if key in wanted else None)


def _slots(mending: Mending, markers: Mapping[int, Marker]) -> dict[str, dict[str, Any]]:
    """The notes of halved slots that follow from the markers."""
    wanted: dict[str, dict[str, Any]] = {}
    for marker in markers.values():
        group, slots = marker.shard.group, marker.narrowed_to
        key = keys.slots(group)
        if slots and slots <= wanted.get(key, {"slots": slots})["slots"]:
            planned = mending.store.job.plan.layouts[group].slots
            wanted[key] = {"slots": slots, "planned": planned}
    return wanted


def _layouts(mending: Mending, markers: Mapping[int, Marker]) -> dict[str, dict[str, Any]]:
    """The notes of chosen microbatches that follow from the markers."""
    widest: dict[str, int] = {}
    for marker in markers.values():
        group = marker.shard.group
        # Without an advance nothing was computed, and the marker repeats the plan, which leaves the microbatch open.
        if mending.store.job.plan.layouts[group].microbatch == 0 and marker.longest_s:
            key = keys.layout(group, marker.device_kind)
            widest[key] = max(widest.get(key, 0), marker.layout.microbatch)
    return {key: {"microbatch": m, "seconds_per_item": {}} for key, m in widest.items()}
