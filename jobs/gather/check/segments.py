"""The segments, which hold the markers of many shards."""

from collections.abc import Collection, Generator

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.storage import objects
from jobs.storage.checksums import unseal
from jobs.store.folding import fold
from jobs.store.marker import Marker
from jobs.store.segments import Segment, live, lost_from, resolved

MOST_NAMED = 10
"""Shards that a finding names."""


def check_segments(mending: Mending) -> Generator[Finding, None, dict[int, Marker]]:
    """Yield findings; return shard -> whole marker, as the segments have them.

    A repair writes one segment of all whole markers in the place of all; the shards of the others are computed again.
    """
    seen = mending.store.committed.log.read()
    bad = list(_damaged(mending, seen)) or list(_missing(seen))
    yield from bad
    contents = (unseal(line) for line in resolved(seen).values())
    markers = [Marker.from_json(content) for content in contents if content]
    if bad and mending.repair:
        mending.store.committed.log.rewrite(seen)
        fold(mending.store.committed)
    return {marker.shard.number: marker for marker in markers}


def _damaged(mending: Mending, seen: list[Segment]) -> Generator[Finding]:
    for segment in seen:
        key = keys.segment(segment.number)
        data = objects.read(mending.objects, key)  # None: another has taken its place meanwhile
        if data is not None and (lost := lost_from(data)) is not None:
            yield Finding(key, "damaged", f"written again{_without(lost)}")


def _missing(seen: list[Segment]) -> Generator[Finding]:
    """Yield a finding for every gap in the log; what was in it is told shard by shard."""
    last = -1
    for segment in live(seen):
        if segment.since > last + 1:
            yield Finding(
                keys.segment(segment.since - 1), "missing", "its shards are computed again"
            )
        last = segment.number


def _without(lost: Collection[int]) -> str:
    if not lost:
        return ""
    named = ", ".join(map(str, sorted(lost)[:MOST_NAMED])) + (
        ", ..." if len(lost) > MOST_NAMED else ""
    )
    return f" without the markers of {len(lost)} shards, which are computed again: {named}"
