"""Which ready actors have room for a shard, kept up to date slot by slot, so that nobody has to look at all of them."""

from collections.abc import Iterator

from cluster.ray.pool import Slot

MOST = 2
"""An actor holds at most this many tasks: one that runs, one that is queued behind it."""


class Places:
    """The slots with ready actors, by how many tasks they hold."""

    def __init__(self) -> None:
        self._holding: list[dict[int, Slot]] = [{} for _ in range(MOST + 1)]

    def note(self, slot: Slot) -> None:
        """Note that the slot's actor became ready or unready, or that what it holds has changed."""
        for slots in self._holding:
            slots.pop(id(slot), None)
        if slot.ready:
            self._holding[len(slot.held)][id(slot)] = slot

    def free(self, depth: int) -> int:
        """How many more tasks the actors take, if each may hold `depth`."""
        return sum((depth - k) * len(slots) for k, slots in enumerate(self._holding[:depth]))

    def emptiest(self) -> Slot:
        """A slot whose actor holds the fewest tasks; the one that has waited longest among them."""
        return next(slot for slots in self._holding for slot in slots.values())

    def idle(self) -> Iterator[Slot]:
        """The slots whose actors hold no task."""
        return iter(self._holding[0].values())
