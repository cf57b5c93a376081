"""A request to stop a run in order: no further shard begins, and running shards are left at a checkpoint.

while shards run      the driver sees `Stop.reason` and gives the workers their grace time
at any other moment   (planning, starting Ray, gather, drawing) the signal raises `Interrupted`: these steps can be killed
                      and repeated, so they need no grace time
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

CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""The signals that ask for a stop."""

AT_ONCE = (signal.SIGTERM, signal.SIGINT)
"""Signals whose repetition ends the grace time. Not SIGHUP: when a terminal closes, both it and its shell send one."""


class Interrupted(BaseException):
    """Raised in the main thread by a signal that asks for a stop, while no driver looks at `Stop.reason`."""


def block_signals() -> int:
    """Block the signals that ask for a stop, also across `exec`, until `signals` handles them; return what `blocked_signal` reads."""
    # Blocking holds for this thread alone. Another thread may still receive a signal, and `exec` would come before Python
    # calls its handler. The pipe, to which Python writes the number at once, survives the `exec`. A signal is still lost if
    # `exec` ends the thread that has just received it, before it writes: some microseconds, in which only a test sends one.
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    return read_end


def blocked_signal(read_end: int) -> str | None:
    """Return the first signal between `block_signals` and `exec`, in the words of `Stop.reason`; None if there was none."""
    with open(read_end, "rb") as pipe:
        numbers = [number for number in pipe.read() if number in CAUGHT]
    return _reason(numbers[0]) if numbers else None


def _reason(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class Stop:
    """A request to stop, its reason and its deadline; safe to use from signal handlers and threads."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.is_deferred = False
        """True while a loop looks at `reason`, so that a signal need not raise."""
        self._deadline = self._grace_s = float("inf")
        self._callbacks: list[Callable[[], None]] = []

    def ask(self, reason: str, grace_s: float | None = None) -> None:
        """Ask for a stop; only the first request counts. grace_s: seconds for the workers, if fewer than the job gives."""
        if self.reason is None:
            if grace_s is not None:
                self._grace_s = grace_s
            self.reason = reason  # last: another thread that sees it must find the grace time
            for callback in self._callbacks:
                callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a stop is asked for, or now if it has been."""
        # First into the list: a request between the two lines then calls it twice, which does no harm, and never not at all.
        self._callbacks.append(callback)
        if self.reason is not None:
            callback()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block, which looks at `reason` itself, signals set it and do not raise."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.reason is not None:
            raise Interrupted(self.reason)

    def begin_grace(self, grace_s: float) -> None:
        """Start the workers' grace time: `grace_s` seconds, or fewer if the request says so. Later calls change nothing."""
        if self._deadline == float("inf"):
            self._deadline = time.monotonic() + min(grace_s, self._grace_s)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Make SIGTERM, SIGUSR1, SIGHUP and Ctrl-C ask for a stop; a second Ctrl-C or SIGTERM raises KeyboardInterrupt.

    An ignored SIGHUP, as under `nohup`, stays ignored. Signals that `block_signals` blocked ask for a stop now, and do not
    raise. Outside of the main thread, which alone handles signals in Python, this changes nothing.

    Raises Interrupted if a stop is asked for outside `stop.deferred()`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: set[int] = set()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            _let_go_of_the_terminal()  # before anything is printed about the stop
        if number in AT_ONCE and not received.isdisjoint(AT_ONCE):
            raise KeyboardInterrupt
        received.add(number)
        if stop.reason is None:
            stop.ask(_reason(number))
            if not stop.is_deferred:
                stop.check()

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in CAUGHT if number != signal.SIGHUP or not ignored]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        with stop.deferred():
            # Signals that have waited arrive here: Python calls their handlers before it returns.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go_of_the_terminal() -> None:
    """Send output to /dev/null if its terminal is gone, because every further write would raise OSError."""
    for handle in (1, 2):
        try:
            termios.tcgetattr(handle)
        except termios.error as error:  # of a file or a pipe it is ENOTTY
            if error.args[0] == errno.EIO:
                # Python's streams keep their descriptor, which leads nowhere from now on.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, handle)
                os.close(nowhere)
