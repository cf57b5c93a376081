"""Objects of rounds: whole ones, damaged ones, and those of a stranger, who can compute a checksum as well."""

import hashlib
import json

import numpy as np
import pytest
from stores import make

from jobs import keys
from jobs.search.searcher import Round, Told
from jobs.storage import objects
from jobs.store.checkpoint import decode
from jobs.store.rounds import DIGITS, Cost, is_whole_round, read_round, write_round

ROWS = np.arange(3)
LEAVES = [np.arange(6.0).reshape(3, 2), np.arange(3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("rounds") / "store.zarr")


@pytest.fixture
def written(store):
    """The key of a round's object, and (its head, its arrays and states as bytes)."""
    round_ = Round(ROWS, np.full(3, -1), ROWS, 2)
    told = Told(ROWS, np.arange(3.0), np.full(3, 2), np.zeros(3, bool), np.zeros(3, bool))
    write_round(store, 0, 1, round_, (told, Cost(1.0, 2.0, 0.5, 2)), LEAVES)
    key = keys.round_states(0, 1)
    data = objects.read(store.objects, key)
    length = int(data[:DIGITS])
    _, head, rest = data[DIGITS : DIGITS + length].split(b"\n", 2)
    return key, json.loads(head), rest, data[DIGITS + length :]


def test_a_round_is_read_as_it_was_written(store, written):
    found = read_round(store, 0, 1)
    for ours, theirs in zip(found.states(store, ROWS), LEAVES, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.cost == Cost(1.0, 2.0, 0.5, 2)
    assert is_whole_round(store, written[0])


def forms():
    """What may stand in the place of each part of a head."""
    for path in (
        ("identity",), ("identity", "failed"), ("identity", "cost"), ("identity", "leaves"), ("identity", "sha256"), ("rounds",),
        ("named",), ("named", 0), ("named", 0, 1), ("named", 0, 2),
    ):  # fmt: skip
        for value in (None, 7, "x", [], {}, [[]], ["f4,(", 1], 10**30, [-1]):
            yield path, value


def test_a_stranger_s_round_is_none(store, written):
    key, head, rest, states = written
    refused = 0
    for path, value in forms():
        changed = json.loads(json.dumps(head))
        at = changed
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
        body = json.dumps(changed).encode() + b"\n" + rest
        sealed = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        objects.write(store.objects, key, f"{len(sealed):0{DIGITS}d}".encode() + sealed + states)
        # Neither raises; an object that is read at all gives its states, or says that it is damaged.
        decode(sealed)
        refused += not is_whole_round(store, key)
    assert refused > 70
