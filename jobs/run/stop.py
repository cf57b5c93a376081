"""A request to stop a run in order: no shard is begun, running ones are left at a checkpoint.

while shards run      the driver sees `Stop.reason` and gives the workers their grace time
at any other moment   (planning, a Ray that starts, gather, drawing) the signal raises `Interrupted`: these steps may be
                      killed and repeated, so nothing has to be left in order
"""

import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_FAULT = 2
"""Exit code of a command whose input is at fault, or that cannot go on for a reason it tells."""

EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: the run was stopped in order, and `ctd resume` goes on."""


CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""The signals that ask for a stop."""

AT_ONCE = (signal.SIGTERM, signal.SIGINT)
"""Those that, sent again, do not wait for the workers. A terminal that closes sends SIGHUP twice: its shell does, too."""


class Interrupted(BaseException):
    """Raised in the main thread by a signal that asks for a stop, where no driver looks at `Stop.reason`."""


def hold_back() -> int:
    """Let the signals that ask for a stop wait, through `exec` too, until `signals` hears them.

    Other threads of this process may still take one, whose handler Python would call later than it becomes another. Returns a
    descriptor from which `held_back` reads these.
    """
    come, go = os.pipe()
    os.set_blocking(go, False)
    signal.set_wakeup_fd(go, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    return come


def held_back(come: int) -> str | None:
    """Return the first signal that came between `hold_back` and `exec`, as `Stop.reason` has it; None: there was none."""
    with open(come, "rb") as pipe:
        numbers = [number for number in pipe.read() if number in CAUGHT]
    return _reason(numbers[0]) if numbers else None


def _reason(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class Stop:
    """Whether to stop, why, and until when; safe to use from signal handlers and threads."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.is_deferred = False
        """Whether whoever runs looks at `reason`, so that a signal need not raise."""
        self._deadline = float("inf")
        self._grace_s: float | None = None
        self._told: list[Callable[[], None]] = []
        self._remarks: list[str] = []

    def ask(self, reason: str, grace_s: float | None = None) -> None:
        """Ask for a stop because of `reason`; only the first request counts.

        grace_s: seconds for the workers, if fewer than the job gives.
        """
        if self.reason is None:
            self._grace_s, self.reason = grace_s, reason
            for tell in self._told:
                tell()

    def tell(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a stop is asked for, or now if it has been."""
        self._told.append(listener)
        if self.reason is not None:
            listener()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals only set `reason` within this block, which looks at it."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.reason is not None:
            raise Interrupted(self.reason)

    def remark(self, text: str) -> None:
        """Keep what is worth telling, and no reason to stop, for `remarks`."""
        self._remarks.append(text)

    def remarks(self) -> list[str]:
        """Return what was remarked since the last call."""
        found, self._remarks = self._remarks, []
        return found

    def begin_grace(self, grace_s: float) -> None:
        """Start the workers' time, `grace_s` seconds or less if the request says so; later calls change nothing."""
        if self._deadline == float("inf"):
            self._deadline = time.monotonic() + min(grace_s, self._grace_s or grace_s)

    @property
    def is_over(self) -> bool:
        """Whether the time that the workers had has run out."""
        return time.monotonic() >= self._deadline


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Make SIGTERM, SIGUSR1, SIGHUP and Ctrl-C ask for a stop; a second Ctrl-C or SIGTERM raises KeyboardInterrupt.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Signals reach the main thread alone: in another one nothing
    changes. Those that came while they were held back (`hold_back`) ask now, and do not raise.

    Raises:
        Interrupted: a stop is asked for outside `stop.deferred()`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sent: set[int] = set()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            _let_go_of_the_terminal()
        if number in AT_ONCE and not sent.isdisjoint(AT_ONCE):
            raise KeyboardInterrupt
        sent.add(number)
        if stop.reason is None:
            stop.ask(_reason(number))
            if not stop.is_deferred:
                stop.check()

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [number for number in CAUGHT if number != signal.SIGHUP or not ignored]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        with stop.deferred():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go_of_the_terminal() -> None:
    """Send output to /dev/null where its terminal is gone: every further write would raise OSError."""
    for handle in (1, 2):
        try:
            termios.tcgetattr(handle)
        except termios.error as error:  # of a file or a pipe it is ENOTTY
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, handle)
                os.close(nowhere)
