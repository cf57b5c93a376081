"""The history of a store's runs, in order of time, as `ctd logs` shows it."""

import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ctd
from jobs.errors import JobError, count, duration
from jobs.inputs.items import place_of, row_params
from jobs.storage.lease import holder
from jobs.store.arrays import DROPPED
from jobs.store.events import Begin, Commit, End, Event, Failure, Kill, Remark
from jobs.store.look import Look
from jobs.store.marker import FailedItem, Marker
from jobs.store.store import Store


def history(store: Store, shard: int | None = None, item: int | None = None) -> list[Event]:
    """The events of all runs in order of time; or those of one shard, or of the attempts that had one item in their rows.

    Raises:
        JobError: the store has no such shard or item.

    >>> from jobs.store.store import Store
    >>> history(Store.open("points.zarr"), shard=0)[-1].kind in ("done", "committed", "end")
    True
    """
    plan = store.job.plan
    if item is not None:
        group, row = place_of(store, item)
        shard = plan.shard_of(group, row)
    look = Look(store)
    if shard is None:
        return _with_killed(look)
    if shard >= plan.n_shards:
        raise JobError(
            f"--shard {shard}: there is no such shard; the store has the shards 0 to {plan.n_shards - 1}"
        )
    failing = [entry for entry in look.failed.get(shard, []) if item in (None, entry.item)]
    events = by_shard(look.markers, look.events, {shard: failing}).get(shard, [])
    if item is None:
        return events
    rows = lambda event: (isinstance(event, Failure) and event.rows) or ()
    # An event without rows may concern any row.
    return [e for e in events if len(rows(e)) != 2 or rows(e)[0] <= row < rows(e)[1]]


def by_shard(
    markers: Iterable[Marker], events: Iterable[Event], failed: Mapping[int, Sequence[FailedItem]]
) -> dict[int, list[Event]]:
    """The events of each shard in order of time: its attempts, its items that fail by themselves, its commit."""
    by_number = defaultdict[int, list[Event]](list)
    for event in events:
        if event.shard is not None:
            by_number[event.shard].append(event)
    for shard, items in failed.items():
        for item in items:
            fields = {**item.model_dump(), "event": "item failed", "shard": shard}
            with suppress(ValueError):  # further fields that a stranger wrote
                by_number[shard].append(Event.from_json(fields))
    for marker in markers:
        by_number[marker.shard.number].append(_committed(marker))
    return {n: sorted(log, key=lambda event: event.time) for n, log in by_number.items()}


def _committed(marker: Marker) -> Event:
    """The event "committed" of a shard, from its marker."""
    names = {"attempt", "host", "pid", "device_kind", "seconds", "rounds", "resumed_at", "outcomes"}
    fields = marker.model_dump(include=names, exclude_none=True)
    return Commit(time=marker.ended, kind="committed", shard=marker.shard.number, **fields)


def _with_killed(look: Look) -> list[Event]:
    """All events, and events of two further kinds: "committed" for a shard without a "done" event, whose driver died or has
    not written it yet; "killed" at the last sign of life of a driver that died."""
    dead = {event.process: event.time for event in look.events if isinstance(event, Kill)}
    events = [event for event in look.events if not isinstance(event, Kill)]
    done = {event.shard for event in events if isinstance(event, Commit)}
    markers = (marker for marker in look.markers if marker.copied_from is None)
    events += [_committed(marker) for marker in markers if marker.shard.number not in done]
    lease = holder(look.store.objects)
    living = {(driver.host, driver.pid) for driver in look.drivers}
    for run in look.unended:
        if run.process in living:
            continue
        runs = [e.time for e in events if e.time > run.time and isinstance(e, Begin)]
        signs = [e.time for e in events if run.time <= e.time < min(runs, default=math.inf)]
        signs.append(dead.get(run.process, run.time))
        if lease and run.process == (lease.host, lease.pid):
            signs.append(lease.renewed)
        events.append(Kill(time=max(signs), host=run.host, pid=run.pid))
    return sorted(events, key=lambda event: event.time)


FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<name>.+)')
"""The first line of a frame in a traceback."""
LIBRARIES = re.compile(r"[\\/](site|dist)-packages[\\/]|[\\/]lib[\\/]python3|^<frozen")
"""Paths of installed packages and of Python's own library."""
OURS = tuple(os.path.join(os.path.dirname(os.path.dirname(ctd.__file__)), name, "") for name in ("ctd", "jobs", "cluster"))  # fmt: skip
"""Folders of this program's own source."""


def own_frames(trace: str) -> list[str]:
    """The frames of a traceback that lie in the user's own files, as lines `FILE:LINE in FUNCTION: CODE`; if there are none, the
    last frame.

    >>> own_frames('  File "/me/hill.py", line 3, in advance\\n    return 1 / 0\\nZeroDivisionError: division by zero')
    ['/me/hill.py:3 in advance: return 1 / 0']
    """
    frames: dict[str, bool] = {}
    lines = trace.splitlines()
    for at, line in enumerate(lines):
        if match := FRAME.match(line):
            path = match["path"]
            code = lines[at + 1].strip() if at + 1 < len(lines) else ""
            # Without the source at hand, the next line is of another frame or the error itself.
            source = f": {code}" if code and lines[at + 1].startswith("    ") else ""
            text = f"{path}:{match['line']} in {match['name']}{source}"
            frames[text] = not LIBRARIES.search(path) and not path.startswith(OURS)
    return [text for text, is_users in frames.items() if is_users] or list(frames)[-1:]


def params_of(store: Store, item: int) -> dict[str, Any]:
    """The swept fields of an item, computed or not -> value. Raises JobError if the store has no such item."""
    group, row = place_of(store, item)
    params = row_params(store, group, row, row + 1)[0]
    return {name: params[name] for name in store.swept if name in params}


def dropped_at(store: Store, item: int) -> str:
    """Say where the search dropped an item; "" if it did not."""
    group, row = place_of(store, item)
    read = lambda name: int(store.rows(group, name, row, row + 1)[0])
    if read("status") != DROPPED:
        return ""
    return f"at rung {read('search_rung') + 1} of the search, after {count(read('search_advances'), 'advance')}"


def history_lines(
    events: Iterable[Event],
    clock: Callable[[float], time.struct_time] = time.localtime,
    full: bool = True,
) -> list[str]:
    """Write events as lines of text, one for each event, followed by its traceback if there is one.

    full: write the whole traceback; otherwise its frames in the user's own files.

    >>> history_lines([Commit(time=0, shard=1, seconds=28.61)], time.gmtime)
    ['1970-01-01 00:00:00  shard 1 done, 28.6 s']
    """
    lines = []
    for event in events:
        at = time.strftime("%Y-%m-%d %H:%M:%S", clock(event.time))
        lines.append(f"{at}  {_sentence(event)}")
        trace = (isinstance(event, Failure) and event.trace) or ""
        lines += ["    " + line for line in (trace.splitlines() if full else own_frames(trace))]
    return lines


def _sentence(event: Event) -> str:
    """Return a sentence on what happened, to which shard, and where; on an event of another version of ctd, with its fields."""
    attempt = f", attempt {event.attempt}" if (event.attempt or 1) > 1 else ""
    group = "" if event.group is None else f"group {event.group}"
    of_round = f"a round of {group}{attempt}" if group and event.attempt else group
    shard = of_round if event.shard is None else f"shard {event.shard}{attempt}"
    place = _place(event)
    match event:
        case Begin():
            workers = count(event.workers or 1, "worker")
            return f"run: {count(event.pending or 0, 'shard')} to compute, {event.executor or 'unknown'}, {workers}{place}"
        case End():
            return f"end: {count(event.done or 0, 'shard')} done, {event.failed or 0} failed{_reason(event)}{place}"
        case Kill():
            return f"killed: the driver{place}"
        case Commit():
            return f"{shard} {event.kind}{_work(event)}{place}"
        case Failure(kind="item failed"):
            return f"item {event.about.get('item')} failed: {event.error or ''}"
        case Failure(kind="stopped"):
            return f"{shard} stopped: {event.error or ''}{place}"
        case Failure():
            # The text of a death says its kind.
            is_clear = "died" in event.about or event.fault in (None, "error")
            fault = "" if is_clear else f" ({event.fault})"
            return f"{shard} failed{fault}{_rows(event)}: {event.error or ''}{place}"
        case Remark(kind="decision"):
            return ": ".join(filter(None, [shard, event.text]))
        case Remark():
            heads = {"warning": "warning:", "second": f"{shard} begun a second time:"}
            return f"{heads.get(event.kind, shard)} {event.text or ''}"
    fields = {k: v for k, v in event.to_json().items() if k not in ("time", "event", "trace")}
    return f"{event.kind}: {', '.join(f'{name} {value}' for name, value in fields.items())}"


def _work(event: Commit) -> str:
    """Return how long a shard took, and what came out."""
    parts = [] if event.seconds is None else [duration(event.seconds)]
    if advances := event.about.get("rounds"):
        parts.append(count(advances, "advance"))
    parts += [f"{n:,} {name}" for name, n in dict(event.about.get("outcomes", {})).items() if n]
    if event.n_failed:
        parts.append(f"{count(event.n_failed, 'item')} failed")
    return "".join(f", {part}" for part in parts)


def _place(event: Event) -> str:
    process = f"process {event.pid}" if event.pid else ""
    device = str(event.about.get("device_kind", ""))
    place = ", ".join(filter(None, [event.host, process, device]))
    return f" ({place})" if place else ""


def _rows(event: Failure) -> str:
    """The rows of a probe, which computes a part of a shard."""
    if not event.probe or not event.rows:
        return ""
    first, last = event.rows[0], event.rows[-1] - 1
    return f" in row {first} alone" if first == last else f" in rows {first} to {last} alone"


def _reason(event: End) -> str:
    """Return how many items failed in the shards that a run has done, and why it ended early."""
    items = f"; {count(event.n_failed, 'item')} failed" if event.n_failed else ""
    shards = f"; running then: {', '.join(map(str, event.lost))}" if event.lost else ""
    return items + (f", stopped: {event.stopped}{shards}" if event.stopped else shards)
