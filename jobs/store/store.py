"""The store of one job: Zarr v3 that any reader opens, and the records below run/ that a driver needs to resume.

docs/store-format.md describes the format; jobs.keys has the keys. A shard's rows fill whole storage objects, one
per array, so writing them twice, or from two workers at once, is harmless. Only the marker says that a shard is
done: a result may equal the fill value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from obstore.store import ObjectStore

from ctd.kernel import Kernel
from jobs import keys
from jobs.errors import JobError
from jobs.late import zarr
from jobs.plan.packing import Part, by_pack, entries, places_of
from jobs.search.method import searched
from jobs.spec import trust
from jobs.spec.description import Description
from jobs.spec.job import find_kernel
from jobs.storage import addresses, connect, objects
from jobs.storage.addresses import refuse_zip
from jobs.storage.hierarchy import zarr_store
from jobs.store.arrays import attributes
from jobs.store.manifest import Job, described_by_arrays, read_job, write_job
from jobs.store.marker import Committed, Failed
from jobs.store.roles import Roles

BEFORE = (
    *(f"{folder}/" for folder in (keys.SUBMIT, keys.LEASE, keys.CANCEL)),
    keys.CREATING,
)
"""Prefixes of the keys that may exist before the store does; creation keeps the objects below them."""


class Store:
    """An opened store: its job, its arrays, its committed shards and its failing items. `jobs.store.creation` makes one."""

    def __init__(self, address: str, store: ObjectStore, job: Job) -> None:
        self.address, self.objects, self.job = addresses.plain(address), store, job
        self.committed, self.failed = Committed(store, job.plan), Failed(store, job.plan)
        self._nodes: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address alone: xarray variables that read from the store are sent to other processes."""
        return Store.open, (self.address,)

    @cached_property
    def science(self) -> Kernel:
        """The job's kernel, for code that computes; imports it and the modules that the job's parameters name.

        Raises Untrusted if that would run code that the user has not said to trust (see jobs.spec.trust).
        """
        spec, base = self.job.spec, self.job.base
        trust.refuse_untrusted(base, spec.modules(), self.address)
        return find_kernel(spec.kernel, trust.folder_of(base, spec.modules()))

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel with the results and outcomes that the job's search adds."""
        return searched(self.science, self.job.spec.search)

    @cached_property
    def description(self) -> Description:
        """The kernel's description for readers; runs no code but ctd's own.

        If the store lacks it, it comes from ctd's kernel, or else from the arrays.
        """
        spec = self.job.spec
        if description := Description.read(self.objects, keys.KERNEL):
            return description
        if trust.is_ctds_kernel(spec.kernel):
            return described(self, find_kernel(spec.kernel, None))
        return described_by_arrays(self.root, self.job.plan)

    @cached_property
    def root(self) -> zarr.Group:
        """The Zarr hierarchy."""
        objects.refuse_fork()
        # Not from the consolidated copy of the metadata, which may be out of date: gather adds groups. Never as version 2 of
        # the format, whose arrays may name Python's pickle as their codec.
        return zarr.open_group(
            zarr_store(self.objects), mode="r+", use_consolidated=False, zarr_format=3
        )

    @staticmethod
    def exists(address: str) -> bool:
        """Tell if anything lies at an address but a half-created store and what may come before one (`BEFORE`).

        Args:
            address: of a store.

        Returns:
            True if a store cannot be created there.
        """
        path = addresses.local_path(address)
        if path is not None and not path.is_dir():
            return path.exists()
        store = connect.open_objects(address)
        # First, since a creation may begin at any time: whatever is listed of it comes after run/creating.json.
        is_empty = all(key.startswith(BEFORE) for key in objects.list_keys(store, ""))
        # run/job.json comes last: without it a creation is going on or was killed, and the next one clears what it left.
        if objects.read(store, keys.CREATING) and not objects.read(store, keys.JOB):
            return False
        return not is_empty

    @staticmethod
    def open(address: str) -> Store:
        """Open the store at an address.

        Args:
            address: folder, zip archive or address of an object store.

        Returns:
            The store; arrays are read when they are needed.

        Raises:
            JobError: no complete store is there, or it is damaged, newer or out of reach.
        """
        store = connect.open_objects(address)
        return Store(address, store, read_job(store, address))

    def results(self, group: int) -> zarr.Group:
        """Open the Zarr group results/G.

        Args:
            group: G, the number of the group.

        Returns:
            The group of Zarr.
        """
        return self.node(f"results/{group}")

    def node(self, path: str) -> Any:
        """Open the Zarr group or array at a path.

        Args:
            path: of the group or array, such as results/G/NAME; that of a pack holds several results.

        Returns:
            The group or array of Zarr.
        """
        objects.refuse_fork()
        # Kept: on an object store each opened group or array costs a request.
        if path not in self._nodes:
            self._nodes[path] = self.root[path]
        return self._nodes[path]

    def array(self, group: int, name: str) -> zarr.Array[Any] | Part:
        """Open one result or column of a group.

        Args:
            group: number of the group.
            name: name of the result or column.

        Returns:
            The array, leading axis `item`; a packed result as a `Part`.
        """
        place = places_of(attributes(self.results(group))).get(name)
        array = self.node(f"results/{group}/{place.pack if place else name}")
        return Part(array, place) if place else array

    @cached_property
    def swept(self) -> list[str]:
        """The fields that differ between items: swept ones, and compiled-in ones that the search chooses."""
        compiled_in = attributes(self.results(0))["swept"] if self.job.plan.n_variants > 1 else ()
        return list(dict.fromkeys([*self.job.spec.swept(), *compiled_in]))

    @property
    def roles(self) -> Roles:
        """The columns of the items by what they are for."""
        return Roles(self.job.spec.search, self.swept, self.description)

    def names(self, group: int) -> list[str]:
        """List the results of a group.

        Args:
            group: number of the group.

        Returns:
            Their names.
        """
        return list(attributes(self.results(group))["results"])

    def rows(self, group: int, name: str, start: int, stop: int) -> np.ndarray:
        """Read rows start <= r < stop of a result or column.

        Args:
            group: number of the group.
            name: name of the result or column.
            start: first row.
            stop: row after the last one.

        Returns:
            (stop - start, ...) array.
        """
        return np.asarray(self.array(group, name)[start:stop])


def rows_of(
    store: Store, group: int, names: Iterable[str], start: int, stop: int
) -> dict[str, np.ndarray]:
    """Return the `Store.rows` of several results or columns by name; those that lie side by side in a pack are read at once."""
    places, names = places_of(attributes(store.results(group))), [*names]
    unpacked: dict[str, np.ndarray] = {}
    for pack, inside in by_pack({name: places[name] for name in names if name in places}).items():
        pack_places = [places[name] for name in inside]
        low, high = pack_places[0].at, pack_places[-1].at + pack_places[-1].size
        # Far apart, they would take the memory of all that lies between them.
        if len(pack_places) > 1 and high - low <= 2 * sum(place.size for place in pack_places):
            read = np.asarray(store.node(f"results/{group}/{pack}")[start:stop, low:high])
            # Copies, so that none keeps the others in memory.
            unpacked |= {
                name: entries(read, place._replace(at=place.at - low)).copy()
                for name, place in zip(inside, pack_places, strict=True)
            }
    return {
        name: unpacked[name] if name in unpacked else store.rows(group, name, start, stop)
        for name in names
    }


def table_group(store: Store, path: str, attrs: Mapping[str, Any] | None = None) -> zarr.Group:
    """Return the Zarr group that a gather fills at `path`, made with these attributes if it is not there.

    It is the root of a hierarchy of its own. Zarr reads all parents of each array that it creates, and the store's root holds
    the metadata of all groups: the time of a gather would grow with the square of their number.
    """
    place = connect.open_objects(f"{store.address}/{path}", create=True)
    return zarr.open_group(zarr_store(place), mode="a", zarr_format=3, attributes=dict(attrs or {}))


def change_job(store: Store, change: Callable[[Job], Job]) -> None:
    """Write what `change` makes of the store's job; nothing is written where it raises."""
    # Read again: another process may have changed settings or accepted changed source since this one opened the store. No
    # lease, because settings may change while a run goes on, which holds it.
    store.job = change(read_job(store.objects, store.address))
    write_job(store.objects, store.job)


def names_of_columns(store: Store, group: int) -> list[str]:
    """Return the names of a group's columns: what differs between its items."""
    return str(attributes(store.results(group))["coordinates"]).split()


def described(store: Store, kernel: Kernel) -> Description:
    """The description that this kernel gives of a store."""
    stored: list[str] = []
    with suppress(KeyError, TypeError, ValueError, OSError):  # of damaged metadata
        stored = store.names(0)
    return Description.of_kernel(searched(kernel, store.job.spec.search), stored)


def title_of(store: Store) -> str:
    """The name of a store's job; the store's own if the job has none, or is a stage of a pipeline, whose name says less."""
    name, of_store = store.job.spec.name, addresses.path_beside(store.address).name
    return of_store if not name or of_store.endswith(f".{name}") else name


def known_kernel(store: Store) -> Kernel | None:
    """Return the kernel if a command that only looks may run it: ctd's own, or one that this user has run.

    None otherwise, and if the kernel cannot be imported: only commands that compute report that.
    """
    if "kernel" not in vars(store) and not trust.is_known(store.job.base, store.job.spec.modules()):
        return None
    try:
        return store.kernel
    except JobError:
        return None


def shared_fields(store: Store, group: int) -> dict[str, Any]:
    """Return the fields that all items of a group share, ready for the kernel to read.

    Raises Untrusted if they name code that the job does not, and that may not be imported.
    """
    spec, base = store.job.spec, store.job.base
    content = attributes(store.results(group))["params"]
    further = trust.modules_of(spec.kernel, content) - spec.modules()
    if "science" in vars(store):  # its code runs here, so the modules that its defaults name may
        defaults = store.science.Params.model_construct().model_dump(mode="json", warnings=False)
        further -= trust.modules_of(spec.kernel, defaults)
    # The defaults of a kernel of one's own may name modules; those of ctd's kernels do not.
    only_known = trust.is_ctds_kernel(spec.kernel)
    trust.refuse_untrusted(base, further, store.address, only_known)
    return dict(content)


def links_of(store: Store, *, everything: bool = False) -> Iterator[str]:
    """Yield the folders of a store that are links, but for those in results/, which only a run writes to.

    everything: its files, too, and the folders and files in results/. The store itself and results/ may be links.
    """
    path = addresses.local_path(store.address)
    top = os.path.realpath(path) if path else ""
    results = os.path.join(top, "results")
    for folder, inner, files in chain(os.walk(top), os.walk(results) if everything else ()):
        if folder == top and "results" in inner:
            inner.remove("results")
        names = (*inner, *files) if everything else inner
        yield from filter(os.path.islink, (os.path.join(folder, name) for name in names))


def refuse_links(store: Store) -> None:
    """Raise JobError if the store is an archive, or for a link of `links_of`: writes and deletions below it would happen elsewhere."""
    refuse_zip(addresses.local_path(store.address))
    for link in links_of(store):
        text = f"{link} is a link to {os.path.realpath(link)}, where ctd writes and deletes nothing"
        raise JobError(f"{store.address}: {text}; make it a folder of the store")
