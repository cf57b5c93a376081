"""What follows from attempts that failed and from probes; jobs.run.retry decides, this carries it out."""

from jobs.run.ledger import Ledger
from jobs.run.limits import storage_trouble
from jobs.run.task import Report, Task
from jobs.store.events import Event


class Decisions:
    """Carries out what is decided about the shards of one run that were not committed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._errors: dict[int, str] = {}
        """Shard -> the last error of an attempt at all of it."""

    def note(self, task: Task, report: Report) -> None:
        """Record a failure's error and event; pause if the storage has failed."""
        ledger = self._ledger
        if report.error is None:
            return
        if report.fault == "storage":
            ledger.storage.begin(storage_trouble(ledger.store.address, report.error))
        if not task.probe:
            self._errors[report.shard] = report.error
        failure = Event(
            kind="stopped" if report.fault == "stopped" else "error",
            shard=report.shard, attempt=report.attempt, error=report.error,
            trace=report.trace, fault=report.fault, probe=task.probe,
            rows=[task.shard.start, task.shard.stop], about=report.info,
        )  # fmt: skip
        ledger.events.note(failure)

    def decide(self, task: Task, report: Report) -> None:
        """Decide what follows from a failure or a probe; postpone it if the storage fails."""
        ledger, shard = self._ledger, self._ledger.shards[report.shard]
        try:
            if report.error is None:
                verdict = ledger.failures.passed(task, shard)
                ledger.storage.end()
            else:
                verdict = ledger.failures.decide(task, report, shard)
        except Exception as error:
            ledger.wait_for_storage(error)
            ledger.undecided.append((task, report))
            return
        if verdict.note:
            ledger.events.note(Event(kind="decision", shard=report.shard, text=verdict.note))
        found = ledger.progress.blame(ledger.failures.failed.get(shard.number, ()))
        if verdict.task is None:
            last = self._errors[report.shard]
            text = f"{last} ({verdict.note})" if verdict.note else last
            ledger.progress.failed[report.shard] = text
        else:
            again = report.error is not None and not task.probe and not verdict.task.probe
            ledger.progress.retried += again and report.fault != "stopped"
            ledger.queue.push(verdict.task, verdict.wait_s)
        gone = verdict.task is None and ledger.hopeless.given_up(shard.group)
        if ledger.hopeless.blamed(shard.group, found) or gone:
            self.give_up(shard.group)
        ledger.fold_many()
        ledger.events.flush()

    def settle(self) -> None:
        """Retry the decisions that a storage failure postponed."""
        ledger = self._ledger
        while ledger.undecided and not ledger.storage.lasts:
            task, report = ledger.undecided.pop(0)
            self.decide(task, report)
            ledger.unmet.add(report.shard)

    def give_up(self, group: int) -> None:
        """Give up the shards of a group that are not running."""
        text = f"not tried: nothing of group {group} could be computed before"
        n = self._ledger.abandon(lambda shard: shard.group == group, text)
        self._ledger.events.note(Event(kind="decision", group=group, text=f"{n} shards {text}"))
