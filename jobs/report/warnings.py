"""Warnings about a store: results that are NaN for many items, and declared results that no item returns."""

import json
from collections.abc import Iterable, Mapping, Sequence

from jobs.spec.trust import is_ctds_kernel
from jobs.storage import objects
from jobs.store.marker import Marker
from jobs.store.store import Store

MANY = 0.1
"""Share of the done items with NaN above which a result gets a warning."""
MAX_GROUPS = 64
"""Most groups whose metadata are read for results that are not returned."""


def warnings_of(store: Store, markers: Sequence[Marker]) -> list[str]:
    """The warnings of a store, from its markers and the metadata of its groups; imports no Zarr."""
    found = nan_results(markers)
    returned = _returned(store)
    if returned is not None:
        found += unreturned(store.job.spec.kernel, store.description.dims, returned)
    return found


def nan_results(markers: Iterable[Marker]) -> list[str]:
    """One warning for each result that is NaN in many done items."""
    done, nan = 0, dict[str, int]()
    for marker in markers:
        done += marker.shard.n_items - marker.n_failed
        for name, n in (marker.nan or {}).items():
            nan[name] = nan.get(name, 0) + n
    return [
        f"{name} is NaN in {n:,} of {done:,} items" for name, n in nan.items() if n > MANY * done
    ]


def unreturned(kernel: str, dims: Mapping[str, object], returned: Iterable[str]) -> list[str]:
    """A warning if a user's own kernel declares results that it does not return; ctd's own kernels do so by their params."""
    missing = sorted(dims.keys() - set(returned))
    if is_ctds_kernel(kernel) or not missing:
        return []
    return [
        f"{', '.join(missing)}: declared in `dims` of kernel {kernel}, but returned for no item"
    ]


def _returned(store: Store) -> set[str] | None:
    """The names of the results of all groups; None if the groups are too many or cannot be read."""
    found: set[str] = set()
    groups = [f"results/{group}/zarr.json" for group in range(len(store.job.plan.group_sizes))]
    if len(groups) > MAX_GROUPS or is_ctds_kernel(store.job.spec.kernel):
        return None
    for _, data in objects.read_all(store.objects, groups):
        try:
            found |= set(json.loads(data or b"")["attributes"]["results"])
        except (ValueError, KeyError, TypeError):
            return None
    return found
