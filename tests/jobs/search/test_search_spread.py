"""Items compared across shards: the bits of one shard, whatever is lost, killed or computed again."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from failing import Failing, Flaky, Interrupted
from killing import dies_at_a_meeting, killed, killed_at_a_write, killed_at_random
from search_jobs import HALVING, POPULATION, changed, results, spread
from stores import make, run

from jobs.gather.check import check
from jobs.run.executor import SerialExecutor
from jobs.run.fork import fork
from jobs.run.partition import Part, open_shards
from jobs.run.rendezvous import populations
from jobs.run.shards import reconsider, run_shards
from jobs.run.stop import Stop
from jobs.run.task import Sign, Task
from jobs.run.worker import Worker
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import read_sealed
from jobs.store.events import read_events
from jobs.store.store import Store

JOBS = {
    "halving": HALVING,
    "tournament": POPULATION,
    "truncation": changed(POPULATION, "search.exploit", "truncation"),
}
FOLDER = "run/meetings"


def same(store, whole):
    """Every number of every item, and nothing left behind."""
    a, b = results(store), results(whole)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    left = [
        *objects.list_keys(store.objects, FOLDER),
        *objects.list_keys(store.objects, "run/checkpoints"),
    ]
    assert left == []


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """The jobs in one shard each."""
    folder = tmp_path_factory.mktemp("store")
    return {name: run(folder / f"{name}.zarr", job)[0] for name, job in JOBS.items()}


@pytest.fixture(scope="module", params=["halving", "tournament"])
def disturbed(request, wholes):
    """A job in shards, and its results in one."""
    return in_shards(request.param), wholes[request.param]


@pytest.fixture(
    scope="module", params=[pytest.param("halving", marks=pytest.mark.endurance), "tournament"]
)
def killed_often(request, wholes):
    """The same for processes that are killed, of which each takes seconds to start."""
    return in_shards(request.param), wholes[request.param]


def in_shards(name):
    return spread(JOBS[name], 9 if name == "halving" else 2)


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shard_items"),
    [("halving", 3), ("tournament", 1), ("tournament", 4), ("truncation", 2)],
)
def test_shards_that_meet_come_to_the_bits_of_one_shard(tmp_path, wholes, name, shard_items):
    store, progress = run(tmp_path / "s.zarr", spread(JOBS[name], shard_items))
    n = len(results(store)["status"])
    assert progress.shards_done == store.job.plan.n_shards == n // shard_items
    assert ", best loss " in progress.stage
    assert progress.outcomes == run_shards(wholes[name], SerialExecutor(1)).outcomes
    same(store, wholes[name])


def test_members_are_copied_from_other_shards(wholes):
    parents = results(wholes["tournament"])["search_parent"]
    assert (parents // 2 != np.arange(8)[:, None] // 2).sum() > 10


def test_populations_in_shards_of_their_own_do_not_meet(tmp_path):
    job = changed(POPULATION, "sweep.grid", {"noise": [0.05, 0.2, 0.4]})
    job = changed(changed(job, "params", {"dtype": "float64", "steps": 60}), "search.size", 8)
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    assert populations(store.job) == {
        0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3), 4: (4, 5), 5: (4, 5),
    }  # fmt: skip
    same(store, whole)
    parts = [Part(k, 2) for k in range(2)]
    assert [open_shards(store, {3}, part) for part in parts] == [{0, 1, 4, 5}, {2}]


def test_populations_of_one_shard_end_each_by_itself(tmp_path):
    """One whose members finish early keeps its last generation, however long another one lasts."""
    rates = np.linspace(0.05, 0.4, 8).tolist()
    job = changed(POPULATION, "sweep", {"grid": {"limit": [14, 60], "rate": rates}})
    job = changed(changed(job, "params.noise", 0.05), "search.size", 8)
    apart, _ = run(tmp_path / "a.zarr", changed(job, "run.shard_items", 8))
    beside, _ = run(tmp_path / "b.zarr", changed(job, "run.shard_items", 16))
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    ended = results(apart)["search_parent"][:8, -1]
    assert (ended == -1).all()
    same(beside, apart)
    same(store, apart)


def test_broken_members_copy_from_another_shard(tmp_path):
    """All of the first shard diverge, and the second has what they go on from."""
    job = changed(
        POPULATION, "sweep", {"grid": {"rate": [0.9, 0.88, 0.89, 0.85, 0.1, 0.2, 0.05, 0.3]}}
    )
    job["search"] |= {"every": 20, "generations": 3, "perturb": 0.02}
    whole, _ = run(tmp_path / "w.zarr", job)
    store, progress = run(tmp_path / "s.zarr", spread(job, 4))
    assert (results(store)["search_parent"][:4, 1] >= 4).all()
    assert progress.outcomes == {"descended": 8, "diverged": 0}
    same(store, whole)


@pytest.mark.endurance
def test_networks_with_keys_and_moments_are_copied_whole(tmp_path):
    """A kernel's own state: weights, both moments of Adam, a step, in float32."""
    job = {
        "kernel": "train_rnn",
        "params": {"task": {"name": "integrator", "n_steps": 8}, "n": 6, "batch_size": 4, "n_batches": 60,
                   "report_every": 5, "n_eval": 16},
        "sweep": {"random": {"learning_rate": {"loguniform": [1e-3, 3e-2]}}, "samples": 6},
        "search": {"method": "population", "metric": "eval_loss", "every": 2, "generations": 4,
                   "params": {"learning_rate": {"loguniform": [1e-3, 3e-2]}}},
        "run": {"microbatch": 1, "slots": 2},
    }  # fmt: skip
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 2))
    parents = results(store)["search_parent"]
    assert (parents // 2 != np.arange(6)[:, None] // 2).any()
    same(store, whole)


# --- whatever happens -----------------------------------------------------------------------------


def test_stopped_at_many_places(tmp_path, disturbed):
    job, whole = disturbed
    store, stops = make(tmp_path / "s.zarr", job), 0
    for after in [1, 2, 3, 5, 8, 13, 21]:
        stop = Stop()
        stops += run_shards(store, Interrupted(stop, after), stop=stop).stopped == "test"
    assert stops == 7
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "what", "nth"),
    [
        ("after", FOLDER, 1),
        ("before", FOLDER, 6),
        ("before", "run/done", 2),  # one is committed, the others are at the last meeting
    ],
)
def test_killed_at_a_write(tmp_path, killed_often, when, what, nth):
    job, whole = killed_often
    path = tmp_path / "k.zarr"
    killed_at_a_write(path, job, when, what, nth, often=True)
    store = Store.open(str(path))
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)
    assert check(store.address) == []


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, killed_often):
    job, whole = killed_often
    store = make(tmp_path / "r.zarr", job)
    kills = killed_at_random(store, lambda store: set(objects.list_keys(store.objects, FOLDER)))
    assert kills
    assert run_shards(store, SerialExecutor(1)).failed == {}
    check(store.address, repair=True)  # a driver killed after its last commit has not tidied up
    same(store, whole)


class Meddling(SerialExecutor):
    """Does something to the store when the nth report has come."""

    def __init__(self, nth, what):
        super().__init__(1)
        self.left, self.what = nth, what

    def wait(self, timeout):
        reports = super().wait(timeout)
        self.left -= len(reports)
        if self.what and self.left <= 0:
            self.what = self.what()
        return reports


def started_over(store):
    texts = [event.text for event in read_events(store) if event.kind == "decision"]
    return sum("start over" in text for text in texts)


@pytest.mark.parametrize(
    ("nth", "harm"),
    [
        (2, "cut"),
        (6, "removed"),
        (6, "state"),
        *(
            pytest.param(*rest, marks=pytest.mark.endurance)
            for rest in ((2, "removed"), (6, "cut"), (2, "head"), (6, "head"), (2, "state"))
        ),
    ],
)
def test_what_was_left_is_damaged(tmp_path, disturbed, harm, nth):
    """All of a population start over; the bits are those of the first time."""
    job, whole = disturbed
    store = make(tmp_path / "d.zarr", job)

    def damage():
        # Every arrival of shard 0: as if its last two had been in one lost block of the disk.
        for key in [k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000000")]:
            data = bytearray(objects.read(store.objects, key))
            at = 40 if harm == "head" else len(data) - 3
            data[at] ^= 1
            if harm == "removed":
                objects.delete(store.objects, key)
            else:
                objects.write(store.objects, key, bytes(data[: at if harm == "cut" else None]))

    progress = run_shards(store, Meddling(nth, damage))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert started_over(store) == 1
    same(store, whole)


def test_an_arrival_that_is_lost_is_left_again_from_the_one_before(tmp_path, disturbed):
    """A driver that died: one shard stands a lap behind the others, whose arrivals are there still."""
    job, whole = disturbed
    store, stop = make(tmp_path / "b.zarr", job), Stop()
    n = store.job.plan.n_shards
    run_shards(store, Meddling(3 * n, lambda: stop.ask("test")), stop=stop)
    last = max(k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000000"))
    objects.delete(store.objects, last)
    progress = run_shards(store, SerialExecutor(1))
    assert progress.failed == {}
    assert started_over(store) == 0
    same(store, whole)


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_committed_shard_that_is_damaged_is_computed_again_with_its_population(
    tmp_path, disturbed, harm
):
    job, whole = disturbed
    store, _ = run(tmp_path / "c.zarr", job)
    path = Path(store.address) / min(store.committed.markers()[1].sha256)
    path.unlink() if harm == "removed" else path.write_bytes(path.read_bytes()[:-1])
    check(store.address, repair=True)
    assert 1 not in store.committed.numbers()
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.shards_done, progress.items_done) == (progress.n_shards, progress.n_items)
    assert progress.outcomes == run_shards(whole, SerialExecutor(1)).outcomes
    assert started_over(store) == 1
    same(store, whole)
    assert check(store.address) == []


@pytest.mark.parametrize("fault", ["death", "memory", "storage"])
def test_shards_that_are_tried_again(tmp_path, disturbed, fault):
    """Each third attempt fails (each ninth where the driver then pauses); where memory runs out, the slots are halved on the way."""
    job, whole = disturbed
    job, every = (
        job | {"run": job["run"] | {"backoff_s": 0.0, "retries": 99}},
        9 if fault == "storage" else 3,
    )
    store, calls = make(tmp_path / "t.zarr", job), iter(range(10**6))
    progress = run_shards(store, Failing(lambda task: fault if next(calls) % every == 2 else None))
    assert progress.failed == {}
    same(store, whole)


@pytest.mark.parametrize("microbatch", [1, 4])
def test_memory_that_forces_a_smaller_microbatch_midway(tmp_path, microbatch):
    """All start over where it changes the arithmetic, and go on where it does not."""
    job = changed(changed(POPULATION, "run.microbatch", microbatch), "run.backoff_s", 0.0)
    store, calls = make(tmp_path / "m.zarr", spread(job, 4)), iter(range(10**6))
    progress = run_shards(store, Failing(lambda task: "memory" if next(calls) == 5 else None))
    assert progress.failed == {}
    assert bool(started_over(store)) == (microbatch == 4)
    assert {m.layout.microbatch for m in store.committed.markers()} == {min(microbatch, 2)}
    whole = make(tmp_path / "w.zarr", job)
    (shard,) = whole.job.plan.shards()
    assert Worker(whole.address).do(Task(shard, slots=2)).error is None
    same(store, whole)


def test_laps_are_told_apart_beyond_the_digits_of_their_names(tmp_path, monkeypatch, wholes):
    """Generation 10 comes after generation 9, whatever the order of their names."""
    name = lambda self, lap, shard: f"{self._meeting.folder}/{lap}/{shard:06d}"
    monkeypatch.setattr("jobs.run.rendezvous.Meetings._key", name)
    job = changed(changed(POPULATION, "search.generations", 11), "search.every", 1)
    whole, _ = run(tmp_path / "w.zarr", job)
    store, _ = run(tmp_path / "s.zarr", spread(job, 4))
    assert started_over(store) == 0
    same(store, whole)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_storage_that_fails_while_a_population_starts_over(tmp_path, monkeypatch, disturbed, nth):
    """The driver waits, and goes on where it was; what it cannot remove at the end, check finds."""
    job, whole = disturbed
    store, left = make(tmp_path / "e.zarr", job), [nth]
    really = objects.delete

    def delete(where, key):
        left[0] -= "run/meetings" in key or "run/checkpoints" in key
        if left[0] == 0:
            raise OSError(errno.EIO, "the storage fails")
        really(where, key)

    def damage():
        for key in [k for k in objects.list_keys(store.objects, FOLDER) if k.endswith("000001")]:
            objects.write(store.objects, key, b"half")
        monkeypatch.setattr(objects, "delete", delete)

    progress = run_shards(store, Meddling(5, damage))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert left[0] < 0
    check(store.address, repair=True)
    same(store, whole)


def test_a_storage_that_fails_while_it_is_settled_who_meets(tmp_path, monkeypatch):
    """Memory has run out, and whether that changes the bits is told by what the workers chose."""
    monkeypatch.setattr("jobs.run.limits.LONGEST_PAUSE_S", 0.01)
    job = changed(changed(POPULATION, "run.microbatch", None), "run.backoff_s", 0.0)
    store, calls = make(tmp_path / "m.zarr", spread(job, 4)), iter(range(10**6))
    flaky = Flaky(objects.list_keys, lambda where, prefix: prefix == "run/layout")
    monkeypatch.setattr(objects, "list_keys", flaky)
    progress = run_shards(store, Failing(lambda task: "memory" if next(calls) == 5 else None))
    assert (progress.failed, progress.shards_done) == ({}, progress.n_shards)
    assert flaky.n > 4
    monkeypatch.undo()
    assert check(store.address) == []


def test_a_hang_is_ended_again_after_a_report_that_came_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.driver.LOOK_S", 0.0)

    class Silent(SerialExecutor):
        ended = 0

        def signs(self):
            return {(0, 1): Sign(None, 1e9)}

        def end(self, attempt, why=None):
            self.ended += 1

    executor = Silent()
    job = spread(changed(POPULATION, "run.time_limit_s", 1.0), 4)
    run_shards(make(tmp_path / "h.zarr", job), executor)
    assert executor.ended > 5


def test_markers_tell_of_all_attempts(tmp_path):
    """Of the time from the first one on, and of the longest advance, which the last one has not made."""
    job = spread(changed(POPULATION, "run", {"slots": 2, "checkpoint_s": 0}), 2)
    store, _ = run(tmp_path / "t.zarr", job)
    ended = {e.shard: e.time for e in read_events(store) if e.kind == "done"}
    for marker in store.committed.markers():
        assert 0 < marker.longest_s < marker.seconds
        assert marker.ended < ended[marker.shard.number] + 0.01
    (layout,) = objects.list_keys(store.objects, "run/layout")
    before = read_sealed(store.objects, layout)["microbatch"]
    objects.delete(store.objects, layout)
    check(store.address, repair=True)
    assert read_sealed(store.objects, layout)["microbatch"] == before


def test_fork_of_a_job_whose_shards_meet(tmp_path):
    bare = changed(POPULATION, "search.size", 8) | {"sweep": [POPULATION["sweep"]]}
    bare["search"]["spread"] = True
    bare = changed(bare, "run.slots", 2)
    grown = bare | {"sweep": [*bare["sweep"], {"grid": {"rate": [0.01 * k for k in range(1, 9)]}}]}
    old, _ = run(tmp_path / "old.zarr", bare)
    assert old.job.plan.n_shards == 4
    new = fork(
        parse_job(grown, "job"), old.job.base, "job", str(tmp_path / "new.zarr"), old, SerialExecutor(1)
    )  # fmt: skip
    progress = run_shards(new, SerialExecutor(1))
    assert (progress.items_before, progress.items_done, progress.failed) == (8, 16, {})
    once, _ = run(tmp_path / "once.zarr", grown)
    same(new, once)


# --- items and shards that fail -------------------------------------------------------------------


def computes_item_4(task):
    return task.shard.start <= 4 < task.shard.stop and 4 not in task.without


@pytest.fixture(scope="module", params=["halving", "tournament"])
def without_one(request, tmp_path_factory):
    """The name of a job, the job, and its store in one shard, of which item 4 fails."""
    quick = {"retries": 0, "backoff_s": 0.0}
    job = JOBS[request.param]
    job = changed(job, "run", job["run"] | quick)
    whole = make(tmp_path_factory.mktemp("store") / "w.zarr", job)
    run_shards(whole, Failing(lambda task: "error" if computes_item_4(task) else None))
    return request.param, job, whole


@pytest.mark.parametrize("from_the_start", [True, False])
def test_an_item_that_fails_is_left_out_and_the_others_start_over(
    tmp_path, wholes, without_one, from_the_start
):
    """Also where it fails only after it has met the others; once it is well again, all are compared."""
    name, job, whole = without_one
    store, seen = make(tmp_path / "s.zarr", spread(job, 9 if name == "halving" else 2)), []

    def fails(task):
        seen.append(task)
        late = sum(computes_item_4(t) and not t.probe for t in seen) > 2
        return "error" if computes_item_4(task) and (from_the_start or late) else None

    progress = run_shards(store, Failing(fails))
    assert (list(progress.failed_items), progress.failed) == ([4], {})
    same(store, whole)

    n_shards = store.job.plan.n_shards
    reconsider(store, failed=True)
    progress = run_shards(store, SerialExecutor(1))
    assert (progress.shards_done, progress.failed_items) == (n_shards, {})
    same(store, wholes[name])


def has_failing(task):
    return {2, 3} & ({*range(task.shard.start, task.shard.stop)} - {*task.without})


def test_a_shard_whose_items_all_fail_takes_part_no_more(tmp_path):
    job = changed(POPULATION, "run", POPULATION["run"] | {"retries": 0, "backoff_s": 0.0})
    whole, store = make(tmp_path / "w.zarr", job), make(tmp_path / "s.zarr", spread(job, 2))
    for here in (whole, store):
        progress = run_shards(here, Failing(lambda task: "error" if has_failing(task) else None))
        assert sorted(progress.failed_items) == [2, 3]
    same(store, whole)


@pytest.fixture(scope="module")
def without_two(tmp_path_factory):
    """A job of two generations, and its store in one shard, of which two items fail."""
    job = changed(POPULATION, "run", POPULATION["run"] | {"retries": 0, "backoff_s": 0.0})
    job = changed(changed(job, "search.generations", 2), "search.every", 20)
    whole = make(tmp_path_factory.mktemp("store") / "w.zarr", job)
    run_shards(whole, Failing(lambda task: "error" if has_failing(task) else None))
    return job, whole


@pytest.mark.parametrize(
    "late", [pytest.param(k, marks=[pytest.mark.endurance] * (k % 3 > 0)) for k in range(6, 14)]
)
def test_all_items_of_a_shard_fail_while_others_are_committed(tmp_path, without_two, late):
    """Those that were committed have met it: they start over without it."""
    job, whole = without_two
    store, calls = make(tmp_path / "s.zarr", spread(job, 2)), iter(range(10**6))
    fails = lambda task: "error" if next(calls) >= late and has_failing(task) else None
    progress = run_shards(store, Failing(fails))
    assert sorted(progress.failed_items) in ([2, 3], [])
    if progress.failed_items:
        same(store, whole)


def test_a_shard_that_is_given_up_takes_its_population_with_it(tmp_path):
    """The other populations of the group end; the next run goes on."""
    job = changed(changed(POPULATION, "sweep.samples", 16), "search.size", 8)
    whole, _ = run(tmp_path / "w.zarr", job)
    store = make(tmp_path / "s.zarr", spread(job, 2))
    progress = run_shards(store, Failing(lambda task: "input" if task.shard.number == 2 else None))
    assert store.committed.numbers() == {4, 5, 6, 7}
    assert progress.failed[2] == "input of 2"
    for k in (0, 1, 3):
        assert progress.failed[k] == (
            "not ended: shard 2, whose items its own are compared with, was given up"
        )
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, whole)


def test_a_search_that_compares_too_late_says_so(tmp_path):
    job = spread(changed(POPULATION, "search.every", 100), 4)
    _, progress = run(tmp_path / "l.zarr", job)
    assert "search.every: the items finish after 60 advances" in progress.failed[0]
    assert sorted(progress.failed) == [0, 1]


def test_check_knows_what_shards_have_left(tmp_path, disturbed):
    job, whole = disturbed
    store, stop = make(tmp_path / "c.zarr", job), Stop()
    run_shards(store, Meddling(4, lambda: stop.ask("test")), stop=stop)
    left = list(objects.list_keys(store.objects, FOLDER))
    assert left
    assert not any(finding.cure for finding in check(store.address))
    data = bytearray(objects.read(store.objects, left[0]))
    data[-1] ^= 1
    objects.write(store.objects, left[0], bytes(data))
    found = [finding for finding in check(store.address, repair=True) if finding.cure]
    assert [(f.key, f.what) for f in found] == [(left[0], "damaged")]
    kept = tmp_path / "kept"
    shutil.copytree(Path(store.address) / FOLDER, kept)
    run_shards(store, SerialExecutor(1))
    same(store, whole)
    shutil.copytree(kept, Path(store.address) / FOLDER)
    assert {f.what for f in check(store.address)} == {"left over: its shard is committed"}


# --- where shards run -----------------------------------------------------------------------------


def test_shards_meet_in_a_bucket(s3, wholes):
    del s3
    address = "s3://lab/spread.zarr"
    job = spread(JOBS["tournament"], 2)
    killed(dies_at_a_meeting, address, job, 6)
    store = Store.open(address)
    assert len(list(objects.list_keys(store.objects, FOLDER))) == 6
    assert run_shards(store, SerialExecutor(1)).failed == {}
    same(store, wholes["tournament"])
