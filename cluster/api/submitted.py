"""A job that was sent to a cluster, as Python sees it."""

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
    """What `Job.submit` returns. Another process gets the same by `Submitted.of(store)`."""

    store: str
    submission: Submission

    @staticmethod
    def of(store: str) -> "Submitted":
        """Return the latest submission of a store; JobError if there is none."""
        if not (found := look(store)):
            raise JobError(f"{store}: nothing was submitted for it")
        return Submitted(store, found[-1][0])

    def allocations(self) -> dict[str, str]:
        """Return the state, in words, of each allocation, or of the job on a Ray: number -> state."""
        return {number: said(state) for number, state in self._states().items()}

    def status(self) -> dict[str, Any]:
        """Return what `ctd status --json` prints: submissions, and counts of items, shards, outcomes and errors."""
        from jobs.report.summary import state

        found: dict[str, Any] = {"store": self.store, "submissions": self.allocations()}
        return found | (state(Store.open(self.store)) if Store.exists(self.store) else {})

    def wait(self, timeout_s: float | None = None, every_s: float = 5.0) -> "StoreTree":
        """Wait until nothing runs or waits any more, and return the store, opened.

        Raises:
            TimeoutError: after `timeout_s` seconds; the job goes on.
            JobError: it ended before all shards were done; the text says what it printed last.
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
        """Stop the job in order, and return what was done, a line each; `Job.submit` or `ctd resume` goes on."""
        return cancel(self.store)

    def logs(self, n_lines: int = 40) -> str:
        """Return the last lines that the driver printed."""
        return log_tail(self.store, n_lines)

    def _states(self) -> dict[str, Any]:
        return next(states for sent, states in look(self.store) if sent.id == self.submission.id)
