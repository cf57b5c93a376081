"""The states at the end of each round of a search, and the decisions of the driver.

    run/rounds/G/NNNNNN             the report and the states of round N of group G
    run/decisions/G/NNNNNN.json     decision N: what was told since the one before, and the round that follows

G is the first of the groups that are searched together.

The states of a round are one object, written whole or not at all:

    12 digits     the length of the head, in bytes
    head          encoded as a checkpoint (jobs.store.checkpoint): the report, a checksum of every state
    states        one item after another, so that one can be read without the rest
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from ctd.batch import Snapshot
from jobs import keys
from jobs.search.searcher import Round, RoundReport
from jobs.storage import objects
from jobs.storage.checksums import Sealed, digest
from jobs.storage.lease import LeaseHeld
from jobs.store.checkpoint import decode, encode
from jobs.store.marker import Cost
from jobs.store.store import Store

DIGITS = 12
"""Digits of the length of the head."""


class Damaged(Exception):
    """Raised if the states of a round are missing or not as they were written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the states of round {number} are missing or damaged")
        self.number = number


class StoredRound(NamedTuple):
    """The object of a round, its states unread."""

    key: str
    number: int
    report: RoundReport
    cost: Cost
    dtype: np.dtype[Any]
    """One item's state as a record of its leaves."""
    sha256: Sequence[str]
    """Checksum of each item's state."""
    start: int
    """Offset of the states, in bytes."""

    def states(self, store: Store, rows: np.ndarray) -> list[np.ndarray]:
        """Return the states of some of its rows: leaf after leaf, each (n, ...). Raises Damaged if they are not intact."""
        at = np.searchsorted(self.report.rows, rows).clip(0, len(self.report.rows) - 1)
        if not np.array_equal(self.report.rows[at], rows):
            raise Damaged(self.number)
        # One request for all from the first to the last, also those in between: each request costs milliseconds.
        first, n, size = int(at.min()), int(np.ptp(at)) + 1, self.dtype.itemsize
        place = self.start + first * size
        data = objects.read_range(store.objects, self.key, place, n * size) if size else b""
        if data is None or len(data) != n * size:
            raise Damaged(self.number)
        table = (np.frombuffer(data, self.dtype) if size else np.zeros(n, self.dtype))[at - first]
        # Each state has its own checksum, so that damage to one item's harms nobody who does not go on from it.
        if [digest(row.tobytes()) for row in table] != [self.sha256[k] for k in at]:
            raise Damaged(self.number)
        return [np.ascontiguousarray(table[name]) for name in self.dtype.names or ()]


def _record(leaves: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> np.dtype[Any]:
    """Return the dtype of one item's state: its leaves side by side, without gaps."""
    return np.dtype([(f"leaf{k}", *leaf) for k, leaf in enumerate(leaves)])


_ROUND = TypeAdapter(Round)


def round_digest(round_: Round) -> str:
    """Return a digest of what a round computes."""
    return digest(repr(_ROUND.dump_python(round_)).encode())


def write_round(
    store: Store,
    group: int,
    number: int,
    round_: Round,
    report: tuple[RoundReport, Cost],
    leaves: Sequence[np.ndarray],
) -> None:
    """Write a round's report and states. leaves: (n, ...) each, for the rows of its report."""
    done, cost = report
    table = np.zeros(len(done.rows), _record([(leaf.dtype, leaf.shape[1:]) for leaf in leaves]))
    for name, leaf in zip(table.dtype.names or (), leaves, strict=True):
        table[name] = leaf
    identity = {
        "job": store.job.spec.digest(),
        "round": round_digest(round_),
        "cost": asdict(cost),
        "failed": done.failed,
        "leaves": [[str(leaf.dtype), leaf.shape[1:]] for leaf in leaves],
        "sha256": [digest(row.tobytes()) for row in table],
    }
    arrays = {name: np.asarray(array) for name, array in vars(done).items() if name != "failed"}
    head = encode(Snapshot(cost.rounds, arrays), identity)
    data = b"".join([f"{len(head):0{DIGITS}d}".encode(), head, table.tobytes()])
    # Not read back, as results are: states that turn out damaged are computed again (jobs.run.rounds).
    objects.write(store.objects, keys.place(keys.ROUNDS, group, number), data)


def read_round(
    store: Store, group: int, number: int, round_: Round | None = None
) -> StoredRound | None:
    """Return the object of a round; None if it is missing, damaged, or of another round than `round_` (None: of any)."""
    key = keys.place(keys.ROUNDS, group, number)
    length = objects.read_range(store.objects, key, 0, DIGITS)
    if length is None or not length.isdigit():
        return None
    head = objects.read_range(store.objects, key, DIGITS, int(length))
    content = head and decode(head)
    if not content or content[0].get("job") != store.job.spec.digest():
        return None
    identity, saved = content
    # A search that began anew uses the numbers for other rounds, and a worker that outlives its driver may still write an
    # old one.
    if round_ is not None and identity.get("round") != round_digest(round_):
        return None
    try:
        report = RoundReport(**saved.arrays, failed=tuple(identity["failed"]))
        cost, start = Cost(**identity["cost"]), DIGITS + int(length)
        dtype = _record([(np.dtype(kind), tuple(shape)) for kind, shape in identity["leaves"]])
        stored = StoredRound(key, number, report, cost, dtype, identity["sha256"], start)
        return stored if len(stored.sha256) == len(report.rows) else None
    except Exception:  # a stranger's, as in `decode`
        return None


def is_whole_round(store: Store, key: str) -> bool:
    """Return whether the object of a round, states included, is as it was written."""
    stored = read_round(store, int(key.split("/")[-2]), keys.number_of(key))
    try:
        return stored is not None and stored.states(store, stored.report.rows) is not None
    except Damaged:
        return False


# --- decisions ------------------------------------------------------------------------------------


class Decision(Sealed):
    """The reports since the last decision, and the round that follows from them."""

    told: Sequence[tuple[int, RoundReport, Cost]]
    """(number of the round, its report, its cost), in the order in which the driver heard of them."""
    asked: Round | None
    """None: the items have ended."""
    skipped: Sequence[int] = ()
    """Rows that were committed before the search began."""
    again: Sequence[int] = ()
    """Rows that failed with an error and are tried again."""


def write_decision(store: Store, group: int, number: int, decision: Decision) -> None:
    """Write a decision; raises LeaseHeld if another driver has written this one."""
    key, data = keys.decision(group, number), decision.to_bytes()
    # Of two drivers, of which one has lost its lease and does not know yet, the second stops here. Equal bytes are no
    # conflict: a write that was reported as failed may have arrived.
    if not objects.create(store.objects, key, data) and objects.read(store.objects, key) != data:
        raise LeaseHeld(f"{store.address}: {key} exists: another driver decides this search")


def read_decisions(store: Store, group: int) -> Iterator[Decision]:
    """Yield the decisions of a group's search in their order, up to the first that is missing or damaged."""
    n = sum(1 for _ in objects.list_keys(store.objects, f"{keys.DECISIONS}/{group}"))
    for _, data in objects.read_all(store.objects, [keys.decision(group, k) for k in range(n)]):
        decision = Decision.from_bytes(data)
        # Each decision rests on all before it, so that those behind a gap say nothing.
        if decision is None:
            return
        yield decision
