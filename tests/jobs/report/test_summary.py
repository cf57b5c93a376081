"""Results that are NaN for many items, and declared ones that none returns, are told by plan and status."""

import json

import numpy as np

from ctd.catalogue import load_kernel
from jobs.report.summary import nan_results, unreturned
from jobs.run.worker import nan_counts
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
    assert ctd("run", path, "--executor", "serial")[0] == 0
    store = path.with_suffix(".zarr")
    both = ["norm is NaN in 3 of 6 items", declared]
    assert json.loads(ctd("status", store, "--json")[1])["warnings"] == both
    assert f"warnings        {', '.join(both)}" in ctd("status", store)[1]
    assert "norm is NaN in 3 of 6 items" in ctd("plan", path)[1]
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


def test_a_few_nan_and_ctds_own_kernels_are_no_warning():
    class Marked:
        n_failed = 0

        def __init__(self, n, nan):
            self.shard, self.nan = type("Shard", (), {"n_items": n}), nan

    assert nan_results([Marked(10, {"a": 1}), Marked(10, {"a": 1, "b": 3}), Marked(0, None)]) == [
        "b is NaN in 3 of 20 items"
    ]
    assert unreturned("train_rnn", load_kernel("train_rnn").dims, ["eval_loss"]) == []
