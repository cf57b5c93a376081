"""jobs.store.roles: one metric for each store, with its direction."""

import numpy as np
import pytest
from search_jobs import HALVING
from stores import JOB, make

from jobs.store.roles import Metric


@pytest.mark.parametrize(
    ("more_is_better", "expected"), [(False, [4, 2, 0, 1, 3, 5]), (True, [0, 2, 4, 1, 3, 5])]
)
def test_rank_puts_what_is_no_number_last(more_is_better, expected):
    values = np.array([3.0, np.nan, 2.0, np.inf, 1.0, -np.inf])
    assert Metric("loss", more_is_better).rank(values).tolist() == expected


def test_metric_of_the_question_the_search_or_the_kernel(tmp_path):
    plain = make(tmp_path / "plain.zarr", JOB)
    assert plain.roles.metric is None, "the toy kernel names none"
    assert plain.roles.metric_by("norm") == Metric("norm")
    assert plain.roles.metric_by("norm", "max") == Metric("norm", more_is_better=True)
    searched = make(tmp_path / "searched.zarr", HALVING)
    mode = HALVING["search"].get("mode", "min")
    assert searched.roles.metric == Metric(HALVING["search"]["metric"], mode == "max")
