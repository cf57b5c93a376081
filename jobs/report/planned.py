"""The plan of a job, as numbers: what a run would do, before anything is written."""

from collections.abc import Sequence
from typing import Any

from ctd.kernel import inputs_of
from jobs.errors import count
from jobs.report.warnings import nan_results, unreturned
from jobs.run.prepare import Prepared, another_job
from jobs.spec.description import Description
from jobs.spec.search import Search
from jobs.store.card import n_dropped
from jobs.store.checkpoint import Left, left
from jobs.store.marker import Marker
from jobs.store.store import Store


def plan_rows(
    ready: Prepared, address: str, workers: int
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Summarise a plan: (columns over the groups, totals).

    The estimated time of what is `left` comes from what the job's store at `address` has, and is None without that. That store
    has the shards that it was made with. Of a store that holds another job, a warning tells.
    """
    store = Store.open(address) if Store.exists(address) else None
    other = another_job(store, ready.spec, ready.kernel) if store else ""
    own = None if other else store
    markers = own.committed.markers() if own else []
    plan, done = own.job.plan if own else ready.plan, done_so_far(own) if own else Left()
    # Where a search chooses the group of each item, any may get all of them.
    items = "items" if plan.ways == 1 else "items_at_most"
    rows: list[dict[str, Any]] = [
        {
            "group": group.number,
            **{name: str(value) for name, value in group.labels.items()},
            items: len(group.items),
            "shards": plan.counts[group.number],
            "slots": layout.slots,
            "memory_MB": (sizes.shared + (sizes.state + sizes.work) * layout.slots) / 1e6,
            "result_MB": sizes.result * len(group.items) / 1e6,
        }
        for group, layout, sizes in zip(ready.items.groups, plan.layouts, ready.sizes, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    total: dict[str, Any] = {
        "items": ready.items.n,
        **({"left": ready.items.n - done.ended} if own else {}),
        "groups": len(rows),
        "shards": plan.n_shards,
        "memory_MB": round(max(columns["memory_MB"]), 2),
        "result_MB": round(sum(columns["result_MB"]), 2),
        "estimated_s": float(f"{done.s_left(ready.items.n) / workers:.3g}") if done.work else None,
    }
    if ready.data:
        total["data"] = "; ".join(ready.data)
    if ready.spec.search:
        total["search"] = _search_planned(ready, ready.spec.search)
    warnings = [other] * bool(other) + _warnings(ready, markers)
    if warnings:
        total["warnings"] = "; ".join(warnings)
    return columns, total


def done_so_far(store: Store) -> Left:
    """Return the items of committed shards; with the work in checkpoints, unless a search decides what goes on; its seconds."""
    markers = store.committed.markers()
    kept = Left() if store.job.spec.search else left(store, {m.shard.number for m in markers})
    n, seconds = sum(m.n_items for m in markers), sum(m.seconds for m in markers)
    return Left(n, n + kept.work, seconds + kept.seconds)


def _warnings(ready: Prepared, markers: Sequence[Marker]) -> list[str]:
    """What planning found, and results of the shards that are committed already."""
    spec, dims = ready.spec, ready.kernel.dims
    returned = {name for one in ready.outputs for name in one.shapes}
    metric = spec.search.metric if spec.search else Description.of(ready.kernel, returned).metric
    missing = unreturned(spec.kernel, dims, returned)
    nans = nan_results(markers, spec.kernel, metric, n_dropped(spec, markers), dims)
    return ready.warnings + missing + nans


def _search_planned(ready: Prepared, search: Search) -> str:
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
        text += "; whether items make so many is known only when they run: the kernel does not declare `advances`"
    return text
