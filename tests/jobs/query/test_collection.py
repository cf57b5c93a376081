"""jobs.query.collection: several stores asked as one, against the tables of each by pandas."""

import numpy as np
import pandas as pd
import pytest
from messages import refused
from stores import JOB, copied_run, make, run

import jobs
from jobs.errors import JobError
from jobs.query.best import best, rows_of, table_of
from jobs.query.collection import StoreCollection, _in_words, short_names
from jobs.query.query import query, table, tables
from jobs.query.table import Table
from jobs.report.page import Content, several
from jobs.store.roles import Metric
from jobs.store.store import Store

GRID = JOB["sweep"]["grid"]
SETS_N = {
    **JOB,
    "seed": 6,
    "params": {"n_steps": 5, "n": 5},
    "sweep": {"grid": {"rate": [0.5, 0.7], "push": GRID["push"]}},
}
"""A job that sets what JOB sweeps (n), and has other steps and another seed."""
STARTS = {**SETS_N, "params": {"n_steps": 7, "n": 3, "push": [1, -1]}, "sweep": {"seeds": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    copied_run(folder / "a.zarr")
    run(folder / "b.zarr", SETS_N)
    run(folder / "deep" / "c.zarr", STARTS)
    return folder


@pytest.fixture(scope="module")
def collection(folder):
    return jobs.open_stores(str(folder))


@pytest.fixture(scope="module")
def frames(collection):
    """The items of each store by its label, as one store alone answers."""
    return {
        label: jobs.open_store(store.address).table()
        for label, store in zip(collection.labels, collection.stores, strict=True)
    }


def test_collection_has_the_rows_of_all_and_what_differs(collection, frames):
    found = collection.table()
    assert found.columns[:2].tolist() == ["store", "item"]
    assert found.store.tolist() == [label for label, frame in frames.items() for _ in frame.item]
    for label, frame in frames.items():
        own = found[found.store == label]
        for name in frame:
            np.testing.assert_array_equal(own[name], frame[name], err_msg=f"{name} of {label}")
    set_ones = found.drop_duplicates("store").set_index("store")
    assert set_ones.n_steps.tolist() == [7, 5, 7], "swept in none of them"
    assert set_ones.job_seed.tolist() == [5, 6, 6]
    assert found[found.store == "b"].n.unique().tolist() == [5], "a sweeps it, b sets it"
    assert found[found.store == "c"].push.unique().tolist() == ["[1, -1]"]
    assert set_ones.seed.isna().tolist() == [True, True, False], "only c has replicates"
    assert "offset" not in found, "it is the same everywhere"


def test_collection_of_one_store(collection):
    store = collection.stores[0]
    alone = StoreCollection([store], labelled=False)
    assert (alone.names(), alone.differing) == (tables(store), {})
    for name in alone.names():
        pd.testing.assert_frame_equal(alone.table(name), table(store, name))
    assert StoreCollection([store]).table().columns[0] == "store", "as of jobs.open_stores"


def test_collection_reads_any_rows_of_any_column(collection, frames):
    whole = pd.concat(frames.values(), keys=frames, names=["store"]).reset_index("store")
    best = collection.query(
        sort="-norm, store, item", limit=9, columns="store, item, norm, push[1]"
    )
    expected = whole.sort_values(["norm", "store", "item"], ascending=[False, True, True])[:9]
    np.testing.assert_array_equal(best[["store", "item"]], expected[["store", "item"]])
    assert best["push[1]"].tolist() == [
        float(text.strip("[]").split(",")[1]) for text in expected.push.fillna("[1, -1]")
    ]
    assert len(collection.query("store == 'a' and push[0] == 0")) == 22
    assert len(collection.query("n_steps == 5")) == len(frames["b"])


def test_collection_aggregates(collection, frames):
    found = collection.query(group_by="store, n", agg="median(norm), count", sort="store,n")
    assert found.store.tolist() == ["a", "a", "b", "c"]
    assert found["count"].tolist() == [22, 22, 4, 3]
    halves = [frames["a"].query("n == 3"), frames["a"].query("n == 5"), frames["b"], frames["c"]]
    assert found["median(norm)"].to_numpy() == pytest.approx([f.norm.median() for f in halves])
    shards = collection.query(table="shards", group_by="store", agg="count")
    assert shards["count"].tolist() == [Store.job.plan.n_shards for Store in collection.stores]


def test_a_store_without_the_table_changes_no_kinds_of_values(folder, monkeypatch):
    collection = jobs.open_stores([folder / "a.zarr", folder / "b.zarr"])
    monkeypatch.setattr(collection._parts[0], "names", lambda: ["items"])
    assert collection.query(table="shards", columns="shard, stop").dtypes.tolist() == [np.int64] * 2


def test_a_parameter_without_a_value_in_any_row_is_missing(folder, monkeypatch):
    """Swept in one store, None in the other; the table of shards has neither."""
    collection = jobs.open_stores([folder / "a.zarr", folder / "b.zarr"])
    monkeypatch.setattr(collection, "_fixed", [{}, {"n": None}])
    found = collection.query(table="shards")
    assert found.n.isna().all()
    assert len(found) == sum(store.job.plan.n_shards for store in collection.stores)


def test_collection_says_in_words_what_differs(folder):
    """Of stores that nobody has asked anything before."""
    told = pd.DataFrame(jobs.open_stores(str(folder)).overview()).set_index("store")
    assert told.n.to_dict() == {"a": "3, 5", "b": "5", "c": "3"}
    assert told.n_steps.to_dict() == {"a": "7", "b": "5", "c": "7"}
    assert told.rate["a"] == "11 values from -0.5 to 0.5"
    assert told.rate["b"] == "0.5, 0.7"


def test_a_value_that_failed_items_lack_is_not_counted():
    items = Table.from_columns({"rate": np.array([np.nan] * 5 + [0.5, 0.25])})
    assert _in_words(items, "rate") == "0.25, 0.5"


def test_the_best_of_each_stand_in_order_with_what_differs(collection, frames):
    by_norm = Metric("norm", more_is_better=True)
    found = {
        k: [best(one, by_norm)] for k, one in zip(collection.labels, collection.stores, strict=True)
    }
    table = table_of(rows_of(found, collection))
    most = {label: frame.norm.max() for label, frame in frames.items()}
    assert table["store"] == sorted(most, key=most.get, reverse=True)
    assert table["norm"] == sorted(most.values(), reverse=True)
    of = lambda name: dict(zip(table["store"], table[name], strict=True))
    assert (of("n_steps"), of("job_seed")) == ({"a": 7, "b": 5, "c": 7}, {"a": 5, "b": 6, "c": 6})
    assert (of("n")["b"], of("rate")["c"]) == (5, 0.5), "set by the job, and by default"
    assert (of("push")["c"], of("seed")["a"]) == ("[1, -1]", "")


def test_a_proposed_parameter_is_joined_to_the_one_that_others_have(folder, tmp_path):
    """Optuna stores `final_rate`; a sweep has `rate`, and so has a store that sets it."""
    search = {"method": "optuna", "metric": "norm", "trials": 3, "sampler": "random", "params": {"rate": {"uniform": [-0.5, 0.5]}}}  # fmt: skip
    run(tmp_path / "tpe.zarr", {**SETS_N, "sweep": {}, "search": search})
    both = jobs.open_stores([tmp_path / "tpe.zarr", folder / "b.zarr"])
    proposed = jobs.open_store(tmp_path / "tpe.zarr").table().rate.tolist()
    found = both.table()
    assert "final_rate" not in found
    assert found.rate.tolist() == [*proposed, *found.rate[3:]]
    assert both.query("rate < 0.5", columns="final_rate").final_rate.tolist() == proposed
    told = dict(zip(both.overview()["store"], both.overview()["rate"], strict=True))
    assert told == {"tpe": ", ".join(f"{v:.4g}" for v in sorted(proposed)), "b": "0.5, 0.7"}
    content = several([Content(store).all() for store in both.stores], both)
    (items,) = [table for table in content["tables"] if table["name"] == "items"]
    columns = {column["name"]: column["values"] for column in items["columns"]}
    assert columns["rate"] == pytest.approx(found.rate.tolist(), rel=1e-4), "five digits"
    names = [name for name in content["sweep"]["parameters"] if "rate" in name]
    assert (names, "final_rate" in columns) == (["rate"], False)
    sets = jobs.open_stores([tmp_path / "tpe.zarr", folder / "deep" / "c.zarr"])
    assert sets.table().rate.tolist() == [*proposed, 0.5, 0.5, 0.5]
    tpe = Store.open(str(tmp_path / "tpe.zarr"))
    assert {"rate"} == {name for name in StoreCollection([tpe] * 2).table() if "rate" in name}
    where = "rate < 0.5"
    assert query(tpe, where, agg="count").attrs["table"] == "items", "search has it, too"
    with refused(JobError):
        query(tpe, where, table="shards")


def test_collection_with_a_store_that_has_no_item_yet(folder, tmp_path):
    empty = make(tmp_path / "empty.zarr", {**SETS_N, "seed": 7})
    both = jobs.open_stores([folder / "b.zarr", tmp_path / "*.zarr"])
    assert len(both.table()) == 4
    assert both.table("place").store.unique().tolist() == ["b"]
    content = several([Content(store).all() for store in both.stores], both)
    assert (content["tables"][0]["name"], content["tables"][0]["n"]) == ("items", 4)
    with refused(JobError):
        jobs.open_stores([empty.address]).query()


@pytest.mark.parametrize(
    "asked",
    [
        {"where": "nrm > 1"},
        {"where": "outcome == 'stoped'"},
        {"table": "itms"},
        {"where": "offset > 0"},
    ],
)
def test_collection_refuses(collection, asked):
    with refused(JobError):
        collection.query(**asked)


def test_short_names_are_as_short_as_they_differ():
    assert short_names(["x/a/r.zarr", "y/a/r.zarr"]) == ["x/a/r", "y/a/r"]
    assert short_names(["x/r.zarr", "x/s.zarr"]) == ["r", "s"]
    assert short_names(["r.zarr"]) == ["r"]
    assert short_names(["x/v0.1", "x/w0.2.zarr"]) == ["v0.1", "w0.2"]
    assert short_names(["r.zarr", "r.zarr"]) == ["r.zarr", "r.zarr"]
