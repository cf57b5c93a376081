"""Segments: the records of many shards in one object, so that all are read in a few.

    run/segments/NNNNNNNN.jsonl           markers; one a line: a head, their objects unchanged, the head again
    run/failed-segments/NNNNNNNN.jsonl    failing items

Segments are a log, and never change. Each segment takes the next number. One of several writers wins, so nobody adds
to a log without having read it to its end. A segment says from which number on it replaces the earlier ones, which may
then be deleted. It also names shards that no longer have a record, whatever earlier segments hold.

`Log.append` merges the last segments into the new one unless they are twice as large. So there are few segments, and a
record is rewritten only when its segment has grown by half: both numbers grow like the logarithm of the number of shards.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from obstore.store import ObjectStore
from pydantic import PlainSerializer

from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import Sealed


class Head(Sealed):
    """The first and the last line of a segment."""

    number: int
    since: int
    shards: list[int]
    undone: Annotated[frozenset[int], PlainSerializer(sorted)]


class _Line(Sealed):
    """The line of a record, whatever its kind."""

    shard: Mapping[str, Any]


class Segment(NamedTuple):
    """One segment."""

    number: int
    since: int
    """The segment replaces all segments from this number on, up to its own."""
    undone: frozenset[int]
    """Shards whose records in earlier segments no longer count; those in `lines` have a new one."""
    lines: Mapping[int, bytes]
    """Shard -> the line of its record."""

    @property
    def size(self) -> int:
        """The number of shards that it names."""
        return len(self.lines) + len(self.undone)

    def after(self, earlier: "Segment") -> "Segment":
        """Return the segment that replaces `earlier` and this one."""
        lines = {n: line for n, line in earlier.lines.items() if n not in self.undone}
        # From number 0 on, nothing is left whose records could be taken back.
        undone = (earlier.undone | self.undone) if earlier.since else frozenset[int]()
        return Segment(self.number, earlier.since, undone, {**lines, **self.lines})

    def encode(self) -> bytes:
        """Return the content of its object."""
        shards = sorted(self.lines)
        content = Head(number=self.number, since=self.since, shards=shards, undone=self.undone)
        head = content.to_bytes()
        # The head twice: with one of them damaged, the other still says what the segment replaces.
        return b"\n".join([head, *(self.lines[n] for n in shards), head, b""])


def decode(number: int, data: bytes) -> Segment:
    """Return the segment in an object: of a damaged one the readable part, of a copy of another segment nothing.

    Of a damaged object, `encode` makes other bytes again, unless nothing but records is damaged, which have their own checksums.
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    ends = map(Head.from_bytes, (lines[0], lines[-1]))
    # Either head will do, since both are the same; a damaged first one leaves the last.
    head = next(filter(None, ends), None)
    if not head:  # nobody knows what it replaces: it stands for itself
        return Segment(number, number, frozenset(), _by_shard(lines))
    # A copied file has another number, and would replace those between.
    if head.number != number or head.since > number:
        return Segment(number, number, frozenset(), {})
    records = lines[1:-1]
    is_intact = lines[0] == lines[-1] and len(head.shards) == len(records)
    by_shard = dict(zip(head.shards, records, strict=True)) if is_intact else _by_shard(lines)
    return Segment(number, head.since, head.undone, by_shard)


def _by_shard(lines: Iterable[bytes]) -> dict[int, bytes]:
    """Return shard -> line, of the undamaged lines."""
    intact = ((line, content.shard) for line in lines if (content := _Line.from_bytes(line)))
    numbers = ((shard.get("number"), line) for line, shard in intact)
    return {number: line for number, line in numbers if isinstance(number, int)}


def live(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments that no later one replaces. segments: in order."""
    out: list[Segment] = []
    # From the last one down: each replaces all that lie between its `since` and itself.
    for segment in reversed(segments):
        if not out or segment.number < out[-1].since:
            out.append(segment)
    return out[::-1]


def resolved(segments: Sequence[Segment]) -> dict[int, bytes]:
    """Return shard -> the line of its record, from the whole log."""
    lines: dict[int, bytes] = {}
    for segment in live(segments):
        for shard in segment.undone:
            lines.pop(shard, None)
        lines |= segment.lines
    return lines


class Log:
    """The segments of one kind of records in one store. It caches the segments that it has read, which never change."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._objects, self._folder = store, folder
        self._cache: dict[str, Segment] = {}

    def key(self, number: int) -> str:
        """Return the key of a segment."""
        return f"{self._folder}/{number:08d}.jsonl"

    def keys(self) -> list[str]:
        """Return the keys of all segments, in order."""
        return sorted(objects.list_keys(self._objects, self._folder), key=keys.number_of)

    def read(self) -> list[Segment]:
        """Return all segments in order, including those that later ones replace."""
        for _ in objects.read_attempts(self._folder):
            listed, cache = self.keys(), self._cache
            new = [key for key in listed if key not in cache]
            read = objects.read_all(self._objects, new)
            segments = {k: decode(keys.number_of(k), data) for k, data in read if data is not None}
            segments |= {key: cache[key] for key in listed if key in cache}
            self._cache = segments
            # A listing is not one moment: it may miss a new segment and yet lack the old ones that this replaced. Only a
            # second, equal listing shows that nothing has changed.
            if len(segments) == len(listed) and self.keys() == listed:
                break
        return [segments[key] for key in listed]

    def append(
        self, segments: Sequence[Segment], lines: Mapping[int, bytes], undone: Iterable[int] = ()
    ) -> None:
        """Add a segment to the log, whose `segments` the caller has read; merge the last ones into it, unless twice as large.

        If another process has added to the log meanwhile, this does nothing. The caller reads the log again to find out,
        and must find the new segment there before it deletes the single records.
        """
        # Behind what was read: if somebody has added a segment since, this number is taken, and `_create` does nothing.
        number = segments[-1].number + 1 if segments else 0
        new = Segment(number, number, frozenset(undone), lines)
        for earlier in reversed(live(segments)):
            if earlier.size >= 2 * new.size:
                break
            new = new.after(earlier)
        self._create(new)

    def rewrite(self, segments: Sequence[Segment], lines: Mapping[int, bytes]) -> None:
        """Replace all segments by one with these records; otherwise like `append`."""
        number = segments[-1].number + 1 if segments else 0
        self._create(Segment(number, 0, frozenset(), lines))

    def _create(self, new: Segment) -> None:
        key = self.key(new.number)
        if objects.create(self._objects, key, new.encode()):
            # Before the caller deletes what the segment holds: a loss of power must not take both.
            objects.fsync(self._objects, key)
