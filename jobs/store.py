"""The store of one job: Zarr v3 that any reader opens, and beside it what the runner needs to go on.

    zarr.json               attributes: kernel, spec, provenance
    results/0/...           group 0: one array a result, leading axis `item`; coordinates = sweep columns
    gathered/0/...          what the kernel's reduction made of group 0
    items/...               one row an item, all groups: sweep columns, status, scalar results
    shards/...              one row a committed shard
    reduced/TABLE/...       the job's further reductions                          (jobs.reductions)
    run/job.json            spec, plan, base folder: written last at creation, so it means "complete"
    run/job.copy.json       the same: all else can be made again from these
    run/sums/...            checksums of what was made at creation and by gather
    run/layout/...          execution mode, chosen once by the first worker of each kind of device
    run/done/G/SSSSSS.json  commit marker of shard S of group G: written last, atomically
    run/checkpoints/...     shards that are under way                                (jobs.checkpoint)
    run/meetings/...        what they leave for one another              (jobs.search.meeting)
    run/slots/, run/failed/ groups that need more memory, items that fail            (jobs.failure)
    run/lease/, run/cancel/ who runs the job, requests to stop                       (jobs.lease)
    run/parts/...           the same where several drivers share the store           (jobs.parts)
    run/submit/ID/...       what was sent to a cluster                               (cluster.submit)
    run/gathering/...       who gathers                                              (jobs.gather)
    run/events/...          what happened                                            (jobs.events)

docs/store-format.md has all of it. A shard's rows fill whole storage objects of their own, one a result, so
that writing them twice, or by two workers at once, is harmless. Nothing but its marker says that a shard is done: a fill value may be a result.
"""

import errno
import json
import shutil
import warnings
from collections.abc import Buffer as Bytes
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from obstore.store import MemoryStore, ObjectStore
from zarr.buffer.cpu import Buffer

from ctd.kernel import Kernel
from jobs import objects
from jobs.arrays import FAILED, attributes, fill_value
from jobs.errors import JobError
from jobs.hierarchy import create_group
from jobs.job import CREATING, FORMAT, JOB, Job, read_job, write_job
from jobs.packs import Part, Place, beside, by_pack, places_of
from jobs.plan import Items, Shard
from jobs.reductions import reductions_of
from jobs.rounding import keep_bits
from jobs.sealed import digest, seal, sums_key, unseal, write_sums
from jobs.search.records import searched
from jobs.search.records import shapes as search_shapes
from jobs.spec import find_kernel, options_of, set_field

if TYPE_CHECKING:
    from jobs.opened import StoreTree

BEFORE = ("run/submit/", "run/lease/", "run/cancel/", CREATING)
"""What may be at the address of a store before it is made, and is kept when it is made again."""


class Store:
    """An opened store. `create` makes one, `open` reads one; both raise JobError in a user's words."""

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

    # --- making and opening -----------------------------------------------------------------------

    @staticmethod
    def exists(address: str) -> bool:
        """Whether there is anything at `address` but what comes before a store, or a store half made."""
        path = objects.local_path(address)
        if path is not None and not path.is_dir():
            return path.exists()
        found = objects.open_objects(address)
        if objects.read(found, CREATING) and not objects.read(found, JOB):
            return False
        return any(not key.startswith(BEFORE) for key in objects.keys(found, ""))

    @staticmethod
    def create(
        address: str,
        job: Job,
        items: Items,
        shapes: list[dict[str, Any]],
        coords: list[dict[str, np.ndarray]],
    ) -> "Store":
        """Lay out an empty store; nothing may be at `address`.

        shapes: result -> shape and dtype of one item, for each group. coords: axis -> coordinate
        values, for each group.
        """
        path = objects.local_path(address)
        made = path is not None and not Store.exists(address)
        store = Store(address, objects.open_objects(address, create=True), job)
        try:
            store._clear()
            store._lay_out(items, shapes, coords)
            write_sums(store.objects, "created", store.keys_outside_run())
            store._write_job()
            objects.delete(store.objects, CREATING)
        except BaseException as error:
            if made and path is not None:
                _remove(path)
            if isinstance(error, OSError) or objects.is_storage_error(error):
                raise JobError(f"{address}: cannot be written: {objects.reason(error)}") from None
            raise
        return store

    @staticmethod
    def open(address: str) -> "Store":
        """The store at `address`; JobError where it is none, or of a newer format."""
        store = objects.open_objects(address)
        return Store(address, store, read_job(store, address))

    def set_gather(self, overrides: list[str]) -> None:
        """Change settings of the reduction, as `key=value`; JobError where they are not valid."""
        settings = dict(self.job.spec.gather)
        for override in overrides:
            set_field(settings, override)
        spec = self.job.spec.model_copy(update={"gather": settings})
        options_of(spec, self.kernel)
        reductions_of(spec, self.kernel)
        self.job = replace(self.job, spec=spec)
        self._write_job()

    def _lay_out(
        self, items: Items, shapes: list[dict[str, Any]], coords: list[dict[str, np.ndarray]]
    ) -> None:
        """Write all metadata and columns."""
        spec = self.job.spec
        root = zarr.create_group(zarr.storage.ObjectStore(self.objects))
        for group in items.groups:
            layout = self.job.plan.layouts[group.number]
            found = shapes[group.number] | search_shapes(spec.search, len(group.items))
            create_group(root, spec, self.kernel, items, group, layout, found, coords[group.number])
        root.attrs.put(
            {
                "ctd_format": FORMAT,
                "kernel": spec.kernel,
                "name": spec.name or "",
                "spec": spec.model_dump(mode="json", exclude_defaults=True),
                "spec_sha256": spec.digest(),
                "provenance": dict(self.job.provenance),
            }
        )
        self.consolidate()

    @staticmethod
    def laid_out(
        job: Job,
        items: Items,
        shapes: list[dict[str, Any]],
        coords: list[dict[str, np.ndarray]],
    ) -> "Store":
        """An empty store of this job in memory: what `create` wrote, byte for byte."""
        store = Store("memory", MemoryStore(), job)
        store._lay_out(items, shapes, coords)
        return store

    def keys_outside_run(self) -> list[str]:
        """Every object of the Zarr hierarchy."""
        return [key for key in objects.keys(self.objects, "") if not key.startswith("run/")]

    def _clear(self) -> None:
        """Remove what a creation left that did not come to its end, and say that one has begun."""
        if objects.read(self.objects, CREATING):
            for key in list(objects.keys(self.objects, "")):
                if not key.startswith(BEFORE):
                    objects.delete(self.objects, key)
        objects.write(self.objects, CREATING, b"{}")

    def _write_job(self) -> None:
        write_job(self.objects, self.job)

    def consolidate(self) -> None:
        """Gather all metadata at the root: readers open the store by one read and list nothing."""
        with warnings.catch_warnings():
            # Both are so on purpose: the convention is xarray's, and run/ is not a Zarr node.
            warnings.filterwarnings("ignore", "Consolidated metadata|Object at run")
            zarr.consolidate_metadata(zarr.storage.ObjectStore(self.objects), zarr_format=3)

    def consolidate_gathered(self, parts: Sequence[str], unchanged: Set[str]) -> None:
        """The same, where only nodes below `parts` can have changed, and none of those in `unchanged`."""
        root = json.loads(objects.read(self.objects, "zarr.json") or b"{}")
        known = root["consolidated_metadata"]["metadata"]
        nodes = {path: node for path, node in known.items() if path.split("/")[0] not in parts}
        for part in parts:
            for key in objects.keys(self.objects, part):
                path, _, name = key.rpartition("/")
                if name == "zarr.json":
                    is_known = path in known and "/".join(path.split("/")[:2]) in unchanged
                    read = lambda key=key: json.loads(objects.read(self.objects, key) or b"{}")
                    nodes[path] = known[path] if is_known else read()
        # As Zarr orders them: parents before children.
        paths = sorted(nodes, key=lambda path: (path.count("/"), path))
        root["consolidated_metadata"]["metadata"] = {path: nodes[path] for path in paths}
        objects.write(self.objects, "zarr.json", json.dumps(root, indent=2).encode())

    # --- shards -----------------------------------------------------------------------------------

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
            return Part(self._array(group, where.pack), where)
        return self._array(group, name)

    def _array(self, group: int, name: str) -> zarr.Array[Any]:
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

    def write_shard(
        self,
        shard: Shard,
        values: Mapping[str, np.ndarray],
        report: Mapping[str, Any],
        rows: np.ndarray,
    ) -> None:
        """Write the results of `rows` and, for the shard's other rows, fill values and the status
        *failed*; read everything back, then commit. OSError (EIO) where it does not read back."""
        sums: dict[str, str] = {}
        for name, whole in self._stored(shard, values, rows):
            for key, data in self._encode(shard, name, whole).items():
                objects.write(self.objects, key, data)
                if not objects.holds(self.objects, key, data):
                    raise OSError(
                        errno.EIO, f"{key}: what was written does not read back", self.address
                    )
                sums[key] = digest(data)
        marker = {"shard": shard._asdict(), **report, "sha256": sums}
        objects.write(self.objects, self._marker(shard), seal(marker))

    def uncommit(self, group: int, number: int) -> None:
        """Have a shard computed again, for a caller who has the store's lease."""
        # Whether the tables are up to date is told by the numbers of shards alone.
        objects.delete(self.objects, sums_key("gathered"))
        objects.delete(self.objects, f"run/done/{group}/{number:06d}.json")

    def _stored(
        self, shard: Shard, values: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The arrays that hold the results, and their values in all rows of the shard."""
        packed = self.places(shard.group)
        for name in [*self.names(shard.group), "status"]:
            if name not in packed:
                yield name, self._whole(shard, name, values, rows)
        for pack, names in by_pack(packed).items():
            parts = [self._whole(shard, name, values, rows) for name in names]
            yield pack, beside(parts, self._array(shard.group, pack).dtype)

    def _whole(
        self, shard: Shard, name: str, values: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> np.ndarray:
        """All rows of the shard. Raises ValueError where the kernel did not return this result."""
        if len(rows) and name not in values:
            raise ValueError(
                f"kernel {self.job.spec.kernel} has not returned {name!r}, which it did when the store was "
                "made: have its files or its source changed?"
            )
        some, n = values.get(name), shard.stop - shard.start
        if some is not None and name in self.job.spec.keep_bits:
            some = keep_bits(some, self.job.spec.keep_bits[name])
        if some is not None and len(rows) == n:
            return some
        array = self.array(shard.group, name)
        fill = FAILED if name == "status" else fill_value(name, array.dtype)
        whole = np.full((n, *array.shape[1:]), fill, array.dtype)
        if some is not None:
            whole[rows - shard.start] = some
        return whole

    def _encode(self, shard: Shard, name: str, whole: np.ndarray) -> dict[str, Bytes]:
        """Key -> bytes of the storage objects that hold these values of a shard.

        They are made in memory: Zarr would read, and merge with, whatever is left of an object that the
        rows do not fill, as those of the last shard do not.
        """
        path = f"results/{shard.group}/{name}"
        if (path, len(whole)) not in self._mirrors:
            metadata = json.loads(objects.read(self.objects, f"{path}/zarr.json") or b"{}")
            metadata["shape"][0] = len(whole)
            made: dict[str, Any] = {"zarr.json": Buffer.from_bytes(json.dumps(metadata).encode())}
            mirror = zarr.open_array(
                zarr.storage.MemoryStore(made), mode="r+", config={"write_empty_chunks": True}
            )
            self._mirrors[path, len(whole)] = made, mirror
        made, mirror = self._mirrors[path, len(whole)]
        mirror[...] = whole
        size = (mirror.shards or mirror.chunks)[0]
        encoded = {}
        for key in [key for key in made if key != "zarr.json"]:
            _, first, *inner = key.split("/")
            place = "/".join([str(shard.start // size + int(first)), *inner])
            encoded[f"{path}/c/{place}"] = made.pop(key).as_buffer_like()
        return encoded

    @cached_property
    def _mirrors(self) -> dict[tuple[str, int], tuple[dict[str, Any], zarr.Array[Any]]]:
        return {}

    def _marker(self, shard: Shard) -> str:
        return f"run/done/{shard.group}/{shard.number:06d}.json"

    def done(self) -> set[int]:
        """The indices of all committed shards."""
        return {
            int(key.rsplit("/", 1)[1].removesuffix(".json"))
            for key in objects.keys(self.objects, "run/done")
        }

    def markers(self, group: int | None = None) -> list[dict[str, Any]]:
        """What every committed shard (of a group) reported, in the order of the plan; damaged ones are
        left out."""
        folder = "run/done" if group is None else f"run/done/{group}"
        keys = list(objects.keys(self.objects, folder))
        found = [unseal(data) for _, data in objects.read_all(self.objects, keys)]
        return sorted((m for m in found if m), key=lambda m: int(m["shard"]["number"]))

    def recall(self, key: str) -> Any:
        """The value at `key` of run/, or None."""
        return unseal(objects.read(self.objects, f"run/{key}.json"))

    def agree(self, key: str, value: Any) -> Any:
        """The value at `key` of run/, which the first caller sets for all."""
        objects.create(self.objects, f"run/{key}.json", seal(value))
        agreed = self.recall(key)
        if agreed is None:  # something is there, but it is damaged
            objects.write(self.objects, f"run/{key}.json", seal(value))
        return agreed or value


def _remove(path: Path) -> None:
    """Remove a store that could not be made, but for the record of its submission."""
    submission = path / "run" / "submit"
    if not submission.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    for child in (*path.iterdir(), *(path / "run").iterdir()):
        if child not in (path / "run", submission):
            shutil.rmtree(child) if child.is_dir() else child.unlink()


def open_store(address: str) -> "StoreTree":
    """The store as a lazy xarray DataTree that can be asked: .query, .select, .table, .weights, .sql."""
    from jobs.opened import (
        StoreTree,  # here: workers never need xarray, which takes a second to import
    )

    return StoreTree.of(Store.open(str(address)))
