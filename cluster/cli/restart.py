"""Restart a command after its Ray is lost, a few times.

Threads that Ray leaves in a process without its cluster end that process after a minute. So the process replaces itself
(`exec`): its id, its terminal and its command line stay, the store holds what was computed, and `RestartState` the rest.

    a Ray of our own     is started again after WAITS_S seconds, each time longer
    an existing cluster  is waited for, at most `run.cluster_wait_s` seconds

Progress, committed shards or checkpoints, resets the count of losses.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import NoReturn

from cluster.ray.reach import accepts
from jobs.errors import count
from jobs.pipeline import Stage
from jobs.run.stop import Stop, blocked_signal
from jobs.store.advice import SUBMIT_AGAIN

WAITS_S = (5.0, 20.0, 60.0)
"""Wait before each start of a Ray of our own (s)."""

HANDED = "CTD_RESTART"
"""Environment variable with the number of the open file that holds the state for the restarted process."""

PROGRESS = "CTD_PROGRESS"
"""Environment variable with the file to which a stopped run writes its progress, which the next allocation compares."""

ENVIRONMENT = dict(os.environ)
"""The environment that this process was started with, before a Ray adds its own variables."""
ENVIRONMENT.pop(HANDED, None)


def same_command() -> str:
    """The command that goes on with this run later, in words; in an allocation it is the one that submitted it."""
    return SUBMIT_AGAIN if PROGRESS in os.environ else "the same command"


@dataclass(frozen=True)
class RestartState:
    """State passed to the restarted process; by default that of a first start. Times are of time.monotonic, which all processes
    of a machine share."""

    store: str = ""
    """Address of the store that was being run."""
    address: str | None = None
    """host:port of the Ray that was lost; None: one of our own."""
    wait_s: float = 0.0
    """Longest wait for a Ray that is not our own (s)."""
    cause: str = ""
    """How the Ray was lost."""
    progress: str = ""
    """The store's progress, from `jobs.run.shards.progress_digest`."""
    tries: int = 0
    """Starts in a row without progress, including this one."""
    lost_at: float = 0.0
    """When the Ray before the first of these starts was lost."""
    begin_at: float = 0.0
    """When to start the Ray."""
    stages: tuple[Stage, ...] = ()
    """The stages of the job files, up to that of `store` finished; empty for `ctd resume`."""
    asked_to_stop: str | None = None
    """The signal that came during the restart."""

    @classmethod
    def received(cls) -> "RestartState":
        """Receive the state of the process before this one; the defaults if there was none."""
        handed = os.environ.pop(HANDED, None)
        if handed is None:
            return cls()
        with open(int(handed)) as file:
            signal_fd, content = json.load(file)
        content["stages"] = tuple(Stage(**stage) for stage in content["stages"])
        return cls(**content, asked_to_stop=blocked_signal(signal_fd))

    def after_loss(
        self, store: str, cause: str, progress: str, now: float, address: str | None = None, wait_s: float = 0.0
    ) -> "RestartState":  # fmt: skip
        """The state for the next start, after the Ray of the run of `store` was lost."""
        first = progress != self.progress or store != self.store
        tries = 1 if first else self.tries + 1
        return replace(
            self, store=store, address=address, wait_s=wait_s, cause=cause, progress=progress, tries=tries,
            lost_at=now if first else self.lost_at, begin_at=now + WAITS_S[min(tries, len(WAITS_S)) - 1],
        )  # fmt: skip

    @property
    def _loss_text(self) -> str:
        return f"{f'the Ray at {self.address}' if self.address else 'Ray'} is gone ({self.cause})"

    def over(self, now: float) -> str | None:
        """The reason to give up, or None to start again."""
        if self.address is None and self.tries > len(WAITS_S):
            return f"{self._loss_text}; it was started again {count(len(WAITS_S), 'time')}"
        if self.address is not None and now - self.lost_at >= self.wait_s:
            return f"{self._loss_text}; it did not come back within {self.wait_s:g} s (run.cluster_wait_s)"
        return None

    def message(self, now: float) -> str:
        """One line for the user: what happened, and what the command does next."""
        if self.address is None:
            starts = f"starting it again in {self.begin_at - now:.3g} s"
            return f"{self._loss_text}; {starts} ({self.tries} of {len(WAITS_S)})"
        left_s = self.wait_s - (now - self.lost_at)
        return f"{self._loss_text}; waiting for it, {left_s:.3g} s at most (run.cluster_wait_s)"

    def wait(self, stop: Stop) -> str | None:
        """Wait until the Ray may be started or answers; return the reason to give up, or None to continue. Raises Interrupted."""
        while True:
            stop.check()
            now = time.monotonic()
            if reason := self.over(now):
                return reason
            if now >= self.begin_at and (self.address is None or accepts(self.address)):
                return None
            time.sleep(0.2)

    def begin(self, signal_fd: int) -> NoReturn:
        """Replace this process by a new one with the same command line, and pass it this state. signal_fd: from `block_signals`."""
        sys.stdout.flush()
        sys.stderr.flush()
        with tempfile.TemporaryFile("w+") as file:
            content = asdict(self)
            del content["asked_to_stop"]
            json.dump((signal_fd, content), file, default=str)
            file.flush()
            file.seek(0)
            # Close Ray's connections with the process, or Ray would take it for alive.
            for handle in map(int, os.listdir("/proc/self/fd")):
                with suppress(OSError):
                    os.set_inheritable(handle, handle <= 2 or handle in (file.fileno(), signal_fd))
            os.execve(  # noqa: S606  the user's own command
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                {**ENVIRONMENT, HANDED: str(file.fileno())},
            )
