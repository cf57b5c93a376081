"""Check the notes that shards depend on: failing items, halved slots, chosen microbatches."""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs import keys
from jobs.gather.check.mending import Finding, Mending
from jobs.gather.check.segments import check_segments
from jobs.gather.check.shards import AGAIN, compute_again
from jobs.storage import objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.store.marker import Marker
from jobs.store.records import newest


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
    mending: Mending, folder: str, wanted: Mapping[str, dict[str, Any]], cure: str
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
        if mending.store.job.plan.layouts[group].microbatch == 0 and marker.longest_s:
            key = keys.layout(group, marker.device_kind)
            widest[key] = max(widest.get(key, 0), marker.layout.microbatch)
    return {key: {"microbatch": m, "seconds_per_item": {}} for key, m in widest.items()}
