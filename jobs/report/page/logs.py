"""What `ctd logs` tells of a shard, for the items that a reader of the page opens."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ctd.plots import spread
from jobs.report.history import by_shard, history_lines
from jobs.store.events import Event
from jobs.store.failed import FailedItem
from jobs.store.marker import Marker

MAX_LOGS = 300
"""Most shards whose log is on the page: those that are committed, evenly spaced. Errors have a section of their own."""
MAX_LINES = 30
"""Most lines of each; the last ones."""


def shard_logs(
    markers: Sequence[Marker], events: Sequence[Event], failed: Mapping[int, Sequence[FailedItem]]
) -> list[dict[str, Any]]:
    """`group`, `start` and `stop` (rows) of shards, and the `lines` that tell what happened to them (UTC)."""
    some = [markers[k] for k in spread(len(markers), MAX_LOGS)]
    numbers = {m.shard.number for m in some}
    # A page that is watched asks every second: records of other shards are passed over, not made.
    told = [event for event in events if event.shard in numbers]
    found = by_shard(some, told, {n: failed[n] for n in numbers & failed.keys()})
    return [
        {
            "group": m.shard.group,
            "start": m.shard.start,
            "stop": m.shard.stop,
            "lines": history_lines(found[m.shard.number], time.gmtime)[-MAX_LINES:],
        }
        for m in some
    ]
