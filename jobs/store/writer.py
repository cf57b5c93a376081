"""Writing a shard's results: whole storage objects, each read back, and the marker last."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jobs.late import zarr
from jobs.plan.packing import by_pack, keep_bits, pack_values, places_of
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.arrays import FAILED, attributes, fill_value
from jobs.store.marker import Marker
from jobs.store.store import Store


def write_shard(
    store: Store, marker: Marker, values: Mapping[str, np.ndarray], rows: np.ndarray
) -> None:
    """Write a shard's results, read them back, then commit the shard with `marker`.

    values: result -> (len(rows), ...). rows: rows of the group that were computed; the shard's other rows get fill values and the
    status *failed*, unused ones none.

    Raises OSError (EIO) if an object does not read back as it was written, ValueError if a result is missing from `values`.
    """
    sums: dict[str, str] = {}
    for array, padded in _stored(store, marker, values, rows):
        for key, data in _encoded(array, marker.shard.start, padded).items():
            objects.write(store.objects, key, data)
            # Disks, network file systems and memory do flip bits: found now, the shard is computed again; found after
            # the marker, it would be lost.
            if objects.read(store.objects, key) != data:
                text = f"{key}: what was written does not read back"
                raise OSError(errno.EIO, text, store.address)
            sums[key] = digest(data)
    # Last: a kill before this line leaves a shard that counts as never computed. (A loss of power can keep the marker
    # and lose an object that is not on the disk yet: `ctd check` finds it by the checksums here.)
    store.committed.add(marker.model_copy(update={"sha256": sums}))


def _stored(
    store: Store, marker: Marker, values: Mapping[str, np.ndarray], rows: np.ndarray
) -> Iterator[tuple[zarr.Array[Any], np.ndarray]]:
    """Yield (stored array, its values in all rows of the shard)."""
    group = marker.shard.group
    packed = places_of(attributes(store.results(group)))
    padded = lambda name: _padded(store, marker, name, values, rows)
    for name in [*store.names(group), "status"]:
        if name not in packed:
            yield store.node(f"results/{group}/{name}"), padded(name)
    for pack, names in by_pack(packed).items():
        array = store.node(f"results/{group}/{pack}")
        yield array, pack_values([padded(name) for name in names], array.dtype)


def _padded(
    store: Store, marker: Marker, name: str, values: Mapping[str, np.ndarray], rows: np.ndarray
) -> np.ndarray:
    """Return a result in all rows of the shard. Raises ValueError if the kernel did not return it."""
    shard, spec = marker.shard, store.job.spec
    if len(rows) and name not in values:
        raise ValueError(
            f"kernel {spec.kernel} has not returned {name!r}, which it did when the store was made: have its files or its "
            "source changed?"
        )
    some = values.get(name)
    if some is not None and name in spec.keep_bits:
        some = keep_bits(some, spec.keep_bits[name])
    # The usual case, without a copy: no row was left out.
    if some is not None and len(rows) == shard.n_items:
        return some
    array = store.array(shard.group, name)
    fill = FAILED if name == "status" else fill_value(name, array.dtype)
    filled = np.full((shard.n_items, *array.shape[1:]), fill, array.dtype)
    if some is not None:
        filled[rows - shard.start] = some
    if name == "status":
        filled[np.array(marker.unused, int) - shard.start] = 0
    return filled


def _encoded(array: zarr.Array[Any], start: int, values: np.ndarray) -> dict[str, bytes]:
    """Return key -> bytes of the storage objects that hold these values of an array, from row `start` on.

    Zarr makes them in memory: on the store itself it would first read an object that the rows do not fill, such as the last
    one of a group, and merge with it.
    """
    memory: dict[str, Any] = {}
    # The same array, as long as this shard: its codecs and fill value make the same bytes.
    place = zarr.storage.StorePath(zarr.storage.MemoryStore(memory))
    metadata: Any = array.metadata.update_shape(values.shape)
    mirror = zarr.Array(zarr.AsyncArray(metadata, place, {"write_empty_chunks": True}))
    mirror[...] = values
    size = (mirror.shards or mirror.chunks)[0]
    encoded = {}
    for key, data in memory.items():
        _, first, *inner = key.split("/")
        number = start // size + int(first)
        encoded["/".join([array.path, "c", str(number), *inner])] = data.to_bytes()
    return encoded
