"""The event log of a store: one JSON line for each event of its runs."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import write_sums
from jobs.store.store import Store

BYTES = 100_000
"""Size at which an object is full. Until then every flush rewrites it."""

FLUSH_S = 30.0


class Events:
    """Writes this process's events, one JSON line each, to objects of about `BYTES` below run/events/."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prefix = f"{keys.EVENTS}/{time.time_ns():020d}-{os.getpid()}"
        self._lines: list[str] = []
        self._segment = self._bytes = 0
        self._flushed = time.monotonic()

    def note(self, event: str, **fields: Any) -> None:
        """Add one event. It stays in memory until `flush`, until the object is full, or for FLUSH_S seconds:
        the first `note` after that time writes it."""
        self._lines.append(json.dumps({"time": time.time(), "event": event, **fields}))
        self._bytes += len(self._lines[-1])
        if self._bytes >= BYTES or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are not in the store yet; if the storage fails, keep them for the next flush."""
        if not self._lines:
            return
        self._flushed = time.monotonic()
        key = f"{self._prefix}-{self._segment:05d}.jsonl"
        try:
            objects.write(self._store.objects, key, ("\n".join(self._lines) + "\n").encode())
        except Exception as error:
            if not objects.is_storage_error(error):
                raise
            return
        if self._bytes >= BYTES:
            self._segment, self._lines, self._bytes = self._segment + 1, [], 0

    def close(self) -> None:
        """Write the remaining lines, and the checksums of all objects that this instance wrote."""
        self.flush()
        found = list(objects.list_keys(self._store.objects, keys.EVENTS))
        own = [key for key in found if key.startswith(self._prefix)]
        try:
            write_sums(self._store.objects, self._prefix.removeprefix("run/"), own)
        except Exception as error:
            if not objects.is_storage_error(error):
                raise


def read_events(store: Store) -> list[dict[str, Any]]:
    """Return the events of all runs, in order of the runs; unreadable lines are left out."""
    found = []
    listed = sorted(objects.list_keys(store.objects, keys.EVENTS))
    for _, data in objects.read_all(store.objects, listed):
        for line in (data or b"").decode(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def unended(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the `run` events without an `end` event: their drivers were killed or are still at work."""
    at_work: dict[tuple[Any, Any], dict[str, Any]] = {}
    for event in events:
        who = event.get("host"), event.get("pid")
        if event["event"] == "run" and None not in who:
            at_work[who] = dict(event)
        elif event["event"] == "end":
            at_work.pop(who, None)
    return list(at_work.values())
