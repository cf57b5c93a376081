"""Creating an empty store: all metadata and columns, and the arrays that the shards will fill."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from obstore.store import MemoryStore, ObjectStore

from ctd.kernel import Coordinate, Kernel, Var
from jobs import keys
from jobs.late import zarr
from jobs.plan.items import Group, Items
from jobs.plan.layout import chunk_shape
from jobs.plan.packing import as_attribute, by_pack, place
from jobs.search.method import shapes as search_shapes
from jobs.spec import trust
from jobs.storage import addresses, connect, objects
from jobs.storage.checksums import write_sums
from jobs.storage.hierarchy import zarr_store
from jobs.storage.lease import LeaseHeld
from jobs.store.arrays import create_array, describe, flags, plain, put_array
from jobs.store.manifest import FORMAT, Job, write_job
from jobs.store.store import BEFORE, Store, described


@dataclass(frozen=True)
class Outputs:
    """Shapes and coordinates of the results of one group's items."""

    shapes: Mapping[str, Any]
    """Result -> shape and dtype of one item."""
    coords: Mapping[str, Coordinate]
    """Axis -> its coordinate."""


def create_store(
    address: str,
    job: Job,
    items: Items,
    outputs: Sequence[Outputs],
    check: Callable[[], None],
) -> Store:
    """Create an empty store at `address`, which must hold none, and return it.

    outputs: the results of each group's items. check: called before the store counts as complete; it raises LeaseHeld if another
    process creates one there.

    Raises JobError if the store cannot be written. What was written to a local folder is removed again, unless `check`
    raised LeaseHeld.
    """
    path = addresses.local_path(address)
    is_new = path is not None and not Store.exists(address)
    store = Store(address, connect.open_objects(address, create=True), job)
    # The order survives a kill at any write: run/creating.json comes first and run/job.json last, so that a half-made
    # store is no store, and the next creation clears it.
    try:
        _clear(store)
        _lay_out(store, items, outputs)
        write_sums(store.objects, "created", keys_outside_run(store))
        objects.write(store.objects, keys.KERNEL, description_of(store))
        check()
        write_job(store.objects, store.job)
        # A kill before this line leaves a complete store: run/creating.json means nothing beside run/job.json.
        objects.delete(store.objects, keys.CREATING)
    except BaseException as error:
        # Nothing is deleted if a store lay there before, or if another process has begun one there.
        if is_new and path and not isinstance(error, LeaseHeld):
            _remove(path)
        with objects.writing(address):
            raise
    return store


def description_of(store: Store) -> bytes:
    """Return the content of run/kernel.json, of a store that has its arrays."""
    return described(store, store.science).to_bytes()


def renew_description(store: Store) -> None:
    """Write the description that the kernel gives now: its `reduce` or `reduced` may be newer than the store."""
    if trust.is_ctds_kernel(store.job.spec.kernel):
        return
    if (now := description_of(store)) != objects.read(store.objects, keys.KERNEL):
        objects.write(store.objects, keys.KERNEL, now)
        vars(store).pop("description", None)  # of the old one


def _lay_out(store: Store, items: Items, outputs: Sequence[Outputs]) -> None:
    """Write all metadata and columns of the Zarr hierarchy."""
    spec = store.job.spec
    about = {
        "ctd_format": FORMAT,
        "kernel": spec.kernel,
        "name": spec.name or "",
        "spec": spec.model_dump(mode="json", exclude_defaults=True),
        "spec_sha256": spec.digest(),
        "provenance": dict(store.job.provenance),
    }
    root = zarr.create_group(zarr_store(store.objects), attributes=about)
    for group, output in zip(items.groups, outputs, strict=True):
        shapes = {**output.shapes, **search_shapes(spec.search, store.science, len(group.items))}
        _create_group(store, root, items, group, replace(output, shapes=shapes))
    _consolidate(store.objects)


def laid_out(job: Job, items: Items, outputs: Sequence[Outputs]) -> Store:
    """Return an empty store of this job in memory, with the Zarr objects that `create_store` wrote, byte for byte."""
    store = Store("memory", MemoryStore(), job)
    _lay_out(store, items, outputs)
    return store


def keys_outside_run(store: Store) -> list[str]:
    """Return the keys of all objects in the Zarr hierarchy."""
    return [key for key in objects.list_keys(store.objects, "") if not key.startswith("run/")]


def _clear(store: Store) -> None:
    """Remove the remains of an interrupted creation, and record that a creation has begun."""
    if objects.read(store.objects, keys.CREATING):
        # `BEFORE` has run/creating.json too, so that a kill in here leaves it for the next creation to find.
        for key in list(objects.list_keys(store.objects, "")):
            if not key.startswith(BEFORE):
                objects.delete(store.objects, key)
    objects.write(store.objects, keys.CREATING, b"{}")


def _remove(path: Path) -> None:
    """Remove the remains of a failed creation, except the records of its submissions."""
    # The batch script that runs this driver lies there, and so does the log of its allocation.
    submission = path / "run" / "submit"
    if not submission.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    for child in (*path.iterdir(), *(path / "run").iterdir()):
        if child not in (path / "run", submission):
            shutil.rmtree(child) if child.is_dir() else child.unlink()


# --- results/G: the arrays that the shards will fill, and the sweep's columns ---------------------------


def _create_group(
    store: Store, root: zarr.Group, items: Items, group: Group, outputs: Outputs
) -> None:
    kernel, bits, shapes = store.kernel, store.job.spec.keep_bits, outputs.shapes
    layout, packed = store.job.plan.layouts[group.number], place(shapes)
    rounded = lambda name: {"keep_bits": bits[name]} if name in bits else {}
    about = lambda name, var: describe(var) | flags(kernel, name) | rounded(name)
    entry = lambda name: {
        "axes": list(kernel.dims[name].axes),
        **about(name, kernel.dims[name]),
    }
    # Fields with one value in the whole group are in the attributes, not in a column.
    columns = [name for name in items.columns if name not in group.labels]
    of_group = {
        "params": group.params.model_dump(mode="json"),
        "swept": {name: plain(value) for name, value in group.labels.items()},
        "layout": layout.model_dump(),
        "results": sorted(shapes),
        "packed": as_attribute(packed, entry),
        # By CF convention: xarray turns these variables into coordinates.
        "coordinates": " ".join(columns),
    }
    out = root.create_group(f"results/{group.number}", attributes=of_group)
    _put_columns(out, kernel, items, group, columns)
    for axis, coord in outputs.coords.items():
        put_array(out, axis, coord.values, Var((axis,), coord.units, coord.long_name))
    arrays = {n: (kernel.dims[n], shape) for n, shape in shapes.items() if n not in packed}
    for pack, names in by_pack(packed).items():
        pack_item = np.empty(sum(packed[n].size for n in names), shapes[names[0]].dtype)
        arrays[pack] = Var((f"{pack}.entry",), "1", "results side by side, see `packed`"), pack_item
    status = Var((), "1", "0 not computed, 1 done, 2 failed, 3 dropped")
    arrays["status"] = status, np.zeros((), np.int8)
    for name, (var, item) in arrays.items():
        # One object for each shard; a large one has inner chunks, so that one item can be read alone.
        shard_shape = (layout.shard_items, *(max(1, k) for k in item.shape))
        chunk = chunk_shape(shard_shape, item.dtype.itemsize)
        shape, axes = (len(group.items), *item.shape), ("item", *var.axes)
        shards = None if chunk == shard_shape else shard_shape
        create_array(out, name, shape, item.dtype, axes, chunk, about(name, var), shards)


def _put_columns(
    out: zarr.Group, kernel: Kernel, items: Items, group: Group, columns: list[str]
) -> None:
    put_array(out, "item", group.items, Var(("item",), "1", "item id"))
    for name in columns:
        values = items.lookup(name, group.items)
        axes = ("item", f"{name}_index")[: len(values.shape)]
        described = kernel.Params.model_fields.get(name)
        text = (described.description if described else None) or name
        put_array(out, name, values, Var(axes, "1", text))


def _consolidate(store: ObjectStore) -> None:
    """Copy all metadata into the root's zarr.json: readers open the store with one read and no listing."""
    with warnings.catch_warnings():
        # Both warnings are expected: xarray reads this convention, and run/ is not a Zarr node.
        warnings.filterwarnings("ignore", "Consolidated metadata|Object at run")
        zarr.consolidate_metadata(zarr_store(store), zarr_format=3)
