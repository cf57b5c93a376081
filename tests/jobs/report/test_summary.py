"""Results that are NaN for many items, and declared ones that none returns, are told by plan and status."""

import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import toy
from search_jobs import HALVING
from stores import BASE, make

from ctd.kernel import Outcome, Var
from jobs.gather.gather import gather
from jobs.plan.layout import Plan, Shard
from jobs.query.query import table
from jobs.report.page.facts import facts as page_facts
from jobs.report.planned import plan_rows
from jobs.report.summary import _unfinished_text, facts, state
from jobs.report.warnings import failing_outcomes, nan_results
from jobs.run.prepare import open_or_create, prepare_here
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor, nan_counts, outcome_counts
from jobs.spec.job import parse_job
from jobs.store.events import read_events
from jobs.store.look import Look
from jobs.store.marker import Marker
from jobs.store.store import Store
from jobs.store.tally import Tally

HOLED = """
import warnings
from dataclasses import replace
import jax.numpy as jnp
from pydantic import Field
from ctd.kernel import Traced, Var
from toy import kernel as toy

class Params(toy.Params):
    gain: Traced[float] = Field(1.0, description="of another method")
    at: Traced[tuple[float, ...]] = Field((), description="zeros are no news")

def result(static, shared, traced, key, state):
    values = toy.result(static, shared, traced, key, state)
    return values | {"norm": jnp.where(traced.rate > 0.25, jnp.nan, values["norm"])}

def load(inputs):
    warnings.warn("data are old")
    return toy.load(inputs)

def reduce(*arguments):
    warnings.warn("three places are few")
    return toy.tables.reduce(*arguments)

kernel = replace(toy, name="holed", load=load, tables=replace(toy.tables, reduce=reduce), Params=Params, result=result)
"""
JOB = "kernel: holed\nparams: {n_steps: 5, gain: 2, at: [0, 0]}\nsweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}\n"


def test_plan_and_status_warn(ctd, job_file):
    path = job_file(JOB)
    (path.parent / "holed.py").write_text(HOLED)
    idle = "gain has no effect here (of another method)"
    assert json.loads(ctd("plan", path, "--json")[1])["warnings"] == f"data are old; {idle}"
    code, _, err = ctd("run", path, "--executor", "serial")
    assert code == 0
    assert "warning: norm is NaN or infinite in 3 of 6 done items" in err
    assert err.count("three places are few") == 1
    assert f"warning: {idle}" in err
    store = path.with_suffix(".zarr")
    # A kernel's warnings from `reduce` are kept with its tables.
    both = ["norm is NaN or infinite in 3 of 6 done items", "three places are few"]
    assert json.loads(ctd("status", store, "--json")[1])["warnings"] == [
        "data are old",
        idle,
        *both,
    ]
    # Those of `load` are kept with the tables, too, and `best` tells them.
    assert "data are old" in Store.open(str(store)).root["gathered/0"].attrs["warnings"]
    assert "warning: data are old" in ctd("best", store, "--by", "norm")[2]
    assert f"warnings     {'; '.join(['data are old', idle, *both])}" in ctd("status", store)[1]
    assert both[0] in ctd("plan", path)[1]
    assert f"warning: {both[0]}" in ctd("best", store, "--by", "norm")[2]
    code, out, err = ctd("best", store, "--by", "norm", "--json")
    assert (json.loads(out)["without"], f"warning: {both[0]}" in err) == (3, True)
    assert ctd("report", store)[0] == 0
    assert both[0] in store.with_suffix(".html").read_text()
    assert [m.nan for m in Store.open(str(store)).committed.markers()] == [{"norm": 3}]


def test_a_plan_counts_what_a_group_may_get_of_a_search_that_chooses():
    """Here, as if another group had the same items."""
    ready = prepare_here(parse_job(HALVING, "job"), BASE, "job", 1)
    assert plan_rows(ready, "none.zarr", 1)[0]["items"] == [27]
    ready = replace(ready, plan=Plan(ready.plan.group_sizes, ready.plan.layouts, 2))
    assert plan_rows(ready, "none.zarr", 1)[0]["items_at_most"] == [27]


def test_nan_of_done_items_alone_is_counted():
    nan = np.nan
    values = {
        "status": np.array([1, 1, 2, 3, 1], np.int8),  # failed and dropped ones may well be NaN
        "loss": np.array([nan, 1, nan, nan, nan]),
        "curve": np.array([[1, nan]] * 5),  # ended early
        "gone": np.full((5, 2), nan),
        "none": np.zeros((5, 0)),
        "z": np.array([1j, 1, 1, 1, nan * 1j]),
        "huge": np.array([np.inf, 1, nan, nan, -np.inf]),
        "search_metric": np.full((5, 2), nan),
        "n": np.arange(5),
    }
    assert nan_counts(values) == {"loss": 2, "gone": 3, "z": 1, "huge": 2}
    assert nan_counts({"status": np.array([2], np.int8), "loss": np.array([nan])}) == {}


@pytest.mark.parametrize(
    ("metric", "warned_of"),
    [("c", ["b"]), ("a", ["a", "b"]), ("", ["a", "b"])],
)
def test_nan_counts_in_any_item_of_the_metric(metric, warned_of):
    """Results beside a metric may have no value for some items."""
    marked = lambda n, nan: Marker(shard=Shard(0, 0, 0, n), nan=nan)
    markers = [marked(10, {"a": 1}), marked(10, {"b": 3}), marked(0, None)]
    found = nan_results(Tally.from_markers(markers), metric)
    of = {
        "a": "a is NaN or infinite in 1 of 20 done items",
        "b": "b is NaN or infinite in 3 of 20 done items",
    }
    assert found == [of[name] for name in warned_of]


def test_nan_by_design_is_not_told():
    """Half of the rows of a matrix of distances, cycles where there is none; but of the metric it is."""
    tally = Tally(done=4, not_finite=Counter(period=2, size=3))
    dims = {"period": Var(may_be_nan=True), "size": Var()}
    assert nan_results(tally, "", dims) == ["size is NaN or infinite in 3 of 4 done items"]
    assert nan_results(tally, "period", dims)[0].startswith("period is NaN or infinite in 2")


@pytest.mark.parametrize("n", [1, 2])
def test_many_items_that_failed_are_told(n):
    """Above a tenth, over all shards; outcomes that are no failures never."""
    halves = [Marker(shard=Shard(k, 0, 0, 5), outcomes={"bad": k * n, "slow": 4}) for k in (0, 1)]
    found = failing_outcomes(
        Tally.from_markers(halves),
        [Outcome("slow"), Outcome("bad", "left all bounds", failed=True)],
    )
    assert found == ["2 of 10 items ended as bad: left all bounds"] * (n == 2)


def test_an_outcome_that_the_kernel_does_not_have_is_told():
    values = {"outcome": np.array([0, 3, 3, 1]), "status": np.ones(4, np.int8)}
    counts = outcome_counts(toy.kernel, values)
    assert counts == {"stopped": 1, "diverged": 1, "outcome 3": 2}
    found = failing_outcomes(Tally(done=99, outcomes=Counter(counts)), toy.kernel.outcomes)
    assert found == ["2 items ended as outcome 3, but the kernel has the outcomes 0 to 1"]


def test_nan_is_counted_of_items_that_a_search_has_not_dropped():
    marker = Marker(shard=Shard(0, 0, 0, 24), nan={"loss": 2}, outcomes={"dropped": 22})
    tally = Tally.from_markers([marker], is_searched=True)
    assert nan_results(tally, "") == ["loss is NaN or infinite in 2 of 2 done items"]


def test_dropped_items_of_a_kernel_without_outcomes_are_not_done(tmp_path):
    (tmp_path / "plain_kernel.py").write_text(PLAIN)
    job = {
        "kernel": "plain_kernel",
        "sweep": {"seeds": 9},
        "run": {"shard_items": 3, "slots": 3, "microbatch": 1},
    }
    job |= {"search": {"method": "asha", "metric": "loss", "min_advances": 1, "eta": 3}}
    path = str(tmp_path / "p.zarr")
    store = open_or_create(parse_job(job, "job"), str(tmp_path), "job", path, SerialExecutor(1))
    before = time.time()
    run_shards(store, SerialExecutor(1))
    gather(store)
    dropped = (table(store, "items")["status"] == "dropped").sum()
    found = state(Look(store))
    assert found["items_dropped"] == dropped > 0
    assert found["items_done"] == 9 - dropped
    ends = {one["name"]: one["n"] for one in page_facts(store)["outcomes"]}
    assert ends == {"done": 9 - dropped, "dropped": dropped}, "beside stores with outcomes, too"
    # Each shard ends when it is committed, whatever its rounds cost.
    done = {event.shard: event.time for event in read_events(store) if event.kind == "done"}
    ended = {m.shard.number: m.ended for m in store.committed.markers()}
    assert sorted(ended, key=ended.get) == sorted(done, key=done.get)
    assert all(before <= ended[k] <= done[k] for k in done)


PLAIN = """
import jax
import jax.numpy as jnp
from ctd.kernel import Kernel, Params, Traced, Var


class Plain(Params):
    rate: Traced[float] = 1.0


kernel = Kernel(
    "plain_kernel", Plain, {"loss": Var()},
    lambda static, shared, traced, key: {"age": jnp.int32(0), "loss": jax.random.uniform(key)},
    lambda static, shared, traced, key, state: state | {"age": state["age"] + 1},
    lambda state: state["age"] >= 9,
    lambda static, shared, traced, key, state: {"loss": state["loss"]},
)
"""


@pytest.mark.parametrize(
    ("n", "done", "dropped", "failed", "text"),
    [
        (20, 19, 0, 1, "done 19, failed 1"),
        (9, 1, 8, 0, "done 1, dropped 8"),
        (1, 0, 0, 0, "done 0, 1 of 1 item left"),
    ],
)
def test_status_counts_dropped_and_failed_items_apart(n, done, dropped, failed, text):
    assert Tally(n, done, dropped, failed).text == text


def test_tallies_add_up():
    first = Tally(4, 2, 1, 0, 2, 1, Counter(stopped=2, dropped=1))
    both = first + Tally(3, 2, 0, 1, 1, 1, Counter(stopped=3))
    assert both == Tally(7, 4, 1, 1, 3, 2, Counter(stopped=5, dropped=1))
    assert (both.ended, both.left, both.is_complete) == (6, 1, False)
    assert both.state == "incomplete, 1 of 7 failed"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, ""),
        ({"checkpoints": 0}, "no checkpoint yet: unfinished shards begin again"),
        ({"checkpoints": 1}, "1 checkpoint; a run goes on from there"),
        ({"checkpoints": 6, "decisions": 8}, "8 decisions of the search, 6 checkpoints; a run goes on from there"),
        ({"checkpoints": 1, "decisions": 1, "work": 3.0}, "1 decision of the search, 50.0% of the work; a run goes on from there"),
    ],
)  # fmt: skip
def test_text_of_what_is_left(left, said):
    none = {"items": 0, "work": 0.0, "checkpoints": 0, "decisions": 0}
    assert _unfinished_text(none | left if left else None, 6) == said


def test_status_says_what_a_stopped_run_left_in_checkpoints(tmp_path, monkeypatch):
    """Of six items in one shard, two end at once, and then the run is stopped."""
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    sweep = {"zip": {"n_steps": [1, 1, 60, 60, 60, 60], "rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}
    run_ = {"shard_items": 6, "slots": 2, "microbatch": 2, "checkpoint_s": 0.0}
    store = make(tmp_path / "s.zarr", {"kernel": "toy", "sweep": sweep, "run": run_})
    stop = Stop()
    listen = lambda p: p.running_items > 1 and stop.ask("test")
    stopped = run_shards(store, SerialExecutor(1), listen, stop)
    assert (stopped.running_items, stopped.share) == (
        2,
        1 / 3,
    )  # after its shard has left a checkpoint, too
    found = state(Look(store))
    assert (found["items_done"], found["stopped"]) == (0, "test")
    assert found["unfinished"] == {"items": 2, "work": 2.0, "checkpoints": 1, "decisions": 0}
    told = facts(Tally(), found)["unfinished"]
    assert told == "2 items ended, 33.3% of the work; a run goes on from there"
    three = {"shards": 3, "shards_done": 3, "shard_s": 84.66}
    assert facts(Tally(), found | three)["shards"] == "3 of 3 shards, median 84.7 s"
    early, heard = Stop(), []
    listen = lambda p: (heard.append(p.waiting), p.waiting[:9] == "compiling" and early.ask("test"))
    run_shards(store, SerialExecutor(1), listen, early)
    assert heard[-1] != "starting the first worker", "nor when it has been told to stop"
    heard = []
    run_shards(store, SerialExecutor(1), lambda p: heard.append((p.share, p.waiting)))
    waits = ["starting a worker", "reading the data", "compiling for the first advance"]
    waits += ["reading the checkpoint", "compiling for the first advance", ""]
    assert [wait for k, (_, wait) in enumerate(heard) if k == 0 or wait != heard[k - 1][1]] == waits
    assert min(share for share, _ in heard) == heard[0][0] == 1 / 3
    found = state(Look(store))
    assert (found["items_done"], found["unfinished"]) == (6, None)
