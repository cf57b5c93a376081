"""jobs.storage.checksums: objects of JSON with their own checksum, which are read and written as ever."""

import pytest
from obstore.store import MemoryStore

from jobs.storage import objects
from jobs.storage.checksums import Sums, checksummed
from jobs.store.card import Note
from jobs.store.layouts import FewerSlots, Microbatch
from jobs.store.marker import FailedItems, Marker
from jobs.store.segments import Head

SHARD = {"number": 3, "group": 1, "start": 6, "stop": 12}
FAILED = {"row": 7, "item": 29, "error": "no", "trace": "", "fault": "error", "attempt": 2, "time": 1.5, "host": "n1"}  # fmt: skip
MARKER = {
    "shard": SHARD, "sha256": {"results/1/x/c/0": "ab"}, "attempt": 2, "without": [7], "unused": [8],
    "outcomes": {"stopped": 5}, "n_failed": 1, "nan": {"x": 1}, "source": "cd",
    "layout": {"slots": 4, "microbatch": 2, "devices": 1}, "rounds": 3, "longest_s": 0.5,
    "started": 1.0, "seconds": 2.0, "end": 3.0, "host": "n1", "pid": 7, "platform": "cpu", "device_kind": "cpu",
}  # fmt: skip
CONTENTS = {
    Marker: MARKER,
    FailedItems: {"shard": SHARD, "rows": [FAILED]},
    Head: {"number": 4, "since": 2, "shards": [1, 5], "undone": [0, 9]},
    Note: {"note": "for figure 2", "tags": ["paper"]},
    FewerSlots: {"slots": 2, "planned": 4},
    Microbatch: {"microbatch": 8, "seconds_per_item": {"8": 0.25, "1": 0.5}},
    Sums: {"made_from": "ef", "groups": {"0": "01"}, "sha256": {"items/zarr.json": "23"}},
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_object_is_written_as_it_was_read(kind):
    data = checksummed(CONTENTS[kind])
    content = kind.from_bytes(data)
    assert content.to_bytes() == data
    store = MemoryStore()
    content.write(store, "a")
    assert (kind.read(store, "a"), kind.read(store, "b")) == (content, None)


DAMAGED = {
    "missing": lambda data: None,
    "cut": lambda data: data[:-1],
    "other": lambda data: data.replace(b'"slots":2', b'"slots":3'),
    "unsealed": lambda data: b'{"slots":2,"planned":4}',
    "no text": lambda data: b"\xff" + data,
    "of another kind": lambda data: checksummed({"microbatch": 1}),
    "of other types": lambda data: checksummed({"slots": "x", "planned": 4}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_object_is_none(damage):
    data = FewerSlots(slots=2, planned=4).to_bytes()
    assert FewerSlots.from_bytes(DAMAGED[damage](data)) is None


def test_first_writer_is_agreed_with():
    store, first, second = MemoryStore(), *(FewerSlots(slots=n, planned=4) for n in (1, 2))
    assert [first.agree(store, "a"), second.agree(store, "a")] == [first, first]
    objects.write(store, "a", b"damaged")
    assert (second.agree(store, "a"), FewerSlots.read(store, "a")) == (second, second)
