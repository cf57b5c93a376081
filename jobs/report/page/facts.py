"""The facts of a page, without results: state, times, hosts, outcomes, failures, logs, the job itself."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ctd.kernel import Outcome
from ctd.plots import Axis, Lines, Plot, Spans, spread
from jobs.errors import count, duration
from jobs.report.history import by_shard, history_lines
from jobs.report.page.encode import MAX_MARKS, plot_json
from jobs.report.summary import forked_from, is_open, state
from jobs.report.warnings import failing_outcomes
from jobs.store.advice import going_on
from jobs.store.events import Failure
from jobs.store.look import Look
from jobs.store.marker import FailedItem, Marker
from jobs.store.store import Store, title_of

COUNTS = ("items", "items_done", "items_dropped", "items_failed", "shards", "shards_done")
"""The numbers of the progress, which add up over stores."""
MAX_FAILURES = 50
"""Most distinct errors shown."""
MAX_TRACE = 6000
"""Characters kept from the end of a traceback."""
MAX_WORKERS = 60
"""Most workers on the timeline; with more it is left out."""
MAX_HOSTS = 200
"""Most workers in the table of hosts."""
FEW_HOSTS = 8
"""Most hosts in the list of facts."""
MAX_LOGS = 300
"""Most committed shards whose log is on the page, evenly spaced; errors have their own section."""
MAX_LINES = 30
"""Lines kept from the end of a shard's log."""
UNITS = (2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "h"), (300, 60, "min"), (-np.inf, 1, "s")
"""(Seconds from which on a time axis has this unit, seconds of the unit, its name)."""


def facts(store: Store) -> dict[str, Any]:
    """Collect everything on the page that needs no results."""
    look = Look(store)
    markers, report, provenance = look.markers, state(look), dict(store.job.provenance)
    hosts = by_worker(
        {"host": m.host, "pid": m.pid, "device": m.device_kind, "shards": 1, "items": m.n_items, "seconds": m.seconds}
        for m in markers
    )  # fmt: skip
    failures = failures_of(look)
    described = store.description
    outcomes = [
        {**outcome._asdict(), "n": report["outcomes"].get(outcome.name, 0)}
        for outcome in described.outcomes
    ] or _without_outcomes(report)
    return {
        "title": title_of(store),
        "kernel": store.job.spec.kernel,
        "store": store.address,
        "swept": store.swept,
        "note": report["note"],
        "tags": ", ".join(report["tags"]),
        "status": status(store, report, failures, outcomes, failing_outcomes(look.tally, described.outcomes)),
        "progress": progress(report, look),
        "facts": _listed(store, report, markers, provenance),
        "outcomes": outcomes,
        "failures": failures[:MAX_FAILURES],
        "failures_left_out": max(0, len(failures) - MAX_FAILURES),
        "hosts": hosts[:MAX_HOSTS],
        "n_workers": len(hosts),
        "logs": shard_logs(look),
        "learned": report["learned"],
        "warnings": report["warnings"],
        "spec": yaml.safe_dump(
            store.job.spec.model_dump(mode="json", exclude_defaults=True),
            sort_keys=False, allow_unicode=True,
        ),
        "versions": {k: str(v) for k, v in dict(provenance.get("versions", {})).items()},
        "command": " ".join(map(str, provenance.get("command", []))),
        "plots": [plot_json(plot) for plot in run_plots(markers)],
    }  # fmt: skip


def _without_outcomes(report: dict[str, Any]) -> list[dict[str, Any]]:
    """How items ended of a kernel that does not say it."""
    done = Outcome("done", "computed")._asdict() | {"n": report["items_done"]}
    dropped = Outcome("dropped", "left out by the search")._asdict() | {
        "n": report["items_dropped"]
    }
    return [done, dropped] if report["items_dropped"] else [done]


def status(
    store: Store,
    report: dict[str, Any],
    failures: Sequence[dict[str, Any]],
    outcomes: Sequence[dict[str, Any]],
    of_outcomes: Sequence[str],
) -> dict[str, str]:
    """The job's state in a few words, its mood (running, good, warning or bad, which sets the colour), and an explanation.

    report: from `state`. failures: from `failures_of`. outcomes: of the page. of_outcomes: the warnings of failing ones, which
    the explanation leaves out, since it names the failures itself.
    """
    entry = lambda word, mood, text: {"word": word, "mood": mood, "text": text}
    if report["running"]:
        return entry("running", "running", f"by {report['running']}")
    if not report["complete"]:
        n_open = report["shards"] - report["shards_done"]
        reason = f"; {report['stopped']}" if report["stopped"] else ""
        text = f"{n_open:,} of {count(report['shards'], 'shard')} not computed{reason}; {going_on(store)}"
        is_bad = any(failure["open"] for failure in failures)
        return entry(report["state"], "bad" if is_bad else "warning", text)
    if report["items_failed"] or report["warnings"]:
        reasons = [_failed(report, outcomes)] if report["items_failed"] else []
        reasons += [text for text in report["warnings"] if text not in of_outcomes]
        return entry(report["state"], "warning", "; ".join(reasons))
    dropped = " or dropped by the search" * bool(report["items_dropped"])
    return entry(report["state"], "good", f"every item was computed{dropped}")


def _failed(report: dict[str, Any], outcomes: Sequence[dict[str, Any]]) -> str:
    """How items failed: by an error, or by the outcomes that are failures."""
    ended = {
        outcome["name"]: outcome["n"] for outcome in outcomes if outcome["failed"] and outcome["n"]
    }
    if errors := report["items_failed"] - sum(ended.values()):
        ended["with an error"] = errors
    return ", ".join(f"{n:,} {name}" for name, n in ended.items())


def progress(report: dict[str, Any], look: Look) -> dict[str, Any]:
    """Items and shards done; while a driver runs, also the share of the work, the seconds left, and its texts."""
    out = {name: report[name] for name in COUNTS}
    out["counted"] = look.tally.text
    # A store that was resumed has markers of earlier runs, too.
    since = max((e.time for e in look.events if e.kind == "run"), default=0.0)
    mine = [m for m in look.markers if m.ended > since and m.copied_from is None]
    if mine:
        out["worker_time"] = duration(sum(m.seconds for m in mine))
    if reported := report["progress"]:
        out |= {name: reported[name] for name in ("share", "left_s", "texts")}
    return out


def _listed(
    store: Store, report: dict[str, Any], markers: list[Marker], provenance: dict[str, Any]
) -> list[list[str]]:
    """The page's list of facts, as [label, value] pairs."""
    out = {
        "kernel": store.job.spec.kernel,
        "groups": f"{len(store.job.plan.group_sizes):,}",
        "created": f"{provenance.get('created', '?')} on {provenance.get('host', '?')}",
        "seed": str(store.job.spec.seed),
    }
    if markers:
        first, last = min(m.started for m in markers), max(m.ended for m in markers)
        hosts = report["hosts"]
        out |= {
            "computed": f"{_date(first)} to {_date(last)} UTC ({duration(last - first)})",
            "median shard": duration(float(np.median([m.seconds for m in markers]))),
            "devices": ", ".join(report["devices"]),
            "hosts": ", ".join(hosts[:FEW_HOSTS]) + " ..." * (len(hosts) > FEW_HOSTS),
        }
    out |= {
        "forked from": forked_from(report),
        "runs": str(report["runs"]),
        "attempts that failed": str(report["attempts_failed"]),
        "ctd commit": str(provenance.get("git_commit") or ""),
        "digest of the job": store.job.spec.digest(),
    }
    return [[name, text] for name, text in out.items() if text]


def failures_of(look: Look) -> list[dict[str, Any]]:
    """Errors of single items, of shards and of rounds of a search, grouped by text, unresolved ones first.

    An entry is `open` if items, or
    shards that are not yet committed, have its error, and `in_part` if all but such items of a shard, or of a group, succeeded later.
    """
    grouped = defaultdict[tuple[str, str], list[tuple[int, FailedItem | Failure]]](list)
    plan, failed = look.store.job.plan, look.failed
    for item in (item for items in failed.values() for item in items):
        grouped["item", item.error].append((item.item, item))
    for event in (failure for failure in look.failures if not failure.probe):
        if event.shard is not None:
            grouped["shard", str(event.error)].append((event.shard, event))
        elif event.group is not None:
            grouped["round of group", str(event.error)].append((event.group, event))
    unresolved = lambda entry: isinstance(entry, FailedItem) or is_open(entry, plan, look.committed)
    groups = {shard.group for number in failed if (shard := plan.shard(number))}
    lacking = {"shard": {*failed}, "round of group": groups}
    out = []
    for (kind, error), entries in grouped.items():
        first, ids = entries[0][1], {number for number, _ in entries}
        failure = {
            "what": kind,
            "error": error,
            "ids": sorted(ids),
            "n_ids": len(ids),
            "n": len(entries),
            "open": any(unresolved(entry) for _, entry in entries),
            "in_part": not ids.isdisjoint(lacking.get(kind, ())),
            "trace": (first.trace or "")[-MAX_TRACE:],
            "host": first.host or "",
            "fault": first.fault or "",
            "time": _date(entries[-1][1].time),
        }
        out.append(failure)
    return sorted(out, key=lambda entry: (not entry["open"], entry["what"], -entry["n"]))


def by_worker(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shards, items and seconds of each worker, from rows of parts of them."""
    worker = ["host", "pid", "device"]
    frame = pd.DataFrame(rows, columns=[*worker, "shards", "items", "seconds"])
    summed = frame.groupby(worker, sort=False).sum().round(3).reset_index()
    return summed.to_dict("records")


def shard_logs(look: Look) -> list[dict[str, Any]]:
    """The logs of shards: `group`, `start`, `stop` (rows), and the `lines` of `ctd logs` (UTC)."""
    markers, failed = look.markers, look.failed
    some = [markers[k] for k in spread(len(markers), MAX_LOGS)]
    numbers = {m.shard.number for m in some}
    # `ctd watch` asks every second: skip the events of other shards before lines are made of them.
    events = [event for event in look.events if event.shard in numbers]
    history = by_shard(some, events, {n: failed[n] for n in numbers & failed.keys()})
    return [
        {
            "group": m.shard.group,
            "start": m.shard.start,
            "stop": m.shard.stop,
            "lines": history_lines(history[m.shard.number], time.gmtime)[-MAX_LINES:],
        }
        for m in some
    ]


def run_plots(markers: list[Marker]) -> list[Plot]:
    """Plots of items over time and, of several workers, of their shards; [] without a committed shard."""
    if not markers:
        return []
    start, end = (np.array([getattr(m, name) for m in markers]) for name in ("started", "ended"))
    zero, order = start.min(), np.argsort(end, kind="stable")
    unit, name = next(unit_row[1:] for unit_row in UNITS if end.max() - zero > unit_row[0])
    start, end = (start - zero) / unit, (end - zero) / unit
    time_axis = Axis(f"time since the first shard began ({name})")
    ends = np.append(0.0, end[order])
    total = np.append(0, np.cumsum([markers[k].n_items for k in order]))
    steps = Lines(np.repeat(ends, 2)[1:], np.repeat(total, 2)[:-1], strong=True)
    plots = [Plot("Items over time", [steps], time_axis, Axis("items committed"))]
    workers = [f"{m.host}:{m.pid}" for m in markers]
    names = list(dict.fromkeys(workers))
    if not 1 < len(names) <= MAX_WORKERS:
        return plots
    first_marks = slice(0, MAX_MARKS)
    groups = [m.shard.group for m in markers[first_marks]]
    spans = Spans(
        start[first_marks],
        end[first_marks],
        [names.index(worker) for worker in workers[first_marks]],
        colour=groups if len(set(groups)) > 1 else None,
        text=[
            f"shard {m.shard.number} (group {m.shard.group}), {count(m.n_items, 'item')}\n"
            f"{m.seconds:.3g} s, attempt {m.attempt}, {m.n_failed:,} failed"
            for m in markers[first_marks]
        ],
    )
    few = f"The first {MAX_MARKS:,} of {len(markers):,}." * (len(markers) > MAX_MARKS)
    return [*plots, Plot("Shards by worker", [spans], time_axis, Axis("", ticks=names), note=few)]


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
