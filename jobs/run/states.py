"""The states of one group's rounds that are in the store, and the tasks that wait for states.

A round whose states are missing is computed again, after those that it goes on from, and so on to rounds whose states
are there, or that start.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Set

import numpy as np

from jobs import keys
from jobs.errors import JobError
from jobs.run.task import Task
from jobs.search import Round
from jobs.storage import objects
from jobs.store.store import Store

LOSSES = 3
"""How often the states of a round may be found missing."""


class KeptStates:
    """The rounds whose states are kept, and the tasks that have not been handed out.

    again: returns the task that computes a round again.
    """

    def __init__(self, store: Store, group: int, again: Callable[[int], Task]) -> None:
        self._objects, self._group, self._again = store.objects, group, again
        folder = f"{keys.ROUNDS}/{group}"
        self.kept = {keys.number_of(key) for key in objects.list_keys(store.objects, folder)}
        """Numbers of the rounds whose states are in the store."""
        self.waiting: list[Task] = []
        """Tasks that were not handed out yet."""
        self.repeated: set[int] = set()
        """Rounds that are computed again."""
        self._missed: Counter[int] = Counter()
        """Round -> how often its states were found missing."""

    def came(self, number: int) -> None:
        """Note that the states of a round are in the store."""
        self.kept.add(number)
        self.repeated.discard(number)

    def next_task(self) -> Task | None:
        """Return a task whose states are there, or a round that is computed again because its states are missing."""
        for k, task in enumerate(self.waiting):
            missing = _sources(task) - self.kept
            if not missing:
                return self.waiting.pop(k)
            if new := missing - self.repeated - {t.step.number for t in self.waiting if t.step}:
                number = min(new)
                self._missed[number] += 1
                self.repeated.add(number)
                self.waiting.append(self._again(number))
                return self.next_task()
        return None

    def lose(self, number: int, task: Task) -> None:
        """Note that the states of a round are gone; the task that needs them waits until they are computed again.

        Raises JobError if they were lost too often.
        """
        if self._missed[number] >= LOSSES:
            raise JobError(
                f"the states of round {number} are damaged again and again; check the storage"
            )
        self.kept.discard(number)
        self.waiting.append(task._replace(attempt=task.attempt + 1, begin="resume"))

    def forget(self, rounds: Set[int], needed: set[int], running: Iterable[Round]) -> None:
        """Delete the states of some rounds, unless they are needed, or a task goes on from them.

        running: the rounds that have been handed out.
        """
        sources = [_sources(task) for task in self.waiting]
        sources += [{*found.rounds.tolist()} for found in running]
        for number in (self.kept & rounds) - needed.union(self.repeated, *sources):
            with objects.may_fail():  # `ctd check` finds what stays
                objects.delete(self._objects, keys.round_states(self._group, number))
                self.kept.discard(number)


def _sources(task: Task) -> set[int]:
    """Return the rounds whose states a task goes on from."""
    assert task.step is not None
    return {int(number) for number in np.unique(task.step.round.rounds) if number >= 0}
