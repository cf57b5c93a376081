"""The plan and the progress of a job, as numbers."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctd.kernel import inputs_of
from jobs import keys
from jobs.errors import count
from jobs.plan.layout import Plan
from jobs.report.warnings import warnings_of, warnings_planned
from jobs.run.prepare import Prepared, another_job
from jobs.run.progress import LONGEST_LEFT_S
from jobs.spec.search import Search
from jobs.storage import objects
from jobs.storage.lease import LeaseRecord, describe, drivers
from jobs.store.card import n_dropped, read_note
from jobs.store.events import Event, planned_warnings, read_events, unended
from jobs.store.finding import merged_parts
from jobs.store.marker import FailedItem, Marker
from jobs.store.store import Store

MAX_TEXT = 500
"""Characters of a driver's text that are shown."""


def plan_rows(
    ready: Prepared, address: str, workers: int
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Summarise a plan: (columns over the groups, totals).

    The estimated time of what is `left` comes from the committed shards of the job's store at `address`, and is None without
    any. That store has the shards that it was made with. Of a store that holds another job, a warning tells.
    """
    store = Store.open(address) if Store.exists(address) else None
    other = another_job(store, ready.spec, ready.kernel) if store else ""
    own = None if other else store
    markers = own.committed.markers() if own else []
    plan, n_done = own.job.plan if own else ready.plan, sum(m.n_items for m in markers)
    left = ready.items.n - n_done
    # Where a search chooses the group of each item, any may get all of them.
    items = "items" if plan.ways == 1 else "items_at_most"
    rows: list[dict[str, Any]] = []
    for group, layout, sizes in zip(ready.items.groups, plan.layouts, ready.sizes, strict=True):
        rows.append(
            {
                "group": group.number,
                **{name: str(value) for name, value in group.labels.items()},
                items: len(group.items),
                "shards": plan.counts[group.number],
                "slots": layout.slots,
                "memory_MB": (sizes.shared + (sizes.state + sizes.work) * layout.slots) / 1e6,
                "result_MB": sizes.result * len(group.items) / 1e6,
            }
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    seconds = sum(m.seconds for m in markers)
    total: dict[str, Any] = {
        "items": ready.items.n,
        **({"left": left} if own else {}),
        "groups": len(rows),
        "shards": plan.n_shards,
        "memory_MB": round(max(columns["memory_MB"]), 2),
        "result_MB": round(sum(columns["result_MB"]), 2),
        "estimated_s": float(f"{seconds / n_done * left / workers:.3g}") if n_done else None,
    }
    if ready.data:
        total["data"] = "; ".join(ready.data)
    if ready.spec.search:
        total["search"] = _search_planned(ready, ready.spec.search)
    warnings = [other] * bool(other) + ready.warnings + warnings_planned(ready, markers)
    if warnings:
        total["warnings"] = "; ".join(warnings)
    return columns, total


def _search_planned(ready: Prepared, search: Search) -> str:
    """Describe the comparisons of a search: which items, how often."""
    of_item = ready.kernel.advances
    advances = [of_item(inputs_of(g.params)) if of_item else 0 for g in ready.items.groups]
    sizes = map(search.n_compared, ready.plan.group_sizes)
    compared = sorted(set(zip(sizes, advances, strict=True)))
    text = "; ".join(dict.fromkeys(search.describe(*one) for one in compared))
    rounds = {layout.shard_items for layout in ready.plan.layouts}
    text += f", up to {max(rounds)} of them in a round of one worker"
    if of_item and search.ends(max(compared)[0]):
        most = max(advances)
        n = max(len(search.ends(*one)) for one in compared)
        text += f"; items make {count(most, 'advance')} at most and are compared {count(n, 'time')}"
    elif not of_item:
        text += "; that items make so many is not checked before they run: the kernel does not declare `advances`"
    return text


def state(store: Store) -> dict[str, Any]:
    """The progress of a job: counts, outcomes, hosts, times, and the latest unresolved errors.

    `items_done` were computed, `items_dropped` a search took out, `items_failed` were tried and failed; the others are left.

    >>> from jobs.store.store import Store
    >>> found = state(Store.open("points.zarr"))
    >>> found["complete"], found["items_done"] == found["items"]
    (True, True)
    """
    failing = [item for items in store.failed.items().values() for item in items]
    return state_of(store, store.committed.markers(), read_events(store), failing)


def state_of(
    store: Store,
    markers: Sequence[Marker],
    events: Sequence[Event],
    culprits: Sequence[FailedItem],
) -> dict[str, Any]:
    """`state`, from markers, events and failing items that were read before."""
    plan = store.job.plan
    outcomes: Counter[str] = Counter()
    for marker in markers:
        outcomes.update(marker.outcomes)
    n_items, failed = sum(m.n_items for m in markers), sum(m.n_failed for m in markers)
    dropped = n_dropped(store.job.spec, markers)
    done = {m.shard.number for m in markers}
    failures = [e for e in events if e.kind == "error"]
    about = lambda one, what: {what: getattr(one, what), "attempt": one.attempt, "error": one.error}
    still = [event for event in failures if is_open(event, plan, done)]
    errors = [about(event, "group" if event.shard is None else "shard") for event in still]
    errors += [about(item, "item") for item in culprits]
    living = drivers(store.objects, store.address)
    seconds = [m.seconds for m in markers]
    return {
        "store": store.address,
        "kernel": store.job.spec.kernel,
        **read_note(store.objects).model_dump(mode="json"),
        "items": plan.n_items,
        "items_done": n_items - failed - dropped,
        "items_dropped": dropped,
        "items_failed": failed,
        "shards": plan.n_shards,
        "shards_done": len(markers),
        "complete": len(markers) == plan.n_shards,
        "outcomes": dict(outcomes),
        "hosts": sorted({m.host for m in markers}),
        "devices": sorted({m.device_kind for m in markers}),
        "shard_s": round(float(np.median(seconds)), 3) if seconds else None,
        "running": "; ".join(map(describe, living[:3])) or None,
        "progress": _reported(living, plan.n_items, n_items),
        "runs": len([e for e in events if e.kind == "run"]),
        **_origin(store, markers),
        "stopped": None if living else _why_stopped(events),
        "unfinished": None if living else _unfinished(store, events, len(done)),
        "attempts_failed": len(failures),
        "items_with_errors": len(culprits),
        "warnings": planned_warnings(events) + warnings_of(store, markers),
        "learned": [e.text for e in events if e.kind == "decision"][-5:],
        "errors": errors[-10:],
    }


def is_open(event: Event, plan: Plan, done: set[int]) -> bool:
    """Whether the shard of an attempt is not committed, or any of the group where it was at a round. done: the committed ones."""
    if event.shard is None and event.group is not None:
        return event.group >= len(plan.counts) or not done.issuperset(plan.numbers(event.group))
    return event.shard not in done


def _origin(store: Store, markers: Sequence[Marker]) -> dict[str, Any]:
    """The addresses of the stores that were merged into this one; address -> number of items that a fork copied from there."""
    merged = [str(part.get("store", "?")) for part in merged_parts(store.job.provenance)]
    forked: Counter[str] = Counter()
    for marker in [] if merged else markers:
        if marker.copied_from is not None:
            forked[marker.copied_from] += marker.n_items
    return {"merged_from": merged, "forked_from": dict(forked)}


def _reported(living: Sequence[LeaseRecord], items: int, committed: int) -> dict[str, Any] | None:
    """The progress that the drivers last reported: share of all work, items a second, seconds left, texts; None without a report.

    committed: items of the committed shards.
    """
    reports = [held.said for held in living if isinstance(held.said.get("text"), str)]
    if not reports:
        return None
    number = lambda value: float(value) if isinstance(value, int | float) else 0.0
    # Each driver of a part knows of its own work alone.
    work = sum(number(one.get("work")) for one in reports)
    rate = sum(number(one.get("rate")) for one in reports)
    left = max(0.0, items - committed - work)
    return {
        "share": min(1.0, (committed + work) / items),
        "rate": float(f"{rate:.3g}") if rate else None,
        "left_s": round(left / rate) if 0 < left < rate * LONGEST_LEFT_S else None,
        "texts": [str(one["text"])[:MAX_TEXT] for one in reports if one["text"]],
        "age_s": round(max(0.0, time.time() - min(held.renewed for held in living)), 1),
    }


def counted(found: Mapping[str, Any]) -> str:
    """How many items are done, dropped, failed and left, as text. found: from `state`.

    >>> counted({"items": 20, "items_done": 7, "items_dropped": 12, "items_failed": 1})
    'done 7, dropped 12, failed 1'
    """
    n = found["items"]
    counts = {word: found[f"items_{word}"] for word in ("done", "dropped", "failed")}
    parts = [f"{word} {k:,}" for word, k in counts.items() if k or word == "done"]
    if left := n - sum(counts.values()):
        parts.append(f"{left:,} of {count(n, 'item')} left")
    return ", ".join(parts)


def forked_from(found: Mapping[str, Any]) -> str:
    """The stores from which a fork copied items, as text. found: from `state`.

    >>> forked_from({"forked_from": {"sweep.zarr": 24}})
    'sweep.zarr (24 items)'
    """
    return ", ".join(f"{of} ({count(n, 'item')})" for of, n in found["forked_from"].items())


def _why_stopped(events: Sequence[Event]) -> str | None:
    """The reason why the last run ended early, or None. Call it only while no driver runs."""
    runs = [e for e in events if e.kind == "run"]
    if (lost := unended(events)) and lost[-1] == runs[-1]:
        return f"its driver, process {lost[-1].pid} on {lost[-1].host}, was killed"
    ends = [e for e in events if e.kind == "end"]
    return ends[-1].stopped if ends else None


def _unfinished(store: Store, events: Sequence[Event], n_done: int) -> dict[str, Any] | None:
    """What the last run left in its unfinished shards, if it ended early; None if it did not, or nothing is left to do.

    Returns `items` that ended and `work` in items, both 0 if the driver was killed; `checkpoints`, with rounds of a search; the
    search's `decisions`.

    n_done: the number of committed shards.
    """
    last = next((e for e in reversed(events) if e.kind in ("run", "end")), None)
    if last is None or n_done == store.job.plan.n_shards or not _why_stopped(events):
        return None
    of_shard = lambda key: key.rpartition("/")[0]
    kept = set(map(of_shard, objects.list_keys(store.objects, keys.CHECKPOINTS)))
    kept |= set(objects.list_keys(store.objects, keys.ROUNDS))
    decided = len(list(objects.list_keys(store.objects, keys.DECISIONS)))
    left = {"items": last.ended or 0, "work": last.work or 0.0}
    return left | {"checkpoints": len(kept), "decisions": decided}
