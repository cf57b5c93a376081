"""Tasks that a driver hands to workers, the reports that it gets back, and the executors between them."""

import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from jobs.errors import JobError
from jobs.plan.layout import Machines, Shard
from jobs.redact import redact
from jobs.run.stop import Stop
from jobs.search.searcher import Round, RoundReport
from jobs.storage import objects
from jobs.store.live import Value
from jobs.store.marker import Cost, Marker
from jobs.store.store import Store

Fault = Literal["error", "outside", "input", "memory", "storage", "death", "stopped"]
"""Why a shard was not committed.

    error      an exception in the computation of its items
    outside    an exception in loading, reading or writing
    input      bad input, which another attempt would not change
    memory     memory ran out
    storage    the storage failed
    death      its worker died
    stopped    a stop was asked for
"""

Begin = Literal["fresh", "resume", "beside"]
"""The beginning of an attempt.

    fresh     from the start
    resume    from a checkpoint, if an earlier attempt left one
    beside    as `resume`, while another attempt at the shard is running; only that one keeps checkpoints
"""

Key = tuple[int, int]
"""Identifies an attempt: (number of the shard, number of the attempt)."""


class Step(NamedTuple):
    """The part of a search that an attempt computes: a round, or the last step of a planned shard.

    A round advances its items and stores their states. Once all items of a planned shard have ended, the last step writes
    their results; its round has no advances.
    """

    number: int
    """Number of the round in its search; -1: the last step."""
    round: Round
    search_results: Mapping[str, Any] | None = None
    """In the last step: the results that the search adds, name -> (rows of the shard, ...)."""
    before: Cost = Cost()
    """In the last step: what the rounds of its items cost."""


class Task(NamedTuple):
    """One attempt at a shard."""

    shard: Shard
    attempt: int = 1
    slots: int | None = None
    """Items on a device at a time, if memory allows fewer than planned; None: as planned."""
    without: tuple[int, ...] = ()
    """Rows of the group that are not computed and are marked as failed."""
    probe: bool = False
    """Compute without writing. `shard` is then part of a planned one, to find the items that fail."""
    step: Step | None = None
    """None without a search. In a round, `shard` has a number of the round's own, and the attempt computes the rows of the round
    between its start and its stop."""
    begin: Begin = "fresh"

    @property
    def key(self) -> Key:
        return self.shard.number, self.attempt


def rows_of(task: Task) -> np.ndarray:
    """Return the rows of the group that the attempt computes."""
    rows = np.arange(task.shard.start, task.shard.stop)
    # The rows of a round lie anywhere between its first and its last.
    if task.step:
        rows = np.intersect1d(rows, task.step.round.rows)
    return np.setdiff1d(rows, task.without) if task.without else rows


class StoreWork(Protocol):
    """Work on a store that computes no item, such as the reduction of a group; it travels to a worker as a pickle."""

    @property
    def key(self) -> Key: ...

    def do(self, store: Store) -> None:
        """Do the work; the report holds its error alone."""


Work = Task | StoreWork
"""A piece of work for a worker."""


class Report(NamedTuple):
    """The outcome of one attempt, as the driver gets it; it holds no results."""

    shard: int
    """Number of the shard, or of the group that was reduced."""
    attempt: int
    marker: Marker | None = None
    """Marker of the committed shard, without checksums; None after a probe, a reduction, or if nothing was committed."""
    error: str | None = None
    """Last line of the error; None if nothing went wrong."""
    trace: str = ""
    fault: Fault = "error"
    """Kind of error; meaningless if there is none."""
    about: Mapping[str, Any] = {}
    """For the events: host, devices, cause of the worker's death."""
    round_end: tuple[RoundReport, Cost] | None = None
    """The report of a round of a search, and its cost."""
    lost_round: int | None = None
    """The round whose states are missing or damaged, if the attempt needed them."""

    @property
    def key(self) -> Key:
        return self.shard, self.attempt


MOST_TRACE = 8000
"""Characters kept of a traceback, from its end: the innermost frames and the error."""


def error_text(error: BaseException) -> str:
    """Return an exception as text of at most 2,000 characters without credentials, even if its own `str` fails."""
    return redact(_text(error)[:4000])[:2000]


def traceback_text(error: BaseException) -> str:
    """Return the end of an exception's traceback without credentials.

    Of the text of a storage error it contains only what `error_text` lets through.
    """
    if objects.is_storage_error(error):
        text = "".join(traceback.format_tb(error.__traceback__)) + _text(error)
    else:
        text = "".join(traceback.format_exception(error))
    # Before it is cut: half a name hides nothing.
    return redact(text[-2 * MOST_TRACE :])[-MOST_TRACE:]


def _text(error: BaseException) -> str:
    try:
        # A server's answer may quote the request, including the name of the access key.
        text = objects.reason(error) if objects.is_storage_error(error) else str(error)
    except Exception:
        text = "(no readable text)"
    if "Traceback (most recent call last)" in text:
        # An error in a callback contains its traceback; the last line names the exception.
        ends = [line for line in text.splitlines() if re.match(r"[A-Za-z_][\w.]*: ", line)]
        return ends[-1] if ends else text
    return text if isinstance(error, JobError) else f"{type(error).__name__}: {text}"


class ShardProgress(NamedTuple):
    """Progress of a running shard."""

    finished: int = 0
    """Items that make no further advances."""
    advances: int = 0
    """Advances of the devices, including those before the checkpoint from which it went on."""
    most: int = 0
    """`advances` if every item makes all that it may; 0 if unknown."""
    waiting: str = ""
    """The step that the shard waits for before its first advance ends here, as text: reading, compiling, tuning; "" afterwards."""
    work: float = 0.0
    """Work done, in items: half of an item's advances are half an item."""
    value: Value | None = None
    """The items' value of the first curve, if the kernel has curves."""
    failed: Mapping[str, int] = {}
    """Failing outcome -> items that have ended with it, if the kernel has curves."""
    advancing: bool = False
    """True while an advance runs, its compilation included; otherwise the shard loads, reads or writes."""


class Heartbeat(NamedTuple):
    """The last sign of life of a running attempt."""

    progress: ShardProgress | None
    """Progress of its shard; None if it has not reported yet."""
    silent_s: float
    """Seconds since then; always 0 in this process, where nothing could end the attempt."""


class Pulse:
    """When a worker last began or ended an advance; another thread reads it."""

    def __init__(self) -> None:
        self.last = (False, time.monotonic())
        """(whether an advance runs, the time.monotonic of its beginning or else of the last one's end)."""

    def beat(self, advancing: bool = False) -> None:
        """Note that an advance begins, or that something else does."""
        # In one assignment: the other thread reads both or neither.
        self.last = advancing, time.monotonic()

    @contextmanager
    def advance(self) -> Iterator[None]:
        """Note that an advance runs until the block ends."""
        self.beat(advancing=True)
        try:
            yield
        finally:
            self.beat()


TICK_S = 0.25
"""Least seconds between two ticks."""

OnTick = Callable[[Mapping[Key, Heartbeat]], None]
"""Called with attempt -> its last heartbeat, for the running attempts."""


class ExecutorLost(Exception):
    """Raised by `wait` if the executor can compute no more. Running attempts are lost; committed shards stay."""


class Executor(Protocol):
    """Runs shards: `submit` at most `capacity()` pieces of work, then `wait` for their reports."""

    name: str

    def machines(self) -> Machines:
        """Return the number of workers, and the memory and devices of each; a cluster may take seconds to answer."""

    def start(self, address: str, stop: Stop | None = None, on_tick: OnTick | None = None) -> None:
        """Prepare for the store at `address`.

        stop: once it is asked for, the workers leave their shards at a checkpoint, and `wait` returns the reports.
        on_tick: called from within `wait`, every `TICK_S` seconds or later.
        """

    def capacity(self) -> int:
        """Return how many more pieces of work it takes now."""

    def submit(self, work: Work) -> None:
        """Take a piece of work; `wait` returns its report."""

    def wait(self, timeout: float) -> list[Report]:
        """Return the reports that have come in; wait for the first at most `timeout` seconds.

        Raises ExecutorLost if no further one will come.
        """

    def try_elsewhere(self, task: Task) -> bool:
        """Begin a second attempt at a running shard, if another node has an idle worker of the same kind; return whether it began."""

    def end(self, attempt: Key, cause: str | None = None) -> None:
        """End an attempt that hangs or has a second one, and the worker that runs it.

        cause: the error that `wait` reports, as a death of the worker; None: the attempt is superseded and not reported.
        """

    def close(self) -> None:
        """Release all workers at once; running attempts are lost."""


class Ticker:
    """Calls a function with the heartbeats of running attempts, at most every `TICK_S` seconds."""

    def __init__(self, on_tick: OnTick | None) -> None:
        self._on_tick, self._at = on_tick, time.monotonic()

    def tick(
        self, heartbeats: Callable[[], Mapping[Key, Heartbeat]], at_once: bool = False
    ) -> None:
        """Call the function if `TICK_S` has passed, or `at_once`."""
        # A function, so that heartbeats are collected only for a tick that is due.
        is_due = at_once or time.monotonic() - self._at >= TICK_S
        if self._on_tick is not None and is_due:
            self._on_tick(heartbeats())
            # After the call, so that a slow listener does not make the next tick due at once.
            self._at = time.monotonic()
