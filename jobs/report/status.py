"""The state of a job as texts, as `ctd status` shows it."""

from collections.abc import Mapping
from typing import Any

from jobs.errors import count
from jobs.report.summary import counted, forked_from


def facts(found: Mapping[str, Any], submitted: str = "", resumes: str = "") -> dict[str, str]:
    """What there is to say of a job, by name; "" where there is nothing.

    found: from `jobs.report.summary.state`. submitted: says where the job was sent. resumes: says what continues it.
    """
    joined = "; ".join
    shards = f"{found['shards_done']:,} of {count(found['shards'], 'shard')}"
    if found["shard_s"] is not None:
        shards += f", {'median ' * (found['shards_done'] > 1)}{found['shard_s']:.3g} s"
    runs, fails = count(found["runs"], "run"), found["attempts_failed"]
    runs += f", {count(fails, 'attempt')} failed" if fails else ""
    return {
        "store": found["store"],
        "kernel": found["kernel"],
        "note": found["note"],
        "tags": ", ".join(found["tags"]),
        "submitted": submitted,
        "items": counted(found),
        "shards": shards,
        "outcomes": ", ".join(f"{n:,} {name}" for name, n in found["outcomes"].items() if n),
        "running": found["running"] or "",
        "progress": _progress(found["progress"]),
        "stopped": found["stopped"] or "",
        "unfinished": _unfinished(found["unfinished"], found["items"]),
        "next": resumes,
        "warnings": joined(found["warnings"]),
        "computed on": ", ".join([*found["hosts"], *found["devices"]]),
        "merged from": ", ".join(found["merged_from"]),
        "forked from": forked_from(found),
        "runs": "" if found["merged_from"] else runs,
        "decided": joined(found["learned"]),
    }


def _unfinished(left: dict[str, Any] | None, items: int) -> str:
    """What is in checkpoints, and in no results yet."""
    if left is None:
        return ""
    if not left["checkpoints"]:
        return "no checkpoint yet: unfinished shards begin again"
    decided = f"{count(left['decisions'], 'decision')} of the search, " if left["decisions"] else ""
    if not left["work"]:
        return f"{decided}{count(left['checkpoints'], 'checkpoint')}; a run goes on from there"
    ended = f"{count(left['items'], 'item')} ended, " if left["items"] else ""
    return f"{decided}{ended}{left['work'] / items:.1%} of the work; a run goes on from there"


def _progress(told: dict[str, Any] | None) -> str:
    """How far the running shards are, as their drivers last told."""
    if told is None:
        return ""
    said = ", ".join(filter(None, [f"{told['share']:.0%}", "; ".join(told["texts"])]))
    return f"{said} (told {told['age_s']:.0f} s ago)"
