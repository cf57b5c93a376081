"""Folding: markers go from objects of their own into segments, and committed shards are taken back.

Any process may fold at any time, also one that has lost its lease, and may be killed at any write:

    a marker's own object is deleted only once the log, read after it, holds that very marker
    no two commits of a shard have one key, so that a late deletion hits no later commit
    a segment is added only to a log that was read to its end before the markers were: a marker that was
    taken back meanwhile is not folded
"""

from collections.abc import Iterable

from jobs import keys
from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.store.committed import Committed
from jobs.store.marker import newest, whole_markers
from jobs.store.segments import live, resolved


def fold(committed: Committed) -> None:
    """Put the markers of all committed shards into segments. A damaged marker stays where it is."""
    read: dict[str, bytes] = {}
    while True:
        seen = committed.log.read()
        folded = resolved(seen)
        listed = list(objects.list_keys(committed.objects, keys.DONE))
        unread = [key for key in listed if key not in read]
        found = objects.read_all(committed.objects, unread)
        read |= {key: data for key, data in found if data is not None}
        if not read.keys() >= set(listed):
            continue  # somebody else folds: of two markers of a shard the newer may have gone first
        whole = whole_markers((key, read[key]) for key in listed)
        new = newest(whole)
        safe = {number for number, key in new.items() if folded.get(number) == read[key]}
        last = {new[number] for number in safe}
        gone = {key for key, marker in whole.items() if marker.shard.number in safe}
        # Of several markers of a shard the newest goes last: until then it is the one that counts.
        objects.delete_each(committed.objects, gone - last)
        objects.delete_each(committed.objects, last)
        kept = {segment.number for segment in live(seen)}
        replaced = (keys.segment(s.number) for s in seen if s.number not in kept)
        objects.delete_each(committed.objects, replaced)
        if safe == new.keys():
            return
        lines = {number: read[key] for number, key in new.items() if number not in safe}
        committed.log.append(seen, lines)


def uncommit(committed: Committed, shards: Iterable[Shard]) -> None:
    """Take back committed shards, so that they are computed again; the caller must hold the store's lease."""
    numbers = frozenset(shard.number for shard in shards)
    while numbers:
        fold(committed)
        committed.log.append(committed.log.read(), {}, numbers)
        if not numbers & resolved(committed.log.read()).keys():
            return
