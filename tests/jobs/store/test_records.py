"""Events, failing items and leases are read and written as docs/store-format.md's format 1 always had them."""

import json
from types import SimpleNamespace

import pytest
from obstore.store import MemoryStore

from jobs import keys
from jobs.storage import objects
from jobs.storage.lease import LeaseRecord
from jobs.store.events import KINDS, Begin, Commit, Event, Events, Failure, read_events, unended
from jobs.store.marker import FailedItem

HERE = {"host": "node1", "pid": 7, "platform": "cpu", "device_kind": "cpu"}
FAILURE = {"error": "ValueError: no", "trace": "Traceback\n", "fault": "error"}
RUN = {"executor": "ray", "pending": 6, "workers": 2, "host": "node1", "pid": 7}
END = {"done": 6, "failed": 0, "stopped": None, "lost": [], "host": "node1", "pid": 7}

# As the versions wrote them in which they were mappings and not yet classes.
EVENTS = [
    {"event": "run", **RUN},
    {"event": "done", "shard": 0, "attempt": 1, "host": "node1", "pid": 7, "seconds": 0.5, "n_failed": 0},
    {"event": "error", "shard": 1, "attempt": 1, **FAILURE, "probe": False, "rows": [3, 6], **HERE},
    {"event": "stopped", "shard": 2, "attempt": 1, "error": "stopped after 3 advances", "trace": "",
     "fault": "stopped", "probe": False, "rows": [6, 7], **HERE},
    {"event": "error", "shard": 1, "attempt": 2, "error": "the worker died (killed)", "trace": "", "fault": "death",
     "probe": True, "rows": [3, 4], "died": "killed", "node": "ab", "set_aside": "node ab: set aside"},
    {"event": "decision", "shard": 1, "text": "looking for the items that fail"},
    {"event": "decision", "group": 0, "text": "2 shards not tried"},
    {"event": "end", **END},
    {"event": "end", "done": 2, "failed": 1, "stopped": "SIGTERM", "lost": [2], "ended": 3, "work": 0.5, "host": "node1",
     "pid": 7, "n_failed": 1},
    {"event": "killed", "host": "node1", "pid": 7},
    {"event": "warning", "group": 1, "text": "all items are equal"},
    {"event": "second", "shard": 3, "attempt": 2, "text": "the first attempt has run for 60 s"},
    {"event": "of a later ctd", "about": {"a": 1}, "kind": 2},
]  # fmt: skip


@pytest.mark.parametrize("fields", EVENTS, ids=lambda fields: fields["event"])
def test_an_event_is_read_and_written_as_ever(fields):
    content = {"time": 1.5, **fields}
    event = Event.from_json(content)
    assert json.dumps(event.to_json()) == json.dumps(content)
    assert type(event) is KINDS.get(fields["event"], Event)
    assert (event.time, event.kind, event.shard) == (1.5, fields["event"], fields.get("shard"))


@pytest.mark.parametrize("killed", [False, True])
def test_events_are_few_objects_however_many_they_are(monkeypatch, killed):
    """Killed between writing what joins two objects and deleting the first, a driver leaves no line twice."""
    monkeypatch.setattr("jobs.store.events.BYTES", 1000)
    job = SimpleNamespace(spec=SimpleNamespace(search=None))
    store = SimpleNamespace(objects=MemoryStore(), job=job)
    if killed:
        monkeypatch.setattr(objects, "delete", lambda *args: None)
    events = Events(store)
    for k in range(2000):
        events.note(Commit(time=float(k), shard=k))
    events.flush()
    assert [event.shard for event in read_events(store)] == list(range(2000))
    assert killed or len(list(objects.list_keys(store.objects, keys.EVENTS))) <= 8
    events.close()
    assert [event.shard for event in read_events(store)] == list(range(2000))


def test_a_driver_without_an_end_is_known_by_host_and_process():
    run, end = (Event.from_json({"time": 1.0, **EVENTS[k]}) for k in (0, 7))
    other = Begin(host="node2", pid=7)
    assert unended([run, other, end]) == [other]
    assert unended([Begin()]) == []


def test_a_failing_item_is_read_and_written_as_ever():
    content = {"row": 3, "item": 5, **FAILURE, "attempt": 4, "time": 1.5, **HERE}
    item = FailedItem.model_validate(content)
    assert json.dumps(item.model_dump()) == json.dumps(content)
    assert (item.row, item.item, item.host) == (3, 5, "node1")
    died = {name: value for name, value in content.items() if name not in HERE}
    assert FailedItem.model_validate({**died, "died": "killed", "node": "ab"}).host == ""


def test_an_error_may_quote_the_name_of_any_file():
    """What is no character in it is escaped: neither the event nor the item is refused, here or by a reader."""
    text = b"caf\xe9.npy".decode(errors="surrogateescape")
    event, item = Failure(error=text), FailedItem(row=0, item=0, error=text)
    assert (event.error, item.error) == (r"caf\udce9.npy",) * 2
    assert Event.from_json({"event": "error", "error": text}).error == event.error


@pytest.mark.parametrize("released", [{}, {"released": True}])
def test_a_lease_is_read_and_written_as_ever(released):
    content = {"host": "node1", "machine": "boot/pid:[1]", "pid": 7, "born": "51", "user": "me",
               "command": ["ctd", "run"], "id": "a80d", "generation": 3, "since": 1.0, "renewed": 2.0}  # fmt: skip
    lease = LeaseRecord.from_json(content | released | {"of a later ctd": 1})
    assert json.dumps(lease.model_dump()) == json.dumps(content | released)
    assert lease.released == bool(released)
