"""jobs.query and jobs.expression: the answers against pandas, the refusals word by word."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import JOB, run

from jobs.errors import JobError
from jobs.expression import Expression
from jobs.query import query, table, tables


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return run(tmp_path_factory.mktemp("query") / "q.zarr", JOB)[0]


def test_query_tables(store):
    assert tables(store) == ["items", "place", "shards"]
    assert len(table(store, "items")) == 44
    assert list(table(store, "items").columns[:3]) == ["item", "n", "rate"]
    assert len(table(store, "place")) == 6
    assert len(table(store, "shards")) == 8


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


def test_query_groups_as_pandas(store):
    found = query(store, group_by=["n"], agg="median(norm), count(item), max(rate)", sort="-n")
    expected = table(store, "items").groupby("n").norm.median()
    assert list(found.n) == [5, 3]
    np.testing.assert_allclose(found["median(norm)"], expected.loc[[5, 3]])
    assert list(found["count(item)"]) == [22, 22]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"where": "nrm > 1"}, "unknown column 'nrm'; did you mean 'norm'?"),
        ({"sort": "-nrm"}, "unknown column 'nrm'; did you mean 'norm'?"),
        ({"columns": ["nrm"]}, "unknown column 'nrm'; did you mean 'norm'?"),
        ({"source": "itms"}, "table 'itms' unknown; did you mean 'items'?"),
        ({"where": "norm >"}, "not an expression"),
        ({"where": "norm"}, "a condition"),
        ({"where": "norm > 'a'"}, "text compared with a number"),
        ({"where": "outcome > 1"}, "text compared with a number"),
        ({"where": "__import__('os').system('x')"}, "not allowed"),
        ({"where": "open('x')"}, "function 'open'"),
        ({"where": "norm.__class__ == 1"}, "Attribute is not allowed"),
        ({"where": "[x for x in norm]"}, "ListComp is not allowed"),
        ({"where": "(lambda: 1)() == 1"}, "Call is not allowed"),
        ({"group_by": ["n"]}, "go together"),
        ({"group_by": ["n"], "agg": "median(outcome)"}, "outcome is text"),
        (
            {"group_by": ["n"], "agg": "medan(norm)"},
            "unknown function 'medan'; did you mean 'median'?",
        ),
        ({"group_by": ["n"], "agg": "norm"}, "function(column) expected"),
    ],
)
def test_query_refuses(store, asked, said):
    with pytest.raises(JobError) as caught:
        query(store, **asked)
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "column"), [("a ><b", 4), ("a + foo(b)", 5), ("a and b.c", 7)])
def test_expression_shows_the_place(text, column):
    with pytest.raises(JobError) as caught:
        Expression(text)
    message = str(caught.value).splitlines()
    assert f"column {column}" in message[0]
    assert message[-1].index("^") - message[-2].index(text) == column - 1


TERMS = st.sampled_from(["a", "b", "2", "a + b * 2", "-a", "abs(b)", "a ** 2", "(a - b) / 4"])
COMPARES = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@given(TERMS, COMPARES, TERMS, st.sampled_from(["and", "or"]), TERMS)
def test_expression_equals_python(left, op, right, join, last):
    """On Python's own floats the language means what Python means."""
    text = f"{left} {op} {right} {join} not {last} < 0.5"
    expression = Expression(text)
    for a, b in ((0.0, 1.0), (-2.0, 0.5), (3.0, 3.0)):
        found = expression({"a": np.array([a]), "b": np.array([b])})
        assert bool(np.all(found)) == eval(text, {"a": a, "b": b, "abs": abs})


def test_expression_sets_and_constants():
    columns = {
        "s": np.array(["x", "y"]),
        "v": np.array([1.0, np.nan]),
        "t": np.array([True, False]),
    }
    assert list(Expression("s in ['x']")(columns)) == [True, False]
    assert list(Expression("not isnan(v) and t == true")(columns)) == [True, False]
    assert list(Expression("0 < v < 2")(columns)) == [True, False]
