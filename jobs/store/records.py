"""Records of shards, of one kind: each in its own object first, later with many others in the log of segments.

    FOLDER/G/SSSSSS-XXXXXXXX.json    as it was written; XXXXXXXX: the first digits of its checksum
    LOG/NNNNNNNN.jsonl               later: `Records.compact` moves it there (jobs.store.segments)

A record never changes. Of several records of one shard the latest counts.

Any process may compact at any time, even one that has lost its lease, and may be killed at any write. Three rules
make that safe:

    `compact` deletes a record's own object only once the log, read after the record, holds this very record
    two records of a shard have different keys, so a late deletion never hits a later record
    `compact` reads the log to its end, then the records, then adds a segment. If another process has taken a
    record back meanwhile, the log has grown, and the segment is not added
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

from obstore.store import ObjectStore

from jobs import keys
from jobs.plan.layout import Plan, Shard
from jobs.storage import objects
from jobs.storage.checksums import ByName, Sealed, digest
from jobs.store.segments import Log, live, resolved


class Record(Sealed):
    """A record of one shard."""

    shard: ByName[Shard]

    @property
    @abstractmethod
    def version(self) -> tuple[float, int]:
        """The order of the records of a shard: the one with the highest version counts."""


class Records[T: Record]:
    """The records of one kind in one store; each call reads them as they are at that moment."""

    kind: type[T]
    folder: str
    """Below it are single records."""
    segments: str
    """Below it are the segments."""

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        self.objects, self.plan, self.log = store, plan, Log(store, self.segments)

    def record(self, line: bytes) -> T | None:
        """Return the record in a line; None if it is damaged, or of a shard that the plan does not have."""
        record = self.kind.from_bytes(line)
        return record if record and record.shard == self.plan.shard(record.shard.number) else None

    def numbers(self) -> set[int]:
        """Return the numbers of all shards that have a record."""
        # By the keys alone, without reading: the record of a shard that counts here may be damaged, which `ctd check` finds.
        single = {keys.number_of(key) for key in objects.list_keys(self.objects, self.folder)}
        numbers = single | resolved(self.log.read()).keys()
        return {number for number in numbers if 0 <= number < self.plan.n_shards}

    def latest(self, group: int | None = None) -> dict[int, T]:
        """Return shard -> its record (of one group, if given), in the order of the plan. Damaged ones are left out."""
        # The single records first: one that is deleted between the two readings is in the log by then. In the other
        # order it could be seen in neither.
        single = self.intact(self.singles(group))
        log, plan = resolved(self.log.read()), self.plan
        numbers = range(plan.n_shards) if group is None else plan.numbers(group)
        records = self.in_log({number: log[number] for number in numbers if number in log})
        # A single record counts over the log: it is the same, not deleted yet, or was written later (see `forget`).
        records |= {number: single[key] for number, key in newest(single).items()}
        return {number: records[number] for number in sorted(records)}

    def in_log(self, lines: Mapping[int, bytes]) -> dict[int, T]:
        """Return shard -> record, from shard -> line; damaged lines are left out."""
        records = {number: self.record(line) for number, line in lines.items()}
        return {n: record for n, record in records.items() if record and record.shard.number == n}

    def singles(self, group: int | None = None) -> dict[str, bytes]:
        """Return key -> line of the single records (of one group, if given). Whoever needs all reads the log afterwards."""
        folder = self.folder if group is None else f"{self.folder}/{group}"
        for _ in objects.read_attempts(folder):
            listed = list(objects.list_keys(self.objects, folder))
            read = dict(objects.read_all(self.objects, listed))
            lines = {key: line for key, line in read.items() if line is not None}
            deleted = {keys.number_of(key) for key in read.keys() - lines.keys()}
            # `compact` may have deleted both records of a shard while we read: the older one after we had read it, the
            # newer one before. The older one must not count, so read again.
            if deleted.isdisjoint(map(keys.number_of, lines)):
                break
        return lines

    def intact(self, lines: Mapping[str, bytes]) -> dict[str, T]:
        """Return key -> record, of the lines that are not damaged and lie at their shard's key."""
        records = {key: self.record(line) for key, line in lines.items()}
        place = lambda shard: f"{keys.place(self.folder, shard.group, shard.number)}-"
        return {
            k: record
            for k, record in records.items()
            if record and k.startswith(place(record.shard))
        }

    def add(self, record: T) -> None:
        """Write a record; `compact` deletes the earlier ones of its shard."""
        data = record.to_bytes()
        key = keys.record(self.folder, record.shard.group, record.shard.number, digest(data))
        # One write of a whole object: after a kill it is there or not. Another writer of this key writes the same bytes.
        objects.write(self.objects, key, data)

    def stamp(self) -> str:
        """Return a digest of the keys of all records and segments; while it is the same, so are the records."""
        # Keys are enough, because neither a record nor a segment ever changes.
        single = sorted(objects.list_keys(self.objects, self.folder))
        return digest(repr((single, self.log.keys())).encode())

    def compact(self) -> None:
        """Move the records of all shards into segments. A damaged record stays where it is."""
        read: dict[str, bytes] = {}
        for _ in objects.read_attempts(self.folder):
            # The log before the records: see the rules at the top.
            segments = self.log.read()
            logged = resolved(segments)
            listed = list(objects.list_keys(self.objects, self.folder))
            lines = objects.read_all(self.objects, [key for key in listed if key not in read])
            read |= {key: line for key, line in lines if line is not None}
            if not read.keys() >= set(listed):
                continue  # another process compacts: the newer of two records may be in the log, and not in `read`
            intact = self.intact({key: read[key] for key in listed})
            new = newest(intact)
            # In the log already, byte for byte: added in the last turn, or by a process that was killed before it deleted.
            safe = {number for number, key in new.items() if logged.get(number) == read[key]}
            last = {new[number] for number in safe}
            superfluous = {key for key, record in intact.items() if record.shard.number in safe}
            # The newest record of a shard goes last: a kill in between must not leave an older one that then counts.
            objects.delete_each(self.objects, superfluous - last)
            objects.delete_each(self.objects, last)
            # Segments that a later one replaces, which a process that was killed may have left.
            needed = {segment.number for segment in live(segments)}
            replaced = (self.log.key(s.number) for s in segments if s.number not in needed)
            objects.delete_each(self.objects, replaced)
            if safe == new.keys():
                return
            lines_by_shard = {
                number: read[key] for number, key in new.items() if number not in safe
            }
            self.log.append(segments, lines_by_shard)

    def forget(self, shards: Iterable[Shard]) -> None:
        """Take back the records of some shards; the caller must hold the store's lease."""
        numbers = frozenset(shard.number for shard in shards)
        if not numbers:
            return
        for _ in objects.read_attempts(self.folder):
            # First move them: a single record outside the log would count over the segment that takes it back.
            self.compact()
            self.log.append(self.log.read(), {}, numbers)
            # Another process may have been quicker to add a segment: then ours was not added.
            if not numbers & resolved(self.log.read()).keys():
                return


def newest[T: Record](records: Mapping[str, T]) -> dict[int, str]:
    """Return shard -> key of its latest record. records: by key."""
    rising = sorted(records, key=lambda key: (records[key].version, key))
    return {records[key].shard.number: key for key in rising}
