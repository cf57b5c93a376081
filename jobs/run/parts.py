"""Several drivers on one store: its shards in parts, each part under its own lease.

Shard s is in part s mod n; if the job has a search, search g is in part g mod n, because one driver decides for all of
its items. A driver goes through the parts, starting at its own, and runs every part that no other driver holds. So the parts
of a driver that died or never started are run as well. The lease of a part is a `jobs.storage.lease` in the
folder run/parts/PPPP.
"""

from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from obstore.store import ObjectStore

from jobs import keys
from jobs.storage import objects
from jobs.storage.lease import Held, LeaseRecord, describe, last_seen, running
from jobs.store.store import Store


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`."""

    number: int
    of: int

    def __contains__(self, turn: int) -> bool:
        return turn % self.of == self.number

    def place(self, store: Store) -> ObjectStore:
        """Return the folder of its lease."""
        return _place(store, f"{self.number:04d}")


def _place(store: Store, name: str) -> ObjectStore:
    return objects.open_objects(f"{store.address.rstrip('/')}/{keys.PARTS}/{name}", create=True)


def refuse_mixture(store: Store, part: Part | None) -> None:
    """Raise Held if a driver of the whole store would run beside drivers of its parts, or the reverse."""
    # Their leases lie in different folders, so neither would exclude the other.
    places = [store.objects] if part is not None else _places(store)
    # In parallel, because it takes seconds to tell the lease of a dead driver on another machine from a living one's.
    with ThreadPoolExecutor(16) as threads:
        others = [held for held in threads.map(running, places) if held]
    if others:
        raise Held(
            f"{store.address}: is being run by {describe(others[0])}; wait for it, or stop it with "
            f"`ctd cancel {store.address}`"
        )


def drivers(store: Store) -> list[LeaseRecord]:
    """Return the leases of the store and its parts that are not released, without waiting for renewals."""
    found = [last_seen(place) for place in (store.objects, *_places(store))]
    return [held for held in found if held is not None]


def _places(store: Store) -> list[ObjectStore]:
    names = {key.split("/")[2] for key in objects.list_keys(store.objects, keys.PARTS)}
    return [_place(store, name) for name in sorted(names)]


def open_parts(store: Store, first: int, n: int) -> Iterator[Part]:
    """Yield the parts that have uncommitted shards when their turn comes, from part `first` on."""
    for k in range(n):
        part = Part((first + k) % n, n)
        # Read again for each part: other drivers have committed shards meanwhile.
        if open_shards(store, store.committed.numbers(), part):
            yield part


def open_shards(store: Store, done: Set[int], part: Part | None) -> set[int]:
    """Return the shards of a part (None: of the store) that are not committed.

    done: the committed shards.
    """
    by_group, plan = store.job.spec.search is not None, store.job.plan
    turn = lambda shard: shard.group // plan.ways if by_group else shard.number
    return {
        shard.number
        for shard in plan.shards()
        if shard.number not in done and (part is None or turn(shard) in part)
    }
