"""The log of segments: it stays short, its readers miss nothing, damage costs a line."""

import itertools
import shutil
from types import SimpleNamespace

import pytest
from messages import refused
from obstore.store import MemoryStore
from stores import JOB, run, tree_bytes

from jobs import keys
from jobs.gather.check import check
from jobs.plan.layout import GroupLayout, Plan, Shard
from jobs.report.summary import state
from jobs.run.shards import run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.storage.checksums import checksummed
from jobs.store.events import read_events
from jobs.store.look import Look
from jobs.store.segments import Log, Segment, decode, live, resolved
from jobs.store.store import Store


def test_reader_whose_listing_missed_a_new_segment_lists_again(monkeypatch):
    """A file system's listing leaves out what went while it was made, and what came."""
    store = MemoryStore()
    log, line, listing = (
        Log(store, keys.SEGMENTS),
        checksummed({"shard": {"number": 1}}),
        objects.list_keys,
    )
    log.append([], {1: line})
    seen = log.read()

    def late(*args):
        monkeypatch.setattr(objects, "list_keys", listing)
        log.append(seen, {2: line})
        objects.delete(store, log.key(0))
        return []

    monkeypatch.setattr(objects, "list_keys", late)
    assert resolved(Log(store, keys.SEGMENTS).read()).keys() == {1, 2}


def test_log_stays_short_and_is_written_again_seldom(monkeypatch):
    """After n segments of one size there are about log2 n, and a marker was written about log2 n times."""
    store, written = MemoryStore(), []
    log, create = Log(store, keys.SEGMENTS), objects.create
    monkeypatch.setattr(
        objects, "create", lambda *args: written.append(len(args[2])) or create(*args)
    )
    line = lambda k: checksummed({"shard": {"number": k}})
    for k in range(200):
        log.append(log.read(), {k: line(k)})
        kept = {s.number for s in live(log.read())}
        gone = [log.key(s.number) for s in log.read() if s.number not in kept]
        objects.delete_each(store, gone)
        assert len(log.keys()) <= 9
    assert resolved(log.read()).keys() == set(range(200))
    assert sum(written) < 16 * 200 * len(line(100))


def test_damaged_segment_gives_what_is_whole():
    lines = {k: checksummed({"shard": {"number": k}}) for k in (3, 5, 8)}
    data = Segment(7, 2, frozenset({1}), lines).encode()
    assert decode(7, data) == Segment(7, 2, {1}, lines)
    assert decode(7, data).encode() == data
    for at in range(0, len(data), 3):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        found = decode(7, flipped)
        whole = {k for k in lines if found.lines.get(k) == lines[k]}
        assert found.encode() != flipped or whole < lines.keys()
        assert len(whole) >= 1  # both others if a newline was hit
        assert (found.since, found.undone) == (2, {1})
        cut = data[:at]
        assert decode(7, cut).encode() != cut
        there = [line for line in lines.values() if line + b"\n" in cut]
        assert set(there) <= set(decode(7, cut).lines.values())


# --- damaged, in a store --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Name -> a finished store whose markers are in two segments; `other` has other shards."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.run.ledger.COMPACT_EVERY", 3)
        run(place / "own", JOB)
        run(place / "other", JOB | {"sweep": {"seeds": 40}})
    return place


def segments(store):
    return sorted((store / keys.SEGMENTS).iterdir())


DAMAGES = {
    "empty": lambda own, other: own[0].write_bytes(b""),
    "all empty": lambda own, other: [one.write_bytes(b"") for one in own],
    "a newline": lambda own, other: own[0].write_bytes(b"\n"),
    "cut": lambda own, other: own[0].write_bytes(own[0].read_bytes()[:-400]),
    "twice its lines": lambda own, other: own[0].write_bytes(2 * own[0].read_bytes()),
    "twice, later": lambda own, other: shutil.copy(own[0], own[0].with_name("00000007.jsonl")),
    "of another store": lambda own, other: shutil.copy(other[-1], own[0]),
    "of another store, later": lambda own, other: shutil.copy(
        other[-1], own[0].with_name("100000000.jsonl")
    ),
    "a text": lambda own, other: own[0].write_bytes(b"to do: tidy up\n"),
    "deep": lambda own, other: own[0].write_bytes(b"[" * 200_000),
    "no numbers": lambda own, other: own[0].write_bytes(
        checksummed({"since": "x", "shards": 3, "undone": None})
    ),
    "shards": lambda own, other: own[0].write_bytes(checksummed({"shard": {"number": 0}})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_segment_is_a_finding_and_is_mended(tmp_path, finished, damage):
    path = shutil.copytree(finished / "own", tmp_path / "own")
    before = tree_bytes(path)
    DAMAGES[damage](segments(path), segments(finished / "other"))
    state(Look(Store.open(str(path))))
    assert any("segments" in finding.key and finding.cure for finding in check(str(path)))
    assert check(str(path), repair=True)
    assert not [finding for finding in check(str(path)) if finding.cure]
    progress = run_shards(Store.open(str(path)), SerialExecutor(1))
    assert (progress.shards_done, check(str(path)), tree_bytes(path)) == (8, [], before)


def restless(monkeypatch):
    """A store whose listings tell of objects that are gone before they are read, for ever."""
    store = MemoryStore()
    listing, count = objects.list_keys, itertools.count()

    def never_the_same(these, folder):
        number = next(count)
        gone = [f"{folder}/{number:08d}.jsonl"]
        if "segments" not in folder and keys.EVENTS not in folder:
            gone = [f"{folder}/0/000000-{number:08x}.json", f"{folder}/0/000000-ffffffff.json"]
        return [*listing(these, folder), *gone]

    objects.write(store, f"{keys.DONE}/0/000000-ffffffff.json", b"")
    monkeypatch.setattr(objects, "list_keys", never_the_same)
    plan = Plan((3,), (GroupLayout(slots=1, microbatch=1, shard_items=1),))
    return Store("memory", store, SimpleNamespace(plan=plan, spec=SimpleNamespace(search=None)))


LOOKS = {
    "the log": lambda store: store.committed.log.read(),
    "single records": lambda store: store.committed.singles(),
    "all records": lambda store: store.committed.latest(),
    "to fold": lambda store: store.committed.compact(),
    "to take back": lambda store: store.committed.forget([Shard(0, 0, 0, 1)]),
    "events": read_events,
}


@pytest.mark.parametrize("look", LOOKS)
def test_folder_that_never_stands_still_is_a_failing_storage(monkeypatch, look):
    """A run pauses, hears a stop, and tries again; a command says so and ends."""
    with refused(OSError) as caught:
        LOOKS[look](restless(monkeypatch))
    assert objects.is_storage_error(caught.value)
