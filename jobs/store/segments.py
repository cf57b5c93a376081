"""Segments: the records of many shards in one object, so that all are read in a few.

    run/segments/NNNNNNNN.jsonl           of markers: a head, their objects as they were, the head again: one a line
    run/failed-segments/NNNNNNNN.jsonl    of failing items

Segments are a log. A new one is created under the number after the highest, in which one of several writers
succeeds, so that nobody adds to a log that he has not read to its end. A segment never changes, and says
since which number it takes the place of the others: those may go. It also names shards that no longer have
a record, whatever earlier segments hold. As `Log.append` takes in the last segments that are not twice as
large, there are few, and a record is written again only when its segment has grown by half: both grow like
the logarithm of the number of shards.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from obstore.store import ObjectStore
from pydantic import BaseModel, ValidationError

from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import checksummed, verified


class Head(BaseModel):
    """The first and the last line of a segment."""

    number: int | None = None
    """Missing in stores of an older head."""
    since: int
    shards: list[int]
    undone: frozenset[int]

    @staticmethod
    def of(line: bytes) -> "Head | None":
        """Return the head in a line; None if it is damaged, or another line."""
        try:
            return Head.model_validate(verified(line))
        except ValidationError:
            return None

    def is_of(self, number: int) -> bool:
        """Whether it can be that of this segment. A copy of another would take the place of those between."""
        return self.number in (None, number) and self.since <= number


class Segment(NamedTuple):
    """One segment."""

    number: int
    since: int
    """It takes the place of all segments from this number on, up to its own."""
    undone: Set[int]
    """Shards without a record, whatever earlier segments hold; those in `lines` have a new one."""
    lines: Mapping[int, bytes]
    """Shard -> the line of its record."""

    @property
    def size(self) -> int:
        """The number of shards that it says something of."""
        return len(self.lines) + len(self.undone)

    def after(self, earlier: "Segment") -> "Segment":
        """Return the segment that takes the place of `earlier` and this one."""
        lines = {n: line for n, line in earlier.lines.items() if n not in self.undone}
        undone = (earlier.undone | self.undone) if earlier.since else frozenset[int]()
        return Segment(self.number, earlier.since, undone, {**lines, **self.lines})

    def encode(self) -> bytes:
        """Return the content of its object."""
        shards = sorted(self.lines)
        said = {"number": self.number, "since": self.since}
        head = checksummed({**said, "shards": shards, "undone": sorted(self.undone)})
        return b"\n".join([head, *(self.lines[n] for n in shards), head, b""])


def decode(number: int, data: bytes) -> Segment:
    """Return the segment of which this is the object; of a damaged one, what can still be read; of another, nothing."""
    lines, heads = _lines(data)
    if not heads:
        return Segment(number, number, frozenset(), by_shard(lines))
    head, own = heads[0], lines[1:-1]
    if not head.is_of(number):
        return Segment(number, number, frozenset(), {})
    whole = lines[0] == lines[-1] and len(head.shards) == len(own)
    found = dict(zip(head.shards, own, strict=True)) if whole else by_shard(lines)
    return Segment(number, head.since, head.undone, found)


def _lines(data: bytes) -> tuple[list[bytes], list[Head]]:
    """Return the lines of a segment's object, and those of its two heads that are whole."""
    lines = data.removesuffix(b"\n").split(b"\n")
    return lines, [head for line in (lines[0], lines[-1]) if (head := Head.of(line))]


def by_shard(lines: Iterable[bytes]) -> dict[int, bytes]:
    """Return shard -> line, of those lines that are whole records."""
    return {number: line for line in lines if (number := _shard_of(line)) is not None}


def _shard_of(line: bytes) -> int | None:
    shard = (verified(line) or {}).get("shard")
    number = shard.get("number") if isinstance(shard, dict) else None
    return number if isinstance(number, int) else None


def lost_from(number: int, data: bytes) -> set[int] | None:
    """Return the shards whose records a segment no longer holds whole, as far as it tells; None if it is not damaged."""
    lines, heads = _lines(data)
    is_whole = (
        len(heads) == 2
        and lines[0] == lines[-1]
        and data.endswith(b"\n")
        and heads[0].is_of(number)
        and [_shard_of(line) for line in lines[1:-1]] == heads[0].shards
    )
    named = {shard for head in heads for shard in head.shards}
    return None if is_whole else named - by_shard(decode(number, data).lines.values()).keys()


def live(segments: Sequence[Segment]) -> list[Segment]:
    """Return those, of segments in order, whose place no later one takes."""
    out: list[Segment] = []
    for segment in reversed(segments):
        if not out or segment.number < out[-1].since:
            out.append(segment)
    return out[::-1]


def resolved(segments: Sequence[Segment]) -> dict[int, bytes]:
    """Return shard -> the line of its record, as the log has it."""
    found: dict[int, bytes] = {}
    for segment in live(segments):
        for shard in segment.undone:
            found.pop(shard, None)
        found |= segment.lines
    return found


class Log:
    """The segments of one kind of records in one store. It keeps those that it has read."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._objects, self._folder = store, folder
        self._kept: dict[str, Segment] = {}

    def key(self, number: int) -> str:
        """Return the key of a segment."""
        return keys.segment(self._folder, number)

    def keys(self) -> list[str]:
        """Return the keys of all segments, in order."""
        return sorted(objects.list_keys(self._objects, self._folder), key=keys.number_of)

    def read(self) -> list[Segment]:
        """Return all segments there are, in order, those that others take the place of included."""
        for _ in objects.looks(self._folder):
            listed, kept = self.keys(), self._kept
            new = [key for key in listed if key not in kept]
            read = dict(objects.read_all(self._objects, new))
            there = {key: data for key, data in read.items() if data is not None}
            found = {key: decode(keys.number_of(key), data) for key, data in there.items()}
            found |= {key: kept[key] for key in listed if key in kept}
            self._kept = found
            # A listing may miss a segment that was written, and show none of those that went for it.
            if len(found) == len(listed) and self.keys() == listed:
                break
        return [found[key] for key in listed]

    def append(
        self, seen: Sequence[Segment], lines: Mapping[int, bytes], undone: Set[int] = frozenset()
    ) -> None:
        """Add a segment to the log as it was `seen`, which takes in the last ones that are not twice as large.

        It does nothing if another process has added to the log meanwhile; the caller finds out by reading the log again.
        It must find the new segment there before it deletes what the segment holds.
        """
        number = seen[-1].number + 1 if seen else 0
        new = Segment(number, number, undone, lines)
        for earlier in reversed(live(seen)):
            if earlier.size >= 2 * new.size:
                break
            new = new.after(earlier)
        self._create(new)

    def rewrite(self, seen: Sequence[Segment], lines: Mapping[int, bytes]) -> None:
        """Put one segment with these records in the place of all; like `append`."""
        number = seen[-1].number + 1 if seen else 0
        self._create(Segment(number, 0, frozenset(), lines))

    def _create(self, new: Segment) -> None:
        key = self.key(new.number)
        if objects.create(self._objects, key, new.encode()):
            objects.settle(self._objects, key)
