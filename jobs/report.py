"""What can be said about a job in words and numbers: its plan, its state, a first job file."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
from pydantic_core import PydanticUndefined

from ctd.kernel import Kernel, Kind, field_kinds, inputs_of
from jobs.errors import JobError
from jobs.events import read_events, unended
from jobs.failure import failed_items
from jobs.lease import describe, holder
from jobs.parts import drivers
from jobs.prepare import Prepared
from jobs.store import Store

if TYPE_CHECKING:
    import pandas as pd


def plan_rows(ready: Prepared, address: str, workers: int) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """(one row a group, totals). The time is from the shards of the store at `address`, if any."""
    import pandas as pd

    rows = []
    for group, layout, measured in zip(
        ready.items.groups, ready.plan.layouts, ready.measured, strict=True
    ):
        sizes = measured.sizes
        per_item = sizes.state + sizes.work
        rows.append(
            {
                "group": group.number,
                **{name: str(value) for name, value in group.labels.items()},
                "items": len(group.items),
                "shards": ready.plan.counts[group.number],
                "slots": layout.slots,
                "memory_MB": (sizes.shared + per_item * layout.slots) / 1e6,
                "result_MB": sizes.result * len(group.items) / 1e6,
            }
        )
    frame = pd.DataFrame(rows)
    seconds = measured_seconds_per_item(address)
    estimate = None if seconds is None else float(f"{seconds * ready.items.n / workers:.3g}")
    total: dict[str, Any] = {
        "items": ready.items.n,
        "groups": len(rows),
        "shards": ready.plan.n_shards,
        "memory_MB": round(float(frame["memory_MB"].max()), 2),
        "result_MB": round(float(frame["result_MB"].sum()), 2),
        "estimated_s": estimate,
    }
    if search := ready.spec.search:
        together = [search.together(n) for n in ready.plan.group_sizes]
        total["search"] = "; ".join(search.describe(n) for n in sorted(set(together)))
        layouts = zip(together, ready.plan.layouts, strict=True)
        if any(layout.shard_items < n for n, layout in layouts):
            total["search"] += ", in shards that meet"
        elif search.spread:
            total["search"] += f", each whole in one shard (workers: {workers})"
        if ready.kernel.advances:
            most = max(ready.kernel.advances(inputs_of(g.params)) for g in ready.items.groups)
            n = max(search.n_comparisons(size, most) for size in together)
            total["search"] += f"; items make {most} advances at most and are compared {n} times"
    return frame, total


def measured_seconds_per_item(address: str) -> float | None:
    """Worker seconds an item, over the committed shards of a store; None where there are none."""
    if not Store.exists(address):
        return None
    markers = Store.open(address).markers()
    items = sum(m["shard"]["stop"] - m["shard"]["start"] for m in markers)
    return sum(m["seconds"] for m in markers) / items if items else None


def state(store: Store) -> dict[str, Any]:
    """How far a job is: counts, outcomes, hosts, times, the errors of its last run."""
    plan, markers = store.job.plan, store.markers()
    outcomes: dict[str, int] = {}
    for marker in markers:
        for name, n in marker["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + n
    items = sum(m["shard"]["stop"] - m["shard"]["start"] for m in markers)
    done = {m["shard"]["number"] for m in markers}
    events = read_events(store)
    failures = [e for e in events if e["event"] == "error"]
    errors = [
        {"shard": e["shard"], "attempt": e["attempt"], "error": e["error"]}
        for e in failures
        if e["shard"] not in done
    ]
    culprits = [e for entries in failed_items(store).values() for e in entries]
    errors += [{"item": e["item"], "attempt": e["attempt"], "error": e["error"]} for e in culprits]
    living = drivers(store)
    seconds = [m["seconds"] for m in markers]
    return {
        "store": store.address,
        "kernel": store.job.spec.kernel,
        "items": sum(plan.group_sizes),
        "items_done": items,
        "items_failed": sum(m["n_failed"] for m in markers),
        "shards": plan.n_shards,
        "shards_done": len(markers),
        "complete": len(markers) == plan.n_shards,
        "outcomes": outcomes,
        "hosts": sorted({m["host"] for m in markers}),
        "devices": sorted({m["device_kind"] for m in markers}),
        "shard_s": round(float(np.median(seconds)), 3) if seconds else None,
        "running": "; ".join(map(describe, living[:3])) or None,
        "runs": len([e for e in events if e["event"] == "run"]),
        "stopped": None if living else _why_stopped(events),
        "attempts_failed": len(failures),
        "items_with_errors": len(culprits),
        "learned": [e["text"] for e in events if e["event"] == "decision"][-5:],
        "errors": errors[-10:],
    }


def _why_stopped(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the last run is over, where it was before its end; no driver is at work."""
    runs = [e for e in events if e["event"] == "run"]
    if (lost := unended(events)) and lost[-1] == runs[-1]:
        return f"its driver, process {lost[-1]['pid']} on {lost[-1]['host']}, was killed"
    ends = [e for e in events if e["event"] == "end"]
    return ends[-1]["stopped"] if ends else None


def history(
    store: Store, shard: int | None = None, item: int | None = None
) -> list[dict[str, Any]]:
    """The events of all runs in order, or of one shard, or of the shard of one item with the item's
    own failure; JobError where there is no such shard or item."""
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
    found += [_committed(m) for m in store.markers() if m["shard"]["number"] == shard]
    return sorted(found, key=lambda event: event["time"])


def _committed(marker: Mapping[str, Any]) -> dict[str, Any]:
    """What the marker of a shard says, as an event."""
    kept = ("attempt", "host", "pid", "device_kind", "seconds", "rounds", "resumed_at", "outcomes")
    at = {"time": marker["started"] + marker["seconds"], "event": "committed"}
    return at | {"shard": marker["shard"]["number"]} | {k: marker[k] for k in kept if k in marker}


def _with_killed(store: Store) -> list[dict[str, Any]]:
    """All events, what was committed without one (yet), and of a driver that was killed the last sign of life."""
    events = read_events(store)
    told = {event["shard"] for event in events if event["event"] == "done"}
    events += [
        _committed(marker)
        for marker in store.markers()
        if marker["shard"]["number"] not in told and "copied_from" not in marker
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
    """Events as text: a line each, and under it the trace if it has one."""
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
    """The shard that computes an item; JobError where the store has no such item."""
    for shard in store.job.plan.shards():
        ids = store.rows(shard.group, "item", shard.start, shard.stop)
        if ids[0] <= item <= ids[-1] and item in ids:  # ids rise inside a group
            return shard.number
    n = sum(store.job.plan.group_sizes)
    raise JobError(f"--item {item}: the store has the items 0 to {n - 1}")


def contents(kernel: Kernel) -> "dict[str, pd.DataFrame]":
    """Title -> table: what a store of this kernel holds, and how its items end."""
    import pandas as pd

    rows = lambda names, lead: pd.DataFrame(
        [(name, ", ".join([*lead, *v.axes]), v.units, v.long_name) for name, v in names.items()],
        columns=["name", "axes", "units", "what"],
    )
    found = {"results/G": rows(kernel.dims, ["item"])}
    if kernel.reduced:
        found["gathered/G"] = rows(kernel.reduced, [])
    if kernel.outcomes:
        ends = [(end.name, end.reason, end.failed) for end in kernel.outcomes]
        found["outcome"] = pd.DataFrame(ends, columns=["name", "what", "failed"])
    return found


def starter(name: str, kernel: Kernel) -> str:
    """A commented job file for a kernel: every field with its default, kind and meaning."""
    lines = [
        f"# A job for kernel {name}. Run it: ctd run FILE.yaml",
        f"kernel: {name}",
        "seed: 0            # item i draws from fold_in(key(seed), i)",
        "params:            # what all items share",
    ]
    kinds = field_kinds(kernel.Params)
    lines += _fields(kernel.Params, {k: v.value for k, v in kinds.items()})
    traced = [field for field, kind in kinds.items() if kind is Kind.TRACED]
    lines += [
        "sweep:             # what differs; a field that is swept is not given in params",
        "  grid: {}         # every combination: {name: [1, 2, 3]}, {range: 10}, {linspace: [0, 1, 5]}",
        "  # zip: {}        # side by side",
        "  # random: {}     # {name: {loguniform: [1e-4, 1e-2]}}, with samples: 64",
        "  # seeds: 8       # replicates",
        f"  # numbers that cost no compilation when swept: {', '.join(traced) or 'none'}",
    ]
    lines += [
        "# search:          # compare items as they go on",
        "#   {method: halving, metric: NAME, mode: min, min_advances: 4, eta: 3}",
        "#   {method: population, metric: NAME, mode: min, every: 5, generations: 8,",
        "#    params: {NAME: {loguniform: [1.0e-4, 1.0e-1]}}}",
    ]
    if kernel.Options.model_fields:
        lines += ["gather:            # settings of the reduction; can be changed after the run"]
        lines += _fields(kernel.Options, {})
        lines += ["  # reductions: []  # tables over all items: best, seeds, counts, histogram"]
    lines += ["run: {}            # slots, shard_items, workers, retries ...: see ctd schema"]
    return "\n".join(lines) + "\n"


def _choices(annotation: Any) -> list[str]:
    """The texts that a field takes, where it takes only some."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return list(dict.fromkeys(c for part in get_args(annotation) for c in _choices(part)))


def _fields(model: Any, kinds: dict[str, str]) -> list[str]:
    lines = []
    for name, info in model.model_fields.items():
        notes = [kinds[name]] if name in kinds else []
        choices = _choices(info.annotation)
        if choices and not all(choice in (info.description or "") for choice in choices):
            notes.append(", ".join(choices))
        notes += [info.description] if info.description else []
        comment = f"  # {': '.join(notes)}" if notes else ""
        default = info.get_default(call_default_factory=True)
        if default is PydanticUndefined:
            lines.append(f"  {name}:  # REQUIRED, {': '.join(notes)}")
            continue
        if hasattr(default, "model_dump"):
            default = default.model_dump(mode="json")
        lines.append(f"  # {name}: {json.dumps(default)}{comment}")
    return lines
