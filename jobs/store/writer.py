"""Writing a shard's results: whole storage objects, each read back, and the marker last."""

from __future__ import annotations

import errno
import json
from collections.abc import Buffer as Bytes
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.late import zarr, zarr_buffer
from jobs.plan.layout import Shard
from jobs.plan.packing import beside, by_pack, keep_bits
from jobs.storage import objects
from jobs.storage.checksums import digest
from jobs.store.arrays import FAILED, encode_chunk, fill_value, has_plain_chunks
from jobs.store.marker import Marker
from jobs.store.store import Store


class ShardWriter:
    """Writes shards of one store. It caches the arrays' metadata between shards."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._metadata: dict[str, dict[str, Any]] = {}

    def write(
        self,
        marker: Marker,
        values: Mapping[str, np.ndarray],
        rows: np.ndarray,
    ) -> None:
        """Write a shard's results, read them back, then commit the shard with `marker`.

        Args:
            values: result -> (len(rows), ...).
            rows: rows of the group that were computed; the shard's other rows get fill values and the
                status *failed*, unused ones none.

        Raises:
            OSError: (EIO) an object does not read back as it was written.
            ValueError: a result is missing from `values`.
        """
        shard, sums = marker.shard, dict[str, str]()
        for name, whole in self._stored(marker, values, rows):
            for key, data in self._encode(shard, name, whole).items():
                objects.write(self._store.objects, key, data)
                # Disks, network file systems and memory do flip bits: found now, the shard is computed again; found after
                # the marker, it would be lost.
                if not objects.holds(self._store.objects, key, data):
                    raise OSError(
                        errno.EIO,
                        f"{key}: what was written does not read back",
                        self._store.address,
                    )
                sums[key] = digest(data)
        # Last: a kill before this line leaves a shard that counts as never computed. (A loss of power can keep the marker
        # and lose an object that is not on the disk yet: `ctd check` finds it by the checksums here.)
        self._store.committed.write(replace(marker, sha256=sums).to_json())

    def _stored(
        self, marker: Marker, values: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (stored array, its values in all rows of the shard)."""
        shard = marker.shard
        packed = self._store.places(shard.group)
        for name in [*self._store.names(shard.group), "status"]:
            if name not in packed:
                yield name, self._whole(marker, name, values, rows)
        for pack, names in by_pack(packed).items():
            parts = [self._whole(marker, name, values, rows) for name in names]
            yield pack, beside(parts, self._store.stored(shard.group, pack).dtype)

    def _whole(
        self, marker: Marker, name: str, values: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> np.ndarray:
        """Return a result in all rows of the shard. Raises ValueError if the kernel did not return it."""
        if len(rows) and name not in values:
            raise ValueError(
                f"kernel {self._store.job.spec.kernel} has not returned {name!r}, which it did when the store was "
                "made: have its files or its source changed?"
            )
        shard = marker.shard
        some, n = values.get(name), shard.n_items
        if some is not None and name in self._store.job.spec.keep_bits:
            some = keep_bits(some, self._store.job.spec.keep_bits[name])
        # The usual case, without a copy: no row was left out.
        if some is not None and len(rows) == n:
            return some
        array = self._store.array(shard.group, name)
        fill = FAILED if name == "status" else fill_value(name, array.dtype)
        whole = np.full((n, *array.shape[1:]), fill, array.dtype)
        if some is not None:
            whole[rows - shard.start] = some
        if name == "status":
            whole[np.array(marker.others, int) - shard.start] = 0
        return whole

    def _encode(self, shard: Shard, name: str, whole: np.ndarray) -> dict[str, Bytes]:
        """Return key -> bytes of the storage objects that hold these values of a shard."""
        path = f"results/{shard.group}/{name}"
        # Read once for all shards: nobody changes the metadata of results after creation.
        if path not in self._metadata:
            data = objects.read(self._store.objects, f"{path}/zarr.json")
            self._metadata[path] = json.loads(data or b"{}")
        metadata = self._metadata[path]
        if whole.size and has_plain_chunks(metadata):
            rows, encoded = encode_chunk(metadata, whole)
            place = "/".join([str(shard.start // rows), *"0" * (whole.ndim - 1)])
            return {f"{path}/c/{place}": encoded}
        return self._encode_by_zarr(shard.start, path, whole)

    def _encode_by_zarr(self, start: int, path: str, whole: np.ndarray) -> dict[str, Bytes]:
        """The same for any codecs, by Zarr in memory.

        On the store itself Zarr would first read an object that the rows do not fill, such as the last one of a group, and
        merge with it.
        """
        # The same array, as long as this shard: its codecs and fill value make the same bytes.
        shape = [len(whole), *self._metadata[path]["shape"][1:]]
        metadata = json.dumps({**self._metadata[path], "shape": shape}).encode()
        made: dict[str, Any] = {"zarr.json": zarr_buffer.Buffer.from_bytes(metadata)}
        mirror = zarr.open_array(
            zarr.storage.MemoryStore(made), mode="r+", config={"write_empty_chunks": True}
        )
        mirror[...] = whole
        size = (mirror.shards or mirror.chunks)[0]
        del made["zarr.json"]
        encoded = {}
        for key, data in made.items():
            _, first, *inner = key.split("/")
            place = "/".join([str(start // size + int(first)), *inner])
            encoded[f"{path}/c/{place}"] = data.as_buffer_like()
        return encoded
