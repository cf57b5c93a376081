"""The table `search` of a searched store, against its arrays row by row and a walk through the ancestors."""

import numpy as np
import pytest
from failing import Failing
from fuzzing import JOB as ESN  # its programs are there
from messages import refused
from search_jobs import HALVING, POPULATION, changed, cut, results
from stores import copied_run, make, run

import jobs
from jobs import keys
from jobs.errors import JobError
from jobs.gather.gather import gather
from jobs.query.columns import as_array, decode
from jobs.query.query import query, tables
from jobs.report.search_plots import descent
from jobs.run.shards import run_shards
from jobs.storage import objects


def population_rows(found, items):
    return [
        (item, g, found["search_metric"][k, g], found["search_parent"][k, g], found["search_rate"][k, g])
        for k, item in enumerate(items)
        for g in range(found["search_metric"].shape[1])
        if found["search_parent"][k, g] >= 0
    ]  # fmt: skip


def halving_rows(found, items):
    return [
        (item, rung, found["search_metric"][k, rung])
        for k, item in enumerate(items)
        for rung in range(found["search_metric"].shape[1])
        if rung <= found["search_rung"][k]
    ]


SEARCHES = {
    "halving": (HALVING, halving_rows, ["item", "rung", "loss"]),
    "population": (POPULATION, population_rows, ["item", "generation", "loss", "parent", "rate"]),
}


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("fails", [None, 4])
def test_table_has_a_row_for_every_comparison(tmp_path, kind, fails):
    """An item that failed with an error has none, whatever the fill values of its results are."""
    job, rows, names = SEARCHES[kind]
    store = make(tmp_path / "t.zarr", changed(job, "run.retries", 0))
    bad = lambda task: (
        fails is not None
        and task.shard.start <= fails < task.shard.stop
        and fails not in task.without
        and "error"
    )
    run_shards(store, Failing(bad))
    found = results(store)
    items = [k for k in range(len(found["search_metric"])) if k != fails]
    expected = rows({name: values[items] for name, values in found.items()}, items)
    frame = jobs.open_store(store.address).table("search")
    assert {*frame.columns} == {*names, "rate"}, "what is swept is joined"
    if kind == "halving":
        swept = query(store).set_index("item").rate
        assert frame.rate.tolist() == swept[frame.item].tolist()
    assert len(frame) > len(items)
    np.testing.assert_array_equal(frame[names].to_numpy(float), np.array(expected, float))


def test_a_member_is_followed_to_its_ancestors(tmp_path):
    """Over several shards; what docs/search.md does, against the walk that reports draw."""
    store, _ = run(tmp_path / "p.zarr", cut(POPULATION, 4))
    tree = jobs.open_store(store.address)
    members = tree.table("search").set_index(["item", "generation"])
    best = item = int(tree.query(sort="loss", limit=1).item[0])
    parents = results(store)["search_parent"]
    for generation, expected in reversed(list(enumerate(descent(parents, best)))):
        assert ((item, generation) in members.index) == (expected >= 0)
        if expected >= 0:
            assert item == expected
            item = members.parent[item, generation]


def test_table_is_asked_as_every_other(tmp_path):
    store = copied_run(tmp_path / "q.zarr", POPULATION)
    gather(store)
    assert tables(store) == ["items", "search", "shards"]
    found = query(store, group_by=["generation"], agg="min(loss), count", sort="generation")
    assert found.attrs["table"] == "search"
    metric = results(store)["search_metric"]
    np.testing.assert_array_equal(found["min(loss)"], np.nanmin(metric, axis=0)[: len(found)])
    some = query(store, table="search", where="item == 3 and parent != item")
    parents = results(store)["search_parent"][3]
    assert some.generation.tolist() == np.flatnonzero((parents != 3) & (parents >= 0)).tolist()
    rows = query(store, table="search", group_by="item", agg="count", sort="item")
    assert rows["count"].tolist() == (results(store)["search_parent"] >= 0).sum(axis=1).tolist()


def test_texts_that_a_search_chooses_are_texts(tmp_path):
    """A field that is compiled in; in a collection, the other stores have none."""
    search = {"method": "optuna", "metric": "replay_nrmse", "trials": 4, "sampler": "random"}
    search["params"] = {"topology": {"choice": ["gaussian", "ring"]}}
    store, _ = run(tmp_path / "o.zarr", {**ESN, "sweep": {}, "search": search})
    falling = query(store, table="search", sort="-topology").topology.tolist()
    assert falling == sorted(query(store, table="search").topology, reverse=True)
    assert set(falling) == {"gaussian", "ring"}
    assert query(store, "topology != 'ring'", table="search").topology.eq("gaussian").all()
    copied_run(tmp_path / "p.zarr", POPULATION)
    found = jobs.open_stores([tmp_path]).query(table="search")
    assert set(found.topology[found.store == "p"]) == {""}


def test_a_table_about_items_has_what_was_searched(tmp_path):
    search = {"method": "optuna", "metric": "norm", "trials": 4, "sampler": "random"}
    search["params"] = {"rate": {"uniform": [0, 0.5]}}
    store, _ = run(tmp_path / "s.zarr", {"kernel": "toy", "search": search})
    gather(store)
    found, proposed = query(store, table="place"), query(store, table="items")
    assert list(found.columns) == ["group", "place", "best_norm", "best_item", "seed", "rate"]
    assert found.rate.tolist() == proposed.rate[found.best_item].tolist()


def test_the_name_is_taken_where_there_is_a_search(tmp_path):
    best = {"name": "best", "by": "loss", "k": 1, "table": "search"}
    job = POPULATION | {"gather": {"reductions": [best]}}
    with refused(JobError):
        make(tmp_path / "r.zarr", job)
    plain, _ = run(tmp_path / "n.zarr", changed(POPULATION, "search", None))
    assert "search" not in tables(plain)
    with refused(JobError):
        query(plain, table="search")


def test_an_outcome_that_the_kernel_does_not_have_is_shown_by_its_number():
    """A blank would be an item that has not ended."""
    attrs = {"flag_values": [0, 1], "flag_meanings": "fixed wanders"}
    found = decode(np.array([1, -1, 7, 2, 7], np.int32), attrs)
    assert as_array(found).tolist() == ["wanders", "", "outcome 7", "outcome 2", "outcome 7"]


def test_a_search_without_an_item_says_what_it_has(tmp_path):
    store = make(tmp_path / "h.zarr", HALVING)
    objects.create(store.objects, keys.decision(0, 0), b"{}")
    with refused(JobError):
        query(store)
