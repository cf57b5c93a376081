"""A submitted job as a Python object: follow it, wait for it, cancel it."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.submission import Submission
from cluster.tracking import cancel, is_over, log_tail, look, said
from jobs.errors import JobError
from jobs.store.store import Store

if TYPE_CHECKING:
    from jobs.query.tree import StoreTree


@dataclass(frozen=True)
class Submitted:
    """A submitted job, from `Job.submit`; another process gets it by `Submitted.of(store)`."""

    store: str
    submission: Submission

    @staticmethod
    def of(store: str) -> "Submitted":
        """The latest submission of a store. Raises JobError if there is none."""
        if not (found := look(store)):
            raise JobError(f"{store}: nothing was submitted for it; give a store that was")
        return Submitted(store, found[-1][0])

    def allocations(self) -> dict[str, str]:
        """The state, in words, of each allocation or of the job on a Ray: number -> state."""
        return {number: said(state) for number, state in self._states().items()}

    def status(self) -> dict[str, Any]:
        """The content of `ctd status --json`: submissions, and counts of items, shards, outcomes and errors."""
        from jobs.report.summary import state

        found: dict[str, Any] = {"store": self.store, "submissions": self.allocations()}
        return found | (state(Store.open(self.store)) if Store.exists(self.store) else {})

    def wait(self, timeout_s: float | None = None, every_s: float = 5.0) -> "StoreTree":
        """Wait until nothing runs or is queued any more, and return the opened store.

        Args:
            timeout_s: longest wait (s); by default no limit.
            every_s: poll interval (s).

        Raises:
            TimeoutError: after `timeout_s`; the job continues.
            JobError: the job ended before all shards were done; the text has the last lines that it printed.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not all(is_over(state) for state in self._states().values()):
            if end is not None and time.monotonic() > end:
                raise TimeoutError(
                    f"{self.store}: not done after {timeout_s:g} s; {self.allocations()}"
                )
            time.sleep(every_s)
        from jobs.query.tree import StoreTree
        from jobs.report.summary import state

        if Store.exists(self.store):
            opened = Store.open(self.store)
            if state(opened)["complete"]:
                return StoreTree.of(opened)
        raise JobError(
            f"{self.store}: ended before all shards were done: {self.allocations()}\n{self.logs()}"
        )

    def cancel(self) -> list[str]:
        """Stop the job in order, and return what was done, in lines; `Job.submit` or `ctd resume` continues it."""
        return cancel(self.store)

    def logs(self, n_lines: int = 40) -> str:
        """The last lines that the driver printed."""
        return log_tail(self.store, n_lines)

    def _states(self) -> dict[str, Any]:
        return next(states for sent, states in look(self.store) if sent.id == self.submission.id)
