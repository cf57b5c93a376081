"""What happened in the runs of a store, in order of time, as `ctd logs` shows it."""

import math
import time
from typing import Any

from jobs.errors import JobError
from jobs.run.partition import drivers
from jobs.run.retry import failed_items
from jobs.storage.lease import holder
from jobs.store.events import read_events, unended
from jobs.store.marker import Marker
from jobs.store.store import Store


def history(
    store: Store, shard: int | None = None, item: int | None = None
) -> list[dict[str, Any]]:
    """The events of all runs, or of one shard, or of one item's shard and of the item itself, by time.

    Raises:
        JobError: the store has no such shard or item.
    """
    plan = store.job.plan
    if item is not None:
        shard = shard_of(store, item)
    if shard is None:
        return _with_killed(store)
    if shard >= plan.n_shards:
        raise JobError(f"--shard {shard}: the store has the shards 0 to {plan.n_shards - 1}")
    found = [event for event in read_events(store) if event.get("shard") == shard]
    entries = [e for (_, number), es in failed_items(store).items() if number == shard for e in es]
    found += [
        {**entry, "event": "item failed", "shard": shard}
        for entry in entries
        if item is None or entry["item"] == item
    ]
    found += [_committed(m) for m in store.markers() if m.shard.number == shard]
    return sorted(found, key=lambda event: event["time"])


def _committed(marker: Marker) -> dict[str, Any]:
    """A "committed" event, made from the marker of a shard."""
    kept = ("attempt", "host", "pid", "device_kind", "seconds", "rounds", "resumed_at", "outcomes")
    at = {"time": marker.ended, "event": "committed", "shard": marker.shard.number}
    said = {name: getattr(marker, name) for name in kept}
    return at | {name: value for name, value in said.items() if value is not None}


def _with_killed(store: Store) -> list[dict[str, Any]]:
    """All events, with two kinds added: "committed" for shards without a "done" event (their driver died, or has
    not written it yet), and "killed" at the last sign of life of a driver that died."""
    events = read_events(store)
    told = {event["shard"] for event in events if event["event"] == "done"}
    events += [
        _committed(marker)
        for marker in store.markers()
        if marker.shard.number not in told and marker.copied_from is None
    ]
    held, living = holder(store.objects), drivers(store)
    for run in unended(events):
        who = {name: run[name] for name in ("host", "pid")}
        same = lambda lease, who=who: lease is not None and who.items() <= lease.items()
        if any(map(same, living)):
            continue
        runs = [e["time"] for e in events if e["time"] > run["time"] and e["event"] == "run"]
        signs = [
            e["time"] for e in events if run["time"] <= e["time"] < min(runs, default=math.inf)
        ]
        if held and same(held):
            signs.append(held["renewed"])
        events.append({"time": max(signs), "event": "killed", **who})
    return sorted(events, key=lambda event: event["time"])


def history_lines(events: list[dict[str, Any]]) -> list[str]:
    """Events as lines of text, one for each event, followed by its traceback if it has one."""
    lines = []
    for event in events:
        rest = {
            k: round(v, 3) if isinstance(v, float) else v
            for k, v in event.items()
            if k not in ("time", "event", "trace") and v not in ("", None, [], {})
        }
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
        lines.append(f"{at}  {event['event']}  " + "  ".join(f"{k}={v}" for k, v in rest.items()))
        lines += ["    " + line for line in str(event.get("trace", "")).splitlines()]
    return lines


def shard_of(store: Store, item: int) -> int:
    """Number of the shard that computes an item; JobError if the store has no such item."""
    for shard in store.job.plan.shards():
        ids = store.rows(shard.group, "item", shard.start, shard.stop)
        if ids[0] <= item <= ids[-1] and item in ids:  # ids ascend within a group
            return shard.number
    n = sum(store.job.plan.group_sizes)
    raise JobError(f"--item {item}: the store has the items 0 to {n - 1}")
