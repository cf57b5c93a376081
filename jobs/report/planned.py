"""The plan of a job, as numbers: what a run would do, before anything is written."""

from typing import Any

from ctd.kernel import inputs_of
from jobs.errors import count
from jobs.report.warnings import nan_results
from jobs.run.prepare import Prepared, another_job
from jobs.search.method import Method
from jobs.spec.description import Description
from jobs.store.checkpoint import CheckpointProgress, progress_in_checkpoints
from jobs.store.look import Look
from jobs.store.store import Store
from jobs.store.tally import Tally


def plan_rows(
    ready: Prepared, address: str, workers: int
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Summarise a plan: (columns over the groups, totals).

    The estimate of the seconds left comes from the job's store at `address`, whose shards stay as they are; it is None without a
    store. A store that holds another job gives a warning.
    """
    store = Store.open(address) if Store.exists(address) else None
    other = another_job(store, ready.spec, ready.kernel) if store else ""
    look = Look(store) if store and not other else None
    plan = look.store.job.plan if look else ready.plan
    done = done_so_far(look) if look else CheckpointProgress()
    # Where a search chooses the group of each item, any may get all of them.
    items = "items" if plan.n_variants == 1 else "items_at_most"
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
        **({"left": ready.items.n - done.ended} if look else {}),
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
    warnings = [other] * bool(other) + _warnings(ready, look.tally if look else Tally())
    if warnings:
        total["warnings"] = "; ".join(warnings)
    return columns, total


def done_so_far(look: Look) -> CheckpointProgress:
    """Return the items of committed shards; with the work in checkpoints, unless a search decides what goes on; its seconds."""
    store, n = look.store, look.tally.ended
    in_checkpoints = (
        CheckpointProgress()
        if store.job.spec.search
        else progress_in_checkpoints(store, look.committed)
    )
    seconds = sum(marker.seconds for marker in look.markers)
    return CheckpointProgress(n, n + in_checkpoints.work, seconds + in_checkpoints.seconds)


def _warnings(ready: Prepared, tally: Tally) -> list[str]:
    """The warnings of planning, and those about results of shards that are committed already."""
    spec, dims = ready.spec, ready.kernel.dims
    returned = {name for output in ready.outputs for name in output.shapes}
    metric = (
        spec.search.metric if spec.search else Description.of_kernel(ready.kernel, returned).metric
    )
    nans = nan_results(tally, metric, dims)
    return ready.warnings + nans


def _search_planned(ready: Prepared, search: Method) -> str:
    of_item = ready.kernel.advances
    advances = [of_item(inputs_of(g.params)) if of_item else 0 for g in ready.items.groups]
    sizes = map(search.n_compared, ready.plan.group_sizes)
    compared = sorted(set(zip(sizes, advances, strict=True)))
    text = "; ".join(dict.fromkeys(search.describe(*pair) for pair in compared))
    rounds = {layout.shard_items for layout in ready.plan.layouts}
    text += f", up to {max(rounds)} of them in a round of one worker"
    if of_item and search.ends(max(compared)[0]):
        most = max(advances)
        n = max(len(search.ends(*pair)) for pair in compared)
        text += f"; items make {count(most, 'advance')} at most and are compared {count(n, 'time')}"
    elif not of_item:
        text += "; whether items make so many is known only when they run: the kernel does not declare `advances`"
    return text
