"""Values as Zarr arrays: a column that is made in parts is stored as one that is there whole."""

import json

import numpy as np
import pytest
import zarr

from ctd.kernel import Var
from jobs.plan.items import Lookup
from jobs.store import arrays
from jobs.store.arrays import compressor, encode_chunk, fill_value, has_plain_chunks, put_array


def stored(values):
    """The objects of an array, by key."""
    kept: dict = {}
    put_array(zarr.create_group(kept), "a", values, Var(("item", "k")[: len(values.shape)]))
    return {key: found.to_bytes() for key, found in kept.items() if key.startswith("a/")}


@pytest.mark.parametrize(
    "table", [np.arange(5.0), np.arange(10.0).reshape(5, 2), np.array(list("edcba"))]
)
def test_a_column_made_in_parts_is_stored_as_the_whole_one(monkeypatch, table):
    """Of 11 rows, two at a time."""
    monkeypatch.setattr(arrays, "CHUNK", 16)
    column = Lookup(table, np.arange(20) % 5, np.arange(3, 14))
    assert column.shape == (11, *table.shape[1:])
    parts, whole = stored(column), stored(column[:])
    assert parts == whole
    assert len(whole) == 1 + -(-11 // max(1, 16 // (table[:1].nbytes if table.dtype.kind == "f" else 4)))  # fmt: skip


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "complex64", "int8", "int32", "uint32", "bool"]
)
@pytest.mark.parametrize("shape", [(5,), (3,), (5, 2, 3), (3, 2, 3), (1, 2, 3)])
def test_chunks_have_the_bytes_of_zarr(dtype, shape):
    """Full chunks, and one that the last rows of a group do not fill."""
    objects = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(objects), shape=shape, chunks=(5, *shape[1:]), dtype=dtype,
        fill_value=fill_value("x", np.dtype(dtype)), compressors=compressor(), config={"write_empty_chunks": True},
    )  # fmt: skip
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    array[...] = values
    metadata = json.loads(objects.pop("zarr.json").to_bytes())
    assert has_plain_chunks(metadata)
    (expected,) = (data.to_bytes() for data in objects.values())
    assert encode_chunk(metadata, values) == (5, expected)
    # Values as JAX returns them need not lie row by row.
    assert encode_chunk(metadata, np.asfortranarray(values)) == (5, expected)
