"""The segments, which hold the records of many shards: their markers, or their failing items."""

from collections.abc import Collection, Generator

from jobs.gather.check.mending import Finding, Mending
from jobs.storage import objects
from jobs.store.records import Record, Records
from jobs.store.segments import Log, Segment, live, lost_from, resolved

MOST_NAMED = 10
"""Shards that a finding names."""


def check_segments[T: Record](
    mending: Mending, records: Records[T]
) -> Generator[Finding, None, dict[int, T]]:
    """Yield findings; return shard -> whole record, as the segments have them.

    A repair writes one segment of all whole records in the place of all; the shards of the others are computed again.
    """
    seen = records.log.read()
    bad = list(_damaged(mending, records, seen)) or list(_missing(records.log, seen))
    yield from bad
    lines = resolved(seen)
    found = records.in_log(lines)
    if bad and mending.repair:
        records.log.rewrite(seen, {number: lines[number] for number in found})
        records.compact()
    return found


def _damaged[T: Record](
    mending: Mending, records: Records[T], seen: list[Segment]
) -> Generator[Finding]:
    for segment in seen:
        key = records.log.key(segment.number)
        data = objects.read(mending.objects, key)  # None: another has taken its place meanwhile
        lost = None if data is None else lost_from(segment.number, data)
        strange = segment.lines.keys() - records.in_log(segment.lines).keys()
        if lost is not None or strange:
            yield Finding(key, "damaged", f"written again{_without({*(lost or ()), *strange})}")


def _missing(log: Log, seen: list[Segment]) -> Generator[Finding]:
    """Yield a finding for every gap in the log; what was in it is told shard by shard."""
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
    return f" without the records of {len(lost)} shards, which are computed again: {named}"
