"""The searches of one run, one for each group: they begin, go on, and end or are given up."""

from collections.abc import Iterator, Set
from contextlib import contextmanager

from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.progress import Progress
from jobs.run.retry import Failures
from jobs.run.search import GroupSearch
from jobs.run.task import Task
from jobs.search import Told
from jobs.store.events import Event, Events
from jobs.store.rounds import Cost
from jobs.store.store import Store


class Searches:
    """The searches that go on.

    A search is known by the first of its groups. done: the numbers of the committed shards; the caller keeps it up to date.
    """

    def __init__(
        self, store: Store, failures: Failures, done: Set[int], progress: Progress, events: Events
    ) -> None:
        self._store, self._failures, self._done = store, failures, done
        self._progress, self._events = progress, events
        self._found: dict[int, GroupSearch] = {}
        """Group -> its search."""

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, group: int) -> bool:
        return self._of(group) is not None

    def _of(self, group: int) -> GroupSearch | None:
        return self._found.get(self._store.job.plan.together(group)[0])

    @property
    def has_task(self) -> bool:
        """Whether a task could be handed out now."""
        return any(search.has_task for search in self._found.values())

    @property
    def n_open(self) -> int:
        """The number of their shards that are not committed."""
        return sum(len(search.open_shards) for search in self._found.values())

    @property
    def n_ended(self) -> int:
        """The number of items that have ended, and whose shards are not committed."""
        return sum(search.n_ended for search in self._found.values())

    @property
    def work(self) -> float:
        """The work of their items in past rounds, in items, of shards that are not committed."""
        return sum(search.work for search in self._found.values())

    def begin(self, group: int) -> list[Shard]:
        """Begin the search of a group, or go on with it; return committed shards that must be taken back first."""
        search = self._found[group] = GroupSearch(self._store, group, self._failures, self._done)
        with self._may_end(group):
            search.open()
        return search.unfounded

    def next_task(self) -> Task | None:
        """Return the next task of any search; None if there is none now. Raises the errors of the storage."""
        tasks = (search.next_task() for search in self._found.values())
        return next((task for task in tasks if task is not None), None)

    def tell(self, task: Task, told: Told, cost: Cost) -> None:
        """Note the end of a round."""
        group = task.shard.group
        if (search := self._of(group)) and task.step:
            with self._may_end(group):
                search.tell(task.step.number, told, cost)
            self._progress.stage = search.searcher.stage

    def lose(self, task: Task, number: int) -> None:
        """Note that a task needs the states of a round that are missing or damaged."""
        group = task.shard.group
        if search := self._of(group):
            text = f"the states of round {number} of group {group} are damaged; they are computed again"
            self._events.note(Event(kind="decision", shard=task.shard.number, text=text))
            with self._may_end(group):
                search.states.lose(number, task)

    def committed(self, shard: Shard) -> None:
        """Note a committed shard: the search of its group is over once it was the last one."""
        if (search := self._of(shard.group)) and not search.open_shards:
            del self._found[self._store.job.plan.together(shard.group)[0]]
            search.seal()

    def end(self, group: int, text: str) -> None:
        """Give up the shards of a group whose search cannot go on. text: why."""
        if search := self._found.pop(self._store.job.plan.together(group)[0], None):
            self._progress.failed |= dict.fromkeys(search.open_shards, text)
            self._events.note(Event(kind="decision", group=group, text=f"its search ends: {text}"))

    @contextmanager
    def _may_end(self, group: int) -> Iterator[None]:
        try:
            yield
        except JobError as error:
            self.end(group, str(error))
