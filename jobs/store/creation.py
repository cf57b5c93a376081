"""Creating an empty store: all metadata and columns, and the arrays that the shards will fill."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from obstore.store import MemoryStore

from jobs import keys
from jobs.errors import JobError
from jobs.late import zarr
from jobs.plan.items import Items
from jobs.plan.search_results import shapes as search_shapes
from jobs.storage import objects
from jobs.storage.checksums import write_sums
from jobs.store.described import description_of
from jobs.store.hierarchy import Outputs, create_group
from jobs.store.manifest import FORMAT, Job, write_job
from jobs.store.metadata import consolidate
from jobs.store.store import BEFORE, Store


def create_store(
    address: str,
    job: Job,
    items: Items,
    outputs: Sequence[Outputs],
) -> Store:
    """Create an empty store at `address`, which must hold none, and return it.

    Args:
        outputs: what the items of each group give.

    Raises:
        JobError: the store cannot be written. What was written to a local folder is removed again.
    """
    path = objects.local_path(address)
    made = path is not None and not Store.exists(address)
    store = Store(address, objects.open_objects(address, create=True), job)
    try:
        _clear(store)
        _lay_out(store, items, outputs)
        write_sums(store.objects, "created", keys_outside_run(store))
        objects.write(store.objects, keys.KERNEL, description_of(store.kernel))
        write_job(store.objects, store.job)
        objects.delete(store.objects, keys.CREATING)
    except BaseException as error:
        if made and path is not None:
            _remove(path)
        if isinstance(error, OSError) or objects.is_storage_error(error):
            raise JobError(f"{address}: cannot be written: {objects.reason(error)}") from None
        raise
    return store


def _lay_out(store: Store, items: Items, outputs: Sequence[Outputs]) -> None:
    """Write all metadata and columns of the Zarr hierarchy."""
    spec = store.job.spec
    root = zarr.create_group(zarr.storage.ObjectStore(store.objects))
    for group, own in zip(items.groups, outputs, strict=True):
        shapes = {**own.shapes, **search_shapes(spec.search, len(group.items))}
        create_group(root, store.job, store.kernel, items, group, Outputs(shapes, own.coords))
    root.attrs.put(
        {
            "ctd_format": FORMAT,
            "kernel": spec.kernel,
            "name": spec.name or "",
            "spec": spec.model_dump(mode="json", exclude_defaults=True),
            "spec_sha256": spec.digest(),
            "provenance": dict(store.job.provenance),
        }
    )
    consolidate(store.objects)


def laid_out(job: Job, items: Items, outputs: Sequence[Outputs]) -> Store:
    """Return an empty store of this job in memory, with the Zarr objects that `create_store` wrote, byte for byte."""
    store = Store("memory", MemoryStore(), job)
    _lay_out(store, items, outputs)
    return store


def keys_outside_run(store: Store) -> list[str]:
    """Return the keys of all objects in the Zarr hierarchy."""
    return [key for key in objects.list_keys(store.objects, "") if not key.startswith("run/")]


def _clear(store: Store) -> None:
    """Remove what an interrupted creation left, and record that a creation has begun."""
    if objects.read(store.objects, keys.CREATING):
        for key in list(objects.list_keys(store.objects, "")):
            if not key.startswith(BEFORE):
                objects.delete(store.objects, key)
    objects.write(store.objects, keys.CREATING, b"{}")


def _remove(path: Path) -> None:
    """Remove what a failed creation left, except the records of its submissions."""
    submission = path / "run" / "submit"
    if not submission.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    for child in (*path.iterdir(), *(path / "run").iterdir()):
        if child not in (path / "run", submission):
            shutil.rmtree(child) if child.is_dir() else child.unlink()
