"""cluster.ray.crew, and the heartbeats of cluster.ray.pool: actors that open a store, say how far they are, and die; mostly, the tests answer for them."""

import errno
import math
from collections import defaultdict
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from failing import make_faulty
from messages import refused
from obstore.exceptions import GenericError
from processes import KERNEL
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError

from cluster.ray.actor import Place, ShardWorker
from cluster.ray.crew import MAX_STARTS, Crew
from cluster.ray.executor import RayExecutor
from cluster.ray.pool import ASKS, Pool, Slot, heartbeats
from cluster.versions import versions
from jobs.errors import JobError
from jobs.plan.layout import Shard
from jobs.run.limits import Durations
from jobs.run.shards import run_shards
from jobs.run.sources import SourceDiffers
from jobs.run.task import Heartbeat, ShardProgress, Task
from jobs.spec.run import RunSettings
from jobs.storage.objects import StorageFailed

# --- heartbeats ---------------------------------------------------------------------------------------


class Actor:
    """What `heartbeats` asks of an actor: `heartbeat.options(...).remote().future()`."""

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
    slots = [Slot(Actor(), Place(f"n{k % 9}", "cpu", 0)) for k in range(n)]
    for number, slot in enumerate(slots):
        slot.begin(Task(Shard(number, 0, number, number + 1)))
    return slots


def test_many_actors_are_asked_in_turn_and_never_all_at_once(clock):
    slots = running(1000, clock)
    asked = lambda: sum(len(slot.actor.asked) for slot in slots)
    for second in range(1, 25):
        for _ in range(4):
            clock.now += 0.25
            heartbeats(slots)
            for slot in slots:
                if slot.pending and not slot.pending.done():
                    shard = slot.work.shard.number
                    slot.pending.set_result((shard, Heartbeat(ShardProgress(1, second), 0.1), 0))
        assert asked() <= ASKS * 4 * second
    assert {len(slot.actor.asked) for slot in slots} == {1, 2}
    clock.now += 0.1
    assert {beat.progress.finished for beat in heartbeats(slots).values()} == {1}


def test_silence_is_what_is_known(clock):
    """An actor that was not asked is not silent; one that does not answer is, from the question on."""
    slots = running(2, clock)
    clock.now += 10
    assert heartbeats(slots) == {(0, 1): (None, 0.0), (1, 1): (None, 0.0)}
    slots[0].pending.set_result((0, Heartbeat(ShardProgress(2), 4.0), 0))
    clock.now += 7
    assert heartbeats(slots) == {(0, 1): (ShardProgress(2), 4.0), (1, 1): (None, 7.0)}
    slots[1].pending.set_result(
        (-1, Heartbeat(ShardProgress(), 90.0), 0)
    )  # it has not begun this shard
    assert heartbeats(slots)[1, 1] == (None, 17.0)


# --- opening ------------------------------------------------------------------------------------------


class Opens:
    """An actor, whose answers to `open` are given in their order."""

    def __init__(self, answers):
        self.answers = answers
        self.open = SimpleNamespace(remote=lambda *_: SimpleNamespace(future=self._answer))

    def _answer(self):
        answer, given = Future(), next(self.answers)
        if isinstance(given, Future):
            return given
        if isinstance(given, Exception):
            answer.set_exception(given)
        else:
            answer.set_result(given)
        return answer


def crew_of(slots, **pool):
    """A crew that tells the actors of these slots to open the store, on a pool whose new actors never do."""
    default = {
        "n": len(slots), "reach": SimpleNamespace(look=lambda: True), "joined": list, "aside": set(),
        "deaths": defaultdict(set), "kill": lambda actor: None, "actor": lambda: Opens(iter([Future()])),
    }  # fmt: skip
    return Crew(SimpleNamespace(slots=slots, **default | pool), "s3://lab/a.zarr")


def opens(*answers):
    """(the actors that were killed until the last answer, the slots, the slot) of actors that answer so to `open`."""
    answers, killed = iter(answers), []
    slots = [slot := Slot(Opens(answers))]
    crew = crew_of(slots, kill=killed.append, actor=lambda: Opens(answers))
    while slots and not slot.place:
        crew.wait(0)
    return killed, slots, slot


def test_a_storage_that_is_away_costs_no_slot(caplog):
    """However long: the same actor tries again, and whatever else goes wrong is counted as before."""
    away, other = ("no server answers", "storage"), ("the source differs", "other")
    killed, slots, slot = opens(other, *[away] * 9, other, *[away] * 9, Place("node", "cpu", 3))
    assert slots == [slot]
    assert (slot.place, len(killed)) == (Place("node", "cpu", 3), 2)
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
def test_a_slot_whose_actors_cannot_start_is_given_up(answer, starts):
    with refused(JobError):
        opens(*[answer] * starts)


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
    slots = [Slot(Opens(iter([place]))) for _ in range(2)]
    crew_of(slots).wait(0)
    said = (
        "warning: the worker on n1 was given 1 GPU, and computes on the CPU: JAX sees no GPU there"
    )
    assert [record.message.startswith(said) for record in caplog.records] == [True]
    assert all(slot.place == place for slot in slots)


# --- deaths -------------------------------------------------------------------------------------------


class Dies(Opens):
    """An actor on a node, with its count of whom the kernel killed, that dies as soon as it has work."""

    def __init__(self, node, count=0, error=None):
        super().__init__(iter([Place(node, "cpu", count)]))
        self.do = SimpleNamespace(remote=lambda _: SimpleNamespace(future=self._die))
        self._error = error or ActorDiedError()

    def _die(self):
        (died := Future()).set_exception(self._error)
        return died


def death(crew, shard):
    """What the crew reports of the death of the actor to which it gives a shard."""
    crew.wait(0)
    crew.submit(Task(Shard(shard, 0, 0, 1), 2))
    (report,) = crew.wait(0) or crew.wait(0)
    return report


def test_running_out_of_memory_is_a_death_too():
    """Ray's own error, of which it is known at once that memory ran out: another worker comes, the shard may be narrowed."""
    actor, killed = Dies("n1", error=OutOfMemoryError("low on memory")), []
    report = death(crew_of([Slot(actor)], kill=killed.append), 3)
    assert (report.shard, report.attempt, report.fault) == (3, 2, "memory")
    assert report.about == {"died": "oom", "node": "n1"}
    assert report.error == "the worker died (oom): low on memory"
    assert killed == [actor]


def test_a_lost_node_is_named_and_left_by_idle_actors(caplog):
    """Ray takes it for alive for a while: the next attempt would fail on it as well."""
    here = Place("7f3a", "cpu", 0, host="n2")
    gone = ActorUnavailableError("The actor is unavailable: RpcError: rpc_code: 14.", None)
    dies, idle, killed = Dies("7f3a", error=gone), Opens(iter([here])), []
    elsewhere = lambda: Opens(iter([Future()]))
    crew = crew_of([Slot(dies), Slot(idle)], kill=killed.append, actor=elsewhere)
    crew.wait(0)
    next(iter(crew.idle)).place = here
    report = death(crew, 3)
    assert report.error == "the worker died (node): n2 is lost, or cannot be reached"
    assert (killed, len(crew.idle)) == ([dies, idle], 0)
    assert "n2 is lost; what ran there is tried again" in caplog.text


@pytest.mark.parametrize(
    ("node", "count", "died"),
    [("here", 4, "oom"), ("here", 3, "killed"), ("elsewhere", 4, "killed")],
)
def test_death_is_the_kernel_s_if_it_has_counted_one_more_since(node, count, died):
    """By what the next worker says, on the same node."""
    report = death(crew_of([Slot(Dies("here", 3))], actor=lambda: Dies(node, count)), 7)
    assert report.about["died"] == died
    assert report.fault == ("memory" if died == "oom" else "death")


def test_actors_leave_a_node_on_which_workers_died_in_three_shards():
    """Once an actor is ready elsewhere. A shard that kills its workers again and again is no evidence."""
    killed, elsewhere = [], Opens(iter([coming := Future()]))
    crew = crew_of(
        slots := [Slot(Dies("a")), Slot(elsewhere)], kill=killed.append, actor=lambda: Dies("a")
    )
    said = [death(crew, shard).about.get("set_aside") for shard in (7, 7, 7, 7, 8, 9)]
    assert said == [None] * 6
    assert Pool.allowed(crew._pool) == {}
    coming.set_result(Place("b", "cpu", 0))
    crew.wait(0)
    slots[1].begin(Task(Shard(0, 0, 0, 1)))
    del crew.idle[slots[1]]
    assert death(crew, 10).about["set_aside"] == (
        "node a: no longer used: workers died there in the midst of 3 shards"
    )
    assert Pool.allowed(crew._pool) == {"ray.io/node-id": "!in(a)"}
    assert len(killed) == 8  # an idle one, too
    assert elsewhere not in killed


@pytest.fixture(scope="module")
def pool(ray_address):
    """A single worker."""
    executor = RayExecutor(RunSettings(workers=1), ray_address)
    yield executor
    executor.close()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("fault", "said"),
    [(3, "worker died (killed)"), (6, "no advance has ended for")],
    ids=["exits", "hangs"],
)
@pytest.mark.endurance  # how a worker ends is seen here, what the driver then does in jobs/run/test_retry.py
def test_an_item_that_takes_its_worker_with_it_is_found(pool, folder, monkeypatch, fault, said):
    """Among the four of a shard; one that hangs, which takes the time limit at each try, in a shard of its own."""
    hangs = fault == 6
    faults = [0, fault] if hangs else [0, 0, fault, 0]
    # The limit is short, and therefore none before both items have begun: a busy machine may compile for as long.
    begun = lambda: len(list(folder.glob(f"tried-kills{fault}-*"))) == 2
    limit = Durations.limit
    monkeypatch.setattr(Durations, "limit", lambda *given: limit(*given) if begun() else math.inf)
    store = make_faulty(
        folder, pool, f"kills{fault}", {"fault": faults}, retries=0, shard_items=1 if hangs else 4,
        slots=4, time_limit_s=2 if hangs else None,
    )  # fmt: skip
    progress = run_shards(store, pool)
    assert progress.failed == {}
    at = faults.index(fault)
    assert list(progress.failed_items) == [at]
    assert said in progress.failed_items[at]
    assert store.rows(0, "status", 0, len(faults)).tolist() == [2 if f else 1 for f in faults]


@pytest.mark.ray
@pytest.mark.endurance  # the crew's part of it is above
def test_workers_that_die_at_once_end_the_run(pool, folder):
    module = folder / "stillborn_kernel.py"
    sign = folder / "stillborn"
    module.write_text(f"import os\nif os.path.exists({str(sign)!r}):\n    os._exit(3)\n{KERNEL}")
    store = make_faulty(folder, pool, "stillborn", {"fault": [0]}, kernel="stillborn_kernel")
    sign.touch()
    with refused(JobError):
        run_shards(store, pool)
