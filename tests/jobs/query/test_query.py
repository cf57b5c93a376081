"""jobs.query.query, jobs.query.tables, jobs.query.aggregate: the answers against pandas, the refusals word by word."""

import gc
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
from messages import refused
from stores import JOB, copied_run, make, run

from ctd.kernel import Var
from jobs.errors import JobError
from jobs.gather.gather import gather, set_gather
from jobs.query import readers
from jobs.query import table as one_table
from jobs.query import tables as module
from jobs.query.aggregate import aggregate, parse_aggregates
from jobs.query.columns import (
    labelled,
)
from jobs.query.query import query, table, tables
from jobs.query.tables import Tables, ask
from jobs.run.prepare import open_or_create
from jobs.run.shards import run_shards
from jobs.run.task import Task
from jobs.run.worker import SerialExecutor
from jobs.spec.job import parse_job
from jobs.storage import objects
from jobs.store.events import Begin, End
from jobs.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return copied_run(tmp_path_factory.mktemp("query") / "q.zarr")


def test_query_tables(store):
    assert tables(store) == ["items", "place", "shards"]
    assert len(table(store, "items")) == 44
    assert list(table(store, "items").columns[:4]) == ["item", "n", "rate", "push"]
    assert len(table(store, "place")) == 6
    assert len(table(store, "shards")) == 8


def test_what_was_read_goes_with_the_store(store):
    other = Store.open(store.address)
    assert len(query(other, "norm > 0")) == 44
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_query_filters_and_sorts_as_pandas(store):
    frame = table(store, "items")
    expected = frame[(frame.norm > 1) & (frame.n == 3)].sort_values("norm", ascending=False)
    found = query(store, where="norm > 1 and n == 3", sort="-norm", limit=4)
    pd.testing.assert_frame_equal(found, expected.head(4).reset_index(drop=True))
    assert set(found.outcome) == {"stopped"}


def test_query_finds_the_table_of_its_columns(store):
    found = query(store, where="best_norm > 0", columns=["n", "best_item"])
    assert list(found.columns) == ["n", "best_item"]
    assert len(found) == 6


def test_query_of_a_table_about_items_has_their_swept_columns(store):
    """Joined by the column whose unit is `item`, for any rows; columns that the table has stay its own."""
    items = table(store, "items").set_index("item")
    found = table(store, "place")
    ids = found["best_item"]
    assert list(found.columns) == ["group", "place", "n", "best_norm", "best_item", "rate", "push"]
    results = [name for name in items if name in store.description.dims]
    assert results == [name for name in store.description.dims if name in results], "its order"
    for name in ("n", "rate", "push"):
        assert found[name].tolist() == items[name][ids].tolist()
    few = query(
        store, "best_norm > 0", table="place", columns="rate, best_item", sort="-rate", limit=2
    )
    assert few["rate"].tolist() == sorted(found["rate"], reverse=True)[:2]
    assert few["rate"].tolist() == items["rate"][few["best_item"]].tolist()


def test_query_takes_names_as_a_list_or_with_commas(store):
    listed = query(store, columns=["item", "norm"], sort="norm", limit=3)
    pd.testing.assert_frame_equal(query(store, columns="item, norm", sort="norm", limit=3), listed)
    pd.testing.assert_frame_equal(query(store, columns="all"), query(store))
    grouped = query(store, group_by=["n"], agg="median(norm), q90(norm)")
    pd.testing.assert_frame_equal(
        query(store, group_by="n", agg="median(norm), q90(norm)"), grouped
    )


def test_query_tells_arrays_from_unknown_columns(store):
    with refused(JobError):
        query(store, where="x > 0")


def test_query_groups_as_pandas(store):
    asked = "median(norm), count(item), max(rate), std(norm), sem(norm), q25(norm), quantile(norm, 0.9), mean(norm > 2), count"
    found = query(store, group_by=["push", "n"], agg=asked, sort="-n, push")
    assert list(zip(found.n, found.push, strict=True)) == [
        (n, push) for n in (5, 3) for push in ("[0, 0]", "[1, -1]")
    ]
    frame = table(store, "items")
    for k, row in found.iterrows():
        norm = frame[(frame.n == row.n) & (frame.push == row.push)].norm.to_numpy(float)
        expected = {
            "median(norm)": np.median(norm),
            "count(item)": 11,
            "max(rate)": 0.5,
            "std(norm)": norm.std(ddof=1),
            "sem(norm)": pd.Series(norm).sem(),
            "q25(norm)": np.quantile(norm, 0.25),
            "quantile(norm, 0.9)": np.quantile(norm, 0.9),
            "mean(norm > 2)": (norm > 2).mean(),
            "count": 11,
        }
        for name, value in expected.items():
            # float32 results of numbers near 3.
            assert found[name][k] == pytest.approx(value, rel=1e-6), name
    whole = query(store, where="n == 3", agg="count, mean(outcome == 'stopped'), count(outcome)")
    assert whole.to_numpy().tolist() == [[22, 1, 22]]
    top = query(
        store, group_by=["rate"], agg="quantile(norm,0.5)", sort="-quantile(norm, 0.5)", limit=2
    )
    assert list(top.columns) == ["rate", "quantile(norm, 0.5)"]
    assert top.iloc[0, 1] > top.iloc[1, 1]


def test_query_reads_only_what_is_named(store, monkeypatch):
    seen = []
    reader = readers._reader
    monkeypatch.setattr(
        readers,
        "_reader",
        lambda array: lambda rows: seen.append(array.basename) or reader(array)(rows),
    )
    store = Store.open(store.address)
    asked = {"where": "norm > 1", "sort": "rate", "columns": ["item", "push[1]"]}
    first = query(store, **asked)
    assert sorted(seen) == ["item", "norm", "push", "rate"]
    seen.clear()
    pd.testing.assert_frame_equal(query(store, **asked), first)
    assert seen == [], "the second time nothing is read"


def test_query_reads_few_rows_alone_and_then_the_column(store, monkeypatch):
    seen = []
    reader = readers._reader
    monkeypatch.setattr(
        readers,
        "_reader",
        lambda array: lambda rows: seen.append((array.basename, rows)) or reader(array)(rows),
    )
    store = Store.open(store.address)
    monkeypatch.setattr(one_table, "FEW", 2)
    monkeypatch.setattr(one_table, "PICKS", 1)
    frame = table(store, "items").sort_values("norm", kind="stable").reset_index(drop=True)
    store = Store.open(store.address)
    seen.clear()
    for limit, read in ((5, ["norm", "steps"]), (6, ["steps"]), (7, [])):
        found = query(store, sort="norm", limit=limit, columns=["steps", "norm"])
        pd.testing.assert_frame_equal(found, frame[["steps", "norm"]].head(limit))
        assert [name for name, _ in seen] == read
        alone = [rows for name, rows in seen if name == "steps"]
        assert all(isinstance(rows, slice) == (limit == 6) for rows in alone)
        seen.clear()


def test_query_of_a_long_table_goes_in_blocks(store, monkeypatch):
    """What is asked does not depend on whether the table is held or read in pieces."""
    asked = [
        {"where": "norm > 2 or push[0] == 1", "sort": "outcome, -norm", "limit": 9},
        {"where": "rate > 0", "group_by": ["push"], "agg": "median(norm), count"},
        {"sort": "-norm", "limit": 3},
        {"limit": 2},
        {"where": "norm < 0"},
    ]
    expected = [query(store, **words) for words in asked]
    store = Store.open(store.address)
    monkeypatch.setattr(one_table, "BLOCK", 8)
    for words, frame in zip(asked, expected, strict=True):
        pd.testing.assert_frame_equal(query(store, **words), frame)
    assert ask(store, lambda tables: tables["items"]._cache) == {}


def test_query_sees_a_new_gather(tmp_path):
    store = copied_run(tmp_path / "g.zarr")
    assert len(query(store, table="place")) == 6
    set_gather(store, ["top=2"])
    gather(store)
    assert len(query(store, table="place")) == 4


def test_query_while_the_job_runs(tmp_path, monkeypatch):
    store = make(tmp_path / "w.zarr")
    with refused(JobError):
        query(store)
    assert query(store, table="place").empty
    with monkeypatch.context() as patch:
        stopped = [Begin(), End(stopped="Ctrl-C", ended=4)]
        patch.setattr("jobs.store.look.read_events", lambda store: stopped)
        with refused(JobError):
            query(store)
    executor = SerialExecutor(1)
    executor.start(store.address)
    for k, shard in enumerate(list(store.job.plan.shards())[5:7]):
        executor.submit(Task(shard))
        assert executor.wait(0)[0].error is None
        assert len(query(store, where="n == 5")) == [6, 12][k]


def test_query_while_a_shard_is_committed(tmp_path, monkeypatch):
    """The kernel's tables are made from the shards of `items`, not from those that come while they are made."""
    store, module = make(tmp_path / "c.zarr"), sys.modules["jobs.gather.gather"]
    executor, shards = SerialExecutor(1), list(store.job.plan.shards())
    executor.start(store.address)
    reduce_group = module.reduce_group

    def committed_meanwhile(*given):
        executor.submit(Task(shards[1]))
        assert executor.wait(0)[0].error is None
        reduce_group(*given)

    monkeypatch.setattr(module, "reduce_group", committed_meanwhile)
    executor.submit(Task(shards[0]))
    assert executor.wait(0)[0].error is None
    gather(store)
    arrays = [store.root[name][...] for name in ("items/item", "gathered/0/best_item")]
    assert set(arrays[1]) <= set(arrays[0])


def test_query_while_another_process_gathers(tmp_path, monkeypatch):
    """What was read of half-written tables is no answer; the question is asked again."""
    store = copied_run(tmp_path / "h.zarr")
    other = Store.open(store.address)
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    monkeypatch.setattr(module, "WAIT_S", 0)
    tried = []

    def question(tables: Tables, upsets: int):
        found = tables["items"].read("norm")
        tried.append(len(found))
        if len(tried) <= upsets:
            other.array(0, "norm")[...] = 1.0
            objects.delete(other.objects, "run/sums/gathered.json")
            gather(other)
        return found

    assert (ask(store, lambda tables: question(tables, 2))[:22] == 1).all()
    assert len(tried) == 3
    with refused(JobError):
        ask(store, lambda tables: question(tables, 1000))

    def fails(tables: Tables):
        question(tables, 1000)
        raise OSError("too many levels of links")

    with refused(JobError):
        ask(store, fails)


def test_query_of_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    """Another's store is answered from as it was gathered; where it never was, that is said."""

    def denied(store):
        raise PermissionError(13, "Permission denied")

    store = copied_run(tmp_path / "r.zarr")
    monkeypatch.setattr(module, "require_rows", denied)
    with refused(JobError):
        query(store)
    gather(store)
    assert len(query(store)) == 44
    # While its owner gathers, or after a gather that was killed.
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    monkeypatch.setattr(module, "WAIT_S", 0)
    objects.delete(store.objects, "run/sums/gathered.json")
    for asked in (store, Store.open(store.address)):
        with refused(JobError):
            query(asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"where": "nrm > 1"},
        {"sort": "-nrm"},
        {"columns": ["nrm"]},
        {"where": "push[2] > 1"},
        {"table": "itms"},
        {"where": "norm >"},
        {"where": "norm"},
        {"where": "norm > 'a'"},
        {"where": "__import__('os').system('x')"},
        {"group_by": ["n"]},
        {"group_by": ["nn"], "agg": "count"},
        {"group_by": ["n"], "agg": "count", "sort": "norm"},
        {"group_by": ["n"], "agg": "median(outcome)"},
        {"group_by": ["n"], "agg": "medan(norm)"},
        {"group_by": ["n"], "agg": "norm"},
        {"group_by": ["n"], "agg": "count, q5(norm)"},
        {"agg": "var(norm)"},
        {"group_by": ["n"], "agg": "quantile(norm)"},
        {"group_by": ["n"], "agg": "quantile(norm, 90)"},
        {"group_by": ["n"], "agg": "median(norm"},
        {"group_by": ["n"], "agg": "mean(__import__('os'))"},
        {"group_by": ["n"], "agg": "().__class__()"},
    ],
)
def test_query_refuses(store, asked):
    with refused(JobError):
        query(store, **asked)


@pytest.mark.parametrize("name", ["n_steps", "zzz", "task", "norm desc", "norm asc", "speed"])
def test_hints_at_what_an_unknown_column_may_mean(store, monkeypatch, name):
    monkeypatch.setitem(store.description.dims, "speed", Var((), "m", "distance a step"))
    found = module.tables_of(store)
    found.refresh()
    # As where stores differ in a field of a mapping.
    monkeypatch.setitem(found["items"].reads, "task.name", found["items"].reads["item"])
    with refused(JobError):
        query(store, sort=name)


@pytest.mark.parametrize("asked", [{"where": "outcome == arrived"}, {"columns": "arrived"}])
def test_a_word_may_be_meant_as_a_text_in_a_condition_alone(store, asked):
    with refused(JobError):
        query(store, **asked)


def test_aggregates_of_no_rows_are_a_row(store):
    assert query(store, "item == 3", agg="sem(norm)").isna().to_numpy().tolist() == [[True]]
    (row,) = query(store, "norm < 0", agg="count, sum(norm), mean(norm)").to_dict("records")
    assert row["count"] == 0
    assert np.isnan([row["mean(norm)"], row["sum(norm)"]]).all()
    found = query(store, agg="sum(n + 0 / (n - 3)), sum(n)", group_by="n")
    assert found.isna().sum().tolist() == [0, 1, 0]
    assert not len(query(store, "norm < 0", agg="count", group_by="n"))


def test_aggregates_say_how_many_nan_they_leave_out(store):
    asked = "mean(norm + 0 / (n - 3)), max(norm + 0 / (n - 3)), mean(norm), count(norm / 0), std(n)"
    found = query(store, agg=asked, group_by="push")
    assert found.attrs["notes"] == ["norm + 0 / (n - 3): 22 of 44 NaN left out"]


def test_aggregates_say_how_many_failed_items_count(tmp_path):
    """Unless the question sets them apart, or they have no value."""
    rates = [-0.5, 0.5, 1e30, 1e31, 1e32, 1e33, 1e34]
    ends, _ = run(tmp_path / "ends.zarr", {**JOB, "sweep": {"grid": {"rate": rates}}})
    said = lambda *where, **asked: query(ends, *where, **asked).attrs["notes"]
    leave = "--where \"status == 'done'\" leaves them out"
    assert said(agg="mean(norm), count") == [f"5 of 7 counted items failed (diverged); {leave}"]
    assert said("rate < 1e31", agg="min(norm)", group_by="rate") == [
        f"1 of 3 counted items failed (diverged): 1 of 1 in rate 1e30; {leave}"
    ]
    [many] = said(agg="mean(norm)", group_by="rate")
    assert ": 1 of 1 in rate 1e30, 1 of 1 in rate 1e31, 1 of 1 in rate 1e32 and 2 more groups; " in many  # fmt: skip
    assert not said("status != 'dropped'", agg="mean(norm)")
    assert not said(agg="mean(norm)", group_by="outcome")
    # Whole numbers and conditions are never NaN, so that they count too; a count counts what is asked of it.
    for counted in ("mean(steps)", "mean(norm < 1)"):
        assert said(agg=counted) == [f"5 of 7 counted items failed (diverged); {leave}"]
    assert not said(agg="mean(status == 'failed'), mean(outcome == 'diverged'), count(norm)")
    without_values = said(agg="mean(norm + 0 * norm)", group_by="rate")
    assert without_values == ["norm + 0 * norm: 5 of 7 NaN left out"]


def test_aggregates_are_called_as_written():
    labels = [entry.label for entry in parse_aggregates("q95( x ),quantile(x,.9), mean(a>1)")]
    assert labels == ["q95(x)", "quantile(x, 0.9)", "mean(a > 1)"]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        (np.array([np.nan, 2, 1, 2], np.float16), [1.0, 2.0, np.nan]),
        (np.array([1, 2j, 1]), [2j, 1 + 0j]),
        (np.array([True, False]), [False, True]),
        (np.array([], np.uint8), []),
        (labelled(np.array([0, -1, 1, 0]), ["b", "a"]), ["a", "b", ""]),
        (labelled(np.array([0]), ["b"]), ["b"]),
    ],
)
def test_rows_are_grouped_by_values_of_any_kind(column, keys):
    """Pandas has no index of float16, and takes as many Categoricals as rows for labels."""
    table = one_table.Table(len(column), {"key": column.__getitem__})
    found = aggregate(table, slice(None), ["key"], parse_aggregates("count"))
    assert repr(found["key"].tolist()) == repr(keys)
    assert found["count"].sum() == len(column)
    assert found["key"].dtype == getattr(column, "dtype", found["key"].dtype)


# --- lists and mappings among what is swept -------------------------------------------------------

MAPPED = """
import numpy as np

from ctd.kernel import Display, Params, Static, Tables, Traced, Var, one_shot
from ctd.tasks import AnyTask, Decision


class Item(Params):
    task: Static[AnyTask] = Decision()
    layers: Static[tuple[int, ...]] = (1,)
    x: Traced[float] = 0.0
    push: Traced[tuple[float, ...]] = (0.0, 0.0)


def reduce(inputs, shared, columns, results, options):
    steps = np.float32([inputs.task.n_steps / 10, 0])
    y = np.sort(results["y"])[::-1][:2]
    return {"largest": y, "tenth": np.tile(steps, (2, 1)), "alike": np.ones((2, 2)), "both": np.ones((2, 2))}


kernel = one_shot(
    "mapped", Item, {"y": Var(), "z": Var()},
    lambda static, shared, traced, key: {"y": traced.x * static.task.n_steps + traced.push[0], "z": traced.x * (1 + 2j)},
    display=Display(summary=("largest", "tenth", "alike")),
    tables=Tables(reduce, {"largest": Var(("place",)), **{name: Var(("place", "part")) for name in ("tenth", "alike", "both")}}),
)
"""


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mapped")
    (folder / "mapped_kernel.py").write_text(MAPPED)
    grid = {
        "task": [{"name": "decision", "n_steps": 5}, {"name": "decision", "n_steps": 7}],
        "layers": [[1, 2], [3]],
        "x": [1.0, 2.0],
        "push": [[0.5, 0], [-1, 1e-3]],
    }
    spec = parse_job({"kernel": "mapped_kernel", "sweep": {"grid": grid}}, "job")
    executor = SerialExecutor(1)
    store = open_or_create(spec, str(folder), "job", str(folder / "m.zarr"), executor)
    run_shards(store, executor)
    return store


def test_query_mapping_has_columns_of_its_fields(mapped):
    frame = table(mapped, "items")
    # Only what differs is shown, and the name.
    assert [c for c in frame.columns if c.startswith("task")] == ["task.name", "task.n_steps"]
    assert set(frame["task.name"]) == {"decision"}
    np.testing.assert_allclose(frame.y, frame.x * frame["task.n_steps"] + [0.5, -1] * 8)
    found = query(mapped, where="task.n_steps == 7 and task.duration == 1", columns=["y"])
    assert len(found) == 8
    groups = query(mapped, group_by=["task.n_steps", "layers"], agg="max(y)", sort="-task.n_steps")
    assert groups.to_numpy().tolist() == [
        [7, "[1, 2]", 14.5], [7, "[3]", 14.5], [5, "[1, 2]", 10.5], [5, "[3]", 10.5],
    ]  # fmt: skip
    reduced = query(mapped, where="largest > 11", columns=["task.n_steps", "layers[0]"])
    assert reduced.to_numpy().tolist() == [[7, 1]] * 2 + [[7, 3]] * 2


def test_rows_of_a_reduction_have_numbers_and_lists(mapped):
    """Their number in the group; lists that the kernel's summary names, shown where they differ, by the shortest decimals."""
    found = table(mapped, "place")
    assert list(found.columns)[:2] == ["group", "place"]
    assert found["place"].tolist() == [0, 1] * 4
    assert set(found["tenth"]) == {"[0.5, 0]", "[0.7, 0]"}
    assert "alike" not in found
    few = query(mapped, "tenth[0] > 0.6", table="place", columns="place, alike", limit=3)
    assert few.to_numpy().tolist() == [[0, "[1, 1]"], [1, "[1, 1]"], [0, "[1, 1]"]]


@pytest.mark.parametrize("name", ["x", "both"])
def test_hints_at_what_a_table_lacks(mapped, name):
    with refused(JobError):
        query(mapped, table="place", columns=["largest", name])


def test_query_of_complex_numbers(mapped):
    """They have a mean and no order."""
    (row,) = query(mapped, agg="mean(z)", table="items").to_dict("records")
    x = query(mapped, columns="x", table="items").x
    assert row["mean(z)"] == pytest.approx(x.mean() * (1 + 2j))
    for of in ("min(z)", "median(z)", "q95(z)", "std(z)"):
        with refused(JobError):
            query(mapped, agg=of, table="items")


def test_query_list_is_text_and_elements(mapped):
    frame = table(mapped, "items")
    assert set(frame.push) == {"[0.5, 0]", "[-1, 0.001]"}
    assert set(frame.layers) == {"[1, 2]", "[3]"}
    assert len(query(mapped, where="push[1] > 0 and layers[0] == 3")) == 4
    assert len(query(mapped, where="isnan(layers[1])")) == 8
    assert len(query(mapped, where="push == '[0.5, 0]'")) == 8
    with refused(JobError):
        query(mapped, where="push > 0")
