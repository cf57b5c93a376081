"""Values as Zarr arrays: a column that is made in parts is stored as one that is there whole."""

import json

import numpy as np
import pytest
import zarr
from obstore.store import LocalStore

from ctd.kernel import Var
from jobs.plan.items import Lookup
from jobs.store import arrays
from jobs.store.arrays import (
    compressor,
    encode_chunk,
    fill_value,
    has_plain_chunks,
    put_array,
    read_rows,
)


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


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(25,), (25, 3)])
def test_few_rows_are_those_of_zarr(tmp_path, dtype, shape):
    """Of three chunks, the last one not full; one is missing, as while another process gathers; one is damaged."""
    root = zarr.create_group(zarr.storage.ObjectStore(LocalStore(tmp_path)))
    array = root.create_array(
        "a",
        shape=shape,
        chunks=(10, *shape[1:]),
        dtype=dtype,
        compressors=compressor(),
        fill_value=0,
    )
    array[...] = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    rows = np.array([24, 3, 3, 17])
    chunk = tmp_path / "a" / "c" / "1" / "/".join("0" * (len(shape) - 1))
    for damage in (lambda: None, chunk.unlink):
        damage()
        np.testing.assert_array_equal(read_rows(array, rows), np.asarray(array[...])[rows])
    chunk.write_bytes(b"damaged")
    with pytest.raises(Exception) as expected:
        array[...]
    with pytest.raises(type(expected.value)):
        read_rows(array, rows)
    np.testing.assert_array_equal(read_rows(array, np.array([3])), array[3:4])
