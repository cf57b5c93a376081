"""Where the shards of one population or bracket meet: what each leaves for the others.

    run/meetings/G/SSSSSS/KEY/LLLL/NNNNNN    shard N at the end of lap L

S is the first shard of the population. KEY stands for what its numbers depend on: the items that take part, the
version of JAX, a microbatch that memory forced. At the end of a lap a shard leaves its *arrival* and gives its
worker back. Once all have come, it is called again (jobs.run.coordinator), reads the others' reports, and makes
the same decision as they do. So a few workers serve any number of shards, and a shard that died goes on from
its own last arrival.

An arrival is one object, written whole or not at all:

    12 digits     the length of the head, in bytes
    head          encoded as a checkpoint (jobs.store.checkpoint): reports, lineage, a checksum of every state
    states        one item after another, so that one can be read without the rest
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from obstore.store import ObjectStore

from ctd.batch import Snapshot
from jobs.plan.layout import Shard
from jobs.search.laps import SearchRun
from jobs.storage import objects
from jobs.store.checkpoint import decode, encode
from jobs.store.manifest import Job
from jobs.store.store import Store

DIGITS = 12
"""How many digits give the length of the head."""


class Meeting(NamedTuple):
    """A meeting, as one shard sees it."""

    folder: str
    """The folder of the arrivals."""
    shards: tuple[int, ...]
    """The shards that take part, itself included, in order."""


def populations(job: Job) -> dict[int, tuple[int, ...]]:
    """Return shard -> all shards of its population, in order; shards without others are left out."""
    search, plan = job.spec.search, job.plan
    if search is None or not search.spread:
        return {}
    found: dict[tuple[int, int], list[int]] = {}
    for shard in plan.shards():
        size = search.together(plan.group_sizes[shard.group])
        if plan.layouts[shard.group].shard_items < size:
            found.setdefault((shard.group, shard.start // size), []).append(shard.number)
    return {number: shards for shards in map(tuple, found.values()) for number in shards}


class Waits(Exception):
    """Raised at the end of a lap, if a shard must wait for the others or finds an arrival damaged."""

    def __init__(self, lap: int, stage: str) -> None:
        super().__init__(f"waits for the others at the end of lap {lap + 1}")
        self.lap, self.stage = lap, stage


class Damaged(Exception):
    """Raised if an arrival is not as it was written."""


class Arrival(NamedTuple):
    """What a shard left at the end of a lap: its head, as read, and where its states begin."""

    key: str
    arrays: dict[str, np.ndarray]
    identity: dict[str, Any]
    rounds: int
    start: int
    """Offset of the states, in bytes."""

    @property
    def report(self) -> dict[str, np.ndarray]:
        """The shard's report for `SearchRun.decide`: name -> (items of the shard,)."""
        names = [name for name in self.arrays if name.startswith("report.")]
        return {name.removeprefix("report."): self.arrays[name] for name in names}

    @property
    def n(self) -> int:
        """Number of items of the shard."""
        return len(self.identity["sha256"])

    @property
    def item_bytes(self) -> int:
        """Bytes of one item's state."""
        return sum(_nbytes(kind, shape) for kind, shape in self.identity["leaves"])

    def states(self, store: ObjectStore, first: int, n: int) -> list[np.ndarray]:
        """Return the states of `n` items from `first` on: leaf after leaf, each (n, ...).

        Raises Damaged if they are not as they were written.
        """
        size = self.item_bytes
        place = self.start + first * size
        data = objects.read_range(store, self.key, place, n * size) if size else b""
        if data is None:
            raise Damaged(self.key)
        table = np.frombuffer(data, np.uint8).reshape(n, size)
        if [_sha256(row) for row in table] != self.identity["sha256"][first : first + n]:
            raise Damaged(self.key)
        found, at = [], 0
        for kind, shape in self.identity["leaves"]:
            part = np.ascontiguousarray(table[:, at : at + _nbytes(kind, shape)])
            found.append(part.view(np.dtype(kind)).reshape(n, *shape))
            at += part.shape[1]
        return found


def read_arrival(store: ObjectStore, key: str) -> Arrival | None:
    """Return the arrival at `key`, states unread; None if it is missing or its head is damaged."""
    length = objects.read_range(store, key, 0, DIGITS)
    if length is None or not length.isdigit():
        return None
    head = objects.read_range(store, key, DIGITS, int(length))
    found = head and decode(head)
    if not found:
        return None
    identity, saved = found
    return Arrival(key, saved.arrays, identity, saved.rounds, DIGITS + int(length))


def whole_arrival(store: ObjectStore, key: str) -> bool:
    """Return whether an arrival, states included, is as it was written."""
    found = read_arrival(store, key)
    if found is None:
        return False
    try:
        found.states(store, 0, found.n)
    except Damaged:
        return False
    return True


@dataclass(frozen=True)
class Earlier:
    """The earlier attempts at a shard, up to an arrival."""

    seconds: float = 0.0
    """How long they took."""
    longest_s: float = 0.0
    """Their longest advance."""
    started: float = math.inf
    """When the first one began (seconds since 1970)."""


class Meetings:
    """The meetings of one attempt at a shard.

    ids: the items that it computes.
    """

    def __init__(self, store: Store, shard: Shard, meeting: Meeting, ids: np.ndarray) -> None:
        self._objects, self._shard, self._meeting = store.objects, shard.number, meeting
        self._identity = {"job": store.job.spec.digest(), "items": _sha256(ids.astype(np.uint32))}
        self.before = Earlier()
        """Up to the arrival that `latest` found."""

    def arrive(self, run: SearchRun, started: float, longest_s: float) -> None:
        """Write the run's arrival at the end of a lap.

        started: when this attempt began. longest_s: its longest advance in seconds.
        """
        before = self.before
        now = Earlier(
            before.seconds + time.time() - started,
            max(before.longest_s, longest_s),
            min(before.started, started),
        )
        saved = run.snapshot()
        arrays = {k: v for k, v in saved.arrays.items() if not k.startswith("state.")}
        arrays |= {f"report.{name}": values for name, values in run.report.items()}
        arrays |= {f"before.{name}": np.asarray(value) for name, value in asdict(now).items()}
        leaves = [v for k, v in saved.arrays.items() if k.startswith("state.")]
        n = run.laps.n
        cells = [leaf.reshape(n, math.prod(leaf.shape[1:])).view(np.uint8) for leaf in leaves]
        table = np.concatenate(cells, axis=1)
        identity = {
            **self._identity,
            "leaves": [[str(leaf.dtype), leaf.shape[1:]] for leaf in leaves],
            "sha256": [_sha256(row) for row in table],
        }
        head = encode(Snapshot(saved.rounds, arrays), identity)
        data = b"".join([f"{len(head):0{DIGITS}d}".encode(), head, table.tobytes()])
        objects.write(self._objects, self._key(run.lap, self._shard), data)
        if run.lap >= 2:
            # All have come to the lap before this one, so nobody reads the arrival before that.
            objects.delete(self._objects, self._key(run.lap - 2, self._shard))

    def latest(self) -> Snapshot | None:
        """Return the state of this shard at its last intact arrival; None if there is none. Sets `before`."""
        number_and_lap = lambda key: [int(part) for part in reversed(key.split("/")[-2:])]
        keys = objects.list_keys(self._objects, self._meeting.folder)
        own = [key for key in keys if number_and_lap(key)[0] == self._shard]
        for key in sorted(own, key=number_and_lap, reverse=True):
            found = self._read(key)
            if found is None or found.identity["items"] != self._identity["items"]:
                continue
            try:
                leaves = found.states(self._objects, 0, found.n)
            except Damaged:
                continue
            told = {f.name: float(found.arrays[f"before.{f.name}"]) for f in fields(Earlier)}
            self.before = Earlier(**told)
            states = {f"state.{k}": leaf for k, leaf in enumerate(leaves)}
            return Snapshot(found.rounds, found.arrays | states)
        return None

    def meet(self, run: SearchRun) -> None:
        """Decide with the others what follows from the lap that the run has made.

        Raises Waits if not all of them have left an intact arrival.
        """
        keys = [self._key(run.lap, number) for number in self._meeting.shards]
        found = list(objects.each(self._objects, self._read, keys))
        arrivals = [arrival for arrival in found if arrival is not None]
        if len(arrivals) < len(found):
            raise Waits(run.lap, run.stage)
        first = np.cumsum([0, *(arrival.n for arrival in arrivals)])

        def fetch(index: int) -> list[np.ndarray]:
            which = int(np.searchsorted(first, index, side="right")) - 1
            leaves = arrivals[which].states(self._objects, index - int(first[which]), 1)
            return [leaf[0] for leaf in leaves]

        own = self._meeting.shards.index(self._shard)
        try:
            run.decide([arrival.report for arrival in arrivals], own, fetch)
        except Damaged:
            raise Waits(run.lap, run.stage) from None

    def _read(self, key: str) -> Arrival | None:
        found = read_arrival(self._objects, key)
        return found if found and found.identity["job"] == self._identity["job"] else None

    def _key(self, lap: int, shard: int) -> str:
        return f"{self._meeting.folder}/{lap:04d}/{shard:06d}"


def _nbytes(kind: str, shape: Sequence[int]) -> int:
    return np.dtype(kind).itemsize * math.prod(shape)


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()
