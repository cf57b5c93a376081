"""Records of shards, of one kind: each in an object of its own first, later with many others in the log of segments.

    FOLDER/G/SSSSSS-XXXXXXXX.json    as it was written; XXXXXXXX: how its checksum begins
    LOG/NNNNNNNN.jsonl               where `Records.compact` moves it later (jobs.store.segments)

Records never change. Of several of one shard the latest counts.

Any process may compact at any time, also one that has lost its lease, and may be killed at any write:

    a record's own object is deleted only once the log, read after it, holds that very record
    no two records of a shard have one key, so that a late deletion hits no later record
    a segment is added only to a log that was read to its end before the records were: a record that was
    taken back meanwhile is not moved
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from obstore.store import ObjectStore

from jobs import keys
from jobs.plan.layout import Plan, Shard
from jobs.storage import objects
from jobs.storage.checksums import checksummed, digest, verified
from jobs.store.segments import Log, live, resolved


class Record(Protocol):
    """What is said of one shard; `content["shard"]` of its object is the shard."""

    @property
    def shard(self) -> Shard:
        """The shard."""

    @property
    def version(self) -> tuple[float, int]:
        """The higher, the later."""


class Records[T: Record]:
    """The records of one kind in one store, as they are at each question."""

    def __init__(
        self, store: ObjectStore, plan: Plan, folders: tuple[str, str], read: Callable[[Any], T]
    ) -> None:
        """Args:
        folders: of the objects of single records, and of the segments.
        read: makes a record of the content of its object; raises ValueError, KeyError or TypeError if it is none.
        """
        self.objects, self.plan = store, plan
        self.folder, self.log = folders[0], Log(store, folders[1])
        self._from_json = read

    def record(self, line: bytes) -> T | None:
        """Return the record in a line; None if it is damaged, or of a shard that the plan does not have."""
        try:
            found = self._from_json(verified(line))
        except (ValueError, KeyError, TypeError):
            return None
        return found if found.shard == self.plan.shard(found.shard.number) else None

    def numbers(self) -> set[int]:
        """Return the numbers of all shards that have a record."""
        single = {keys.number_of(key) for key in objects.list_keys(self.objects, self.folder)}
        found = single | resolved(self.log.read()).keys()
        return {number for number in found if 0 <= number < self.plan.n_shards}

    def latest(self, group: int | None = None) -> dict[int, T]:
        """Return shard -> its record (of one group, if given), in the order of the plan. Damaged ones are left out."""
        # The records' own objects first: those that go meanwhile are in the segments by then.
        single = self.whole(self.singles(group))
        log, plan = resolved(self.log.read()), self.plan
        wanted = range(plan.n_shards) if group is None else plan.numbers(group)
        found = self.in_log({number: log[number] for number in wanted if number in log})
        found |= {number: single[key] for number, key in newest(single).items()}
        return {number: found[number] for number in sorted(found)}

    def in_log(self, lines: Mapping[int, bytes]) -> dict[int, T]:
        """Return shard -> record, of lines by shard; damaged ones are left out."""
        found = {number: self.record(line) for number, line in lines.items()}
        return {n: one for n, one in found.items() if one is not None and one.shard.number == n}

    def singles(self, group: int | None = None) -> dict[str, bytes]:
        """Return key -> line of the records (of one group, if given) that were in no segment.

        Whoever wants the others too reads the log afterwards.
        """
        folder = self.folder if group is None else f"{self.folder}/{group}"
        for _ in objects.looks(folder):
            read = self.read(objects.list_keys(self.objects, folder))
            there = {key: line for key, line in read.items() if line is not None}
            gone = {keys.number_of(key) for key in read.keys() - there.keys()}
            # Of two records of a shard the newer may have gone into a segment, and the older just not yet.
            if gone.isdisjoint(map(keys.number_of, there)):
                break
        return there

    def read(self, wanted: Iterable[str]) -> dict[str, bytes | None]:
        """Return key -> the line of the record at that key; None: there is no object."""
        found = objects.read_all(self.objects, list(wanted))
        return {key: None if data is None else self.line(key, data) for key, data in found}

    def line(self, key: str, data: bytes) -> bytes:
        """Return the line of a record in a segment: its object."""
        del key
        return data

    def whole(self, lines: Mapping[str, bytes]) -> dict[str, T]:
        """Return key -> record, of those that are not damaged and lie where they should."""
        found = {key: self.record(line) for key, line in lines.items()}
        return {k: one for k, one in found.items() if one and self._is_place(k, one.shard)}

    def _is_place(self, key: str, shard: Shard) -> bool:
        place = keys.place(self.folder, shard.group, shard.number)
        return re.match(f"{place}[-.]", key) is not None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record, of which this is the content; the earlier ones of its shard go when it is moved into a segment."""
        shard, data = record["shard"], checksummed(record)
        key = keys.record(self.folder, shard["group"], shard["number"], digest(data))
        objects.write(self.objects, key, data)

    def stamp(self) -> str:
        """Return a digest of the keys of all records and segments: while it stays the same, so do the records."""
        single = sorted(objects.list_keys(self.objects, self.folder))
        return digest(repr((single, self.log.keys())).encode())

    def compact(self) -> None:
        """Move the records of all shards into segments. A damaged record stays where it is."""
        read: dict[str, bytes] = {}
        for _ in objects.looks(self.folder):
            seen = self.log.read()
            logged = resolved(seen)
            listed = list(objects.list_keys(self.objects, self.folder))
            found = self.read(key for key in listed if key not in read)
            read |= {key: line for key, line in found.items() if line is not None}
            if not read.keys() >= set(listed):
                continue  # somebody else compacts: of two records of a shard the newer may have gone first
            whole = self.whole({key: read[key] for key in listed})
            new = newest(whole)
            safe = {number for number, key in new.items() if logged.get(number) == read[key]}
            last = {new[number] for number in safe}
            gone = {key for key, record in whole.items() if record.shard.number in safe}
            # Of several records of a shard the newest goes last: until then it is the one that counts.
            objects.delete_each(self.objects, gone - last)
            objects.delete_each(self.objects, last)
            kept = {segment.number for segment in live(seen)}
            replaced = (self.log.key(s.number) for s in seen if s.number not in kept)
            objects.delete_each(self.objects, replaced)
            if safe == new.keys():
                return
            lines = {number: read[key] for number, key in new.items() if number not in safe}
            self.log.append(seen, lines)

    def forget(self, shards: Iterable[Shard]) -> None:
        """Take back the records of some shards; the caller must hold the store's lease."""
        numbers = frozenset(shard.number for shard in shards)
        if not numbers:
            return
        for _ in objects.looks(self.folder):
            self.compact()
            self.log.append(self.log.read(), {}, numbers)
            if not numbers & resolved(self.log.read()).keys():
                return


def newest[T: Record](found: Mapping[str, T]) -> dict[int, str]:
    """Return shard -> key of its record; of several, of the latest."""
    rising = sorted(found, key=lambda key: (found[key].version, key))
    return {found[key].shard.number: key for key in rising}
