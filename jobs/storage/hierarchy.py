"""The objects below an address as a store of Zarr."""

from __future__ import annotations

from functools import cache
from typing import Any

from obstore.store import ObjectStore

from jobs.errors import JobError
from jobs.late import zarr
from jobs.storage import objects


def zarr_store(object_store: ObjectStore, read_only: bool = False) -> zarr.storage.ObjectStore[Any]:
    """Return a store of Zarr that raises JobError where a pipe, a socket or a device lies in the place of an object."""
    return _store_class()(object_store, read_only=read_only)


@cache
def _store_class() -> Any:
    # Made when it is first called: Zarr is imported late.
    class RegularFiles(zarr.storage.ObjectStore[Any]):
        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            if objects.is_irregular(self.store, key):
                raise JobError(
                    f"{getattr(self.store, 'prefix', '')}/{key}: is a pipe, a socket or a device; a file of the store is expected. "
                    "Delete it, and `ctd check` the store"
                )
            return await super().get(key, *arguments, **options)

        def __reduce__(self) -> tuple[Any, ...]:
            """Name the function, since no other process finds a class that is made in one."""
            return zarr_store, (self.store, self.read_only)

    return RegularFiles
