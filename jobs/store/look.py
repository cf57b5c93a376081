"""One look at a store: the records that say how far it is, each kind read once, when it is first asked for."""

from collections.abc import Sequence
from functools import cached_property

from jobs.storage.lease import LeaseRecord, drivers
from jobs.store.events import Begin, End, Event, Failure, read_events, unended
from jobs.store.marker import FailedItem, Marker
from jobs.store.store import Store
from jobs.store.tally import Tally


class Look:
    """The records of a store as they were when they were first asked for. Whoever wants a later state looks again."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @cached_property
    def stamp(self) -> str:
        """A digest of the committed shards, for those who write down what follows from them; ask for it before the markers."""
        # Taken before the markers are read, so that it covers no marker that was not read.
        assert "markers" not in self.__dict__
        return self.store.committed.stamp()

    @cached_property
    def markers(self) -> list[Marker]:
        """The markers of all committed shards, in the order of the plan; no damaged ones."""
        return self.store.committed.markers()

    @cached_property
    def by_group(self) -> list[list[Marker]]:
        """The markers of each group."""
        groups = [list[Marker]() for _ in self.store.job.plan.group_sizes]
        for marker in self.markers:
            groups[marker.shard.group].append(marker)
        return groups

    @cached_property
    def committed(self) -> frozenset[int]:
        """The numbers of the committed shards."""
        return frozenset(marker.shard.number for marker in self.markers)

    @cached_property
    def events(self) -> list[Event]:
        """The events of all runs, in order of the runs."""
        return read_events(self.store)

    @cached_property
    def failures(self) -> list[Failure]:
        """The attempts that failed, without those that were left at a checkpoint."""
        return [e for e in self.events if isinstance(e, Failure) and e.kind == "error"]

    @cached_property
    def failed(self) -> dict[int, list[FailedItem]]:
        """Shard -> its items that fail by themselves."""
        return self.store.failed.items()

    @cached_property
    def drivers(self) -> list[LeaseRecord]:
        """The leases of the store and its parts that are not released; some holders may be dead."""
        return drivers(self.store.objects, self.store.address)

    @cached_property
    def tally(self) -> Tally:
        """The numbers of items and shards."""
        return self.count(self.markers)

    def count(self, markers: Sequence[Marker]) -> Tally:
        """Count the items of some of its shards."""
        plan, search = self.store.job.plan, self.store.job.spec.search
        return Tally.from_markers(markers, search is not None, plan.n_items, plan.n_shards)

    @property
    def unended(self) -> list[Begin]:
        """The `run` events of drivers that were killed or are still at work."""
        return unended(self.events, self.tally.is_complete)

    @property
    def last_end(self) -> End | None:
        """The end of the last run; None if it has none, since the run goes on or its driver was killed."""
        last = next(
            (event for event in reversed(self.events) if isinstance(event, Begin | End)), None
        )
        return last if isinstance(last, End) else None
