"""Check the records of shards (markers and failing items, in segments or by themselves), the rows that markers commit, and notes."""

from collections.abc import Generator, Iterable, Iterator, Mapping

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.storage.checksums import Sealed, digest
from jobs.store.layouts import FewerSlots, Microbatch
from jobs.store.marker import Marker
from jobs.store.records import Record, Records, newest
from jobs.store.segments import Log, Segment, live, resolved

AGAIN = "its shard is computed again"

NOT_COMPUTED = "not there: the shard is not computed"
MARKER_LOST = "not there, though the shard's results are: the marker is lost, or they are to be computed again"


def check_records[T: Record](
    mending: Mending, records: Records[T]
) -> Generator[Finding, None, dict[int, T]]:
    """Yield findings; return shard -> intact record.

    A repair replaces all segments by one of the intact records, and removes damaged single ones; the shards of lost records are
    computed again.
    """
    # Before the segments, as every reader does: a record that moves meanwhile may be seen in both, never in neither.
    read = records.singles()
    segments = records.log.read()
    bad = list(_damaged(mending, records, segments)) or list(_missing(records.log, segments))
    yield from bad
    lines = resolved(segments)
    logged = records.in_log(lines)
    # A new segment replaces all, and `compact` deletes those: a kill in between leaves both, of which the new one counts.
    if bad and mending.may_write():
        records.log.rewrite(segments, {number: lines[number] for number in logged})
        records.compact()
    single = records.intact(read)
    for key in sorted(read.keys() - single.keys()):
        yield mending.mend(key, f"removed: {AGAIN}", fault="damaged")
    return logged | {number: single[key] for number, key in newest(single).items()}


def _damaged[T: Record](
    mending: Mending, records: Records[T], segments: list[Segment]
) -> Generator[Finding]:
    for segment in segments:
        key = records.log.key(segment.number)
        # None: a writer has replaced the segment meanwhile.
        is_whole = objects.read(mending.objects, key) in (None, segment.encode())
        if not is_whole or len(records.in_log(segment.lines)) < len(segment.lines):
            yield Finding(key, "damaged", "written again without what is damaged")


def _missing(log: Log, segments: list[Segment]) -> Generator[Finding]:
    """Yield a finding for every gap in the log; check_markers reports the shards that were in it."""
    last = -1
    for segment in live(segments):
        if segment.since > last + 1:
            yield Finding(log.key(segment.since - 1), "missing", "its shards are computed again")
        last = segment.number


def check_markers(mending: Mending) -> Generator[Finding, None, dict[int, Marker]]:
    """Yield findings; return shard -> marker for the intact markers."""
    good = yield from check_records(mending, mending.store.committed)
    for shard in mending.store.job.plan.shards():
        if shard.number not in good:
            fault = MARKER_LOST if _has_results(mending, shard) else NOT_COMPUTED
            yield Finding(keys.place(keys.DONE, shard.group, shard.number), fault, "")
    return good


def _has_results(mending: Mending, shard: Shard) -> bool:
    """Return whether a shard's results are stored; its `status` is among the last arrays that a worker writes."""
    try:
        return bool(mending.store.rows(shard.group, "status", shard.start, shard.stop).any())
    except Exception:
        # Metadata or objects are damaged; other parts of the check report them.
        return False


def check_results(mending: Mending, markers: dict[int, Marker]) -> Iterator[Finding]:
    """Check every object of the committed shards; remove damaged shards from `markers`.

    A repair also deletes what is damaged: whoever reads the table of all items, as a gather does, reads these objects too.
    """
    damaged: dict[str, Shard] = {}
    for shard in mending.store.job.plan.shards():
        sums = markers[shard.number].sha256 if shard.number in markers else {}
        for key, data in objects.read_all(mending.objects, sums):
            if data is None or digest(data) != sums[key]:
                damaged[key] = shard
                markers.pop(shard.number, None)
                yield Finding(key, "missing" if data is None else "not as committed", AGAIN)
    if mending.may_write():
        # The markers first: results that are not there would read as fill values of a committed shard.
        mending.store.committed.forget({*damaged.values()})
        for key in damaged:
            mending.write_or_delete(key, None)


def check_notes(mending: Mending, markers: Mapping[int, Marker]) -> Iterator[Finding]:
    """Check the notes; each marker repeats what its shard ran with, so that most notes can be restored."""
    notes = _notes(mending, markers.values())
    listed = [k for folder in (keys.LAYOUT, keys.SLOTS) for k in objects.list_keys(mending.objects, folder)]  # fmt: skip
    for key in sorted({*listed, *notes}):
        kind = FewerSlots if key.startswith(keys.SLOTS) else Microbatch
        if kind.read(mending.objects, key) is None:
            right = notes[key].to_bytes() if key in notes else None
            yield mending.mend(key, "taken from the markers, or learned again", right)
    yield from _check_failed(mending, markers)


def _notes(mending: Mending, markers: Iterable[Marker]) -> dict[str, Sealed]:
    """The notes that follow from the markers, by key."""
    slots: dict[int, int] = {}
    microbatches: dict[str, int] = {}
    layouts = mending.store.job.plan.layouts
    for marker in markers:
        group = marker.shard.group
        if marker.narrowed_to:
            slots[group] = min(slots.get(group, marker.narrowed_to), marker.narrowed_to)
        # Without an advance nothing was computed, and the marker repeats the plan, which leaves the microbatch open.
        if layouts[group].microbatch == 0 and marker.longest_s:
            key = keys.layout(group, marker.device_kind)
            microbatches[key] = max(microbatches.get(key, 0), marker.layout.microbatch)
    fewer = {keys.slots(g): FewerSlots(slots=n, planned=layouts[g].slots) for g, n in slots.items()}
    return fewer | {key: Microbatch(microbatch=n) for key, n in microbatches.items()}


def _check_failed(mending: Mending, markers: Mapping[int, Marker]) -> Iterator[Finding]:
    """Check the records of failing items; a marker names the items of its shard that need one."""
    records = yield from check_records(mending, mending.store.failed)
    again = []
    for number, marker in markers.items():
        rows = {item.row for item in records[number].items} if number in records else set()
        if not rows >= {*marker.without}:
            again.append(marker.shard)
            yield Finding(keys.place(keys.FAILED, marker.shard.group, number), "missing", AGAIN)
    if mending.may_write():
        mending.store.committed.forget(again)
