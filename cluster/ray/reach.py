"""Notice that a Ray is lost before Ray does.

If a process loses the head of its Ray (the GCS), Ray ends it after a minute, and until then may answer no call. If it
loses the daemon of its own node (the raylet), it waits for ever.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress

from jobs.errors import JobError
from jobs.run.task import ExecutorLost

LOOK_S = 1.0
"""Seconds between two looks."""

ANSWER_S = 5.0
"""Longest wait (s) for a Ray to accept a connection."""


class NoRay(JobError):
    """Raised where there is no Ray to compute on: none starts or answers, or the one there has no room for a worker."""


def knock(address: str) -> None:
    """Connect to host:port and leave; raises OSError if nobody accepts. An address of another form counts as there."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


def accepts(address: str) -> bool:
    """Return whether `knock` succeeds."""
    with suppress(OSError):
        knock(address)
        return True
    return False


class Reach:
    """Watch whether a Ray can be reached; a thread looks every `LOOK_S` seconds, until `close`.

    patience_s: seconds without an accepted connection after which it counts as lost.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._ends: dict[str, str] = {}
        self._silent: list[str] = []
        """The ends that accepted no connection at the last look."""
        self._heard_at = time.monotonic()
        """The last time at which all of them accepted one."""
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="ray-reach", daemon=True).start()

    def watch(self, **ends: str) -> None:
        """Look from now on whether these ends, name=host:port, accept connections, too."""
        self._ends = self._ends | ends  # a new one: the thread may be reading the old one

    @property
    def holds(self) -> bool:
        """Return whether all ends accepted connections at the last look."""
        return not self._silent

    def look(self) -> bool:
        """Look now; return whether all ends accept connections."""
        # Called by the thread and by the driver, without a lock: a list takes the place of another in one step.
        self._silent = [name for name, end in self._ends.items() if not accepts(end)]
        if not self._silent:
            self._heard_at = time.monotonic()
        return not self._silent

    def refuse_lost(self) -> None:
        """Raise ExecutorLost if the Ray counts as lost."""
        silent = self._silent  # read once: the thread may replace it
        if silent and time.monotonic() - self._heard_at > self._patience_s:
            do = "do" if len(silent) > 1 else "does"
            raise ExecutorLost(f"its {' and its '.join(silent)} {do} not answer")

    def ask[T](self, call: Callable[[], T]) -> T:
        """Call a function of Ray and return its result; raise ExecutorLost if the Ray is lost meanwhile.

        Killing or making an actor and listing nodes need an answer of the GCS, which may end between a look and the call; the
        call then never returns.
        """
        answer: Future[T] = Future()

        def answered() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        # If the call never returns, the thread is left behind; a daemon keeps no process from ending.
        threading.Thread(target=answered, name="ray-ask", daemon=True).start()
        while not wait([answer], LOOK_S).done:
            self.refuse_lost()
        return answer.result()

    def close(self) -> None:
        self._closing.set()

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_S):
            self.look()
