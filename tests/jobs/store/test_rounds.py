"""Objects of rounds: whole ones, damaged ones, and those of a stranger, who can compute a checksum as well."""

import hashlib
import json
import math

import numpy as np
import pytest
from stores import make

from jobs import keys
from jobs.search.searcher import Round, RoundReport
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store.checkpoint import decode
from jobs.store.rounds import (
    DIGITS,
    Cost,
    Decision,
    is_whole_round,
    read_decisions,
    read_round,
    round_digest,
    write_decision,
    write_round,
)

ROWS = np.arange(3)
LEAVES = [np.arange(6.0).reshape(3, 2), np.arange(3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("rounds") / "store.zarr")


@pytest.fixture
def written(store):
    """The key of a round's object, and (its head, its arrays and states as bytes)."""
    round_ = Round(ROWS, np.full(3, -1), ROWS, 2)
    told = RoundReport(ROWS, np.arange(3.0), np.full(3, 2), np.zeros(3, bool), np.zeros(3, bool))
    write_round(store, 0, 1, round_, (told, Cost(1.0, 2.0, 0.5, 2)), LEAVES)
    key = keys.place(keys.ROUNDS, 0, 1)
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


ASKED = {"rows": [0, 1, 2], "rounds": [-1, -1, -1], "parents": [0, 1, 2], "length": 2, "values": {}}
TOLD = {"rows": [0, 2], "metric": [0.5, math.nan], "advances": [2, 1], "done": [False, True], "broken": [False, False], "failed": [1]}  # fmt: skip
COST = {"seconds": 1.0, "started": math.inf, "longest_s": 0.5, "rounds": 2}
DECISIONS = [
    {"told": [], "asked": ASKED, "skipped": [], "again": []},
    {"told": [[0, TOLD, COST]], "asked": {**ASKED, "values": {"rate": [0.5, 0.25, 1.0]}, "group": 1}, "skipped": [], "again": [1]},
    {"told": [[1, TOLD, COST], [2, TOLD, COST]], "asked": None, "skipped": [4], "again": []},
]  # fmt: skip


def test_decisions_are_read_and_written_as_ever(store):
    for number, content in enumerate(DECISIONS):
        objects.write(store.objects, keys.decision(0, number), checksummed(content))
    found = list(read_decisions(store, 0))
    for number, decision in enumerate(found):
        write_decision(store, 0, number, decision)  # raises if the bytes differ
    assert len(found) == len(DECISIONS)
    (_, told, cost), asked = found[1].told[0], found[1].asked
    assert [
        array.dtype.name
        for array in (told.rows, told.metric, told.advances, told.done, asked.values["rate"])
    ] == ["int64", "float64", "int64", "bool", "float64"]
    assert (told.failed, cost.started, asked.group) == ((1,), math.inf, 1)
    for decision, content in zip(found[:2], DECISIONS, strict=False):
        expected = hashlib.sha256(repr(content["asked"]).encode()).hexdigest()
        assert round_digest(decision.asked) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"told": 7},
        {"asked": {**ASKED, "rows": {}}},
        {"asked": {**ASKED, "rows": [10**30]}},
        {"skipped": "x"},
    ],
)
def test_a_stranger_s_decision_ends_those_that_are_read(store, changed):
    write_decision(store, 5, 0, Decision(told=(), asked=None))
    objects.write(store.objects, keys.decision(5, 1), checksummed(DECISIONS[0] | changed))
    assert len(list(read_decisions(store, 5))) == 1


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
