"""The store of one job: Zarr v3 that any reader opens, and beside it what the runner needs to go on.

    zarr.json               attributes: kernel, spec, provenance
    results/0/...           group 0: one array a result, leading axis `item`; coordinates = sweep columns
    gathered/0/...          what the kernel's reduction made of group 0
    items/...               one row an item, all groups: sweep columns, status, scalar results
    shards/...              one row a committed shard
    reduced/TABLE/...       the job's further reductions                          (jobs.reduce.tables)
    run/job.json            spec, plan, base folder: written last at creation, so it means "complete"
    run/job.copy.json       the same: all else can be made again from these
    run/sums/...            checksums of what was made at creation and by gather
    run/layout/...          execution mode, chosen once by the first worker of each kind of device
    run/done/G/SSSSSS.json  commit marker of shard S of group G: written last, atomically
    run/checkpoints/...     shards that are under way                                (jobs.store.checkpoint)
    run/meetings/...        what they leave for one another              (jobs.run.rendezvous)
    run/slots/, run/failed/ groups that need more memory, items that fail            (jobs.run.failure)
    run/lease/, run/cancel/ who runs the job, requests to stop                       (jobs.storage.lease)
    run/parts/...           the same where several drivers share the store           (jobs.run.partition)
    run/submit/ID/...       what was sent to a cluster                               (cluster.submit)
    run/gathering/...       who gathers                                              (jobs.gather.gather)
    run/events/...          what happened                                            (jobs.store.events)

docs/store-format.md has all of it. A shard's rows fill whole storage objects of their own, one a result, so
that writing them twice, or by two workers at once, is harmless. Nothing but its marker says that a shard is done: a fill value may be a result.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from obstore.store import ObjectStore

from ctd.kernel import Kernel
from jobs import keys
from jobs.plan.packing import Part, Place, places_of
from jobs.plan.search_results import searched
from jobs.spec.job import find_kernel
from jobs.storage import objects
from jobs.storage.checksums import seal, unseal
from jobs.store.arrays import attributes
from jobs.store.manifest import Job, read_job
from jobs.store.marker import Marker

BEFORE = (*(f"{folder}/" for folder in (keys.SUBMIT, keys.LEASE, keys.CANCEL)), keys.CREATING)
"""What may be at the address of a store before it is made, and is kept when it is made again."""


class Store:
    """An opened store of `jobs.store.creation`: its job, its arrays, what is committed."""

    def __init__(self, address: str, store: ObjectStore, job: Job) -> None:
        self.address, self.objects, self.job = objects.plain(address), store, job

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its address, as xarray variables that read from it are on their way to other processes."""
        return Store.open, (self.address,)

    @cached_property
    def kernel(self) -> Kernel:
        """The job's kernel."""
        return searched(find_kernel(self.job.spec.kernel, self.job.base), self.job.spec.search)

    @cached_property
    def root(self) -> zarr.Group:
        """The Zarr hierarchy."""
        # Metadata is read as it is, not from the consolidated copy: gather adds groups.
        return zarr.open_group(
            zarr.storage.ObjectStore(self.objects), mode="r+", use_consolidated=False
        )

    @staticmethod
    def exists(address: str) -> bool:
        """Whether there is anything at `address` but what comes before a store, or a store half made."""
        path = objects.local_path(address)
        if path is not None and not path.is_dir():
            return path.exists()
        found = objects.open_objects(address)
        if objects.read(found, keys.CREATING) and not objects.read(found, keys.JOB):
            return False
        return any(not key.startswith(BEFORE) for key in objects.list_keys(found, ""))

    @staticmethod
    def open(address: str) -> "Store":
        """The store at `address`; JobError where it is none, or of a newer format."""
        store = objects.open_objects(address)
        return Store(address, store, read_job(store, address))

    @cached_property
    def _groups(self) -> dict[int, zarr.Group]:
        return {}

    def results(self, group: int) -> zarr.Group:
        """The arrays of one group."""
        if group not in self._groups:
            self._groups[group] = self.root[f"results/{group}"]  # type: ignore[assignment]
        return self._groups[group]

    @cached_property
    def _arrays(self) -> dict[tuple[int, str], zarr.Array[Any]]:
        return {}

    def array(self, group: int, name: str) -> zarr.Array[Any] | Part:
        """One result or column of one group."""
        if where := self.places(group).get(name):
            return Part(self.stored(group, where.pack), where)
        return self.stored(group, name)

    def stored(self, group: int, name: str) -> zarr.Array[Any]:
        """One array as it is stored, that of a pack too."""
        if (group, name) not in self._arrays:
            self._arrays[group, name] = self.results(group)[name]  # type: ignore[assignment]
        return self._arrays[group, name]

    @cached_property
    def _places(self) -> dict[int, dict[str, Place]]:
        return {}

    def places(self, group: int) -> Mapping[str, Place]:
        """The group's results that share an array with others -> where they lie in it."""
        if group not in self._places:
            self._places[group] = places_of(attributes(self.results(group)))
        return self._places[group]

    def names(self, group: int) -> list[str]:
        """The results that the items of this group have."""
        return list(attributes(self.results(group))["results"])

    def rows(self, group: int, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start <= r < stop of a result or column."""
        return np.asarray(self.array(group, name)[start:stop])

    def uncommit(self, group: int, number: int) -> None:
        """Have a shard computed again, for a caller who has the store's lease."""
        # Whether the tables are up to date is told by the numbers of shards alone.
        objects.delete(self.objects, keys.sums("gathered"))
        objects.delete(self.objects, keys.marker(group, number))

    def done(self) -> set[int]:
        """The indices of all committed shards."""
        return {keys.number_of(key) for key in objects.list_keys(self.objects, keys.DONE)}

    def markers(self, group: int | None = None) -> list[Marker]:
        """The markers of every committed shard (of a group), in the order of the plan; damaged ones are
        left out."""
        folder = keys.DONE if group is None else f"{keys.DONE}/{group}"
        listed = list(objects.list_keys(self.objects, folder))
        found = [unseal(data) for _, data in objects.read_all(self.objects, listed)]
        return sorted(map(Marker.from_json, filter(None, found)), key=lambda m: m.shard.number)

    def recall(self, key: str) -> Any:
        """The sealed value at `key`, or None."""
        return unseal(objects.read(self.objects, key))

    def agree(self, key: str, value: Any) -> Any:
        """The sealed value at `key`, which the first caller sets for all."""
        objects.create(self.objects, key, seal(value))
        agreed = self.recall(key)
        if agreed is None:  # something is there, but it is damaged
            objects.write(self.objects, key, seal(value))
        return agreed or value
