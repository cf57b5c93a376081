"""The progress of a job: as numbers (`state`), and as the texts of `ctd status` (`facts`)."""

import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs import keys
from jobs.errors import count
from jobs.plan.layout import Plan
from jobs.report.warnings import warnings_of
from jobs.run.progress import LONGEST_LEFT_S
from jobs.storage import objects
from jobs.storage.lease import LeaseRecord, describe
from jobs.store import checkpoint
from jobs.store.card import read_note
from jobs.store.events import Event, Remark, planned_warnings
from jobs.store.look import Look
from jobs.store.marker import Marker
from jobs.store.tally import Tally

MAX_TEXT, MAX_ERRORS = 500, 10
"""Characters of a driver's text that are shown; most attempts, the latest, and most items, the first, whose errors are."""


def state(look: Look) -> dict[str, Any]:
    """The progress of a job: counts, outcomes, hosts, times, and unresolved errors.

    Items that are neither done, dropped by a search nor failed are left.

    >>> from jobs.store.store import Store
    >>> state(Look(Store.open("points.zarr")))["complete"]
    True
    """
    store, markers, tally = look.store, look.markers, look.tally
    living = [driver for driver in look.drivers if not driver.is_silent]
    stopped = None if living or tally.is_complete else _why_stopped(look)
    return {
        "store": store.address,
        "kernel": store.job.spec.kernel,
        **read_note(store.objects).model_dump(mode="json"),
        "items": tally.items,
        "items_done": tally.done,
        "items_dropped": tally.dropped,
        "items_failed": tally.failed,
        "state": tally.state,
        "shards": tally.shards,
        "shards_done": tally.shards_done,
        "complete": tally.is_complete,
        "outcomes": dict(tally.outcomes),
        "hosts": sorted({m.host for m in markers}),
        "devices": sorted({m.device_kind for m in markers}),
        "shard_s": round(float(np.median([m.seconds for m in markers])), 3) if markers else None,
        "running": "; ".join(map(describe, living[:3])) or None,
        "progress": _reported(living, tally),
        "runs": len([e for e in look.events if e.kind == "run"]),
        **_origin(markers),
        "stopped": stopped,
        "unfinished": _unfinished(look) if stopped else None,
        "attempts_failed": len(look.failures),
        "items_with_errors": sum(map(len, look.failed.values())),
        "warnings": _warnings(look),
        "learned": _learned(look)[-5:],
        "errors": _errors(look),
    }


def _warnings(look: Look) -> list[str]:
    """Warnings of the plan, of results and of tables; those of a kernel's `load` are with both the plan and the tables."""
    planned = planned_warnings(look.events)
    return planned + [text for text in warnings_of(look) if not text.endswith(tuple(planned))]


def _errors(look: Look) -> list[dict[str, Any]]:
    """Attempts whose shards are still open, and items that failed, each with its error."""
    plan = look.store.job.plan
    about = lambda e, place: {place: getattr(e, place), "attempt": e.attempt, "error": e.error}
    unresolved = (e for e in look.failures if is_open(e, plan, look.committed))
    attempts = [about(e, "group" if e.shard is None else "shard") for e in unresolved]
    failing = sorted(itertools.chain(*look.failed.values()), key=lambda item: item.item)
    return attempts[-MAX_ERRORS:] + [about(item, "item") for item in failing[:MAX_ERRORS]]


def _learned(look: Look) -> list[str]:
    """Decisions, except those before the first attempt of a committed shard: they say nothing of its results."""
    anew = {m.shard.number: m.started for m in look.markers if m.attempt == 1}
    is_past = lambda event: event.shard is not None and event.time < anew.get(event.shard, 0)
    decisions = (e for e in look.events if isinstance(e, Remark) and e.kind == "decision")
    return [decision.text or "" for decision in decisions if not is_past(decision)]


def is_open(event: Event, plan: Plan, done: frozenset[int]) -> bool:
    """Return whether the shard of an attempt is not committed, or any shard of the group whose round it made. done: the committed ones."""
    if event.shard is None and event.group is not None:
        return event.group >= len(plan.counts) or not done.issuperset(plan.numbers(event.group))
    return event.shard not in done


def _origin(markers: Sequence[Marker]) -> dict[str, Any]:
    """The store that a fork copied items from -> their number."""
    forked: Counter[str] = Counter()
    for marker in markers:
        if marker.copied_from is not None:
            forked[marker.copied_from] += marker.n_items
    return {"forked_from": dict(forked)}


def _reported(living: Sequence[LeaseRecord], tally: Tally) -> dict[str, Any] | None:
    """The progress that the drivers last reported: share of all work, items a second, seconds left, texts; None without a report."""
    reports = [lease.said for lease in living if isinstance(lease.said.get("text"), str)]
    if not reports:
        return None
    number = lambda value: float(value) if isinstance(value, int | float) else 0.0
    # Each driver of a part knows of its own work alone.
    work = sum(number(report.get("work")) for report in reports)
    rate = sum(number(report.get("rate")) for report in reports)
    done = tally.ended + work
    if len(reports) == 1 and "done" in reports[0]:
        # A shard that was committed since then is in the work that was told.
        done = max(tally.ended, number(reports[0]["done"]) + work)
    items_left = max(0.0, tally.items - done)
    return {
        "share": min(1.0, done / tally.items),
        "rate": float(f"{rate:.3g}") if rate else None,
        "left_s": round(items_left / rate) if 0 < items_left < rate * LONGEST_LEFT_S else None,
        "texts": [str(report["text"])[:MAX_TEXT] for report in reports if report["text"]],
        "age_s": round(max(0.0, time.time() - min(lease.renewed for lease in living)), 1),
    }


def _why_stopped(look: Look) -> str | None:
    """The reason why the last run ended early, or None. Call it only while no driver runs and shards are left."""
    if look.drivers:  # of other machines, and silent
        return f"{describe(look.drivers[0])}; it seems to be dead"
    runs = [e for e in look.events if e.kind == "run"]
    if (killed := look.unended) and killed[-1] == runs[-1]:
        return f"its driver, process {killed[-1].pid} on {killed[-1].host}, was killed"
    return look.last_end.stopped if look.last_end else None


def _unfinished(look: Look) -> dict[str, Any]:
    """The state of unfinished shards: `items` that ended and `work` in items, of a search both 0 if its driver was killed;
    `checkpoints`, with rounds of a search; the search's `decisions`.
    """
    store, end = look.store, look.last_end
    if store.job.spec.search:
        ended, work = (end.ended or 0, end.work or 0.0) if end else (0, 0.0)
    else:
        ended, work, _ = checkpoint.progress_in_checkpoints(store, look.committed)
    of_shard = lambda key: key.rpartition("/")[0]
    places = set(map(of_shard, objects.list_keys(store.objects, keys.CHECKPOINTS)))
    places |= set(objects.list_keys(store.objects, keys.ROUNDS))
    decided = len(list(objects.list_keys(store.objects, keys.DECISIONS)))
    return {"items": ended, "work": work, "checkpoints": len(places), "decisions": decided}


# --- as texts --------------------------------------------------------------------------------------


def facts(
    tally: Tally, report: Mapping[str, Any], submitted: str = "", resumes: str = ""
) -> dict[str, str]:
    """The texts on a job, by name; "" where there is nothing to say.

    report: from `state`. submitted: says where the job was sent. resumes: says what continues it.
    """
    joined = "; ".join
    shards = f"{report['shards_done']:,} of {count(report['shards'], 'shard')}"
    if report["shard_s"] is not None:
        shards += f", {'median ' * (report['shards_done'] > 1)}{report['shard_s']:.3g} s"
    runs, fails = count(report["runs"], "run"), report["attempts_failed"]
    runs += f", {count(fails, 'attempt')} failed" if fails else ""
    return {
        "store": report["store"],
        "kernel": report["kernel"],
        "note": report["note"],
        "tags": ", ".join(report["tags"]),
        "submitted": submitted,
        "state": report["state"],
        "items": tally.text,
        "shards": shards,
        "outcomes": ", ".join(f"{n:,} {name}" for name, n in report["outcomes"].items() if n),
        "running": report["running"] or "",
        "progress": _progress_text(report["progress"]),
        "stopped": report["stopped"] or "",
        "unfinished": _unfinished_text(report["unfinished"], report["items"]),
        "next": resumes,
        "warnings": joined(report["warnings"]),
        "computed on": ", ".join([*report["hosts"], *report["devices"]]),
        "forked from": forked_from(report),
        "runs": runs,
        "decided": joined(report["learned"]),
    }


def forked_from(report: Mapping[str, Any]) -> str:
    """The stores from which a fork copied items, as text. report: from `state`.

    >>> forked_from({"forked_from": {"sweep.zarr": 24}})
    'sweep.zarr (24 items)'
    """
    return ", ".join(
        f"{address} ({count(n, 'item')})" for address, n in report["forked_from"].items()
    )


def _unfinished_text(unfinished: dict[str, Any] | None, items: int) -> str:
    """Say how much is in checkpoints, and in no results yet."""
    if unfinished is None:
        return ""
    if not unfinished["checkpoints"]:
        return "no checkpoint yet: unfinished shards begin again"
    decided = (
        f"{count(unfinished['decisions'], 'decision')} of the search, "
        if unfinished["decisions"]
        else ""
    )
    if not unfinished["work"]:
        return (
            f"{decided}{count(unfinished['checkpoints'], 'checkpoint')}; a run goes on from there"
        )
    ended = f"{count(unfinished['items'], 'item')} ended, " if unfinished["items"] else ""
    return f"{decided}{ended}{unfinished['work'] / items:.1%} of the work; a run goes on from there"


def _progress_text(progress: dict[str, Any] | None) -> str:
    """Say how far the running shards are, as their drivers last reported."""
    if progress is None:
        return ""
    text = ", ".join(filter(None, [f"{progress['share']:.0%}", "; ".join(progress["texts"])]))
    return f"{text} (told {progress['age_s']:.0f} s ago)"
