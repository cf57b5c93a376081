"""jobs.store.events: lines that anybody may have written."""

import json

import pytest
from failing import Flaky
from stores import copied_run

from jobs import keys
from jobs.report.history import history
from jobs.report.summary import state
from jobs.storage import objects
from jobs.store.events import Begin, Event, Events, read_events, unended
from jobs.store.look import Look


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return copied_run(tmp_path_factory.mktemp("events") / "toy.zarr")


def test_events_are_read_as_they_were_written(store):
    events = read_events(store)
    assert {event.kind for event in events} == {"run", "done", "end"}
    assert [Event.from_json(event.to_json()) for event in events] == events


@pytest.mark.parametrize(
    "field", [{"time": "abc"}, {"time": None}, {"event": [[]]}, {"shard": "x"}, {"seconds": [7]}]
)
def test_line_whose_fields_have_other_types_is_left_out(store, field):
    before = read_events(store)
    key = f"{keys.EVENTS}/{'9' * 20}-1-00000.jsonl"
    line = json.dumps({"time": 1.0, "event": "done", "shard": 0, **field})
    objects.write(store.objects, key, line.encode())
    assert read_events(store) == before
    assert [event.kind for event in history(store)] == [event.kind for event in before]


def test_a_log_ends_without_an_error_where_the_storage_fails(store, monkeypatch):
    """What ended the run is what the command says, and not that its log has no checksums."""
    events = Events(store)
    events.note(Begin())
    monkeypatch.setattr(objects, "list_keys", Flaky(objects.list_keys))
    events.close()


def test_a_run_whose_end_a_full_disk_kept_from_the_log_was_not_killed(tmp_path):
    store = copied_run(tmp_path / "toy.zarr")
    (key,) = objects.list_keys(store.objects, keys.EVENTS)
    lines = objects.read(store.objects, key).splitlines(keepends=True)
    objects.write(store.objects, key, b"".join(lines[:-1]))
    assert [event.kind for event in unended(read_events(store))] == ["run"]
    assert state(Look(store))["stopped"] is None
    assert {event.kind for event in history(store)} == {"run", "done"}
    store.committed.forget([next(iter(store.job.plan.shards()))])
    assert "was killed" in state(Look(store))["stopped"]
    assert history(store)[-1].kind == "killed"
