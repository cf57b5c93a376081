"""The microbatch of a group whose plan leaves it open: measured once per kind of device, and kept in the store."""

from collections.abc import Callable
from typing import Any

from obstore.store import ObjectStore

from ctd.kernel import Kernel, Params, inputs_of
from ctd.late import jax
from jobs import keys
from jobs.plan.layout import Plan
from jobs.storage.checksums import agree, read_sealed

MANY = 100
"""Advances of an item, of a kernel that does not say how many it makes."""


def chosen_microbatch(
    store: ObjectStore, group: int, measured: Callable[[], tuple[int, dict[int, float]]]
) -> int:
    """Return the microbatch that the store keeps for this process's kind of device; the first that asks measures it.

    measured: returns (the fastest, microbatch -> seconds of one advance of one item).
    """
    key = keys.layout(group, jax.local_devices()[0].device_kind)
    chosen: Any = read_sealed(store, key)
    if chosen is None:
        best, seconds = measured()
        timed = {str(m): s for m, s in seconds.items()}
        chosen = agree(store, key, {"microbatch": best, "seconds_per_item": timed})
    return int(chosen["microbatch"])


def advances_of_worker(
    kernel: Kernel, params: Params, plan: Plan, group: int, workers: int
) -> float:
    """Return how many advances of an item one of `workers` makes in a group."""
    of_item = kernel.advances(inputs_of(params)) if kernel.advances else MANY
    return of_item * plan.group_sizes[group] / min(workers, plan.counts[group])
