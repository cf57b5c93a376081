"""The log of segments: it stays short, its readers miss nothing, damage costs a line."""

from obstore.store import MemoryStore

from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import seal
from jobs.store.segments import Log, Segment, decode, live, lost_from, resolved


def test_reader_whose_listing_missed_a_new_segment_lists_again(monkeypatch):
    """A file system's listing leaves out what went while it was made, and what came."""
    store = MemoryStore()
    log, line, listing = (
        Log(store, keys.SEGMENTS),
        seal({"shard": {"number": 1}}),
        objects.list_keys,
    )
    log.append([], {1: line})
    seen = log.read()

    def late(*args):
        monkeypatch.setattr(objects, "list_keys", listing)
        log.append(seen, {2: line})
        objects.delete(store, keys.segment(keys.SEGMENTS, 0))
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
    line = lambda k: seal({"shard": {"number": k}})
    for k in range(200):
        log.append(log.read(), {k: line(k)})
        kept = {s.number for s in live(log.read())}
        gone = [keys.segment(keys.SEGMENTS, s.number) for s in log.read() if s.number not in kept]
        objects.delete_each(store, gone)
        assert len(log.keys()) <= 9
    assert resolved(log.read()).keys() == set(range(200))
    assert sum(written) < 16 * 200 * len(line(100))


def test_damaged_segment_gives_what_is_whole_and_names_what_is_lost():
    lines = {k: seal({"shard": {"number": k}}) for k in (3, 5, 8)}
    data = Segment(7, 2, frozenset({1}), lines).encode()
    assert (decode(7, data), lost_from(data)) == (Segment(7, 2, {1}, lines), None)
    for at in range(0, len(data), 3):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        lost = lost_from(flipped)
        found = decode(7, flipped)
        assert lost is not None
        assert len(lost) <= 2  # a newline was hit
        assert (found.since, found.undone) == (2, {1})
        assert {k for k in lines if found.lines.get(k) == lines[k]} == lines.keys() - lost
        cut = data[:at]
        assert lost_from(cut) is not None
        whole = [line for line in lines.values() if line + b"\n" in cut]
        assert set(whole) <= set(decode(7, cut).lines.values())
