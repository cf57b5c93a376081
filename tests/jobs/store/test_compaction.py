"""Moving records into segments: whatever stops, dies or comes late, what is committed stays committed.

Several actors (workers that commit, drivers that compact and take back, readers) work on one store, one request at a
time in an order that the test chooses; after every request the store is read and compared with what it must say.
"""

import itertools
import threading

import obstore
import pytest
from failing import Failing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killing import Actor, Stage
from stores import make

from jobs import keys
from jobs.gather.gather import gather, require_rows
from jobs.report.page.facts import facts
from jobs.report.summary import state
from jobs.run.shards import open_ledger, run_shards
from jobs.run.worker import SerialExecutor
from jobs.storage import objects
from jobs.store.look import Look
from jobs.store.segments import live
from jobs.store.store import Store

REQUESTS = ("list_keys", "read", "write", "create", "delete")


@pytest.fixture
def staged(monkeypatch):
    """`objects` makes one request at a time, each when its actor may."""
    stages = []

    def paused(request):
        def call(*args):
            for stage in stages:
                if actor := stage.actors.get(threading.get_ident()):
                    actor.pause()
            return request(*args)

        return call

    for name in REQUESTS:
        monkeypatch.setattr(objects, name, paused(getattr(objects, name)))
    one_by_one = lambda store, wanted: [(key, objects.read(store, key)) for key in wanted]
    monkeypatch.setattr(objects, "read_all", one_by_one)
    each = lambda store, wanted: [objects.delete(store, key) for key in list(wanted)]
    monkeypatch.setattr(objects, "delete_each", each)

    def stage(n, kind="committed"):
        stages[:] = [Stage(n, kind)]
        return stages[0]

    return stage


# --- in any order ---------------------------------------------------------------------------------


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["commit"] * 3 + ["compact"] * 2 + ["take", "look", "kill"] + ["step"] * 12
        ),
        st.integers(0, 11),
        st.integers(1, 6),
    ),
    max_size=60,
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_order_of_requests_leaves_what_is_committed(staged, steps):
    stage = staged(3)
    stores = [stage.store() for _ in range(2)]  # two drivers, which keep what they have read
    actors, seen = [], {}

    def look(me):
        seen[me]["said"] = stage.said(stores[0])

    def begin(what, k):
        store = stores[k % 2]
        if what == "commit":
            actors.append(Actor(stage, lambda: stage.commit(k % 3)))
        elif what == "compact":
            actors.append(Actor(stage, lambda: store.committed.compact()))
        elif what == "take" and not stage.taking:
            actors.append(Actor(stage, lambda: stage.take_back(k % 3, store)))
            actors[-1].step()
        elif what == "look":
            me = len(seen)
            seen[me] = {"were": {s: {v} for s, v in stage.check().items()}}
            actors.append(Actor(stage, lambda: look(me)))

    def observe():
        said = stage.check()
        for one in seen.values():
            if "told" not in one:
                for k, value in said.items():
                    one["were"][k].add(value)
                if "said" in one:
                    one["told"] = all(one["said"][k] in one["were"][k] for k in said)
                    assert one["told"], one

    try:
        for what, k, n in steps:
            actors = [actor for actor in actors if not actor.ended]
            if what == "step" and actors:
                for _ in range(n):
                    actors[k % len(actors)].step()
                    observe()
            elif what == "kill" and actors:
                actors[k % len(actors)].kill()
            elif len(actors) < 6:
                begin(what, k)
            observe()
        for actor in actors:
            actor.finish()
            observe()
    finally:
        for actor in stage.actors.values():
            if not actor.ended:
                actor.kill()
    before = stage.check()
    stores[1].committed.compact()
    assert stage.check() == before
    left = list(objects.list_all(stage.objects, "run"))
    assert all(key.startswith(keys.SEGMENTS) for key in left)
    found = stores[0].committed.log.read()
    assert live(found) == found


# --- one that stops before each of its requests ---------------------------------------------------


def busy(stage, killed=False):
    """A store with segments, single markers, two of one shard, and a shard that was taken back.

    killed: whether all markers are in segments, as their driver was killed before it deleted one.
    """
    store = stage.store()
    for k in (0, 1, 2, 3):
        stage.commit(k)
        stage.records(store).compact()
    stage.take_back(1, store)
    for k in (4, 2, 2):
        stage.commit(k)
    if killed:
        there, driver = (
            len(store.committed.log.keys()),
            Actor(stage, lambda: store.committed.compact()),
        )
        while len(stage.store().committed.log.keys()) == there:
            driver.step()
        driver.kill()
    return stage.check()


@pytest.mark.parametrize("kind", ["committed", "failed"])
def test_compaction_that_is_killed_before_any_request_loses_nothing(staged, kind):
    for n in itertools.count():
        stage = staged(5, kind)
        before = busy(stage)
        actor = Actor(stage, lambda s=stage: s.records().compact())
        for _ in range(n):
            actor.step()
            assert stage.check() == before
        if actor.ended:
            break
        actor.kill()
        assert stage.check() == before
        stage.records().compact()
        assert stage.check() == before
    assert n > 10


@pytest.mark.parametrize("since", ["taken back", "computed again", "compacted again"])
def test_compaction_of_a_driver_that_comes_back_late_changes_nothing(staged, since):
    """It stops before any request; others take back, compute again and compact; it goes on."""
    for n in itertools.count():
        stage = staged(5)
        busy(stage)
        late = Actor(stage, lambda s=stage: s.store().committed.compact())
        for _ in range(n):
            late.step()
        if late.ended:
            break
        store = stage.store()
        for k in (0, 2, 4):
            stage.take_back(k, store)
            if since != "taken back":
                stage.commit(k)
            if since == "compacted again":
                store.committed.compact()
        now = stage.check()
        while not late.ended:
            late.step()
            assert stage.check() == now
    assert n > 10


def test_shard_is_taken_back_whatever_others_move_meanwhile(staged):
    for n in itertools.count():
        stage = staged(5)
        busy(stage)
        actor = Actor(stage, lambda s=stage: s.take_back(2, s.store()))
        for _ in range(n):
            actor.step()
        if actor.ended:
            break
        stage.commit(4)
        stage.store().committed.compact()
        actor.finish()
        assert stage.check()[2] is None
    assert n > 10


@pytest.mark.parametrize("killed", [False, True])
def test_two_that_compact_at_once_lose_nothing(staged, killed):
    for n in itertools.count():
        stage = staged(5)
        before = busy(stage, killed)
        one = Actor(stage, lambda s=stage: s.store().committed.compact())
        for _ in range(n):
            one.step()
        if one.ended:
            break
        stage.store().committed.compact()
        one.finish()
        assert stage.check() == before
    assert n > 10


def test_reader_misses_nothing_that_is_moved_meanwhile(staged):
    for n in itertools.count():
        stage, found = staged(5), []
        before = busy(stage)
        reader = Actor(stage, lambda s=stage, f=found: f.append(s.said()))
        for _ in range(n):
            reader.step()
        if reader.ended:
            break
        stage.store().committed.compact()
        reader.finish()
        assert found == [before]
    assert n > 5


# --- by a run -------------------------------------------------------------------------------------


def test_finished_run_leaves_no_single_marker(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.ledger.COMPACT_EVERY", 3)
    store = make(tmp_path / "f.zarr")
    run_shards(store, SerialExecutor(1))
    assert list(objects.list_all(store.objects, keys.DONE)) == []
    assert [segment.size for segment in store.committed.log.read()] == [6, 2]
    assert store.committed.numbers() == set(range(8))


def asked(monkeypatch, call):
    """How many requests a call makes."""
    made = []
    with monkeypatch.context() as patch:
        for name in ("get", "get_async", "head", "list", "list_with_delimiter_async"):
            request = getattr(obstore, name)
            counted = lambda *args, request=request, **more: (
                made.append(1) or request(*args, **more)
            )
            patch.setattr(obstore, name, counted)
        call()
    return len(made)


def test_what_is_asked_of_a_store_hardly_grows_with_its_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.ledger.COMPACT_EVERY", 8)
    asks = {
        "status": lambda store: state(Look(store)),
        "a driver's start": lambda store: open_ledger(store),
        "query": lambda store: require_rows(store),
        "gather": lambda store: gather(store),
        "watch": lambda store: facts(store),
    }
    counts = {}
    for n in (8, 80):
        sweep = {"grid": {"rate": {"linspace": [-0.5, 0.5, n]}}}
        run = {"shard_items": 1, "slots": 1, "microbatch": 1, "retries": 0}
        store = make(tmp_path / f"{n}.zarr", {"kernel": "toy", "sweep": sweep, "run": run})
        fails = lambda task: task.shard.number % 8 == 7 and not task.without and "error"
        assert len(run_shards(store, Failing(fails)).failed_items) == n // 8
        gather(store)
        ask = lambda one, a=store.address: asked(monkeypatch, lambda: one(Store.open(a)))
        counts[n] = {name: ask(one) for name, one in asks.items()}
    # Ten times the records lie in one or two segments more of each kind.
    assert all(0 <= counts[80][name] - counts[8][name] <= 2 for name in asks), counts
    assert counts[80]["query"] < counts[80]["status"] <= 22
