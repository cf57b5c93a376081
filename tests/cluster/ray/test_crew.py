"""cluster.ray.crew: heartbeats and free places of many actors, whose answers the tests give themselves."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from cluster.ray.crew import ASKS_A_S, Heartbeats, Places
from cluster.ray.pool import Slot
from jobs.plan.layout import Shard
from jobs.run.task import Heartbeat, ShardProgress, Task


class Actor:
    """What `Heartbeats` asks of an actor: `heartbeat.options(...).remote().future()`."""

    def __init__(self):
        self.asked = []
        self.heartbeat = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._ask))

    def _ask(self):
        self.asked.append(Future())
        return SimpleNamespace(future=lambda: self.asked[-1])


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    return clock


def running(n, clock):
    """Slots whose actors all run a shard, which began now."""
    slots = [Slot(Actor(), ready=True) for _ in range(n)]
    for number, slot in enumerate(slots):
        slot.held.append((Future(), Task(Shard(number, 0, number, number + 1))))
        slot.heard_at = slot.alive_at = clock.now
    return slots


def test_many_actors_are_asked_in_turn_and_never_all_at_once(clock):
    slots = running(1000, clock)
    beats, asked = Heartbeats(slots), lambda: sum(len(slot.actor.asked) for slot in slots)
    for second in range(1, 25):
        for _ in range(4):
            clock.now += 0.25
            beats.last()
            for slot in slots:
                if slot.asked and not slot.asked.done():
                    shard = slot.held[0][1].shard.number
                    slot.asked.set_result((shard, Heartbeat(ShardProgress(1, second), 0.1), 0))
        assert asked() <= ASKS_A_S * (second + 1)
    assert {len(slot.actor.asked) for slot in slots} == {1, 2}
    clock.now += 0.1
    assert {beat.progress.finished for beat in beats.last().values()} == {1}


def test_silence_is_what_is_known(clock):
    """An actor that was not asked is not silent; one that does not answer is, from the question on."""
    slots = running(3, clock)
    beats = Heartbeats(slots[:2])
    clock.now += 10
    assert beats.last() == {(0, 1): (None, 0.0), (1, 1): (None, 0.0)}
    slots[0].asked.set_result((0, Heartbeat(ShardProgress(2), 4.0), 0))
    clock.now += 7
    assert beats.last() == {(0, 1): (ShardProgress(2), 4.0), (1, 1): (None, 7.0)}
    slots[1].asked.set_result(
        (-1, Heartbeat(ShardProgress(), 90.0), 0)
    )  # it has not begun this shard
    assert beats.last()[1, 1] == (None, 17.0)


def test_places_follow_each_slot(clock):
    places, slots = Places(), running(3, clock)
    for slot in slots:
        places.note(slot)
    assert (places.free(1), places.free(2), list(places.idle())) == (0, 3, [])
    slots[1].held.clear()
    places.note(slots[1])
    assert (places.free(1), places.free(2)) == (1, 4)
    assert places.emptiest() is slots[1]
    slots[0].ready = False
    places.note(slots[0])
    assert places.free(2) == 3
    assert list(places.idle()) == [slots[1]]
