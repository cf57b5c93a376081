"""Check the segments, which hold the records (markers or failing items) of many shards."""

from collections.abc import Collection, Generator

from jobs.gather.check.mending import Finding, Mending
from jobs.storage import objects
from jobs.store.records import Record, Records
from jobs.store.segments import Log, Segment, live, lost_from, resolved

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
    if bad and mending.repair:
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
    return f" without the records of {len(lost)} shards, which are computed again: {named}"
