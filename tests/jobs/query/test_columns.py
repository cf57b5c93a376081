"""jobs.query.columns: order, texts and rows of any kind, against pandas."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.query.columns import (
    argsort,
    as_array,
    as_column,
    concat,
    labelled,
    rows_as_text,
    sort_key,
)

NUMBERS = st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.5, np.nan, np.inf]), min_size=1, max_size=30)


@given(NUMBERS, st.booleans(), st.integers(0, 40))
def test_order_equals_pandas(values, falling, limit):
    values = np.asarray(values)
    second = np.arange(len(values)) % 3
    frame = pd.DataFrame({"a": values, "b": second})
    expected = frame.sort_values(["a", "b"], ascending=[not falling, False], kind="stable").index
    found = argsort([sort_key(values, falling), sort_key(second, True)], limit)
    assert found.tolist() == expected[:limit].tolist()


@pytest.mark.parametrize(
    "values",
    [np.array([3, 0, 255], np.uint8), np.array([True, False, True]), np.array([-5, 2, -(2**63)])],
)
def test_rank_falls_without_overflow(values):
    expected = sorted(range(3), key=lambda k: -int(values[k]))
    assert argsort([sort_key(values, True)]).tolist() == expected


def test_columns_of_text():
    text = labelled(np.array([1, 0, -1, 1]), ["zebra", "ape"])
    assert as_array(text).tolist() == ["ape", "zebra", "", "ape"]
    assert argsort([sort_key(text, False)]).tolist() == [2, 0, 3, 1]
    both = concat([text, as_column(["ape", "cat"]), np.array([7])])
    assert as_array(both).tolist() == ["ape", "zebra", "", "ape", "ape", "cat", "7"]


def test_rows_as_text_tells_rows_apart():
    rows = np.array([[1, 0.1], [1, 0.1 + 1e-12], [np.nan, 2], [1, 0.1]])
    text = rows_as_text(rows)
    assert text.codes.tolist() == [0, 1, 2, 0]
    assert as_array(text)[0] == "[1, 0.1]"
    without = rows_as_text(np.zeros((2, 0)))  # the inputs of a network that has none
    assert as_array(without).tolist() == ["[]", "[]"]
