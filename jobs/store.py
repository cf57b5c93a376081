"""The store of one job: Zarr v3 that any reader opens, and beside it what the runner needs to go on.

    zarr.json               attributes: kernel, spec, provenance
    results/0/...           group 0: one array a result, leading axis `item`; coordinates = sweep columns
    gathered/0/...          what the kernel's reduction made of group 0
    items/...               one row an item, all groups: sweep columns, status, scalar results
    run/job.json            spec, plan, base folder: written last at creation, so it means "complete"
    run/layout/...          execution mode, chosen once by the first worker of each kind of device
    run/done/G/SSSSSS.json  commit marker of shard S of group G: written last, atomically

A shard's rows fill whole Zarr chunks of their own, so that writing them twice, or by two workers at once,
is harmless. Nothing but its marker says that a shard is done: a fill value may be a result.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from obstore.store import ObjectStore
from zarr.codecs import BloscCodec

from ctd.kernel import Kernel, Var
from jobs import objects
from jobs.errors import JobError
from jobs.plan import Group, GroupLayout, Items, Plan, Shard, chunk_items
from jobs.spec import JobSpec, find_kernel, options_of, parse_job, set_field

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 1
"""Version of the layout above; a reader refuses a higher one."""

STATUS = {1: "done", 2: "failed"}
"""Item status -> name; 0 is an item that nothing has been computed for."""


@dataclass(frozen=True)
class Job:
    """What a worker must know; all of it is in the store."""

    spec: JobSpec
    plan: Plan
    base: str
    """The folder that relative file names of the spec start at."""

    def to_json(self) -> dict[str, Any]:
        """As written to run/job.json."""
        return {
            "format": FORMAT,
            "spec": self.spec.model_dump(mode="json", exclude_defaults=True),
            "digest": self.spec.digest(),
            "base": self.base,
            "group_sizes": list(self.plan.group_sizes),
            "layouts": [layout._asdict() for layout in self.plan.layouts],
        }

    @staticmethod
    def from_json(content: Mapping[str, Any], where: str) -> "Job":
        """The inverse of `to_json`; JobError for a newer format."""
        if content.get("format", 0) > FORMAT:
            raise JobError(
                f"{where}: store format {content['format']}, this ctd reads up to {FORMAT}; update ctd"
            )
        layouts = tuple(GroupLayout(**layout) for layout in content["layouts"])
        plan = Plan(tuple(content["group_sizes"]), layouts)
        return Job(parse_job(content["spec"], where), plan, content["base"])


class Store:
    """An opened store. `create` makes one, `open` reads one; both raise JobError in a user's words."""

    def __init__(self, address: str, store: ObjectStore, job: Job) -> None:
        self.address, self.objects, self.job = address, store, job

    @cached_property
    def kernel(self) -> Kernel:
        """The job's kernel."""
        return find_kernel(self.job.spec.kernel, self.job.base)

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
        """Whether there is anything at `address`."""
        path = objects.local_path(address)
        if path is not None:
            return path.exists()
        return any(True for _ in objects.keys(objects.open_objects(address), ""))

    @staticmethod
    def create(
        address: str,
        job: Job,
        items: Items,
        shapes: list[dict[str, Any]],
        coords: list[dict[str, np.ndarray]],
        provenance: Mapping[str, Any],
    ) -> "Store":
        """Lay out an empty store; nothing may be at `address`.

        shapes: result -> shape and dtype of one item, for each group. coords: axis -> coordinate
        values, for each group.
        """
        path = objects.local_path(address)
        made = path is not None and not path.exists()
        store = Store(address, objects.open_objects(address, create=True), job)
        try:
            root = zarr.create_group(zarr.storage.ObjectStore(store.objects))
            for group in items.groups:
                layout = job.plan.layouts[group.number]
                store._create_group(
                    root, group, items, layout, shapes[group.number], coords[group.number]
                )
            root.attrs.put(
                {
                    "ctd_format": FORMAT,
                    "kernel": job.spec.kernel,
                    "name": job.spec.name or "",
                    "spec": job.spec.model_dump(mode="json", exclude_defaults=True),
                    "spec_sha256": job.spec.digest(),
                    "provenance": dict(provenance),
                }
            )
            store.consolidate()
            store._write_job()
        except BaseException as error:
            if made and path is not None:
                _remove_tree(path)
            if isinstance(error, OSError):
                raise JobError(f"{address}: cannot be written: {error}") from None
            raise
        return store

    @staticmethod
    def open(address: str) -> "Store":
        """The store at `address`; JobError where it is none, or of a newer format."""
        store = objects.open_objects(address)
        content = objects.read(store, "run/job.json")
        if content is None:
            raise JobError(f"{address}: not a complete ctd store (it has no run/job.json)")
        return Store(address, store, Job.from_json(json.loads(content), address))

    def set_gather(self, overrides: list[str]) -> None:
        """Change settings of the reduction, as `key=value`; JobError where they are not valid."""
        settings = dict(self.job.spec.gather)
        for override in overrides:
            set_field(settings, override)
        spec = self.job.spec.model_copy(update={"gather": settings})
        options_of(spec, self.kernel)
        self.job = replace(self.job, spec=spec)
        self._write_job()

    def _write_job(self) -> None:
        objects.write(self.objects, "run/job.json", json.dumps(self.job.to_json()).encode())

    def consolidate(self) -> None:
        """Gather all metadata at the root: readers open the store by one read and list nothing."""
        with warnings.catch_warnings():
            # Both are so on purpose: the convention is xarray's, and run/ is not a Zarr node.
            warnings.filterwarnings("ignore", "Consolidated metadata|Object at run")
            zarr.consolidate_metadata(zarr.storage.ObjectStore(self.objects), zarr_format=3)

    def _create_group(
        self,
        root: zarr.Group,
        group: Group,
        items: Items,
        layout: GroupLayout,
        shapes: Mapping[str, Any],
        coords: Mapping[str, np.ndarray],
    ) -> None:
        n = len(group.items)
        kernel = self.kernel
        columns = [name for name in items.columns if name not in group.labels]
        out = root.create_group(f"results/{group.number}")
        out.attrs.put(
            {
                "params": group.params.model_dump(mode="json"),
                "swept": {name: _plain(value) for name, value in group.labels.items()},
                "layout": layout._asdict(),
                "results": sorted(shapes),
                # CF: which variables are coordinates; xarray reads it.
                "coordinates": " ".join(columns),
            }
        )
        put_array(out, "item", group.items.astype(np.uint32), Var(("item",), "1", "item id"))
        for name in columns:
            values = items.values(name, group.items)
            axes = ("item", f"{name}_index")[: values.ndim]
            described = kernel.Params.model_fields.get(name)
            text = (described.description if described else None) or name
            put_array(out, name, values, Var(axes, "1", text))
        for axis, values in coords.items():
            put_array(out, axis, np.asarray(values), Var((axis,), "1", axis))
        specs = {name: (kernel.dims[name], shape) for name, shape in shapes.items()}
        specs["status"] = (Var((), "1", "0 not computed, 1 done, 2 failed"), np.zeros((), np.int8))
        for name, (var, shape) in specs.items():
            row = int(np.prod(shape.shape, dtype=int)) * shape.dtype.itemsize
            chunk = chunk_items(layout.shard_items, row)
            array = out.create_array(
                name,
                shape=(n, *shape.shape),
                chunks=(chunk, *(max(1, k) for k in shape.shape)),
                dtype=shape.dtype,
                fill_value=_fill(name, shape.dtype),
                compressors=compressor(),
                dimension_names=("item", *var.axes),
                config={"write_empty_chunks": True},
            )
            array.attrs.put(describe(var) | flags(kernel, name))

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

    def array(self, group: int, name: str) -> zarr.Array[Any]:
        """One result or column of one group."""
        if (group, name) not in self._arrays:
            self._arrays[group, name] = self.results(group)[name]  # type: ignore[assignment]
        return self._arrays[group, name]

    def names(self, group: int) -> list[str]:
        """The results that the items of this group have."""
        return list(attributes(self.results(group))["results"])

    def rows(self, group: int, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start <= r < stop of a result or column."""
        return np.asarray(self.array(group, name)[start:stop])

    def write_shard(
        self, shard: Shard, values: Mapping[str, np.ndarray], report: Mapping[str, Any]
    ) -> None:
        """Write the rows, read them back, then commit; JobError where they do not read back."""
        hashes = {}
        for name, rows in values.items():
            array = self.array(shard.group, name)
            rows = np.ascontiguousarray(rows, array.dtype)
            array[shard.start : shard.stop] = rows
            back = np.asarray(array[shard.start : shard.stop])
            if back.tobytes() != rows.tobytes():
                raise JobError(
                    f"{self.address}: results/{shard.group}/{name}, rows {shard.start}-{shard.stop}: "
                    "what was written does not read back; check the storage"
                )
            hashes[name] = digest(back)
        marker = {"shard": shard._asdict(), **report, "sha256": hashes}
        objects.write(self.objects, self._marker(shard), json.dumps(marker).encode())

    def _marker(self, shard: Shard) -> str:
        return f"run/done/{shard.group}/{shard.number:06d}.json"

    def done(self) -> set[int]:
        """The indices of all committed shards."""
        return {
            int(key.rsplit("/", 1)[1].removesuffix(".json"))
            for key in objects.keys(self.objects, "run/done")
        }

    def markers(self) -> list[dict[str, Any]]:
        """What every committed shard reported, in the order of the plan."""
        found = [
            json.loads(objects.read(self.objects, key) or b"null")
            for key in objects.keys(self.objects, "run/done")
        ]
        return sorted((m for m in found if m), key=lambda m: int(m["shard"]["number"]))

    def recall(self, key: str) -> Any:
        """The value at `key` of run/, or None."""
        return json.loads(objects.read(self.objects, f"run/{key}.json") or b"null")

    def agree(self, key: str, value: Any) -> Any:
        """The value at `key` of run/, which the first caller sets for all."""
        objects.create(self.objects, f"run/{key}.json", json.dumps(value).encode())
        return self.recall(key)


def attributes(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    """The attributes of a group or array."""
    return dict(node.attrs)


def digest(values: np.ndarray) -> str:
    """sha256 of the values' bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def compressor() -> Any:
    """zstd over shuffled bytes: 2.2 times smaller on float32 results, 1.3 times without the shuffle."""
    return BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


def describe(var: Var) -> dict[str, Any]:
    """CF attributes of a variable."""
    return {"units": var.units, "long_name": var.long_name}


def flags(kernel: Kernel, name: str) -> dict[str, Any]:
    """CF flag attributes of the coded results `status` and `outcome`."""
    if name == "status":
        codes = {0: "pending", **STATUS}
    elif name == "outcome":
        codes = {k: outcome.name for k, outcome in enumerate(kernel.outcomes)}
    else:
        return {}
    return {"flag_values": list(codes), "flag_meanings": " ".join(codes.values())}


def _fill(name: str, dtype: np.dtype[Any]) -> Any:
    if name == "outcome":
        return -1
    return np.nan if dtype.kind in "fc" else 0


def put_array(group: zarr.Group, name: str, values: np.ndarray, var: Var) -> None:
    """Write a whole array with its dimension names; text becomes codes with their meanings."""
    values = np.asarray(values)
    attrs: dict[str, Any] = describe(var)
    if values.dtype.kind in "US":
        # Zarr v3 has no settled string type: codes, and the texts in the attributes.
        texts, codes = np.unique(values, return_inverse=True)
        values = codes.astype(np.int32).reshape(values.shape)
        attrs["flag_values"], attrs["labels"] = list(range(len(texts))), [str(t) for t in texts]
    rows = max(1, (4 << 20) // max(1, values[:1].nbytes)) if values.ndim else 1
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, k) for k in (min(rows, values.shape[0]), *values.shape[1:]))
        if values.ndim
        else (),
        dtype=values.dtype,
        fill_value=_fill(name, values.dtype),
        compressors=compressor(),
        dimension_names=var.axes,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    array.attrs.put(attrs)


def _plain(value: Any) -> Any:
    """A swept value as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value


def _remove_tree(path: Any) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def open_store(address: str) -> "xr.DataTree":
    """The store as a lazy xarray DataTree: /results/0 ..., /gathered/0 ..., /items."""
    store = Store.open(str(address))
    import xarray as xr  # here: workers never need it, and it takes a second to import

    return xr.open_datatree(
        zarr.storage.ObjectStore(store.objects),  # type: ignore[arg-type]
        engine="zarr",
        consolidated=True,
    )
