"""What follows for the others of a population when one of its shards has changed; jobs.run.coordinator decides."""

from collections.abc import Iterable

from jobs.run.coordinator import Called
from jobs.run.ledger import Ledger
from jobs.storage import objects
from jobs.store.events import Event


class Populations:
    """Queues, restarts and gives up the shards of one run whose items a search compares."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def meet(self, number: int) -> None:
        """Queue the shards of a population that go on or start over; give up those not running if one was given up.

        Postponed if the storage fails.
        """
        ledger = self._ledger
        population = ledger.barrier.population(number)
        if lost := [k for k in population if k in ledger.progress.failed]:
            text = (
                f"not ended: shard {lost[0]}, whose items its own are compared with, was given up"
            )
            ledger.abandon(lambda shard: shard.number in population, text)
            return
        try:
            if called := ledger.barrier.call(number, ledger.done):
                self._call(number, called)
        except Exception as error:
            ledger.wait_for_storage(error)
            ledger.unmet.add(number)

    def retry_postponed(self) -> None:
        """Look again at the populations that must be looked at."""
        unmet, self._ledger.unmet = self._ledger.unmet, set()
        for number in sorted(unmet):
            self.meet(number)

    def tidy(self, numbers: Iterable[int]) -> None:
        """Remove the arrivals and checkpoints of those populations that are committed as a whole."""
        barrier, done = self._ledger.barrier, self._ledger.done
        for first in {barrier.population(k)[:1] for k in numbers}:
            if first and done.keys() >= set(barrier.population(first[0])):
                with objects.may_fail():  # `ctd check` finds what stays
                    barrier.clear(first[0])

    def _call(self, number: int, called: Called) -> None:
        ledger = self._ledger
        if called.clear:
            ledger.barrier.clear(number)
        group = ledger.shards[number].group
        markers = ledger.store.committed.markers(group) if called.undone else []
        outcomes = {marker.shard.number: marker.outcomes for marker in markers}
        undone = [ledger.shards[number] for number in sorted(called.undone)]
        ledger.uncommit({shard: outcomes.get(shard.number, {}) for shard in undone})
        for task in called.tasks:
            ledger.barrier.drop(task.shard.__eq__)
            ledger.queue.push(task)
        if called.start_over:
            numbers = sorted(task.shard.number for task in called.tasks)
            text = f"shards {numbers}, whose items are compared, start over"
            ledger.events.note(Event(kind="decision", shard=number, text=text))
            ledger.events.flush()
