"""What is committed: the markers of a store's shards, in objects of their own and in the log of segments."""

from obstore.store import ObjectStore

from jobs import keys
from jobs.plan.layout import Plan
from jobs.store.marker import Marker
from jobs.store.records import Records


class Committed(Records[Marker]):
    """The committed shards of one store: those that have a marker."""

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        super().__init__(store, plan, (keys.DONE, keys.SEGMENTS), Marker.from_json)

    def markers(self, group: int | None = None) -> list[Marker]:
        """Return the markers of all committed shards (of one group, if given), in the order of the plan.

        Damaged markers are left out.
        """
        return list(self.latest(group).values())
