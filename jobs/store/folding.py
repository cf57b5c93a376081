"""Folding: records go from objects of their own into segments, and committed shards are taken back.

Any process may fold at any time, also one that has lost its lease, and may be killed at any write:

    a record's own object is deleted only once the log, read after it, holds that very record
    no two records of a shard have one key, so that a late deletion hits no later record
    a segment is added only to a log that was read to its end before the records were: a record that was
    taken back meanwhile is not folded
"""

from collections.abc import Iterable
from typing import Any

from jobs.plan.layout import Shard
from jobs.storage import objects
from jobs.store.committed import Committed
from jobs.store.records import Records, newest
from jobs.store.segments import live, resolved


def fold(records: Records[Any]) -> None:
    """Put the records of all shards into segments. A damaged record stays where it is."""
    read: dict[str, bytes] = {}
    for _ in objects.looks(records.folder):
        seen = records.log.read()
        folded = resolved(seen)
        listed = list(objects.list_keys(records.objects, records.folder))
        found = records.read(key for key in listed if key not in read)
        read |= {key: line for key, line in found.items() if line is not None}
        if not read.keys() >= set(listed):
            continue  # somebody else folds: of two records of a shard the newer may have gone first
        whole = records.whole({key: read[key] for key in listed})
        new = newest(whole)
        safe = {number for number, key in new.items() if folded.get(number) == read[key]}
        last = {new[number] for number in safe}
        gone = {key for key, record in whole.items() if record.shard.number in safe}
        # Of several records of a shard the newest goes last: until then it is the one that counts.
        objects.delete_each(records.objects, gone - last)
        objects.delete_each(records.objects, last)
        kept = {segment.number for segment in live(seen)}
        replaced = (records.log.key(s.number) for s in seen if s.number not in kept)
        objects.delete_each(records.objects, replaced)
        if safe == new.keys():
            return
        lines = {number: read[key] for number, key in new.items() if number not in safe}
        records.log.append(seen, lines)


def forget(records: Records[Any], shards: Iterable[Shard]) -> None:
    """Take back the records of some shards; the caller must hold the store's lease."""
    numbers = frozenset(shard.number for shard in shards)
    if not numbers:
        return
    for _ in objects.looks(records.folder):
        fold(records)
        records.log.append(records.log.read(), {}, numbers)
        if not numbers & resolved(records.log.read()).keys():
            return


def uncommit(committed: Committed, shards: Iterable[Shard]) -> None:
    """Take back committed shards, so that they are computed again; the caller must hold the store's lease."""
    forget(committed, shards)
