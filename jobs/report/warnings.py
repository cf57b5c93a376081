"""What should make a user look again: results that are NaN for many items, and declared ones that no item returns."""

import json
from collections.abc import Iterable, Mapping, Sequence

from jobs.spec.trust import is_ctds_kernel
from jobs.storage import objects
from jobs.store.marker import Marker
from jobs.store.store import Store

MANY = 0.1
"""A result is told that is NaN for a larger share of the items that are done."""
MAX_GROUPS = 64
"""Of a store with more groups, what each returns is not read."""


def warnings_of(store: Store, markers: Sequence[Marker]) -> list[str]:
    """Return the warnings of a store, from its markers and the metadata of its groups; imports no Zarr."""
    found = nan_results(markers)
    returned = _returned(store)
    if returned is not None:
        found += unreturned(store.job.spec.kernel, store.description.dims, returned)
    return found


def nan_results(markers: Iterable[Marker]) -> list[str]:
    """Return which results are NaN in many items that are done."""
    done, nan = 0, dict[str, int]()
    for marker in markers:
        done += marker.shard.n_items - marker.n_failed
        for name, n in (marker.nan or {}).items():
            nan[name] = nan.get(name, 0) + n
    return [
        f"{name} is NaN in {n:,} of {done:,} items" for name, n in nan.items() if n > MANY * done
    ]


def unreturned(kernel: str, dims: Mapping[str, object], returned: Iterable[str]) -> list[str]:
    """Return which results of a user's own kernel are declared and not returned; ctd's own depend on the params."""
    missing = sorted(dims.keys() - set(returned))
    if is_ctds_kernel(kernel) or not missing:
        return []
    return [
        f"{', '.join(missing)}: declared in `dims` of kernel {kernel}, but returned for no item"
    ]


def _returned(store: Store) -> set[str] | None:
    """Return the results of all groups; None if they are many or cannot be read."""
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
