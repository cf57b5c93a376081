"""Compiled-in fields that Optuna chooses from a list: one study over the groups, and rows that none of its items took."""

import numpy as np
import optuna
import pytest
from failing import Failing, Nodes, in_lap
from killing import middle, stopped_at_writes
from messages import refused
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_jobs import DECISIONS, HALVING, RATE, ROUNDS, changed, cut, left, results
from stores import BASE, make, run, tree_bytes

from jobs import open_store
from jobs.errors import JobError
from jobs.exports.runs import read_runs
from jobs.exports.studies import write_study
from jobs.gather.check import check
from jobs.gather.gather import gather
from jobs.inputs.items import item_arrays, item_params, place_of
from jobs.query.best import require_metric
from jobs.query.collection import StoreCollection
from jobs.report.page import Content
from jobs.report.page.several import several
from jobs.report.summary import state
from jobs.run.fork import fork
from jobs.run.shards import reconsider, run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.storage.checksums import checksummed, read_verified
from jobs.store.card import write_card
from jobs.store.groups import columns_of
from jobs.store.look import Look
from jobs.store.store import Store

PLAIN = HALVING | {
    "sweep": {},
    "params": HALVING["params"] | {"steps": 20},
    "run": HALVING["run"] | {"retries": 0},
    "search": {
        "method": "optuna", "metric": "loss", "trials": 18, "together": 4,
        "params": {"rate": RATE, "n": {"choice": [2, 3, 5]}},
    },
}  # fmt: skip
PRUNED = changed(PLAIN, "search.prune", {"min_advances": 2, "eta": 3})
JOBS = {name: cut(job, 4) for name, job in {"plain": PLAIN, "prune": PRUNED}.items()}
LAWS = {"rate": FloatDistribution(1e-3, 0.9, log=True), "n": CategoricalDistribution([2, 3, 5])}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of the job that prunes, finished and gathered; that of the other one lacks its rungs alone."""
    store, progress = run(tmp_path_factory.mktemp("g") / "whole.zarr", JOBS["prune"])
    assert (progress.n_items, progress.items_done, progress.failed) == (18, 18, {})
    gather(store)
    return store


def by_item(store):
    """The results of each item, from the group that has it."""
    found = {}
    for group in range(3):
        here = results(store, group)
        for row in np.flatnonzero(here["status"]):
            assert row not in found, "an item is in two groups"
            one = {k: v[row] for k, v in here.items() if k != "x"}
            found[int(row)] = one | {"group": group, "x": here["x"][row]}
    return found


def test_one_study_proposes_over_all_groups(whole):
    """Its proposals are those of Optuna alone, told in the same order; the group of an item is that of its proposal."""
    items, at = by_item(whole), [2, 3, 5]
    assert sorted(items) == list(range(18))
    assert len({one["group"] for one in items.values()}) == 3
    assert all(len(one["x"]) == at[one["group"]] for one in items.values())
    sampler = optuna.samplers.TPESampler(seed=5, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    first = [study.ask(LAWS) for _ in range(4)]
    for row, trial in enumerate(first):
        assert items[row]["final_rate"] == trial.params["rate"]
        assert at[items[row]["group"]] == trial.params["n"]


def test_a_log_that_is_refused_costs_no_committed_shard(tmp_path):
    """As where another version of Optuna proposes otherwise: what was told after that decision is not known."""
    # So many that a stop comes before their end, though a compiled shard takes milliseconds.
    store, stop = make(tmp_path / "r.zarr", changed(JOBS["plain"], "search.trials", 400)), Stop()
    run_shards(store, SerialExecutor(1), lambda p: p.shards_done >= 6 and stop.ask("test"), stop)
    before = store.committed.numbers()
    found = {key: read_verified(store.objects, key) for key in sorted(left(store, DECISIONS))}
    key = [key for key, one in found.items() if one["asked"]][1]
    content = {k: v for k, v in found[key].items() if k != "sha256"}
    content["asked"]["length"] += 1
    objects.write(store.objects, key, checksummed(content))
    progress = run_shards(Store.open(store.address), SerialExecutor(1))
    assert {"the search decided differently" in text for text in progress.failed.values()} == {True}
    assert Store.open(store.address).committed.numbers() == before


def test_kernels_see_what_was_proposed_as_if_it_were_swept(whole):
    rows = results(whole, 1)["status"] == 1
    columns = columns_of(whole, 1, rows)
    assert "rate" in list(columns)
    proposed = whole.rows(1, "final_rate", 0, len(rows))[rows]
    assert len(set(proposed)) > 1
    np.testing.assert_array_equal(columns["rate"], proposed)


def test_a_page_of_several_stores_lists_what_was_searched_as_ls_does(whole):
    found = several([Content(whole).all()] * 2, StoreCollection([whole, whole]))
    (told,) = (column["values"] for column in found["differing"] if column["name"] == "swept")
    assert told == [", ".join(write_card(Look(whole)).swept)] * 2
    assert told[0].startswith("rate, ")


def test_readers_count_and_show_the_items_alone(whole):
    """18 items and not 54, wherever they are counted."""
    items = by_item(whole)
    found = state(Look(whole))
    assert (
        found["items_done"] + found["items_dropped"] + found["items_failed"] == found["items"] == 18
    )
    assert found["complete"]
    assert check(whole.address) == []
    opened = open_store(whole.address)
    table = opened.table()
    assert table.item.tolist() == list(range(18))
    assert table.n.tolist() == [[2, 3, 5][items[k]["group"]] for k in range(18)]
    np.testing.assert_array_equal(table.loss, [items[k]["loss"] for k in range(18)])
    assert set(opened.table("search").groupby("item").n.nunique()) == {1}
    assert opened.query(agg="count", group_by="n")["count"].sum() == 18
    for k in (0, 17):
        assert item_params(whole, k)["n"] == [2, 3, 5][items[k]["group"]]
        assert len(item_arrays(whole, k, "results")["x"]) == item_params(whole, k)["n"]
        assert place_of(whole, k)[0] == items[k]["group"]
    page = Content(whole).results()
    (listed,) = [t for t in page["tables"] if t["name"] == "items"]
    assert listed["n"] == 18
    said = [group["items"].split() for group in page["groups"] if "of 18 items" in group["items"]]
    assert sum(int(words[0]) for words in said) == 18


def test_the_study_is_exported_with_what_was_chosen(whole, tmp_path):
    goal, (_, runs) = require_metric(whole, "--metric"), read_runs(whole)
    journal = str(tmp_path / "s.log")
    assert write_study(journal, "s", whole, runs, goal) == (18, 0)
    storage = JournalStorage(JournalFileBackend(journal))
    study = optuna.load_study(study_name="s", storage=storage)
    items = by_item(whole)
    assert [t.params["n"] for t in study.trials] == [
        [2, 3, 5][items[k]["group"]] for k in range(18)
    ]
    assert {t.distributions["n"] for t in study.trials} == {LAWS["n"]}


def test_items_that_failed_are_tried_again_in_their_group(tmp_path, whole):
    row = max(k for k, one in by_item(whole).items() if one["status"] == 1)
    store = make(tmp_path / "f.zarr", JOBS["prune"])
    progress = run_shards(store, Failing(in_lap(1, row)))
    assert (list(progress.failed_items), progress.items_done) == ([row], 18)
    found = state(Look(store))
    assert (found["items_done"] + found["items_dropped"], found["items_failed"]) == (17, 1)
    assert check(store.address) == []
    before = by_item(store)
    reconsider(store, failed=True)
    again = Failing(lambda task: None)
    run_shards(store, again)
    assert {tuple(t.step.round.rows) for t in again.seen if t.step.search_results is None} == {
        (row,)
    }
    after = by_item(store)
    assert after[row]["group"] == before[row]["group"]
    np.testing.assert_equal({**after, row: None}, {**before, row: None})
    np.testing.assert_equal(after[row], by_item(whole)[row])
    assert check(store.address) == []


@pytest.mark.endurance
def test_several_workers_over_several_groups(tmp_path, monkeypatch):
    """Rounds of all groups run at a time; every item ends, once."""
    rng = np.random.default_rng(0)
    executor = Nodes(4, lambda task: rng.uniform(0.1, 3))
    store = make(tmp_path / "n.zarr", JOBS["prune"])
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: executor.now)
        progress = run_shards(store, executor)
    assert (progress.items_done, progress.failed) == (18, {})
    assert sorted(by_item(store)) == list(range(18))
    assert check(store.address) == []
    assert left(store) == []


def test_points_of_a_sweep_have_a_study_each(tmp_path):
    job = changed(JOBS["plain"], "sweep", {"zip": {"noise": [0.0, 0.05], "steps": [10, 20]}})
    job = changed(job, "search.trials", 9)
    store, progress = run(
        tmp_path / "s.zarr",
        changed(changed(job, "params.noise", None), "params", {"dtype": "float64"}),
    )
    assert (progress.n_items, progress.items_done, progress.failed) == (18, 18, {})
    table = open_store(store.address).table()
    assert len(table) == 18
    assert set(table.groupby(["noise", "steps"]).size()) == {9}
    assert set(table.n) == {2, 3, 5}


@pytest.mark.parametrize("lost", ["later", pytest.param("all", marks=pytest.mark.endurance)])
def test_decisions_that_are_lost_leave_no_item_in_two_groups(tmp_path, monkeypatch, lost):
    """Several workers decide otherwise the second time: shards that rest on lost decisions are computed again."""
    store, executor = make(tmp_path / "l.zarr", JOBS["plain"]), None
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        executor, stop = Nodes(4, lambda task, rng=rng: rng.uniform(0.1, 3)), Stop()

        def enough(progress, stop=stop, seed=seed):
            if seed == 0 and progress.shards_done >= 11:
                stop.ask("test")

        with monkeypatch.context() as patch:
            patch.setattr("time.monotonic", lambda executor=executor: executor.now)
            progress = run_shards(store, executor, enough, stop)
        if seed == 0:
            assert 0 < progress.shards_done < progress.n_shards
            log = sorted(left(store, DECISIONS))
            for key in log if lost == "all" else log[-4:-3]:
                objects.delete(store.objects, key)
            store = Store.open(store.address)
    assert (progress.items_done, progress.shards_done) == (18, progress.n_shards)
    assert sorted(by_item(store)) == list(range(18))
    assert check(store.address) == []


def test_fork_keeps_whole_studies(tmp_path):
    grid = lambda *steps: [{"grid": {"steps": [k]}} for k in steps]
    job = changed(changed(JOBS["plain"], "params", {"dtype": "float64"}), "search.trials", 9)
    old, _ = run(tmp_path / "a.zarr", changed(job, "sweep", grid(10)))
    grown = parse_job(changed(job, "sweep", grid(10, 20)), "job")
    store = fork(grown, BASE, "job", str(tmp_path / "b.zarr"), old, SerialExecutor(1))
    executor = Failing(lambda task: None)
    progress = run_shards(store, executor)
    assert (progress.n_items, progress.items_done) == (18, 18)
    assert min(task.shard.group for task in executor.seen) == 3
    before, after = by_item(old), open_store(store.address).table()
    np.testing.assert_array_equal(after.loss[:9], [before[k]["loss"] for k in range(9)])
    assert len(after) == 18
    more = parse_job(changed(job, "search.trials", 12), "job")
    with refused(JobError):
        fork(more, BASE, "job", str(tmp_path / "c.zarr"), old, SerialExecutor(1))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.endurance)])
def test_stopped_at_writes(monkeypatch, tmp_path, every):
    """From each write on, or from one of each kind, it comes to the same bytes; half of the trials are enough."""
    store = make(tmp_path / "s.zarr", changed(JOBS["prune"], "search.trials", 9))
    states = stopped_at_writes(store, tmp_path, monkeypatch, every)
    kinds = middle(states, f"put {DECISIONS}", f"put {ROUNDS}", "put results", "put run/done")
    assert {one["group"] for one in by_item(store).values()} == {0, 1, 2}
    whole = tree_bytes(store.address)
    computed = lambda tree: {key: data for key, data in tree.items() if key.startswith("results")}
    for what, copy in states if every == 1 else kinds:
        try:
            again = Store.open(str(copy))
            searched = len(again.committed.numbers()) == again.job.plan.n_shards
            run_shards(again, SerialExecutor(1))
            # Where the search went on, tables are made of these results, as tests of gathers show.
            if not searched and every > 1:
                assert computed(tree_bytes(again.address)) == computed(whole)
                continue
            gather(again)
            assert tree_bytes(again.address) == whole
        except Exception as error:
            error.add_note(f"stopped before {what}")
            raise


@pytest.mark.parametrize(
    "params",
    [
        {"n": {"integers": [2, 5]}},
        {"n": {"choice": [2, -3]}},
        {"n": {"choice": [[2], [3]]}},
        {"rate": {"choice": ["fast"]}},
    ],
)
def test_lists_that_are_refused(tmp_path, params):
    with refused(JobError):
        make(tmp_path / "r.zarr", changed(PLAIN, "search.params", {"rate": RATE} | params))
