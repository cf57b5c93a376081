"""A method of search is one file, and a line in the table of methods."""

import numpy as np
import pytest
from search_jobs import HALVING, BetterHalf
from stores import BASE, run

from jobs.errors import JobError
from jobs.plan.layout import Machines
from jobs.query.best import best
from jobs.query.query import query
from jobs.report.planned import plan_rows
from jobs.run.prepare import prepare
from jobs.search import METHODS
from jobs.spec.job import JobSpec, parse_job
from jobs.spec.presets import job_schema
from jobs.store.roles import Metric

JOB = HALVING | {"search": {"method": "better_half", "metric": "loss", "after": 4}}


@pytest.fixture
def further_method(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "better_half", BetterHalf)
        JobSpec.model_rebuild(force=True)
        yield
    JobSpec.model_rebuild(force=True)


def test_further_method_runs(tmp_path, further_method):
    """It is read, checked, planned, computed, stored and asked for as every other one."""
    assert "BetterHalf" in job_schema()["$defs"]
    ready = prepare(parse_job(JOB, "job"), BASE, "job", lambda: Machines(1, 10**9))
    _, total = plan_rows(ready, str(tmp_path / "none"), 1)
    assert total["search"].startswith("the better half of 27 goes on after 4 advances")
    store, progress = run(tmp_path / "s.zarr", JOB)
    frame = query(store, sort="item")
    np.testing.assert_array_equal(frame.search_advances, np.where(frame.status == "done", 60, 4))
    at_rung = query(store, table="search", where="rung == 0", sort="item").loss
    np.testing.assert_array_equal(frame.status == "done", at_rung <= np.nanmedian(at_rung))
    assert progress.outcomes["dropped"] == best(store, Metric("loss")).dropped == 13


def test_further_method_misspelt(further_method):
    job = JOB | {"search": {**JOB["search"], "afer": 4}}
    with pytest.raises(JobError) as caught:
        parse_job(job, "job")
    assert "did you mean 'after'?" in str(caught.value)
