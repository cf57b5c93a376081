"""What is committed: the markers of a store's shards, in objects of their own and in the log of segments."""

from obstore.store import ObjectStore

from jobs import keys
from jobs.plan.layout import Plan
from jobs.storage import objects
from jobs.storage.checksums import digest, unseal
from jobs.store.marker import Marker, newest, whole_markers
from jobs.store.segments import Log, resolved


class Committed:
    """The committed shards of one store, as they are at each question. `jobs.store.folding` takes them back."""

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        self.objects, self.log = store, Log(store)
        self._plan = plan

    def numbers(self) -> set[int]:
        """Return the numbers of all committed shards."""
        single = {keys.number_of(key) for key in objects.list_keys(self.objects, keys.DONE)}
        return single | resolved(self.log.read()).keys()

    def markers(self, group: int | None = None) -> list[Marker]:
        """Return the markers of all committed shards (of one group, if given), in the order of the plan.

        Damaged markers are left out.
        """
        # The markers' own objects first: those that go meanwhile are in the segments by then.
        single = whole_markers(self.singles(group).items())
        log, plan = resolved(self.log.read()), self._plan
        wanted = range(plan.n_shards) if group is None else plan.numbers(group)
        folded = (unseal(log[number]) for number in wanted if number in log)
        found = {m.shard.number: m for m in map(Marker.from_json, filter(None, folded))}
        found |= {number: single[key] for number, key in newest(single).items()}
        return [found[number] for number in sorted(found)]

    def singles(self, group: int | None = None) -> dict[str, bytes]:
        """Return key -> bytes of the markers (of one group, if given) that were in no segment.

        Whoever wants the others too reads the log afterwards.
        """
        folder = keys.DONE if group is None else f"{keys.DONE}/{group}"
        while True:
            listed = list(objects.list_keys(self.objects, folder))
            read = dict(objects.read_all(self.objects, listed))
            there = {key: data for key, data in read.items() if data is not None}
            gone = {keys.number_of(key) for key in read.keys() - there.keys()}
            # Of two markers of a shard the newer may have gone into a segment, and the older just not yet.
            if gone.isdisjoint(map(keys.number_of, there)):
                return there

    def stamp(self) -> str:
        """Return a digest of the keys of all markers and segments: while it stays the same, so do the markers."""
        single = sorted(objects.list_keys(self.objects, keys.DONE))
        return digest(repr((single, self.log.keys())).encode())
