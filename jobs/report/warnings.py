"""Warnings of a store: results that are NaN, items that failed, GPUs that were not used, and the
warnings of the kernel's `reduce`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctd.installed import NO_PLUGIN
from ctd.kernel import Outcome, Var
from jobs.errors import count
from jobs.storage import objects
from jobs.store.look import Look
from jobs.store.marker import Marker
from jobs.store.store import Store
from jobs.store.tally import Tally

MANY = 0.1
"""Share of the items that must end in a failing outcome for a warning; likewise of the done items, for a NaN in a result that
is not the metric."""
MAX_HOSTS = 8
"""Most hosts that a warning names."""
MAX_GROUPS = 64
"""Most groups whose warnings are shown."""


def warnings_of(look: Look) -> list[str]:
    """The warnings of a store, from its markers and the metadata of its groups and tables; imports no Zarr."""
    store, tally = look.store, look.tally
    described, metric = store.description, store.roles.metric
    warnings = on_cpu(look.markers) + failing_outcomes(tally, described.outcomes)
    name = metric.name if metric else ""
    warnings += nan_results(tally, name, described.dims)
    if tally.dropped == tally.items:  # asha lets no NaN go on
        n = count(tally.dropped, "item")
        warnings.append(f"no item is done: the search dropped all {n}, because {name} was NaN")
    nodes = _attributes(store) if described.reduces else {}
    groups = range(len(store.job.plan.group_sizes))
    for group in groups[:MAX_GROUPS]:
        of_reduce = nodes.get(f"gathered/{group}", {}).get("warnings")
        prefix = f"group {group}: " if len(groups) > 1 else ""
        texts = of_reduce if isinstance(of_reduce, list) else ()
        warnings += [f"{prefix}{text}" for text in texts]
    return warnings


def _attributes(store: Store) -> dict[str, Any]:
    """The attributes of the store's groups and arrays by their paths, as of the last gather; {} if they cannot be read."""
    # The consolidated metadata: one object, however many groups there are.
    try:
        root = json.loads(objects.read(store.objects, "zarr.json") or b"")
        nodes = root["consolidated_metadata"]["metadata"]
        return {path: dict(node["attributes"]) for path, node in nodes.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def on_cpu(markers: Iterable[Marker]) -> list[str]:
    """Warn of shards that were computed on the CPU by workers with GPUs."""
    hosts = [marker.host for marker in markers if marker.idle_gpus]
    if not hosts:
        return []
    shards, host_names = count(len(hosts), "shard"), ", ".join(sorted(set(hosts))[:MAX_HOSTS])
    return [
        f"{shards} ran on the CPU of {host_names}, although the workers had GPUs: JAX sees none there; {NO_PLUGIN}"
    ]


def is_warned_of(outcome: Outcome, tally: Tally) -> bool:
    """Return whether a warning names an outcome: a failure, in which many items ended."""
    return outcome.failed and tally.outcomes[outcome.name] > MANY * tally.ended


def failing_outcomes(tally: Tally, outcomes: Sequence[Outcome]) -> list[str]:
    """Warn of each failing outcome in which many items ended, and of each outcome that the kernel does not declare.

    >>> from jobs.plan.layout import Shard
    >>> failing_outcomes(Tally.from_markers([Marker(shard=Shard(0, 0, 0, 9), outcomes={"diverged": 3})]), [Outcome("diverged", "not finite", True)])
    ['3 of 9 items ended as diverged: not finite']
    """
    n, ended_as = tally.ended, tally.outcomes
    names = {outcome.name for outcome in outcomes}
    unknown = ended_as.keys() - names - {"dropped"} if outcomes else ()
    strange = [
        f"{count(ended_as[name], 'item')} ended as {name}, but the kernel has the outcomes 0 to {len(outcomes) - 1}"
        for name in sorted(unknown)
    ]
    return strange + [
        f"{ended_as[outcome.name]:,} of {count(n, 'item')} ended as {outcome.name}"
        + f": {outcome.reason}" * bool(outcome.reason)
        for outcome in outcomes
        if is_warned_of(outcome, tally)
    ]


def nan_results(
    tally: Tally,
    metric: str,
    dims: Mapping[str, Var] | None = None,
) -> list[str]:
    """Warn of each result that is NaN or infinite in done items: in any of them for the metric, in many of them for
    other results, unless the kernel has no metric; not of results that may be NaN by design.

    Args:
        tally: of the committed shards.
        metric: the result that says how well an item did; "" without one.
        dims: the results of the kernel.
    """
    by_design = {name for name, var in (dims or {}).items() if var.may_be_nan} - {metric}
    least = lambda name: MANY * tally.done if metric and name != metric else 0
    return [
        f"{name} is NaN or infinite in {n:,} of {count(tally.done, 'done item')}"
        for name, n in tally.not_finite.items()
        if n > least(name) and name not in by_design
    ]
