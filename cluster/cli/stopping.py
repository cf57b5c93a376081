"""A run that stops: what is said at once, before it has tidied up, and the command that goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from cluster.cli.display import err
from jobs.errors import JobError, advised
from jobs.run.stop import Stop
from jobs.storage.objects import is_storage_error
from jobs.store.store import Store, resume_command

SAY_S = 1.0
"""Longest wait of a signal's handler until its line is printed (s)."""


@contextmanager
def told_at_once(stop: Stop, again: Callable[[], str]) -> Iterator[None]:
    """Print a line as soon as a stop is asked for within this block, and one if a second signal ends the block at once.

    again: returns the command, for messages, that goes on.
    """
    asked = [again]
    say = lambda command: err.print(f"stopping ({stop.reason}); {command()} continues it")

    def tell() -> None:
        # A thread of its own: what the signal has interrupted may hold the lock of the terminal.
        for command in asked:
            thread = Thread(target=say, args=[command], daemon=True)
            thread.start()
            thread.join(SAY_S)

    stop.add_callback(tell)
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"stopped at once; {again()} continues it")
        raise
    finally:
        asked.clear()  # `stop` outlives this block


def to_resume(address: str) -> str:
    """Return the command, for messages, that goes on with a store, even if the store cannot be read now."""
    plain = advised("ctd", "resume", address)
    return if_it_answers(lambda: resume_command(Store.open(address)), plain)


def if_it_answers[T](ask: Callable[[], T], otherwise: T) -> T:
    """Return `ask()`, or `otherwise` if the store cannot be read: a stop then ends as one all the same."""
    try:
        return ask()
    except JobError:
        return otherwise
    except Exception as fault:
        if not is_storage_error(fault):
            raise
        return otherwise
