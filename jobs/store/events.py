"""The event log of a store: one JSON line for each event of its runs.

run         a driver begins       done        a shard is committed
end         a driver ends         error       an attempt at a shard failed
decision    what was decided      stopped     an attempt was left at a checkpoint
second      a running shard is    superseded  an attempt was ended, since the other
            tried a second time               one at its shard was committed first
killed      the last sign of life of a driver that was killed, noted by the next one
warning     of the plan, noted when the store is made, or of a search
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field

from jobs import keys
from jobs.errors import Text
from jobs.storage import objects
from jobs.storage.checksums import write_sums
from jobs.store.store import Store

BYTES = 100_000
"""Size at which an object is full. Each flush rewrites an object that is not full, so the size bounds the bytes written."""

FLUSH_S = 30.0
"""Seconds after which the next event writes those that are in memory; failures and decisions are written at once."""


class Event(BaseModel, frozen=True, extra="allow", validate_by_name=True):
    """One event. Fields that do not apply have their defaults, and are not written.

    Further fields, of an executor or of another version of ctd, are kept beside these: `about`. An event of a kind that this
    version does not know has its other fields there.
    """

    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    kind: str = Field(alias="event")
    """Kind of event; the line calls it `event`."""
    shard: int | None = None
    group: int | None = None
    attempt: int | None = None
    host: str | None = None
    pid: int | None = None

    @property
    def process(self) -> tuple[str | None, int | None]:
        """The host and process id of the driver or worker."""
        return self.host, self.pid

    @property
    def about(self) -> dict[str, Any]:
        """The further fields."""
        return self.model_extra or {}

    def to_json(self) -> dict[str, Any]:
        """Return the content of the event's line."""
        fields = self.model_dump(by_alias=True, exclude_defaults=True)
        # These stand behind the fields of the kind.
        names = "host", "pid", "seconds", "n_failed", *self.about
        last = {name: fields.pop(name) for name in names if name in fields}
        # The first two in any case: a kind, and the time by a clock that stands still, are their own defaults.
        return {"time": self.time, "event": self.kind, **fields, **last}

    @staticmethod
    def from_json(content: Any) -> "Event":
        """Return the event that `to_json` described, of its kind. Raises ValueError if `content` describes none."""
        model = KINDS.get(str(content.get("event")), Event) if isinstance(content, dict) else Event
        return model.model_validate(content, by_name=False)  # a further field may be called `kind`


class Begin(Event):
    """A driver begins."""

    kind: str = Field("run", alias="event")
    executor: str | None = None
    pending: int | None = None
    """Shards to compute."""
    workers: int | None = None


class End(Event):
    """A driver ends."""

    kind: str = Field("end", alias="event")
    done: int | None = None
    """Shards committed."""
    failed: int | None = None
    """Shards given up."""
    stopped: Text | None = ""
    """Why the run was stopped before its end; None: it ran to its end."""
    lost: Sequence[int] | None = None
    """Shards that were still running."""
    ended: int | None = None
    """Items of shards without results that had ended when the run was stopped."""
    work: float | None = None
    """Work in those shards by then, in items: half of an item's advances are half an item."""
    n_failed: int | None = None


class Kill(Event):
    """The last sign of life of a driver that was killed."""

    kind: str = Field("killed", alias="event")


class Commit(Event):
    """A shard is committed, by an attempt in this store or by a marker alone ("committed", for readers; never written)."""

    kind: str = Field("done", alias="event")
    seconds: float | None = None
    n_failed: int | None = None


class Failure(Event):
    """An attempt at a shard failed ("error"), or was left at a checkpoint ("stopped"). For readers also an item that fails by
    itself ("item failed", never written)."""

    kind: str = Field("error", alias="event")
    error: Text | None = None
    trace: Text | None = None
    fault: str | None = None
    probe: bool | None = None
    rows: Sequence[int] | None = None
    """First row of the attempt, and the row after its last."""


class Remark(Event):
    """A decision, a warning ("warning"), the begin of a second attempt at a shard ("second"), the end of one ("superseded")."""

    kind: str = Field("decision", alias="event")
    text: Text | None = None


WARNING = "warning"
"""The kind of a remark with a warning of the plan or of a search."""

KINDS: dict[str, type[Event]] = {
    "run": Begin, "end": End, "killed": Kill, "done": Commit, "committed": Commit,
    **dict.fromkeys(("error", "stopped", "item failed"), Failure),
    **dict.fromkeys(("decision", WARNING, "second", "superseded"), Remark),
}  # fmt: skip


class Events:
    """Writes this process's events, one JSON line each, to a few objects below run/events/."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # By time, so that a listing sorts the runs; by process, since several drivers may start together.
        self._prefix = f"{keys.EVENTS}/{time.time_ns():020d}-{os.getpid()}"
        self._lines: list[str] = []
        self._number = self._bytes = 0
        self._full: list[tuple[int, int]] = []
        """(number, bytes) of each full object."""
        self._flushed = time.monotonic()

    def note(self, event: Event) -> None:
        """Add one event. It is written by `flush`, when the object is full, or by the first `note` after FLUSH_S seconds."""
        self._lines.append(json.dumps(event.to_json()))
        self._bytes += len(self._lines[-1])
        if self._bytes >= BYTES or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are not in the store yet; if the storage fails, the next flush writes them."""
        if not self._lines:
            return
        self._flushed = time.monotonic()
        # The whole object each time: an object store cannot append. One driver writes it, so nothing of another is lost.
        data = ("\n".join(self._lines) + "\n").encode()
        with objects.may_fail():
            objects.write(self._store.objects, self._key(self._number), data)
            if self._bytes >= BYTES:
                self._full.append((self._number, self._bytes))
                self._number, self._lines, self._bytes = self._number + 1, [], 0
                self._join()

    def _key(self, number: int) -> str:
        return f"{self._prefix}-{number:05d}.jsonl"

    def _join(self) -> None:
        """Join the last two full objects while the earlier one is less than twice as large: so there are few."""
        store = self._store.objects
        while len(self._full) > 1 and self._full[-2][1] < 2 * self._full[-1][1]:
            (first, size), (last, more) = self._full[-2:]
            parts = [objects.read(store, self._key(number)) or b"" for number in (first, last)]
            # The joined object first: a kill between the two leaves lines twice, which readers drop, and loses none.
            objects.write(store, self._key(last), b"".join(parts))
            objects.delete(store, self._key(first))
            self._full[-2:] = [(last, size + more)]

    def close(self) -> None:
        """Write the remaining lines, and the checksums of all objects that this instance wrote, unless the storage fails."""
        self.flush()
        # A driver that is killed writes no checksums; `ctd check` misses them only in a log with an `end`.
        with objects.may_fail():
            listed = list(objects.list_keys(self._store.objects, keys.EVENTS))
            of_run = [key for key in listed if key.startswith(self._prefix)]
            write_sums(self._store.objects, self._prefix.removeprefix("run/"), of_run)


def read_events(store: Store) -> list[Event]:
    """Return the events of all runs, in order of the runs; unreadable lines are left out.

    A round of a search has a number behind those of all shards: its events get its group, and no shard.
    """
    plan = store.job.plan if store.job.spec.search else None
    behind = plan.n_shards if plan else 0
    for _ in objects.read_attempts(keys.EVENTS):
        listed = sorted(objects.list_keys(store.objects, keys.EVENTS))
        read = [data for _, data in objects.read_all(store.objects, listed)]
        if None not in read:  # else a driver has joined objects meanwhile
            break
    text = b"\n".join(data or b"" for data in read).decode(errors="replace")
    events = []
    # A driver that was killed while it joined two objects has left lines twice; `dict.fromkeys` keeps the first.
    for line in dict.fromkeys(text.splitlines()):
        with suppress(ValueError):  # a line that a full disk cut short, or a stranger wrote
            event = Event.from_json(json.loads(line))
            if plan and event.shard is not None and event.shard >= behind:
                group = plan.group_of_round(event.shard)
                event = event.model_copy(update={"shard": None, "group": group})
            events.append(event)
    return events


def planned_warnings(events: Iterable[Event]) -> list[str]:
    """Return the warnings that were noted when the store was made, and by its searches, each once."""
    warnings = (e.text for e in events if isinstance(e, Remark) and e.kind == WARNING and e.text)
    return list(dict.fromkeys(warnings))


def unended(events: Iterable[Event], complete: bool = False) -> list[Begin]:
    """Return the `run` events without an `end` event: their drivers were killed or are still at work.

    complete: whether all shards are committed. The last run has then done its work; a full disk may have kept its `end`.
    """
    at_work: dict[tuple[str | None, int | None], Begin] = {}
    last = None
    for event in events:
        if isinstance(event, Begin) and None not in event.process:
            at_work[event.process] = last = event
        elif isinstance(event, End):
            at_work.pop(event.process, None)
    return [event for event in at_work.values() if not (complete and event is last)]
