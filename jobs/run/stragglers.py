"""Second attempts at shards that take far longer than their peers, on nodes with nothing else to do."""

from jobs.run.attempts import Attempts
from jobs.run.executor import Executor
from jobs.run.ledger import Ledger
from jobs.run.task import Task
from jobs.storage import objects
from jobs.store.checkpoint import clear
from jobs.store.events import Event


class Stragglers:
    """Makes the second attempts of one run, and ends the attempts that were not the first to be committed."""

    def __init__(self, ledger: Ledger, executor: Executor, attempts: Attempts) -> None:
        self._ledger, self._executor, self._attempts = ledger, executor, attempts

    def try_elsewhere(self) -> None:
        """Try the running shards that take far longer than their peers a second time, if no other shard waits."""
        ledger = self._ledger
        if ledger.is_open or self._executor.capacity() <= 0:
            return
        for task, seconds in self._attempts.slow(ledger.patience):
            second = task._replace(attempt=task.attempt + 1, resume=True, second=True)
            # With other slots than the first attempt it might have other bits.
            same = task.slots == ledger.failures.slots(task.shard.group)
            if same and self._executor.try_elsewhere(second):
                self._attempts.add_second(task, second)
                self._note("second", second, f"the first attempt has run for {seconds:.0f} s")

    def drop(self, task: Task) -> None:
        """End an attempt at a shard that the other attempt has committed."""
        self._attempts.end(task.key)
        self._executor.end(task.key)
        with objects.may_fail():  # it may have kept a checkpoint after the other one removed them
            clear(self._ledger.store, task.shard)
        self._note("outrun", task, "dropped: the other attempt was committed first")

    def _note(self, kind: str, task: Task, text: str) -> None:
        event = Event(kind=kind, shard=task.shard.number, attempt=task.attempt, text=text)
        self._ledger.events.note(event)
        self._ledger.events.flush()
