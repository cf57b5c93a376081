"""jobs.gather.tables: tables against pandas, NumPy and SciPy; what is refused, and in which words."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import toy
from fuzzing import JOB as WITH_PROGRAMS  # of tests/test_fuzz.py
from messages import refused
from stores import BASE, JOB, run

from ctd.rows import combinations
from jobs import Store, open_store
from jobs.errors import JobError
from jobs.gather.gather import gather, set_gather
from jobs.gather.tables import MAKERS, Items, reduction_tables
from jobs.query.query import query
from jobs.run.prepare import prepare
from jobs.spec.job import parse_job
from jobs.spec.reductions import Counts, options_of, reductions_of
from jobs.store.arrays import attributes

ASKED = [
    {"name": "best", "by": "norm", "k": 4},
    {"name": "best", "by": "rate", "k": 3, "largest": True, "table": "fastest"},
    {"name": "seeds", "of": "norm", "quantiles": [0.05, 0.5, 0.975]},
    {"name": "seeds", "of": "norm", "over": ["seed", "n"], "table": "both"},
    {"name": "counts", "by": ["n"]},
    {"name": "histogram", "of": "norm", "bins": 7},
    {
        "name": "histogram",
        "of": "norm",
        "bins": 5,
        "log": True,
        "range": [0.1, 10],
        "table": "logs",
    },
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two sizes, four rates of which one makes every item diverge, a tuple, five seeds."""
    sweep = {
        "grid": {"n": [3, 5], "rate": [-0.5, 0.2, 0.9, 1e30], "push": [[0, 0], [1, -1]]},
        "seeds": 5,
    }
    job = {**JOB, "params": {"n_steps": 20}, "sweep": sweep, "gather": {"reductions": ASKED}}
    store, _ = run(tmp_path_factory.mktemp("reductions") / "r.zarr", job)
    gather(store)
    return store


@pytest.fixture(scope="module")
def items(store):
    """The items in pandas, by xarray alone."""
    table = open_store(store.address)["items"].to_dataset()
    frame = pd.DataFrame({n: v.values for n, v in table.variables.items() if v.ndim == 1})
    push = [tuple(row) for row in table["push"].values]
    return frame.assign(push=push, norm=frame.norm.astype(float))


def table(store, name):
    group = store.root[reduction_tables(store)[name]]
    return {n: np.asarray(a[...]) for n, a in group.arrays()}, attributes(group)


def test_reductions_are_labelled_tables(store):
    assert list(reduction_tables(store)) == sorted(
        ["best", "fastest", "seeds", "both", "counts", "histogram", "logs"]
    )
    tree = open_store(store.address)
    assert tree["reduced/seeds"]["mean"].dims == ("seeds",)
    assert tree["reduced/seeds"]["mean"].attrs["long_name"] == "mean of norm"
    assert tree["reduced/seeds"]["push"].dims == ("seeds", "push_index")
    assert set(tree["reduced/seeds"].to_dataset().coords) == {"n", "rate", "push"}
    assert json.loads(tree["reduced/best"].attrs["reduction"])["k"] == 4


@pytest.mark.parametrize(
    ("name", "by", "largest", "k"), [("best", "norm", False, 4), ("fastest", "rate", True, 3)]
)
def test_best_is_that_of_pandas(store, items, name, by, largest, k):
    done = items[(items.status == 1) & np.isfinite(items[by])]
    expected = done.sort_values(by, ascending=not largest, kind="stable").head(k)
    found, _ = table(store, name)
    np.testing.assert_array_equal(found["rank"], np.arange(k))
    for column in ("item", by, "n", "rate", "seed"):
        np.testing.assert_array_equal(found[column], expected[column])


@pytest.mark.parametrize(("name", "over"), [("seeds", ["seed"]), ("both", ["seed", "n"])])
def test_seeds_are_those_of_pandas(store, items, name, over):
    settings = [column for column in ("n", "rate", "push") if column not in over]
    value = items.norm.where((items.status == 1) & np.isfinite(items.norm))
    groups = items.assign(value=value).groupby(settings, sort=False).value
    found, _ = table(store, name)
    assert len(found["mean"]) == len(groups) == (16 if name == "seeds" else 8)
    for k, column in enumerate(settings):
        values = groups.first().index.get_level_values(k)
        np.testing.assert_array_equal(found[column], np.array([*values]))
    np.testing.assert_array_equal(found["count"], groups.count())
    np.testing.assert_array_equal(found["failed"], groups.size() - groups.count())
    assert (found["failed"] > 0).any()
    # Sums in another order: a few units in the last place.
    np.testing.assert_allclose(found["mean"], groups.mean(), rtol=1e-13)
    np.testing.assert_allclose(found["sd"], groups.std(), rtol=1e-12)
    for q, column in ((0.05, "p5"), (0.5, "p50"), (0.975, "p97_5"), (0.95, "p95")):
        if column in found:
            np.testing.assert_allclose(found[column], groups.quantile(q), rtol=1e-13)


def test_the_interval_of_the_mean_is_that_of_scipy(store, items):
    found, _ = table(store, "seeds")
    value = items.norm.where((items.status == 1) & np.isfinite(items.norm))
    groups = items.assign(value=value).groupby(["n", "rate", "push"], sort=False).value
    assert {*groups.count()} == {0, 5}
    for values, *ends in zip([v for _, v in groups], found["low"], found["high"], strict=True):
        some = values.dropna()
        expected = (np.nan, np.nan)
        if len(some):
            expected = scipy.stats.t.interval(0.95, len(some) - 1, some.mean(), some.sem())
        np.testing.assert_allclose(ends, expected, rtol=1e-12)


def test_counts_are_those_of_pandas(store, items):
    found, attrs = table(store, "counts")
    expected = items.groupby(["n", "status", "outcome"], sort=False).size()
    np.testing.assert_array_equal(found["count"], expected)
    np.testing.assert_allclose(found["share"], expected / len(items))
    labels = attributes(store.root["reduced/counts/outcome"])["labels"]
    outcomes = [labels[code] for code in found["outcome"]]
    names = ["stopped", "diverged"]
    assert outcomes == [names[code] for code in expected.index.get_level_values("outcome")]
    assert "n" in attrs["coordinates"].split()


@pytest.mark.parametrize(("name", "log"), [("histogram", False), ("logs", True)])
def test_histograms_are_those_of_numpy(store, items, name, log):
    values = items.norm[(items.status == 1) & np.isfinite(items.norm)]
    edges = np.geomspace(0.1, 10, 6) if log else np.histogram_bin_edges(values, 7)
    expected, _ = np.histogram(values, edges)
    found, _ = table(store, name)
    np.testing.assert_array_equal(found["count"], expected)
    np.testing.assert_allclose(found["left"], edges[:-1], rtol=1e-14)
    np.testing.assert_allclose(found["right"], edges[1:], rtol=1e-14)


def test_reductions_can_be_changed_after_the_run(store, tmp_path):
    import shutil

    path = tmp_path / "c.zarr"
    shutil.copytree(store.address, path)
    copied = Store.open(str(path))
    set_gather(copied, ["reductions=[{name: histogram, of: steps, bins: 2, table: lengths}]"])
    gather(copied)
    assert list(reduction_tables(copied)) == ["lengths"]
    assert sorted(p.name for p in (path / "reduced").iterdir() if p.is_dir()) == ["lengths"]
    set_gather(copied, ["reductions=[]"])
    gather(copied)
    assert reduction_tables(copied) == {}


def test_reductions_of_an_empty_store_are_empty_tables(tmp_path):
    from stores import make

    job = {**JOB, "gather": {"reductions": [one for one in ASKED if "seed" not in str(one)]}}
    store = make(tmp_path / "e.zarr", job)
    assert gather(store) == 0
    assert len(table(store, "best")[0]["rank"]) == 0
    assert table(store, "histogram")[0]["count"].sum() == 0


def test_settings_are_told_apart_in_order_of_appearance():
    columns = [np.array([2.0, 1, 2, 1]), np.array([[0, 0], [0, 1], [0, 0], [1, 1]])]
    first, which = combinations(columns, 4)
    np.testing.assert_array_equal(first, [0, 1, 3])
    np.testing.assert_array_equal(which, [0, 1, 0, 2])
    first, which = combinations([], 3)  # nothing else was swept
    np.testing.assert_array_equal(first, [0])
    np.testing.assert_array_equal(which, [0, 0, 0])


@pytest.mark.parametrize("most", [3, 400, 10**6])
def test_codes_are_told_apart_by_a_table_or_a_sort(most):
    columns = list(np.random.default_rng(most).integers(-(most == 3), most, (3, 500)))
    first, which = combinations(columns, 500)
    settings = list(zip(*columns, strict=True))
    in_order = list(dict.fromkeys(settings))
    assert first.tolist() == [settings.index(one) for one in in_order]
    assert which.tolist() == [in_order.index(one) for one in settings]


@pytest.mark.parametrize(
    ("reductions", "said"),
    [
        ([{"name": "bets", "by": "norm"}], "reductions.0.name: 'bets' given; did you mean 'best'?"),
        ([{"name": "best", "by": "nrm"}], "0.by: unknown column 'nrm'; did you mean 'norm'?"),
        ([{"name": "best", "by": "x"}], "0.by: unknown column 'x'"),
        ([{"name": "best", "by": "outcome"}], "0.by: 'outcome' does not hold one number an item"),
        ([{"name": "seeds", "of": "norm", "over": ["sed"]}], "0.over: unknown column 'sed'; did you mean 'seed'?"),
        ([{"name": "counts", "by": ["rat"]}], "0.by: unknown column 'rat'; did you mean 'rate'?"),
        ([{"name": "histogram", "of": "norm", "bns": 3}], "bns: unknown field; did you mean 'bins'?"),
        ([{"name": "histogram", "of": "norm", "range": [2, 1]}], "expected two rising numbers"),
        ([{"name": "best"}], "by: required, but not given"),
        ([{"name": "best", "by": "norm", "k": 0}], "k: must be greater than 0"),
        ([{"name": "counts"}, {"name": "counts"}], "1: there is a table 'counts' already"),
        ([{"name": "counts", "table": "items"}], "there is a table 'items' already"),
        ([{"name": "counts", "table": "place"}], "there is a table 'place' already"),
        ([{"by": "norm"}], "reductions.0: expected a mapping with `name:` best, seeds, counts or histogram (given: {'by': 'norm'})"),
        ({"name": "best"}, "expected a list such as [{name: best"),
        ("best", "with the names best, seeds, counts, histogram"),
    ],
)  # fmt: skip
def test_reductions_refuse(reductions, said):
    sweep = {"grid": {"rate": [0.1, 0.2]}, "seeds": 2}
    spec = parse_job({"kernel": "toy", "sweep": sweep, "gather": {"reductions": reductions}}, "job")
    with pytest.raises(JobError) as caught:
        reductions_of(spec, toy.kernel.dims, toy.kernel.tables.dims)
    assert str(caught.value).startswith("gather: reductions")
    assert said in str(caught.value)
    assert options_of(spec, toy.kernel).top == 3  # the kernel's own settings are apart


ESN = WITH_PROGRAMS | {"sweep": {"grid": {"g": [0.9, 1.1]}, "seeds": 2}}
TASKS = {
    "kernel": "train_rnn",
    "params": {"n": 4, "n_batches": 2},
    "sweep": {"zip": {"task": ["decision", "flipflop"], "cell": ["gru", "gru_torch"]}},
}


@pytest.mark.parametrize(
    ("job", "asked", "said"),
    [
        (ESN, {"name": "seeds", "of": "lyapunov"}, "0.of: unknown column 'lyapunov'"),
        (ESN, {"name": "counts", "by": ["lyapunov"]}, "0.by: unknown column 'lyapunov'"),
        (TASKS, {"name": "histogram", "of": "cell"}, "0.of: 'cell' does not hold one number an item"),
        (TASKS, {"name": "best", "by": "task"}, "0.by: 'task' does not hold one number an item"),
        (JOB, {"name": "best", "by": "push"}, "0.by: 'push' does not hold one number an item"),
    ],
)  # fmt: skip
def test_reductions_over_what_the_items_do_not_have_are_refused_at_planning(job, asked, said):
    spec = parse_job({**job, "gather": {"reductions": [asked]}}, "job")
    with pytest.raises(JobError) as caught:
        prepare(spec, BASE, "job", lambda: pytest.fail("it is not planned"))
    assert str(caught.value).startswith(f"job: gather: reductions.{said}")


def test_an_outcome_that_the_kernel_does_not_have_is_counted_as_such():
    codes = np.array([1, 3, 0, 3, -1], np.int8)
    columns = {"item": np.arange(5), "outcome": codes, "status": np.ones(5, np.int8)}
    labels = {"outcome": ["stopped", "diverged"], "status": ["pending", "done"], "item": []}
    made = MAKERS[Counts](Counts(name="counts"), Items(columns, labels, []))
    found = dict(zip(made["outcome"].values.tolist(), made["count"].values.tolist(), strict=True))
    assert found == {"": 1, "stopped": 1, "diverged": 1, "outcome 3": 2}


def test_reductions_of_a_store_are_not_changed_to_what_its_items_do_not_have(tmp_path):
    """They would stop every query, which makes the tables first."""
    store, _ = run(tmp_path / "e.zarr", {**ESN, "gather": {"reductions": [{"name": "counts"}]}})
    assert len(query(store, table="items")) == 4
    for asked in (
        "{name: seeds, of: lyapunov}",
        "{name: counts, by: [lyapunov]}",
        "{name: best, by: replay_nmse}",
    ):
        with refused(JobError):
            set_gather(store, [f"reductions=[{asked}]"])
    set_gather(store, ["reductions=[{name: best, by: g, k: 1}]"])
    gather(store)
    assert query(store, table="best").g.tolist() == [0.9]
