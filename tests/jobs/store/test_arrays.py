"""Values as Zarr arrays: a column that is made in parts is stored as one that is there whole."""

import numpy as np
import pytest
import zarr

from ctd.kernel import Var
from jobs.spec.sweep import Lookup
from jobs.store import arrays
from jobs.store.arrays import put_array


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
