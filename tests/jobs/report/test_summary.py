"""Results that are NaN for many items, and declared ones that none returns, are told by plan and status."""

import json

import numpy as np
import pytest
from stores import make

from cluster.cli.recovery import status_lines
from ctd.catalogue import load_kernel
from jobs.plan.layout import Shard
from jobs.report.summary import counted, nan_results, state, unreturned
from jobs.run.shards import run_shards
from jobs.run.stop import Stop
from jobs.run.worker import SerialExecutor, nan_counts
from jobs.store.marker import Marker
from jobs.store.store import Store

HOLED = """
from dataclasses import replace
import jax.numpy as jnp
from ctd.kernel import Var
from toy import kernel as toy

def result(static, shared, traced, key, state):
    values = toy.result(static, shared, traced, key, state)
    return values | {"norm": jnp.where(traced.rate > 0.25, jnp.nan, values["norm"])}

kernel = replace(toy, name="holed", result=result, dims={**toy.dims, "norm2": Var(), "nrm": Var()})
"""
JOB = "kernel: holed\nparams: {n_steps: 5}\nsweep: {grid: {rate: {linspace: [0, 0.5, 6]}}}\n"


def test_plan_and_status_warn(ctd, job_file):
    path = job_file(JOB)
    (path.parent / "holed.py").write_text(HOLED)
    declared = "norm2, nrm: declared in `dims` of kernel holed, but returned for no item"
    assert json.loads(ctd("plan", path, "--json")[1])["warnings"] == declared
    code, _, err = ctd("run", path, "--executor", "serial")
    assert code == 0
    assert "warning: norm is NaN in 3 of 6 done items" in err
    store = path.with_suffix(".zarr")
    both = ["norm is NaN in 3 of 6 done items", declared]
    assert json.loads(ctd("status", store, "--json")[1])["warnings"] == both
    assert f"warnings     {'; '.join(both)}" in ctd("status", store)[1]
    assert both[0] in ctd("plan", path)[1]
    assert f"warning: {both[0]}" in ctd("best", store, "--by", "norm")[2]
    code, out, err = ctd("best", store, "--by", "norm", "--json")
    assert (json.loads(out)["without"], f"warning: {both[0]}" in err) == (3, True)
    assert ctd("report", store)[0] == 0
    assert both[0] in store.with_suffix(".html").read_text()
    assert [m.nan for m in Store.open(str(store)).committed.markers()] == [{"norm": 3}]


def test_nan_of_done_items_alone_is_counted():
    nan = np.nan
    values = {
        "status": np.array([1, 1, 2, 3, 1], np.int8),  # failed and dropped ones may well be NaN
        "loss": np.array([nan, 1, nan, nan, nan]),
        "curve": np.array([[1, nan]] * 5),  # ended early
        "gone": np.full((5, 2), nan),
        "none": np.zeros((5, 0)),
        "z": np.array([1j, 1, 1, 1, nan * 1j]),
        "search_metric": np.full((5, 2), nan),
        "n": np.arange(5),
    }
    assert nan_counts(values) == {"loss": 2, "gone": 3, "z": 1}
    assert nan_counts({"status": np.array([2], np.int8), "loss": np.array([nan])}) == {}


@pytest.mark.parametrize(
    ("kernel", "metric", "told"),
    [("esn", "", ["b"]), ("esn", "a", ["a", "b"]), ("mine", "", ["a", "b"])],
)
def test_nan_is_told_of_the_metric_and_of_own_kernels_in_any_item(kernel, metric, told):
    """Further results of ctd's kernels may have no value for some items."""
    marked = lambda n, nan: Marker(shard=Shard(0, 0, 0, n), nan=nan)
    markers = [marked(10, {"a": 1}), marked(10, {"b": 3}), marked(0, None)]
    found = nan_results(markers, kernel, metric)
    of = {
        "a": "a is NaN in 1 of 20 done items",
        "b": "b is NaN in 3 of 20 done items",
    }
    assert found == [of[name] for name in told]


def test_ctds_own_kernels_declare_more_than_they_return():
    assert unreturned("train_rnn", load_kernel("train_rnn").dims, ["eval_loss"]) == []


@pytest.mark.parametrize(
    ("n", "done", "dropped", "failed", "text"),
    [
        (20, 19, 0, 1, "done 19, failed 1"),
        (9, 1, 8, 0, "done 1, dropped 8"),
        (1, 0, 0, 0, "done 0, 1 of 1 item left"),
    ],
)
def test_status_counts_dropped_and_failed_items_apart(n, done, dropped, failed, text):
    found = {"items": n, "items_done": done, "items_dropped": dropped, "items_failed": failed}
    assert counted(found) == text


def test_status_says_what_a_stopped_run_left_in_checkpoints(tmp_path, monkeypatch):
    """Of six items in one shard, two end at once, and then the run is stopped."""
    monkeypatch.setattr("jobs.run.task.TICK_S", 0.0)
    sweep = {"zip": {"n_steps": [1, 1, 60, 60, 60, 60], "rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}
    run_ = {"shard_items": 6, "slots": 2, "microbatch": 2, "checkpoint_s": 0.0}
    store = make(tmp_path / "s.zarr", {"kernel": "toy", "sweep": sweep, "run": run_})
    stop = Stop()
    run_shards(store, SerialExecutor(1), lambda p: p.running_items > 1 and stop.ask("test"), stop)
    found = state(store)
    assert (found["items_done"], found["stopped"]) == (0, "test")
    assert found["unfinished"] == {"items": 2, "work": 2.0}
    told = status_lines(found)[0]["unfinished"]
    assert told == "2 items ended, 33.3% of the work; a run goes on from there"
    run_shards(store, SerialExecutor(1))
    found = state(store)
    assert (found["items_done"], found["unfinished"]) == (6, None)
