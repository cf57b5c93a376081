"""cluster.ray.crew: heartbeats and free places of many actors, whose answers the tests give themselves."""

import errno
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from obstore.exceptions import GenericError
from ray.exceptions import ActorDiedError

from cluster.ray.actor import Place, ShardWorker
from cluster.ray.crew import ASKS_A_S, MAX_STARTS, Crew, Heartbeats, Places
from cluster.ray.pool import Nodes, Slot
from cluster.versions import versions
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.sources import SourceDiffers
from jobs.run.task import Heartbeat, ShardProgress, Task
from jobs.storage.objects import StorageFailed


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


class Opens:
    """An actor, whose answers to `open` are given in their order."""

    def __init__(self, answers):
        self.answers = answers
        self.open = SimpleNamespace(remote=lambda *_: SimpleNamespace(future=self._answer))

    def _answer(self):
        answer, given = Future(), next(self.answers)
        if isinstance(given, Exception):
            answer.set_exception(given)
        else:
            answer.set_result(given)
        return answer


def opens(monkeypatch, *answers):
    """(what the crew did until the last answer, its slots, the slot) of actors that answer so to `open`."""
    answers, killed = iter(answers), []
    slot = Slot(Opens(answers))
    reach = SimpleNamespace(look=lambda: True)
    pool = SimpleNamespace(
        slots=[slot], n=1, reach=reach, kill=killed.append, actor=lambda: Opens(answers)
    )
    crew = Crew(pool, "s3://lab/a.zarr")
    crew.open(slot)
    while not crew.answered.empty() and crew.slots and not slot.ready:
        crew.opened(crew.answered.get())
    return killed, crew.slots, slot


def test_a_storage_that_is_away_costs_no_slot(monkeypatch, caplog):
    """However long: the same actor tries again, and whatever else goes wrong is counted as before."""
    away, other = ("no server answers", "storage"), ("the source differs", "other")
    killed, slots, slot = opens(
        monkeypatch, other, *[away] * 9, other, *[away] * 9, Place("node", "cpu", 3)
    )
    assert slots == [slot]
    assert (slot.ready, slot.node, slot.kernel_kills, len(killed)) == (True, "node", 3, 2)
    assert [r.getMessage() for r in caplog.records] == [
        "the workers wait for the storage: no server answers"
    ]


@pytest.mark.parametrize(
    ("answer", "starts"),
    [
        (("why", "other"), MAX_STARTS),
        (("why", "in vain"), 1),
        (ActorDiedError(), MAX_STARTS),
    ],
)
def test_a_slot_whose_actors_cannot_start_is_given_up(monkeypatch, answer, starts):
    with pytest.raises(JobError, match=r"no worker could start on s3://lab/a.zarr: (why|.* died)"):
        opens(monkeypatch, *[answer] * starts)


def test_actors_leave_a_node_that_is_set_aside(monkeypatch):
    """Once an actor is ready elsewhere; the one that runs a shard, after it."""
    moved = []
    monkeypatch.setattr(Crew, "replace", lambda crew, slot: moved.append(slot))
    idle, busy, other = (Slot(None, ready=node == "a", node=node) for node in "aab")
    busy.held.append((Future(), Task(Shard(0, 0, 0, 1))))
    pool = SimpleNamespace(slots=[idle, busy, other], nodes=Nodes(), reach=None)
    crew = Crew(pool, "store")
    assert [crew.note_death("a", shard) for shard in range(4)] == [{}] * 4
    assert pool.nodes.selector() == {}
    other.ready = True
    said = "node a: set aside, workers died there in the midst of 3 shards"
    assert crew.note_death("a", 4) == {"set_aside": said}
    assert moved == [idle]
    busy.held.clear()
    crew.move_if_set_aside(busy)
    assert moved == [idle, busy]
    assert pool.nodes.selector() == {"ray.io/node-id": "!in(a)"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StorageFailed("no server answers"), "storage"),
        (StorageFailed("cannot be written"), "storage"),
        (OSError(errno.EIO, "Input/output error"), "storage"),
        (GenericError("status code: 503 Service Unavailable"), "storage"),
        (GenericError("status code: 403 Forbidden"), "other"),
        (SourceDiffers("another source"), "other"),
        (RuntimeError("whatever"), "other"),
        (JobError("no such store"), "in vain"),
    ],
)
def test_what_an_actor_says_of_a_store_that_it_cannot_open(monkeypatch, error, kind):
    def fails(*_):
        raise error

    monkeypatch.setattr("cluster.ray.actor.Worker", fails)
    monkeypatch.setattr("cluster.ray.actor.AGAIN_S", 0.0)
    actor = object.__new__(ShardWorker)
    text, said = actor.open("s3://lab/a.zarr", 1, versions())
    assert said == kind
    assert text
    _, said = actor.open("s3://lab/a.zarr", 1, {**versions(), "jax": "0.0"})
    assert said == "in vain"


def test_a_worker_on_the_cpu_that_has_a_gpu_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr("cluster.ray.actor.Worker", lambda *_: None)
    monkeypatch.setattr("cluster.ray.actor.idle_gpus", lambda: 1)
    monkeypatch.setattr("socket.gethostname", lambda: "n1")
    node = SimpleNamespace(get_node_id=lambda: "a")
    monkeypatch.setattr("ray.get_runtime_context", lambda: node)
    place = object.__new__(ShardWorker).open("/x.zarr", 1, versions())
    slots = [Slot(None), Slot(None)]
    crew = Crew(SimpleNamespace(slots=slots, nodes=Nodes(), reach=None), "store")
    for slot in slots:
        slot.opening = Future()
        slot.opening.set_result(place)
        crew.opened(slot)
    said = (
        "warning: the worker on n1 was given 1 GPU, and computes on the CPU: JAX sees no GPU there"
    )
    assert [record.message.startswith(said) for record in caplog.records] == [True]
    assert all(slot.ready for slot in slots)
